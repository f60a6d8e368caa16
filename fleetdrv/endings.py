"""How a node's turn ended, where it ended in an error."""

from __future__ import annotations

from collections.abc import Mapping

from fleetdrv.drive import Ending
from fleetdrv.errors import LinkLost, NodeError, NodeRefused, Unreachable, WayGone
from fleetdrv.slots import Stand
from fleetdrv.turn import Debt, Verdict


def of_error(node: str, error: Exception, *, early: bool, remedy: str = "") -> Ending:
    """Return the ending of a turn that an error broke off.

    `early`: before any touch. A node that is not reached then is unreachable, whether it could not be dialled or
    its link died under a question; one that is not to be touched is refused. Later it counts as failed: lost after
    its cordon. Where the way to all nodes is gone, this one is not to blame. `remedy` stands where the error names
    none.
    """
    if isinstance(error, WayGone):
        return Ending(node=node, verdict=Verdict.UNDER_WAY, why=str(error), remedy=remedy)
    if not isinstance(error, NodeError):
        verdict = Verdict.REFUSED if early and isinstance(error, NodeRefused) else Verdict.FAILED
        return Ending(node=node, verdict=verdict, why=str(error), remedy=remedy)
    lost = early and isinstance(error, Unreachable | LinkLost)
    return Ending(
        node=node,
        verdict=Verdict.UNREACHABLE if lost else Verdict.FAILED,
        why=f"{error.step}: {error.cause}",
        evidence=error.evidence,
        remedy=error.remedy or remedy,
    )


def silent(seen: Mapping[str, object]) -> list[str]:
    """Name the nodes that were not reached, or whose link died under a look at them."""
    return [name for name, came in seen.items() if isinstance(came, Unreachable | LinkLost)]


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
    Verdict.GIVEN_UP: Stand.SETTLED,
    Verdict.UNREACHABLE: Stand.UNREACHABLE,
}
