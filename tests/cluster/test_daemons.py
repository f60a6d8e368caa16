"""DaemonSets that hold the device go off while the node is out, and are back before it is, on both clusters."""

from __future__ import annotations

import time

import pytest

from fleetdrv import names, ownership, pods
from fleetdrv.errors import NotFound, NotOurs, Permanent
from fleetdrv.ownership import Kind
from fleetdrv.policy import Drain, Operand
from fleetdrv.records import Result
from fleetdrv.service import KubernetesNode
from tests.cluster.test_drain import Bystander
from tests.fixtures_cluster import World, eventually

LABEL = "operator.example/deploy.plugin"
OFF = "paused-for-driver-upgrade"
ALL = [{"operator": "Exists"}]
OPERANDS = Drain(operands=(Operand(label=LABEL, off=OFF),))


class Stage:
    """A node of ours, and the rest of the world at work while anybody waits."""

    def __init__(self, world: World, policy: Drain) -> None:
        self.world, self.name, self.bystander = world, world.node(), Bystander()
        self.bystander.meanwhile = self.settle
        self.service = KubernetesNode(
            cluster=world.cluster,
            node=self.name,
            pool="gpu",
            holder="op@laptop",
            policy=policy,
            clock=lambda: "2026-11-23T05:00:00Z",
            monotonic=lambda: self.bystander.seconds,
            sleep=self.bystander.sleep,
        )

    def settle(self) -> None:
        self.world.settle(self.name)
        time.sleep(0.05)

    def ready(self, daemon: str) -> str:
        """Wait until a DaemonSet's pod serves; return its UID."""
        eventually(lambda: self.world.daemon(daemon, self.name) is not None, f"{daemon}'s pod")
        pod = self.world.daemon(daemon, self.name)
        assert pod is not None
        return pods.uid(pod)

    def uids(self) -> set[str]:
        return set(map(pods.uid, self.world.cluster.pods_on(self.name)))

    def label(self) -> str | None:
        labels: dict[str, str] = self.world.cluster.node(self.name)["metadata"]["labels"]
        return labels.get(LABEL)

    def switch(self, value: str | None) -> None:
        self.world.patch_node(self.name, {"metadata": {"labels": {LABEL: value}}}, "operator")

    def hold_off(self, *holders: str) -> None:
        self.service.hold_off("r1", holders, lambda: None, self.bystander.said.append)

    def give_back(self) -> None:
        result = Result(run="r1", digest="d", verdict="changed", finding="", at="2026-11-23T05:00:00Z")
        self.service.give_back("r1", result, {})


def test_a_daemon_sets_pod_goes_and_is_back_ready_before_the_uncordon(world: World) -> None:
    stage = Stage(world, Drain())
    world.daemon_set("plugin")
    world.daemon_set("bystander")
    holder, other = stage.ready("plugin"), stage.ready("bystander")
    stage.service.take_out("r1", "why")
    stage.hold_off(holder, "a-process-of-no-pod")
    assert holder not in stage.uids()
    for _ in range(20):
        stage.settle()
    assert stage.uids() == {other}  # the taint keeps it off
    record = ownership.state(world.cluster.node(stage.name)).record
    assert record is not None
    assert record.daemon_sets == (f"{world.namespace}/plugin",)
    cordons: list[bool] = []

    def watch() -> None:
        cordons.append(ownership.unschedulable(world.cluster.node(stage.name)))
        stage.settle()

    stage.bystander.meanwhile = watch
    stage.give_back()
    assert len(stage.uids()) == 2
    assert cordons  # it was waited for
    assert all(cordons)
    assert all(pods.serves(pod) for pod in world.cluster.pods_on(stage.name))
    assert ownership.state(world.cluster.node(stage.name)).kind is Kind.FREE


def test_one_that_tolerates_the_taint_is_a_blocker_and_nothing_is_done(world: World) -> None:
    stage = Stage(world, Drain())
    world.daemon_set("stubborn", tolerations=ALL)
    world.daemon_set("plugin")
    stubborn, plugin = stage.ready("stubborn"), stage.ready("plugin")
    stage.service.take_out("r1", "why")
    writes = world.effects.api_writes
    with pytest.raises(Permanent, match=rf"{world.namespace}/stubborn-\S+: holds the device.*drain.operands"):
        stage.hold_off(stubborn, plugin)
    assert world.effects.api_writes == writes
    assert stage.uids() == {stubborn, plugin}


def test_an_operators_label_switches_it_off_and_is_put_back(world: World) -> None:
    stage = Stage(world, OPERANDS)
    stage.switch("true")
    world.daemon_set("stubborn", tolerations=ALL, label=LABEL)
    holder = stage.ready("stubborn")
    stage.service.take_out("r1", "why")
    stage.hold_off(holder)
    assert stage.uids() == set()
    assert stage.label() == OFF
    stage.hold_off(holder)  # again, as after a crash: what was found is not forgotten
    stage.give_back()
    assert stage.label() == "true"
    assert len(stage.uids()) == 1


def test_operands_go_off_though_they_do_not_hold_the_device_now(world: World) -> None:
    stage = Stage(world, OPERANDS)
    stage.switch("true")
    world.daemon_set("stubborn", tolerations=ALL, label=LABEL)
    stage.ready("stubborn")
    stage.service.take_out("r1", "why")
    stage.hold_off()
    assert stage.uids() == set()


@pytest.mark.parametrize("value", [None, "mine"])
def test_a_label_that_somebody_else_changed_meanwhile_is_theirs(world: World, value: str | None) -> None:
    stage = Stage(world, OPERANDS)
    stage.switch("true")
    stage.service.take_out("r1", "why")
    stage.hold_off()
    assert stage.label() == OFF
    stage.switch(value)
    stage.give_back()
    assert stage.label() == value


def test_a_label_that_the_node_has_not_is_not_made(world: World) -> None:
    stage = Stage(world, OPERANDS)
    stage.service.take_out("r1", "why")
    writes = world.effects.api_writes
    stage.hold_off()
    assert stage.label() is None
    assert world.effects.api_writes == writes


def test_labels_are_put_back_though_the_cordon_was_lost(world: World) -> None:
    stage = Stage(world, OPERANDS)
    stage.switch("true")
    stage.service.take_out("r1", "why")
    stage.hold_off()
    world.cordon(stage.name, lift=True)
    with pytest.raises(NotOurs):
        stage.hold_off()
    stage.service.let_go(Result(run="r1", digest="d", verdict="failed", finding="", at=""))
    assert stage.label() == "true"


def test_a_daemon_set_that_is_deleted_meanwhile_is_not_waited_for(world: World) -> None:
    stage = Stage(world, Drain())
    world.daemon_set("plugin")
    holder = stage.ready("plugin")
    assert world.cluster.daemon_set(world.namespace, "plugin")["metadata"]["name"] == "plugin"
    stage.service.take_out("r1", "why")
    stage.hold_off(holder)
    world.delete_daemon_set("plugin")
    with pytest.raises(NotFound):
        world.cluster.daemon_set(world.namespace, "plugin")
    stage.give_back()
    assert stage.bystander.seconds < 10
    assert ownership.state(world.cluster.node(stage.name)).kind is Kind.FREE


def test_one_that_does_not_come_back_keeps_the_node_out_and_is_named(world: World) -> None:
    stage = Stage(world, Drain())
    world.daemon_set("plugin")
    holder = stage.ready("plugin")
    stage.service.take_out("r1", "why")
    stage.hold_off(holder)
    stage.bystander.meanwhile = lambda: None  # no kubelet starts it
    with pytest.raises(Permanent, match=f"no Ready pod of DaemonSet {world.namespace}/plugin"):
        stage.give_back()
    node = world.cluster.node(stage.name)
    assert ownership.state(node).kind is Kind.OURS
    stage.hold_off()  # the way back had taken the taint off; out again, it stands again
    assert names.MAINTENANCE_TAINT in {taint["key"] for taint in world.cluster.node(stage.name)["spec"]["taints"]}


def test_a_pod_that_the_drain_skips_blocks_once_it_holds_the_device(world: World) -> None:
    stage = Stage(world, Drain.model_validate({"skip": [{"selector": "keep in (yes, always)"}]}))
    kept = world.pod("kept", stage.name, labels={"keep": "yes"})
    world.pod("other", stage.name, labels={"keep": "no"})
    stage.service.take_out("r1", "why")
    stage.service.empty(lambda: None, stage.bystander.said.append)
    assert stage.uids() == {pods.uid(kept)}
    with pytest.raises(Permanent, match=r"kept: holds the device and stays: drain.skip leaves keep in"):
        stage.hold_off(pods.uid(kept))
