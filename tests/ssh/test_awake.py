"""A laptop that slept: told by two clocks, and its links dialled again while jobs ran on."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

import pytest
from conftest import MakeDialler
from hypothesis import given
from hypothesis import strategies as st
from ssh_server import Sshd
from test_ssh_bastion import JUMP, config
from test_ssh_bastion import known as known_lines

from fleetdrv.awake import SLEPT_SECONDS, Sleeps
from fleetdrv.effects import Effects
from fleetdrv.follow import Follower, JobEnd
from fleetdrv.line import Lines
from fleetdrv.model import Host

StartServer = Callable[..., Sshd]


class Clocks:
    """The machine's two clocks; its lid can be closed."""

    def __init__(self) -> None:
        self.asleep = 0.0

    def awake_clock(self) -> float:
        return time.monotonic()

    def clock(self) -> float:
        return time.monotonic() + self.asleep


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=20))
def test_each_long_sleep_is_told_once_with_its_length_and_no_wait_is(spans: list[tuple[float, float]]) -> None:
    """Each span: seconds awake, then seconds asleep."""
    awake = both = 0.0
    sleeps = Sleeps(lambda: awake, lambda: both)
    assert sleeps.slept() == 0
    for seconds_awake, seconds_asleep in spans:
        awake, both = awake + seconds_awake, both + seconds_awake + seconds_asleep
        told = sleeps.slept()
        if abs(seconds_asleep - SLEPT_SECONDS) > 0.01:
            assert told == (pytest.approx(seconds_asleep, abs=0.01) if seconds_asleep > SLEPT_SECONDS else 0)
        assert sleeps.slept() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux promises of its clocks")
def test_no_deadline_runs_out_in_a_sleep() -> None:
    """All deadlines are by time.monotonic, which has to be the clock that stands still."""
    assert time.get_clock_info("monotonic").implementation == "clock_gettime(CLOCK_MONOTONIC)"


FOLLOWER = r"""
say() { printf 'log %s %s\n%s' "$at" "${#1}" "$1"; at=$((at + ${#1})); }
for word in "$@"; do at=$word; done
case $1 in
launch) say 'one two '; echo beat; sleep 300 ;;
attach) say 'three '; printf 'exit 0 \n' ;;
esac
"""
"""Speaks as launch.sh does: the first follower is cut off, the second goes on where it is told to."""


@pytest.mark.usefixtures("leaks_nothing")
@pytest.mark.parametrize("through_a_bastion", [False, True])
def test_after_a_sleep_the_job_is_followed_on_at_the_same_byte(
    start_server: StartServer,
    make_dialler: MakeDialler,
    monkeypatch: pytest.MonkeyPatch,
    notes: list[str],
    through_a_bastion: bool,
) -> None:
    monkeypatch.setattr("fleetdrv.follow.whole", lambda _: FOLLOWER)
    monkeypatch.setattr("fleetdrv.awake._LOOK_SECONDS", 0.05)
    bastion, node = start_server(), start_server()
    host: Host = node.host(**JUMP) if through_a_bastion else node.host()
    dialler = make_dialler(known_lines(bastion, node), config(bastion))
    monkeypatch.setattr("fleetdrv.line.Dialler", lambda *_, **__: dialler)
    clocks, begun, ends = Clocks(), threading.Event(), list[JobEnd]()

    with Lines(Effects(), None, notes.append, Sleeps(clocks.awake_clock, clocks.clock)) as lines:
        line = lines.to(host)

        def heard(_: bytes) -> None:
            begun.set()

        follower = Follower(line=line, now=time.monotonic, on_log=heard, deadline_seconds=120)
        work = ("launch", "r.outage.1", "digest", "outage")
        job = threading.Thread(target=lambda: ends.append(follower._pursue("r.outage.1", work, b"", "outage")))
        job.start()
        assert begun.wait(20)
        clocks.asleep += 3600
        job.join(30)
        assert not job.is_alive()
    assert (ends[0].exit_code, ends[0].log) == (0, b"one two three ")
    assert notes == ["this machine slept for 3600 s: all links are dialled again, jobs on nodes ran on"]
    assert node.log.count("Accepted publickey") == 2
    assert bastion.log.count("Accepted publickey") == (2 if through_a_bastion else 0)
