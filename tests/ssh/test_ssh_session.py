"""Commands over a real sshd: what they get, what they give back, and how they may end."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable

import paramiko
import pytest
from paramiko.common import cMSG_CHANNEL_DATA
from ssh_server import USER, Sshd

from fleetdrv.effects import Effects, Kind
from fleetdrv.errors import LinkLost, Transient
from fleetdrv.line import NodeLine
from fleetdrv.ssh import Dialler, Session

pytestmark = pytest.mark.usefixtures("leaks_nothing")


@pytest.fixture
def session(dialler: Dialler, server: Sshd) -> Session:
    with dialler.connect(server.host(), 20) as session:
        yield session


def run(session: Session, command: str, **more: object) -> object:
    return session.run(command, step="test", deadline_seconds=more.pop("deadline_seconds", 30), **more)


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 255])
def test_exit_codes_come_back_as_they_are(session: Session, code: int) -> None:
    assert run(session, f"exit {code}").exit_code == code


def test_no_packet_needs_a_mac_of_its_own(session: Session) -> None:
    """Paramiko compares MACs byte by byte in Python; OpenSSH has offered AES-GCM since 2013."""
    assert "-gcm@" in session._transport.local_cipher


def test_a_line_for_one_thing_hangs_up_after_it_and_dials_again_for_the_next(
    dialler: Dialler, server: Sshd
) -> None:
    line = NodeLine(server.host(), dialler, once=True)
    for word in ("a", "b"):
        assert line.run(("echo", word), step="test", deadline_seconds=30)[:2] == (0, f"{word}\n".encode())
        assert line._session is None


def test_both_streams_come_back_apart_and_exact(session: Session) -> None:
    done = run(session, r"printf 'a\0b\377\n'; printf 'c\r\n' >&2")
    assert (done.stdout, done.stderr) == (b"a\0b\xff\n", b"c\r\n")


@pytest.mark.parametrize("size", [0, 1, 32_000, 65_536, 9_000_001])
def test_stdin_arrives_byte_for_byte_and_ends(session: Session, size: int) -> None:
    data = os.urandom(size)
    done = run(session, "sha256sum", stdin=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_what_goes_in_comes_out(session: Session) -> None:
    data = os.urandom(3_000_000)
    assert run(session, "cat", stdin=data).stdout == data


def test_a_command_that_ends_before_its_input_does_not_cost_the_link(session: Session) -> None:
    """Paramiko may send data after the channel's CLOSE, for which sshd ends the connection."""
    for _ in range(20):
        assert run(session, "exit 3", stdin=bytes(4_000_000)).exit_code == 3


def test_nothing_of_a_channel_goes_out_after_its_close(session: Session) -> None:
    """The same without luck: what a thread that lost the race would send."""
    transport = session._transport
    channel = transport.open_session(timeout=10)
    transport.request_exec(channel, "true")
    assert channel.status_event.wait(10)
    channel.close()
    late = paramiko.Message()
    late.add_byte(cMSG_CHANNEL_DATA)
    late.add_int(channel.remote_chanid)
    late.add_string("late")
    time.sleep(0.2)  # for sshd to forget the channel
    channel.transport._send_user_message(late)
    assert run(session, "echo on").stdout == b"on\n"


def test_a_script_on_stdin_runs(session: Session) -> None:
    assert run(session, "sh -s", stdin=b"echo out\nexit 7\n").exit_code == 7


def test_a_command_may_leave_its_input_unread(session: Session) -> None:
    assert run(session, "exit 3", stdin=bytes(9_000_000)).exit_code == 3


def test_eight_megabytes_on_both_streams_do_not_block(session: Session) -> None:
    done = run(session, "head -c 8388608 /dev/zero >&2 & head -c 8388608 /dev/zero; wait")
    assert (len(done.stdout), len(done.stderr), done.exit_code) == (8388608, 8388608, 0)


def test_one_connection_serves_many_commands(session: Session, server: Sshd, effects: Effects) -> None:
    before = server.log.count("Accepted publickey")
    assert [run(session, f"echo {n}").stdout for n in range(30)] == [b"%d\n" % n for n in range(30)]
    assert server.log.count("Accepted publickey") == before
    assert effects.execs == 30
    assert effects.by_target == {"node": {Kind.EXEC: 30}}


def test_output_is_handed_over_while_the_command_runs(session: Session) -> None:
    came: list[tuple[float, bytes]] = []
    done = run(
        session,
        "echo one; sleep 0.5; echo two; echo err >&2",
        on_stdout=lambda data: came.append((time.monotonic(), data)),
    )
    assert b"".join(data for _, data in came) == b"one\ntwo\n"
    assert came[-1][0] - came[0][0] > 0.3
    assert (done.stdout, done.stderr) == (b"", b"err\n")


def test_an_error_of_the_receiver_is_its_own(session: Session) -> None:
    def full(_: bytes) -> None:
        raise OSError(28, "no space left")

    with pytest.raises(OSError, match="no space left"):
        run(session, "echo; sleep 60", on_stdout=full)
    assert run(session, "echo on").stdout == b"on\n"


def test_killed_by_a_signal_is_128_plus_signal(session: Session) -> None:
    assert run(session, "kill -KILL $$").exit_code == 137
    assert run(session, "kill -TERM $$").exit_code == 143


def test_the_deadline_ends_the_waiting_and_the_session_lives_on(session: Session) -> None:
    start = time.monotonic()
    with pytest.raises(Transient, match=r"no end within 0\.5 s") as caught:
        run(session, "echo so far; sleep 60", deadline_seconds=0.5)
    assert time.monotonic() - start < 5
    assert not isinstance(caught.value, LinkLost)
    assert caught.value.evidence == "so far\n"
    assert run(session, "echo on").stdout == b"on\n"


def test_a_command_that_never_stops_talking_meets_its_deadline(session: Session) -> None:
    start = time.monotonic()
    with pytest.raises(Transient, match="no end within 1 s"):
        # a receiver slower than the command: there is always something more to take
        run(session, "yes", deadline_seconds=1, on_stdout=lambda _: time.sleep(0.05))
    assert time.monotonic() - start < 4


def test_silence_is_not_a_deadline_for_a_command_that_talks(session: Session) -> None:
    done = run(session, "for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done", silence_seconds=1.5)
    assert done.stdout.split() == [b"1", b"2", b"3", b"4", b"5", b"6"]


def test_silence_closes_the_session(session: Session) -> None:
    with pytest.raises(LinkLost, match=r"nothing was heard for 0\.5 s"):
        run(session, "sleep 60", silence_seconds=0.5)
    assert not session.alive
    with pytest.raises(LinkLost, match="not sent"):
        run(session, "true")


def test_a_daemon_that_holds_the_streams_does_not_hold_us(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetdrv.ssh_exchange.LINGER_SECONDS", 0.5)
    start = time.monotonic()
    done = run(session, "sleep 20 & echo started; exit 4")
    assert (done.exit_code, done.stdout) == (4, b"started\n")
    assert time.monotonic() - start < 10


def test_the_user_is_known(session: Session) -> None:
    assert session.user == USER


def test_a_server_that_opens_no_session_is_no_lost_link(
    start_server: Callable[..., Sshd], make_dialler: Callable[..., Dialler]
) -> None:
    server = start_server("MaxSessions 0")
    with make_dialler(server.known_line()).connect(server.host(), 20) as session:
        with pytest.raises(Transient, match="opens no session") as caught:
            run(session, "true")
        assert session.alive
        assert "MaxSessions" in caught.value.remedy


def test_every_command_is_counted_even_one_that_is_cut_off(session: Session, effects: Effects) -> None:
    with pytest.raises(Transient):
        run(session, "sleep 60", deadline_seconds=0.3)
    assert effects.execs == 1
