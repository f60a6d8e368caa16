"""A hold: put and taken off from anywhere, obeyed by everybody, on both clusters and under the published role."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv import holds, names, orders, ownership, status
from fleetdrv.cluster import Cluster
from fleetdrv.errors import InputError, NotOurs, OnHold, Refused
from fleetdrv.lease import unheld
from fleetdrv.options import Options
from fleetdrv.ownership import Kind
from fleetdrv.policy import Drain
from fleetdrv.records import Hold, Result
from fleetdrv.service import KubernetesNode
from fleetdrv.swap import swap_node
from fleetdrv.turn import Grip
from tests.cluster.examples import cordon
from tests.cluster.test_daemons import Stage
from tests.cluster.test_ownership import apply, nodes, tidy
from tests.fakes.cluster import FakeCluster
from tests.fixtures_cluster import World, node_object

ANN = Hold(who="ann@desk (pid 1)", reason="memory errors, ticket 4711", since="2026-11-25T04:00:00Z")
SAID = "memory errors, ticket 4711, by ann@desk (pid 1) since 2026-11-25T04:00:00Z"
LABEL = "memory_errors__ticket_4711"


@given(nodes())
def test_hold_then_release_gives_back_the_node_as_found(node: dict[str, Any]) -> None:
    patch = holds.hold_patch(node, ANN)
    assert patch is not None
    held = apply(node, patch)
    assert ownership.state(held).kind is Kind.HELD
    assert ownership.state(held).held == SAID
    assert held["metadata"]["labels"][names.HOLD_LABEL] == LABEL
    release = holds.release_patch(held)
    assert release is not None
    assert apply(held, release) == tidy(node)


@given(st.text(min_size=1, max_size=300))
def test_any_reason_makes_a_label_and_is_kept_whole(reason: str) -> None:
    node = {"metadata": {"name": "n"}, "spec": {}}
    patch = holds.hold_patch(node, Hold(who="a", reason=reason, since="b"))
    assert patch is not None
    held = apply(node, patch)
    assert held["metadata"]["labels"][names.HOLD_LABEL]
    assert ownership.state(held).held == f"{reason}, by a since b"
    assert holds.release_patch(held)


def test_the_same_hold_is_put_once_and_another_never_replaces_it() -> None:
    node = {"metadata": {"name": "n"}, "spec": {}}
    held = apply(node, holds.hold_patch(node, ANN) or {})
    assert holds.hold_patch(held, Hold(who="bob", reason=ANN.reason, since="later")) is None
    with pytest.raises(Refused, match=r"n: is held already \(memory errors.*fleetdrv release n"):
        holds.hold_patch(held, Hold(who="bob", reason="a test", since="later"))


@pytest.mark.parametrize("annotation", [None, ANN.to_json(), "{}", json.dumps({"schema": 99})])
def test_a_label_that_somebody_set_by_hand_is_obeyed_and_stays_theirs(annotation: str | None) -> None:
    notes = {} if annotation is None else {names.HOLD: annotation}
    node = {"metadata": {"name": "n", "labels": {names.HOLD_LABEL: "rma"}, "annotations": notes}, "spec": {}}
    assert ownership.state(node).kind is Kind.HELD
    assert ownership.state(node).held == "fleetdrv.io/hold=rma"
    with pytest.raises(Refused):
        holds.release_patch(node)
    with pytest.raises(Refused):
        holds.hold_patch(node, ANN)


def test_an_annotation_whose_label_is_gone_holds_nobody_and_is_swept() -> None:
    node = {"metadata": {"name": "n", "annotations": {names.HOLD: ANN.to_json()}}, "spec": {}}
    assert ownership.state(node).kind is Kind.FREE
    assert "annotations" not in apply(node, holds.release_patch(node) or {})["metadata"]
    assert holds.release_patch({"metadata": {"name": "n"}}) is None


# ---- the commands


@pytest.fixture
def commands(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Let the commands find this world's cluster."""

    @contextmanager
    def cluster(_: Options) -> Iterator[Cluster]:
        yield world.cluster

    monkeypatch.setattr(orders, "_cluster", cluster)
    monkeypatch.setattr(status, "_cluster", cluster)
    return world


def test_hold_status_release(commands: World, capsys: pytest.CaptureFixture[str]) -> None:
    name = commands.node()
    before = commands.cluster.node(name)["metadata"].get("labels")
    assert orders.hold(Options(reason=" memory errors, ticket 4711 "), name) == 0
    assert f"fleetdrv release {name}" in capsys.readouterr().out
    assert commands.cluster.node(name)["metadata"]["labels"][names.HOLD_LABEL] == LABEL
    writes = commands.effects.api_writes
    assert writes == 1
    orders.hold(Options(reason="memory errors, ticket 4711"), name)
    assert commands.effects.api_writes == writes, "held already"
    capsys.readouterr()
    commands.cluster.create_lease(unheld(commands.pool))  # all pools of this API server are other tests', too
    writes += 1
    status.status(Options(json=True), commands.pool)
    assert json.loads(capsys.readouterr().out)["held"][name].startswith("memory errors, ticket 4711, by ")
    status.status(Options(), commands.pool)
    assert f"{name}: held (memory errors, ticket 4711, by " in capsys.readouterr().out
    assert orders.release(Options(), name) == 0
    assert commands.cluster.node(name)["metadata"].get("labels") == before
    assert orders.release(Options(), name) == 0
    assert commands.effects.api_writes == writes + 1, "nobody held it any more"


def test_an_unknown_node_is_refused_with_names_like_it(commands: World) -> None:
    name = commands.node("gpu-07")
    for order in (orders.hold, orders.release):
        with pytest.raises(InputError, match=f"no node {name}x in this cluster; near: {name}") as refused:
            order(Options(reason="test"), f"{name}x")
        assert refused.value.exit_code == 3


def test_a_hold_without_a_reason_is_refused(commands: World) -> None:
    name = commands.node()
    with pytest.raises(InputError, match="--reason"):
        orders.hold(Options(reason=" "), name)
    assert names.HOLD_LABEL not in commands.cluster.node(name)["metadata"]["labels"]


# ---- a node that is out by our hand


def hold(world: World, name: str) -> None:
    swap_node(world.cluster, name, lambda node: holds.hold_patch(node, ANN))


def done(service: KubernetesNode) -> Result:
    return Result(run="r1", digest="d", verdict="skipped", finding="held", at=service.clock())


def _ours(node: dict[str, Any]) -> tuple[object, ...]:
    """What a step may write; a cordon's taint comes from a controller, in its own time, with a new version."""
    metadata = node["metadata"]
    notes = {key: note for key, note in metadata.get("annotations", {}).items() if key.startswith("fleetdrv.io/")}
    return metadata.get("labels"), notes, ownership.unschedulable(node)


STEPS: dict[str, Callable[[KubernetesNode], None]] = {
    "cordon": lambda service: service.take_out("r1", "why"),
    "cordon by a later run": lambda service: service.take_out("r2", "why"),
    "drain": lambda service: service.empty(lambda: None, lambda _: None),
    "hold off": lambda service: service.hold_off("r1", (), lambda: None, lambda _: None),
    "touch": lambda service: service.mark_touched("r1", "r1.outage.1"),
    "roll back": lambda service: service.mark_touched("r1", "r1.rollback.1"),
}


@pytest.mark.parametrize("step", STEPS)
def test_no_step_begins_on_a_node_that_is_held(world: World, step: str) -> None:
    stage = Stage(world, policy=Drain())
    world.pod("a", stage.name)
    cordon(world.cluster, stage.name)
    if step == "roll back":
        stage.service.mark_touched("r1", "r1.outage.1")
    hold(world, stage.name)
    seen = _ours(world.cluster.node(stage.name))
    with pytest.raises(OnHold, match=r"held \(memory errors, ticket 4711, by ann"):
        STEPS[step](stage.service)
    assert _ours(world.cluster.node(stage.name)) == seen
    assert world.cluster.pods_on(stage.name)
    standing = stage.service.standing()
    assert (standing.grip, standing.held) == (Grip.OURS, SAID)


def test_a_node_that_is_held_is_not_cordoned_and_one_of_ours_goes_back(world: World) -> None:
    stage = Stage(world, policy=Drain())
    cordon(world.cluster, stage.name)
    hold(world, stage.name)
    stage.service.give_back("r1", done(stage.service), {})
    assert stage.service.standing().grip is Grip.HELD
    assert not ownership.unschedulable(world.cluster.node(stage.name))
    with pytest.raises(NotOurs, match="held"):
        stage.service.take_out("r1", "why")


def test_hold_says_what_becomes_of_a_node_that_is_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeCluster()
    fake.create(node_object("n", {}))

    @contextmanager
    def cluster(_: Options) -> Iterator[Cluster]:
        yield fake

    monkeypatch.setattr(orders, "_cluster", cluster)
    monkeypatch.setattr(status, "_cluster", cluster)
    cordon(fake, "n")
    orders.hold(Options(reason="test"), "n")
    assert "ours for run r1: it goes back as it was found" in capsys.readouterr().out
    orders.release(Options(), "n")
    assert "n: not held; it is still out of service" in capsys.readouterr().out
