"""What `remediate --quiet` tells of, by what the Node said before: each change once."""

from __future__ import annotations

import pytest

from fleetdrv.ending import Ending
from fleetdrv.news import is_old
from fleetdrv.turn import Verdict
from tests.core.test_attempts import a_result

TRIED = (Verdict.FAILED, Verdict.ROLLED_BACK, Verdict.LEFT_OUT, Verdict.LOST)
FOUND = (Verdict.BLOCKED, Verdict.INCOMPATIBLE, Verdict.NOT_MENDABLE)


def an_ending(verdict: Verdict, why: str = "does not load") -> Ending:
    return Ending(node="n1", verdict=verdict, why=why)


@pytest.mark.parametrize("verdict", TRIED)
def test_a_failure_is_always_news(verdict: Verdict) -> None:
    for last in (None, a_result(verdict), a_result(Verdict.CHANGED)):
        assert not is_old(an_ending(verdict), last, "d1")


@pytest.mark.parametrize("verdict", FOUND)
def test_what_is_found_is_news_until_it_stands_on_the_node(verdict: Verdict) -> None:
    assert not is_old(an_ending(verdict), None, "d1")
    assert is_old(an_ending(verdict), a_result(verdict), "d1")
    assert not is_old(an_ending(verdict, "something else"), a_result(verdict), "d1")
    assert not is_old(an_ending(verdict), a_result(verdict), "d2"), "another wanted state"
    assert is_old(an_ending(verdict, "x" * 600), a_result(verdict, finding="x" * 500), "d1")


def test_a_node_that_stays_away_is_told_of_once_whatever_the_network_says() -> None:
    away = a_result(Verdict.UNREACHABLE, finding="connect: timed out")
    assert is_old(an_ending(Verdict.UNREACHABLE, "connect: refused"), away, "d1")
    assert not is_old(an_ending(Verdict.UNREACHABLE), a_result(Verdict.CONVERGED), "d1")
    assert is_old(an_ending(Verdict.UNREACHABLE), a_result(Verdict.INCOMPATIBLE), "d1")


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.REFUSED])
def test_a_node_that_cannot_be_looked_at_is_told_of_once_for_each_reason(verdict: Verdict) -> None:
    """No try was made that backs off, so it would be in each of cron's mails."""
    ending = an_ending(verdict, "probe: sudo asks for a password")
    told = a_result(Verdict.UNREACHABLE, finding="probe: sudo asks for a password")
    assert is_old(ending, told, "d1", unseen=True)
    assert is_old(ending, a_result(Verdict.INCOMPATIBLE), "d1", unseen=True)
    for last in (None, a_result(Verdict.CONVERGED), a_result(Verdict.UNREACHABLE, finding="connect: refused")):
        assert not is_old(ending, last, "d1", unseen=True)
    assert not is_old(ending, told, "d2", unseen=True)
    assert not is_old(an_ending(Verdict.FAILED, told.finding), told, "d1"), "a try that failed"


@pytest.mark.parametrize(
    "verdict", [Verdict.CONVERGED, Verdict.CHANGED, Verdict.SKIPPED, Verdict.DEFERRED, Verdict.GIVEN_UP]
)
def test_what_is_well_or_was_told_when_it_failed_is_no_news(verdict: Verdict) -> None:
    assert is_old(an_ending(verdict), None, "d1")
