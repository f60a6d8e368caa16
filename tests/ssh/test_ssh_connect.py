"""Reaching a host: limits for every stage, retries, and what a failed attempt leaves behind (nothing)."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from ssh_asks import at, fails, logs_in
from ssh_server import Sshd, free_port, public

from fleetdrv import dial
from fleetdrv.errors import InputError, Permanent, Unreachable
from fleetdrv.ssh import Dialler, _pause

pytestmark = pytest.mark.usefixtures("leaks_nothing")
MakeDialler = Callable[..., Dialler]
StartServer = Callable[..., Sshd]


def test_refused_is_tried_until_the_deadline(server: Sshd, dialler: Dialler) -> None:
    start = time.monotonic()
    error = fails(dialler, server.host(ansible_port=free_port()), Unreachable, 3)
    assert 0.4 < time.monotonic() - start < 6
    assert "Connection refused" in error.cause
    assert "attempt 2" in error.cause or "attempt 3" in error.cause
    assert error.remedy.startswith(f"ssh -v -i {server.client_key} -p ")


def test_a_server_that_comes_up_meanwhile_is_reached(start_server: StartServer, make_dialler: MakeDialler) -> None:
    server = start_server()
    server.process.terminate()
    server.process.wait(5)
    again: list[subprocess.Popen[bytes]] = []

    def come_back() -> None:
        arguments = ("/usr/sbin/sshd", "-D", "-f", str(server.folder / "sshd_config"))
        again.append(subprocess.Popen(arguments))

    timer = threading.Timer(0.7, come_back)
    timer.start()
    try:
        assert logs_in(make_dialler(server.known_line()), server.host())
    finally:
        timer.join()
        again[0].terminate()
        again[0].wait(5)


@contextmanager
def listener(*answers: bytes, hold: bool = False):
    """A port that accepts, says something, and closes or holds the connection; yields (port, accepted)."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                held.append(connection)
                for answer in answers:
                    connection.sendall(answer)
                if not hold:
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], held
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    for connection in held:
        connection.close()


def test_a_banner_that_never_comes(server: Sshd, dialler: Dialler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetdrv.ssh_handshake.BANNER_SECONDS", 0.5)
    with listener(hold=True) as (port, accepted):
        start = time.monotonic()
        assert "no SSH banner" in fails(dialler, at(port, server), Unreachable, 1.2).cause
        assert time.monotonic() - start < 2
        assert len(accepted) in (1, 2)


def test_the_deadline_cuts_a_banner_short(server: Sshd, dialler: Dialler) -> None:
    with listener(hold=True) as (port, _):
        start = time.monotonic()
        fails(dialler, at(port, server), Unreachable, 0.7)
        assert time.monotonic() - start < 2


def test_a_key_exchange_that_never_ends(server: Sshd, dialler: Dialler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetdrv.ssh_handshake.KEY_EXCHANGE_SECONDS", 0.5)
    monkeypatch.setattr("fleetdrv.ssh_handshake.BANNER_SECONDS", 0.5)
    with listener(b"SSH-2.0-Frozen\r\n", hold=True) as (port, _):
        assert "key exchange did not end" in fails(dialler, at(port, server), Unreachable, 1.5).cause


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"Exceeded MaxStartups\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-Gone\r\n",
        b"\xff\xfe\n",
    ],
)
def test_being_dropped_before_the_log_in_is_worth_another_try(
    server: Sshd, dialler: Dialler, answer: bytes
) -> None:
    with listener(answer) as (port, accepted):
        fails(dialler, at(port, server), Unreachable, 2)
        assert len(accepted) >= 2


def test_an_old_server_gets_a_second_offer_and_is_remembered(
    start_server: StartServer, make_dialler: MakeDialler
) -> None:
    server = start_server("KexAlgorithms diffie-hellman-group14-sha256", "MACs hmac-sha1")
    dialler = make_dialler(server.known_line())
    assert logs_in(dialler, server.host())
    assert server.log.count("Connection from") == 2
    assert logs_in(dialler, server.host())
    assert server.log.count("Connection from") == 3


def test_no_common_algorithm_is_permanent(start_server: StartServer, make_dialler: MakeDialler) -> None:
    server = start_server("Ciphers aes128-cbc")
    assert "no common algorithms" in fails(make_dialler(server.known_line()), server.host(), Permanent).cause


def test_a_name_that_does_not_exist(server: Sshd, dialler: Dialler) -> None:
    error = fails(dialler, server.host(ansible_host="no-such-host.invalid"), (Permanent, Unreachable), 2)
    assert "no-such-host.invalid" in error.cause


@pytest.mark.parametrize("port", ["ssh", 0, 65536, "22 "])
def test_a_port_must_be_one(server: Sshd, dialler: Dialler, port: object) -> None:
    assert "node: port" in str(fails(dialler, server.host(ansible_port=port), InputError))


def test_twenty_at_once_under_default_limits_are_all_served(
    start_server: StartServer, make_dialler: MakeDialler
) -> None:
    server = start_server("MaxStartups 10:30:100")
    dialler = make_dialler(server.known_line())
    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(lambda n: logs_in(dialler, server.host(f"node{n}")), range(20)))


def test_hosts_that_are_off_take_no_turn(
    make_dialler: MakeDialler, server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty hosts that never answer the TCP connect, sixteen turns, and one that is there."""
    monkeypatch.setattr("fleetdrv.dial._race", _slow_unless(server.port))
    dialler = make_dialler(server.known_line())
    dead = [server.host(f"dead{number}", ansible_port=1) for number in range(40)]
    with ThreadPoolExecutor(41) as pool:
        futures = [pool.submit(fails, dialler, host, Unreachable, 4) for host in dead]
        time.sleep(0.5)
        start = time.monotonic()
        assert logs_in(dialler, server.host())
        assert time.monotonic() - start < 3
        assert all("switched off" in future.result().cause for future in futures)


def _slow_unless(port: int) -> Callable[..., socket.socket]:
    race = dial._race

    def slow(candidates: list[dial.Candidate], end: float) -> socket.socket:
        if candidates[0][1][1] == port:
            return race(candidates, end)
        time.sleep(max(0.0, end - time.monotonic()))
        raise TimeoutError(110, "switched off")

    return slow


def test_pauses_grow_vary_and_leave_time_for_a_last_attempt() -> None:
    first = [_pause(1, 600) for _ in range(100)]
    assert 0.5 <= min(first) < max(first) <= 1
    assert all(15 <= _pause(9, 600) <= 30 for _ in range(100))
    assert all(_pause(9, left) <= left / 2 for left in (8, 20, 50))
    assert _pause(2, 1.9) == 0

    def attempts(left: float) -> int:
        number = 0
        while left > 0:
            number += 1
            left -= _pause(number, left) or left
        return number

    assert 8 <= attempts(60) <= 14


def test_every_descriptor_is_asked_for(tmp_path: Path) -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096));"
        "from fleetdrv.ssh import Dialler; from fleetdrv.effects import Effects; Dialler(Effects());"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run(
        (sys.executable, "-c", program), capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "(4096, 4096)"


def test_one_name_resolves_localhost_both_ways(start_server: StartServer, make_dialler: MakeDialler) -> None:
    """localhost is ::1 first on most machines; the server listens on 127.0.0.1 only."""
    server = start_server()
    dialler = make_dialler(f"[localhost]:{server.port} {public(server.host_keys[0])}\n")
    assert logs_in(dialler, server.host(ansible_host="localhost"))


def test_a_dead_v6_address_is_no_obstacle_to_a_live_v4_one(
    server: Sshd, make_dialler: MakeDialler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paramiko's own connect would wait for the first one until the end (its issue 686)."""
    with ExitStack() as stack:
        dead: dial.Candidate = (socket.AF_INET6, ("2001:db8::1", 22, 0, 0))  # where there is no IPv6
        with suppress(OSError):  # one that never answers: its backlog is full
            silent = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=0))
            dead = (socket.AF_INET6, silent.getsockname())
            for _ in range(4):
                filler = stack.enter_context(socket.socket(socket.AF_INET6))
                filler.setblocking(False)
                filler.connect_ex(silent.getsockname())
        live = (socket.AF_INET, ("127.0.0.1", server.port))
        monkeypatch.setattr(dial, "_getaddrinfo", lambda *_: [dead, live])
        dialler = make_dialler(f"[both.example]:{server.port} {public(server.host_keys[0])}\n")
        assert logs_in(dialler, server.host(ansible_host="both.example"))
