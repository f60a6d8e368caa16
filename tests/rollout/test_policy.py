"""The rollout's policy by the command line: soaks that outlive a controller, domains, windows, one rotten Node."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

from fleetdrv import names
from tests.rollout.sim_fleet import SimFleet
from tests.rollout.test_rivals import _until


def record(fleet: SimFleet) -> dict[str, Any]:
    """Read the run record from the pool's Lease; empty before there is one."""
    metadata = (fleet.lease() or {}).get("metadata", {})
    return dict(json.loads(metadata.get("annotations", {}).get(names.RUN_RECORD, "{}")))


def test_a_soak_goes_on_under_the_next_controller_and_ends_with_a_look(fleet: SimFleet) -> None:
    first, second = fleet.nodes.values()
    book = str(fleet.playbook("1.0", canary=1, soak_seconds=25))
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes") as process:
        _until(lambda: record(fleet).get("soaking"))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert list(record(fleet)["soaking"]) == [first.name]
    shown = fleet.fleetdrv("status", fleet.tag, code=0)
    assert f"{first.name} soaks until 20" in shown.out
    until = datetime.fromisoformat(str(record(fleet)["not_before"]))
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes") as process:
        _until(lambda: second.started("outage"))
        assert datetime.now(UTC) >= until
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, (out, errors)
    assert record(fleet)["canary_passed"] == [first.name]
    assert len(first.started("outage")) == 1


def test_a_fault_of_the_kernel_in_the_soak_stops_the_rollout(fleet: SimFleet) -> None:
    first, second = fleet.nodes.values()
    (first.folder / "kmsg").write_text("<1>[    5.000000] Oops: 0001 [#1] long before\n")
    book = str(fleet.playbook("1.0", canary=1, soak_seconds=8))
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes") as process:
        _until(lambda: record(fleet).get("soaking"))
        with (first.folder / "kmsg").open("a") as log:
            log.write("<3>[   98.000000] ata1: failed command\n<1>[   99.000000] Oops: 0002 [#2] PREEMPT SMP\n")
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 5, (out, errors)
    assert f"{first.name}: failed: did not last its soak: kernel: Oops: 0002 [#2] PREEMPT SMP" in out.decode()
    assert not second.loaded()
    note = fleet.node(first.name)["metadata"]["annotations"][names.LAST_RESULT]
    assert "did not last its soak" in json.loads(note)["finding"]


def test_stop_after_canary_and_go_on(fleet: SimFleet) -> None:
    first, second = fleet.nodes.values()
    stopped = fleet.apply("1.0", "--stop-after", "canary", code=5)
    assert "to go on: the same command without --stop-after" in stopped.out
    assert first.loaded()
    assert not second.loaded()
    run = record(fleet)["id"]
    assert (record(fleet)["finished"], record(fleet)["canary_passed"]) == (False, [first.name])
    fleet.apply("1.0")
    assert second.loaded()
    assert (record(fleet)["id"], record(fleet)["finished"]) == (run, True)
    assert fleet.apply("1.1", "--stop-after", "lunch", code=3).errors.startswith("fleetdrv: --stop-after lunch")
    assert "set rollout.canary" in fleet.apply("1.1", "--stop-after", "canary", code=3, canary=0).errors


def test_a_shut_window_stages_touches_nothing_and_says_when_it_opens(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    before = fleet.end_state()
    start = (datetime.now(UTC) + timedelta(hours=3)).strftime("%H:00")
    end = (datetime.now(UTC) + timedelta(hours=5)).strftime("%H:00")
    window = {"start": start, "end": end}
    ended = fleet.apply("1.1", code=5, maintenance_window=window, max_unavailable=2)
    assert "stopped: waiting for the maintenance window, which opens " in ended.out
    assert f"{start} UTC" in ended.out
    assert "maintenance_window shut until " in ended.out
    assert fleet.plan("1.1", "--json", maintenance_window=window).json["limits"]["maintenance_window"]
    after = fleet.end_state()
    for name, node in fleet.nodes.items():
        assert after[name]["spec"] == before[name]["spec"]
        assert node.loaded() == before[name]["node"]["loaded"]
    assert any(after[name]["node"]["staged"] for name in fleet.nodes)
    assert record(fleet)["finished"] is False
    fleet.apply("1.1", max_unavailable=2)


def test_a_zone_that_is_full_holds_back_its_nodes_only(fleet: SimFleet) -> None:
    first, second = fleet.nodes
    label = "topology.kubernetes.io/zone"
    fleet.patch(first, {"metadata": {"labels": {label: "a"}}})
    per = {"label": label, "max_unavailable": "50%"}
    planned = fleet.plan("1.0", max_unavailable=2, max_unavailable_per=per, code=2)
    assert f"max_unavailable per {label} 1" in planned.out
    ended = fleet.apply("1.0", max_unavailable=2, max_unavailable_per=per)
    assert ended.out.count(": changed") == 2, second


def test_one_rotten_node_is_refused_by_itself_and_the_others_get_their_driver(fleet: SimFleet) -> None:
    rotten, sound = fleet.nodes
    fleet._send("DELETE", f"/api/v1/nodes/{rotten}")
    ended = fleet.apply("1.0", code=4)
    assert f"{rotten}: refused: {rotten}: no such Node in this cluster; check node_name in" in ended.out
    assert f"{sound}: changed" in ended.out
    assert not fleet.nodes[rotten].loaded()
    assert fleet.nodes[sound].loaded()
    again = fleet.apply("1.0", code=4)
    assert f"{rotten}: refused" in again.out
    alone = fleet.apply("1.0", "-l", rotten, code=3)
    assert "no such Node" in alone.errors
    fleet.make_node(rotten)
    fleet.patch(rotten, {"metadata": {"annotations": {names.CORDON: "{"}}})
    damaged = fleet.apply("1.0", code=4)
    assert f"{rotten}: refused: {rotten}: {names.CORDON}: not a record of fleetdrv" in damaged.out


def test_marks_of_ours_on_a_node_that_somebody_uncordoned_go_though_no_slot_is_free(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    lifted, theirs = fleet.nodes
    (fleet.nodes[lifted].folder / "modprobe-lies").touch()
    fleet.apply("1.1", "-l", lifted, code=4)
    fleet.patch(lifted, {"spec": {"unschedulable": None}}, manager="kubectl-uncordon")
    fleet.patch(theirs, {"spec": {"unschedulable": True}})
    ended = fleet.apply("1.1", code=4, max_unavailable=1)
    assert f"{lifted}: failed, taken over by somebody else" in ended.out
    node = fleet.node(lifted)
    assert names.CORDON not in node["metadata"]["annotations"]
    assert not node["spec"].get("unschedulable")
