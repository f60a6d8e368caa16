"""Remedies before a plan: what is mended first, and what a node owes then, for anything that can be seen."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from fleetdrv import turn
from fleetdrv.layers import Layer
from fleetdrv.mend import owed
from fleetdrv.model import Fault, Good, Job, JobState
from fleetdrv.phases import MAX_INTERRUPTED, Phase, job_id
from fleetdrv.plan import Disruption, NodePlan, Outcome, plan
from fleetdrv.remedies import DPKG, HEADERS, broken_hardware, from_kept, remedies_first
from fleetdrv.turn import OTHER_APT, Debt, Grip, Sight, Verdict
from tests.core.factories import KERNEL, NEXT_KERNEL, a_driver, a_job, a_loaded, a_playbook, some_facts
from tests.core.test_turn import CHANGE, CONVERGED, RUN, a_refusal, a_sight, in_outage

BOOK = a_playbook()
REMEDY = replace(CHANGE, remedy=True, reason="dpkg was interrupted")
ONLY_REMEDY = replace(REMEDY, differences=())
FIRST = job_id(RUN, Phase.REMEDY, 1)


def done(code: int = 0, number: int = 1, phase: Phase = Phase.REMEDY) -> Job:
    return a_job(job_id(RUN, phase, number), code=code, step="" if code == 0 else "mend")


def after(plan: NodePlan, *jobs: Job, **more: object) -> Sight:
    return in_outage(plan, *jobs, **{"about_to": FIRST, "began": FIRST, **more})


# ---- what is mended first


def test_what_is_sound_has_the_plan_that_it_has() -> None:
    for facts in (some_facts(), some_facts(loaded={})):
        found = plan(BOOK, facts)
        assert remedies_first(found, BOOK, facts) is found


def test_an_interrupted_dpkg_comes_first_also_where_nothing_else_differs_and_users_of_the_driver_leave() -> None:
    facts = replace(some_facts(), dpkg_interrupted=True, headers=frozenset())
    mended = remedies_first(plan(BOOK, facts), BOOK, facts)
    assert [step.program for step in mended.outage] == [DPKG, HEADERS]
    assert (mended.outcome, mended.remedy, mended.stage) == (Outcome.CHANGEABLE, True, ())
    assert mended.disruption is Disruption.RELOAD
    idle = replace(facts, loaded={})
    assert remedies_first(plan(BOOK, idle), BOOK, idle).disruption is Disruption.NONE


def test_headers_are_for_kernels_that_lack_them_and_for_what_is_built_only() -> None:
    facts = replace(some_facts(), headers=frozenset())
    (step,) = remedies_first(plan(BOOK, facts), BOOK, facts).outage
    assert (step.program, step.argv) == (HEADERS, (KERNEL,))
    assert remedies_first(plan(BOOK, facts), BOOK, facts).disruption is Disruption.NONE
    in_tree = a_playbook(a_driver(dkms=None))
    assert not remedies_first(plan(in_tree, facts), in_tree, facts).remedy


def test_a_machine_that_is_at_fault_gets_no_remedy() -> None:
    book = a_playbook(a_driver(requires_pci=("10de:*",)))
    facts = replace(some_facts(), dpkg_interrupted=True)
    found = plan(book, facts)
    assert found.outcome is Outcome.NOT_MENDABLE
    assert remedies_first(found, book, facts) is found
    broken = broken_hardware(found, facts)
    assert broken is not None
    assert "10de" in broken.why
    assert broken_hardware(plan(BOOK, facts), facts) is None
    sick = replace(found, differences=(replace(found.differences[0], layer=Layer.CHECKS),))
    assert broken_hardware(sick, facts) is None, "a check that fails may have any cause"


_XID = "NVRM: Xid (PCI:0000:65:00): {}, pid='<unknown>', name=<unknown>, and so on"
_MLX5 = "mlx5_core 0000:3b:00.0: poll_health:834:(pid 0): "


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (_XID.format(79), "gpu-off-bus"),
        (_XID.format(48), "gpu-memory-broken"),
        (_XID.format(64), "gpu-memory-broken"),
        (_XID.format(95), "gpu-memory-broken"),
        (_XID.format(74), "nvlink-broken"),
        (_MLX5 + "device's health compromised - reached miss count", "nic-firmware-failed"),
        (_MLX5 + "Fatal error 3 detected", "nic-firmware-failed"),
        (_XID.format(63), ""),
        (_XID.format(94), ""),
        (_XID.format(13), ""),
        ("Oops: 0002 [#1] PREEMPT SMP", ""),
        ("mlx5_core 0000:3b:00.0: E-Switch: Disable", ""),
    ],
)
def test_what_the_kernel_has_seen_of_the_hardware_counts_and_nothing_else(text: str, name: str) -> None:
    seen = (Fault(stamp=7.5, text="toy: an error"), Fault(stamp=8.5, text=text))
    facts = replace(some_facts(BOOK.drivers[0]), faults=seen)
    broken = broken_hardware(plan(BOOK, facts), facts)
    assert (broken.why.partition(": ")[0] if broken else "") == name
    if broken:
        assert broken.evidence == f"[8.5] {text}"
        assert "dmesg --clear" in broken.remedy


def test_what_the_node_keeps_comes_from_its_own_disk_and_kernels_it_lacks_are_built_there() -> None:
    sound = some_facts()
    kernels = replace(sound.kernels, newest=NEXT_KERNEL, default=NEXT_KERNEL)
    good = {"toy": Good(driver="toy", digest="d", wanted=BOOK.drivers[0].model_dump_json())}
    facts = replace(sound, kernels=kernels, headers=frozenset((KERNEL, NEXT_KERNEL)), good=good)
    kept = from_kept(BOOK.drivers, facts)
    assert (kept["toy"].digest, kept["toy"].rebuild) == ("d", True)
    made = plan(BOOK, facts, kept=kept)
    assert made.outcome is Outcome.CHANGEABLE
    assert made.stage == (), "nothing is downloaded or compiled while it serves"
    programs = [step.program for step in made.outage]
    assert programs.index("dkms_restore.sh") < programs.index("dkms_rebuild.sh")
    rebuild = made.outage[programs.index("dkms_rebuild.sh")]
    assert rebuild.argv == ("toy", "1.1", KERNEL, NEXT_KERNEL)


# ---- what is owed


def test_without_a_remedy_it_owes_what_it_owes_any_rollout() -> None:
    plans = (CONVERGED, CHANGE, a_refusal())
    jobs: tuple[tuple[Job, ...], ...] = ((), (done(phase=Phase.OUTAGE),), (done(3, phase=Phase.OUTAGE),))
    for each, grip, sent, touched, good in product(plans, Grip, jobs, (True, False), (True, False)):
        sight = a_sight(each, *sent, grip=grip, touched=touched, has_good=good, good_again=good)
        assert owed(sight) == turn.owed(sight)


@pytest.mark.parametrize("grip", [Grip.FREE, Grip.OURS])
def test_a_remedy_is_a_job_of_its_own(grip: Grip) -> None:
    due = owed(a_sight(REMEDY, grip=grip))
    assert (due.debt, due.job, due.why) == (Debt.OUTAGE, FIRST, "dpkg was interrupted")


def test_done_the_node_owes_what_the_next_look_says() -> None:
    assert owed(after(CONVERGED, done())).debt is Debt.FINISH
    assert owed(after(CHANGE, done())).job == job_id(RUN, Phase.OUTAGE, 1)
    refused = a_refusal(Outcome.INCOMPATIBLE)
    assert owed(after(refused, done(), has_good=True)).debt is Debt.ROLLBACK
    assert owed(after(refused, done(), has_good=True, good_again=True)).debt is Debt.RETURN_ROLLED_BACK
    assert owed(after(refused, done())).debt is Debt.LEAVE_OUT


def test_one_that_did_not_help_is_not_tried_twice_in_a_run() -> None:
    for code in (0, 79):
        assert owed(after(REMEDY, done(code), has_good=True)).debt is Debt.ROLLBACK
        assert owed(after(REMEDY, done(code))).debt is Debt.LEAVE_OUT
        due = owed(after(ONLY_REMEDY, done(code)))
        assert (due.debt, due.verdict) == (Debt.RETURN, Verdict.FAILED), "the drivers are as wanted"


def test_one_that_changed_nothing_puts_back_what_nobody_had_changed_before() -> None:
    due = owed(after(REMEDY, done(OTHER_APT)))
    assert (due.debt, due.verdict) == (Debt.RETURN, Verdict.BLOCKED)
    earlier = "r0.outage.1"
    assert owed(after(REMEDY, done(OTHER_APT), began=earlier)).debt is Debt.LEAVE_OUT, "an earlier run has"


def test_one_that_is_cut_off_is_begun_again_but_not_for_ever() -> None:
    cut = [Job(id=job_id(RUN, Phase.REMEDY, n), state=JobState.INTERRUPTED) for n in range(1, MAX_INTERRUPTED + 1)]
    assert owed(after(REMEDY, *cut[:1])).job == job_id(RUN, Phase.REMEDY, 2)
    assert owed(after(REMEDY, *cut)).debt is Debt.LEAVE_OUT
    runs = replace(cut[0], state=JobState.RUNNING)
    assert owed(after(REMEDY, runs)).debt is Debt.FOLLOW


@pytest.mark.parametrize("grip", [Grip.HELD, Grip.FOREIGN, Grip.LOST])
def test_nobody_elses_node_is_mended(grip: Grip) -> None:
    assert owed(a_sight(REMEDY, grip=grip)) == turn.owed(a_sight(REMEDY, grip=grip))
    assert owed(a_sight(REMEDY, grip=grip)).debt in (Debt.NOTHING, Debt.LET_GO)


def test_a_hold_under_way_ends_it_and_a_rollback_that_ran_is_judged() -> None:
    assert owed(after(REMEDY, done(), held="by ann")).debt is Debt.LEAVE_OUT
    stuck = a_refusal(Outcome.INCOMPATIBLE)
    assert owed(after(stuck, done(), held="by ann", has_good=True)).debt is Debt.LEAVE_OUT, "a rollback is a step"
    back = (done(79), done(phase=Phase.ROLLBACK))
    assert owed(after(REMEDY, *back, has_good=True, good_again=True)).debt is Debt.RETURN_ROLLED_BACK
    assert owed(after(REMEDY, *back, has_good=True)).debt is Debt.LEAVE_OUT


def test_loaded_modules_are_what_counts_as_in_use() -> None:
    facts = replace(some_facts(), dpkg_interrupted=True, loaded={"other": a_loaded("other")})
    assert remedies_first(plan(BOOK, facts), BOOK, facts).disruption is Disruption.NONE
