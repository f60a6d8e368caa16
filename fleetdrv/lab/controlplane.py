"""A real Kubernetes control plane on this machine: etcd, API server, controllers and scheduler, on loopback.

Real, because what matters of a cluster here (compare-and-swap, eviction against budgets, taints that
controllers add and remove, RBAC) is what a fake gets wrong. There are no kubelets: whoever makes Node objects
plays theirs.
"""

import base64
import http.client
import json
import os
import random
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import yaml

from fleetdrv.lab import LabError, k8sbuild, pki, processes
from fleetdrv.lab.k8sflags import AUDIT_POLICY, OURSELVES, Plane, commands
from fleetdrv.lab.locks import exclusive

READY_DEADLINE_SECONDS = 180.0  # ten where nothing else runs
STOP_DEADLINE_SECONDS = 15.0
HOST_SEEN_FROM_GUEST = "10.0.2.2"  # QEMU's user networking shows the host's loopback there

_NAMES = ("127.0.0.1", HOST_SEEN_FROM_GUEST, "localhost", "kubernetes", "kubernetes.default.svc", "10.96.0.1")
_PORTS = range(20000, 32000)  # outgoing connections get higher ones, so a restart finds them free
_READY = "/readyz?verbose"
_ACCOUNT = "/api/v1/namespaces/kube-public/serviceaccounts/default"


def start(folder: Path, cache: Path, say: Callable[[str], None]) -> Path:
    """Bring the control plane up, and return the administrator's kubeconfig once its controllers work.

    Harmless when it runs; a part that died is started again. Keys, ports and data stay in the folder, so
    kubeconfigs survive a restart. A failed start leaves nothing running and names the part that failed.
    `audit.log` in the folder tells every write of everybody but the control plane itself and the nodes.
    """
    programs = k8sbuild.binaries(cache.absolute(), say)
    folder = folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    with exclusive(folder / "start.lock", "another process starts the control plane; waiting for it", say):
        if not running(folder):
            say("starting the control plane")
            try:
                _start(_prepare(folder), programs)
            except BaseException:
                stop(folder)
                raise
    return folder / "kubeconfig"


def stop(folder: Path) -> None:
    """End every part, the last started first; harmless when nothing runs. Keys and data stay."""
    for name in reversed(k8sbuild.PROGRAMS):
        recorded = processes.load(folder, name)
        if recorded is not None:
            recorded.stop(STOP_DEADLINE_SECONDS)


def running(folder: Path) -> bool:
    """Tell whether every part is alive; it does not ask whether they answer."""
    return all(_alive(folder, name) for name in k8sbuild.PROGRAMS)


def user_kubeconfig(folder: Path, name: str, groups: Sequence[str] = (), *, host: str = "127.0.0.1") -> Path:
    """Write a kubeconfig for another user, who may do what RBAC grants the name and the groups, no more.

    For a node's own identity: name `system:node:NAME`, group `system:nodes`, host HOST_SEEN_FROM_GUEST.
    """
    plane = Plane(folder, _ports(folder))
    users = folder / "users"
    users.mkdir(mode=0o700, exist_ok=True)
    key = quote("+".join([name, *sorted(groups)]), safe=":+")
    pair = pki.Pair(users / f"{key}.crt", users / f"{key}.key")
    pki.issue(plane.pair("ca"), pair, name, groups=groups)
    path = users / (f"{key}.kubeconfig" if host == "127.0.0.1" else f"{key}@{host}.kubeconfig")
    return _kubeconfig(plane, name, pair, path, host)


def _prepare(folder: Path) -> Plane:
    """Make what the programs read: ports, keys, certificates, kubeconfigs, the audit policy."""
    plane = Plane(folder, _ports(folder))
    authority = pki.authority(folder, "ca")
    etcd_authority = pki.authority(folder, "etcd-ca")  # its own: no user opens the store behind RBAC
    pki.signing_key(folder / "service-accounts.key")
    pki.issue(authority, plane.pair("api"), "kube-apiserver", hosts=_NAMES)
    pki.issue(etcd_authority, plane.pair("etcd"), "etcd", hosts=_NAMES[:1])
    admin = pki.issue(authority, plane.pair("admin"), "admin", groups=["system:masters"])
    _kubeconfig(plane, "admin", admin, folder / "kubeconfig")
    for name in k8sbuild.SERVERS[1:]:
        user = f"system:{name}"
        pair = pki.issue(authority, plane.pair(name), user, groups=["system:masters", OURSELVES])
        _kubeconfig(plane, user, pair, folder / f"{name}.kubeconfig")
    (folder / "audit-policy.yaml").write_text(yaml.safe_dump(AUDIT_POLICY))
    return plane


def _ports(folder: Path) -> dict[str, int]:
    """Read the ports chosen once, or choose three that are free now."""
    file = folder / "ports.json"
    if file.exists():
        return dict(json.loads(file.read_text()))
    candidates = random.sample(_PORTS, 100)
    free = [port for port in candidates if _free(port)][:3]
    ports = dict(zip(("api", "etcd", "etcd-peer"), free, strict=True))
    pki.write_secret(file, json.dumps(ports).encode())
    return ports


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _kubeconfig(plane: Plane, user: str, pair: pki.Pair, path: Path, host: str = "127.0.0.1") -> Path:
    """Write a kubeconfig that needs no other file, so that it can be copied to another machine."""
    name = "fleetdrv-lab"
    server = f"https://{host}:{plane.ports['api']}"
    cluster = {"server": server, "certificate-authority-data": _base64(plane.pair("ca").certificate)}
    login = {"client-certificate-data": _base64(pair.certificate), "client-key-data": _base64(pair.key)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": user, "user": login}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "current-context": name,
    }
    pki.write_secret(path, yaml.safe_dump(content, sort_keys=False).encode())
    return path


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def _start(plane: Plane, programs: Path) -> None:
    """Start what does not run, in two steps: controllers give up where the API is not there within 10 s."""
    argv = {name: [str(programs / name), *flags] for name, flags in commands(plane).items()}
    deadline = time.monotonic() + READY_DEADLINE_SECONDS
    store, api, *clients = k8sbuild.PROGRAMS
    _ensure(plane, argv, store, api)
    _wait(plane, (store, api), api, _READY, deadline)
    _ask(plane, "DELETE", _ACCOUNT)  # nobody's; controllers work as soon as one of them has made it again
    _ensure(plane, argv, *clients)
    _wait(plane, k8sbuild.PROGRAMS, "kube-controller-manager", _ACCOUNT, deadline)


def _ensure(plane: Plane, argv: Mapping[str, Sequence[str]], *names: str) -> None:
    environment = {"PATH": os.defpath, "HOME": str(plane.folder)}  # no proxies, no ETCD_ variables
    for name in names:
        if not _alive(plane.folder, name):
            processes.start(argv[name], folder=plane.folder, name=name, env=environment)


def _wait(plane: Plane, started: Sequence[str], part: str, path: str, deadline: float) -> None:
    """Return once the API says yes to the path, as the part lets it; all that was started must live."""
    while (answer := _ask(plane, "GET", path)) is not None:
        for name in started:
            if not _alive(plane.folder, name):
                raise _failure(plane, name, "ended")
        if time.monotonic() > deadline:
            raise _failure(plane, part, f"is not ready after {READY_DEADLINE_SECONDS:.0f} s ({answer})")
        time.sleep(0.2)


def _alive(folder: Path, name: str) -> bool:
    recorded = processes.load(folder, name)
    return recorded is not None and recorded.alive()


def _failure(plane: Plane, name: str, what: str) -> LabError:
    words = processes.last_lines(plane.folder, name)
    hint = ""
    if "address already in use" in words:
        hint = f"\nEnd the program that has the port, or delete {plane.folder}/ports.json to get other ports."
    return LabError(f"{name} {what}; the end of {plane.folder}/{name}.log:\n{words}{hint}")


def _ask(plane: Plane, method: str, path: str) -> str | None:
    """Ask the API server as administrator; None when it says yes, else what it said."""
    admin = plane.pair("admin")
    context = ssl.create_default_context(cafile=plane.pair("ca").certificate)
    context.load_cert_chain(admin.certificate, admin.key)
    connection = http.client.HTTPSConnection("127.0.0.1", plane.ports["api"], timeout=10, context=context)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return None if answer.status == 200 else f"{answer.status} {answer.read().decode(errors='replace')}"
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
