"""A Node that is deleted while its turn is under way, and one that is registered anew.

Somebody took it out of the cluster: an operator, an autoscaler, a cloud whose machine ended. The job that runs on
the machine runs to its end, and how the machine stands then is told; nothing more is done to it, as with a node
that a colleague took. Its slot is free again.

A kubelet that is started again registers the Node anew: without our cordon, and with another UID. It serves, so
nothing is ours there: only what is seen from then on counts, and a further step needs a cordon of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fleetdrv.errors import FleetdrvError, Gone, Stopped
from fleetdrv.look import View
from fleetdrv.model import JobState
from fleetdrv.phases import Phase, last_job
from fleetdrv.plan import Outcome
from fleetdrv.service import Service
from fleetdrv.standing import Standing
from fleetdrv.turn import Debt, Grip, Owed, Verdict

_GONE = "its Node was deleted from the cluster under way"


def demand(service: Service, error: FleetdrvError) -> None:
    """Raise the error again unless the Node is gone: other objects may be missing, too."""
    if isinstance(error, Gone):
        return
    try:
        service.standing()
    except Gone:
        return
    raise error


@dataclass(frozen=True, slots=True)
class LastLook:
    """What can still be seen of a machine whose Node is gone."""

    known: View
    """As it was seen last with its Node, which proved then which machine it is."""
    look: Callable[[Standing], View]
    follow: Callable[[str], object]

    def owed(self, *, touched: bool) -> Owed:
        """Say what became of the machine; a job that still runs is followed to its end. Raises Stopped."""
        if not touched:
            return _ended(Verdict.GONE, "nothing was changed")
        try:
            seen = self._seen()
        except Stopped:
            raise
        except FleetdrvError as error:
            return _ended(Verdict.FAILED, f"how its change ended cannot be seen: {error}")
        job = last_job(seen.sight, Phase.OUTAGE)
        if seen.plan.outcome is Outcome.CONVERGED:
            return _ended(Verdict.GONE, "its job ended, and the machine has what was wanted, verified")
        code = f"exit {job.exit_code}" if job and job.exit_code is not None else "no exit status"
        wrong = "; ".join(map(str, seen.plan.differences)) or seen.plan.reason
        why = f"its job ended with {code}, and is not undone: {wrong}"
        return _ended(Verdict.FAILED, why, job.id if job else "")

    def _seen(self) -> View:
        """Its Node no more says which boot it is in; the machine id was proven to this run before."""
        standing = replace(self.known.standing, boot_id="")
        seen = self.look(standing)
        running = [job for job in seen.facts.jobs if job.state is JobState.RUNNING]
        for job in running:
            self.follow(job.id)
        return self.look(standing) if running else seen


def _ended(verdict: Verdict, what: str, job: str = "") -> Owed:
    return Owed(debt=Debt.NOTHING, job=job, verdict=verdict, why=f"{_GONE}; {what}")


def registered_anew(before: bool, known: View | None, now: Standing, *, out: bool) -> bool:
    """Whether the Node is another one than the one that this turn took out, and is not out by our hand again.

    `before`: as of the look before; `out`: it was out by our hand then.
    """
    if now.run:
        return False
    return before or (out and known is not None and known.standing.uid != now.uid)


def owed_anew(due: Owed, grip: Grip) -> Owed:
    """Return what a Node owes that was registered anew: a change that is verified is recorded all the same."""
    if grip is Grip.FREE and due.verdict is Verdict.CONVERGED:
        why = "verified; its Node was deleted and registered anew under way, so it serves already"
        return Owed(debt=Debt.FINISH, verdict=Verdict.CHANGED, why=why)
    return due


def next_step(due: Owed, node: str, plan_again: str) -> str:
    """Return what to type or do about a node whose turn ended so."""
    if _GONE not in due.why:
        return plan_again
    back = f"once its kubelet has registered it again: {plan_again}" if plan_again else "start its kubelet again"
    return f"kubectl get node {node}; {back}; if it is gone for good, take it out of the inventory"
