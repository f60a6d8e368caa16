"""Links that die: noticed in bounded time, never called a failure of the command."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import asyncssh
import paramiko
import pytest
from ssh_proxy import Proxy
from ssh_server import Sshd, public

from fleetdrv.errors import LinkLost
from fleetdrv.ssh import Dialler, Session
from fleetdrv.ssh_transport import FleetTransport

pytestmark = pytest.mark.usefixtures("leaks_nothing")
MakeDialler = Callable[..., Dialler]


@pytest.fixture
def through_proxy(
    server: Sshd, make_dialler: MakeDialler, make_proxy: Callable[[int], Proxy]
) -> tuple[Session, Proxy]:
    proxy = make_proxy(server.port)
    dialler = make_dialler(f"[127.0.0.1]:{proxy.port} {public(server.host_keys[0])}\n")
    with dialler.connect(server.host(ansible_port=proxy.port), 20) as session:
        yield session, proxy


def later(seconds: float, act: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, act)
    timer.start()
    return timer


def test_a_killed_peer_is_noticed_at_once(server: Sshd, dialler: Dialler) -> None:
    with dialler.connect(server.host(), 20) as session:
        mine = server.children()[-1]
        came: list[bytes] = []
        timer = later(0.5, lambda: os.kill(mine, signal.SIGKILL))
        start = time.monotonic()
        with pytest.raises(LinkLost, match="whether the command ran is unknown"):
            session.run("echo begun; sleep 5", step="swap", deadline_seconds=20, on_stdout=came.append)
        assert time.monotonic() - start < 3
        timer.join()
        assert came == [b"begun\n"]
        assert not session.alive


class DiesAtCommand(asyncssh.SSHServer):
    """Takes the command and dies before it says whether it will run it."""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.connection = conn

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, _username: str, _key: asyncssh.SSHKey) -> bool:
        return True

    def session_requested(self) -> asyncssh.SSHServerSession:
        session = asyncssh.SSHServerSession()
        session.exec_requested = lambda _: self.connection.abort()
        return session


def test_dying_before_the_answer_is_no_refusal(
    server: Sshd, make_dialler: MakeDialler, simulated: Callable[..., int]
) -> None:
    port = simulated(DiesAtCommand, server.host_keys[0])
    dialler = make_dialler(f"[127.0.0.1]:{port} {public(server.host_keys[0])}\n")
    for _ in range(10):
        session = dialler.connect(server.host(ansible_port=port), 20)
        with pytest.raises(LinkLost, match="whether the command ran is unknown"):
            session.run("true", step="swap", deadline_seconds=20)
        session.close()


def test_a_connection_closed_between_two_commands(server: Sshd, dialler: Dialler) -> None:
    with dialler.connect(server.host(), 20) as session:
        os.kill(server.children()[-1], signal.SIGKILL)
        deadline = time.monotonic() + 5
        while session.alive and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(LinkLost, match="the command was not sent"):
            session.run("true", step="probe", deadline_seconds=20)


def test_a_frozen_link_is_noticed_by_silence(through_proxy: tuple[Session, Proxy]) -> None:
    session, proxy = through_proxy
    timer = later(0.5, proxy.freeze)
    start = time.monotonic()
    with pytest.raises(LinkLost, match="nothing was heard for 1 s"):
        session.run(
            "while :; do echo tick; sleep 0.1; done", step="follow", deadline_seconds=60, silence_seconds=1
        )
    assert 1 < time.monotonic() - start < 6
    timer.join()


def test_a_link_frozen_before_the_command_is_noticed(
    through_proxy: tuple[Session, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetdrv.ssh_session.CHANNEL_SECONDS", 1.0)
    session, proxy = through_proxy
    proxy.freeze()
    start = time.monotonic()
    with pytest.raises(LinkLost, match="not sent"):
        session.run("true", step="probe", deadline_seconds=60)
    assert time.monotonic() - start < 5


def test_a_link_that_stalls_under_our_input_is_noticed(
    server: Sshd,
    make_dialler: MakeDialler,
    make_proxy: Callable[[int], Proxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The write itself blocks, inside Paramiko's lock, where no reader and no deadline could end it."""
    monkeypatch.setattr("fleetdrv.dial.SEND_STALL_SECONDS", 1.0)
    monkeypatch.setattr("fleetdrv.ssh_transport.FleetTransport._active_check_timeout", 0.2)
    proxy = make_proxy(server.port)
    dialler = make_dialler(f"[127.0.0.1]:{proxy.port} {public(server.host_keys[0])}\n")
    with dialler.connect(server.host(ansible_port=proxy.port), 20) as session:
        small = (socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # less than SSH's own window of 2 MiB
        session._transport.wire._carrier.setsockopt(*small)
        proxy.freeze()
        session._transport.open_session = _at_once(session._transport)
        start = time.monotonic()
        with pytest.raises(LinkLost):
            session.run("cat >/dev/null", step="upload", stdin=bytes(20_000_000), deadline_seconds=60)
        assert 0.9 < time.monotonic() - start < 10


def _at_once(transport: FleetTransport) -> Callable[..., paramiko.Channel]:
    """A channel that needs no answer: the link is frozen before the first byte of input."""

    def open_session(**_: object) -> paramiko.Channel:
        channel = paramiko.Channel(0)
        channel._set_transport(transport)
        channel._set_window(2**21, 2**15)
        channel._set_remote_channel(0, 2**21, 2**15)
        return channel

    return open_session


def test_an_idle_frozen_link_is_noticed_by_keepalives(
    server: Sshd,
    make_dialler: MakeDialler,
    make_proxy: Callable[[int], Proxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The proxy's kernel acknowledges everything: neither TCP keepalive nor the user timeout sees it."""
    monkeypatch.setattr("fleetdrv.ssh_transport.KEEPALIVE_SECONDS", 1)
    monkeypatch.setattr("fleetdrv.ssh_transport.FleetTransport._active_check_timeout", 0.2)
    proxy = make_proxy(server.port)
    dialler = make_dialler(f"[127.0.0.1]:{proxy.port} {public(server.host_keys[0])}\n")
    with dialler.connect(server.host(ansible_port=proxy.port), 20) as session:
        session.run("sleep 5", step="test", deadline_seconds=20)
        assert session.alive, "a quiet peer that answers keepalives is not lost"
        proxy.freeze()
        start = time.monotonic()
        with pytest.raises(LinkLost, match="no sign of life"):
            session.run("sleep 60", step="follow", deadline_seconds=60)
        assert time.monotonic() - start < 10


def test_a_brief_pause_is_survived(through_proxy: tuple[Session, Proxy]) -> None:
    session, proxy = through_proxy
    timers = [later(0.3, proxy.freeze), later(1.0, proxy.thaw)]
    done = session.run(
        "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.2; done",
        step="follow",
        deadline_seconds=30,
        silence_seconds=5,
    )
    assert done.stdout.split() == [b"%d" % n for n in range(1, 9)]
    for timer in timers:
        timer.join()


def test_closing_from_another_thread_wakes_a_running_command(server: Sshd, dialler: Dialler) -> None:
    session = dialler.connect(server.host(), 20)
    timer = later(0.3, session.close)
    start = time.monotonic()
    with pytest.raises(LinkLost):
        session.run("sleep 60", step="follow", deadline_seconds=60)
    assert time.monotonic() - start < 3
    timer.join()


def test_close_is_quick_and_may_be_repeated(server: Sshd, dialler: Dialler) -> None:
    session = dialler.connect(server.host(), 20)
    start = time.monotonic()
    session.close()
    session.close()
    assert time.monotonic() - start < 3, "the reader sleeps up to 5 s in recv unless it is woken"
