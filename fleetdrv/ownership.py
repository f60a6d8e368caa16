"""Whose cordon is it, and the one PATCH that changes that. Pure: node objects in, verdicts and patches out.

`spec.unschedulable` is one bit that everybody shares. Ours is told from others' by the annotation
`names.CORDON`, written in the same PATCH as the bit, and by `metadata.managedFields`: a bit that was
cleared and set again belongs to whoever set it last. Every patch is a JSON merge patch (RFC 7386) for
`Cluster.patch_node`, which adds the resourceVersion: it changes the node that was looked at, or nothing.

A merge patch replaces a list as a whole, so the taints in it are the node's own, order kept, plus or minus
ours. The API drops empty maps and lists; `null` and `{}` are the same there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias

from fleetdrv import holds, names
from fleetdrv.errors import Conflict, NodeRefused
from fleetdrv.names import label_value
from fleetdrv.records import Cordon

Object: TypeAlias = Mapping[str, Any]
"""A Kubernetes object, as the API's JSON says it."""

Patch: TypeAlias = dict[str, Any]
"""A JSON merge patch."""

_TAINT_EFFECT = "NoSchedule"


class Kind(StrEnum):
    """Who holds a node."""

    FREE = "free"
    OURS = "ours"
    OURS_LIFTED = "ours, lifted by somebody else"
    OURS_TAKEN = "ours, then set anew by somebody else"
    FOREIGN = "cordoned by somebody else"
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """Who holds the node, and what is known of it."""

    kind: Kind
    record: Cordon | None = None
    """Ours, whatever became of it."""
    manager: str = ""
    """Field manager that set `unschedulable`, where the API knows."""
    since: str = ""
    held: str | None = None
    """Who holds it and why; also beside OURS, where it asks for no further destructive step."""

    @property
    def reason(self) -> str:
        """Say it for people."""
        hold = f"held ({self.held})"
        if self.kind is Kind.HELD:
            return hold
        by = f" (by {self.manager}{', ' + self.since if self.since else ''})" if self.manager else ""
        return f"{self.kind.value}{by}" + (f"; {hold}" if self.held is not None else "")


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What a node's kubelet says of the machine it runs on."""

    machine_id: str
    boot_id: str


def state(node: Object) -> Ownership:
    """Tell who holds the node now."""
    record, held = _record(node), holds.said(node)
    out = unschedulable(node)
    manager, since = _setter(node) if out else ("", "")
    if record is None:
        kind = Kind.HELD if held is not None else Kind.FOREIGN if out else Kind.FREE
    elif not out:
        kind = Kind.OURS_LIFTED
    elif not record.was_unschedulable and manager not in ("", names.FIELD_MANAGER):
        kind = Kind.OURS_TAKEN
    else:
        kind = Kind.OURS
    return Ownership(kind=kind, record=record, manager=manager, since=since, held=held)


def unschedulable(node: Object) -> bool:
    """Tell whether the node is cordoned, by anybody."""
    return bool(node.get("spec", {}).get("unschedulable"))


def ready(node: Object) -> bool:
    """Tell whether the node's Ready condition is True; unknown is not ready."""
    conditions = node.get("status", {}).get("conditions", ())
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def identity(node: Object) -> NodeIdentity:
    """Return machine id and boot id; raises NodeRefused where either is missing, so that "" proves nothing."""
    info = node.get("status", {}).get("nodeInfo", {})
    machine_id, boot_id = info.get("machineID", ""), info.get("bootID", "")
    if not machine_id or not boot_id:
        raise NodeRefused(
            f"{name(node)}: its Node object has no machineID or bootID, so nothing can prove which "
            "machine it is; is its kubelet running?"
        )
    return NodeIdentity(machine_id, boot_id)


def name(node: Object) -> str:
    """Return the object's name."""
    return str(node.get("metadata", {}).get("name", ""))


def devices(node: Object) -> dict[str, str]:
    """Return allocatable extended resources: those with a domain that is not Kubernetes' own."""
    allocatable = node.get("status", {}).get("allocatable", {})
    return {k: str(v) for k, v in allocatable.items() if "/" in k and "kubernetes.io/" not in k}


def cordon_record(node: Object, record: Cordon) -> Cordon:
    """Complete a record with how the node is found."""
    found = {key: _annotations(node).get(key) for key in names.AUTOSCALER_OPT_OUTS}
    return replace(record, was_unschedulable=unschedulable(node), found=found, allocatable=devices(node))


def cordon_patch(node: Object, record: Cordon) -> Patch:
    """Take the node out of service. The record says how it was found (`cordon_record`).

    A cordon that was there is left as it is, owner included, so that it can still be told from ours.
    """
    if _record(node) is not None:
        raise Conflict(f"{name(node)}: is cordoned by fleetdrv already; adopt it")
    if unschedulable(node) != record.was_unschedulable:
        raise Conflict(f"{name(node)}: was cordoned or uncordoned since its record was made")
    spec: Patch = {"taints": [*_other_taints(node), maintenance_taint(record.run)]}
    if not record.was_unschedulable:
        spec["unschedulable"] = True
    labels = {names.RUN_LABEL: label_value(record.run)}
    annotations = {names.CORDON: record.to_json(), **names.AUTOSCALER_OPT_OUTS}
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}


def touched_patch(node: Object, record: Cordon, step: str, drivers: Iterable[str] = ()) -> Patch:
    """Note, before it happens, that the node is about to be changed; what labels say of its drivers is over."""
    _still_ours(node, record)
    began = record.began if record.touched else step
    patch = _annotate(replace(record, touched=True, step=step, began=began))
    labels = (names.DRIVER_LABEL_PREFIX + driver for driver in drivers)
    patch["metadata"]["labels"] = {label: None for label in labels if label in _labels(node)}
    return patch


def adopt_patch(node: Object, record: Cordon, *, run: str, holder: str) -> Patch:
    """Go on with a node that an earlier run left out: how it was found, and since when, stays as recorded."""
    _still_ours(node, record)
    adopted = replace(record, run=run, holder=holder, failed="")
    patch = _annotate(adopted)
    patch["metadata"]["labels"] = {names.RUN_LABEL: label_value(run)}
    patch["spec"] = {"taints": [*_other_taints(node), maintenance_taint(run)]}
    return patch


def off_patch(
    node: Object, record: Cordon, operands: Mapping[str, str], daemon_sets: Iterable[str]
) -> Patch | None:
    """Switch operators' DaemonSets off by their labels, and note whom to wait for when the node goes back.

    A label that the node does not carry is not made: its operator is not at work here. The taint is set again
    where an earlier way back took it off. None: all of it is so.
    """
    _still_ours(node, record)
    labels = _labels(node)
    off = {k: v for k, v in operands.items() if k in labels and labels[k] != v}
    noted = replace(
        record,
        operands={**{k: labels[k] for k in off}, **record.operands},
        operands_off={**record.operands_off, **off},
        daemon_sets=tuple(sorted({*record.daemon_sets, *daemon_sets})),
    )
    tainted = maintenance_taint(record.run) in (node.get("spec", {}).get("taints") or ())
    if noted == record and not off and tainted:
        return None
    patch = _annotate(noted)
    patch["metadata"]["labels"] = off
    patch["spec"] = {"taints": [*_other_taints(node), maintenance_taint(record.run)]}
    return patch


def readmit_patch(node: Object, record: Cordon) -> Patch:
    """Let device plugins and operators' DaemonSets come back; the node stays cordoned."""
    return {"metadata": {"labels": _operands_back(node, record)}, **_untaint(node)}


def failed_patch(node: Object, record: Cordon, why: str, last_result: str) -> Patch:
    """Leave the node out, tainted and explained."""
    _still_ours(node, record)
    patch = _annotate(replace(record, failed=why))
    patch["metadata"]["annotations"][names.LAST_RESULT] = last_result
    patch["spec"] = {"taints": [*_other_taints(node), maintenance_taint(record.run)]}
    return patch


def uncordon_patch(
    node: Object,
    record: Cordon,
    last_result: str | None = None,
    driver_labels: Mapping[str, str] | None = None,
) -> Patch:
    """Give the node back as it was found; raises Conflict where it is not ours any more.

    `driver_labels` are driver name to version; `last_result` None leaves what stands there.
    """
    _still_ours(node, record)
    patch = _without_marks(node, record, last_result)
    if not record.was_unschedulable:
        patch["spec"]["unschedulable"] = None
    for driver, version in (driver_labels or {}).items():
        patch["metadata"]["labels"][names.DRIVER_LABEL_PREFIX + driver] = label_value(version)
    return patch


def release_patch(node: Object, record: Cordon, last_result: str | None = None) -> Patch:
    """Take our marks off; `unschedulable` stays as the other party set or cleared it."""
    return _without_marks(node, record, last_result)


def _without_marks(node: Object, record: Cordon, last_result: str | None) -> Patch:
    annotations: dict[str, str | None] = {names.CORDON: None}
    for key, ours in names.AUTOSCALER_OPT_OUTS.items():
        if _annotations(node).get(key) == ours:  # else somebody changed it since: theirs
            annotations[key] = record.found.get(key)
    if last_result is not None:
        annotations[names.LAST_RESULT] = last_result
    labels: dict[str, str | None] = {**_operands_back(node, record), names.RUN_LABEL: None}
    return {"metadata": {"labels": labels, "annotations": annotations}, **_untaint(node)}


def _still_ours(node: Object, record: Cordon) -> None:
    """Refuse to build a patch on a node that has changed hands since the caller decided."""
    now = state(node)
    if now.kind is not Kind.OURS or now.record is None or now.record.run != record.run:
        raise Conflict(f"{name(node)}: is not held by run {record.run} any more: {now.reason}")


def _annotate(record: Cordon) -> Patch:
    return {"metadata": {"annotations": {names.CORDON: record.to_json()}}}


def maintenance_taint(run: str) -> dict[str, str]:
    """Return the taint that keeps pods off a node while a run has it."""
    return {"key": names.MAINTENANCE_TAINT, "value": label_value(run), "effect": _TAINT_EFFECT}


def _untaint(node: Object) -> Patch:
    return {"spec": {"taints": _other_taints(node) or None}}


def _operands_back(node: Object, record: Cordon) -> dict[str, str]:
    labels = _labels(node)
    return {k: v for k, v in record.operands.items() if labels.get(k) == record.operands_off.get(k)}


def _other_taints(node: Object) -> list[Any]:
    taints = node.get("spec", {}).get("taints") or ()
    return [t for t in taints if (t.get("key"), t.get("effect")) != (names.MAINTENANCE_TAINT, _TAINT_EFFECT)]


def _labels(node: Object) -> Mapping[str, str]:
    return node.get("metadata", {}).get("labels") or {}


def _annotations(node: Object) -> Mapping[str, str]:
    return node.get("metadata", {}).get("annotations") or {}


def _record(node: Object) -> Cordon | None:
    text = _annotations(node).get(names.CORDON)
    return None if text is None else Cordon.from_json(text, f"{name(node)}: {names.CORDON}")


def _setter(node: Object) -> tuple[str, str]:
    """Return the field manager that owns `spec.unschedulable`, and when it wrote last.

    Server-side apply lets several own it: then somebody beside us wants the cordon, and is the one named.
    """
    owners = [
        (str(entry.get("manager", "")), str(entry.get("time", "")))
        for entry in node.get("metadata", {}).get("managedFields") or ()
        if "f:unschedulable" in entry.get("fieldsV1", {}).get("f:spec", {})
    ]
    others = [owner for owner in owners if owner[0] != names.FIELD_MANAGER]
    return next(iter(others + owners), ("", ""))
