"""Holds: people's word that fleetdrv must leave a node alone, whatever its driver. Pure.

The label is what counts, so that `kubectl label node NAME fleetdrv.io/hold=why` works from anywhere; a label's
value is too small for a reason, so `fleetdrv hold` keeps reason, person and time in an annotation beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetdrv import names
from fleetdrv.errors import Refused
from fleetdrv.records import Hold

_NO_WORDS = "held"
"""Label value for a reason of which no character may stand in a label."""


def value(reason: str) -> str:
    """Return the label's value for a reason.

    >>> value("kernel test, ask Ann"), value("?!")
    ('kernel_test__ask_Ann', 'held')
    """
    return names.label_value(reason) or _NO_WORDS


def said(node: Mapping[str, Any]) -> str | None:
    """Say who holds the node and why; None where nobody does.

    A hold is obeyed whether or not its annotation can be read: the label alone decides.
    """
    label = _label(node)
    if label is None:
        return None
    try:
        hold = _ours(node)
    except Refused:
        hold = None
    if hold is None or value(hold.reason) != label:
        return f"{names.HOLD_LABEL}={label}"
    return f"{hold.reason}, by {hold.who} since {hold.since}"


def hold_patch(node: Mapping[str, Any], hold: Hold) -> dict[str, Any] | None:
    """Put a hold on the node. None: it is held for that reason already.

    Raises Refused where it is held for another one: that hold is somebody's word, and `release` would lose it.
    """
    there = _ours(node)
    if _label(node) is not None:
        if there is not None and (there.reason, _label(node)) == (hold.reason, value(hold.reason)):
            return None
        raise Refused(
            f"{_name(node)}: is held already ({said(node)}), and that stays; "
            f"to hold it for another reason, first: fleetdrv release {_name(node)}"
        )
    labels, annotations = {names.HOLD_LABEL: value(hold.reason)}, {names.HOLD: hold.to_json()}
    return {"metadata": {"labels": labels, "annotations": annotations}}


def release_patch(node: Mapping[str, Any]) -> dict[str, Any] | None:
    """Take our hold off. None: nobody holds the node. Raises Refused for a label that `hold` did not set.

    Who ends a quarantine says that the machine is mended: what was found then is no reason any more to let it be.
    """
    label, hold = _label(node), _ours(node)
    if label is not None and (hold is None or value(hold.reason) != label):
        raise Refused(
            f"{_name(node)}: is held ({names.HOLD_LABEL}={label}), but not by `fleetdrv hold`; whoever set the "
            f"label takes it off: kubectl label node {_name(node)} {names.HOLD_LABEL}-"
        )
    if label is None and hold is None and not quarantined(node):
        return None
    annotations = {names.HOLD: None, **({names.LAST_RESULT: None} if quarantined(node) else {})}
    patch: dict[str, Any] = {"metadata": {"labels": {names.HOLD_LABEL: None}, "annotations": annotations}}
    return {**patch, "spec": {"taints": _other_taints(node) or None}} if quarantined(node) else patch


def quarantine_patch(node: Mapping[str, Any], hold: Hold) -> dict[str, Any] | None:
    """Hold the node, and have it take no new pods, because the machine is at fault. None: it is so.

    Somebody's hold that is there stays as it is. Whose cordon it has, if any, is as before.
    """
    patch = hold_patch(node, hold) if _label(node) is None else None
    if quarantined(node):
        return patch
    taint = {"key": names.QUARANTINE_TAINT, "value": value(hold.reason), "effect": "NoSchedule"}
    return {**(patch or {}), "spec": {"taints": [*_other_taints(node), taint]}}


def quarantined(node: Mapping[str, Any]) -> bool:
    """Tell whether a quarantine keeps pods off."""
    return len(_other_taints(node)) < len(_taints(node))


def _taints(node: Mapping[str, Any]) -> list[Any]:
    return list(node.get("spec", {}).get("taints") or ())


def _other_taints(node: Mapping[str, Any]) -> list[Any]:
    return [taint for taint in _taints(node) if taint.get("key") != names.QUARANTINE_TAINT]


def _label(node: Mapping[str, Any]) -> str | None:
    text: str | None = (node.get("metadata", {}).get("labels") or {}).get(names.HOLD_LABEL)
    return text


def _ours(node: Mapping[str, Any]) -> Hold | None:
    text = (node.get("metadata", {}).get("annotations") or {}).get(names.HOLD)
    return None if text is None else Hold.from_json(text, f"{_name(node)}: {names.HOLD}")


def _name(node: Mapping[str, Any]) -> str:
    return str(node.get("metadata", {}).get("name", ""))
