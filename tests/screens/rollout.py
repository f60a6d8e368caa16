"""A rollout with failures as recorded Events with their times, for any number of nodes: what a screen shows of it.

As fleet.py, drive.py and outage.py tell them; every number is made from the node's place in the list alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from fleetdrv.ending import Ending
from fleetdrv.events import Event, Level
from fleetdrv.turn import Verdict

RUN = "20261125T074754-a1b2c3"
IN_USE = "unload: exit 75: process 4711 (python3) has /dev/nvidia0 open; still at its last known good"
NO_ANSWER = "connect: no answer from 10.0.3.7:22 within 60 s"
EVIDENCE = """\
== nvidia: old code out of the kernel
nvidia_uvm is in use by process 4711 (python3), cgroup kubepods-burstable-pod0b5
rmmod: ERROR: Module nvidia_uvm is in use\x1b[0m"""


def names(size: int) -> list[str]:
    """Name the nodes as a fleet would."""
    return [f"gpu-{number:0{len(str(size))}d}" for number in range(1, size + 1)]


def fails(place: int, size: int) -> bool:
    """Whether the node at this place fails: the second, and in a large fleet every 97th."""
    return place == 1 or (size > 2 and place % 97 == 96)


def events(size: int) -> Iterator[tuple[float, Event]]:
    """Tell the whole rollout in the order of time."""
    told = [*_run(size)]
    for place, node in enumerate(names(size)):
        told += _turn(place, node, size)
    yield from sorted(told, key=lambda timed: timed[0])


def slots(size: int) -> int:
    """How many may be out at once."""
    return max(1, size // 50)


def _run(size: int) -> Iterator[tuple[float, Event]]:
    yield 0.0, _event("", "run", f"{RUN}, journal ~/.local/state/fleetdrv/runs/{RUN}.jsonl")
    yield 0.1, _event("", "rollout", "", Level.DETAIL)
    waits = f"next node waits for a slot: {slots(size)} of {slots(size)} out of service"
    yield 31.0, _event("", "rollout", waits)


def _turn(place: int, node: str, size: int) -> Iterator[tuple[float, Event]]:
    begins = 31.0 + place // slots(size) * 60 + place % slots(size) * 0.7
    if size > 2 and place % 241 == 240:
        yield 0.2, _event(node, "end", f"unreachable: {NO_ANSWER}", Level.WARNING)
        return
    staged = max(1.0 + place % 7, begins - 90 + place % 7)
    yield staged, _event(node, "stand", "staging", Level.DETAIL)
    yield staged + 0.1, _event(node, "stage", "nvidia: trial build of nvidia/535.309")
    yield staged + 0.2, _event(node, "job", "== nvidia: trial build of nvidia/535.309")
    yield staged + 22, _event(node, "stand", "staged", Level.DETAIL)
    yield begins, _event(node, "stand", "in outage", Level.DETAIL)
    yield begins + 0.1, _event(node, "cordon", "nvidia: loaded not as wanted")
    yield begins + 0.2, _event(node, "drain", "pods leave")
    budget = "Cannot evict pod as it would violate the pod's disruption budget train-budget"
    yield begins + 5, _event(node, "drain", f"waiting 5 s for pod ml/train-{place}: {budget}")
    yield begins + 20 + place % 5, _event(node, "outage", "3 steps")
    yield begins + 21 + place % 5, _event(node, "job", "== nvidia: old code out of the kernel")
    if fails(place, size):
        yield begins + 26, _event(node, "rollback", IN_USE, Level.WARNING)
        yield begins + 40, _event(node, "uncordon", "back in service after 40.0 s out of service")
        yield begins + 41, _event(node, "end", f"failed, rolled back: {IN_USE}", Level.WARNING)
        return
    yield begins + 30, _event(node, "job", "== nvidia: install nvidia/535.309")
    yield begins + 48, _event(node, "keep", "verified; recorded as last known good")
    yield begins + 50 + place % 3, _event(node, "uncordon", f"back in service after {50 + place % 3}.0 s")
    yield begins + 51 + place % 3, _event(node, "end", "changed: verified: nothing left to do")


def _event(node: str, phase: str, text: str, level: Level = Level.PROGRESS) -> Event:
    return Event(node=node, phase=phase, text=text, level=level)


def endings(size: int) -> list[Ending]:
    """Return how the nodes ended."""
    return [_ending(place, node, size) for place, node in enumerate(names(size))]


def _ending(place: int, node: str, size: int) -> Ending:
    again = f"fleetdrv plan nvidia-535.yaml -i hosts.yaml --limit {node}"
    if size > 2 and place % 241 == 240:
        return Ending(node=node, verdict=Verdict.UNREACHABLE, why=NO_ANSWER, remedy=again)
    if fails(place, size):
        return Ending(
            node=node, verdict=Verdict.ROLLED_BACK, why=IN_USE, evidence=EVIDENCE, remedy=again, seconds_out=40.0
        )
    why = "verified: nothing left to do"
    return Ending(node=node, verdict=Verdict.CHANGED, why=why, seconds_out=50.0 + place % 3)
