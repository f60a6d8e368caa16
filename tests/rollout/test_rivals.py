"""Other hands on the same nodes: wrong machines, foreign cordons, a rival, orders from elsewhere."""

from __future__ import annotations

import signal
import time

from fleetdrv import names
from tests.rollout.points import Moment, Point
from tests.rollout.sim_fleet import SimFleet


def test_swapped_addresses_are_refused_before_any_write(fleet: SimFleet) -> None:
    first, second = fleet.nodes
    fleet.write_inventory({first: fleet.fronts[second].port, second: fleet.fronts[first].port})
    fleet.points.arm(-1, Moment.BEFORE)
    ended = fleet.apply("1.0", code=3)
    for name, other in ((first, second), (second, first)):
        assert fleet.nodes[name].machine_id in ended.errors
        assert name in ended.errors, other
    assert fleet.writes() == []
    assert {point.what for point in fleet.points.seen} == {"probe"}


def test_an_unknown_host_key_is_refused(fleet: SimFleet) -> None:
    first, second = fleet.nodes
    lines = fleet.known_hosts.read_text().splitlines()
    fleet.known_hosts.write_text(lines[0] + "\n")
    fleet.points.arm(-1, Moment.BEFORE)
    ended = fleet.plan("1.0", code=4)
    assert "SHA256:" in ended.out
    assert [point.target for point in fleet.points.seen] == [first], second


def test_a_node_that_somebody_else_cordoned_is_listed_and_left_alone(fleet: SimFleet) -> None:
    theirs, free = fleet.nodes
    fleet.patch(theirs, {"spec": {"unschedulable": True}})
    ended = fleet.apply("1.0", max_unavailable=2)
    assert f"{theirs}: skipped" in ended.out
    assert fleet.node(theirs)["spec"]["unschedulable"] is True
    assert not fleet.nodes[theirs].loaded()
    assert fleet.nodes[free].loaded()


def test_a_node_whose_pod_may_not_go_is_never_cordoned(fleet: SimFleet) -> None:
    """A budget with no disruption left: named, the node as it was; the other node gets its driver."""
    fleet.apply("1.0")
    stuck, free = fleet.nodes
    fleet.budget(stuck)
    before = fleet.node(stuck)["spec"]
    fleet.points.arm(-1, Moment.BEFORE)
    ended = fleet.apply("1.1", code=None, max_unavailable=2, max_failures=2)
    assert "blocked by PodDisruptionBudget none-may-go" in ended.out + ended.errors
    assert fleet.node(stuck)["spec"] == before
    cordons = [p for p in fleet.points.seen if p.target == stuck and "unschedulable" in p.what]
    assert cordons == []
    assert fleet.pods() == [stuck]
    assert f"{free}: changed" in ended.out


def test_a_foreign_outage_takes_the_only_slot(fleet: SimFleet) -> None:
    theirs, free = fleet.nodes
    fleet.patch(theirs, {"spec": {"unschedulable": True}})
    ended = fleet.apply("1.0", code=5, max_unavailable=1)
    assert "1 of 1 out of service" in ended.out
    assert not fleet.nodes[free].loaded()


def test_a_node_cordoned_anew_by_somebody_else_is_let_go(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    name = next(iter(fleet.nodes))

    def take(point: Point) -> None:
        if (point.target, point.what) == (name, "launch outage"):
            fleet.patch(name, {"spec": {"unschedulable": None}})
            fleet.patch(name, {"spec": {"unschedulable": True}})

    fleet.points.on_arrival = take
    ended = fleet.apply("1.1", "-l", name, code=4)
    assert "taken over by somebody else" in ended.out
    node = fleet.node(name)
    assert node["spec"]["unschedulable"] is True
    assert names.CORDON not in node["metadata"]["annotations"]
    assert names.RUN_LABEL not in node["metadata"]["labels"]
    assert not [t for t in node["spec"].get("taints", []) if t["key"] == names.MAINTENANCE_TAINT]


def test_an_uncordon_under_way_stops_the_next_destructive_step(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    name = next(iter(fleet.nodes))
    writes: list[Point] = []

    def lift(point: Point) -> None:
        if point.kind == "api" and point.target == name and point.what.startswith("PATCH"):
            writes.append(point)
            if len(writes) == 2:  # the cordon stands, the mark "touched" is about to be written
                fleet.patch(name, {"spec": {"unschedulable": None}}, manager="kubectl-uncordon")

    fleet.points.on_arrival = lift
    fleet.points.arm(-1, Moment.BEFORE)
    ended = fleet.apply("1.1", "-l", name, code=4)
    assert "taken over by somebody else" in ended.out
    assert "launch outage" not in [point.what for point in fleet.points.seen]
    assert not fleet.node(name)["spec"].get("unschedulable")


def test_a_second_controller_is_told_who_drives_the_pool(fleet: SimFleet) -> None:
    node = next(iter(fleet.nodes.values()))
    (node.folder / "wait-make").touch()
    book = str(fleet.playbook("1.0"))
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes") as process:
        _until(lambda: any(node.state.glob("jobs/*.stage.1/started")))
        rival = fleet.apply("1.0", code=5)
        assert f"pid {process.pid}" in rival.errors
        (node.folder / "wait-make").unlink()
        process.communicate(timeout=120)
    assert process.returncode == 0


def test_a_pause_from_elsewhere_lets_nodes_in_hand_finish_and_holds_the_rest(fleet: SimFleet) -> None:
    first, second = fleet.nodes.values()
    (first.folder / "wait-make").touch()
    book = str(fleet.playbook("1.0"))
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes") as process:
        _until(lambda: any(first.state.glob("jobs/*.stage.1/started")))
        fleet.fleetdrv("pause", fleet.tag, "--reason", "change freeze", code=0)
        (first.folder / "wait-make").unlink()
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 5, (out, errors)
    assert "change freeze" in out.decode()
    assert not second.loaded()
    assert fleet.apply("1.0", code=5).code == 5
    shown = fleet.fleetdrv("status", fleet.tag, code=0)
    assert "change freeze" in shown.out
    fleet.fleetdrv("resume", fleet.tag, code=0)
    fleet.apply("1.0")
    assert first.loaded()
    assert second.loaded()


def test_the_first_interrupt_starts_no_more_nodes(fleet: SimFleet) -> None:
    first, second = fleet.nodes.values()
    (first.folder / "wait-modprobe").touch()
    book = str(fleet.playbook("1.0"))
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes") as process:
        _until(lambda: any(first.state.glob("jobs/*.outage.1/started")))
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        (first.folder / "wait-modprobe").unlink()
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 130, (out, errors)
    assert first.loaded()
    assert not second.loaded()
    fleet.apply("1.0")
    assert second.loaded()


def test_an_abort_is_final_for_its_run_and_status_names_it(fleet: SimFleet) -> None:
    first, second = fleet.nodes.values()
    (first.folder / "wait-modprobe").touch()
    book = str(fleet.playbook("1.0"))
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes") as process:
        _until(lambda: any(first.state.glob("jobs/*.outage.1/started")))
        shown = fleet.fleetdrv("status", fleet.tag, "--json", code=0).json
        assert [(n["node"], n["step"]) for n in shown["nodes"]] == [(first.name, "outage")]
        fleet.fleetdrv("abort", fleet.tag, code=0)
        (first.folder / "wait-modprobe").unlink()
        process.communicate(timeout=120)
    assert process.returncode == 5
    assert not second.loaded()
    assert not fleet.node(first.name)["spec"].get("unschedulable")
    fleet.apply("1.0")
    assert second.loaded()


def test_what_an_earlier_run_left_out_comes_back_though_nothing_is_to_be_changed(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    name, node = next(iter(fleet.nodes.items()))
    (node.folder / "modprobe-lies").touch()
    fleet.apply("1.1", "-l", name, code=4)
    assert fleet.node(name)["spec"]["unschedulable"] is True
    (node.folder / "modprobe-lies").unlink()
    node.call("modprobe fleetdrv_toy")  # an operator mends it; the rollback had installed 1.0 again
    assert fleet.plan("1.0", "-l", name).code == 2, "converged, and owed its way back"
    fleet.apply("1.0", "-l", name)
    assert not fleet.node(name)["spec"].get("unschedulable")
    assert names.CORDON not in fleet.node(name)["metadata"]["annotations"]


def test_an_abort_whose_reason_speaks_of_a_lock_ends_its_run_all_the_same(fleet: SimFleet) -> None:
    first, second = fleet.nodes.values()
    (first.folder / "wait-modprobe").touch()
    book = str(fleet.playbook("1.0"))
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes") as process:
        _until(lambda: any(first.state.glob("jobs/*.outage.1/started")))
        fleet.fleetdrv("abort", fleet.tag, "--reason", "blocked by the change board", code=0)
        (first.folder / "wait-modprobe").unlink()
        process.communicate(timeout=120)
    assert process.returncode == 5
    fleet.apply("1.0")
    assert second.loaded()


def test_a_failed_node_is_tried_again_though_its_run_was_never_closed(fleet: SimFleet) -> None:
    fleet.apply("1.1")
    name, node = next(iter(fleet.nodes.items()))
    (node.folder / "wait-make").touch()
    before = node.started("stage")
    book = str(fleet.playbook("1.3"))
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes", "-l", name) as process:
        _until(lambda: node.started("stage") - before)
        (node.folder / "wait-make").unlink()
        _until(lambda: any(node.state.glob("jobs/*.rollback.1/started")))
        process.send_signal(signal.SIGINT)  # no node is left to start, and the run stays open
        process.communicate(timeout=120)
    assert process.returncode == 130
    fleet.points.arm(-1, Moment.BEFORE)
    fleet.apply("1.3", "-l", name, code=4)
    assert "launch outage" in [point.what for point in fleet.points.seen]


def test_hosts_outside_kubernetes(fleet: SimFleet) -> None:
    fleet.points.arm(-1, Moment.BEFORE)
    ended = fleet.apply("1.0", "--no-cluster")
    assert "nothing is cordoned" in ended.errors
    assert all(node.loaded() for node in fleet.nodes.values())
    assert fleet.writes() == []
    again = fleet.plan("1.0", "--no-cluster", "-l", "@failed", code=3)
    assert "nothing failed in run" in again.errors


def _until(true) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
