"""What cron's mail should hold: what is new since the period before. Old news is on the Nodes themselves.

`remediate` runs every few minutes for years. A node that failed is told of when it fails, a node that is blocked,
unreachable or does not fit when it is found so; then not again until that changes. What was told is recorded
in the node's last result, one write per change, so that it does not matter which machine's cron looks.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleetdrv.attempts import PERMANENT
from fleetdrv.crew import Crew
from fleetdrv.drive import Ending, NodeDriver
from fleetdrv.endings import Result
from fleetdrv.errors import FleetdrvError
from fleetdrv.plan import Outcome
from fleetdrv.records import Result as Last
from fleetdrv.records import RunRecord
from fleetdrv.turn import Debt, Owed, Verdict

_PASSING = frozenset({Verdict.BLOCKED, Verdict.UNREACHABLE})
_OLD = frozenset({Verdict.CONVERGED, Verdict.CHANGED, Verdict.SKIPPED, Verdict.DEFERRED, Verdict.GIVEN_UP})


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What to print of a remediation."""

    endings: tuple[Ending, ...]
    stopped: str = ""


def is_old(ending: Ending, last: Last | None, digest: str, *, unseen: bool = False) -> bool:
    """Whether this was told before, or is nothing to tell: by the node's last result before this run.

    A failure is always new: `remediate` waits before it tries again, and then it is another failure. Not so where
    the node was `unseen`: a look that fails is no try, and is made again each time.
    """
    if ending.verdict in _OLD:
        return True
    if last is None or last.digest != digest:
        return False
    if (unseen or ending.verdict in _PASSING) and last.verdict in PERMANENT:
        return True  # its record is worth more than that it is away, too
    if unseen and ending.verdict is not Verdict.UNREACHABLE:
        return (last.verdict, last.finding) == (Verdict.UNREACHABLE, ending.why[:500])
    if ending.verdict is Verdict.UNREACHABLE:
        return last.verdict == Verdict.UNREACHABLE
    return ending.verdict in _PASSING | PERMANENT and (last.verdict, last.finding) == (
        ending.verdict,
        ending.why[:500],
    )


def gather(crew: Crew, result: Result, run: str, record: RunRecord | None) -> News:
    """Return what is new, and note it on the Nodes; the run's own end is new if the last run ended otherwise."""
    digest, fresh = crew.loaded.playbook.digest, []
    for ending in result.endings:
        driver = crew.drivers[ending.node]
        last, unseen = _last(driver), driver.view is None
        if not is_old(ending, last, digest, unseen=unseen):
            fresh.append(ending)
            if unseen:
                _note(driver, Verdict.UNREACHABLE, ending.why, run)
            elif ending.verdict in _PASSING | PERMANENT:
                _note(driver, ending.verdict, ending.why, run)
        elif ending.verdict is Verdict.CONVERGED and last and last.verdict in _PASSING and last.digest == digest:
            _note(driver, Verdict.CONVERGED, "as wanted again", run)
    told = record is not None and record.reason == result.stopped
    return News(endings=tuple(fresh), stopped="" if told else result.stopped)


def open_matters(crew: Crew, result: Result) -> News:
    """Return all that is not as wanted or was changed just now, told before or not."""

    def matters(ending: Ending) -> bool:
        view = crew.drivers[ending.node].view
        as_wanted = view is not None and view.plan.outcome is Outcome.CONVERGED
        return ending.verdict is not Verdict.CONVERGED and not (ending.verdict is Verdict.SKIPPED and as_wanted)

    return News(endings=tuple(filter(matters, result.endings)), stopped=result.stopped)


def _last(driver: NodeDriver) -> Last | None:
    try:
        return (driver.view.standing if driver.view else driver.service.standing()).last
    except FleetdrvError:
        return None


def _note(driver: NodeDriver, verdict: Verdict, why: str, run: str) -> None:
    """Best effort: what cannot be noted is told once more."""
    try:
        driver.note(Owed(debt=Debt.NOTHING, verdict=verdict, why=why), run)
    except FleetdrvError:
        return
