"""Encrypted keys: who is asked, how often, and where nobody is; and keys that cannot be used at all."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from ssh_asks import fails, logs_in
from ssh_server import Sshd, make_key, public

from fleetdrv.effects import Effects
from fleetdrv.errors import Permanent
from fleetdrv.secret import Secret
from fleetdrv.ssh import Dialler

pytestmark = pytest.mark.usefixtures("leaks_nothing")
StartServer = Callable[..., Sshd]

PASSPHRASE = "open-sesame-4711"


class Operator:
    """Types what it was told to, and remembers what it was asked for."""

    def __init__(self, *answers: str) -> None:
        self.asked: list[Path] = []
        self._answers = list(answers)

    def __call__(self, path: Path) -> Secret | None:
        self.asked.append(path)
        return Secret(self._answers.pop(0), "test") if self._answers else None


MakeAsking = Callable[[Sshd, Operator], Dialler]


@pytest.fixture
def asking(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeAsking]:
    request.getfixturevalue("leaks_nothing")  # set up before, so that it looks after everything is closed
    made: list[Dialler] = []

    def make(server: Sshd, operator: Operator) -> Dialler:
        (tmp_path / "known").write_text(server.known_line())
        (tmp_path / "config").write_text("")
        files = {"ssh_config": tmp_path / "config", "known_hosts": [tmp_path / "known"]}
        made.append(Dialler(Effects(), ask=operator, **files))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def locked(tmp_path: Path, start_server: StartServer) -> Sshd:
    """A server that takes an encrypted key."""
    return start_server(accept=make_key(tmp_path / "locked", passphrase=PASSPHRASE))


def test_many_hosts_with_the_same_key_ask_once(locked: Sshd, asking: MakeAsking) -> None:
    operator = Operator(PASSPHRASE)
    dialler = asking(locked, operator)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda n: logs_in(dialler, locked.host(f"node{n}")), range(8)))
    assert operator.asked == [locked.client_key]


@pytest.mark.parametrize("form", [(), ("-m", "PEM")])
def test_every_form_of_a_key_can_be_opened(
    start_server: StartServer, asking: MakeAsking, tmp_path: Path, form: tuple[str, ...]
) -> None:
    key = tmp_path / "rsa"
    words = ("ssh-keygen", "-q", "-t", "rsa", *form, "-N", PASSPHRASE, "-f", str(key))
    subprocess.run(words, check=True)
    server = start_server(accept=key)
    operator = Operator("wrong", PASSPHRASE)
    assert logs_in(asking(server, operator), server.host())
    assert operator.asked == [key, key]


def pkcs8_key(path: Path, kind: str, passphrase: str = "") -> Path:
    """Write a key as openssl does, its public half beside it."""
    made = {
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ecdsa": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()
    seal = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, seal))
    path.chmod(0o600)
    half = made.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    path.with_name(f"{path.name}.pub").write_bytes(half + b"\n")
    return path


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_pkcs8_is_opened_once_for_all_hosts(
    start_server: StartServer, asking: MakeAsking, tmp_path: Path, kind: str
) -> None:
    key = pkcs8_key(tmp_path / kind, kind, PASSPHRASE)
    assert key.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    server, operator = start_server(accept=key), Operator("wrong", PASSPHRASE)
    dialler = asking(server, operator)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda n: logs_in(dialler, server.host(f"node{n}")), range(4)))
    assert operator.asked == [key, key]


def test_pkcs8_without_a_passphrase_or_with_nobody_to_ask(
    start_server: StartServer, asking: MakeAsking, tmp_path: Path
) -> None:
    plain, sealed = pkcs8_key(tmp_path / "plain", "ecdsa"), pkcs8_key(tmp_path / "sealed", "ecdsa", PASSPHRASE)
    server, operator = start_server(accept=plain), Operator()
    assert logs_in(asking(server, operator), server.host())
    assert operator.asked == []
    host = server.host(ansible_ssh_private_key_file=str(sealed))
    assert fails(asking(server, operator), host, Permanent).remedy == f"ssh-add {sealed}"


def test_who_mistypes_three_times_is_asked_no_more(locked: Sshd, asking: MakeAsking) -> None:
    operator = Operator("wrong one", "wrong two", "wrong three", "wrong four")
    dialler = asking(locked, operator)
    for _ in range(2):
        error = fails(dialler, locked.host(), Permanent)
        assert "encrypted, and not in the ssh agent" in error.cause
        assert error.remedy == f"ssh-add {locked.client_key}"
    assert len(operator.asked) == 3
    assert "Connection from" in locked.log


def test_where_nobody_is_to_be_asked_the_next_command_is_named(locked: Sshd, asking: MakeAsking) -> None:
    error = fails(asking(locked, Operator()), locked.host(), Permanent)
    assert f"{locked.client_key}: encrypted, and not in the ssh agent: ssh-add" in error.cause
    assert error.remedy == f"ssh-add {locked.client_key}"


def test_nobody_is_asked_while_another_key_does(locked: Sshd, asking: MakeAsking, tmp_path: Path) -> None:
    good, sealed = make_key(tmp_path / "good"), make_key(tmp_path / "sealed", passphrase=PASSPHRASE)
    with (locked.folder / "authorized_keys").open("a") as stream:
        stream.write(public(good) + "\n")
    operator = Operator(PASSPHRASE)
    host = locked.host(
        ansible_ssh_private_key_file=None, ansible_ssh_common_args=f"-i {sealed} -i {good}"
    )
    assert logs_in(asking(locked, operator), host)
    assert operator.asked == []


def test_a_key_is_asked_for_when_the_others_were_rejected(
    locked: Sshd, asking: MakeAsking, tmp_path: Path
) -> None:
    wrong = make_key(tmp_path / "wrong")
    operator = Operator(PASSPHRASE)
    dialler = asking(locked, operator)
    arguments = f"-i {wrong} -i {locked.client_key}"
    host = locked.host(ansible_ssh_private_key_file=None, ansible_ssh_common_args=arguments)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: logs_in(dialler, host), range(4)))
    assert operator.asked == [locked.client_key]
    assert logs_in(dialler, host)


def test_one_passphrase_for_several_keys_is_typed_once(
    start_server: StartServer, asking: MakeAsking, tmp_path: Path
) -> None:
    keys = [make_key(tmp_path / f"key{number}", passphrase=PASSPHRASE) for number in range(2)]
    server = start_server(accept=keys[0])
    with (server.folder / "authorized_keys").open("a") as stream:
        stream.write(public(keys[1]) + "\n")
    operator = Operator(PASSPHRASE)
    dialler = asking(server, operator)
    assert all(logs_in(dialler, server.host(ansible_ssh_private_key_file=str(key))) for key in keys)
    assert operator.asked == keys[:1]


def test_the_agent_goes_first(
    locked: Sshd, asking: MakeAsking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the public half is nowhere but in the encrypted file."""
    path = tmp_path / "agent"
    agent = subprocess.Popen(("ssh-agent", "-D", "-a", str(path)), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        opened = tmp_path / "opened"
        opened.write_bytes(locked.client_key.read_bytes())
        opened.chmod(0o600)
        words = ("ssh-keygen", "-q", "-p", "-P", PASSPHRASE, "-N", "", "-f", str(opened))
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(("ssh-add", "-q", str(opened)), check=True)
        locked.client_key.with_name("locked.pub").unlink()
        operator = Operator(PASSPHRASE)
        dialler = asking(locked, operator)
        assert logs_in(dialler, locked.host())
        assert operator.asked == []
        dialler.close()
    finally:
        agent.terminate()
        agent.wait(30)


ASKS = """\
import sys
from pathlib import Path
from fleetdrv.effects import Effects
from fleetdrv.model import Host
from fleetdrv.ssh import Dialler
config, known, port, user, key = sys.argv[1:]
words = {"ansible_host": "127.0.0.1", "ansible_port": port, "ansible_user": user}
host = Host(name="n", node_name="n", variables={**words, "ansible_ssh_private_key_file": key})
with Dialler(Effects(), ssh_config=Path(config), known_hosts=[Path(known)]) as dialler:
    with dialler.connect(host, 60) as session:
        print(session.run("echo in", step="test", deadline_seconds=60).stdout.decode(), flush=True)
"""


def test_the_terminal_is_asked_without_an_echo(locked: Sshd, tmp_path: Path) -> None:
    (tmp_path / "known").write_text(locked.known_line())
    (tmp_path / "config").write_text("")
    host = locked.host().variables
    words = [str(host[name]) for name in ("ansible_port", "ansible_user", "ansible_ssh_private_key_file")]
    argv = [sys.executable, "-c", ASKS, str(tmp_path / "config"), str(tmp_path / "known"), *words]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        argv,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    said, typed, deadline = b"", False, time.monotonic() + 120
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    said += os.read(ours, 4096)
                except OSError:  # the far end is closed
                    break
            if not typed and f"passphrase for the key {locked.client_key}: ".encode() in said:
                argv_now = Path(f"/proc/{process.pid}/cmdline").read_bytes()
                os.write(ours, PASSPHRASE.encode() + b"\n")
                typed = True
        assert process.wait(60) == 0, said
    finally:
        process.kill()
        process.wait(30)
        os.close(ours)
    assert b"\nin\r\n" in said
    assert PASSPHRASE.encode() not in said + argv_now


LEAVES = """\
import threading
from pathlib import Path
from fleetdrv.passwords import passphrase
from fleetdrv.proc import interrupts
with interrupts():
    threading.Thread(target=passphrase, args=(Path("/key"),), daemon=True).start()
    threading.Event().wait(120)
"""


def test_who_leaves_at_the_question_gets_the_echo_back() -> None:
    """A worker asks; the second Ctrl-C ends the program at once, whatever its threads are in."""
    ours, theirs = pty.openpty()
    try:
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        process = subprocess.Popen([sys.executable, "-c", LEAVES], start_new_session=True, **streams)
        try:
            wait_for(lambda: not termios.tcgetattr(theirs)[3] & termios.ECHO)
            while process.poll() is None:
                process.send_signal(signal.SIGINT)
                time.sleep(0.1)
            assert process.returncode == 130
        finally:
            process.kill()
            process.wait(30)
        assert termios.tcgetattr(theirs)[3] & termios.ECHO
    finally:
        os.close(ours)
        os.close(theirs)


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def fido_key(path: Path) -> Path:
    """Write a private key as `ssh-keygen -t ed25519-sk` does; its handle is a security key's that nobody has."""

    def string(data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + data

    kind = b"sk-ssh-ed25519@openssh.com"
    public_blob = string(kind) + string(bytes(32)) + string(b"ssh:")
    secret = struct.pack(">II", 7, 7) + public_blob + b"\x01" + string(bytes(16)) + string(b"") + string(b"me")
    secret += bytes(range(1, 1 + -len(secret) % 8))
    data = b"openssh-key-v1\0" + string(b"none") + string(b"none") + string(b"") + struct.pack(">I", 1)
    text = b64encode(data + string(public_blob) + string(secret)).decode()
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    marks = [f"-----{word} OPENSSH PRIVATE KEY-----" for word in ("BEGIN", "END")]
    path.write_text("\n".join((marks[0], *lines, marks[1], "")))
    path.chmod(0o600)
    return path


def test_a_fido_key_is_explained(server: Sshd, asking: MakeAsking, tmp_path: Path) -> None:
    key = fido_key(tmp_path / "id_sk")
    error = fails(
        asking(server, Operator()), server.host(ansible_ssh_private_key_file=str(key)), Permanent
    )
    assert f"no key to log in with: {key}: a FIDO key is not used here" in error.cause
    assert "Paramiko has no such signatures" in error.cause
    assert "ssh-keygen -t ed25519 -f ~/.ssh/id_fleet" in error.remedy


def test_a_fido_key_in_the_agent_is_explained(
    server: Sshd, asking: MakeAsking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent"
    agent = subprocess.Popen(("ssh-agent", "-D", "-a", str(path)), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        subprocess.run(("ssh-add", "-q", str(fido_key(tmp_path / "id_sk"))), check=True)
        dialler = asking(server, Operator())
        error = fails(dialler, server.host(ansible_ssh_private_key_file=None), Permanent)
        assert "ssh agent: me (SHA256:" in error.cause
        assert "a FIDO key is not used here" in error.cause
        dialler.close()
    finally:
        agent.terminate()
        agent.wait(30)
