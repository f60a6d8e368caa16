"""What a node owes next: for anything that can be seen, and for a controller killed at any instant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv.compare import Difference, Layer
from fleetdrv.model import Job, JobState
from fleetdrv.phases import MAX_INTERRUPTED, Phase, job_id
from fleetdrv.plan import NodePlan, Outcome, Step
from fleetdrv.turn import OTHER_APT, Bar, Debt, Grip, Owed, Sight, Verdict, owed
from tests.core.factories import a_job
from tests.core.strategies import pick

RUN = "r1"
STEP = Step(program="load.sh", argv=("toy",), why="toy: load")
BUILD = Step(program="dkms_stage.sh", argv=("toy",), why="toy: trial build of toy/1.1")
WRONG = Difference(driver="toy", layer=Layer.LOADED, found="1.0", wanted="1.1")
OFF = "toy: loaded not as wanted"
CONVERGED = NodePlan(outcome=Outcome.CONVERGED)
CHANGE = NodePlan(outcome=Outcome.CHANGEABLE, differences=(WRONG,), outage=(STEP,))
STAGE_FIRST = replace(CHANGE, stage=(BUILD,))
REFUSED = {
    Outcome.BLOCKED: Verdict.BLOCKED,
    Outcome.INCOMPATIBLE: Verdict.INCOMPATIBLE,
    Outcome.NOT_MENDABLE: Verdict.NOT_MENDABLE,
}
CHANGES_THE_NODE = {Debt.OUTAGE, Debt.ROLLBACK}
ENDS_THE_OUTAGE = {Debt.FINISH, Debt.RETURN, Debt.RETURN_ROLLED_BACK}
FINAL = {Debt.NOTHING, Debt.LEAVE_OUT, Debt.LET_GO} | ENDS_THE_OUTAGE


def a_refusal(outcome: Outcome = Outcome.BLOCKED) -> NodePlan:
    """Return a plan that says no."""
    return NodePlan(outcome=outcome, reason="headers are missing", differences=(WRONG,))


def a_sight(plan: NodePlan = CHANGE, *jobs: Job, grip: Grip = Grip.FREE, **more: object) -> Sight:
    """Return what is seen of a node in service that owes a change."""
    return Sight(**{"plan": plan, "jobs": jobs, "grip": grip, "run": RUN, **more})  # type: ignore[arg-type]


def in_outage(plan: NodePlan = CHANGE, *jobs: Job, touched: bool = True, **more: object) -> Sight:
    """Return what is seen of a node that is out by our hand and was touched."""
    return a_sight(plan, *jobs, grip=Grip.OURS, touched=touched, **more)


# ---- a controller that is killed, again and again


class Killed(Exception):
    """The controller is gone. What it had sent stays."""


@dataclass(frozen=True, slots=True)
class Fate:
    """How things would go on this node."""

    needs_stage: bool = True
    stage_works: bool = True
    outage: str = "works"
    """works, fails, lies (exits 0 and loads nothing), is refused (the old code is in use), or is harmless: it
    fails and says that it, and what it did before, left all as it was."""
    rollback: str = "works"
    has_good: bool = True
    again: bool = False
    """The same run changed this node before, and somebody undid it since."""


@dataclass(slots=True)
class Node:
    """A node and its Node object, with acts as small as they are in drive.py."""

    fate: Fate
    jobs: dict[str, Job] = field(default_factory=dict)
    version: str = "old"
    staged: bool = False
    grip: Grip = Grip.FREE
    touched: bool = False
    about_to: str = ""
    began: str = ""
    found: str = ""
    """Version at the cordon."""
    held: str = ""
    spent: Verdict | None = None
    fuse: int = -1
    effects: int = 0
    runs: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.staged = not self.fate.needs_stage
        if self.fate.again:
            self.jobs = {f"{RUN}.outage.1": a_job(f"{RUN}.outage.1"), f"{RUN}.keep.1": a_job(f"{RUN}.keep.1")}

    @property
    def good(self) -> str:
        return "new" if self.fate.again else "old"

    def sight(self) -> Sight:
        plan = CONVERGED if self.version == "new" else CHANGE if self.staged else STAGE_FIRST
        return Sight(
            plan=plan,
            jobs=tuple(self.jobs.values()),
            grip=self.grip,
            run=RUN,
            touched=self.touched,
            about_to=self.about_to,
            began=self.began,
            has_good=self.fate.has_good,
            good_again=self.fate.has_good and self.version == self.good,
            held=self.held,
            spent=self.spent,
        )

    def effect(self) -> None:
        """Pass the counter that every outward effect passes; the fuse kills before the effect."""
        if self.effects == self.fuse:
            raise Killed
        self.effects += 1

    # -- what a controller does

    def turn(self, fuse: int = -1) -> Verdict | None:
        """Look, pay, look again, until nothing is owed. Raises Killed."""
        self.fuse, self.effects = fuse, 0
        for _ in range(24):
            due = owed(self.sight())
            self.check(due)
            self.pay(due)
            if due.debt in FINAL:
                return due.verdict
        raise AssertionError("a turn without end")

    def check(self, due: Owed) -> None:
        """Hold one debt against the promises."""
        assert due.debt not in CHANGES_THE_NODE or self.grip in (Grip.OURS, Grip.FREE)
        assert due.debt is not Debt.ROLLBACK or self.grip is Grip.OURS
        if due.debt in ENDS_THE_OUTAGE:
            verified = self.version in ("new", self.good)
            assert verified or not self.touched
            assert due.debt is not Debt.RETURN or not self.touched or self.version == self.found
        assert (due.verdict is not None) == (due.debt in FINAL)

    def pay(self, due: Owed) -> None:
        match due.debt:
            case Debt.FOLLOW:
                self.finish_jobs()
            case Debt.STAGE:
                self.send(due.job)
            case Debt.OUTAGE:
                if self.grip is Grip.FREE:
                    self.write(grip=Grip.OURS, found=self.version, began="")
                self.touch(due.job)
                self.send(due.job)
            case Debt.ROLLBACK:
                self.touch(due.job)
                self.send(due.job)
            case Debt.FINISH:
                self.send(job_id(RUN, Phase.KEEP, 1 + sum(".keep." in job for job in self.jobs)))
                self.write(grip=Grip.FREE, touched=False, spent=None)
            case Debt.RETURN | Debt.RETURN_ROLLED_BACK:
                spent = None if due.verdict is Verdict.SKIPPED else due.verdict
                self.write(grip=Grip.FREE, touched=False, spent=spent)
            case Debt.LET_GO:
                self.write(grip=Grip.FOREIGN, touched=False, spent=due.verdict)
            case Debt.LEAVE_OUT | Debt.NOTHING:
                self.effect()

    def touch(self, job: str) -> None:
        self.write(touched=True, about_to=job, began=self.began or job)

    def write(self, **fields: object) -> None:
        """One PATCH of the Node: all of it or nothing."""
        self.effect()
        for name, value in fields.items():
            setattr(self, name, value)

    def send(self, job: str) -> None:
        """Claim, start, end: the controller may be killed between any two."""
        self.effect()
        if job in self.jobs:
            assert self.jobs[job].state is JobState.CLAIMED, f"{job} was taken already"
        self.jobs[job] = Job(id=job, state=JobState.CLAIMED)
        self.effect()
        self.jobs[job] = Job(id=job, state=JobState.RUNNING)
        self.runs[job] = self.runs.get(job, 0) + 1
        assert self.runs[job] == 1, f"{job} ran twice"
        self.effect()
        self.finish_jobs()

    # -- what the node does by itself

    def finish_jobs(self) -> None:
        for job in [job for job in self.jobs.values() if job.state is JobState.RUNNING]:
            code = self.obey(job.id.split(".")[1])
            self.jobs[job.id] = replace(
                job, state=JobState.DONE, exit_code=code, failed_step="step" if code else ""
            )

    def obey(self, phase: str) -> int:
        """Do what a job of this phase does here; return its exit code."""
        fate = self.fate
        match phase:
            case "stage":
                self.staged = self.staged or fate.stage_works
                return 0 if fate.stage_works else 68
            case "outage":
                now = {"works": "new", "fails": "half", "lies": "half"}
                self.version = now.get(fate.outage, self.version)
                return {"fails": 78, "refused": 75, "harmless": 83}.get(fate.outage, 0)
            case "rollback":
                self.version = {"works": self.good, "fails": "half", "lies": "half"}[fate.rollback]
                return 78 if fate.rollback == "fails" else 0
        return 0

    def power_cut(self) -> None:
        for job in [job for job in self.jobs.values() if job.state is JobState.RUNNING]:
            self.jobs[job.id] = replace(job, state=JobState.INTERRUPTED)
            if ".stage." not in job.id and ".keep." not in job.id:
                self.version = "half"


AFTERMATH: dict[str, Callable[[Node], None]] = {
    "the job runs on": lambda _: None,
    "the job ends": Node.finish_jobs,
    "the power is cut": Node.power_cut,
}
FATES = [
    Fate(needs_stage, stage_works, outage, rollback, has_good)
    for needs_stage, stage_works, outage, rollback, has_good in product(
        (True, False),
        (True, False),
        ("works", "fails", "lies", "refused"),
        ("works", "fails", "lies"),
        (True, False),
    )
    if (needs_stage or stage_works) and (outage not in ("works", "refused") or (rollback == "works" and has_good))
]


def ended(node: Node, verdict: Verdict | None) -> tuple[object, ...]:
    """Return all that must not depend on who finished the turn."""
    alike = Verdict.CHANGED if verdict is Verdict.CONVERGED else verdict
    return (alike, node.grip, node.touched, node.version if node.grip is Grip.FREE else "")


def ending(fate: Fate) -> tuple[object, ...]:
    """Return how the turn ends when nobody disturbs it."""
    node = Node(fate)
    return ended(node, node.turn())


def kill_points(fate: Fate) -> int:
    node = Node(fate)
    node.turn()
    return node.effects


def killed(node: Node, point: int, aftermath: str) -> Verdict | None:
    """Kill the controller before its effect number `point`, if it gets there; the node goes on as told."""
    try:
        return node.turn(fuse=point)
    except Killed:
        AFTERMATH[aftermath](node)
        return None


def test_each_fate_has_the_ending_that_an_operator_expects() -> None:
    assert ending(Fate()) == (Verdict.CHANGED, Grip.FREE, False, "new")
    assert ending(Fate(stage_works=False)) == (Verdict.FAILED, Grip.FREE, False, "old")
    refused = Fate(outage="refused", rollback="fails")
    assert ending(refused) == (Verdict.ROLLED_BACK, Grip.FREE, False, "old"), "nothing was changed"
    for outage in ("fails", "lies"):
        assert ending(Fate(outage=outage)) == (Verdict.ROLLED_BACK, Grip.FREE, False, "old")
        for rollback, has_good in (("fails", True), ("lies", True), ("works", False)):
            left = ending(Fate(outage=outage, rollback=rollback, has_good=has_good))
            assert left == (Verdict.LEFT_OUT, Grip.OURS, True, "")


@pytest.mark.parametrize("fate", FATES)
def test_a_controller_killed_before_any_effect_is_continued_to_the_same_end(fate: Fate) -> None:
    expected = ending(fate)
    for point, aftermath in product(range(kill_points(fate)), AFTERMATH):
        node = Node(fate)
        assert killed(node, point, aftermath) is None
        assert ended(node, node.turn()) == expected, (point, aftermath)


@given(
    st.sampled_from(FATES),
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(("the job runs on", "the job ends"))), max_size=6),
    st.lists(st.integers(0, 9), max_size=MAX_INTERRUPTED - 1),
)
def test_a_controller_killed_many_times_is_continued_to_the_same_end(
    fate: Fate, kills: list[tuple[int, str]], cuts: list[int]
) -> None:
    node = Node(fate)
    for point, aftermath in (*kills, *((cut, "the power is cut") for cut in cuts)):
        killed(node, point, aftermath)
    verdict = node.turn()
    assert ended(node, verdict) == ending(fate)


@pytest.mark.parametrize("fate", FATES)
def test_a_node_that_somebody_else_took_is_never_changed_again(fate: Fate) -> None:
    for point, grip, aftermath in product(
        range(kill_points(fate)), (Grip.LOST, Grip.FOREIGN, Grip.HELD), AFTERMATH
    ):
        node = Node(fate)
        killed(node, point, aftermath)
        node.grip = grip
        node.finish_jobs()
        before = dict(node.jobs)
        assert node.turn() is (Verdict.LOST if grip is Grip.LOST else Verdict.SKIPPED)
        assert node.jobs == before


@pytest.mark.parametrize("fate", FATES)
def test_a_node_out_by_our_hand_that_somebody_holds_gets_no_further_job(fate: Fate) -> None:
    """Put at any instant: nothing more is sent, an untouched node goes back, and released it ends as ever."""
    expected = ending(fate)
    for point, aftermath in product(range(kill_points(fate)), AFTERMATH):
        node = Node(fate)
        killed(node, point, aftermath)
        if node.grip is not Grip.OURS:
            continue
        node.held, touched = "rma", node.touched
        node.finish_jobs()
        before = {job for job in node.jobs if ".keep." not in job}
        node.turn()
        assert {job for job in node.jobs if ".keep." not in job} == before, (point, aftermath)
        verified = node.version in ("new", node.good)
        assert (node.grip is Grip.FREE) == (not touched or (verified and (fate.has_good or node.version == "new")))
        node.held = ""
        assert ended(node, node.turn()) == expected, (point, aftermath)


@pytest.mark.parametrize("phase", ["stage", "outage", "rollback"])
def test_a_job_that_never_lives_to_its_end_is_given_up(phase: str) -> None:
    """A node that dies whenever a job of this phase runs must not be driven to its death for ever."""
    node = Node(Fate(outage="fails" if phase == "rollback" else "works"))
    for _ in range(100):
        due = owed(node.sight())
        node.check(due)
        if due.debt in FINAL:
            break
        if f".{phase}." in due.job:
            node.grip, node.touched = (Grip.OURS, True) if phase != "stage" else (node.grip, node.touched)
            node.jobs[due.job] = Job(id=due.job, state=JobState.RUNNING)
            node.power_cut()
        else:
            node.pay(due)
    assert sum(f".{phase}." in job for job in node.jobs) == MAX_INTERRUPTED
    assert f"{phase}: interrupted 3 times (job r1.{phase}.3)" in due.why or phase == "outage"


@given(st.integers(0, 9), st.sampled_from(tuple(AFTERMATH)))
def test_a_node_that_drifted_again_in_the_same_run_comes_back_whole(point: int, aftermath: str) -> None:
    node = Node(Fate(again=True))
    killed(node, point, aftermath)
    node.turn()
    assert (node.grip, node.touched, node.version) == (Grip.FREE, False, "new")


@pytest.mark.parametrize("point", range(9))
@pytest.mark.parametrize("aftermath", ["the job runs on", "the job ends"])
def test_a_second_outage_of_one_run_that_is_killed_anywhere_is_no_failure(point: int, aftermath: str) -> None:
    """Killed between "touched" and the send, only the job of the outage before is to be seen."""
    node = Node(Fate(again=True))
    killed(node, point, aftermath)
    assert node.turn() in (Verdict.CHANGED, Verdict.CONVERGED)


def test_what_was_superseded_before_it_began_frees_its_number_and_is_no_failure() -> None:
    superseded = a_job("r1.outage.1", code=65, step="superseded")
    due = owed(in_outage(CHANGE, superseded, about_to="r1.outage.1", has_good=True, good_again=True))
    assert (due.debt, due.job) == (Debt.OUTAGE, "r1.outage.2")


def test_an_outage_job_of_before_this_cordon_is_no_proof_that_this_outage_failed() -> None:
    """The drain may take long: a controller killed in it had sent nothing yet."""
    due = owed(in_outage(CHANGE, a_job("r1.outage.1"), touched=False, has_good=True))
    assert (due.debt, due.job) == (Debt.OUTAGE, "r1.outage.2")
    rolled_back = (a_job("r1.outage.1", code=78), a_job("r1.rollback.1"))
    assert owed(in_outage(CHANGE, *rolled_back, touched=False)).debt is Debt.OUTAGE


# ---- anything that can be seen


ENDINGS = ((0, ""), (0, ""), (78, "toy: load"), (83, "apt: install"), (75, "lock"), (77, "token"), (64, "meta"))
NEVER_RAN = ("lock", "token", "meta", "superseded")
STATES = (
    JobState.DONE,
    JobState.DONE,
    JobState.INTERRUPTED,
    JobState.INTERRUPTED,
    JobState.CLAIMED,
    JobState.RUNNING,
)
PLANS = (CONVERGED, CHANGE, CHANGE, STAGE_FIRST, STAGE_FIRST, *map(a_refusal, REFUSED))
GRIPS = (*Grip, Grip.OURS, Grip.OURS, Grip.OURS, Grip.FREE)
YES_OR_NO = (False, True)
BAR = Bar(verdict=Verdict.GIVEN_UP, why="tried 3 of 3 times")


@st.composite
def sights(draw: st.DrawFn) -> Sight:
    """Draw what may be seen of a node; its jobs are mostly of this run."""
    jobs = {}
    for _ in range(pick(draw, range(6))):
        run, phase, number = (
            pick(draw, (RUN, RUN, RUN, "r10", "r0")),
            pick(draw, Phase),
            pick(draw, range(1, 13)),
        )
        state, (code, step) = pick(draw, STATES), pick(draw, ENDINGS)
        job = job_id(run, phase, number)
        jobs[job] = a_job(job, state, code, step if state is JobState.DONE else "")
    return Sight(
        plan=pick(draw, PLANS),
        jobs=tuple(jobs.values()),
        grip=pick(draw, GRIPS),
        run=RUN,
        touched=pick(draw, YES_OR_NO),
        began=pick(draw, ("", job_id(RUN, Phase.OUTAGE, 1), job_id("r0", Phase.OUTAGE, 1), *jobs)),
        has_good=pick(draw, YES_OR_NO),
        good_again=pick(draw, YES_OR_NO),
        held=pick(draw, ("", "", "", "rma, by ann")),
        barred=pick(draw, (None, None, None, BAR)),
        spent=pick(draw, (None, None, None, Verdict.FAILED, Verdict.ROLLED_BACK)),
    )


@given(sights())
def test_whatever_is_seen_one_debt_follows_and_a_verdict_where_it_is_the_last(sight: Sight) -> None:
    due = owed(sight)
    assert (due.verdict is not None) == (due.debt in FINAL)
    assert due.why or due.verdict is Verdict.CONVERGED
    assert (due.debt in CHANGES_THE_NODE | {Debt.STAGE, Debt.FOLLOW}) <= bool(due.job)


@given(sights())
def test_a_job_that_runs_is_followed_before_anything_else(sight: Sight) -> None:
    running = [job.id for job in sight.jobs if job.state is JobState.RUNNING]
    due = owed(sight)
    assert (due.debt is Debt.FOLLOW) == bool(running)
    assert not running or due.job == running[0]


@given(sights())
def test_a_node_that_is_not_ours_owes_nothing_but_to_be_let_go(sight: Sight) -> None:
    due = owed(sight)
    if sight.grip in (Grip.FOREIGN, Grip.HELD):
        assert due.debt in (Debt.NOTHING, Debt.FOLLOW)
    if sight.grip is Grip.LOST:
        assert due.debt in (Debt.LET_GO, Debt.FOLLOW)
    assert (due.debt is Debt.LET_GO) <= (sight.grip is Grip.LOST)
    if due.debt in ENDS_THE_OUTAGE | {Debt.LEAVE_OUT, Debt.ROLLBACK}:
        assert sight.grip is Grip.OURS


@given(sights())
def test_a_touched_node_goes_back_only_verified(sight: Sight) -> None:
    due = owed(sight)
    if due.debt is Debt.RETURN and sight.touched:
        assert sight.began.startswith(f"{RUN}.outage.")
        since = int(sight.began.rpartition(".")[2])
        ours = [job for job in sight.jobs if job.id.startswith(f"{RUN}.outage.")]
        ran = [job for job in ours if int(job.id.rpartition(".")[2]) >= since and job.failed_step not in NEVER_RAN]
        assert [(job.id, job.exit_code) for job in ran] == [(due.job, 83)]
    assert due.debt is not Debt.FINISH or sight.plan.outcome is Outcome.CONVERGED
    assert due.debt is not Debt.RETURN_ROLLED_BACK or sight.good_again
    assert due.debt is not Debt.ROLLBACK or sight.touched


@given(sights())
def test_a_hold_asks_for_no_further_step_on_a_node_that_is_out(sight: Sight) -> None:
    sight = replace(sight, barred=None)
    due, free = owed(sight), owed(replace(sight, held=""))
    if sight.held and sight.grip is Grip.OURS and free.debt in CHANGES_THE_NODE | {Debt.STAGE}:
        back = Debt.RETURN_ROLLED_BACK if sight.good_again else Debt.LEAVE_OUT
        assert due.debt is (back if sight.touched else Debt.RETURN)
        assert (due.verdict is Verdict.LEFT_OUT) == (due.debt is Debt.LEAVE_OUT)
        assert "rma, by ann" in due.why
    else:
        assert due == free


@given(sights())
def test_no_new_try_begins_on_a_node_that_is_given_up_and_what_was_begun_is_ended(sight: Sight) -> None:
    sight = replace(sight, held="")
    due, free = owed(sight), owed(replace(sight, barred=None))
    if sight.barred is None or free.debt in (Debt.FOLLOW, Debt.FINISH, Debt.ROLLBACK, Debt.LET_GO, Debt.LEAVE_OUT):
        assert due == free
    elif free.debt in (Debt.STAGE, Debt.OUTAGE):
        assert due.verdict is Verdict.GIVEN_UP
        assert BAR.why in due.why
        back = Debt.RETURN_ROLLED_BACK if sight.touched else Debt.RETURN
        stays = sight.grip is not Grip.OURS or (sight.touched and not sight.good_again)
        assert due.debt is (Debt.NOTHING if stays else back)
    assert due.debt not in (Debt.STAGE, Debt.OUTAGE) or sight.barred is None


@given(sights())
def test_no_job_gets_the_name_of_one_that_ran(sight: Sight) -> None:
    due = owed(sight)
    if due.debt in CHANGES_THE_NODE | {Debt.STAGE}:
        taken = {job.id for job in sight.jobs if job.state is not JobState.CLAIMED}
        assert due.job not in taken
        assert due.job.startswith(f"{RUN}.{due.debt}.")
        numbers = [int(job.id.split(".")[2]) for job in sight.jobs if job.id.startswith(f"{RUN}.{due.debt}.")]
        assert int(due.job.split(".")[2]) >= max(numbers, default=1)


@given(sights())
def test_jobs_of_other_runs_matter_only_while_they_run(sight: Sight) -> None:
    mine = tuple(job for job in sight.jobs if job.id.startswith(f"{RUN}.") or job.state is JobState.RUNNING)
    assert owed(sight) == owed(replace(sight, jobs=mine))


@given(sights())
def test_the_order_in_which_jobs_are_listed_does_not_matter(sight: Sight) -> None:
    quiet = tuple(job for job in sight.jobs if job.state in (JobState.DONE, JobState.CLAIMED))
    assert owed(replace(sight, jobs=quiet)) == owed(replace(sight, jobs=quiet[::-1]))


# ---- row by row


def rows() -> Iterator[tuple[str, Sight, Owed]]:
    """Yield what is seen, and what is owed then."""
    stage_failed = a_job("r1.stage.1", code=68, step="toy: trial build")
    outage_failed = a_job("r1.outage.1", code=78, step="toy: load")
    exit_68, exit_78 = "toy: trial build: exit 68 (job r1.stage.1)", "toy: load: exit 78 (job r1.outage.1)"
    not_verified = "not verified: toy: loaded: found 1.0, want 1.1"
    nowhere, back_again = "; no last known good to go back to", "; back at its last known good, verified"
    yield (
        "in service, converged",
        a_sight(CONVERGED),
        Owed(debt=Debt.NOTHING, verdict=Verdict.CONVERGED),
    )
    yield (
        "in service, to be staged",
        a_sight(STAGE_FIRST),
        Owed(debt=Debt.STAGE, job="r1.stage.1", why="toy: trial build of toy/1.1"),
    )
    yield (
        "in service, staged",
        a_sight(CHANGE, a_job("r1.stage.1")),
        Owed(debt=Debt.OUTAGE, job="r1.outage.1", why=OFF),
    )
    yield (
        "in service, does not compile",
        a_sight(STAGE_FIRST, stage_failed),
        Owed(debt=Debt.NOTHING, job="r1.stage.1", verdict=Verdict.FAILED, why=exit_68),
    )
    yield (
        "in service, the failed build is not needed any more",
        a_sight(CHANGE, stage_failed),
        Owed(debt=Debt.OUTAGE, job="r1.outage.1", why=OFF),
    )
    yield (
        "in service, its turn is over",
        a_sight(CHANGE, spent=Verdict.ROLLED_BACK),
        Owed(debt=Debt.NOTHING, verdict=Verdict.ROLLED_BACK, why="its turn in this run is over"),
    )
    yield (
        "out, verified",
        in_outage(CONVERGED, a_job("r1.outage.1")),
        Owed(debt=Debt.FINISH, verdict=Verdict.CHANGED, why="verified: nothing left to do"),
    )
    yield (
        "out, verified although the job failed",
        in_outage(CONVERGED, outage_failed),
        Owed(debt=Debt.FINISH, verdict=Verdict.CHANGED, why="verified: nothing left to do"),
    )
    yield (
        "out, nothing sent yet",
        in_outage(CHANGE, touched=False),
        Owed(debt=Debt.OUTAGE, job="r1.outage.1", why=OFF),
    )
    yield (
        "out, to be staged anew",
        in_outage(STAGE_FIRST, a_job("r1.stage.1"), touched=False),
        Owed(debt=Debt.STAGE, job="r1.stage.2", why="toy: trial build of toy/1.1"),
    )
    yield (
        "out, untouched, does not compile",
        in_outage(STAGE_FIRST, stage_failed, touched=False),
        Owed(debt=Debt.RETURN, job="r1.stage.1", verdict=Verdict.FAILED, why=exit_68),
    )
    yield (
        "out, touched by a former run, does not compile",
        in_outage(STAGE_FIRST, stage_failed),
        Owed(debt=Debt.LEAVE_OUT, job="r1.stage.1", verdict=Verdict.LEFT_OUT, why=exit_68),
    )
    yield (
        "out, the job failed",
        in_outage(CHANGE, outage_failed, has_good=True),
        Owed(debt=Debt.ROLLBACK, job="r1.rollback.1", why=exit_78),
    )
    yield (
        "out, the job failed and nothing is there to go back to",
        in_outage(CHANGE, outage_failed),
        Owed(debt=Debt.LEAVE_OUT, job="r1.outage.1", verdict=Verdict.LEFT_OUT, why=exit_78 + nowhere),
    )
    yield (
        "out, the job exited 0 and nothing changed",
        in_outage(CHANGE, a_job("r1.outage.1"), has_good=True),
        Owed(debt=Debt.ROLLBACK, job="r1.rollback.1", why=not_verified),
    )
    worse = replace(CHANGE, differences=(WRONG, replace(WRONG, layer=Layer.FILE), WRONG))
    yield (
        "out, all that is not verified is told",
        in_outage(worse, a_job("r1.outage.1"), has_good=True),
        Owed(
            debt=Debt.ROLLBACK,
            job="r1.rollback.1",
            why=f"{not_verified}; toy: file: found 1.0, want 1.1; toy: loaded: found 1.0, want 1.1",
        ),
    )
    yield (
        "in service, each layer that is off is told once",
        a_sight(worse),
        Owed(debt=Debt.OUTAGE, job="r1.outage.1", why="toy: loaded, toy: file not as wanted"),
    )
    yield (
        "out, not verified and nothing is there to go back to",
        in_outage(CHANGE, a_job("r1.outage.1")),
        Owed(debt=Debt.LEAVE_OUT, job="r1.outage.1", verdict=Verdict.LEFT_OUT, why=not_verified + nowhere),
    )
    yield (
        "out, the job failed and changed nothing",
        in_outage(CHANGE, outage_failed, has_good=True, good_again=True),
        Owed(
            debt=Debt.RETURN_ROLLED_BACK,
            job="r1.outage.1",
            verdict=Verdict.ROLLED_BACK,
            why=f"{exit_78}; still at its last known good, verified",
        ),
    )
    yield (
        "out, the job was cut off",
        in_outage(CHANGE, a_job("r1.outage.1", JobState.INTERRUPTED)),
        Owed(debt=Debt.OUTAGE, job="r1.outage.2", why=OFF),
    )
    yield (
        "out, the job was claimed and never started",
        in_outage(CHANGE, a_job("r1.outage.1", JobState.CLAIMED)),
        Owed(debt=Debt.OUTAGE, job="r1.outage.1", why=OFF),
    )
    yield (
        "out, rolled back",
        in_outage(CHANGE, outage_failed, a_job("r1.rollback.1"), has_good=True, good_again=True),
        Owed(
            debt=Debt.RETURN_ROLLED_BACK,
            job="r1.outage.1",
            verdict=Verdict.ROLLED_BACK,
            why=exit_78 + back_again,
        ),
    )
    yield (
        "out, rolled back because nothing had changed",
        in_outage(CHANGE, a_job("r1.outage.1"), a_job("r1.rollback.1"), has_good=True, good_again=True),
        Owed(
            debt=Debt.RETURN_ROLLED_BACK,
            job="r1.outage.1",
            verdict=Verdict.ROLLED_BACK,
            why=f"the change was not verified{back_again}",
        ),
    )
    yield (
        "out, rolled back, and what it was rolled back from is not listed any more",
        in_outage(CHANGE, a_job("r1.rollback.1"), has_good=True, good_again=True),
        Owed(
            debt=Debt.RETURN_ROLLED_BACK,
            job="r1.rollback.1",
            verdict=Verdict.ROLLED_BACK,
            why=f"the change was not verified{back_again}",
        ),
    )
    yield (
        "out, rolled back, and converged all the same",
        in_outage(CONVERGED, outage_failed, a_job("r1.rollback.1"), has_good=True, good_again=True),
        Owed(
            debt=Debt.RETURN_ROLLED_BACK,
            job="r1.outage.1",
            verdict=Verdict.ROLLED_BACK,
            why=exit_78 + back_again,
        ),
    )
    yield (
        "out, rolled back to something else",
        in_outage(CHANGE, outage_failed, a_job("r1.rollback.1"), has_good=True),
        Owed(
            debt=Debt.LEAVE_OUT,
            job="r1.rollback.1",
            verdict=Verdict.LEFT_OUT,
            why=f"{exit_78}; rolled back, but that was not verified",
        ),
    )
    yield (
        "out, the rollback failed",
        in_outage(
            CHANGE,
            outage_failed,
            a_job("r1.rollback.1", code=72, step="toy: back"),
            has_good=True,
            good_again=True,
        ),
        Owed(
            debt=Debt.LEAVE_OUT,
            job="r1.rollback.1",
            verdict=Verdict.LEFT_OUT,
            why=f"{exit_78}; toy: back: exit 72 (job r1.rollback.1)",
        ),
    )
    yield (
        "out, the rollback was cut off",
        in_outage(
            CHANGE,
            outage_failed,
            a_job("r1.rollback.1", JobState.INTERRUPTED),
            has_good=True,
            good_again=True,
        ),
        Owed(debt=Debt.ROLLBACK, job="r1.rollback.2", why="the rollback was interrupted"),
    )
    yield (
        "out, the rollback was claimed and never started",
        in_outage(CHANGE, outage_failed, a_job("r1.rollback.1", JobState.CLAIMED), has_good=True),
        Owed(debt=Debt.ROLLBACK, job="r1.rollback.1", why="the rollback was interrupted"),
    )
    yield (
        "out, the rollback is cut off every time",
        in_outage(
            CHANGE,
            outage_failed,
            *(a_job(f"r1.rollback.{n}", JobState.INTERRUPTED) for n in (1, 2, 3)),
            has_good=True,
            good_again=True,
        ),
        Owed(
            debt=Debt.LEAVE_OUT,
            job="r1.rollback.3",
            verdict=Verdict.LEFT_OUT,
            why=f"{exit_78}; rollback: interrupted 3 times (job r1.rollback.3)",
        ),
    )
    yield (
        "out, rolled back at the last try",
        in_outage(
            CHANGE,
            outage_failed,
            *(a_job(f"r1.rollback.{n}", JobState.INTERRUPTED) for n in (1, 2, 3)),
            a_job("r1.rollback.4"),
            has_good=True,
            good_again=True,
        ),
        Owed(
            debt=Debt.RETURN_ROLLED_BACK,
            job="r1.outage.1",
            verdict=Verdict.ROLLED_BACK,
            why=exit_78 + back_again,
        ),
    )
    yield (
        "out, the outage is cut off every time",
        in_outage(CHANGE, *(a_job(f"r1.outage.{n}", JobState.INTERRUPTED) for n in (1, 2, 3)), has_good=True),
        Owed(debt=Debt.ROLLBACK, job="r1.rollback.1", why="outage: interrupted 3 times (job r1.outage.3)"),
    )
    yield (
        "out, the outage was cut off twice",
        in_outage(CHANGE, *(a_job(f"r1.outage.{n}", JobState.INTERRUPTED) for n in (1, 2)), has_good=True),
        Owed(debt=Debt.OUTAGE, job="r1.outage.3", why=OFF),
    )
    yield (
        "out, the job failed without saying where",
        in_outage(CHANGE, a_job("r1.outage.1", code=1), has_good=True),
        Owed(debt=Debt.ROLLBACK, job="r1.rollback.1", why="outage: exit 1 (job r1.outage.1)"),
    )
    yield (
        "out, ten attempts",
        in_outage(CHANGE, *(a_job(f"r1.outage.{n}", code=75, step="lock") for n in range(1, 11))),
        Owed(debt=Debt.OUTAGE, job="r1.outage.11", why=OFF),
    )
    yield (
        "ours by name only",
        a_sight(CONVERGED, grip=Grip.LOST, touched=True),
        Owed(
            debt=Debt.LET_GO,
            verdict=Verdict.LOST,
            why="the cordon was lifted or set anew by somebody else",
        ),
    )
    yield (
        "somebody else's",
        a_sight(CHANGE, grip=Grip.FOREIGN),
        Owed(debt=Debt.NOTHING, verdict=Verdict.SKIPPED, why="cordoned or held by somebody else"),
    )
    yield (
        "another run's job runs",
        a_sight(CONVERGED, a_job("r0.outage.1", JobState.RUNNING), grip=Grip.HELD),
        Owed(debt=Debt.FOLLOW, job="r0.outage.1", why="job r0.outage.1 runs on the node"),
    )


@pytest.mark.parametrize(("sight", "due"), [pytest.param(*row[1:], id=row[0]) for row in rows()])
def test_each_sight_has_its_debt(sight: Sight, due: Owed) -> None:
    assert owed(sight) == due


@pytest.mark.parametrize(("outcome", "verdict"), REFUSED.items())
def test_a_refusal_is_told_and_a_cordon_of_ours_is_lifted_only_from_an_untouched_node(
    outcome: Outcome, verdict: Verdict
) -> None:
    refusal = a_refusal(outcome)
    why = "headers are missing"
    assert owed(a_sight(refusal)) == Owed(debt=Debt.NOTHING, verdict=verdict, why=why)
    assert owed(in_outage(refusal, touched=False)) == Owed(debt=Debt.RETURN, verdict=verdict, why=why)
    assert owed(in_outage(refusal)) == Owed(debt=Debt.LEAVE_OUT, verdict=Verdict.LEFT_OUT, why=why)


@pytest.mark.parametrize(("code", "label"), [(75, "lock"), (77, "token"), (64, "meta")])
def test_a_job_that_was_refused_before_its_first_step_proves_nothing(code: int, label: str) -> None:
    refused = a_job("r1.outage.1", code=code, step=label)
    assert owed(in_outage(CHANGE, refused, has_good=True)).job == "r1.outage.2"
    after = a_job("r1.outage.2", code=code, step=label)
    failed = a_job("r1.outage.1", code=78, step="toy: load")
    assert owed(in_outage(CHANGE, failed, after, has_good=True)).debt is Debt.ROLLBACK
    stage = a_job("r1.stage.1", code=code, step=label)
    assert owed(a_sight(STAGE_FIRST, stage)).job == "r1.stage.2"


def test_a_later_attempt_counts_not_the_one_before_it() -> None:
    failed, done = a_job("r1.stage.9", code=68), a_job("r1.stage.10")
    assert owed(a_sight(STAGE_FIRST, failed, done)).job == "r1.stage.11"
    assert owed(a_sight(STAGE_FIRST, replace(done, id="r1.stage.8"), failed)).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("code", "verdict"),
    [(code, Verdict.INCOMPATIBLE) for code in (66, 67, 69, 79)]
    + [(code, Verdict.BLOCKED) for code in (81, 82)]
    + [(code, Verdict.FAILED) for code in (1, 64, 65, 68, 73, 75, 78, 80)],
)
def test_a_trial_build_that_cannot_fit_is_no_failure_of_the_node(code: int, verdict: Verdict) -> None:
    stage = a_job(f"{RUN}.stage.1", code=code, step="dkms_stage.sh")
    why = f"dkms_stage.sh: exit {code} (job {stage.id})"
    assert owed(a_sight(STAGE_FIRST, stage)) == Owed(debt=Debt.NOTHING, job=stage.id, verdict=verdict, why=why)
    untouched = owed(in_outage(STAGE_FIRST, stage, touched=False))
    assert untouched == Owed(debt=Debt.RETURN, job=stage.id, verdict=verdict, why=why)
    touched = owed(in_outage(STAGE_FIRST, stage))
    assert touched == Owed(debt=Debt.LEAVE_OUT, job=stage.id, verdict=Verdict.LEFT_OUT, why=why)


AS_IT_WAS = a_job(f"{RUN}.outage.1", code=83, step="apt: install")


@pytest.mark.parametrize("has_good", [False, True])
def test_an_outage_that_left_all_as_it_was_ends_as_the_node_was_found(has_good: bool) -> None:
    due = owed(in_outage(CHANGE, AS_IT_WAS, began=AS_IT_WAS.id, has_good=has_good))
    assert (due.debt, due.verdict, due.job) == (Debt.RETURN, Verdict.FAILED, AS_IT_WAS.id)
    assert due.why == f"apt: install: exit 83 (job {AS_IT_WAS.id}); all is as it was"
    taken = replace(AS_IT_WAS, exit_code=OTHER_APT)
    due = owed(in_outage(CHANGE, taken, began=taken.id, has_good=has_good))
    assert (due.debt, due.verdict) == (Debt.RETURN, Verdict.BLOCKED), "another apt at work is no failure"
    finished = in_outage(CONVERGED, AS_IT_WAS, began=AS_IT_WAS.id, has_good=has_good)
    assert owed(finished).debt is Debt.FINISH
    rollback = a_job(f"{RUN}.rollback.1", code=83, step="apt: back")
    back = in_outage(CHANGE, AS_IT_WAS, rollback, began=AS_IT_WAS.id, has_good=has_good)
    assert owed(back).debt is Debt.LEAVE_OUT


@pytest.mark.parametrize(("good", "debt"), [(True, Debt.ROLLBACK), (False, Debt.LEAVE_OUT)])
@pytest.mark.parametrize(
    ("before", "began"),
    [
        ((a_job(f"{RUN}.outage.1", JobState.INTERRUPTED),), f"{RUN}.outage.1"),  # lost its power in dpkg
        ((), "r0.outage.1"),  # an earlier run has touched it, and left it out
        ((), "r0.rollback.2"),
        ((), ""),  # nobody knows
    ],
)
def test_as_it_was_says_nothing_of_what_was_done_before_that_job(
    before: tuple[Job, ...], began: str, good: bool, debt: Debt
) -> None:
    """The job found apt's lock taken, say, and has changed nothing itself."""
    refused = a_job(f"{RUN}.outage.{len(before) + 1}", code=83, step="toy: may apt install now?")
    assert owed(in_outage(CHANGE, *before, refused, began=began, has_good=good)).debt is debt


@pytest.mark.parametrize("label", ["lock", "token", "superseded"])
def test_a_job_that_never_began_has_changed_nothing(label: str) -> None:
    before = a_job(f"{RUN}.outage.1", code=75, step=label)
    refused = a_job(f"{RUN}.outage.2", code=83, step="toy: may apt install now?")
    assert owed(in_outage(CHANGE, before, refused, began=before.id)).debt is Debt.RETURN


@pytest.mark.parametrize("has_good", [False, True])
@pytest.mark.parametrize("aftermath", AFTERMATH)
def test_a_harmless_failure_goes_back_where_nothing_was_done_before_it(aftermath: str, has_good: bool) -> None:
    """`Node.check` holds each debt: the node goes back only at the version at which it was found, or verified."""
    fate = Fate(outage="harmless", has_good=has_good)
    assert ending(fate) == (Verdict.FAILED, Grip.FREE, False, "old")
    for first, second in product(range(kill_points(fate)), repeat=2):
        node = Node(fate)
        killed(node, first, aftermath)
        killed(node, second, aftermath)
        node.turn()
