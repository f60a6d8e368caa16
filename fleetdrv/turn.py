"""What a node owes next, from what can be seen now. Pure.

A debt names the act that is due, not the step that was done: a controller that was killed at any instant
is continued by the next one, which looks and reads the same debt. There is no other recovery code.

What is seen: the plan for the playbook, the jobs of this run on the node, who holds the node's cordon, and
what the node's last result says. Jobs are named RUN.PHASE.NUMBER, so that the same phase of the same run
is found again and never submitted twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fleetdrv.model import Job, JobState
from fleetdrv.phases import Phase, gave_up, last_job, next_job, nothing_before, number_of
from fleetdrv.plan import NodePlan, Outcome

OTHER_APT = 86
"""Exit code of apt_ready.sh: another apt or dpkg is at work. That is nobody's failure."""


class Grip(StrEnum):
    """Who holds the node, in the words of ownership.py, boiled down to what a debt depends on."""

    FREE = "free"
    OURS = "ours"
    LOST = "lost"
    """Ours by annotation, but somebody lifted the cordon or set it anew: it is theirs now."""
    FOREIGN = "foreign"
    HELD = "held"


class Debt(StrEnum):
    """The act that is due."""

    FOLLOW = "follow"
    """A job runs on the node: wait for its end, then look again."""
    STAGE = "stage"
    OUTAGE = "outage"
    FINISH = "finish"
    """Verified: keep as last known good, return the node to service."""
    RETURN = "return"
    """Nothing was touched and nothing is owed or can be done: put the node back as it was found."""
    ROLLBACK = "rollback"
    RETURN_ROLLED_BACK = "return rolled back"
    LEAVE_OUT = "leave out"
    LET_GO = "let go"
    """Take our marks off a node that is not ours any more; its cordon stays as the other party set it."""
    NOTHING = "nothing"
    """Final for this run: converged, refused, skipped or failed, as `verdict` says."""


class Verdict(StrEnum):
    """How a node's turn ended, or would end."""

    CONVERGED = "converged"
    CHANGED = "changed"
    SKIPPED = "skipped"
    BLOCKED = "blocked"
    INCOMPATIBLE = "incompatible"
    NOT_MENDABLE = "not mendable here"
    FAILED = "failed"
    ROLLED_BACK = "failed, rolled back"
    LEFT_OUT = "failed, left out of service"
    LOST = "failed, taken over by somebody else"
    UNREACHABLE = "unreachable"
    UNSEEN = "unseen"
    """It could not be looked at: log-in refused, facts unreadable, no answer about its Node. Untouched."""
    REFUSED = "refused"
    """Nothing proves which machine its Node is, or it has none. Nothing was touched; it spends no budget."""
    DEFERRED = "not tried again yet"
    GONE = "gone from the cluster"  # deleted under way: untouched, or verified as wanted
    GIVEN_UP = "given up"
    """Not tried again by `remediate`: too often already, or it cannot help."""
    UNDER_WAY = "under way"
    """On the Node from the cordon until the turn ends; of a turn, where the run lost its way to the nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Why `remediate` leaves a node alone that owes a change: it was tried before, with this wanted state."""

    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """All that the next debt depends on."""

    plan: NodePlan
    jobs: Sequence[Job]
    grip: Grip
    run: str
    touched: bool = False
    """The cordon's own record says that a job was about to be sent."""
    about_to: str = ""
    """That job, by the same record."""
    began: str = ""
    """The job that was to touch the node first, by the same record."""
    has_good: bool = False
    """A last known good is there for every driver of the playbook."""
    good_again: bool = False
    """The node stands at its last known good (a plan for that wanted state is empty)."""
    held: str = ""
    """Somebody's hold on a node that is out by our hand: who and why."""
    barred: Bar | None = None
    """No new try. What was begun is brought to its end all the same."""
    spent: Verdict | None = None
    """How this node's turn already ended in this very run, from the node's last result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """The debt, the job it is about, and why."""

    debt: Debt
    job: str = ""
    why: str = ""
    verdict: Verdict | None = None


_REFUSALS = {
    Outcome.BLOCKED: Verdict.BLOCKED,
    Outcome.INCOMPATIBLE: Verdict.INCOMPATIBLE,
    Outcome.NOT_MENDABLE: Verdict.NOT_MENDABLE,
}


def owed(sight: Sight) -> Owed:
    """Return the next act for a node."""
    running = next((job for job in sight.jobs if job.state is JobState.RUNNING), None)
    if running:
        return Owed(debt=Debt.FOLLOW, job=running.id, why=f"job {running.id} runs on the node")
    match sight.grip:
        case Grip.HELD | Grip.FOREIGN:
            return Owed(debt=Debt.NOTHING, verdict=Verdict.SKIPPED, why="cordoned or held by somebody else")
        case Grip.LOST:
            return Owed(
                debt=Debt.LET_GO,
                verdict=Verdict.LOST,
                why="the cordon was lifted or set anew by somebody else",
            )
        case Grip.OURS:
            return _owed_in_outage(sight)
        case Grip.FREE:
            return _owed_in_service(sight)


def _owed_in_service(sight: Sight) -> Owed:
    plan, stage = sight.plan, last_job(sight, Phase.STAGE)
    if sight.spent is not None:
        return Owed(debt=Debt.NOTHING, verdict=sight.spent, why="its turn in this run is over")
    if plan.outcome is Outcome.CONVERGED:
        return Owed(debt=Debt.NOTHING, verdict=Verdict.CONVERGED)
    if sight.barred:
        return Owed(debt=Debt.NOTHING, verdict=sight.barred.verdict, why=sight.barred.why)
    if plan.outcome is not Outcome.CHANGEABLE:
        return Owed(debt=Debt.NOTHING, verdict=_REFUSALS[plan.outcome], why=plan.reason)
    if plan.stage and (why := gave_up(sight, Phase.STAGE)):
        return Owed(debt=Debt.NOTHING, job=stage.id if stage else "", verdict=_stage_verdict(stage), why=why)
    return _stage_or_outage(sight)


def _owed_in_outage(sight: Sight) -> Owed:
    due = _way_on(sight)
    if sight.held and due.debt in _STEPS:
        return _halt(sight, due.debt)
    if sight.barred and due.debt in (Debt.STAGE, Debt.OUTAGE):
        return _let_be(sight, sight.barred)
    return due


_STEPS = {Debt.STAGE, Debt.OUTAGE, Debt.ROLLBACK}


def _halt(sight: Sight, debt: Debt) -> Owed:
    """Held, and something would still have to be done to the node: it is not done.

    Untouched, the node goes back as it was found. Touched, it stays out of service as the job left it: a
    rollback is a change like any other, and whoever holds the node wants to find it as it is. A node that
    stands verified, at the new driver or at its last known good, needs no further step and goes back.
    """
    if sight.touched and sight.good_again:
        verdict = Verdict.ROLLED_BACK if debt is Debt.ROLLBACK else Verdict.SKIPPED
        why = f"held ({sight.held}); it stands at its last known good, verified"
        return Owed(debt=Debt.RETURN_ROLLED_BACK, verdict=verdict, why=why)
    if sight.touched:
        why = f"held ({sight.held}) with its change half-way; no rollback and no other step until it is released"
        return Owed(debt=Debt.LEAVE_OUT, verdict=Verdict.LEFT_OUT, why=why)
    return Owed(debt=Debt.RETURN, verdict=Verdict.SKIPPED, why=f"held ({sight.held}); it was not touched yet")


def _let_be(sight: Sight, bar: Bar) -> Owed:
    """An outage that nobody ended must not begin anew: it goes back where it can, and else stays as it is.

    It stands there tainted and recorded already; to write that again each period would help nobody.
    """
    if sight.touched and not sight.good_again:
        return Owed(debt=Debt.NOTHING, verdict=bar.verdict, why=f"{bar.why}; it stays out of service")
    back = Debt.RETURN_ROLLED_BACK if sight.touched else Debt.RETURN
    return Owed(debt=back, verdict=bar.verdict, why=bar.why)


def _way_on(sight: Sight) -> Owed:
    # "Touched" is recorded under this cordon before a job is sent: without it they are of an outage before.
    outage = _of_this_outage(sight) if sight.touched else None
    rollback = last_job(sight, Phase.ROLLBACK) if sight.touched else None
    if rollback is not None:
        return _owed_after_rollback(sight, rollback)
    if sight.plan.outcome is Outcome.CONVERGED:
        return Owed(debt=Debt.FINISH, verdict=Verdict.CHANGED, why="verified: nothing left to do")
    if outage is not None and (why := gave_up(sight, Phase.OUTAGE)):
        if outage.exit_code in AS_IT_WAS and nothing_before(sight, outage, sight.began):
            verdict = AS_IT_WAS[outage.exit_code]
            return Owed(debt=Debt.RETURN, job=outage.id, verdict=verdict, why=f"{why}; all is as it was")
        return roll_back(sight, outage, why)
    if outage is not None and outage.state is JobState.DONE:
        return roll_back(sight, outage, "not verified: " + "; ".join(map(str, sight.plan.differences)))
    if sight.plan.outcome is not Outcome.CHANGEABLE:
        return _give_up_in_outage(sight, _REFUSALS[sight.plan.outcome], sight.plan.reason)
    if sight.plan.stage and (why := gave_up(sight, Phase.STAGE)):
        stage = last_job(sight, Phase.STAGE)
        return _give_up_in_outage(sight, _stage_verdict(stage), why, stage.id if stage else "")
    return _stage_or_outage(sight)


def _of_this_outage(sight: Sight) -> Job | None:
    """Return the last outage job, unless one of a later number was about to be sent and never arrived."""
    job = last_job(sight, Phase.OUTAGE)
    mark, _, number = sight.about_to.rpartition(".")
    awaited = mark == f"{sight.run}.{Phase.OUTAGE}" and number.isdigit()
    return None if job is not None and awaited and number_of(job) < int(number) else job


_DOES_NOT_FIT = {66, 67, 69, 79}
"""Exit codes of stage programs: no headers, the driver excludes the kernel or has no module for it, a tool is
missing, packages that the node cannot take. No other try, and no repair of the node by fleetdrv, will change
them."""

_KEPT_BY_OTHERS = {81, 82}
"""Of stage programs too: somebody else's dpkg was interrupted, a package is held by somebody else."""

AS_IT_WAS: Mapping[int | None, Verdict] = {83: Verdict.FAILED, OTHER_APT: Verdict.BLOCKED}
"""Of an outage's program: it failed, and neither it nor a step of its job before it has left anything changed.
What an earlier job has left, or an earlier run that was taken over, it cannot know."""


def _stage_verdict(stage: Job | None) -> Verdict:
    code = stage.exit_code if stage is not None else None
    if code in _KEPT_BY_OTHERS:
        return Verdict.BLOCKED
    return Verdict.INCOMPATIBLE if code in _DOES_NOT_FIT else Verdict.FAILED


def _give_up_in_outage(sight: Sight, verdict: Verdict, why: str, job: str = "") -> Owed:
    """Cordoned by us, and the way forward is closed: back as found only if nothing was touched."""
    if sight.touched:
        return Owed(debt=Debt.LEAVE_OUT, job=job, verdict=Verdict.LEFT_OUT, why=why)
    return Owed(debt=Debt.RETURN, job=job, verdict=verdict, why=why)


def _owed_after_rollback(sight: Sight, rollback: Job) -> Owed:
    worn_out = gave_up(sight, Phase.ROLLBACK)
    if rollback.state is not JobState.DONE and not worn_out:
        return Owed(debt=Debt.ROLLBACK, job=next_job(sight, Phase.ROLLBACK), why="the rollback was interrupted")
    outage = last_job(sight, Phase.OUTAGE)
    cause = gave_up(sight, Phase.OUTAGE) or "the change was not verified"
    job = (outage or rollback).id
    if rollback.exit_code == 0 and sight.good_again:
        why = f"{cause}; back at its last known good, verified"
        return Owed(debt=Debt.RETURN_ROLLED_BACK, job=job, verdict=Verdict.ROLLED_BACK, why=why)
    why = f"{cause}; {worn_out or 'rolled back, but that was not verified'}"
    return Owed(debt=Debt.LEAVE_OUT, job=rollback.id, verdict=Verdict.LEFT_OUT, why=why)


def roll_back(sight: Sight, outage: Job, why: str) -> Owed:
    """Say what a failed change owes: the way back, or none where nothing was kept."""
    if sight.good_again:  # the job changed nothing: rmmod found the module in use, say
        why = f"{why}; still at its last known good, verified"
        return Owed(debt=Debt.RETURN_ROLLED_BACK, job=outage.id, verdict=Verdict.ROLLED_BACK, why=why)
    if sight.has_good:
        return Owed(debt=Debt.ROLLBACK, job=next_job(sight, Phase.ROLLBACK), why=why)
    return Owed(
        debt=Debt.LEAVE_OUT,
        job=outage.id,
        verdict=Verdict.LEFT_OUT,
        why=f"{why}; no last known good to go back to",
    )


def _stage_or_outage(sight: Sight) -> Owed:
    if sight.plan.stage:
        return Owed(debt=Debt.STAGE, job=next_job(sight, Phase.STAGE), why=sight.plan.stage[0].why)
    layers = dict.fromkeys(f"{d.driver}: {d.layer}" for d in sight.plan.differences)
    why = f"{', '.join(layers)} not as wanted"
    return Owed(debt=Debt.OUTAGE, job=next_job(sight, Phase.OUTAGE), why=why)
