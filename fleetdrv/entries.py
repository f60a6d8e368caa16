"""What a run's journal keeps beside words, as plain values: `report` makes its page from them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from fleetdrv.ending import Ending
from fleetdrv.events import OVER, Event, Level
from fleetdrv.finding import Found
from fleetdrv.metrics import driver_seen
from fleetdrv.model import NodeFacts
from fleetdrv.playbook import Driver
from fleetdrv.secret import hide

Drivers = Mapping[str, Mapping[str, str]]
"""Driver to its versions: wanted, found (on disk) and loaded; empty where there is none, or none is told."""


def found(wanted: Iterable[Driver], facts: NodeFacts) -> Drivers:
    """Return the versions that a look saw."""
    seen = (driver_seen(driver, facts, ()) for driver in wanted)
    return {one.name: {"wanted": one.wanted, "found": one.found, "loaded": one.loaded} for one in seen}


def ending_json(ending: Ending) -> dict[str, Any]:
    """Return an ending as plain data."""
    return {
        "verdict": str(ending.verdict),
        "why": hide(ending.why),
        "evidence": hide(ending.evidence),
        "next": hide(ending.remedy),
        "finding": found_json(ending.found) if ending.found else None,
        "seconds_out_of_service": ending.seconds_out,
        "effects_out_of_service": asdict(ending.cost) if ending.cost else None,
    }


def found_json(found: Found) -> dict[str, Any]:
    """Return a finding and what shows it as plain data."""
    finding = found.finding
    return {
        "name": finding.name,
        "cause": hide(finding.cause),
        "remedy": hide(finding.remedy),
        "retry": str(finding.retry),
        "repair": str(finding.repair) if finding.repair else None,
        "quarantine": finding.quarantine,
        "evidence": hide(found.evidence),
        "where": found.where,
    }


def over(exit_code: int, stopped: str, waiting: Iterable[str], effects: Mapping[str, int]) -> Event:
    """Tell that a command came to its end, and how."""
    data = {"exit_code": exit_code, "stopped": hide(stopped), "waiting": list(waiting), "effects": dict(effects)}
    return Event(node="", phase=OVER, text=stopped, level=Level.DETAIL, data=data)


def ended(ending: Ending, level: Level, drivers: Drivers | None) -> Event:
    """Tell how a node's turn ended, with its drivers as they are known to be; None: not since a change."""
    why = f": {ending.why}" if ending.why else ""
    data = {**ending_json(ending), "drivers": drivers}
    return Event(node=ending.node, phase="end", text=f"{ending.verdict}{why}", level=level, data=data)
