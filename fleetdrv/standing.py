"""Where a node stands in its cluster, boiled down from its Node object to what a turn depends on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from fleetdrv import holds, names, ownership
from fleetdrv.ownership import Kind, Object
from fleetdrv.records import Result
from fleetdrv.turn import Grip

_GRIPS = {
    Kind.FREE: Grip.FREE,
    Kind.OURS: Grip.OURS,
    Kind.OURS_LIFTED: Grip.LOST,
    Kind.OURS_TAKEN: Grip.LOST,
    Kind.FOREIGN: Grip.FOREIGN,
    Kind.HELD: Grip.HELD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a node stands in its cluster, read just now."""

    grip: Grip
    run: str = ""
    """Run that holds it, when ours."""
    pool: str = ""
    touched: bool = False
    step: str = ""
    """The job that was about to be sent when the node was marked as touched."""
    began: str = ""
    """The same when it was marked first under this cordon, by whatever run."""
    since: str = ""
    """ISO 8601: when the cordon was set, by whatever run, when ours."""
    out: bool = False
    """Takes no new pods: cordoned by anybody, or not Ready."""
    ready: bool = True
    reason: str = ""
    held: str = ""
    """Who holds it and why."""
    last: Result | None = None
    machine_id: str = ""
    boot_id: str = ""
    uid: str = ""
    """Of the Node object: one that is registered anew has another."""


def standing_of(node: Object, pool: str) -> Standing:
    """Boil a Node object down. A node that another pool's run holds counts as somebody else's."""
    owner, identity, ready = ownership.state(node), ownership.identity(node), ownership.ready(node)
    grip, record = _GRIPS[owner.kind], owner.record
    reason = owner.reason if owner.kind is not Kind.FREE else "" if ready else "not Ready"
    if record is not None and record.pool != pool:
        grip, reason = Grip.FOREIGN, f"out for pool {record.pool}, run {record.run}"
    return Standing(
        grip=grip,
        run=record.run if record else "",
        pool=record.pool if record else "",
        touched=record is not None and record.touched,
        step=record.step if record else "",
        began=record.began if record else "",
        since=record.since if record else "",
        out=is_out(node),
        ready=ready,
        reason=reason,
        held=owner.held or "",
        last=last_result(node),
        machine_id=identity.machine_id,
        boot_id=identity.boot_id,
        uid=str(node.get("metadata", {}).get("uid", "")),
    )


def is_out(node: Object) -> bool:
    """Tell whether the node takes no new pods: cordoned, not Ready, or quarantined."""
    return ownership.unschedulable(node) or not ownership.ready(node) or holds.quarantined(node)


def last_result(node: Object) -> Result | None:
    """Return how the node's last turn ended, by its own annotation."""
    text = (node.get("metadata", {}).get("annotations") or {}).get(names.LAST_RESULT)
    return Result.from_json(text, f"{ownership.name(node)}: {names.LAST_RESULT}") if text else None
