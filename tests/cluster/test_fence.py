"""Fencing off who may wake again, on both clusters: what was decided before cannot be written any more."""

from __future__ import annotations

import pytest

from fleetdrv import holding, names, ownership
from fleetdrv.errors import Conflict, Stopped
from fleetdrv.fence import fence
from fleetdrv.policy import Drain
from fleetdrv.proc import this_process
from tests.cluster.test_daemons import Stage
from tests.cluster.test_holding import FAR, Clock
from tests.fixtures_cluster import World


def fences(world: World, name: str) -> str | None:
    token: str | None = world.cluster.node(name)["metadata"].get("annotations", {}).get(names.FENCE)
    return token


def test_nodes_that_could_still_be_cordoned_are_written_and_no_others(world: World) -> None:
    serving, cordoned, of_another_pool = (world.node(name) for name in ("serving", "cordoned", "another"))
    world.cordon(cordoned)
    fence(world.cluster, {serving, cordoned, "gone"}, 7)
    assert [fences(world, name) for name in (serving, cordoned, of_another_pool)] == ["7", None, None]


def test_a_cordon_that_was_decided_before_is_refused_and_not_tried_again(world: World) -> None:
    stage = Stage(world, policy=Drain())
    before = world.cluster.node(stage.name)
    fence(world.cluster, {stage.name}, 2)
    patch, version = {"spec": {"unschedulable": True}}, before["metadata"]["resourceVersion"]
    with pytest.raises(Conflict):
        world.cluster.patch_node(stage.name, patch, version)

    def check() -> None:
        raise Stopped("the lock was lost")

    with pytest.raises(Stopped):
        stage.service.take_out("r1", "why", check)
    assert not ownership.unschedulable(world.cluster.node(stage.name))


def test_it_is_owed_until_it_is_done_by_whoever_holds_the_pool_then(world: World) -> None:
    clock, done = Clock(), list[int]()

    def fails(token: int) -> None:
        raise Conflict(f"{token}")

    holding.acquire(world.cluster, world.pool, FAR, timing=clock.timing)
    with holding.acquire(world.cluster, world.pool, this_process(), timing=clock.timing) as held, \
            pytest.raises(Conflict):
        held.fence_off(fails)
    with holding.acquire(world.cluster, world.pool, this_process(), timing=clock.timing) as held:
        held.fence_off(done.append)
        held.fence_off(done.append)
    assert done == [held.token]


def test_whoever_held_a_lease_that_was_deleted_is_fenced_off_and_a_first_run_fences_nobody(world: World) -> None:
    """No Lease, and nodes that have seen a token: somebody may still believe that he holds it."""
    done, clock = list[int](), Clock()
    with holding.acquire(world.cluster, world.pool, this_process(), floor_token=7, timing=clock.timing) as held:
        held.fence_off(done.append)
    with holding.acquire(world.cluster, f"{world.pool}-new", this_process(), timing=clock.timing) as held:
        held.fence_off(done.append)
    assert done == [8]
