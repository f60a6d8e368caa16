"""The JSON that fleetdrv leaves on cluster objects, so that any laptop can look, take over or finish.

Every record carries its schema. A newer one is refused, and so is anything damaged or unknown: a field
that is added is a new schema, because an older fleetdrv must not guess what it may ignore.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Self

from fleetdrv import names
from fleetdrv.errors import NodeRefused, Refused


class _Record:
    """A frozen dataclass that is the value of an annotation."""

    __slots__ = ()

    def to_json(self) -> str:
        """Write the annotation's value."""
        return json.dumps(asdict(self), sort_keys=True)  # type: ignore[call-overload]  # each child is a dataclass

    @classmethod
    def from_json(cls, text: str, where: str) -> Self:
        """Read the annotation's value; `where` names object and annotation.

        Raises Refused for a newer schema, NodeRefused for what is damaged: that says nothing of other objects.
        """
        try:
            values = json.loads(text)
            schema = int(values["schema"])
        except (ValueError, KeyError, TypeError) as error:
            raise NodeRefused(f"{where}: not a record of fleetdrv: {text[:80]!r}") from error
        if schema > names.SCHEMA:
            raise Refused(
                f"{where}: written by a newer fleetdrv (schema {schema}, this one knows "
                f"{names.SCHEMA}); upgrade fleetdrv on this machine"
            )
        return cls(**{**_checked(cls, values, where), "schema": names.SCHEMA})  # once written again, it is ours


def _checked(cls: type[Any], values: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the values as the dataclass wants them, or refuse: unknown, missing or of another type."""
    known = {f.name: f for f in fields(cls)}
    must = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    wrong = [f"unknown {n}" for n in sorted(set(values) - set(known))]
    wrong += [f"no {n}" for n in sorted(must - set(values))]
    wrong += [
        f"{n} is {value!r}"
        for n, value in values.items()
        if n in known and not isinstance(value, _JSON_TYPES[str(known[n].type).partition("[")[0]])
    ]
    if wrong:
        raise NodeRefused(f"{where}: damaged record: {', '.join(wrong)}")
    return {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}


_JSON_TYPES: dict[str, type] = {"str": str, "bool": bool, "int": int, "tuple": list, "Mapping": dict}
"""What JSON makes of the records' types, which `from __future__ import annotations` keeps as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cordon(_Record):
    """Our cordon, as it stands on the node: enough to finish or undo it."""

    run: str
    pool: str
    holder: str
    reason: str
    since: str
    """ISO 8601; the start of the outage. It survives a take-over by another run."""
    was_unschedulable: bool = False
    """The cordon was there before ours: it is not ours to lift."""
    found: Mapping[str, str | None] = field(default_factory=dict)
    """Autoscaler annotations before us; None was absent."""
    allocatable: Mapping[str, str] = field(default_factory=dict)
    """Extended resources (devices) before us, to be there again before the uncordon."""
    operands: Mapping[str, str] = field(default_factory=dict)
    """Node labels of operators before we switched their DaemonSets off."""
    operands_off: Mapping[str, str] = field(default_factory=dict)
    """The same labels as we set them: one that reads otherwise by now is somebody else's."""
    daemon_sets: tuple[str, ...] = ()
    """NAMESPACE/NAME of DaemonSets whose pods were sent off, to be back and Ready before the uncordon."""
    touched: bool = False
    """The first change was about to be made: from here only a verified node goes back."""
    step: str = ""
    began: str = ""
    """The job that was about to be sent when the node was touched first: before it, all was as it was found.
    It survives a take-over by another run."""
    failed: str = ""
    """Why the node stays out."""
    schema: int = names.SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(_Record):
    """What a run has decided and spent: kept on the pool's Lease for the controller that comes after."""

    id: str
    pool: str
    playbook: str
    digest: str
    versions: Mapping[str, str] = field(default_factory=dict)
    """Exact versions that the playbook's patterns were resolved to."""
    canary_passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    not_before: str = ""
    """ISO 8601: nobody but canaries starts earlier; the end of the last soak."""
    soaking: Mapping[str, str] = field(default_factory=dict)
    """Canary to the end of its soak, ISO 8601 in UTC."""
    kernel_marks: Mapping[str, str] = field(default_factory=dict)
    """Soaking canary to how far its kernel's log had come (`progress.kernel_mark`)."""
    outage_seconds: int = 0
    """The longest outage so far, where the policy has a maintenance window."""
    finished: bool = False
    reason: str = ""
    """Why it ended, or what it waits for."""
    schema: int = names.SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class Course(_Record):
    """How a run is gone on with, for people at another machine: no command decides anything by it."""

    run: str
    command: str
    """As it was typed, fit for a shell; files are as that machine has them."""
    repair: str = ""
    """The same for one node; the word NODE stands for it."""
    out: tuple[str, ...] = ()
    """Nodes of the pool that were out of service when the run stopped before its end."""
    schema: int = names.SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(_Record):
    """Somebody paused the pool or aborted its run."""

    who: str
    why: str
    since: str
    run: str = ""
    """The run that was aborted; a pause is for the pool."""
    schema: int = names.SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold(_Record):
    """Somebody wants a node left alone."""

    who: str
    reason: str
    since: str
    """ISO 8601."""
    schema: int = names.SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(_Record):
    """How a node's last turn ended: kept on the Node, so that cron does not repeat a permanent failure."""

    run: str
    digest: str
    """Digest of the wanted state that was tried."""
    verdict: str
    finding: str
    at: str
    """ISO 8601."""
    attempts: int = 0
    """How often this wanted state was tried on this node since it last succeeded."""
    not_before: str = ""
    """ISO 8601: `remediate` does not try it again earlier."""
    schema: int = names.SCHEMA


def moment(text: str) -> datetime | None:
    """Read a wall-clock time in ISO 8601, UTC where it names no zone; None where there is no date to be had."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)


def seconds_between(earlier: str, later: str) -> float:
    """Return the seconds between two wall-clock times in ISO 8601; 0 where clocks disagree, or one is no time.

    >>> seconds_between("2026-11-25T08:00:00Z", "2026-11-25T08:01:30Z"), seconds_between("noon", "")
    (90.0, 0.0)
    """
    try:
        return max(0.0, (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds())
    except (ValueError, TypeError):  # TypeError: one of them names no time zone
        return 0.0
