"""Why a pool or a node does not move, by its cluster objects alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fleetdrv import lease as leases
from fleetdrv import names, ownership, standstill
from fleetdrv.records import Cordon, Course, Hold, Order, Result, RunRecord
from fleetdrv.timing import stamp

NOW = datetime(2026, 11, 25, 10, 10, tzinfo=UTC)
HOLDER = "ann@desk boot=b pidns=1 pid=7 start=9"
_REPAIR = "fleetdrv repair NODE --playbook b.yaml -i i"
COURSE = Course(run="r1", command="fleetdrv apply b.yaml -i i", repair=_REPAIR)
CORDON = Cordon(run="r1", pool="gpu", holder="ann@desk", reason="why", since=stamp())


def a_lease(holder: str = "", reason: str = "", course: Course | None = COURSE, **more: Any) -> dict[str, Any]:
    record = RunRecord(**{"id": "r1", "pool": "gpu", "playbook": "toy", "digest": "d", "reason": reason, **more})
    notes = {names.RUN_RECORD: record.to_json(), names.COURSE: course.to_json() if course else None}
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 40, "renewTime": "2026-11-25T10:09:30.000000Z"}
    return leases.annotated({**leases.unheld("gpu"), "spec": spec if holder else {}}, notes)


def a_node(record: Cordon | None = None, **more: Any) -> dict[str, Any]:
    ready = {"type": "Ready", "status": more.get("ready", "True"), "message": "Kubelet stopped",
             "lastTransitionTime": "2026-11-25T10:02:00Z"}
    node: dict[str, Any] = {"metadata": {"name": "n7"}, "spec": {}, "status": {"conditions": [ready]}}
    if record is not None:
        node["spec"] = {"unschedulable": True, "taints": [ownership.maintenance_taint(record.run)]}
        node["metadata"]["annotations"] = {names.CORDON: record.to_json()}
        node["status"]["allocatable"] = more.get("allocatable", {})
    return node


@pytest.mark.parametrize(
    ("alive", "now", "said"),
    [
        (True, NOW, "driven by ann@desk (pid 7)"),
        (False, NOW, "nobody drives it: ann@desk (pid 7), who did, is dead"),
        (None, NOW, "driven by ann@desk (pid 7)"),
        (None, NOW.replace(minute=11), "nobody drives it: ann@desk (pid 7) has not renewed the lock since "
                                       "2026-11-25T10:09:30.000000Z"),
        (True, NOW.replace(minute=11), "driven by ann@desk (pid 7)"),
    ],
)
def test_who_drives_a_pool(alive: bool | None, now: datetime, said: str) -> None:
    assert standstill.driver(a_lease(HOLDER), now, alive=alive) == said


def test_nobody_holds_it() -> None:
    assert standstill.driver(a_lease(), NOW, alive=None) == "nobody drives it"


@pytest.mark.parametrize(
    ("reason", "rule", "nodes"),
    [
        ("waiting for a slot: 1 of 1 out of service", "max_unavailable", ("n7",)),
        ("waiting for a slot in zone=a: 1 of 1 out of service", "max_unavailable", ("n7",)),
        ("1 failed, max_failures is 0", "max_failures", ("n1",)),
        ("2 unreachable, max_unreachable is 1", "max_unreachable", ("n2", "n3")),
        ("waiting for the maintenance window, which opens at 22:00", "maintenance window", ()),
        ("aborted by ann: why", "", ()),
        ("", "", ()),
    ],
)
def test_which_rule_and_which_nodes_hold_it_up(reason: str, rule: str, nodes: tuple[str, ...]) -> None:
    course = Course(run="r1", command="x", out=("n7",))
    lease = a_lease(reason=reason, course=course, failed=("n1",), unreachable=("n2", "n3"))
    record = leases.run_record(lease)
    assert record is not None
    assert (standstill.rule(record), standstill.blocking(lease)) == (rule, nodes)


def test_who_was_out_in_another_run_holds_nobody_up() -> None:
    course = Course(run="r0", command="x", out=("n7",))
    assert standstill.blocking(a_lease(reason="waiting for a slot: 1 of 1", course=course)) == ()


def test_how_a_node_that_blocks_stands_by_now() -> None:
    assert standstill.stands(None) == "gone from the cluster since"
    assert standstill.stands(a_node()) == "in service again"
    assert standstill.stands(a_node(ready="Unknown")) == "not Ready: Kubelet stopped since 2026-11-25T10:02:00Z"
    assert standstill.stands(a_node(CORDON)) == "out of service by fleetdrv, see below"
    foreign = a_node()
    foreign["spec"]["unschedulable"] = True
    foreign["metadata"]["managedFields"] = [
        {"manager": "kubectl-cordon", "time": "2026-11-25T10:02:00Z",
         "fieldsV1": {"f:spec": {"f:unschedulable": {}}}}
    ]
    assert standstill.stands(foreign) == "cordoned by somebody else (by kubectl-cordon, 2026-11-25T10:02:00Z)"
    failed = a_node()
    result = Result(run="r1", digest="d", verdict="failed", finding="load: exit 78", at="x")
    failed["metadata"]["annotations"] = {names.LAST_RESULT: result.to_json()}
    assert standstill.stands(failed) == "in service again; its last turn: failed: load: exit 78"
    broken = a_node()
    broken["metadata"]["annotations"] = {names.CORDON: "{"}
    assert "not a record of fleetdrv" in standstill.stands(broken)


def test_what_to_type_for_a_pool() -> None:
    def todo(lease: dict[str, Any], driven: bool = False, out: bool = False) -> str:
        return standstill.pool_next(lease, driven=driven, out=out)

    paused = Order(who="ann", why="freeze", since="x")
    stopped = leases.annotated(a_lease(reason="waiting"), {names.PAUSED: paused.to_json()})
    assert todo(stopped) == "fleetdrv resume gpu; then: fleetdrv apply b.yaml -i i"
    assert todo(stopped, driven=True) == "fleetdrv resume gpu"
    assert todo(a_lease()) == "fleetdrv apply b.yaml -i i", "not finished"
    assert todo(a_lease(finished=True)) == ""
    assert todo(a_lease(finished=True), out=True) == "fleetdrv apply b.yaml -i i"
    assert todo(a_lease(finished=True, reason="1 failed"), driven=True) == ""
    assert todo(a_lease(course=None)) == "the same apply command again"
    assert todo(leases.unheld("gpu")) == ""


def test_what_to_type_for_a_node() -> None:
    def todo(node: dict[str, Any], course: Course | None = COURSE, driven: bool = False) -> str:
        return standstill.node_next("n7", node, course, driven=driven)

    repair = "fleetdrv repair n7 --playbook b.yaml -i i"
    failed = Cordon(run="r1", pool="gpu", holder="a", reason="b", since="c", touched=True, failed="d")
    assert todo(a_node(CORDON)) == f"fleetdrv apply b.yaml -i i; or this node alone: {repair}"
    assert todo(a_node(failed)) == repair
    assert todo(a_node(CORDON), driven=True) == ""
    assert todo(a_node(CORDON), None) == "fleetdrv repair n7 --playbook PLAYBOOK -i INVENTORY"
    held = a_node(CORDON)
    held["metadata"]["labels"] = {names.HOLD_LABEL: "mine"}
    held["metadata"]["annotations"][names.HOLD] = Hold(who="ann", reason="mine", since="x").to_json()
    assert todo(held, driven=True) == "fleetdrv release n7"


def test_what_a_node_in_hand_waits_for() -> None:
    def waits(node: dict[str, Any], *titles: str) -> str:
        return standstill.waits_for(node, [{}] * len(titles), titles)

    touched = Cordon(run="r1", pool="gpu", holder="a", reason="b", since="c", touched=True, step="r1.outage.1",
                     allocatable={"example.com/gpu": "8"}, daemon_sets=("gpu/plugin",))
    assert waits(a_node(CORDON)) == "its drain"
    assert waits(a_node(CORDON), *"abcde") == "a, b, c and 2 more to end"
    assert waits(a_node(touched)) == "its job r1.outage.1"
    back = a_node(touched, allocatable={"example.com/gpu": "0"})
    back["spec"]["taints"] = []
    assert waits(back) == "example.com/gpu (0 of 8), gpu/plugin to be back"
    assert waits(a_node()) == ""
