"""Why a pool or a node does not move, by whom, and what to type: read from the cluster's objects alone. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from fleetdrv import lease as leases
from fleetdrv import names, ownership
from fleetdrv.errors import FleetdrvError
from fleetdrv.ownership import Kind, Object
from fleetdrv.records import Course, Result, RunRecord, moment

_APPLY = "the same apply command again"
_REPAIR = "fleetdrv repair NODE --playbook PLAYBOOK -i INVENTORY"
_SHOWN = 3
SERVES = "in service again"


def driver(lease: Object, now: datetime, *, alive: bool | None) -> str:
    """Say who drives a pool, or that nobody does any more; `alive`: of the holder, None where nobody can know.

    The holder's clock is held against this machine's, which decides nothing: who takes the pool over waits.
    """
    if not leases.holder_identity(lease):
        return "nobody drives it"
    who = leases.holder_name(lease)
    if alive is False:
        return f"nobody drives it: {who}, who did, is dead"
    spec = lease.get("spec") or {}
    renewed, lasts = moment(str(spec.get("renewTime") or "")), int(spec.get("leaseDurationSeconds") or 0)
    if renewed is not None and alive is None and (now - renewed).total_seconds() > lasts:
        return f"nobody drives it: {who} has not renewed the lock since {spec['renewTime']}"
    return f"driven by {who}"


def blocking(lease: Object) -> tuple[str, ...]:
    """Name the nodes by which the pool's last run came to a stand: failed, not reached, or out of service."""
    record, course = leases.run_record(lease), leases.course(lease)
    if record is None or not record.reason:
        return ()
    if "max_failures" in record.reason:
        return record.failed
    if "max_unreachable" in record.reason:
        return record.unreachable
    return course.out if course is not None and course.run == record.id and "a slot" in record.reason else ()


def rule(record: RunRecord) -> str:
    """Say in a word or two which rule of the playbook holds the pool."""
    for word in ("max_failures", "max_unreachable", "maintenance window"):
        if word in record.reason:
            return word
    return "max_unavailable" if "a slot" in record.reason else ""


def stands(node: Object | None) -> str:
    """Say how a node that blocks stands by now; None: the cluster has it no more."""
    if node is None:
        return "gone from the cluster since"
    try:
        owner = ownership.state(node)
    except FleetdrvError as error:
        return str(error)
    if owner.kind is Kind.OURS:
        return "out of service by fleetdrv, see below"
    if owner.kind is not Kind.FREE:
        return owner.reason
    if not ownership.ready(node):
        return f"not Ready: {_not_ready(node)}"
    return "; ".join(filter(None, (SERVES, _last(node))))


def _not_ready(node: Object) -> str:
    conditions = (node.get("status") or {}).get("conditions") or ()
    told: Mapping[str, str] = next((c for c in conditions if c.get("type") == "Ready"), {})
    since = f" since {told['lastTransitionTime']}" if told.get("lastTransitionTime") else ""
    return f"{told.get('message') or told.get('reason') or 'no reason given'}{since}"


def _last(node: Object) -> str:
    text = (node.get("metadata", {}).get("annotations") or {}).get(names.LAST_RESULT)
    try:
        last = Result.from_json(text, names.LAST_RESULT) if text else None
    except FleetdrvError:
        return ""
    return f"its last turn: {last.verdict}: {last.finding}" if last and last.finding else ""


def pool_next(lease: Object, *, driven: bool, out: bool) -> str:
    """Return what to type for a pool; empty where its controller is at it, or nothing is owed.

    `out`: some node of it is out by our hand.
    """
    orders, record, course = leases.orders(lease), leases.run_record(lease), leases.course(lease)
    again = course.command if course else _APPLY
    if orders.paused:
        pool = str(lease["metadata"]["name"]).removeprefix(names.LEASE_PREFIX)
        return f"fleetdrv resume {pool}" + ("" if driven else f"; then: {again}")
    if driven or record is None or not (out or record.reason or not record.finished):
        return ""
    return again


def node_next(name: str, node: Object, course: Course | None, *, driven: bool) -> str:
    """Return what to type for a node that is out by our hand; empty where its controller is at it."""
    owner = ownership.state(node)
    if owner.held is not None:
        return f"fleetdrv release {name}"
    if driven:
        return ""
    repair = (course.repair if course and course.repair else _REPAIR).replace(" NODE ", f" {name} ")
    failed = owner.record is not None and owner.record.failed
    if owner.kind is Kind.OURS and (failed or course is None):
        return repair
    return f"{course.command if course else _APPLY}; or this node alone: {repair}"


def waits_for(node: Object, pods: Sequence[Object], titles: Collection[str]) -> str:
    """Say what a node in hand waits for, as far as the cluster shows it.

    `pods`: those on the node that are on their way out; `titles`: how they are called.
    """
    record = ownership.state(node).record
    if record is None:
        return ""
    if record.failed:
        return "somebody to mend it"
    if not record.touched:
        return f"{_listed(titles)} to end" if pods else "its drain"
    taints = (node.get("spec") or {}).get("taints") or ()
    if ownership.maintenance_taint(record.run) not in taints:
        missing = [*_missing(node, record.allocatable), *record.daemon_sets]
        return f"{_listed(missing)} to be back" if missing else "its uncordon"
    if record.step.endswith(".") or "." not in record.step:
        return record.step
    return f"its job {record.step}"


def _missing(node: Object, wanted: Mapping[str, str]) -> list[str]:
    found = ownership.devices(node)
    return [f"{key} ({found.get(key, '0')} of {many})" for key, many in wanted.items() if found.get(key) != many]


def _listed(words: Iterable[str]) -> str:
    every = list(words)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
