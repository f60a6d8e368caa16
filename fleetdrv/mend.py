"""What a node owes where remedies come before its plan (`fleetdrv repair`). Pure.

A remedy is a job of its own phase, sent as an outage is: cordoned, drained where that is due, recorded before it
begins. Done, the node is looked at again and owes what it owes any rollout. A remedy that did not help leads
back to the last known good, as a failed change does: what is kept on the node needs neither dpkg nor headers.
"""

from __future__ import annotations

from fleetdrv import turn
from fleetdrv.model import JobState
from fleetdrv.phases import Phase, gave_up, last_job, next_job, nothing_before
from fleetdrv.plan import Outcome
from fleetdrv.turn import AS_IT_WAS, Debt, Grip, Owed, Sight, Verdict, roll_back

_MOVES = (Outcome.CHANGEABLE, Outcome.CONVERGED)


def owed(sight: Sight) -> Owed:
    """Return the next act for a node, as `turn.owed` does; remedies first."""
    due = turn.owed(sight)
    if due.debt is Debt.FOLLOW or sight.held or last_job(sight, Phase.ROLLBACK):
        return due
    if sight.plan.remedy:
        return _owed_remedy(sight) if due.debt is Debt.OUTAGE else due
    mended = last_job(sight, Phase.REMEDY) if sight.grip is Grip.OURS and sight.touched else None
    if mended and sight.plan.outcome not in _MOVES and last_job(sight, Phase.OUTAGE) is None:
        return roll_back(sight, mended, sight.plan.reason)
    return due


def _owed_remedy(sight: Sight) -> Owed:
    job = last_job(sight, Phase.REMEDY) if sight.touched else None
    why = gave_up(sight, Phase.REMEDY)
    if job is None or (job.state is not JobState.DONE and not why):
        return Owed(debt=Debt.OUTAGE, job=next_job(sight, Phase.REMEDY), why=sight.plan.reason)
    why = why or f"did not help: {sight.plan.reason}"
    verdict = AS_IT_WAS.get(job.exit_code) if nothing_before(sight, job, sight.began) else None
    if verdict is None and not sight.plan.differences:
        verdict, why = Verdict.FAILED, f"{why}; the drivers are as wanted all the same"
    if verdict is not None:
        return Owed(debt=Debt.RETURN, job=job.id, verdict=verdict, why=why)
    return roll_back(sight, job, why)
