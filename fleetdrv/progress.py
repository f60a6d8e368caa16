"""What a run remembers for the controller that comes after: budgets spent, canaries, their soaks. Pure.

Each function takes the run record and returns it as it is to be saved; nothing to note, and it is the same.

A soak has to outlive its controller, so its end is wall-clock time. That of another laptop may be wrong: never
more than the whole soak is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from math import ceil

from fleetdrv.model import NodeFacts
from fleetdrv.policy import Rollout
from fleetdrv.records import Result, RunRecord
from fleetdrv.rollout import Progress
from fleetdrv.turn import Owed, Verdict

_ISO = "%Y-%m-%dT%H:%M:%SZ"


def progress(record: RunRecord, policy: Rollout) -> Progress:
    """Return what the rollout's decisions depend on."""
    return Progress(
        canary_passed=len(record.canary_passed) >= policy.canary,
        passed=record.canary_passed,
        failures=len(record.failed),
        unreachable=len(record.unreachable),
        outage_seconds=record.outage_seconds,
    )


def failed(record: RunRecord, *nodes: str) -> RunRecord:
    """Note failures, each node's once; its soak, if it was in one, is over."""
    return reduce(_soaked, nodes, replace(record, failed=tuple(dict.fromkeys((*record.failed, *nodes)))))


def unreachable(record: RunRecord, *nodes: str) -> RunRecord:
    """Note nodes that were not reached, each once."""
    return replace(record, unreachable=tuple(dict.fromkeys((*record.unreachable, *nodes))))


def measured(record: RunRecord, policy: Rollout, seconds: float | None) -> RunRecord:
    """Note how long an outage took, where a maintenance window asks for it and none took longer."""
    if seconds is None or not policy.windows or seconds <= record.outage_seconds:
        return record
    return replace(record, outage_seconds=ceil(seconds))


def is_canary(record: RunRecord, policy: Rollout, node: str) -> bool:
    """Whether a node that this run changed is looked at again before others start."""
    return node in record.soaking or len(record.canary_passed) < policy.canary


def was_changed(record: RunRecord, came: Owed, last: Result | None) -> bool:
    """Whether a node that owes nothing came through in this run before this controller looked.

    The result on the Node tells it, in the same write as the uncordon: a controller that was killed right after
    that had no time to note a canary's soak.
    """
    changed = last is not None and (last.run, last.verdict) == (record.id, Verdict.CHANGED)
    return changed and came.verdict is Verdict.CONVERGED


def soak(record: RunRecord, policy: Rollout, node: str, now: datetime, facts: NodeFacts | None) -> RunRecord:
    """Note that a canary serves since `now`, and how far its kernel's log had come; a soak under way stays."""
    if node in record.soaking:
        return record
    until = (now.astimezone(UTC) + timedelta(seconds=policy.soak_seconds)).strftime(_ISO)
    marks = {**record.kernel_marks, node: kernel_mark(facts)} if facts else record.kernel_marks
    return _timed(replace(record, kernel_marks=marks), {**record.soaking, node: until})


def remaining_seconds(record: RunRecord, policy: Rollout, node: str, now: datetime) -> float:
    """Return how long a node's soak still takes."""
    try:
        until = datetime.strptime(record.soaking[node], _ISO).replace(tzinfo=UTC)
    except ValueError:
        return policy.soak_seconds
    return min(max((until - now).total_seconds(), 0.0), policy.soak_seconds)


def passed(record: RunRecord, node: str) -> RunRecord:
    """Note a canary that came through."""
    return _soaked(replace(record, canary_passed=(*record.canary_passed, node)), node)


def _soaked(record: RunRecord, node: str) -> RunRecord:
    if node not in record.soaking:
        return record
    marks = {n: mark for n, mark in record.kernel_marks.items() if n != node}
    soaking = {n: until for n, until in record.soaking.items() if n != node}
    return _timed(replace(record, kernel_marks=marks), soaking)


def _timed(record: RunRecord, soaking: Mapping[str, str]) -> RunRecord:
    return replace(record, soaking=soaking, not_before=max(soaking.values(), default=""))


def kernel_mark(facts: NodeFacts) -> str:
    """Return where the kernel's log stands: its boot, and the stamp of the newest fault in it."""
    return f"{facts.boot_id} {max((fault.stamp for fault in facts.faults), default=0.0):.6f}"


def disturbed(mark: str, facts: NodeFacts) -> str:
    """Say what befell the kernel since the mark; nothing, and it is empty.

    A kernel that was booted anew has no log of what ended the one before, so a boot in the soak is no pass, even
    where a person wanted it. The log is a ring: what is counted must carry its time, not its place in a list.
    """
    boot, _, stamp = mark.partition(" ")
    if not stamp:
        return ""
    if boot != facts.boot_id:
        return "was booted anew"
    new = [fault.text for fault in facts.faults if fault.stamp > float(stamp)]
    more = f" (and {len(new) - 1} more)" if len(new) > 1 else ""
    return f"kernel: {new[0]}{more}" if new else ""
