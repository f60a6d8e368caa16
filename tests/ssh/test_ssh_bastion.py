"""One bastion connection for a fleet."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from ssh_server import USER, Sshd, free_port, public

from fleetdrv.errors import InputError, LinkLost, Permanent, Unreachable, WayGone
from fleetdrv.line import NodeLine
from fleetdrv.look import ask
from fleetdrv.ssh import Dialler

pytestmark = pytest.mark.usefixtures("leaks_nothing")
MakeDialler = Callable[..., Dialler]
StartServer = Callable[..., Sshd]


def config(bastion: Sshd, extra: str = "") -> str:
    return (
        f"Host bastion\n HostName 127.0.0.1\n Port {bastion.port}\n User {USER}\n"
        f" IdentityFile {bastion.client_key}\n{extra}"
    )


def known(*servers: Sshd) -> str:
    return "".join(server.known_line() for server in servers)


JUMP = {"ansible_ssh_common_args": "-o ProxyJump=bastion"}


def test_many_nodes_behind_a_bastion_with_one_session(
    start_server: StartServer, make_dialler: MakeDialler
) -> None:
    bastion, node = start_server("MaxSessions 1"), start_server("MaxStartups 100")
    dialler = make_dialler(known(bastion, node), config(bastion))

    def turn(number: int) -> bytes:
        with dialler.connect(node.host(f"node{number}", **JUMP), 30) as session:
            return session.run(f"echo {number}", step="test", deadline_seconds=30).stdout

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(turn, range(24))) == [b"%d\n" % n for n in range(24)]
    assert bastion.log.count("Accepted publickey") == 1
    assert node.log.count("Accepted publickey") == 24
    dialler.close()


def test_the_jump_may_come_from_the_ssh_config(start_server: StartServer, make_dialler: MakeDialler) -> None:
    """`Host *` covers the bastion itself, too: it is not reached through itself."""
    bastion, node = start_server(), start_server()
    dialler = make_dialler(known(bastion, node), config(bastion, "Host *\n ProxyJump bastion\n"))
    with dialler.connect(node.host(), 20) as session:
        assert session.run("echo in", step="test", deadline_seconds=20).stdout == b"in\n"
    assert bastion.log.count("Accepted publickey") == 1
    dialler.close()


def test_jumping_twice(start_server: StartServer, make_dialler: MakeDialler) -> None:
    first, second, node = start_server(), start_server(), start_server()
    text = config(first) + config(second).replace("Host bastion", "Host second")
    dialler = make_dialler(known(first, second, node), text)
    with dialler.connect(node.host(ansible_ssh_common_args="-J bastion,second"), 20) as session:
        assert session.run("echo in", step="test", deadline_seconds=20).stdout == b"in\n"
    assert [s.log.count("Accepted publickey") for s in (first, second, node)] == [1, 1, 1]
    dialler.close()


def test_a_circle_of_jumps_is_refused(server: Sshd, make_dialler: MakeDialler) -> None:
    dialler = make_dialler("", "Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
    with pytest.raises(InputError, match="in a circle"):
        dialler.connect(server.host(ansible_ssh_common_args="-J a"), 5)


def test_a_bastions_unknown_key_stops_everybody_at_once(
    start_server: StartServer, make_dialler: MakeDialler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetdrv.ssh_bastion.FRESH_SECONDS", 0.0)  # what is permanent does not age
    bastion, node = start_server(), start_server()
    dialler = make_dialler(known(node), config(bastion))
    for name in ("node1", "node2"):
        with pytest.raises(Permanent, match=r"bastion .* unknown") as caught:
            dialler.connect(node.host(name, **JUMP), 20)
        assert caught.value.node == name
        assert "known_hosts" in caught.value.remedy
    assert bastion.log.count("Connection from") == 1
    dialler.close()


def test_forwarding_forbidden_says_where_to_look(start_server: StartServer, make_dialler: MakeDialler) -> None:
    bastion, node = start_server("AllowTcpForwarding no"), start_server()
    dialler = make_dialler(known(bastion, node), config(bastion))
    with pytest.raises(Permanent) as caught:
        dialler.connect(node.host(**JUMP), 20)
    assert "AllowTcpForwarding" in caught.value.remedy
    dialler.close()


def test_a_node_that_the_bastion_cannot_reach_is_unreachable(
    start_server: StartServer, make_dialler: MakeDialler, server: Sshd
) -> None:
    bastion = start_server()
    dialler = make_dialler(known(bastion), config(bastion))
    with pytest.raises(Unreachable, match=r"bastion .* opens no way to .*: Connect(ion)? (failed|refused)"):
        dialler.connect(server.host(ansible_port=free_port(), **JUMP), 2)
    dialler.close()


def test_a_hundred_nodes_outlast_their_bastion(
    start_server: StartServer, make_dialler: MakeDialler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is away for longer than a node is waited for: what the look of a node does is what is called here."""
    monkeypatch.setattr("fleetdrv.look.whole", lambda _: "sleep 1; echo $1")
    bastion = start_server("MaxSessions 1", "MaxStartups 10:30:100")
    node = start_server("MaxStartups 200", accept=bastion.client_key)
    dialler = make_dialler(known(bastion, node), config(bastion))
    lines = [NodeLine(node.host(f"n{number}", **JUMP), dialler) for number in range(100)]

    def turn(line: NodeLine) -> bytes:
        return ask(line, "x.sh", (line.node,), step="look", deadline_seconds=60)[1]

    assert dialler.away() == ""
    with ThreadPoolExecutor(100) as pool:
        connected = list(pool.map(turn, lines))
        monkeypatch.setattr("fleetdrv.line.CONNECT_SECONDS", 5.0)  # not before: a busy machine takes longer
        looks = [pool.submit(turn, line) for line in lines]
        bastion.stop()
        while not dialler.away():
            time.sleep(0.05)
        assert str(bastion.port) in dialler.away()
        time.sleep(7)
        assert not any(look.done() and look.exception() for look in looks)
        bastion.start_again()
        assert [look.result() for look in looks] == connected == [f"{line.node}\n".encode() for line in lines]
    assert dialler.away() == ""
    assert bastion.log.count("Accepted publickey") == 2
    for line in lines:
        line.close()
    dialler.close()


def test_a_bastion_that_stays_away_ends_the_run_and_blames_no_node(
    start_server: StartServer, make_dialler: MakeDialler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetdrv.ssh.WAY_SECONDS", 1.0)
    bastion = start_server()
    node = start_server(accept=bastion.client_key)
    dialler = make_dialler(known(bastion, node), config(bastion))
    dialler.connect(node.host(**JUMP), 20).close()
    bastion.stop()
    with pytest.raises(WayGone, match=r"refused, for \d+ s now; jobs on nodes run on: the same command again"):
        dialler.connect(node.host(**JUMP), 60)
    dialler.close()


def test_a_bastion_that_dies_is_dialled_again(start_server: StartServer, make_dialler: MakeDialler) -> None:
    bastion, node = start_server(), start_server()
    dialler = make_dialler(known(bastion, node), config(bastion))
    with dialler.connect(node.host(**JUMP), 20) as session:
        for child in bastion.children():
            os.kill(child, signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(LinkLost):
            session.run("sleep 60", step="follow", deadline_seconds=60)
        assert time.monotonic() - start < 5
    with dialler.connect(node.host(**JUMP), 20) as session:
        assert session.run("echo back", step="test", deadline_seconds=20).stdout == b"back\n"
    assert bastion.log.count("Accepted publickey") == 2
    dialler.close()


def test_a_dead_bastion_is_not_dialled_by_every_node_in_turn(
    start_server: StartServer, make_dialler: MakeDialler
) -> None:
    bastion, node = start_server(), start_server()
    dialler = make_dialler(known(bastion, node), config(bastion))
    bastion.stop()
    start = time.monotonic()

    def fails(number: int) -> str:
        with pytest.raises(Unreachable) as caught:
            dialler.connect(node.host(f"node{number}", **JUMP), 3)
        return caught.value.cause

    with ThreadPoolExecutor(10) as pool:
        causes = list(pool.map(fails, range(10)))
    assert all("bastion" in cause and "refused" in cause for cause in causes)
    assert time.monotonic() - start < 5
    dialler.close()


def test_the_users_own_known_hosts_hold_for_the_bastion_too(
    start_server: StartServer, make_dialler: MakeDialler
) -> None:
    bastion, node = start_server(), start_server()
    wrong = f"[127.0.0.1]:{bastion.port} {public(node.host_keys[0])}\n"
    dialler = make_dialler(known(node) + wrong, config(bastion))
    with pytest.raises(Permanent, match="CHANGED"):
        dialler.connect(node.host(**JUMP), 20)
    dialler.close()
