"""Who differs, in which layer; and what a quiet command must still say."""

from __future__ import annotations

from fleetdrv import nodeset
from tests.rollout.points import Moment
from tests.rollout.sim_fleet import SimFleet


def test_drift_names_nodes_layers_and_writes_nothing(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    drifted, sound = fleet.nodes
    book = ("drift", str(fleet.playbook("1.0")), "-i", str(fleet.inventory))
    assert "0 of 2 nodes differ" in fleet.fleetdrv(*book, code=0).out
    assert fleet.fleetdrv(*book, "--quiet", code=0).out == ""
    fleet.nodes[drifted].call("rmmod fleetdrv_toy")
    before = fleet.end_state()
    fleet.points.arm(-1, Moment.BEFORE)
    shown = fleet.fleetdrv(*book, code=2)
    told = fleet.fleetdrv(*book, "--json", code=2).json
    assert fleet.writes() == []
    assert {point.what for point in fleet.points.seen} == {"probe"}
    assert fleet.end_state() == before
    header, row, *_, last = shown.out.splitlines()
    assert header.split() == ["NODES", "DRIVER", "LAYER", "FOUND", "WANTED"]
    assert row.split()[:3] == [drifted, "toy", "loaded"]
    assert last == "1 of 2 nodes differ"
    assert [layer["layer"] for layer in told["nodes"][drifted]["drivers"]["toy"]] == ["loaded"]
    assert told["nodes"][sound] == {"differs": False, "reason": "", "drivers": {}}
    fleet.nodes[sound].call("rmmod fleetdrv_toy")
    folded = fleet.fleetdrv(*book, code=2).out
    assert f"{nodeset.fold((drifted, sound))}  toy" in folded
    fleet.fronts[sound].close()
    assert "could not be read" in fleet.fleetdrv(*book, code=4).out


def test_a_quiet_apply_still_lists_foreign_cordons(fleet: SimFleet) -> None:
    theirs, _ = fleet.nodes
    fleet.patch(theirs, {"spec": {"unschedulable": True}})
    ended = fleet.apply("1.0", "--quiet", max_unavailable=2)
    assert ended.out.splitlines() == [line for line in ended.out.splitlines() if f"{theirs}: skipped" in line]
    assert theirs in ended.out


def test_a_failed_node_names_a_command_that_can_be_typed(fleet: SimFleet) -> None:
    (next(iter(fleet.nodes.values())).folder / "modprobe-lies").touch()
    ended = fleet.apply("1.0", code=None)
    remedy = next(line for line in ended.out.splitlines() if line.startswith("  next: fleetdrv plan "))
    words = remedy.split()[2:]
    assert fleet.fleetdrv(*words, code=None).code in (2, 4)
