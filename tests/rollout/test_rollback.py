"""`fleetdrv rollback`: back to what was there before a playbook, from the nodes' own disks."""

from __future__ import annotations

import json

import pytest

from fleetdrv import names
from tests.rollout.points import Moment, Point
from tests.rollout.sim_fleet import Ended, SimFleet
from tests.sim.node import build_id

pytestmark = pytest.mark.timeout(600)


def rollback(fleet: SimFleet, version: str, *options: str, code: int | None = 0, **changes: object) -> Ended:
    book = str(fleet.playbook(version, **changes))
    return fleet.fleetdrv("rollback", book, "-i", str(fleet.inventory), "--yes", *options, code=code)


def serves(fleet: SimFleet, version: str) -> bool:
    """Whether every node serves with this version loaded from its file, and says so."""
    for name, node in fleet.nodes.items():
        body = fleet.node(name)
        module = node.folder / "modules/up" / node.kernel / "updates/dkms/fleetdrv_toy.ko"
        assert node.loaded()["fleetdrv_toy"] == build_id(module)
        assert node.call("cat /sys/class/misc/fleetdrv_toy/code").strip() == version
        assert node.call("dkms status").startswith(f"toy/{version}, ")
        assert body["metadata"]["labels"]["fleetdrv.io/driver.toy"] == version
        assert names.CORDON not in body["metadata"]["annotations"]
        assert not body["spec"].get("unschedulable")
    return True


def run_record(fleet: SimFleet) -> dict[str, object]:
    lease = fleet.lease()
    assert lease is not None
    return dict(json.loads(lease["metadata"]["annotations"]["fleetdrv.io/run"]))


def test_there_and_back_and_there_again(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    before = fleet.end_state()
    fleet.apply("1.1")
    compiled = fleet.compiled()
    for node in fleet.nodes.values():  # neither compiler nor archive is needed
        (node.folder / "wait-make").touch()
    fleet.points.arm(-1, Moment.BEFORE)
    ended = rollback(fleet, "1.1")
    assert serves(fleet, "1.0"), ended
    assert fleet.compiled() == compiled
    assert {p.what for p in fleet.points.seen if p.kind == "exec"} == {"probe", "launch outage", "launch keep"}
    assert "toy: back to 1.0, kept on the node" in ended.out
    after = fleet.end_state()
    for name in fleet.nodes:
        assert after[name]["node"] == before[name]["node"], "as if 1.1 had never been there"

    fleet.points.arm(-1, Moment.BEFORE)
    again = rollback(fleet, "1.1", "--json")
    assert fleet.writes() == []
    assert again.json["effects"] == {"execs": 2, "api_writes": 0}
    assert {node["verdict"] for node in again.json["nodes"].values()} == {"converged"}

    for node in fleet.nodes.values():
        (node.folder / "wait-make").unlink()
    undone = run_record(fleet)
    fleet.apply("1.1")
    assert run_record(fleet)["id"] != undone["id"]
    assert run_record(fleet)["digest"] != undone["digest"]
    assert serves(fleet, "1.1")
    assert fleet.compiled() == compiled, "its build is in the controller's cache"


def test_cron_does_not_bring_again_what_was_rolled_back(fleet: SimFleet) -> None:
    """The playbook in cron's hands is still the one that was rolled back."""
    fleet.apply("1.0")
    fleet.apply("1.1")
    rollback(fleet, "1.1")
    book = ("remediate", str(fleet.playbook("1.1")), "-i", str(fleet.inventory))
    fleet.points.arm(-1, Moment.BEFORE)
    told = fleet.fleetdrv(*book, code=5)
    assert "was rolled back from this playbook" in told.out
    assert "fleetdrv apply" in told.out
    assert fleet.fleetdrv(*book, "--quiet", code=5).out == ""
    assert (fleet.writes(), serves(fleet, "1.0")) == ([], True)
    first = next(iter(fleet.nodes.values()))
    first.call("rmmod fleetdrv_toy")
    fleet.fleetdrv("remediate", str(fleet.playbook("1.0")), *book[2:], code=0)
    assert serves(fleet, "1.0"), "another wanted state is cron's to bring"
    fleet.apply("1.1")
    assert fleet.fleetdrv(*book, code=0).out == ""
    assert serves(fleet, "1.1")


def test_nothing_else_kept_is_named_and_nothing_is_touched(fleet: SimFleet) -> None:
    first, second = fleet.nodes
    fleet.apply("1.0", "-l", first)
    fleet.apply("1.1")
    ended = rollback(fleet, "1.1", code=4)
    assert f"{second}: incompatible: no last known good other than this playbook is kept on this node" in ended.out
    assert f"{first}: changed" in ended.out
    assert fleet.nodes[first].call("cat /sys/class/misc/fleetdrv_toy/code").strip() == "1.0"
    assert fleet.nodes[second].call("cat /sys/class/misc/fleetdrv_toy/code").strip() == "1.1"


def test_what_a_failed_rollout_left_is_undone_where_it_came_to(fleet: SimFleet) -> None:
    """The canary has 1.1, the other node never got it: there is nothing to undo there."""
    first, second = fleet.nodes
    fleet.apply("1.0")
    fleet.apply("1.1", "-l", first)
    fleet.points.arm(-1, Moment.BEFORE)
    ended = rollback(fleet, "1.1")
    assert f"{first}: changed" in ended.out
    assert f"{second}: converged" in ended.out
    assert [p.what for p in fleet.points.seen if p.target == second] == ["probe"]
    assert serves(fleet, "1.0")


@pytest.mark.parametrize("moment", [Moment.BEFORE, Moment.UNANSWERED])
@pytest.mark.parametrize("place", ["launch outage", "launch keep"])
def test_killed_the_same_command_goes_on(fleet: SimFleet, place: str, moment: Moment) -> None:
    fleet.apply("1.0")
    fleet.apply("1.1")
    fleet.points.arm(-1, Moment.BEFORE)
    rollback(fleet, "1.1")
    wanted, seen = fleet.end_state(), list(fleet.points.seen)
    fleet.apply("1.1")
    at = [point.what for point in seen].index(place)
    fleet.points.arm(at, moment)
    book = str(fleet.playbook("1.1"))
    with fleet.start("rollback", book, "-i", str(fleet.inventory), "--yes") as process:
        fleet.points.victim = process.pid
        process.communicate(timeout=120)
    fleet.points.victim = 0
    assert isinstance(fleet.points.killed, Point)
    cut = run_record(fleet)
    assert not cut["finished"]
    fleet.points.arm(-1, Moment.BEFORE)
    ended = rollback(fleet, "1.1")
    assert run_record(fleet)["id"] == cut["id"], "the same run"
    assert serves(fleet, "1.0"), ended
    assert fleet.end_state() == wanted
