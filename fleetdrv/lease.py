"""The pool's Lease as a document: who holds it, who may take it, what is written. Pure.

The Lease is a lock between laptops. Its fencing token is `leaseTransitions`: it grows with every change of
holder and never falls, and each node refuses a job whose token is lower than the highest it has seen. So a
controller that lost the lock without noticing cannot do harm, whatever its clock says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from fleetdrv import names
from fleetdrv.errors import Refused
from fleetdrv.ownership import Object
from fleetdrv.records import Course, Order, RunRecord, moment

_HOLDER = re.compile(
    r"(?P<user>.*)@(?P<host>\S*) boot=(?P<boot>\S*) pidns=(?P<pid_namespace>\d+) "
    r"pid=(?P<pid>\d+) start=(?P<started>\d+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One process on one machine, exactly: a pid alone may belong to somebody else tomorrow."""

    user: str
    host: str
    boot: str
    """Boot id of its kernel; empty where there is none to read."""
    pid_namespace: int
    """Inode of its pid namespace: the same pid in another container is another process."""
    pid: int
    started: int
    """Field 22 of /proc/PID/stat: clock ticks after boot."""

    @property
    def identity(self) -> str:
        """What stands in `holderIdentity`."""
        return (
            f"{self.user}@{self.host} boot={self.boot} pidns={self.pid_namespace} "
            f"pid={self.pid} start={self.started}"
        )

    def __str__(self) -> str:
        """Name it for people."""
        return f"{self.user}@{self.host} (pid {self.pid})"

    @classmethod
    def parse(cls, identity: str) -> Self | None:
        """Read a `holderIdentity`; None where it is not of our making."""
        match = _HOLDER.fullmatch(identity)
        if match is None:
            return None
        said = match.groupdict()
        return cls(
            user=said["user"],
            host=said["host"],
            boot=said["boot"],
            pid=int(said["pid"]),
            pid_namespace=int(said["pid_namespace"]),
            started=int(said["started"]),
        )


class Claim(StrEnum):
    """May the Lease be taken, and why?"""

    FREE = "free"
    OURS = "ours"
    DEAD = "its holder is dead"
    EXPIRED = "expired"
    DELETED = "somebody deleted it"
    """Nodes have seen its tokens: whoever held it may not know yet that it is gone."""
    TAKEN = "taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What people asked of the run, from any laptop."""

    paused: Order | None = None
    aborted: Order | None = None


def takeover(
    lease: Object | None,
    holder: Holder,
    *,
    alive: bool | None,
    unchanged_seconds: float,
    duration_seconds: int,
    floor_token: int = 0,
) -> Claim:
    """Decide whether `holder` may take the Lease.

    `alive`: whether the present holder runs, None where this machine cannot know. `unchanged_seconds`: how
    long the observer, by its own monotonic clock, has seen no renewal; no clock of another machine is read.
    `duration_seconds` is for a Lease that does not say its own, `floor_token` the highest that any node has seen.
    """
    if lease is None and floor_token:
        return Claim.DELETED
    identity = holder_identity(lease)
    if not identity:
        return Claim.FREE
    if identity == holder.identity:
        return Claim.OURS
    if alive is False:
        return Claim.DEAD
    patience = _spec(lease).get("leaseDurationSeconds") or duration_seconds
    return Claim.EXPIRED if unchanged_seconds >= patience else Claim.TAKEN


def holder_identity(lease: Object | None) -> str:
    """Return who holds it; empty when nobody does."""
    return str(_spec(lease).get("holderIdentity") or "")


def holder_name(lease: Object | None) -> str:
    """Name the holder for people."""
    identity = holder_identity(lease)
    return str(Holder.parse(identity) or identity or "nobody")


def lost_to(lease: Object | None) -> str:
    """Say how a Lease was lost that is not ours any more."""
    if lease is None:
        return "the lock was lost: somebody deleted its Lease"
    who = holder_name(lease) if holder_identity(lease) else "a controller that has ended"
    return f"the lock was lost to {who}"


def silent(lease: Object | None, now: datetime) -> bool:
    """Whether a renewal is overdue by `now`, a clock of the machine that wrote the last one: its holder hangs."""
    said = _spec(lease)
    renewed_at = moment(str(said.get("renewTime") or ""))
    lasts = timedelta(seconds=said.get("leaseDurationSeconds") or 0)
    return renewed_at is not None and now - renewed_at > lasts


def token(lease: Object | None) -> int:
    """Return the fencing token."""
    return int(_spec(lease).get("leaseTransitions") or 0)


def heartbeat(lease: Object | None) -> tuple[Any, ...]:
    """Return what every renewal changes; a pause set by somebody else does not."""
    spec = _spec(lease)
    keys = ("holderIdentity", "leaseTransitions", "acquireTime", "renewTime")
    return tuple(spec.get(key) for key in keys)


def unheld(pool: str) -> dict[str, Any]:
    """Return the Lease of a pool that nobody has driven yet."""
    metadata = {"name": names.lease_name(pool), "namespace": names.LEASE_NAMESPACE}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a holder writes beside its name."""

    duration_seconds: int
    now: datetime


def taken(lease: Object, holder: Holder, claim: Claim, floor_token: int, stamp: Stamp) -> dict[str, Any]:
    """Return the Lease as `holder` takes it.

    A change of holder makes a token above both the Lease's and `floor_token`, the highest that any node has
    seen: a Lease that was deleted and made anew must not count from zero. A holder who may wake again is to be
    fenced off (fence.py), and until that is done the Lease says so.
    """
    spec: dict[str, Any] = {"leaseDurationSeconds": stamp.duration_seconds, "renewTime": _time(stamp.now)}
    if claim is not Claim.OURS or token(lease) < floor_token:
        spec["holderIdentity"] = holder.identity
        spec["acquireTime"] = _time(stamp.now)
        spec["leaseTransitions"] = max(token(lease), floor_token) + 1
    owed = {names.UNFENCED: "true"} if claim in (Claim.EXPIRED, Claim.DELETED) else {}
    return {**annotated(lease, owed), "spec": {**_spec(lease), **spec}}


def renewed(lease: Object, now: datetime, annotations: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the Lease with a new renewTime, and annotations set."""
    return {**annotated(lease, annotations), "spec": {**_spec(lease), "renewTime": _time(now)}}


def released(lease: Object, now: datetime) -> dict[str, Any]:
    """Return the Lease without a holder (absent: newer APIs refuse an empty text); token and record stay."""
    spec = {key: value for key, value in _spec(lease).items() if key != "holderIdentity"}
    return {**lease, "spec": {**spec, "renewTime": _time(now)}}


def annotated(lease: Object, annotations: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the Lease with annotations set, or removed where None."""
    metadata = lease.get("metadata", {})
    wanted = {**(metadata.get("annotations") or {}), **annotations}
    kept = {key: value for key, value in wanted.items() if value is not None}
    return {**lease, "metadata": {**metadata, "annotations": kept}}


def run_record(lease: Object | None) -> RunRecord | None:
    """Return the pool's run record; raises Refused for one of a newer schema."""
    text = annotation(lease, names.RUN_RECORD)
    return None if text is None else RunRecord.from_json(text, _where(lease, names.RUN_RECORD))


def course(lease: Object | None) -> Course | None:
    """Return how the last run is gone on with; None where nothing says so that can be read."""
    text = annotation(lease, names.COURSE)
    try:
        return None if text is None else Course.from_json(text, _where(lease, names.COURSE))
    except Refused:  # for people only: no reason to refuse anything
        return None


def orders(lease: Object | None) -> Orders:
    """Return what people asked: a pause, and an abort if it means the run that is recorded."""
    paused, aborted = _order(lease, names.PAUSED), _order(lease, names.ABORT)
    record = run_record(lease)
    if aborted and (record is None or aborted.run != record.id):
        aborted = None
    return Orders(paused=paused, aborted=aborted)


def _order(lease: Object | None, key: str) -> Order | None:
    text = annotation(lease, key)
    return None if text is None else Order.from_json(text, _where(lease, key))


def annotation(lease: Object | None, key: str) -> str | None:
    """Return an annotation's text."""
    annotations = ((lease or {}).get("metadata", {}).get("annotations")) or {}
    text: str | None = annotations.get(key)
    return text


def _where(lease: Object | None, key: str) -> str:
    return f"lease {(lease or {}).get('metadata', {}).get('name', '')}: {key}"


def _spec(lease: Object | None) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = (lease or {}).get("spec") or {}
    return spec


def _time(now: datetime) -> str:
    """Write a MicroTime."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
