"""How often cron may try: whatever happens to nodes and controllers, the Node's record alone keeps the promise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv.attempts import PERMANENT, Counting
from fleetdrv.playbook import Remediate
from fleetdrv.records import Result
from fleetdrv.turn import Verdict
from tests.core.strategies import pick

START = datetime(2026, 11, 25, 5, 0, tzinfo=UTC)
DAY = 86400
BAD = (Verdict.FAILED, Verdict.ROLLED_BACK, Verdict.LEFT_OUT, Verdict.LOST)
CALM = (Verdict.BLOCKED, Verdict.SKIPPED, Verdict.UNREACHABLE)
policies = st.builds(Remediate, attempts=st.integers(1, 5), backoff_seconds=st.sampled_from((0, 60, 3600, 10**5)))


def stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def a_result(verdict: str = Verdict.FAILED, run: str = "r1", at: datetime = START, **more: object) -> Result:
    values = {"run": run, "digest": "d1", "verdict": verdict, "finding": "does not load", "at": stamp(at)}
    return Result(**{**values, **more})  # type: ignore[arg-type]


@dataclass(slots=True)
class History:
    """A node's life under cron and people; only `last` is known to fleetdrv."""

    policy: Remediate
    last: Result | None = None
    now: datetime = START
    runs: int = 0
    open_run: bool = False
    """The last controller was killed and its run was never closed: the next one goes on with it."""
    tries: dict[str, int] = field(default_factory=dict)
    """Outages by cron since this wanted state last succeeded, or a human last tried it."""
    failed_at: datetime | None = None

    def period(self, digest: str, *, human: bool, fate: str, verdict: Verdict) -> None:
        """One `remediate` or `apply` comes by."""
        self.runs += not self.open_run
        run = f"r{self.runs}"
        counting = Counting(digest=digest, policy=self.policy, afresh=human)
        bar = counting.bar(self.last, run=run, now=self.now)
        goes_on = self.last is not None and (self.last.run, self.last.verdict) == (run, Verdict.UNDER_WAY)
        self.open_run = False
        if bar is not None:
            assert not human
            return
        ended = Result(run=run, digest=digest, verdict=verdict, finding="why", at=stamp(self.now))
        if fate == "stage" and not goes_on:
            noted = counting.note(self.last, replace(ended, verdict=Verdict.FAILED))
            self.last = noted or self.last
            return
        if verdict in (*CALM, *PERMANENT) and not goes_on:
            self.last = counting.note(self.last, ended) or self.last
            return
        if not goes_on:
            self.begin(counting, digest, run, human)
        self.open_run = fate == "killed, its run stays open"
        if fate.startswith("killed"):
            return
        self.last = counting.end(self.last, ended)
        if verdict is Verdict.CHANGED:
            self.tries[digest] = 0

    def begin(self, counting: Counting, digest: str, run: str, human: bool) -> None:
        if human:
            self.tries[digest] = 0
        else:
            self.tries[digest] = self.tries.get(digest, 0) + 1
        self.last = counting.begin(self.last, run=run, at=stamp(self.now))


FATES = ("ends", "ends", "stage", "killed, its run stays open", "killed, its run is closed")


@given(st.data(), policies)
def test_cron_takes_a_node_out_at_most_so_often_whatever_happens(data: st.DataObject, policy: Remediate) -> None:
    history = History(policy)
    digest = "d1"
    for _ in range(data.draw(st.integers(1, 14))):
        draw = data.draw
        if draw(st.sampled_from((0, 0, 0, 0, 0, 1))):  # the other wanted state, and perhaps back again
            digest = "d2" if digest == "d1" else "d1"
            history.tries[digest] = 0  # the Node remembers one: it is counted anew
        verdict = pick(draw, (*BAD, *BAD, Verdict.CHANGED, *CALM, *PERMANENT))
        history.period(digest, human=pick(draw, (False,) * 9 + (True,)), fate=pick(draw, FATES), verdict=verdict)
        assert max(history.tries.values(), default=0) <= policy.attempts
        history.now += timedelta(seconds=pick(draw, (0, 30, 3600, DAY, 2 * DAY)))


@given(policies, st.integers(1, 8), st.integers(0, 3 * DAY))
def test_a_failure_is_not_tried_again_before_its_time_and_surely_after_it(
    policy: Remediate, failures: int, wait: int
) -> None:
    counting = Counting(digest="d1", policy=policy, afresh=False)
    last, now = None, START
    for number in range(failures):
        last = counting.begin(last, run=f"r{number}", at=stamp(now))
        last = counting.end(last, a_result(run=f"r{number}", at=now))
    assert last is not None
    assert last.attempts == failures
    seconds = min(policy.backoff_seconds * 2 ** (failures - 1), max(DAY, policy.backoff_seconds))
    bar = counting.bar(last, run="next", now=now + timedelta(seconds=wait))
    if failures >= policy.attempts:
        assert bar is not None
        assert bar.verdict is Verdict.GIVEN_UP
        assert f"tried {failures} of {policy.attempts} times, last failed: does not load" in bar.why
    elif wait < seconds:
        assert bar is not None
        assert bar.verdict is Verdict.DEFERRED
        assert stamp(now + timedelta(seconds=seconds)) in bar.why
    else:
        assert bar is None


@given(policies, st.integers(0, 200), st.sampled_from(tuple(Verdict)))
def test_another_wanted_state_and_a_human_are_never_refused(
    policy: Remediate, attempts: int, verdict: Verdict
) -> None:
    last = a_result(verdict, attempts=attempts, not_before=stamp(START + timedelta(days=1)))
    for counting in (
        Counting(digest="d2", policy=policy, afresh=False),
        Counting(digest="d1", policy=policy, afresh=True),
    ):
        assert counting.bar(last, run="r2", now=START) is None
        assert counting.begin(last, run="r2", at=stamp(START)).attempts == 1
    assert Counting(digest="d1", policy=policy, afresh=False).bar(None, run="r2", now=START) is None


@pytest.mark.parametrize("verdict", sorted(PERMANENT))
def test_what_cannot_help_is_not_repeated_at_all(verdict: Verdict) -> None:
    counting = Counting(digest="d1", afresh=False)
    last = counting.note(None, a_result(verdict))
    assert last is not None
    assert last.attempts == 0
    bar = counting.bar(last, run="r2", now=START + timedelta(days=1000))
    assert bar is not None
    assert bar.verdict is Verdict.GIVEN_UP
    assert bar.why.startswith(f"{verdict}: does not load; not again until")


def test_the_turn_that_this_run_began_goes_on_though_it_was_the_last_one_allowed() -> None:
    counting = Counting(digest="d1", policy=Remediate(attempts=1), afresh=False)
    last = counting.begin(None, run="r1", at=stamp(START))
    assert last.verdict == Verdict.UNDER_WAY
    assert counting.bar(last, run="r1", now=START) is None
    assert counting.bar(last, run="r2", now=START) is not None
    assert counting.end(last, a_result(run="r2")).attempts == 1, "whoever ends it does not count it again"


def test_a_hold_that_ends_what_had_just_begun_uses_no_try_up() -> None:
    counting = Counting(digest="d1", policy=Remediate(attempts=1), afresh=False)
    last = counting.end(counting.begin(None, run="r1", at=stamp(START)), a_result(Verdict.SKIPPED))
    assert (last.attempts, last.not_before) == (0, "")
    assert counting.bar(last, run="r2", now=START) is None


def test_what_is_known_already_is_not_written_again() -> None:
    counting = Counting(digest="d1", afresh=False)
    for verdict in (*PERMANENT, *CALM):
        last = counting.note(None, a_result(verdict))
        assert counting.note(last, a_result(verdict, run="r2", at=START + timedelta(hours=1))) is None
        assert counting.note(last, a_result(verdict, run="r2", finding="something else")) is not None
    failed = counting.note(None, a_result())
    again = counting.note(failed, a_result(run="r2"))
    assert again is not None
    assert again.attempts == 2
    assert counting.note(again, a_result(run="r2", at=START + timedelta(hours=1))) is None


def test_what_blocks_for_a_while_changes_nothing_of_the_count() -> None:
    counting = Counting(digest="d1", afresh=False)
    failed = counting.end(None, a_result())
    blocked = counting.end(failed, a_result(Verdict.BLOCKED, run="r2"))
    assert (blocked.attempts, blocked.not_before) == (1, "2026-11-25T06:00:00Z")


@pytest.mark.parametrize("date", ["", "soon", "2126-11-25T05:00:00Z", "2026-11-25T05:00:00Z"])
def test_a_date_from_a_wrong_clock_does_not_keep_a_node_waiting_for_ever(date: str) -> None:
    counting = Counting(digest="d1", afresh=False)
    last = a_result(attempts=1, not_before=date)
    assert counting.bar(last, run="r2", now=START) is None
    assert counting.bar(replace(last, attempts=3), run="r2", now=START) is not None, "the count holds"


def test_a_result_of_an_older_fleetdrv_is_a_first_failure() -> None:
    text = a_result().to_json().replace('"attempts": 0, ', "").replace('"not_before": "", ', "")
    old = Result.from_json(text.replace('"schema": 3', '"schema": 2'), "n")
    counting = Counting(digest="d1", afresh=False)
    assert counting.bar(old, run="r2", now=START) is None
    assert counting.begin(old, run="r2", at=stamp(START)).attempts == 1


def test_a_run_that_has_begun_too_often_begins_no_more() -> None:
    """Somebody strips our marks off the node, and the same run takes it out again and again."""
    counting = Counting(digest="d1", policy=Remediate(attempts=1), afresh=False)
    last = counting.begin(counting.begin(None, run="r1", at=stamp(START)), run="r1", at=stamp(START))
    assert counting.bar(last, run="r1", now=START) is not None


def test_success_a_human_and_another_wanted_state_begin_the_count_anew() -> None:
    cron, human = Counting(digest="d1", afresh=False), Counting(digest="d1")
    last = a_result(attempts=3, not_before=stamp(START))
    changed = cron.end(last, a_result(Verdict.CHANGED, run="r2"))
    assert (changed.attempts, changed.not_before) == (0, "")
    assert human.end(last, a_result(run="r2")).attempts == 1, "the human's own try"
    assert cron.end(last, a_result(run="r2", digest="d2")).attempts == 1


@pytest.mark.parametrize("verdict", [Verdict.UNREACHABLE, Verdict.GIVEN_UP, Verdict.DEFERRED, Verdict.BLOCKED])
def test_a_note_by_a_run_that_stays_open_is_no_turn_of_it(verdict: Verdict) -> None:
    counting = Counting(digest="d1", policy=Remediate(attempts=2), afresh=False)
    worn_out = a_result(run="r1", attempts=2)
    noted = counting.note(worn_out, a_result(verdict, run="r2"))  # the run waits for its window, and cron goes on

    assert noted is not None
    bar = counting.bar(noted, run="r2", now=START + timedelta(days=2))

    assert bar is not None
    assert bar.verdict is Verdict.GIVEN_UP
