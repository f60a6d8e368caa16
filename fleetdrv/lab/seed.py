"""What makes a copy of the image a node of its own: keys, names, addresses, handed in at the first boot.

The SSH host key is made here and not in the guest, so that known_hosts is right before the node ever answers.
"""

import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from fleetdrv.lab import LabError

Taint = Mapping[str, str]
API_PORT = 8001
_OPS = 1000  # the first user that useradd makes in the image
HOST = "practice-host"
"""The nodes' name for the machine that they run on: what listens on its 127.0.0.1 answers there."""


@dataclass(frozen=True, slots=True)
class Network:
    """QEMU's private network of one node; each has its own, so that no two Nodes show the same address."""

    number: int

    @property
    def subnet(self) -> str:
        """Name the network as QEMU wants it."""
        return f"10.77.{self.number}.0/24"

    @property
    def guest(self) -> str:
        """Give the node's own address, which its Node object shows; QEMU forwards SSH to it."""
        return f"10.77.{self.number}.15"

    @property
    def gateway(self) -> str:
        """Give the address where QEMU takes packets for the world."""
        return f"10.77.{self.number}.2"

    @property
    def nameserver(self) -> str:
        """Give the address where QEMU answers DNS from the host's resolver."""
        return f"10.77.{self.number}.3"

    @property
    def fabric(self) -> str:
        """Give the address on the wire between the nodes of one fleet (`machines.py`), where RoCE runs."""
        return f"10.78.0.{self.number}/24"

    @property
    def fabric_mac(self) -> str:
        """Give the card its own address there: QEMU gives all guests the same."""
        return f"52:54:00:78:00:{self.number:02x}"

    @property
    def api(self) -> str:
        """Give the address behind which QEMU puts the private socket to the Kubernetes API."""
        return f"10.77.{self.number}.100"


def make_key(path: Path, comment: str) -> None:
    """Make an SSH key pair unless it is there; a half-made one of an interrupted run is made anew."""
    public = path.with_name(path.name + ".pub")
    if public.exists():
        return
    path.unlink(missing_ok=True)
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    try:
        subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise LabError("ssh-keygen is not installed; type: apt-get install openssh-client") from error
    except subprocess.CalledProcessError as error:
        raise LabError(f"ssh-keygen cannot make {path}: {error.stderr.strip()}") from error


def write(
    path: Path, node: str, network: Network, host_key: Path, authorized: str, taints: Sequence[Taint]
) -> None:
    """Write the node's seed, an archive to unpack at its root; it holds a private key, so it is ours alone.

    Programs of ours come with it and not with the image: a change of them costs no new image.
    """
    config = {
        "node": node,
        "address": network.guest,
        "api_host": network.api,
        "api_port": API_PORT,
        "taints": list(taints),
    }
    public = host_key.with_name(host_key.name + ".pub")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, "etc/hostname", f"{node}\n")
        _add(tar, "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {node}\n{network.gateway} {HOST}\n")
        _add(tar, "etc/resolv.conf", f"nameserver {network.nameserver}\n")
        addresses = {"ADDRESS": f"{network.guest}/24", "GATEWAY": network.gateway, "FABRIC": network.fabric}
        _add(tar, "etc/fleetdrv-lab.env", "".join(f"{key}={value}\n" for key, value in addresses.items()))
        _add(tar, "etc/ssh/ssh_host_ed25519_key", host_key.read_text(), mode=0o600)
        _add(tar, "etc/ssh/ssh_host_ed25519_key.pub", public.read_text())
        for home, owner in (("root", 0), ("home/ops", _OPS)):
            _add(tar, f"{home}/.ssh", None, mode=0o700, owner=owner)
            _add(tar, f"{home}/.ssh/authorized_keys", authorized, mode=0o600, owner=owner)
        _add(tar, "usr/local/lib/fleetdrv-lab", None, mode=0o755)
        _add(tar, "usr/local/lib/fleetdrv-lab/kubelet.py", _guest("kubelet.py"))
        _add(tar, "usr/local/bin/fleetdrv-lab-roce", _guest("roce.sh"), mode=0o755)
        _add(tar, "etc/fleetdrv-lab.json", json.dumps(config) + "\n")  # last: its presence says "unpacked"
    path.touch(mode=0o600)
    path.write_bytes(buffer.getvalue())


def _guest(name: str) -> str:
    return resources.files("fleetdrv.lab").joinpath("guest", name).read_text(encoding="utf-8")


def _add(tar: tarfile.TarFile, name: str, content: str | None, mode: int = 0o644, owner: int = 0) -> None:
    """Add a file, or a folder when there is no content."""
    member = tarfile.TarInfo(name)
    member.mode, member.uid, member.gid = mode, owner, owner
    if content is None:
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
        return
    raw = content.encode()
    member.size = len(raw)
    tar.addfile(member, io.BytesIO(raw))
