"""Hooks around whole commands against simulated nodes: who is asked, who is told, and what a veto leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.rollout.points import Moment
from tests.rollout.sim_fleet import SimFleet
from tests.rollout.test_story import Watcher

NOTE = 'echo "$FLEETDRV_HOOK $FLEETDRV_HOST $FLEETDRV_VERDICT$FLEETDRV_CHANGED" >> calls; echo noted'


def with_hooks(fleet: SimFleet, version: str, **hooks: str) -> Path:
    """Write a playbook with one shell line for each occasion."""
    path = fleet.playbook(version, canary=0)
    book: dict[str, Any] = yaml.safe_load(path.read_text())
    book["hooks"] = {when: [{"command": ["/bin/sh", "-c", line]}] for when, line in hooks.items()}
    path.write_text(yaml.safe_dump(book, sort_keys=False))
    return path


def calls(fleet: SimFleet) -> list[str]:
    path = fleet.folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_a_node_whose_hook_says_no_is_blocked_before_its_cordon(fleet: SimFleet) -> None:
    first, second = fleet.nodes
    veto = f'{NOTE}; if test "$FLEETDRV_NODE" = {first}; then echo no change ticket; exit 1; fi'
    book = with_hooks(fleet, "1.0", before_run=NOTE, before_node=veto, after_node=NOTE, after_run=NOTE)
    watcher = Watcher(fleet)
    ended = fleet.fleetdrv("apply", str(book), "-i", str(fleet.inventory), "--yes", code=5)
    watcher.stop()
    assert f"{first}: blocked: vetoed by the before_node hook: " in ended.out
    assert "exit 1: no change ticket" in ended.out
    assert watcher.ever == {second}
    assert f"{second}: changed" in ended.out
    assert f"{second:<12} hook      after_node: noted" in ended.errors
    said = calls(fleet)
    assert said[0].strip() == "before_run"
    assert said[-1].strip() == "after_run  1"
    assert sorted(map(str.strip, said[1:-1])) == sorted(
        [f"before_node {first}", f"before_node {second}", f"after_node {second} changed"]
    )
    looks = [point.what for point in fleet.points.seen if point.target == second]
    assert looks.count("launch outage") == 1


def test_a_run_whose_hook_says_no_touches_nothing(fleet: SimFleet) -> None:
    book = with_hooks(fleet, "1.0", before_run=f"{NOTE}; echo a freeze until Monday; exit 2", after_run=NOTE)
    before = fleet.end_state()
    fleet.points.arm(-1, Moment.BEFORE)
    ended = fleet.fleetdrv("apply", str(book), "-i", str(fleet.inventory), "--yes", code=5)
    assert "stopped: vetoed by the before_run hook: " in ended.out
    assert "exit 2: a freeze until Monday" in ended.out
    assert fleet.end_state() == before
    assert {point.what for point in fleet.points.seen if point.kind == "exec"} == {"probe"}
    assert [line.strip() for line in calls(fleet)] == ["before_run"]


def test_a_rollout_whose_controller_is_killed_in_a_hook_asks_again(fleet: SimFleet) -> None:
    name = next(iter(fleet.nodes))
    die = f'{NOTE}; if mkdir once; then kill -9 $PPID; sleep 5; fi'
    book = with_hooks(fleet, "1.0", before_node=die, after_node=NOTE)
    words = ("apply", str(book), "-i", str(fleet.inventory), "--yes", "-l", name)
    assert fleet.fleetdrv(*words).code == -9
    assert not fleet.node(name)["spec"].get("unschedulable")
    fleet.fleetdrv(*words, code=0)
    assert [line.strip() for line in calls(fleet)] == [f"before_node {name}"] * 2 + [f"after_node {name} changed"]
