"""See all nodes of a pool at once, and under which run: what every command that judges them begins with."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from fleetdrv.crew import Crew
from fleetdrv.drive import Ending
from fleetdrv.endings import Result, of_error
from fleetdrv.errors import FleetdrvError
from fleetdrv.look import View
from fleetdrv.records import RunRecord
from fleetdrv.turn import Debt, Owed

Seen = Mapping[str, Owed | FleetdrvError]
"""What a look at each node made due, or why it could not be looked at."""


def run_id(crew: Crew, record: RunRecord | None) -> str:
    """Go on with an unfinished run of the same wanted state; any other is a new one."""
    if record is not None and crew.goes_on(record):
        return record.id
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + os.urandom(3).hex()


def survey(crew: Crew, record: RunRecord | None) -> tuple[str, Seen]:
    """Look at all nodes for the run that goes on, or for a new one where that has no more to do.

    A run that nobody could close (killed at its end, interrupted) must not keep its failed nodes for ever.
    """
    crew.recall(record)
    run = run_id(crew, record)
    seen = crew.survey(run)
    spent = any(driver.view and driver.view.sight.spent for driver in crew.drivers.values())
    if spent and not owes_something(seen):
        run = run_id(crew, None)
        seen = crew.survey(run)
    return run, seen


def views_of(crew: Crew, seen: Seen) -> dict[str, View | str]:
    """Return what was seen of each node, or why nothing was."""
    views: dict[str, View | str] = {}
    for name, came in seen.items():
        view = crew.drivers[name].view
        views[name] = str(came) if isinstance(came, FleetdrvError) or view is None else view
    return views


def unseen_endings(seen: Seen) -> tuple[Ending, ...]:
    """Return the endings of the nodes that could not be looked at."""
    return tuple(of_error(n, came, early=True) for n, came in seen.items() if isinstance(came, FleetdrvError))


def owes_something(seen: Seen) -> bool:
    """Whether anything is due on any node."""
    return bool(owing(seen))


def owing(seen: Seen) -> tuple[str, ...]:
    """Name the nodes on which something is due."""
    return tuple(n for n, came in seen.items() if isinstance(came, Owed) and came.debt is not Debt.NOTHING)


def soaks(seen: Seen, record: RunRecord | None, run: str) -> bool:
    """Whether a canary of this run is still to be looked at after its soak."""
    return record is not None and record.id == run and not seen.keys().isdisjoint(record.soaking)


def nothing_to_do(crew: Crew, seen: Seen) -> Result:
    """Return the result of a rollout in which no node owes anything."""
    endings = []
    for name, came in seen.items():
        if isinstance(came, Owed):
            endings.append(crew.drivers[name].ending(came))
        else:
            endings.append(of_error(name, came, early=True))
    return Result(endings=tuple(endings))
