"""What a run remembers, and what a soak's last look says."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv import progress
from fleetdrv.model import Fault, NodeFacts
from fleetdrv.policy import MaintenanceWindow
from fleetdrv.records import Result, RunRecord
from fleetdrv.rollout import Progress
from fleetdrv.turn import Debt, Owed, Verdict
from tests.core.factories import a_policy, some_facts

RECORD = RunRecord(id="r1", pool="gpu", playbook="toy", digest="d")
NOON = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
SOAK = a_policy(canary=2, soak_seconds=600)
CONVERGED = Owed(debt=Debt.NOTHING, verdict=Verdict.CONVERGED)


def faults(*stamped: tuple[float, str], **more: Any) -> NodeFacts:
    return some_facts(faults=tuple(Fault(stamp=stamp, text=text) for stamp, text in stamped), **more)


def test_decisions_depend_on_what_is_recorded() -> None:
    record = replace(RECORD, canary_passed=("n0",), failed=("n1", "n2"), unreachable=("n3",), outage_seconds=7)
    assert progress.progress(record, a_policy(canary=1)) == Progress(
        canary_passed=True, passed=("n0",), failures=2, unreachable=1, outage_seconds=7
    )
    assert not progress.progress(record, a_policy(canary=2)).canary_passed
    assert progress.progress(RECORD, a_policy(canary=0)).canary_passed


def test_a_node_spends_a_budget_once() -> None:
    record = progress.failed(progress.failed(RECORD, "n1"), "n0")
    assert record.failed == ("n1", "n0")
    assert progress.failed(record, "n1") == record
    record = progress.unreachable(progress.unreachable(record, "n1"), "n2")
    assert (record.unreachable, record.failed) == (("n1", "n2"), ("n1", "n0"))
    assert progress.unreachable(record, "n2") == record


def test_the_longest_outage_is_remembered_where_a_window_needs_it() -> None:
    policy = a_policy(maintenance_window=MaintenanceWindow(start="22:00", end="04:00"))
    record = progress.measured(RECORD, policy, 41.2)
    assert record.outage_seconds == 42
    assert progress.measured(record, policy, 42.0) is record
    assert progress.measured(record, policy, None) is record
    assert progress.measured(record, policy, 42.1).outage_seconds == 43
    assert progress.measured(RECORD, a_policy(), 41.2) is RECORD


def test_a_canary_is_who_comes_through_before_enough_did_and_who_soaks_already() -> None:
    assert progress.is_canary(replace(RECORD, canary_passed=("n0",)), SOAK, "n1")
    enough = replace(RECORD, canary_passed=("n0", "n1"))
    assert not progress.is_canary(enough, SOAK, "n2")
    assert progress.is_canary(replace(enough, soaking={"n2": "later"}), SOAK, "n2")
    assert not progress.is_canary(RECORD, a_policy(), "n0")


def a_result(run: str = "r1", verdict: Verdict = Verdict.CHANGED) -> Result:
    return Result(run=run, digest="d", verdict=verdict, finding="", at="")


def test_that_this_run_changed_a_node_stands_on_the_node() -> None:
    assert progress.was_changed(RECORD, CONVERGED, a_result())
    assert not progress.was_changed(RECORD, CONVERGED, None)
    assert not progress.was_changed(RECORD, CONVERGED, a_result("r0"))
    assert not progress.was_changed(RECORD, CONVERGED, a_result(verdict=Verdict.FAILED))
    assert not progress.was_changed(RECORD, Owed(debt=Debt.STAGE), a_result())


def test_a_soak_is_noted_with_its_end_and_with_how_far_the_kernels_log_had_come() -> None:
    record = progress.soak(RECORD, SOAK, "n0", NOON, faults((3.5, "old"), (12.25, "new")))
    assert record.soaking == {"n0": "2026-11-25T12:10:00Z"}
    assert record.kernel_marks == {"n0": "boot-1 12.250000"}
    assert record.not_before == "2026-11-25T12:10:00Z"
    assert progress.soak(record, SOAK, "n0", NOON + timedelta(hours=1), faults()) is record, "it is under way"
    berlin = datetime.fromisoformat("2026-11-25T13:05:00+01:00")
    both = progress.soak(record, SOAK, "n1", berlin, None)
    assert both.soaking == {"n0": "2026-11-25T12:10:00Z", "n1": "2026-11-25T12:15:00Z"}
    assert both.kernel_marks == record.kernel_marks
    assert both.not_before == "2026-11-25T12:15:00Z"
    assert RunRecord.from_json(both.to_json(), "lease") == both


def test_the_end_of_a_soak_is_written_in_utc_wherever_the_controller_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        try:
            assert progress.soak(RECORD, SOAK, "n0", NOON, None).soaking == {"n0": "2026-11-25T12:10:00Z"}
        finally:
            patch.undo()
            time.tzset()


@pytest.mark.parametrize("end", [progress.passed, progress.failed])
def test_the_end_of_a_soak_is_noted(end: Any) -> None:
    record = progress.soak(RECORD, SOAK, "n0", NOON, faults())
    record = progress.soak(record, SOAK, "n1", NOON + timedelta(seconds=60), faults())
    ended = end(record, "n1")
    assert (set(ended.soaking), set(ended.kernel_marks)) == ({"n0"}, {"n0"})
    assert ended.not_before == "2026-11-25T12:10:00Z"
    assert (ended.canary_passed or ended.failed) == ("n1",)
    last = end(ended, "n0")
    assert (last.soaking, last.kernel_marks, last.not_before) == ({}, {}, "")


@given(st.integers(-200_000, 200_000))
def test_no_more_than_the_whole_soak_is_waited_for_whatever_the_clocks_say(later: int) -> None:
    record = progress.soak(RECORD, SOAK, "n0", NOON, None)
    left = progress.remaining_seconds(record, SOAK, "n0", NOON + timedelta(seconds=later))
    assert left == min(max(600 - later, 0), 600)


def test_an_end_that_cannot_be_read_is_waited_for_as_long_as_a_soak_takes() -> None:
    record = replace(RECORD, soaking={"n0": "soon"})
    assert progress.remaining_seconds(record, SOAK, "n0", NOON) == 600


def test_the_mark_of_a_calm_kernel_is_its_boot() -> None:
    assert progress.kernel_mark(faults()) == "boot-1 0.000000"


@pytest.mark.parametrize(
    ("mark", "facts", "said"),
    [
        ("boot-1 12.250000", faults((3.5, "old"), (12.25, "known")), ""),
        ("boot-1 12.250000", faults(), ""),
        ("boot-1 12.250000", faults((12.25, "known"), (12.250001, "Oops: 0002")), "kernel: Oops: 0002"),
        ("boot-1 0.000000", faults((1.0, "a"), (2.0, "b"), (3.0, "c")), "kernel: a (and 2 more)"),
        ("boot-1 1.000000", faults((1.0, "a"), (2.0, "b"), (3.0, "c")), "kernel: b (and 1 more)"),
        ("boot-0 99.000000", faults(), "was booted anew"),
        ("", faults((1.0, "a")), ""),
    ],
)
def test_only_what_the_kernel_said_since_the_mark_counts(mark: str, facts: NodeFacts, said: str) -> None:
    assert progress.disturbed(mark, facts) == said
