"""May this node be tried now? How often one wanted state was tried on a node, counted on the Node itself. Pure.

A try is counted where it begins, in the PATCH that takes the node out of service: a controller that is killed
anywhere after that has used it up. A failure before any cordon (a build that does not compile) is counted where
it is recorded. What ends a try, in whichever run, does not count it again.

Counted is per digest of the wanted state, for `fleetdrv remediate` alone: a human who types `apply` tries
whatever the count says, and the count begins anew with that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from fleetdrv import causes
from fleetdrv.finding import Retry
from fleetdrv.playbook import Remediate
from fleetdrv.records import Result, moment
from fleetdrv.turn import Bar, Verdict

PERMANENT = frozenset({Verdict.INCOMPATIBLE, Verdict.NOT_MENDABLE})
"""No other try of the same wanted state helps."""

_GOOD = frozenset({Verdict.CHANGED, Verdict.CONVERGED})
_NO_TRY = frozenset(
    {Verdict.SKIPPED, Verdict.BLOCKED, Verdict.UNREACHABLE, Verdict.DEFERRED, Verdict.GIVEN_UP} | PERMANENT
)
"""Verdicts that say nothing of whether the change itself works."""

_LONGEST_SECONDS = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """How tries of one wanted state are counted."""

    digest: str = ""
    policy: Remediate = field(default_factory=Remediate)
    afresh: bool = True
    """A human asked for it."""

    def bar(self, last: Result | None, *, run: str, now: datetime) -> Bar | None:
        """Say why a node must not be tried now, by how its last turn ended; None: it may.

        The turn that `run` itself has begun goes on; what it only noted in passing (unreachable) is no turn.
        """
        finding = causes.finding_in(last.finding) if last is not None else None
        if last is not None and finding is not None and finding.quarantine:
            return Bar(verdict=Verdict.GIVEN_UP, why=f"{last.verdict}: {last.finding}; {_UNTIL_MENDED}")
        if self.afresh or last is None or last.digest != self.digest:
            return None
        if last.run == run and last.verdict not in _NO_TRY and last.attempts <= self.policy.attempts:
            return None
        said = f"{last.verdict}: {last.finding}" if last.finding else last.verdict
        if last.verdict in PERMANENT or (finding is not None and finding.retry is Retry.NO):
            return Bar(verdict=Verdict.GIVEN_UP, why=f"{said}; {_UNTIL}")
        tried = f"tried {last.attempts} of {self.policy.attempts} times, last {said}"
        if last.attempts >= self.policy.attempts:
            return Bar(verdict=Verdict.GIVEN_UP, why=f"{tried}; {_UNTIL}")
        if self._too_early(last, now):
            return Bar(verdict=Verdict.DEFERRED, why=f"{tried}; not again before {last.not_before}")
        return None

    def _too_early(self, last: Result, now: datetime) -> bool:
        """A date that this policy would not set is not believed: a clock was wrong, or the backoff longer."""
        due = moment(last.not_before)
        longest = timedelta(seconds=self._backoff_seconds(last.attempts))
        return due is not None and now < due <= now + longest

    def _backoff_seconds(self, attempts: int) -> int:
        """Doubled with each failure, up to a day (or the playbook's own seconds, where they are more)."""
        seconds = self.policy.backoff_seconds
        doubled = seconds << min(max(attempts - 1, 0), 30)
        return min(doubled, max(seconds, _LONGEST_SECONDS))

    def begin(self, last: Result | None, *, run: str, at: str) -> Result:
        """Return the record of a try that is about to begin; should nobody live to end it, it has failed."""
        before = 0 if self.afresh or last is None or last.digest != self.digest else last.attempts
        begun = Result(run=run, digest=self.digest, verdict=Verdict.UNDER_WAY, finding="", at=at)
        return self._failed(begun, before + 1)

    def end(self, last: Result | None, result: Result) -> Result:
        """Return how a turn ended with the count that follows from what the Node said before."""
        same = last is not None and last.digest == result.digest
        before = last.attempts if same and last is not None else 0
        under_way = same and last is not None and last.verdict == Verdict.UNDER_WAY
        counted = under_way or (same and last is not None and last.run == result.run and before > 0)
        if result.verdict in _GOOD:
            return replace(result, attempts=0, not_before="")
        if result.verdict in _NO_TRY:  # a hold, say, ended what had only just begun
            count = max(0, before - 1) if under_way else before
            kept = last.not_before if same and last is not None and not under_way else ""
            return replace(result, attempts=count, not_before=kept)
        return self._failed(result, 1 if self.afresh else before if counted else before + 1)

    def note(self, last: Result | None, result: Result) -> Result | None:
        """Return what to write of a turn without an outage; None where the Node says so already.

        What is found without trying is written when it is new, not by each run anew.
        """
        ended = self.end(last, result)
        if last is None:
            return ended
        same = replace(ended, at=last.at, not_before=last.not_before)
        same = replace(same, run=last.run) if result.verdict in _NO_TRY else same
        return None if same == last else ended

    def _failed(self, result: Result, attempts: int) -> Result:
        at = moment(result.at)
        wait = timedelta(seconds=self._backoff_seconds(attempts))
        due = "" if at is None else (at + wait).strftime("%Y-%m-%dT%H:%M:%SZ")
        return replace(result, attempts=attempts, not_before=due)


_UNTIL = "not again until the playbook changes, or somebody types: fleetdrv apply"

_UNTIL_MENDED = (
    "no driver is installed on it until somebody says that the hardware is mended: "
    "kubectl annotate node NODE fleetdrv.io/last-result-"
)
