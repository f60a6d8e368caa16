"""Kill a run at one of its effects."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from tests.rollout.points import Moment, Point
from tests.rollout.sim_fleet import SimFleet


def kill_at(fleet: SimFleet, command: Sequence[str], at: int, moment: Moment) -> Point:
    """Type a command that is killed at the effect with this number; return that effect."""
    fleet.points.arm(at, moment)
    fleet.points.victim = 0
    with fleet.start(*command) as process:
        fleet.points.victim = process.pid
        out, errors = process.communicate(timeout=600)
    fleet.points.victim = 0
    assert process.returncode == -signal.SIGKILL, (at, moment, process.returncode, out, errors)
    assert fleet.points.killed is not None
    return fleet.points.killed
