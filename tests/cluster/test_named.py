"""A Node that somebody named: worked on under a colleague's cordon and while it is not Ready, proven."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from fleetdrv import holds, names, ownership
from fleetdrv.announce import Herald
from fleetdrv.errors import NodeRefused, NotOurs, Permanent, Transient
from fleetdrv.named import READY_SECONDS, NamedNode
from fleetdrv.playbook import Drain
from fleetdrv.records import Hold, Result
from fleetdrv.standing import is_out
from fleetdrv.swap import swap_node
from fleetdrv.turn import Grip
from tests.cluster.examples import a_cordon
from tests.fixtures_cluster import READY, FakeWorld

RESULT = Result(run="r1", digest="d", verdict="changed", finding="", at="2026-11-23T05:00:30Z")
GONE = [{"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status."}]


@dataclass
class Stage:
    """A node, its Service for a repair, and a clock that only sleeping moves."""

    world: FakeWorld = field(default_factory=FakeWorld)
    now: float = 0.0
    ready_at: float | None = None
    kind: str = "node"

    def __post_init__(self) -> None:
        self.name = self.world.node(self.kind)
        self.node = NamedNode(
            herald=Herald(self.world.cluster, lambda _: None),
            cluster=self.world.cluster,
            node=self.name,
            pool="gpu",
            holder="op@laptop",
            policy=Drain(),
            clock=lambda: "2026-11-23T05:00:00Z",
            monotonic=lambda: self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.ready_at is not None and self.now >= self.ready_at:
            self.status({"conditions": READY})

    def status(self, status: dict[str, Any], name: str = "") -> None:
        self.world.fake.patch("Node", "", name or self.name, {"status": status}, "kubelet")

    def read(self) -> dict[str, Any]:
        return dict(self.world.cluster.node(self.name))

    def change(self) -> None:
        self.node.take_out("r1", "why")
        self.node.mark_touched("r1", "r1.outage.1")


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_colleagues_cordon_is_worked_under_and_stays_theirs(stage: Stage) -> None:
    stage.world.cordon(stage.name)
    before = stage.read()
    assert stage.node.standing().grip is Grip.FREE
    assert stage.node.standing().out
    stage.change()
    assert stage.node.standing().grip is Grip.OURS
    stage.node.give_back("r1", RESULT, {})
    after = stage.read()
    assert after["spec"] == before["spec"]
    assert ownership.state(after).manager == "kubectl-cordon"


def test_what_is_out_for_another_pool_or_held_is_nobodys_to_take(stage: Stage) -> None:
    def taken(node: ownership.Object) -> ownership.Patch:
        return ownership.cordon_patch(node, ownership.cordon_record(node, a_cordon(pool="other")))

    swap_node(stage.world.cluster, stage.name, taken)
    assert stage.node.standing().grip is Grip.FOREIGN
    with pytest.raises(NotOurs):
        stage.node.take_out("r1", "why")
    held = Stage()
    hold = Hold(who="ann", reason="mine", since="x")
    swap_node(held.world.cluster, held.name, lambda node: holds.hold_patch(node, hold))
    assert held.node.standing().grip is Grip.HELD
    with pytest.raises(NotOurs):
        held.node.take_out("r1", "why")


def test_a_node_that_is_not_ready_proves_itself_by_a_machine_id_that_no_other_has(stage: Stage) -> None:
    assert stage.node.standing().boot_id == f"boot-{stage.name}"
    stage.status({"conditions": GONE})
    seen = stage.node.standing()
    assert (seen.machine_id, seen.boot_id, seen.ready) == (f"machine-{stage.name}", "", False)
    twin = Stage(stage.world, kind="twin")
    twin.status({"nodeInfo": {"machineID": "one"}, "conditions": GONE})
    stage.status({"nodeInfo": {"machineID": "one"}})
    with pytest.raises(NodeRefused, match=twin.name):
        stage.node.standing()
    twin.status({"conditions": READY})
    with pytest.raises(NodeRefused):
        stage.node.standing()
    assert twin.node.standing().boot_id, "one that is Ready has its boot id"


def test_nobody_is_evicted_where_no_kubelet_would_confirm_it(stage: Stage) -> None:
    stage.world.pod("work", stage.name)
    stage.status({"conditions": GONE})
    assert stage.node.obstacles() == ()
    stage.change()
    said: list[str] = []
    stage.node.empty(lambda: None, said.append)
    assert len(said) == 1
    assert not any(pod["metadata"].get("deletionTimestamp") for pod in stage.world.cluster.pods_on(stage.name))
    stage.node.hold_off("r1", (), lambda: None, said.append)
    with pytest.raises(Permanent, match="not Ready"):
        stage.node.hold_off("r1", ("uid",), lambda: None, said.append)


def test_what_was_changed_goes_back_once_it_is_ready(stage: Stage) -> None:
    stage.status({"conditions": GONE})
    stage.change()
    stage.ready_at = 60.0
    stage.node.give_back("r1", RESULT, {})
    assert stage.now >= 60.0
    assert not is_out(stage.read())


def test_one_that_stays_not_ready_stays_out_and_the_kubelets_word_is_told(stage: Stage) -> None:
    stage.status({"conditions": GONE})
    stage.change()
    with pytest.raises(Transient, match="Kubelet stopped posting") as told:
        stage.node.give_back("r1", RESULT, {})
    assert stage.now >= READY_SECONDS
    assert "journalctl -u kubelet" in told.value.remedy
    assert ownership.state(stage.read()).record is not None


def test_what_was_not_touched_goes_back_as_it_was_found(stage: Stage) -> None:
    stage.status({"conditions": GONE})
    stage.node.take_out("r1", "why")
    stage.node.give_back("r1", RESULT, {})
    assert stage.now == 0.0
    assert ownership.state(stage.read()).record is None


def test_a_quarantine_keeps_pods_off_counts_as_out_and_release_undoes_all_of_it(stage: Stage) -> None:
    before, hold = stage.read(), Hold(who="ann", reason="hardware: no PCI 10de:*", since="x")

    def once() -> ownership.Object:
        return swap_node(stage.world.cluster, stage.name, lambda node: holds.quarantine_patch(node, hold))

    marked = once()
    assert ownership.state(marked).held == "hardware: no PCI 10de:*, by ann since x"
    assert [(t["key"], t["effect"]) for t in marked["spec"]["taints"]] == [(names.QUARANTINE_TAINT, "NoSchedule")]
    assert is_out(marked)
    assert once() == marked, "nothing is written twice"
    found = {"metadata": {"annotations": {names.LAST_RESULT: "gpu-off-bus"}}}
    swap_node(stage.world.cluster, stage.name, lambda _: found)
    after = swap_node(stage.world.cluster, stage.name, holds.release_patch)
    assert names.LAST_RESULT not in after["metadata"].get("annotations", {}), "it is said to be mended"
    assert not is_out(after)
    assert after["spec"].get("taints") == before["spec"].get("taints")


def test_a_quarantine_leaves_a_hold_of_somebody_elses_as_it_is(stage: Stage) -> None:
    mine, theirs = (Hold(who=who, reason=who, since="x") for who in ("me", "ann"))
    swap_node(stage.world.cluster, stage.name, lambda node: holds.hold_patch(node, theirs))
    swap_node(stage.world.cluster, stage.name, lambda node: holds.quarantine_patch(node, mine))
    assert ownership.state(stage.read()).held == "ann, by ann since x"
    assert is_out(stage.read())
