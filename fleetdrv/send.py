"""The jobs of one node's turn: each goes out under the pool's token, and its end and log are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from fleetdrv.errors import FleetdrvError, Stopped, Transient
from fleetdrv.events import Level
from fleetdrv.follow import Follower, JobEnd, Line, Lines
from fleetdrv.jobs import Order, bundle
from fleetdrv.phases import Phase
from fleetdrv.plan import Step
from fleetdrv.records import RunRecord

STAGE_SECONDS = 3600.0
OUTAGE_SECONDS = 1800.0
_EVIDENCE_SECONDS = 60.0
_STALE_TOKEN = 77
MAX_LOCKED = 4
"""So often the node's lock is waited for (run.sh's half a minute each) before the turn ends."""


class Warrant(Protocol):
    """The right to change nodes: run id and fencing token of the pool's Lease."""

    @property
    def run(self) -> str:
        """Id of the run."""
        ...

    @property
    def token(self) -> int:
        """The fencing token that every job carries."""
        ...

    def check(self) -> None:
        """Raise Stopped when the Lease is lost, or could not be renewed for two thirds of its time."""
        ...


class Lock(Warrant, Protocol):
    """The pool's Lease, or what stands for it without a cluster."""

    @property
    def record(self) -> RunRecord:
        """The run's record, as last saved."""
        ...

    def save(self, record: RunRecord) -> None:
        """Write the run record, as a compare-and-swap on the Lease. Raises Stopped when it is lost."""
        ...

    def orders(self) -> str:
        """Return why no more nodes may start (paused, aborted), or nothing."""
        ...


Tell = Callable[[str, str, Level], None]
"""Takes phase, text and level."""


@dataclass(slots=True, kw_only=True)
class Sender:
    """Sends jobs to one node and follows them."""

    line: Line
    pool: str
    now: Callable[[], float]
    tell: Tell
    _locked: int = 0
    ends: dict[str, JobEnd] = field(default_factory=dict)

    def send(
        self,
        job: str,
        steps: tuple[Step, ...],
        warrant: Warrant,
        payload: Mapping[str, bytes],
        given: Mapping[str, bytes] | None = None,
    ) -> JobEnd:
        """Send a job and follow it to its end. Raises Stopped where the node has seen a newer token.

        A job that found the node's lock taken may be sent again; Transient names the holder when that was in vain.
        """
        work = bundle(job, steps, Order(pool=self.pool, run=warrant.run, token=warrant.token), payload, given)
        grade = _grade(job)
        seconds = OUTAGE_SECONDS if grade == "outage" else STAGE_SECONDS
        end = self.ends[job] = self._follower(seconds).execute(work, grade)
        if end.exit_code == _STALE_TOKEN and end.failed_step == "token":
            raise Stopped(f"{self.line.node}: {job}: refused by the node: {end.tail(1)}")
        self._locked = self._locked + 1 if end.failed_step == "lock" else 0
        if self._locked >= MAX_LOCKED:
            remedy = "see what it does, on the node: fuser -v /var/lib/fleetdrv/lock; then the same command again"
            raise Transient(self.line.node, "lock", f"{end.tail(1)}, for too long", remedy=remedy)
        return end

    def follow(self, job: str) -> None:
        """Follow a job that somebody sent before us."""
        self.ends[job] = self._follower(OUTAGE_SECONDS).attach(job, _grade(job))

    def fetch(self, job: str) -> None:
        """Get the log of a failure that an earlier controller saw, if the node still has it and answers."""
        if job and job not in self.ends:
            quiet = Follower(
                line=self.line, now=self.now, on_log=lambda _: None, deadline_seconds=_EVIDENCE_SECONDS
            )
            with suppress(FleetdrvError):  # what was done is done, and is told without it
                self.ends[job] = quiet.attach(job, _grade(job))

    def evidence(self, job: str) -> str:
        """Return the last lines of a job's log, as far as they are here."""
        end = self.ends.get(job)
        return end.tail() if end else ""

    def _follower(self, seconds: float) -> Follower:
        shown = Lines(lambda line: self.tell("job", line, _level(line)))
        return Follower(line=self.line, now=self.now, on_log=shown.feed, deadline_seconds=seconds)


def _grade(job: str) -> str:
    """Stage gives way to pods; once the node is out, the job is what it is out for."""
    return "background" if f".{Phase.STAGE}." in job else "outage"


def _level(line: str) -> Level:
    """Steps are told, and what a step waits for; the rest is for the journal."""
    return Level.PROGRESS if line.startswith(("== ", "waiting for ")) else Level.DETAIL
