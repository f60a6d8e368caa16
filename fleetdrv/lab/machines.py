"""Virtual machines: one QEMU daemon each, recorded on disk, so that any later command finds it.

Every path QEMU and its helpers are given is relative to the machine's folder, in which they are started: a
socket's path may have 107 bytes, and QEMU, its network and socat each give some character another meaning.
"""

import json
import os
import random
import socket
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from fleetdrv.lab import LabError, accelerator, processes, seed
from fleetdrv.lab.images import Image

MEMORY_MIB = 1024
_PORTS = range(20000, 32000)  # outgoing connections get higher ones, so a restart finds its port free
_PORT_ATTEMPTS = 5
_BANNER_SECONDS = 20.0  # of an emulated machine under load
_UP = b"fleetdrv-lab: up"  # kubelet.service says it
_SETTLE_SECONDS = 0.5  # QEMU has refused its arguments by then, or will run
_RECORD = "machine.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One node's machine; whether it runs is asked of the kernel each time, the rest is in its folder."""

    folder: Path
    name: str
    release: str
    number: int  # of its private network
    uuid: str
    ssh_port: int
    kernel: str
    initrd: str
    fabric: str = ""
    """Multicast address and port of the wire between the nodes of one fleet; empty in fleets of before there was
    one."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the record that `create` made."""
        return cls(folder=folder, **json.loads((folder / _RECORD).read_text()))

    @property
    def console_log(self) -> Path:
        """Name the file that the serial console is appended to, over all boots."""
        return self.folder / "console.log"

    @property
    def host_key(self) -> str:
        """Give the public host key, as known_hosts wants it: type and key."""
        return " ".join((self.folder / "ssh_host_ed25519_key.pub").read_text().split()[:2])

    @property
    def network(self) -> seed.Network:
        """Give the addresses of its private network."""
        return seed.Network(self.number)

    def alive(self) -> bool:
        """Tell whether its QEMU runs; a guest that hangs or has crashed is alive too."""
        process = processes.load(self.folder, "qemu")
        return process is not None and process.alive()

    def start(self) -> Self:
        """Switch it on, and return it with the port it has then: another if its own was taken meanwhile."""
        machine = self
        for _ in range(_PORT_ATTEMPTS):
            processes.start(machine._argv(), folder=self.folder, name="qemu")
            time.sleep(_SETTLE_SECONDS)
            if machine.alive():
                return machine
            words = processes.last_lines(self.folder, "qemu")
            if "host forwarding" not in words:
                raise LabError(f"{self.name}: QEMU ended at once; from {self.folder}/qemu.log:\n{words}")
            machine = replace(machine, ssh_port=free_port())
            machine._record()
        raise LabError(f"{self.name}: no free port on 127.0.0.1 for SSH after {_PORT_ATTEMPTS} attempts")

    def power_cut(self) -> None:
        """Take the power away: what the guest had not written to disk is lost; harmless when it is off."""
        process = processes.load(self.folder, "qemu")
        if process is not None:
            process.stop()

    def reset(self) -> None:
        """Press the reset button: as a power cut, and the machine boots again at once."""
        self._monitor("system_reset")

    def set_link(self, *, up: bool) -> None:
        """Plug or unplug the network cable; connections stay open and silent, as when a switch dies."""
        self._monitor("set_link", name="net0", up=up)

    def boots(self) -> int:
        """Count how often it has come up, by what it says on its console once SSH listens."""
        try:
            return self.console_log.read_bytes().count(_UP)
        except FileNotFoundError:
            return 0

    def wait_for_boot(self, boots: int, deadline_seconds: float) -> None:
        """Return once it has come up that often and its SSH server greets: `wait_for_boot(boots() + 1, …)`.

        The console first: connections to a machine that does not listen yet pile up in QEMU's network, and
        all arrive when it does.
        """
        deadline = time.monotonic() + deadline_seconds
        while self.boots() < boots or not self._greets():
            if not self.alive():
                words = processes.last_lines(self.folder, "qemu")
                raise LabError(f"{self.name}: QEMU ended; the end of {self.folder}/qemu.log:\n{words}")
            if time.monotonic() > deadline:
                raise LabError(
                    f"{self.name}: no answer from SSH on 127.0.0.1:{self.ssh_port} "
                    f"within {deadline_seconds:.0f} s; see {self.console_log}"
                )
            time.sleep(0.1)

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.ssh_port), _BANNER_SECONDS) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _record(self) -> None:
        values: dict[str, Any] = asdict(self)
        del values["folder"]
        new = self.folder / f"{_RECORD}.new"
        new.write_text(json.dumps(values, indent=1) + "\n")
        new.replace(self.folder / _RECORD)

    def _argv(self) -> list[str]:
        """Give QEMU's command line; -nodefaults leaves out hardware whose drivers would cost boot time."""
        net = self.network
        api = f"guestfwd=tcp:{net.api}:{seed.API_PORT}-cmd:socat - UNIX-CONNECT:api.sock"
        forward = f"hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22"
        return [
            *("env", "--chdir", str(self.folder), accelerator.QEMU, *accelerator.arguments()),
            *("-machine", "pc", "-m", str(MEMORY_MIB), "-smp", "1", "-uuid", self.uuid, "-name", self.name),
            *("-nodefaults", "-display", "none", "-vga", "none"),
            *("-chardev", "file,id=console,path=console.log,append=on", "-serial", "chardev:console"),
            *("-qmp", "unix:qmp.sock,server=on,wait=off"),
            *("-kernel", self.kernel, "-initrd", self.initrd),
            *("-append", "root=/dev/vda rw console=ttyS0 quiet mitigations=off net.ifnames=0"),
            # unsafe: only what the host would lose is at risk; what the guest has flushed survives QEMU's end
            *("-drive", "file=disk.qcow2,if=virtio,format=qcow2,cache=unsafe,discard=unmap"),
            *("-fw_cfg", "name=opt/fleetdrv/seed,file=seed.tar"),
            *("-netdev", f"user,id=net0,net={net.subnet},{forward},{api}"),
            *("-device", "virtio-net-pci,netdev=net0,romfile="),
            *self._fabric_argv(),
        ]

    def _fabric_argv(self) -> list[str]:
        """Give the second network card, on a wire that all nodes of the fleet share and that never leaves lo."""
        if not self.fabric:
            return []
        card = f"virtio-net-pci,netdev=net1,mac={self.network.fabric_mac},romfile="
        return ["-netdev", f"socket,id=net1,mcast={self.fabric},localaddr=127.0.0.1", "-device", card]

    def _monitor(self, command: str, **arguments: object) -> None:
        """Give QEMU one order over its control socket, and wait until it was obeyed."""
        order: dict[str, object] = {"execute": command, "arguments": arguments}
        try:
            answer = _talk(self.folder, [{"execute": "qmp_capabilities"}, order])
        except OSError as error:
            raise LabError(f"{self.name}: QEMU does not answer ({error}); is the machine on?") from error
        if "error" in answer:
            raise LabError(f"{self.name}: QEMU refuses {command}: {answer['error']}")


def new_fabric() -> str:
    """Choose a wire for a new fleet: a multicast group of those that no router forwards (RFC 2365)."""
    return f"239.{'.'.join(str(random.randrange(1, 255)) for _ in range(3))}:{random.choice(_PORTS)}"


def create(
    folder: Path, number: int, image: Image, authorized: str, taints: Sequence[seed.Taint] = (), fabric: str = ""
) -> Machine:
    """Make a machine that has never been on: an overlay over the image, a host key, a seed.

    What an interrupted attempt left in the folder is made again.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    machine = Machine(
        folder=folder,
        name=folder.name,
        release=image.release,
        number=number,
        uuid=str(uuid.uuid4()),
        ssh_port=free_port(),
        kernel=str(image.kernel),
        initrd=str(image.initrd),
        fabric=fabric,
    )
    host_key = folder / "ssh_host_ed25519_key"
    seed.make_key(host_key, machine.name)
    seed.write(folder / "seed.tar", machine.name, machine.network, host_key, authorized, taints)
    _overlay(folder / "disk.qcow2", image.disk)
    machine._record()  # last: a record says that all the rest is there
    return machine


def free_port() -> int:
    """Choose a port of 127.0.0.1 that nobody listens on now."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise LabError("no free port on 127.0.0.1 between 20000 and 32000")


def _overlay(disk: Path, base: Path) -> None:
    """Make an empty disk that shows the base until it is written to."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base.absolute()), str(disk)]
    try:
        subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    except FileNotFoundError as error:
        raise LabError("qemu-img is not installed; type: apt-get install qemu-utils") from error
    except subprocess.CalledProcessError as error:
        raise LabError(f"qemu-img cannot make {disk}: {error.stderr.strip()}") from error


def _talk(folder: Path, orders: Sequence[dict[str, object]]) -> dict[str, Any]:
    """Send orders to qmp.sock in turn and return the last answer; reached through a folder's descriptor, as a
    path may be too long for a socket."""
    answer: dict[str, Any] = {}
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(f"/proc/self/fd/{handle}/qmp.sock")
            with connection.makefile("r") as lines:
                lines.readline()  # QEMU's greeting
                for order in orders:
                    connection.sendall(json.dumps(order).encode() + b"\n")
                    answer = next(a for a in map(json.loads, lines) if "event" not in a)
    finally:
        os.close(handle)
    return answer
