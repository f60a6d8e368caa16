"""SIGKILL at every outward effect of every kind of run, then the same command again.

The effects are counted outside the program: every exec by the SSH fronts, every API write by the proxy
before the API server. The controller dies at each of them three times: before it was sent, sent without an
answer, and right after the answer. Whatever it left behind, the same command has to end where an
uninterrupted run ends.

CI tries a fixed part of these moments (`Kind.stride`); `python -m tests.rollout` tries all of them, a moment of a
kind at a time, and writes the counts into docs/reliability.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fleetdrv.api import Api
from tests.apt.conftest import _packages
from tests.apt.repository import Key, Repository, dkms_package
from tests.rollout.kills import kill_at
from tests.rollout.kinds import KINDS, Kind
from tests.rollout.points import Moment
from tests.rollout.sim_fleet import SimFleet
from tests.rollout.test_packages import AptFleet
from tests.sim.debian import DebianNode

Pair = tuple[int, Moment]
WHOLE = os.environ.get("FLEETDRV_RELIABILITY") == "whole"
MOMENTS = {moment.value: (moment,) for moment in Moment} if WHOLE else {"a part": tuple(Moment)}


def part(recorded: int, moments: tuple[Moment, ...], stride: int) -> list[Pair]:
    """Choose where a test kills: at every effect, or at one in `stride`, each time at another moment.

    >>> [(at, moment.name) for at, moment in part(5, tuple(Moment), 4)]
    [(0, 'BEFORE'), (1, 'UNANSWERED'), (2, 'AFTER'), (4, 'BEFORE')]
    """
    everything = [(at, moment) for at in range(recorded) for moment in moments]
    return everything if WHOLE else everything[::stride]


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def made(
    kind: Kind, tmp_path: Path, least_privilege: Path, admin_api: Api, builds: Path
) -> Iterator[SimFleet]:
    """The fleet as it is when the command is typed, to which `restore` returns."""
    with Key() as key:
        if kind.packaged:
            (tmp_path / "srv").mkdir()
            repository = Repository(tmp_path / "srv/repository", key)
            repository.add(*(p for p in _packages() if p.name != "toy-dkms"), dkms_package("1.0"))
            make = partial(DebianNode, served=tmp_path / "srv")
            fleet = AptFleet(tmp_path, least_privilege, admin_api, builds, size=kind.size, make=make)
            fleet.repository = repository
        else:
            fleet = SimFleet(tmp_path, least_privilege, admin_api, builds, size=kind.size)
        try:
            kind.prepare(fleet)
            fleet.snapshot()
            fleet.restore()
            yield fleet
        finally:
            fleet.close()


@pytest.mark.timeout(7200 if WHOLE else 1500)
@pytest.mark.parametrize("moments", MOMENTS.values(), ids=MOMENTS)
@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if WHOLE or kind.stride], indirect=True)
def test_killed_at_any_effect_the_same_command_finishes(
    made: SimFleet, kind: Kind, moments: tuple[Moment, ...], record_property: Callable[[str, object], None]
) -> None:
    command = kind.command(made)
    made.points.arm(-1, Moment.BEFORE)
    made.fleetdrv(*command, code=kind.code)
    wanted, recorded = made.end_state(), len(made.points.seen)
    assert {point.kind for point in made.points.seen} == {"api", "exec"}
    assert recorded > 10 * kind.size, made.points.seen
    killed, faults = 0, []
    for at, moment in part(recorded, moments, kind.stride):
        made.restore()
        point = kill_at(made, command, at, moment)
        killed += 1
        made.points.arm(-1, Moment.BEFORE)
        ended, now = made.fleetdrv(*command), made.end_state()
        if ended.code != kind.code or now != wanted:
            faults.append(f"killed at {at}, {moment}: {point}\n{ended}\n{_differences(now, wanted)}")
    record_property("effects recorded", recorded)
    record_property("killed at", killed)
    record_property("ended as if not killed", killed - len(faults))
    assert not faults, "\n\n".join(faults)
    assert killed == recorded or not WHOLE


def _differences(now: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Say of each node what ended otherwise."""
    pairs = ((node, key, part, now[node][key]) for node, parts in wanted.items() for key, part in parts.items())
    return "\n".join(f"{node}: {key}: {found} not {part}" for node, key, part, found in pairs if found != part)


def test_a_dead_controller_takes_its_kubectl_along(fleet: SimFleet) -> None:
    kill_at(fleet, KINDS["from nothing"].command(fleet), 0, Moment.AFTER)
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
