"""A real OpenSSH server on loopback, with throwaway keys, ended by its own pid."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fleetdrv.model import Host

USER = getpass.getuser()
_LISTENING = "Server listening"


def make_key(path: Path, *, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Return the private key's path; the public half lies beside it."""
    subprocess.run(
        ("ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)), check=True
    )
    return path


def public(path: Path) -> str:
    """Return `TYPE BASE64` of a key."""
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Sshd:
    """One server; `log` is what it said, `children` the processes that serve its connections."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    host_keys: list[Path]
    client_key: Path
    extra: tuple[str, ...] = field(default=())

    @property
    def log(self) -> str:
        return (self.folder / "sshd.log").read_text(errors="replace")

    def known_line(self, key: Path | None = None, *, name: str = "127.0.0.1") -> str:
        return f"[{name}]:{self.port} {public(key or self.host_keys[0])}\n"

    def host(self, name: str = "node", **variables: object) -> Host:
        defaults: dict[str, object] = {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": USER,
            "ansible_ssh_private_key_file": str(self.client_key),
        }
        return Host(name=name, node_name=name, variables={**defaults, **variables})

    def children(self) -> list[int]:
        """Direct children of the listener: one monitor per connection."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in path.read_text().split()]

    def start_again(self) -> None:
        """After `stop`, on the same port."""
        self.process = _spawn(self.folder)
        _wait_until_listening(self, self.log.count(_LISTENING) + 1)

    def stop(self) -> None:
        for child in self.children() if self.process.poll() is None else []:
            _end(child)
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def start(
    folder: Path,
    *extra: str,
    host_kinds: tuple[str, ...] = ("ed25519",),
    accept: Path | None = None,
    prepare: Callable[[Path], object] = lambda _: None,
    within: tuple[str, ...] = (),
) -> Sshd:
    """Start a server that lets the current user in with `client_key`; `extra` are lines for sshd_config.

    `prepare` is called with every host key before the start; `within` is a command that runs another one in a
    namespace, by exec.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd refuses to start as root without it
    host_keys = [make_key(folder / f"host_{kind}", kind=kind) for kind in host_kinds]
    for key in host_keys:
        prepare(key)
    client_key = accept or make_key(folder / "client")
    (folder / "authorized_keys").write_text(public(client_key) + "\n")
    port = free_port()
    lines = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        *(f"HostKey {key}" for key in host_keys),
        f"AuthorizedKeysFile {folder}/authorized_keys",
        f"PidFile {folder}/pid",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "PrintMotd no",
        "PrintLastLog no",
        "LogLevel VERBOSE",
        f"SetEnv HOME={folder}",  # bash reads ~/.bashrc for commands over ssh
    ]
    # the first value of a keyword counts in sshd_config
    (folder / "sshd_config").write_text("\n".join((*extra, *lines)) + "\n")
    server = Sshd(folder, port, _spawn(folder, within), host_keys, client_key)
    _wait_until_listening(server)
    return server


def _spawn(folder: Path, within: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    with (folder / "sshd.log").open("ab") as log:
        return subprocess.Popen(
            (*within, "/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config")),
            stderr=log,
            stdin=subprocess.DEVNULL,
        )


def _wait_until_listening(server: Sshd, times: int = 1) -> None:
    deadline = time.monotonic() + 10
    while server.log.count(_LISTENING) < times:
        if server.process.poll() is not None or time.monotonic() > deadline:
            server.stop()
            raise AssertionError(f"sshd did not start: {server.log}")
        time.sleep(0.01)
