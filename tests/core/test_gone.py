"""A Node that goes under way: what is still told of its machine, and when another Node of its name is another."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fleetdrv.endings import stand_of
from fleetdrv.errors import ClusterError, FleetdrvError, Gone, NotFound, Stopped, Unreachable
from fleetdrv.gone import LastLook, demand, next_step, owed_anew, registered_anew
from fleetdrv.look import View
from fleetdrv.model import Job, JobState
from fleetdrv.plan import NodePlan
from fleetdrv.service import Service
from fleetdrv.slots import Stand
from fleetdrv.standing import Standing
from fleetdrv.turn import Debt, Grip, Owed, Verdict
from tests.core.factories import a_job
from tests.core.test_turn import CHANGE, CONVERGED, in_outage

OUT = Standing(grip=Grip.OURS, run="r1", uid="a", machine_id="m", boot_id="b")


def a_view(plan: NodePlan = CONVERGED, *jobs: Job, standing: Standing = OUT) -> View:
    facts = SimpleNamespace(jobs=jobs)
    return cast(View, SimpleNamespace(standing=standing, plan=plan, facts=facts, sight=in_outage(plan, *jobs)))


@dataclass
class Machine:
    """It says one thing after the other."""

    says: list[Any]
    asked: list[Standing] = field(default_factory=list)
    followed: list[str] = field(default_factory=list)

    def look(self, standing: Standing) -> View:
        self.asked.append(standing)
        said = self.says.pop(0)
        if isinstance(said, Exception):
            raise said
        return cast(View, said)

    def told(self, *, touched: bool = True) -> Owed:
        seen = LastLook(a_view(CHANGE), self.look, self.followed.append)
        return seen.owed(touched=touched)


def test_an_untouched_machine_is_not_asked_any_more() -> None:
    machine = Machine([])
    due = machine.told(touched=False)
    assert (due.debt, due.verdict, machine.asked) == (Debt.NOTHING, Verdict.GONE, [])
    assert stand_of(Verdict.GONE) is Stand.SETTLED, "it spends no budget, and its slot is free"


def test_a_job_that_runs_is_followed_to_its_end_and_the_machine_looked_at_again() -> None:
    job = a_job("r1.outage.1")
    runs = replace(job, state=JobState.RUNNING, exit_code=None)
    machine = Machine([a_view(CHANGE, runs), a_view(CONVERGED, job)])
    due = machine.told()
    assert (due.verdict, machine.followed) == (Verdict.GONE, ["r1.outage.1"])
    assert "verified" in due.why
    assert machine.asked == [replace(OUT, boot_id="")] * 2, "its machine id alone proves which machine it is"


def test_a_change_that_stands_half_way_has_failed_and_names_its_job() -> None:
    due = Machine([a_view(CHANGE, replace(a_job("r1.outage.1"), exit_code=78))]).told()
    assert (due.debt, due.verdict, due.job) == (Debt.NOTHING, Verdict.FAILED, "r1.outage.1")
    assert "exit 78, and is not undone" in due.why
    silent = Machine([Unreachable("n1", "connect", "no route")]).told()
    assert (silent.verdict, "no route" in silent.why) == (Verdict.FAILED, True)
    with pytest.raises(Stopped):
        Machine([Stopped("the lock is lost")]).told()


@pytest.mark.parametrize(
    ("before", "out", "now", "anew"),
    [
        (False, True, replace(OUT, run="", uid="b"), True),
        (False, True, replace(OUT, run="", uid="a"), False),  # somebody took our marks off
        (False, False, replace(OUT, run="", uid="b"), False),  # it was not out: nothing of ours is lost
        (True, False, replace(OUT, run="", uid="b"), True),
        (True, True, replace(OUT, uid="b"), False),  # out by our hand again
    ],
)
def test_when_a_node_is_another_one(before: bool, out: bool, now: Standing, anew: bool) -> None:
    assert registered_anew(before, a_view(), now, out=out) is anew
    assert not registered_anew(False, None, now, out=out)


def test_a_change_that_is_verified_on_a_new_node_is_recorded_and_nothing_else_is() -> None:
    converged = Owed(debt=Debt.NOTHING, verdict=Verdict.CONVERGED)
    assert owed_anew(converged, Grip.FREE).debt is Debt.FINISH
    assert owed_anew(converged, Grip.FOREIGN) == converged
    outage = Owed(debt=Debt.OUTAGE)
    assert owed_anew(outage, Grip.FREE) == outage


def test_what_to_type_is_of_the_cluster_first() -> None:
    due = Machine([]).told(touched=False)
    assert next_step(due, "n1", "fleetdrv plan x").startswith("kubectl get node n1; once its kubelet")
    assert next_step(replace(due, why=f"disk-full: no space; {due.why}"), "n1", "x").startswith("kubectl get")
    assert next_step(replace(due, why="vetoed"), "n1", "fleetdrv plan x") == "fleetdrv plan x"


@pytest.mark.parametrize("error", [Gone("n1"), NotFound("node n1")])
def test_only_the_node_that_is_not_there_is_gone(error: FleetdrvError) -> None:
    class Deleted:
        def standing(self) -> Standing:
            raise Gone("n1")

    class Serves:
        def standing(self) -> Standing:
            return OUT

    demand(cast(Service, Deleted()), error)
    if isinstance(error, ClusterError):
        with pytest.raises(NotFound):
            demand(cast(Service, Serves()), error)
