"""A node that somebody holds, seen by whole commands against simulated nodes."""

from __future__ import annotations

from fleetdrv import names
from tests.rollout.points import Moment
from tests.rollout.sim_fleet import SimFleet
from tests.rollout.test_story import _wait_for


def test_a_held_node_is_passed_by_and_has_its_turn_when_it_is_released(fleet: SimFleet) -> None:
    held, free = fleet.nodes
    fleet.fleetdrv("hold", held, "--reason", "memory errors", code=0)
    assert "; left alone: held (memory errors, by " in fleet.plan("1.0", code=2).out
    fleet.points.arm(-1, Moment.BEFORE)
    ended = fleet.apply("1.0")
    assert f"{held}: skipped: held (memory errors, by " in ended.out
    assert f"{free}: changed" in ended.out
    assert [point.what for point in fleet.points.seen if point.target == held] == ["probe"]
    status = fleet.fleetdrv("status", code=0)
    assert f"{held}: held (memory errors, by " in status.out
    missing = fleet.fleetdrv("release", f"{held}x", "--json", code=3)
    assert f"near: {held}" in missing.json["errors"][0]
    fleet.fleetdrv("release", held, code=0)
    assert f"{held}: changed" in fleet.apply("1.0").out
    assert names.HOLD_LABEL not in fleet.node(held)["metadata"]["labels"]


def test_a_hold_while_the_job_runs_lets_it_end_and_the_verified_node_go_back(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    name = next(iter(fleet.nodes))
    brake = fleet.nodes[name].folder / "wait-modprobe"
    brake.touch()
    begun = fleet.nodes[name].started("outage")
    book = str(fleet.playbook("1.1"))
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes", "-l", name) as process:
        _wait_for(lambda: fleet.nodes[name].started("outage") - begun, "the outage job")
        said = fleet.fleetdrv("hold", name, "--reason", "look at it first", code=0)
        assert "the step under way ends, no other begins" in said.out
        brake.unlink()
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, (out, errors)
    node = fleet.node(name)
    assert not node["spec"].get("unschedulable")
    assert names.HOLD_LABEL in node["metadata"]["labels"]
    assert fleet.nodes[name].call("cat /sys/class/misc/fleetdrv_toy/code").strip() == "1.1"


def test_a_hold_on_a_node_whose_change_failed_keeps_it_from_being_rolled_back(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    name = next(iter(fleet.nodes))
    node = fleet.nodes[name]
    (node.folder / "wait-modprobe").touch()
    begun = node.started("outage")
    book = str(fleet.playbook("1.3"))
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes", "-l", name) as process:
        _wait_for(lambda: node.started("outage") - begun, "the outage job")
        fleet.fleetdrv("hold", name, "--reason", "look at it first", code=0)
        (node.folder / "wait-modprobe").unlink()
        out, errors = process.communicate(timeout=120)
    assert process.returncode in (4, 5), (out, errors)
    assert b"no rollback and no other step until it is released" in out
    assert fleet.node(name)["spec"]["unschedulable"]
    assert not any(".rollback." in job.name for job in node.state.glob("jobs/*"))
    fleet.fleetdrv("release", name, code=0)
    fleet.apply("1.0", "-l", name)
    assert not fleet.node(name)["spec"].get("unschedulable")
