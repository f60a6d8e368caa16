"""The practice fleet as a whole: everything it is lies in one folder, so that any command finds it again.

`up` brings what is missing and leaves alone what runs, whatever interrupted it before; `down` ends what is
recorded, by its recorded identity, and removes what `up` made.
"""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from fleetdrv.lab import LabError, accelerator, cluster, controlplane, images, machines, processes, seed, toy
from fleetdrv.lab.locks import exclusive
from fleetdrv.lab.machines import Machine

GROUP = "gpu"
"""The inventory's group of practice nodes."""

_SSH_SECONDS, _READY_SECONDS = 600.0, 300.0
_RECORD = "lab.json"
_FILES = (_RECORD, "kubeconfig", "known_hosts", "inventory.yaml", "id_ed25519", "id_ed25519.pub")
_FOLDERS = ("nodes", "control-plane")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in the fleet's folder; named here and nowhere else."""

    folder: Path

    @property
    def kubeconfig(self) -> Path:
        """Name the administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    @property
    def plane(self) -> Path:
        """Name the control plane's folder."""
        return self.folder / "control-plane"

    @property
    def key(self) -> Path:
        """Name the private key that opens every node to root and to ops."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """Name the file that pins the nodes' host keys."""
        return self.folder / "known_hosts"

    def node(self, number: int) -> Path:
        """Name the folder of a node's machine; its last part is the node's name."""
        return self.folder / "nodes" / f"node-{number}"

    def machines(self) -> list[Machine]:
        """Load the machines that are recorded, by number."""
        found = (Machine.load(record.parent) for record in self.folder.glob("nodes/*/machine.json"))
        return sorted(found, key=lambda machine: machine.number)


def up(folder: Path, nodes: Sequence[str], context: str | None, say: Say) -> None:
    """Bring the fleet up: a node per release named, Ready in the lab's own cluster or in the user's context.

    Returns when all is ready to be used; changes nothing where it was. More nodes than before are added.
    """
    say = _timed(say)
    layout = _opened(folder)
    with exclusive(layout.folder / "lab.lock", "another process works on this fleet; waiting for it", say):
        _agree(layout, nodes, context)
        seed.make_key(layout.key, "fleetdrv-lab")
        _cluster_up(layout, context, say)
        fleet = _boot(layout, _machines(layout, nodes, context, say), context, say)
        _write_files(layout, fleet)
        cluster.open_shop(layout.kubeconfig, 3, say)
        say(f"{len(nodes)} nodes are Ready; inventory: {layout.folder / 'inventory.yaml'}")


def down(folder: Path, say: Say) -> None:
    """End everything of the fleet and remove what `up` made; harmless when there is nothing."""
    say = _timed(say)
    layout = Layout(folder.absolute())
    if not layout.folder.is_dir():
        say("there is no practice fleet")
        return
    with exclusive(layout.folder / "lab.lock", "another process works on this fleet; waiting for it", say):
        for node in sorted(layout.folder.glob("nodes/*")):
            for process in reversed(processes.every(node)):  # QEMU before its proxy
                process.stop()
        if _record(layout).get("context"):
            _leave_context(layout, say)
        controlplane.stop(layout.plane)
        for name in _FOLDERS:
            shutil.rmtree(layout.folder / name, ignore_errors=True)
        for path in [*(layout.folder / name for name in _FILES), *layout.folder.glob("toy-*.tar")]:
            path.unlink(missing_ok=True)
    (layout.folder / "lab.lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody keeps files of his own there
        layout.folder.rmdir()
    say("the practice fleet is gone")


def status(folder: Path) -> dict[str, object]:
    """Tell what there is and what of it runs; a node's `ready` is None when the cluster does not answer."""
    layout = Layout(folder.absolute())
    context = _record(layout).get("context")
    fleet = layout.machines()
    ready: dict[str, bool] = {}
    if fleet:
        with contextlib.suppress(LabError):
            beats = cluster.heartbeats(layout.kubeconfig, [machine.name for machine in fleet])
            ready = {name: cluster.is_fresh(beat) for name, beat in beats.items()}
    return {
        "folder": str(layout.folder),
        "context": context,
        "control_plane": None if context else controlplane.running(layout.plane),
        "nodes": [
            {
                "name": machine.name,
                "release": machine.release,
                "running": machine.alive(),
                "ready": ready.get(machine.name),
                "ssh_port": machine.ssh_port,
            }
            for machine in fleet
        ],
    }


def machine(folder: Path, node: str) -> Machine:
    """Give the handle of one node's machine: power, console, network cable."""
    record = folder.absolute() / "nodes" / node
    if not (record / "machine.json").exists():
        raise LabError(f"{node}: no such node in {folder}; type: fleetdrv lab status")
    return Machine.load(record)


def ssh(
    folder: Path, node: str, command: str, *, user: str = "root", timeout_seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a shell command on a node with OpenSSH, which pins the host key; 255 is ssh's own failure."""
    layout = Layout(folder.absolute())
    options = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f'"{layout.known_hosts}"',
        "GlobalKnownHostsFile": "/dev/null",
        "LogLevel": "ERROR",
    }
    flags = [f"-o{name}={value}" for name, value in options.items()]
    port = machine(folder, node).ssh_port
    argv = ["ssh", "-F", "none", *flags, "-i", str(layout.key), "-p", str(port), f"{user}@127.0.0.1", command]
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_seconds, check=False
    )


def _timed(say: Say) -> Say:
    began = time.monotonic()
    return lambda text: say(f"{time.monotonic() - began:6.1f} s  {text}")


def _opened(folder: Path) -> Layout:
    """Make the folder, for us alone: private keys and the sockets to the API lie in it."""
    folder = folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return Layout(folder)


def _record(layout: Layout) -> dict[str, object]:
    try:
        found: dict[str, object] = json.loads((layout.folder / _RECORD).read_text())
        return found
    except FileNotFoundError:
        return {}


def _agree(layout: Layout, nodes: Sequence[str], context: str | None) -> None:
    """Refuse what would change a fleet that is there into another one; record what is wanted."""
    if not 1 <= len(nodes) <= 200:
        raise LabError(f"{len(nodes)} nodes: a practice fleet has between 1 and 200")
    former = _record(layout)
    if former and former.get("context") != context:
        raise LabError(f"the fleet in {layout.folder} is in another cluster; type first: fleetdrv lab down")
    for machine in layout.machines():
        wanted = nodes[machine.number - 1] if machine.number <= len(nodes) else "no such node"
        if machine.release != wanted:
            raise LabError(
                f"{machine.name} is there and runs {machine.release}, wanted: {wanted}; "
                "type first: fleetdrv lab down"
            )
    _write(layout.folder / _RECORD, json.dumps({"context": context, "nodes": list(nodes)}) + "\n")


def _cluster_up(layout: Layout, context: str | None, say: Say) -> None:
    if context:
        cluster.context_kubeconfig(context, layout.kubeconfig)
        return
    made = controlplane.start(layout.plane, images.cache(), say)
    _write(layout.kubeconfig, made.read_text(), mode=0o600)


def _machines(layout: Layout, nodes: Sequence[str], context: str | None, say: Say) -> list[Machine]:
    """Load the machines that are there and make those that are missing, over the newest image."""
    fleet = layout.machines()
    there = {machine.number for machine in fleet}
    if context:
        missing = [n for n in range(1, len(nodes) + 1) if n not in there]
        cluster.refuse_taken(layout.kubeconfig, [layout.node(number).name for number in missing])
    authorized = layout.key.with_suffix(".pub").read_text()
    taints = [cluster.LAB_TAINT] if context else []
    fabric = fleet[0].fabric if fleet else machines.new_fabric()
    for number, release in enumerate(nodes, start=1):
        if number not in there:
            base = images.image(release, say)
            fleet.append(machines.create(layout.node(number), number, base, authorized, taints, fabric))
    return sorted(fleet, key=lambda machine: machine.number)


def _boot(layout: Layout, made: Sequence[Machine], context: str | None, say: Say) -> list[Machine]:
    """Switch on what is off, as many at a time as there are processors, and wait until all are Ready."""
    kind = "in software, as KVM does not work here" if accelerator.is_emulated() else "with KVM"
    asleep = [machine for machine in made if not machine.alive()]
    if asleep:
        say(f"starting {', '.join(machine.name for machine in asleep)} {kind}")
    began = time.time()
    since = {machine.name: began if machine in asleep else cluster.fresh_since() for machine in made}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        fleet = list(pool.map(lambda machine: _boot_one(layout, machine, context, say), made))
    say("waiting for the nodes to be Ready")
    cluster.wait_for_nodes(layout.kubeconfig, since, _READY_SECONDS)
    return fleet


def _boot_one(layout: Layout, machine: Machine, context: str | None, say: Say) -> Machine:
    """Start the node's way to the API, then the node; each only if it does not run."""
    kubeconfig = layout.kubeconfig
    if not context:
        user = f"system:node:{machine.name}"
        kubeconfig = controlplane.user_kubeconfig(layout.plane, user, ["system:nodes"])
    cluster.serve_node(machine.folder, kubeconfig)
    if machine.alive():
        return machine
    boots = machine.boots()
    started = machine.start()
    started.wait_for_boot(boots + 1, _SSH_SECONDS)
    say(f"{machine.name} answers to SSH")
    return started


def _write_files(layout: Layout, fleet: Sequence[Machine]) -> None:
    """Write what fleetdrv and people need to reach the nodes; files that are right are left alone."""
    lines = [f"[127.0.0.1]:{machine.ssh_port} {machine.host_key}\n" for machine in fleet]
    _write(layout.known_hosts, "".join(lines))
    shared = {
        "ansible_host": "127.0.0.1",
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(layout.key),
        "ansible_ssh_common_args": f"-o {shlex.quote(f'UserKnownHostsFile={layout.known_hosts}')}",
    }
    hosts = {m.name: {"ansible_port": m.ssh_port, "node_name": m.name} for m in fleet}
    inventory = {GROUP: {"hosts": hosts, "vars": shared}}
    _write(layout.folder / "inventory.yaml", yaml.safe_dump(inventory, sort_keys=False))
    for version in toy.VERSIONS:
        toy.archive(version, layout.folder)


def _write(path: Path, content: str, mode: int = 0o644) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == content:
            return
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=mode)
    new.write_text(content)
    new.replace(path)


def _leave_context(layout: Layout, say: Say) -> None:
    names = [machine.name for machine in layout.machines()]
    try:
        if names:
            cluster.close_shop(layout.kubeconfig, names)
    except LabError as error:
        say(f"{', '.join(names)} and namespace {cluster.NAMESPACE} may still be in the cluster: {error}")
