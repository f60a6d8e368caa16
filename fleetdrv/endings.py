"""How a rollout ended, and a node's turn in it that ended in an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleetdrv.attempts import PERMANENT
from fleetdrv.drive import NodeDriver
from fleetdrv.ending import Ending
from fleetdrv.errors import ClusterError, LinkLost, NodeError, NodeRefused, Unreachable, WayGone
from fleetdrv.slots import Stand
from fleetdrv.turn import Debt, Owed, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a whole rollout ended."""

    endings: tuple[Ending, ...]
    stopped: str = ""
    """Why it ended early."""
    waiting: tuple[str, ...] = ()
    """Nodes that still owe a change and were not started."""
    goes_on: bool = False
    """The same run is to be gone on with at another time."""
    interrupted: bool = False
    """Somebody asked for its end, though it may have been ending already."""


def of_error(node: str, error: Exception, *, early: bool, remedy: str = "") -> Ending:
    """Return the ending of a turn that an error broke off.

    `early`: before any touch. A node that is not reached then is unreachable, whether it could not be dialled or
    its link died under a question; one that could not be looked at is unseen, one that is not to be touched is
    refused. Later it counts as failed: lost after its cordon. Where the way to all nodes is gone, this one is not
    to blame. `remedy` stands where the error names none.
    """
    if isinstance(error, WayGone):
        return Ending(node=node, verdict=Verdict.UNDER_WAY, why=str(error), remedy=remedy)
    verdict = _early(error) if early else Verdict.FAILED
    if not isinstance(error, NodeError):
        return Ending(node=node, verdict=verdict, why=str(error), remedy=remedy)
    return Ending(
        node=node,
        verdict=verdict,
        why=f"{error.step}: {error.cause}",
        evidence=error.evidence,
        remedy=error.remedy or remedy,
    )


def _early(error: Exception) -> Verdict:
    match error:
        case Unreachable() | LinkLost():
            return Verdict.UNREACHABLE
        case NodeRefused():
            return Verdict.REFUSED
        case ClusterError():
            return Verdict.UNSEEN
        case NodeError() if error.step in _LOOKS:
            return Verdict.UNSEEN
    return Verdict.FAILED


_LOOKS = ("connect", "probe")


def unseen(seen: Mapping[str, object]) -> list[str]:
    """Name the nodes that a survey could not look at, from whatever cause: they spend `max_unreachable`."""
    errors = ((name, came) for name, came in seen.items() if isinstance(came, Exception))
    return [name for name, error in errors if stand_of(_early(error)) is Stand.UNREACHABLE]


def failed_earlier(seen: Mapping[str, object], drivers: Mapping[str, NodeDriver]) -> list[str]:
    """Name the nodes that failed with this very wanted state in an earlier period of cron and are not tried now.

    They still spend `max_failures`: a driver that fails wherever it goes would else take one more node with it in
    each period. What never fits a node spends nothing, now as then. A human's `apply` begins anew, as does another
    wanted state; a node that is held is not counted.
    """
    wait = [n for n, came in seen.items() if isinstance(came, Owed) and came.verdict in _WAIT]
    lasts = {name: view.standing.last for name in wait if (view := drivers[name].view)}
    return [name for name, last in lasts.items() if last and last.verdict not in PERMANENT]


_WAIT = (Verdict.DEFERRED, Verdict.GIVEN_UP)


def stand_of(verdict: Verdict) -> Stand:
    """Return what the rollout makes of a verdict: which budget it spends, and whether it was a change."""
    return _STANDS.get(verdict, Stand.FAILED)


NOTED = frozenset({Verdict.FAILED, Verdict.INCOMPATIBLE, Verdict.NOT_MENDABLE})
"""Ends without an outage that `remediate` must know of later."""

FAILED_BEFORE = (Debt.ROLLBACK, Debt.RETURN_ROLLED_BACK, Debt.LEAVE_OUT)
"""Debts of a node whose change failed under an earlier controller: however they are paid, it spends a budget."""

_STANDS = {
    Verdict.CHANGED: Stand.DONE,
    Verdict.CONVERGED: Stand.SETTLED,
    Verdict.SKIPPED: Stand.SETTLED,
    Verdict.BLOCKED: Stand.SETTLED,
    Verdict.INCOMPATIBLE: Stand.SETTLED,
    Verdict.NOT_MENDABLE: Stand.SETTLED,
    Verdict.REFUSED: Stand.SETTLED,
    Verdict.DEFERRED: Stand.SETTLED,
    Verdict.UNDER_WAY: Stand.SETTLED,
    Verdict.GONE: Stand.SETTLED,
    Verdict.GIVEN_UP: Stand.SETTLED,
    Verdict.UNREACHABLE: Stand.UNREACHABLE,
    Verdict.UNSEEN: Stand.UNREACHABLE,
}
