"""Daemons of the practice fleet, with real processes."""

import dataclasses
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetdrv.lab import LabError, processes

STUBBORN = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for process in processes.every(tmp_path):
        process.stop(deadline_seconds=0.1)


def wait_for_log(folder: Path, name: str, text: str) -> None:
    deadline = time.monotonic() + 10
    while text not in processes.last_lines(folder, name):
        assert time.monotonic() < deadline, f"{text!r} never appeared in the log of {name}"
        time.sleep(0.02)


def test_a_daemon_has_its_own_session_and_log_and_stops(folder: Path) -> None:
    process = processes.start(["sh", "-c", "echo out; echo err >&2; exec sleep 60"], folder=folder, name="d")
    wait_for_log(folder, "d", "out\nerr")
    assert os.getsid(process.pid) == process.pid
    assert processes.load(folder, "d") == process
    assert processes.every(folder) == [process]
    assert process.alive()
    process.stop()
    assert not process.alive()
    assert processes.every(folder) == []


def test_one_that_ignores_term_is_killed_after_the_deadline(folder: Path) -> None:
    process = processes.start(STUBBORN, folder=folder, name="d")
    wait_for_log(folder, "d", "ready")
    began = time.monotonic()
    process.stop(deadline_seconds=0.3)
    assert not process.alive()
    assert 0.3 <= time.monotonic() - began < 5


def test_a_stranger_with_the_same_pid_is_left_alone(folder: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        own = processes.start(["sleep", "60"], folder=folder, name="d")
        own.stop()
        dataclasses.replace(own, pid=stranger.pid, start_time=1).stop()
        assert stranger.poll() is None
        stranger.kill()


def test_a_second_start_is_refused_while_the_first_runs(folder: Path) -> None:
    processes.start(["sleep", "60"], folder=folder, name="d")
    with pytest.raises(LabError, match="d runs already"):
        processes.start(["sleep", "60"], folder=folder, name="d")


def test_a_dead_daemon_is_not_alive_although_nobody_reaped_it(folder: Path) -> None:
    process = processes.start(["true"], folder=folder, name="d")
    deadline = time.monotonic() + 10
    while process.alive():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    processes.start(["true"], folder=folder, name="d")  # the record of the dead one does not stand in the way


def test_a_missing_program_is_named(folder: Path) -> None:
    with pytest.raises(LabError, match="cannot start /nonexistent/etcd: No such file"):
        processes.start(["/nonexistent/etcd"], folder=folder, name="d")


def test_the_environment_is_the_one_given(folder: Path) -> None:
    processes.start(["/usr/bin/env"], folder=folder, name="d", env={"ONLY": "this"})
    wait_for_log(folder, "d", "ONLY=this")
    assert processes.last_lines(folder, "d") == "ONLY=this"
