"""The jobs of one run on one node: how they are named, which counts, which comes next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from fleetdrv.model import Job, JobState

MAX_INTERRUPTED = 3
"""So often a job of one phase may be cut off (power cut, reboot, killed) before the node counts as failed."""


class Phase(StrEnum):
    """Kinds of jobs."""

    REMEDY = "remedy"
    """What `fleetdrv repair` mends before it can plan."""
    STAGE = "stage"
    OUTAGE = "outage"
    ROLLBACK = "rollback"
    KEEP = "keep"


class Turn(Protocol):
    """A run, and all jobs that are on a node."""

    @property
    def run(self) -> str:
        """Id of the run."""
        ...

    @property
    def jobs(self) -> Sequence[Job]:
        """Those of other runs, too."""
        ...


def job_id(run: str, phase: Phase, number: int) -> str:
    """Name a job.

    >>> job_id("r1", Phase.STAGE, 2)
    'r1.stage.2'
    """
    return f"{run}.{phase}.{number}"


def _of_phase(seen: Turn, phase: Phase) -> list[Job]:
    return [job for job in seen.jobs if job.id.startswith(f"{seen.run}.{phase}.")]


def number_of(job: Job) -> int:
    """Return the last part of its name."""
    return int(job.id.rpartition(".")[2])


def last_job(seen: Turn, phase: Phase) -> Job | None:
    """The phase's last job that ran, or may yet run."""
    return max(filter(_ran, _of_phase(seen, phase)), key=number_of, default=None)


def next_job(seen: Turn, phase: Phase) -> str:
    """A job that was claimed but never started is taken up under its own name; any other is over."""
    last = max(_of_phase(seen, phase), key=number_of, default=None)
    if last is None:
        return job_id(seen.run, phase, 1)
    return last.id if last.state is JobState.CLAIMED else job_id(seen.run, phase, number_of(last) + 1)


_NEVER_RAN = ("lock", "token", "meta", "superseded")
"""What run.sh and launch.sh name as the failed step of a job that ended before its first one."""


def _ran(job: Job) -> bool:
    return not (job.state is JobState.DONE and job.failed_step in _NEVER_RAN)


def nothing_before(seen: Turn, job: Job, began: str) -> bool:
    """Tell whether nothing was done to the node before this job, if the job `began` was to be the first to do so.

    A job of an earlier run, or one of this run that was cut off, may have left the node half-way; one that ended
    before its first step has not.
    """
    mark, _, number = began.rpartition(".")
    if mark != job.id.rpartition(".")[0] or not number.isdigit():
        return False
    of_mark = [other for other in seen.jobs if other.id.rpartition(".")[0] == mark]
    return [other for other in of_mark if number_of(other) >= int(number) and _ran(other)] == [job]


def gave_up(seen: Turn, phase: Phase) -> str:
    """Say why the phase is not tried again in this run: its job failed, or never lives to its end."""
    last = last_job(seen, phase)
    if last is not None and last.state is JobState.DONE and last.exit_code != 0:
        return f"{last.failed_step or phase}: exit {last.exit_code} (job {last.id})"
    interrupted = [job for job in _of_phase(seen, phase) if job.state is JobState.INTERRUPTED]
    if len(interrupted) >= MAX_INTERRUPTED:
        return f"{phase}: interrupted {len(interrupted)} times (job {interrupted[-1].id})"
    return ""
