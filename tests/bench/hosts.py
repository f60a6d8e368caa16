"""Many hosts that are one sshd on loopback: 127.1.x.y, keys and known_hosts as a fleet has them."""

from __future__ import annotations

import getpass
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fleetdrv import load, look
from fleetdrv.jobs import whole
from tests.ssh.ssh_server import free_port, make_key, public

PLAYBOOK = Path(__file__).parents[2] / "playbooks" / "toy-1.1.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """A fleet on loopback; every path is what the tools are given."""

    folder: Path
    addresses: tuple[str, ...]
    port: int
    key: Path
    known_hosts: Path

    @property
    def user(self) -> str:
        return getpass.getuser()

    @property
    def log(self) -> Path:
        return self.folder / "sshd.log"

    def served(self) -> int:
        """How many log-ins the server has seen."""
        return self.log.read_text(errors="replace").count("Accepted publickey")

    @property
    def words(self) -> tuple[str, ...]:
        """The probe's arguments, as `fleetdrv drift` sends them."""
        return look.questions(load.playbook(PLAYBOOK).playbook)

    def some(self, count: int) -> Path:
        """Write the first `count` addresses into a file, one a line."""
        path = self.folder / f"hosts-{count}"
        path.write_text("".join(f"{address}\n" for address in self.addresses[:count]))
        return path

    def inventory(self, count: int) -> Path:
        """Write an inventory of the first `count` hosts that fleetdrv and Ansible read alike."""
        path = self.folder / f"inventory-{count}.yaml"
        hosts = "".join(f"        {address}:\n" for address in self.addresses[:count])
        path.write_text(
            f"all:\n  vars:\n    ansible_user: {self.user}\n    ansible_port: {self.port}\n"
            f"    ansible_ssh_private_key_file: {self.key}\n"
            f"    ansible_python_interpreter: /usr/bin/python3\n  children:\n    gpu:\n      hosts:\n{hosts}"
        )
        return path


@contextmanager
def hosts(folder: Path, count: int, *, max_startups: str = "1000") -> Iterator[Hosts]:
    """Serve `count` addresses until the end of the block. Needs a network namespace with only its loopback."""
    addresses = tuple(f"127.1.{at // 250}.{at % 250 + 1}" for at in range(count))
    host_key, key = make_key(folder / "host_key"), make_key(folder / "client_key")
    (folder / "authorized_keys").write_text(public(key) + "\n")
    port = free_port()
    known = folder / "known_hosts"
    known.write_text("".join(f"[{address}]:{port} {public(host_key)}\n" for address in addresses))
    ssh_config = folder / "ssh_config"
    ssh_config.write_text(
        f"Host *\n  User {getpass.getuser()}\n  Port {port}\n  IdentityFile {key}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
        "  BatchMode yes\n  PreferredAuthentications publickey\n  GSSAPIAuthentication no\n"
    )
    (folder / "ssh_config_curve25519").write_text(ssh_config.read_text() + "  KexAlgorithms curve25519-sha256\n")
    (folder / "home/.ssh").mkdir(parents=True)
    (folder / "home/.ssh/config").write_text(ssh_config.read_text())
    (folder / "home/.ssh/config").chmod(0o600)
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 0.0.0.0\nHostKey {host_key}\nPidFile {folder}/sshd.pid\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nMaxStartups {max_startups}\nMaxSessions 20\n"
        f"AllowUsers {getpass.getuser()}@127.*\nSubsystem sftp internal-sftp\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen(("/usr/sbin/sshd", "-D", "-f", str(config), "-E", str(folder / "sshd.log")))
    try:
        _wait_for(folder / "sshd.pid")
        yield Hosts(folder=folder, addresses=addresses, port=port, key=key, known_hosts=known)
    finally:
        process.terminate()
        process.wait(10)


def probe_script(folder: Path) -> Path:
    """Write the probe as fleetdrv sends it."""
    path = folder / "probe.sh"
    path.write_text(whole("probe.sh"))
    return path


def _wait_for(path: Path) -> None:
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.05)
    raise RuntimeError(f"{path} did not appear")
