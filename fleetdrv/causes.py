"""Why a node's turn failed, by name: from the log of the job that failed, and how the node and its kernel stand.

The name stands first in the reason that the Node, its Event, metrics and recap tell: `NAME: cause; step`.
What is not known keeps its step and exit code as the reason. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from fleetdrv.finding import Finding, Found
from fleetdrv.findings import UNKNOWN, classify, named
from fleetdrv.model import NodeFacts
from fleetdrv.turn import Debt, Owed, Verdict

FAILED = frozenset({Verdict.FAILED, Verdict.ROLLED_BACK, Verdict.LEFT_OUT, Verdict.INCOMPATIBLE, Verdict.BLOCKED})
"""Verdicts that may come of a failed job."""


class JobEnd(Protocol):
    """How a job ended."""

    @property
    def exit_code(self) -> int | None:
        """None: its end was never written."""
        ...

    @property
    def log(self) -> bytes:
        """Whole."""
        ...


@dataclass(frozen=True, slots=True)
class Causes:
    """Why jobs of one node's turn failed, each judged once: as the node stood when that was asked first."""

    ends: Mapping[str, JobEnd]
    _known: dict[str, Found | None] = field(default_factory=dict)

    def of(self, job: str, facts: NodeFacts) -> Found | None:
        """Return it, if the job's end is known."""
        if job not in self._known and (end := self.ends.get(job)) is not None:
            self._known[job] = cause_of(end.log.decode("utf-8", "replace"), end.exit_code, facts)
        return self._known.get(job)


def cause_of(log: str, exit_code: int | None, facts: NodeFacts) -> Found | None:
    """Return the first cause that a job's log or the node as it stands now shows.

    An exit code of 0 proves nothing, so a job that ended well may have a cause too; but without one it is not
    unknown, there may be none.
    """
    every = classify(log, kernel=facts.kernel_log, facts=facts)
    if exit_code == 0:
        every = tuple(found for found in every if found.finding is not UNKNOWN)
    return every[0] if every else None


def with_cause(due: Owed, found: Found | None, job: str) -> Owed:
    """Put the cause of a failed job first in the reason; where the hardware is at fault, the node stays out.

    No driver is installed or brought back on a device that is not there, and none is verified by one.
    """
    if found is None or found.finding.name == UNKNOWN.name or due.why.startswith(f"{found.finding.name}: "):
        return due
    cause = found.finding.cause.rstrip(".")
    if found.finding.quarantine and due.debt in _GOES_BACK:
        why = f"{found.finding.name}: {cause}"
        return Owed(debt=Debt.LEAVE_OUT, job=job, verdict=Verdict.LEFT_OUT, why=why)
    return due if due.debt is Debt.ROLLBACK else replace(due, why=f"{found.finding.name}: {cause}; {due.why}")


_GOES_BACK = (Debt.ROLLBACK, Debt.RETURN_ROLLED_BACK)


def finding_in(reason: str) -> Finding | None:
    """Return the finding that a reason names first, if it does.

    >>> finding_in("disk-full: No space is left on /var; toy: install: exit 73").retry.value
    'after the remedy'
    >>> finding_in("toy: install: exit 73")
    """
    return named(reason.partition(": ")[0])
