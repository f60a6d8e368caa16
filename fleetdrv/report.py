"""Values to text: lines of progress, plan and summary tables, the JSON document. Draws, decides nothing."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import platformdirs

from fleetdrv.drive import Ending
from fleetdrv.events import Event, Level
from fleetdrv.look import View
from fleetdrv.plan import Disruption, NodePlan, Step
from fleetdrv.secret import hide
from fleetdrv.turn import Verdict

SCHEMA = "fleetdrv/1"

JOURNALS = Path(platformdirs.user_state_dir("fleetdrv")) / "runs"


@dataclass(slots=True)
class Teller:
    """Shows events on stderr as they come, and keeps all of them in the run's journal.

    Safe to call from any thread. `quiet` shows warnings only, which is what a cron mail should hold.
    """

    quiet: bool = False
    log_json: bool = False
    stream: IO[str] = field(default_factory=lambda: sys.stderr)
    _journal: IO[str] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: Event) -> None:
        """Take one event."""
        record = {
            "at": time.time(),
            "node": event.node,
            "phase": event.phase,
            "level": event.level,
            "text": hide(event.text),
        }
        with self._lock:
            if self._journal:
                _print(json.dumps(record), self._journal)
            if event.level is Level.DETAIL or (self.quiet and event.level is not Level.WARNING):
                return
            _print(json.dumps(record) if self.log_json else hide(line(event)), self.stream)

    def keep(self, run: str) -> str:
        """Write the journal of a run as JSON lines into the user's state folder; return where, or why not."""
        path = JOURNALS / f"{run}.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._journal = path.open("a", encoding="utf-8")
            path.chmod(0o600)
        except OSError as error:
            return f"cannot be written: {error}"
        return str(path)


def _print(text: str, stream: IO[str]) -> None:
    """Tell it if anybody listens: a closed pipe or a full disk must not end a node's turn half-way."""
    with suppress(OSError, ValueError):
        print(text, file=stream, flush=True)


def line(event: Event) -> str:
    """Return one plain line."""
    who = f"{event.node:<12} " if event.node else ""
    return f"{time.strftime('%H:%M:%S')} {who}{event.phase:<9} {event.text}"


def plan_text(
    views: Mapping[str, View | str], limits: Mapping[str, int | str], versions: Mapping[str, str] | None = None
) -> str:
    """Return the plan of every node; nodes with the same plan stand together."""
    groups: dict[str, list[str]] = {}
    for name, view in views.items():
        text = f"  unreachable or unreadable: {view}" if isinstance(view, str) else _plan_lines(view)
        groups.setdefault(text, []).append(name)
    blocks = [f"{', '.join(names)}\n{text}" for text, names in groups.items()]
    blocks += [f"versions: {package}: {version}" for package, version in (versions or {}).items()]
    bounds = ", ".join(f"{name} {number}" for name, number in limits.items())
    return hide("\n".join((*blocks, f"limits: {bounds}")))


def _plan_lines(view: View) -> str:
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
    folded: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for name, view in views.items():
        folded.setdefault(_drift_rows(view), []).append(name)
    rows = [
        (", ".join(names) if first else "", *row)
        for group, names in sorted(folded.items(), key=lambda item: not item[0])
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
    return hide("\n".join((*lines, f"{differ} of {len(views)} nodes differ{more}")))


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


def summary_text(endings: Iterable[Ending], stopped: str, left_out: Iterable[str], effects: str) -> str:
    """Return the recap: failures last, with cause, evidence and the next command to type."""
    ordered = sorted(endings, key=lambda ending: (ending.verdict in _BAD, ending.node))
    lines = [ending_line(ending) for ending in ordered]
    for ending in ordered:
        if ending.verdict in _BAD:
            lines.append(f"\n{ending.node}: {ending.why or ending.verdict}")
            lines += [f"  | {text}" for text in ending.evidence.splitlines()[-10:]]
            if ending.remedy:
                lines.append(f"  next: {ending.remedy}")
    if stopped:
        lines.append(f"stopped: {stopped}")
    out = list(left_out)
    if out:
        lines.append(f"left out of service by fleetdrv: {', '.join(out)}")
    lines.append(effects)
    return hide("\n".join(lines))


def ending_line(ending: Ending) -> str:
    """Say in one line how a node's turn ended."""
    seconds = f" ({ending.seconds_out:.1f} s out of service)" if ending.seconds_out is not None else ""
    return hide(f"{ending.node}: {ending.verdict}{seconds}" + (f": {ending.why}" if ending.why else ""))


_BAD = frozenset(
    {
        Verdict.FAILED,
        Verdict.ROLLED_BACK,
        Verdict.LEFT_OUT,
        Verdict.LOST,
        Verdict.UNREACHABLE,
        Verdict.UNSEEN,
        Verdict.INCOMPATIBLE,
        Verdict.NOT_MENDABLE,
        Verdict.BLOCKED,
        Verdict.DEFERRED,
        Verdict.GIVEN_UP,
        Verdict.REFUSED,
    }
)


def document(command: str, exit_code: int, **parts: Any) -> str:
    """Return the one JSON document of a command."""
    return json.dumps({"schema": SCHEMA, "command": command, "exit_code": exit_code, **parts}, indent=2)


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


def ending_json(ending: Ending) -> dict[str, Any]:
    """Return an ending as plain data."""
    return {
        "verdict": str(ending.verdict),
        "why": hide(ending.why),
        "evidence": hide(ending.evidence),
        "next": hide(ending.remedy),
        "seconds_out_of_service": ending.seconds_out,
        "effects_out_of_service": asdict(ending.cost) if ending.cost else None,
    }
