"""SIGKILL at every outward effect of a rollout from 1.0 to 1.1, then the same command again.

The effects are counted outside the program: every exec by the SSH fronts, every API write by the proxy
before the API server. The controller dies at each of them three times: before it was sent, sent without an
answer, and right after the answer. Whatever it left behind, the same command has to end where an
uninterrupted run ends.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetdrv.api import Api
from tests.rollout.points import Moment, Point
from tests.rollout.sim_fleet import SimFleet

SHARDS = 4
"""Parts that can run in different processes; each has a fleet of its own."""


@pytest.fixture
def upgraded(tmp_path: Path, least_privilege: Path, admin_api: Api, builds: Path) -> Iterator[SimFleet]:
    """Two nodes at 1.0, to which `restore` returns."""
    fleet = SimFleet(tmp_path, least_privilege, admin_api, builds)
    try:
        fleet.apply("1.0")
        fleet.snapshot()
        fleet.restore()
        yield fleet
    finally:
        fleet.close()


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_killed_at_any_effect_the_same_command_finishes(upgraded: SimFleet, shard: int) -> None:
    fleet = upgraded
    fleet.points.arm(-1, Moment.BEFORE)
    fleet.apply("1.1")
    wanted, recorded = fleet.end_state(), len(fleet.points.seen)
    assert {point.kind for point in fleet.points.seen} == {"api", "exec"}
    assert recorded > 20, fleet.points.seen
    killed = 0
    chosen = [(at, moment) for at in range(recorded) for moment in Moment][shard::SHARDS]
    for at, moment in chosen:
        fleet.restore()
        point = kill_at(fleet, at, moment)
        killed += 1
        fleet.points.arm(-1, Moment.BEFORE)
        ended = fleet.apply("1.1", code=None)
        told = f"killed at {at}, {moment}: {point}\n{ended}"
        assert ended.code == 0, told
        assert fleet.end_state() == wanted, told
    assert killed == len(chosen)


def kill_at(fleet: SimFleet, at: int, moment: Moment, book: Path | None = None) -> Point:
    """Run an upgrade that is killed at the effect with this number; return that effect."""
    fleet.points.arm(at, moment)
    fleet.points.victim = 0
    book = book or fleet.playbook("1.1")
    with fleet.start("apply", str(book), "-i", str(fleet.inventory), "--yes") as process:
        fleet.points.victim = process.pid
        out, errors = process.communicate(timeout=240)
    fleet.points.victim = 0
    assert process.returncode == -signal.SIGKILL, (at, moment, process.returncode, out, errors)
    assert fleet.points.killed is not None
    return fleet.points.killed


def shards(recorded: int) -> dict[int, list[Any]]:
    """Say which effects each part covers; together they are all of them."""
    everything = [(at, moment) for at in range(recorded) for moment in Moment]
    return {shard: everything[shard::SHARDS] for shard in range(SHARDS)}


def test_the_parts_cover_every_effect() -> None:
    covered = [pair for part in shards(23).values() for pair in part]
    assert sorted(covered, key=str) == sorted(((a, m) for a in range(23) for m in Moment), key=str)


def test_a_dead_controller_takes_its_kubectl_along(fleet: SimFleet) -> None:
    kill_at_first = fleet.playbook("1.0")
    fleet.points.arm(0, Moment.AFTER)
    with fleet.start("apply", str(kill_at_first), "-i", str(fleet.inventory), "--yes") as process:
        fleet.points.victim = process.pid
        process.communicate(timeout=120)
    left = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/environ")
        if _environment(path).get("KUBECONFIG") == str(fleet.api.kubeconfig)
    ]
    assert not left


def _environment(path: Path) -> dict[str, str]:
    try:
        text = path.read_bytes().decode(errors="replace") if int(path.parent.name) != os.getpid() else ""
    except OSError:
        return {}
    return dict(pair.partition("=")[::2] for pair in text.split("\0"))
