"""Names to sockets: order, fallback, limits, and the wire's own rules."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import pytest

from fleetdrv import dial
from fleetdrv.dial import Wire

V4, V6 = socket.AF_INET, socket.AF_INET6


def test_families_take_turns_and_the_resolvers_first_choice_stays_first() -> None:
    candidates = [(V6, ("a", 1)), (V6, ("b", 1)), (V4, ("c", 1)), (V6, ("d", 1))]
    assert [address[0] for _, address in dial.interleave(candidates)] == ["a", "c", "b", "d"]
    assert dial.interleave([]) == []


def resolve_to(monkeypatch: pytest.MonkeyPatch, *candidates: dial.Candidate) -> None:
    monkeypatch.setattr(dial, "resolve", lambda *_, **__: list(candidates))


def test_a_silent_first_address_costs_a_quarter_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener with a full backlog drops SYNs: nothing comes back, as from a firewall."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as silent,
        socket.create_server(("127.0.0.1", 0)) as good,
    ):
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        resolve_to(monkeypatch, (V4, silent.getsockname()), (V4, good.getsockname()))
        start = time.monotonic()
        wire = dial.connect("any", 22, within_seconds=5)
        assert 0.2 < time.monotonic() - start < 3
        assert wire.getpeername() == good.getsockname()
        wire.close()
        start = time.monotonic()
        resolve_to(monkeypatch, (V4, silent.getsockname()))
        with pytest.raises(TimeoutError):
            dial.connect("any", 22, within_seconds=0.3)
        assert time.monotonic() - start < 1
        for filler in fillers:
            filler.close()


def test_a_refused_first_address_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "STAGGER_SECONDS", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as good:
        resolve_to(monkeypatch, (V4, ("127.0.0.1", 1)), (V4, good.getsockname()))
        start = time.monotonic()
        dial.connect("any", 22, within_seconds=10).close()
        assert time.monotonic() - start < 3


def test_all_refused_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, (V4, ("127.0.0.1", 1)), (V4, ("127.0.0.1", 2)))
    with pytest.raises(OSError, match="Connection refused"):
        dial.connect("any", 22, within_seconds=5)


def test_a_name_service_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(dial, "_getaddrinfo", lambda *_: released.wait(10) and [])
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="name service"):
        dial.resolve("slow.example", 22, within_seconds=0.2)
    assert time.monotonic() - start < 1
    released.set()


def test_a_literal_address_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("a name service was asked"))
    assert dial.resolve("127.0.0.1", 22, within_seconds=0) == [(V4, ("127.0.0.1", 22))]


def test_the_socket_is_tuned() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        wire = dial.connect("127.0.0.1", server.getsockname()[1], within_seconds=5)
        sock = wire._carrier
        assert isinstance(sock, socket.socket)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
        wire.close()


def test_shutting_wakes_a_blocked_reader_and_may_be_repeated() -> None:
    left, right = socket.socketpair()
    wire = Wire(left)
    wire.settimeout(30)
    threading.Timer(0.2, wire.shut).start()
    start = time.monotonic()
    assert wire.recv(1) == b""
    assert time.monotonic() - start < 2
    for _ in range(2):
        wire.shut()
        wire.close()
    right.close()


def fill(wire: Wire) -> None:
    """Send as Paramiko does: again after each time-out."""
    while True:
        with suppress(TimeoutError):
            wire.send(bytes(100_000))


def test_a_wire_that_takes_nothing_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "SEND_STALL_SECONDS", 0.5)
    left, right = socket.socketpair()
    wire = Wire(left)
    wire.settimeout(0.1)
    start = time.monotonic()
    with pytest.raises(ConnectionAbortedError, match="takes no more data"):
        fill(wire)
    assert 0.4 < time.monotonic() - start < 3
    wire.close()
    right.close()


def test_what_comes_with_the_bytes_asked_for_is_kept_in_order_to_the_end() -> None:
    left, right = socket.socketpair()
    wire, sent = Wire(left), bytes(range(256)) * 4
    right.sendall(sent)
    right.close()
    got = b""
    while part := wire.recv(7):
        assert len(part) <= 7
        got += part
    assert got == sent
    assert wire.recv(7) == b""
    wire.close()
