"""The cluster as inventory, in memory and on a real API server under the published role."""

from __future__ import annotations

from fleetdrv import inventory, names
from fleetdrv.selection import Selection
from tests.fixtures_cluster import World


def test_nodes_by_label_are_the_pool_and_an_annotation_says_where_ssh_goes(world: World) -> None:
    first, second = world.node("a"), world.node("b")
    world.patch_node(second, {"metadata": {"annotations": {names.ADDRESS: "gate.example"}}}, "an-operator")
    wanted = Selection(
        everything=inventory.read(f"k8s:test={world.tag}"),
        group="gpu",
        limit=f"!{first}",
        pool="gpu",
        no_cluster=False,
        say=lambda _: None,
    )
    assert wanted.now() is None
    pool, chosen = wanted.ask(world.cluster)
    assert {host.name: host.variables["ansible_host"] for host in pool} == {first: first, second: "gate.example"}
    assert [(host.name, host.node_name) for host in chosen] == [(second, second)]
    assert world.effects.api_writes == 0
