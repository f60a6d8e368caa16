"""Other programs that take nodes out of service are seen, named and left alone, on both clusters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv import neighbours
from fleetdrv.api import Answer, Api
from fleetdrv.cluster import KubectlCluster
from fleetdrv.effects import Effects
from fleetdrv.errors import Forbidden
from fleetdrv.kubectl import Proxy
from fleetdrv.lab import controlplane
from fleetdrv.ownership import Object
from fleetdrv.policy import Drain
from tests.cluster.front import Front, Maintained
from tests.cluster.test_daemons import Stage
from tests.fixtures_cluster import FakeWorld, RealWorld, World

NOW = datetime(2026, 11, 25, 5, 0, tzinfo=UTC)
EARLIER = "2026-11-25T04:59:00.123456789Z"
MEDIK8S, NVIDIA = "nodemaintenance.medik8s.io/v1beta1", "maintenance.nvidia.com/v1alpha1"


def a_node(**labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "n1", "labels": labels}}


def a_kured(lock: Any) -> dict[str, Any]:
    """Return kured's DaemonSet while it holds a lock; text is taken as it is."""
    text = lock if isinstance(lock, str) else json.dumps(lock)
    labels = {"name": "kured"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": "kured",
            "namespace": "kube-system",
            "annotations": {neighbours.KURED_LOCK: text},
        },
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"nodeSelector": {"no": "node"}, "containers": [{"name": "c", "image": "none"}]},
            },
        },
    }


def a_maintenance(node: str, version: str, **spec: str) -> dict[str, Any]:
    metadata = {"name": f"m-{node}"} | ({"namespace": "default"} if version == NVIDIA else {})
    return {
        "apiVersion": version,
        "kind": "NodeMaintenance",
        "metadata": metadata,
        "spec": {"nodeName": node, **spec},
    }


def seen(
    node: Object | None = None, kured: Object | None = None, *maintenances: Object
) -> tuple[str, ...]:
    return neighbours.at_work(node or a_node(), kured, maintenances, NOW)


def test_a_node_on_which_nobody_works_is_free() -> None:
    other = {"nodeID": "n2", "created": EARLIER, "TTL": 0}
    done = {"nvidia.com/gpu-driver-upgrade-state": "upgrade-done", "x/ofed-driver-upgrade-state": ""}
    assert seen(a_node(**done), a_kured(other), a_maintenance("n2", NVIDIA), a_maintenance("n10", MEDIK8S)) == ()
    assert seen(a_node(), a_kured({"maxOwners": 2, "locks": None})) == ()
    assert seen(a_node(), {"metadata": {"name": "kured"}}) == ()


@pytest.mark.parametrize(
    "lock",
    [
        {"nodeID": "n1", "created": EARLIER, "TTL": 0},
        {"nodeID": "n1", "metadata": {"unschedulable": False}, "created": EARLIER, "TTL": 3600 * 10**9},
        {"maxOwners": 2, "locks": [{"nodeID": "n2"}, {"nodeID": "n1", "created": EARLIER, "TTL": 0}]},
    ],
)
def test_kureds_lock_for_the_node_names_kured(lock: Any) -> None:
    assert seen(None, a_kured(lock)) == (f"kured reboots it, since {EARLIER} (weave.works/kured-node-lock)",)


@given(st.integers(-3, 3), st.integers(1, 3600))
def test_a_lock_of_kureds_counts_until_kured_itself_would_take_it_over(off: int, ttl: int) -> None:
    created = NOW - timedelta(seconds=ttl + off)
    lock = {"nodeID": "n1", "created": created.isoformat(), "TTL": ttl * 10**9}
    assert bool(seen(None, a_kured(lock))) == (off < 0)


@pytest.mark.parametrize("text", ["", "n1", "[1]", '{"locks": 1}', '{"locks": ["n1"]}', '"n1"', "null"])
def test_a_lock_that_cannot_be_read_blocks(text: str) -> None:
    (said,) = seen(None, a_kured(text))
    assert "kured's lock cannot be read" in said


@pytest.mark.parametrize("created", [None, "", "yesterday"])
def test_a_lock_of_unknown_age_is_not_old(created: str | None) -> None:
    assert len(seen(None, a_kured({"nodeID": "n1", "created": created, "TTL": 1}))) == 1


def test_every_neighbour_is_named() -> None:
    node = a_node(**{"nvidia.com/gpu-driver-upgrade-state": "drain-required"})
    node["metadata"]["annotations"] = {neighbours.KURED_REBOOT: EARLIER}
    named = seen(
        node,
        a_kured({"nodeID": "n1", "created": EARLIER}),
        a_maintenance("n1", MEDIK8S, reason="new fans"),
        a_maintenance("n1", NVIDIA, requestorID="network.operator", additionalRequestors=["gpu.operator"]),
    )
    assert named == (
        f"kured means to reboot it, since {EARLIER} (annotation weave.works/kured-reboot-in-progress)",
        f"kured reboots it, since {EARLIER} (weave.works/kured-node-lock)",
        "an operator upgrades its driver (nvidia.com/gpu-driver-upgrade-state=drain-required)",
        "NodeMaintenance m-n1 of nodemaintenance.medik8s.io is for it: new fans",
        "NodeMaintenance default/m-n1 of maintenance.nvidia.com is for it: network.operator, gpu.operator",
    )


@pytest.mark.parametrize("state", ["upgrade-required", "upgrade-failed", "uncordon-required", "what"])
def test_any_upgrade_state_but_done_counts(state: str) -> None:
    assert len(seen(a_node(**{"nvidia.com/ofed-driver-upgrade-state": state}))) == 1


# ---- read through the port


def given_maintenances(world: World, folder: Path, *objects: Mapping[str, Any]) -> None:
    """Let the world's cluster have them."""
    if isinstance(world, RealWorld):
        world._front = Maintained(world._user, folder, objects)  # type: ignore[assignment]  # closed with the world
        world.cluster = KubectlCluster(world._front.api, world.effects)
    else:
        for obj in objects:
            world.create(obj)


def test_a_cluster_without_the_kinds_has_no_maintenance(world: World) -> None:
    assert world.cluster.maintenances() == ()
    assert Stage(world, Drain()).service.neighbours() == ()


@pytest.mark.parametrize("versions", [(MEDIK8S,), (NVIDIA,), (MEDIK8S, NVIDIA)])
def test_maintenances_of_each_kind_are_listed(world: World, tmp_path: Path, versions: Sequence[str]) -> None:
    name = f"node-{world.tag}"
    made = [a_maintenance(node, version) for version in versions for node in (name, "n2")]
    given_maintenances(world, tmp_path, *made)
    listed = [(m["apiVersion"], m["spec"]["nodeName"]) for m in world.cluster.maintenances()]
    assert sorted(listed) == sorted((m["apiVersion"], m["spec"]["nodeName"]) for m in made)
    said = Stage(world, Drain()).service.neighbours()
    assert [text.split(" ")[3] for text in said] == [version.partition("/")[0] for version in versions]


def test_kured_and_operators_are_seen_at_the_node(world: World) -> None:
    stage = Stage(world, Drain())
    world.create(a_kured({"nodeID": stage.name, "created": "2026-11-23T04:00:00Z", "TTL": 0}))
    world.patch_node(
        stage.name, {"metadata": {"labels": {"nvidia.com/gpu-driver-upgrade-state": "cordon-required"}}}, "op"
    )
    assert [said.split(" ")[0] for said in stage.service.neighbours()] == ["kured", "an"]


def test_what_may_not_be_read_blocks_and_says_what_to_grant(fake_world: FakeWorld) -> None:
    stage = Stage(fake_world, Drain())
    fake_world.fake.blind = True
    (said,) = stage.service.neighbours()
    assert "cannot be seen: GET nodemaintenances" in said
    assert "kubectl apply -f docs/clusterrole.yaml" in said


@pytest.fixture
def stranger(control_plane: Path) -> Iterator[Api]:
    """A user without any role."""
    kubeconfig = controlplane.user_kubeconfig(control_plane.parent, "stranger", ["nobody"])
    with Proxy(kubeconfig=str(kubeconfig)) as proxy:
        yield proxy.api


def test_a_kind_that_is_not_there_is_told_from_one_that_may_not_be_read(
    stranger: Api, user_api: Api, tmp_path: Path
) -> None:
    """The real API refuses a stranger's list of a kind that it does not have, so the group is asked for first."""
    for group in neighbours.MAINTENANCE_GROUPS:
        path = f"/apis/{group}/v1/nodemaintenances"
        assert stranger.send("GET", path).code == 403
        assert user_api.send("GET", path).code == 404, "granted by docs/clusterrole.yaml"
        assert stranger.send("GET", f"/apis/{group}").code == 404
    assert KubectlCluster(stranger, Effects()).maintenances() == ()
    front = Front(stranger, tmp_path)
    group = {"preferredVersion": {"groupVersion": MEDIK8S}}
    passed = front.answer
    front.answer = lambda method, path, body, kind: (  # type: ignore[method-assign]
        Answer(code=200, body=group) if path.count("/") == 2 else passed(method, path, body, kind)
    )
    try:
        with pytest.raises(Forbidden, match="nodemaintenances"):
            KubectlCluster(front.api, Effects()).maintenances()
    finally:
        front.close()
