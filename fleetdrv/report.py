"""Values to text: what plan and drift found, and the one JSON document of a command. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fleetdrv.document import SCHEMA as SCHEMA
from fleetdrv.document import document as document
from fleetdrv.lines import alike, clean
from fleetdrv.look import View
from fleetdrv.nodeset import fold
from fleetdrv.plan import Disruption, NodePlan, Step
from fleetdrv.secret import hide


def plan_text(
    views: Mapping[str, View | str], limits: Mapping[str, int | str], versions: Mapping[str, str] | None = None
) -> str:
    """Return the plan of every node; nodes with the same plan stand together."""
    blocks = [f"{fold(names)}\n{text}" for text, names in alike({n: _plan_of(v) for n, v in views.items()})]
    blocks += [f"versions: {package}: {version}" for package, version in (versions or {}).items()]
    bounds = ", ".join(f"{name} {number}" for name, number in limits.items())
    return hide(clean("\n".join((*blocks, f"limits: {bounds}"))))


def _plan_of(view: View | str) -> str:
    if isinstance(view, str):
        return f"  unreachable or unreadable: {view}"
    plan = view.plan
    head = f"  {plan.outcome}" + (f": {plan.reason}" if plan.reason else "")
    if plan.outage:
        head += f", {_DISRUPTIONS[plan.disruption]}"
    if view.standing.reason and view.standing.out:
        head += f"; out of service: {view.standing.reason}"
    elif view.standing.held:
        head += f"; left alone: held ({view.standing.held})"
    lines = [head]
    lines += [f"    {difference}" for difference in plan.differences]
    lines += [f"    note: {note}" for note in plan.notes]
    for phase, steps in (("stage", plan.stage), ("outage", plan.outage), ("after", plan.after)):
        lines += [f"      {phase:<7} {step.program} {' '.join(step.argv[:2])} - {step.why}" for step in steps]
    return "\n".join(lines)


_DISRUPTIONS = {
    Disruption.NONE: "cordon, no drain",
    Disruption.RELOAD: "cordon and drain",
    Disruption.REBOOT: "cordon, drain and reboot",
}


_COLUMNS = ("DRIVER", "LAYER", "FOUND", "WANTED")


def drift_text(views: Mapping[str, View | str]) -> str:
    """Return a table of what differs; nodes with the same differences share their rows."""
    folded = alike({name: _drift_rows(view) for name, view in views.items()})
    rows = [
        (fold(names) if first else "", *row)
        for group, names in sorted(folded, key=lambda item: not item[0])
        for first, row in zip((True, *(False for _ in group)), group or (("as wanted",),), strict=False)
    ]
    header = [("NODES", *_COLUMNS)] if any(len(row) == 5 for row in rows) else []
    table = [*header, *rows]
    widths = [max((len(r[i]) for r in table if len(r) == 5), default=0) for i in range(4)]
    widths[0] = max(len(row[0]) for row in table)
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, (*widths, 0), strict=False)).rstrip() for r in table]
    differ = sum(not isinstance(view, str) and bool(view.plan.differences) for view in views.values())
    unseen = sum(isinstance(view, str) for view in views.values())
    more = f", {unseen} could not be read" if unseen else ""
    return hide(clean("\n".join((*lines, f"{differ} of {len(views)} nodes differ{more}"))))


def _drift_rows(view: View | str) -> tuple[tuple[str, ...], ...]:
    if isinstance(view, str):
        return ((f"unreachable or unreadable: {view}",),)
    return tuple((d.driver, str(d.layer), d.found, d.wanted) for d in view.plan.differences)


def drift_json(view: View | str) -> dict[str, Any]:
    """Return what differs on a node as plain data: the layers of each driver that differs."""
    if isinstance(view, str):
        return {"differs": None, "reason": hide(view), "drivers": {}}
    drivers: dict[str, list[dict[str, str]]] = {}
    for d in view.plan.differences:
        layer = {"layer": str(d.layer), "found": d.found, "wanted": d.wanted}
        drivers.setdefault(d.driver, []).append(layer)
    return {"differs": bool(drivers), "reason": view.plan.reason, "drivers": drivers}


def view_json(view: View | str) -> dict[str, Any]:
    """Return a node's plan as plain data."""
    if isinstance(view, str):
        return {"outcome": "unreachable", "reason": hide(view)}
    plan = view.plan
    return {
        "outcome": str(plan.outcome),
        "reason": plan.reason,
        "disruption": plan.disruption.name,
        "differences": [
            {"driver": d.driver, "layer": str(d.layer), "found": d.found, "wanted": d.wanted}
            for d in plan.differences
        ],
        "notes": list(plan.notes),
        **{phase: [step_json(s) for s in steps] for phase, steps in _phases(plan)},
        "out_of_service": view.standing.reason if view.standing.out else "",
        "held": view.standing.held,
    }


def _phases(plan: NodePlan) -> Iterable[tuple[str, tuple[Step, ...]]]:
    return (("stage", plan.stage), ("outage", plan.outage), ("after", plan.after))


def step_json(step: Step) -> dict[str, Any]:
    """Return a step as plain data."""
    return {"program": step.program, "argv": list(step.argv), "why": step.why}
