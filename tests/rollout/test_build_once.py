"""Build once: what a fleet compiles, counted by the calls of make on its nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetdrv.api import Api
from tests.rollout.points import Moment
from tests.rollout.sim_fleet import SimFleet
from tests.sim.node import SimNode, build_id, headers_kernel

pytestmark = pytest.mark.timeout(600)

OWN, OTHER = headers_kernel(), "6.1.0-99-sim"


@pytest.fixture
def mixed(tmp_path: Path, least_privilege: Path, admin_api: Api, builds: Path) -> Iterator[SimFleet]:
    """Four nodes: two with one kernel, one with another, one that can boot both."""
    kernels = {"n1": (OWN,), "n2": (OWN, OTHER), "n3": (OTHER,), "n4": (OWN,)}

    def make(folder: Path, name: str, builds: Path) -> SimNode:
        return SimNode(folder, name, builds=builds, kernels=kernels[name.rpartition("-")[2]])

    made = SimFleet(tmp_path, least_privilege, admin_api, builds, size=4, make=make)
    yield made
    made.close()


def test_four_nodes_with_two_kernels_compile_twice(mixed: SimFleet) -> None:
    ended = mixed.apply("1.0", max_parallel=4)
    compiled = [kernel for kernels in mixed.compiled().values() for kernel in kernels]
    assert sorted(compiled) == sorted([OWN, OTHER]), (mixed.compiled(), ended)
    for node in mixed.nodes.values():
        files = list((node.folder / "modules/up").glob("*/updates/dkms/fleetdrv_toy.ko"))
        assert {path.parts[-4] for path in files} == set(node.kernels)
        assert node.loaded()["fleetdrv_toy"] == build_id(
            node.folder / "modules/up" / node.kernel / "updates/dkms/fleetdrv_toy.ko"
        )
        for path in files:
            assert f"vermagic={path.parts[-4]} ".encode() in path.read_bytes()


def test_a_later_node_with_a_known_kernel_compiles_nothing(fleet: SimFleet) -> None:
    first, second = fleet.nodes
    fleet.apply("1.0", "-l", first)
    assert fleet.compiled() == {first: [OWN], second: []}
    fleet.points.arm(-1, Moment.BEFORE)
    ended = fleet.apply("1.0")
    assert fleet.compiled() == {first: [OWN], second: []}
    assert [p.what for p in fleet.points.seen if p.kind == "exec" and p.what == "built"] == []
    assert fleet.nodes[second].loaded() == fleet.nodes[first].loaded(), ended


def test_a_build_that_was_tampered_with_is_told_and_compiled_again(fleet: SimFleet) -> None:
    first, second = fleet.nodes
    fleet.apply("1.0", "-l", first)
    (kept,) = fleet.cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    ended = fleet.apply("1.0")
    assert "damaged or tampered with" in ended.errors
    assert fleet.compiled() == {first: [OWN], second: [OWN]}
    assert fleet.nodes[second].loaded()
    (again,) = fleet.cache.iterdir()
    assert hashlib.sha256(again.read_bytes()).hexdigest() in again.name


def test_a_cache_that_cannot_be_used_costs_compiles_and_nothing_else(fleet: SimFleet) -> None:
    fleet.cache.parent.mkdir(parents=True)
    fleet.cache.write_text("a file, no folder")
    ended = fleet.apply("1.0")
    assert sorted(len(kernels) for kernels in fleet.compiled().values()) == [1, 1]
    assert "no build can be kept there" in ended.errors


def test_a_node_that_cannot_build_keeps_no_other_from_building(fleet: SimFleet) -> None:
    first, second = fleet.nodes
    fleet.nodes[first].call("mkdir -p /var/lib/fleetdrv && mount -t tmpfs -o size=1m none /var/lib/fleetdrv")
    ended = fleet.apply("1.0", code=None, canary=0, max_failures=2, max_parallel=2)
    assert f"{first}: failed" in ended.out, ended
    assert fleet.compiled() == {first: [], second: [OWN]}
    assert fleet.nodes[second].loaded(), ended


def test_killed_before_the_build_was_fetched_it_is_fetched_by_the_next_run(fleet: SimFleet) -> None:
    first, second = fleet.nodes
    book = str(fleet.playbook("1.0"))
    fleet.points.arm(-1, Moment.BEFORE)
    fleet.points.on_arrival = lambda point: fleet.points.kill() if point.what == "built" else None
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes", "-l", first) as process:
        fleet.points.victim = process.pid
        process.communicate(timeout=120)
    fleet.points.victim = 0
    assert not list(fleet.cache.glob("*.tar.gz"))
    fleet.apply("1.0")
    assert fleet.compiled() == {first: [OWN], second: []} or fleet.compiled()[second] == [OWN]
    assert len(list(fleet.cache.glob("*.tar.gz"))) == 1
