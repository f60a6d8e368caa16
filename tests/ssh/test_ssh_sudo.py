"""sudo on a real sshd: with a password, without one, and what a wrong one does to a fleet."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ssh_sudo_server
from conftest import MakeDialler
from ssh_sudo_server import PASSWORD, Users

from fleetdrv import ssh_sudo
from fleetdrv.effects import Effects
from fleetdrv.errors import FleetdrvError, NodeError, Permanent, Stopped, Transient
from fleetdrv.line import NodeLine
from fleetdrv.secret import Secret
from fleetdrv.ssh_sudo import Sudo

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("sudo") is None, reason="needs root, for accounts of its own, and sudo"
)


@pytest.fixture(scope="module")
def users() -> Iterator[Users]:
    folder = Path(tempfile.mkdtemp())  # pytest's own folders cannot be entered by other users
    running = ssh_sudo_server.start(folder)
    yield running
    running.sshd.stop()
    shutil.rmtree(folder)


@pytest.fixture
def make_line(users: Users, make_dialler: MakeDialler) -> Iterator[Callable[..., NodeLine]]:
    lines: list[NodeLine] = []
    dialler = make_dialler(users.sshd.known_line())

    def make(user: str, sudo: Sudo | None = None, name: str = "") -> NodeLine:
        lines.append(NodeLine(users.host(user, name), dialler, sudo or Sudo()))
        return lines[-1]

    yield make
    for line in lines:
        line.close()


MakeLine = Callable[..., NodeLine]


def ask(line: NodeLine, command: str = "id -u", stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    return line.run(("/bin/sh", "-c", command), step="test", stdin=stdin, deadline_seconds=60)


def fails(line: NodeLine, kind: type[FleetdrvError]) -> FleetdrvError:
    with pytest.raises(kind) as caught:
        ask(line)
    return caught.value


def with_password(text: str = PASSWORD) -> Sudo:
    return Sudo(Secret(text, "test"))


@pytest.mark.parametrize("user", ["asked", "free", "once", "lectured"])
def test_the_right_password_makes_root(make_line: MakeLine, users: Users, user: str) -> None:
    before = users.attempts()
    assert ask(make_line(user, with_password())) == (0, b"0\n", b"")
    assert users.attempts() == before


def test_without_a_password_where_none_is_needed(make_line: MakeLine) -> None:
    assert ask(make_line("free")) == (0, b"0\n", b"")


def test_input_reaches_the_command_and_the_password_does_not(make_line: MakeLine) -> None:
    data = os.urandom(300_000)
    line = make_line("asked", with_password())
    assert ask(line, "cat", data) == (0, data, b"")
    assert ask(make_line("free", with_password()), "cat", data) == (0, data, b"")


def test_a_script_on_standard_input_finds_what_stands_behind_it(make_line: MakeLine) -> None:
    argv, script = ("/bin/sh", "-s", "--", "a b", "$HOME"), b'printf "%s|" "$@"; id -u'
    line = make_line("asked", with_password())
    code, out, _ = line.run(argv, step="test", stdin=script, deadline_seconds=60)
    assert (code, out) == (0, b"a b|$HOME|0\n")


def test_exit_code_and_both_streams_are_the_commands_own(make_line: MakeLine) -> None:
    line = make_line("asked", with_password())
    assert ask(line, "echo out; echo err >&2; exit 77") == (77, b"out\n", b"err\n")


def test_a_password_that_is_needed_and_was_not_given(make_line: MakeLine) -> None:
    error = fails(make_line("asked"), Permanent)
    assert isinstance(error, NodeError)
    assert error.cause == "sudo wants asked's password"
    assert "--ask-sudo-password" in error.remedy


def test_a_user_without_a_rule(make_line: MakeLine, users: Users) -> None:
    before = users.attempts()
    for sudo in (Sudo(), with_password()):
        error = fails(make_line("nobody2", sudo), Permanent)
        assert isinstance(error, NodeError)
        if sudo._lockout:
            assert error.cause == "nobody2 may not become root by sudo"
            assert "/etc/sudoers.d" in error.remedy
    assert users.attempts() == before


def test_a_sudo_that_wants_a_terminal_is_explained(make_line: MakeLine) -> None:
    error = fails(make_line("tty"), Permanent)
    assert isinstance(error, NodeError)
    assert "requiretty" in error.cause
    assert error.remedy.endswith("Defaults:tty !requiretty")


def test_no_sudo_at_all(make_line: MakeLine, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ssh_sudo.Gate.command
    monkeypatch.setattr(
        ssh_sudo.Gate, "command", lambda gate, argv: plain(gate, argv).replace(" sudo ", " no-such-sudo ", 1)
    )
    error = fails(make_line("free"), Permanent)
    assert isinstance(error, NodeError)
    assert error.cause == "there is no sudo"
    assert "ansible_user: root" in error.remedy


@pytest.mark.parametrize("user", ["asked", "once"])
def test_a_wrong_password_is_sent_once_to_a_node_and_never_again(
    make_line: MakeLine, users: Users, user: str
) -> None:
    before, sudo = users.attempts(), with_password("wrong-wrong")
    line = make_line(user, sudo)
    for _ in range(3):
        error = fails(line, Permanent)
        assert isinstance(error, NodeError)
        assert error.cause == "sudo rejects the password"
        assert "wrong-wrong" not in f"{error} {error.evidence} {error.remedy}"
    assert users.attempts() == before + 1


def test_a_wrong_password_reaches_two_nodes_of_a_fleet(make_line: MakeLine, users: Users) -> None:
    before, unanswered, sudo = users.attempts(), users.unanswered(), with_password("wrong-wrong")
    lines = [make_line("asked", sudo, f"n{number}") for number in range(20)]

    def outcome(line: NodeLine) -> type[Exception]:
        try:
            ask(line)
        except FleetdrvError as error:
            return type(error)
        return AssertionError

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(outcome, lines))
    assert (outcomes.count(Permanent), outcomes.count(Stopped)) == (2, 18)
    assert users.attempts() == before + 2
    assert users.unanswered() <= unanswered + 2  # sudo asks a second time


def test_a_node_that_took_the_password_is_served_to_its_end_after_a_stop(make_line: MakeLine) -> None:
    sudo = with_password()
    line = make_line("asked", sudo, "good")
    assert ask(line)[0] == 0
    lockout = sudo._lockout
    assert lockout is not None
    lockout.settle("a", rejected=True)
    lockout.settle("b", rejected=True)
    error = fails(make_line("asked", sudo, "late"), Stopped)
    assert "a and b" in str(error)
    assert ask(line)[:2] == (0, b"0\n")


def test_a_sudo_that_takes_too_long_is_no_lost_link(
    make_line: MakeLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_sudo, "SUDO_SECONDS", 1.0)
    plain = ssh_sudo.Gate.command
    monkeypatch.setattr(ssh_sudo.Gate, "command", lambda gate, argv: "sleep 2; " + plain(gate, argv))
    error = fails(make_line("free"), Transient)
    assert type(error) is Transient
    assert "let us in" in str(error)
    monkeypatch.setattr(ssh_sudo, "SUDO_SECONDS", 60.0)
    code, *_ = make_line("free").run(("true",), step="test", deadline_seconds=60, silence_seconds=1.0)
    assert code == 0


def test_a_shell_that_traces_is_not_taken_for_sudo(
    make_line: MakeLine, monkeypatch: pytest.MonkeyPatch, users: Users
) -> None:
    before = users.attempts()
    plain = ssh_sudo.Gate.command
    monkeypatch.setattr(ssh_sudo.Gate, "command", lambda gate, argv: "set -x; sleep 0.2; " + plain(gate, argv))
    for user in ("asked", "free"):
        assert ask(make_line(user, with_password()), "cat", b"input") == (0, b"input", b"")
    assert users.attempts() == before


@pytest.mark.parametrize("framed", ["{}", "[sudo: {}] Password: "])  # sudo's, and sudo-rs's
def test_a_prompt_is_told_from_a_traced_command_line_wherever_it_is_cut(framed: str) -> None:
    secret = Secret(PASSWORD, "test")
    lockout = ssh_sudo.Lockout(secret)
    length = len(ssh_sudo.Gate("n", "test", lockout, 0.0).command(("true",)))
    for cut in range(length):
        gate = ssh_sudo.Gate("n", "test", ssh_sudo.Lockout(secret), time.monotonic() + 60)
        said = bytearray(f"+ {gate.command(('true',))}"[:cut].encode())
        assert gate.hear(said) == b""
        said += f"\n{framed.format(gate._prompt)}".encode()
        assert gate.hear(said) == f"{PASSWORD}\n".encode()
        assert gate.hear(said) == b""
        said += f"\nSorry, try again.\n{framed.format(gate._prompt)}".encode()
        with pytest.raises(Permanent, match="rejects the password"):
            gate.hear(said)


def test_no_more_commands_than_as_root(make_line: MakeLine, effects: Effects) -> None:
    ask(make_line("free", with_password()))
    ask(make_line("asked", with_password()))
    assert effects.execs == 2


def test_the_password_stands_nowhere_but_with_sudo(
    make_line: MakeLine, users: Users, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in an argv or environment of any process meanwhile, nor in what Paramiko would log."""
    seen: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            for entry in Path("/proc").glob("[0-9]*"):
                for part in ("cmdline", "environ"):
                    try:
                        text = (entry / part).read_bytes()
                    except OSError:
                        continue
                    if PASSWORD.encode() in text:
                        seen.append(f"{entry}/{part}")

    watcher = threading.Thread(target=watch)
    watcher.start()
    logger = logging.getLogger("paramiko")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.DEBUG, logger="paramiko"):
            assert ask(make_line("asked", with_password()), "sleep 0.3; cat", b"x") == (0, b"x", b"")
            error = fails(make_line("asked", with_password(PASSWORD + "?")), Permanent)
    finally:
        done.set()
        watcher.join()
        logger.removeHandler(caplog.handler)
    assert not seen
    assert PASSWORD not in f"{error!r} {vars(error)} {caplog.text} {users.sshd.log}"


@pytest.mark.parametrize("user", ["asked", "free"])
def test_plan_needs_one_command_and_leaves_the_password_nowhere(users: Users, tmp_path: Path, user: str) -> None:
    """The program as it is typed, over a real sshd and sudo; round trips: log-in, open, exec."""
    known, password = tmp_path / "known_hosts", tmp_path / "password"
    known.write_text(users.sshd.known_line())
    password.write_text(PASSWORD + "\n")
    password.chmod(0o600)
    variables = users.host(user).variables
    options = {"ansible_ssh_common_args": f"-o UserKnownHostsFile={known}"}
    inventory = tmp_path / "hosts.yaml"
    inventory.write_text(json.dumps({"gpu": {"hosts": {"n1": {**variables, **options}}}}))
    book = Path(__file__).parents[2] / "playbooks" / "toy-1.0.yaml"
    home, program = tmp_path / "home", Path(sys.executable).with_name("fleetdrv")
    home.mkdir()
    ended = subprocess.run(
        [program, "plan", book, "-i", inventory, "--no-cluster", "--json", "--sudo-password-file", password],
        env={**os.environ, "HOME": str(home), "XDG_STATE_HOME": str(home), "XDG_CACHE_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    document = json.loads(ended.stdout)
    assert document["effects"] == {"execs": 1, "api_writes": 0}, ended
    assert document["nodes"]["n1"]["outcome"] != "unreachable", ended
    assert PASSWORD not in ended.stdout + ended.stderr
    for path in home.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes()
