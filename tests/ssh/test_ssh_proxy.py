"""ProxyCommand: the operator's own program in place of the TCP connection."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ssh_asks import fails, logs_in
from ssh_server import USER, Sshd, make_key, public

from fleetdrv.errors import InputError, LinkLost, Permanent, Unreachable
from fleetdrv.listing import _way
from fleetdrv.model import Host
from fleetdrv.ssh import Dialler
from fleetdrv.ssh_handshake import by_hand

pytestmark = pytest.mark.usefixtures("leaks_nothing")
MakeDialler = Callable[..., Dialler]
StartServer = Callable[..., Sshd]

RELAY = """\
import os, select, signal, socket, sys
notes = os.environ.get("FLEETDRV_TEST_NOTES")
if notes:
    with open(notes, "a") as stream:
        print(os.getpid(), *sys.argv[1:], os.getsid(0) == os.getpid(), file=stream)
far = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
ways = {0: far.fileno(), far.fileno(): 1}
while True:
    for near in select.select(list(ways), [], [])[0]:
        data = os.read(near, 65536)
        if not data:
            sys.exit(0)
        while data:
            data = data[os.write(ways[near], data):]
"""
"""What `nc HOST PORT` does; not every machine has one."""


@pytest.fixture
def relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A command to which the port is to be added; each start is a line in `notes`."""
    (tmp_path / "relay.py").write_text(RELAY)
    monkeypatch.setenv("FLEETDRV_TEST_NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("SHELL", "/bin/sh")
    return shlex.join((sys.executable, str(tmp_path / "relay.py")))


def started(tmp_path: Path) -> list[list[str]]:
    path = tmp_path / "notes"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def behind(server: Sshd, **more: object) -> Host:
    """A host that only the proxy can find."""
    return server.host(ansible_host="behind.invalid", ansible_port=22, **more)


def known(server: Sshd) -> str:
    return f"behind.invalid {public(server.host_keys[0])}\n"


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{pid}"):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("prefix", ["", "exec "])
def test_a_host_is_reached_through_it_and_it_ends_with_the_session(
    server: Sshd, make_dialler: MakeDialler, relay: str, tmp_path: Path, prefix: str
) -> None:
    config = f"Host behind.*\n ProxyCommand {prefix}{relay} {server.port} %h %p %r %n 100%%\n"
    assert logs_in(make_dialler(known(server), config), behind(server))
    ((pid, *words),) = started(tmp_path)
    assert words == [str(server.port), "behind.invalid", "22", USER, "behind.invalid", "100%", "True"]
    assert gone(int(pid))


def test_the_inventory_may_name_it_and_none_takes_it_away(
    server: Sshd, make_dialler: MakeDialler, relay: str, tmp_path: Path
) -> None:
    command = shlex.quote(f"ProxyCommand={relay} {server.port}")
    dialler = make_dialler(known(server) + server.known_line(), "Host *\n ProxyCommand false\n")
    assert logs_in(dialler, behind(server, ansible_ssh_common_args=f"-o {command}"))
    assert len(started(tmp_path)) == 1
    assert logs_in(dialler, server.host(ansible_ssh_common_args="-o ProxyCommand=none"))


def test_it_is_the_way_to_a_jump_host_too(
    server: Sshd, start_server: StartServer, make_dialler: MakeDialler, relay: str, tmp_path: Path
) -> None:
    inner = start_server(accept=server.client_key)
    config = (
        f"Host bastion\n ProxyCommand {relay} {server.port}\n IdentityFile {server.client_key}\n User {USER}\n"
        f"Host node\n HostName 127.0.0.1\n ProxyJump bastion\n"
    )
    dialler = make_dialler(f"bastion {public(server.host_keys[0])}\n{inner.known_line()}", config)
    variables = {"ansible_port": inner.port, "ansible_user": USER}
    variables["ansible_ssh_private_key_file"] = str(inner.client_key)
    assert logs_in(dialler, Host(name="node", node_name="node", variables=variables))
    assert len(started(tmp_path)) == 1
    dialler.close()
    assert gone(int(started(tmp_path)[0][0]))


def test_what_it_says_is_in_the_error(
    server: Sshd, make_dialler: MakeDialler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetdrv.ssh.SHORTEST_LAST_PAUSE_SECONDS", 1000.0)  # the second attempt is the last
    config = "Host *\n ProxyCommand sh -c 'echo no route to %h >&2; exit 3'\n"
    error = fails(make_dialler(config=config), behind(server), Unreachable, 60)
    assert "ProxyCommand ended with exit code 3: no route to behind.invalid" in error.cause
    assert "-o 'ProxyCommand=sh -c" in error.remedy


def test_one_that_is_not_there_is_not_tried_again(server: Sshd, make_dialler: MakeDialler) -> None:
    config = "Host *\n ProxyCommand /nowhere/connect %h\n"
    error = fails(make_dialler(config=config), behind(server), Permanent)
    assert "ProxyCommand ended with exit code 127" in error.cause
    assert "/nowhere/connect" in error.cause


def test_one_that_never_says_anything_meets_the_deadline_and_is_ended(
    server: Sshd, make_dialler: MakeDialler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ignores the hang-up, too."""
    monkeypatch.setattr("fleetdrv.ssh_proxy.END_SECONDS", 0.2)
    program = f"trap '' HUP; echo $$ >{tmp_path}/pid; echo waiting >&2; sleep 600 & wait"
    config = f"Host *\n ProxyCommand sh -c {shlex.quote(program)}\n"
    error = fails(make_dialler(config=config), behind(server), Unreachable, 6)
    assert "no SSH banner came; ProxyCommand says: waiting" in error.cause
    assert gone(int((tmp_path / "pid").read_text()))


def test_one_that_dies_under_way_is_a_lost_link(
    server: Sshd, make_dialler: MakeDialler, relay: str, tmp_path: Path
) -> None:
    dialler = make_dialler(known(server), f"Host *\n ProxyCommand {relay} {server.port}\n")
    with dialler.connect(behind(server), 30) as session:
        pid = int(started(tmp_path)[0][0])
        with pytest.raises(LinkLost, match="ProxyCommand ended with exit code -15"):
            session.run(
                "echo here; sleep 60",
                step="test",
                deadline_seconds=60,
                on_stdout=lambda _: os.kill(pid, 15),
            )


def test_a_wrong_host_key_is_refused_through_it_as_well(
    server: Sshd, make_dialler: MakeDialler, relay: str, tmp_path: Path
) -> None:
    other = make_key(tmp_path / "other")
    config = f"Host *\n ProxyCommand {relay} {server.port}\n"
    error = fails(make_dialler(f"behind.invalid {public(other)}\n", config), behind(server), Permanent)
    assert "CHANGED" in error.cause


@pytest.mark.parametrize("address", ["a;b", "$(id)", "a b", "-oX", "*", "~", "a'b"])
def test_no_name_is_more_than_a_name_to_the_shell(make_dialler: MakeDialler, address: str) -> None:
    dialler = make_dialler(config=f'Host gpu\n HostName "{address}"\nHost *\n ProxyCommand nc %h %p\n')
    with pytest.raises(InputError):
        dialler._resolve(Host(name="gpu", node_name="gpu", variables={}))


def test_a_token_that_ssh_does_not_know_is_refused(make_dialler: MakeDialler) -> None:
    dialler = make_dialler(config="Host *\n ProxyCommand nc %h %x\n")
    with pytest.raises(InputError, match="gpu: ProxyCommand: %x is none of %%, %h, %n, %p, %r"):
        dialler._resolve(Host(name="gpu", node_name="gpu", variables={}))


def test_the_same_by_hand(make_dialler: MakeDialler) -> None:
    dialler = make_dialler(config="Host *\n ProxyCommand nc -x 50%% %h %p\n User u\n")
    (target,) = dialler.targets(Host(name="gpu", node_name="gpu", variables={}))
    assert _way((target,)) == "u@gpu:22 by ProxyCommand nc -x 50% gpu 22"
    assert by_hand(target) == "ssh -v -o 'ProxyCommand=nc -x 50%% gpu 22' -p 22 u@gpu true"
