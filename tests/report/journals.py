"""Journals of runs, written by the program's own teller: the recorded rollout of tests/screens, of any size."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fleetdrv import entries
from fleetdrv.events import Event, Level
from fleetdrv.lease import Holder
from fleetdrv.teller import Teller
from tests.screens import rollout
from tests.screens.play import START

NOBODY = Holder(user="ada", host="laptop", boot="b", pid_namespace=1, pid=1, started=1)
OLD, NEW = "535.288.01-1", "535.309.01-1"


def about(size: int, who: Holder = NOBODY) -> dict[str, object]:
    """Return what `commands` says of such a run when it begins."""
    return {
        "command": "apply",
        "again": "fleetdrv apply nvidia-535.yaml -i hosts.yaml",
        "playbook": {"name": "nvidia-535", "path": "nvidia-535.yaml", "digest": "0123456789abcdef"},
        "pool": "gpu",
        "nodes": size,
        "cluster": True,
        "who": who.identity,
        "reason": "driver of 25 November",
        "limits": {"max_unavailable": rollout.slots(size), "max_parallel": 100, "max_failures": 15},
        "versions": {"nvidia-driver for debian 12/amd64": NEW},
    }


def drivers(found: str) -> dict[str, dict[str, str]]:
    """Return how a node's driver was found."""
    return {"nvidia": {"wanted": NEW, "found": found, "loaded": found}}


def told(size: int, who: Holder = NOBODY) -> Iterator[tuple[float, Event]]:
    """Tell the recorded rollout with all that the journal keeps of it."""
    endings = {ending.node: ending for ending in rollout.endings(size)}
    seconds = 0.0
    for seconds, event in rollout.events(size):
        if event.phase == "run":
            yield seconds, replace(event, data=about(size, who))
        elif event.phase == "rollout" and not event.text:
            yield seconds, event
            for node, ending in endings.items():
                seen = None if ending.verdict == "unreachable" else drivers(OLD)
                yield seconds, Event(node=node, phase="found", text="", level=Level.DETAIL, data={"drivers": seen})
        elif event.phase == "end":
            ending = endings[event.node]
            after = {"changed": NEW, "failed, rolled back": OLD}.get(str(ending.verdict))
            yield seconds, entries.ended(ending, event.level, drivers(after) if after else None)
        else:
            yield seconds, event
    yield seconds, entries.over(4, "", (), {"execs": 11 * size, "api_writes": 12 * size})


def write(size: int, until: float = 1e9, who: Holder = NOBODY) -> Path:
    """Write the journal into the user's state folder, as far as the run came by `until`; return where."""
    clock = [0.0]
    teller = Teller(stream=io.StringIO(), now=lambda: clock[0], wall=lambda: START + clock[0])
    path = Path(teller.keep(rollout.RUN))
    for clock[0], event in told(size, who):
        if clock[0] <= until:
            teller(event)
    teller.close()
    return path
