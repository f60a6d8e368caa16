"""A controller that is stopped between its look at the Lease and its act, and wakes after the Lease has passed on.

Real processes on a real API server; whoever takes over is in a pid namespace of its own, as on another machine.
CI plays some rounds, `python -m tests.rollout` a hundred.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.fixtures_cluster import eventually
from tests.rollout.points import Moment, Point
from tests.rollout.rivals import Watch, acts, elsewhere, rival, start_elsewhere, tokens
from tests.rollout.sim_fleet import SimFleet

pytestmark = pytest.mark.timeout(3600)
WHOLE = os.environ.get("FLEETDRV_RELIABILITY") == "whole"
ROUNDS = [range(ten, ten + 10) for ten in range(0, 100, 10)] if WHOLE else [range(0, 100, 35)]


def command(fleet: SimFleet, verb: str, version: str, *options: str) -> tuple[str, ...]:
    book = str(fleet.playbook(version))
    yes = () if verb == "remediate" else ("--yes",)
    return (verb, book, "-i", str(fleet.inventory), *yes, *options)


@pytest.fixture
def watch(fleet: SimFleet, control_plane: Path) -> Iterator[Watch]:
    watching = Watch(fleet, control_plane)
    yield watching
    watching.close()


def cordons(node: str) -> Callable[[Point], bool]:
    """Tell the write that takes a node out of service."""
    return lambda point: point.target == node and "spec=taints,unschedulable" in point.what


def test_a_cordon_that_comes_late_is_no_node_too_many(fleet: SimFleet, watch: Watch) -> None:
    """It was decided while no node was out; by now another controller has taken the only slot."""
    cordons_late(fleet, watch, lambda: None)


@pytest.mark.skipif(not WHOLE, reason="of the full tier")
def test_a_cordon_that_comes_late_after_somebody_deleted_the_lease(fleet: SimFleet, watch: Watch) -> None:
    """Whoever takes the pool then cannot see that somebody still believes to hold it."""
    cordons_late(fleet, watch, fleet.delete_lease)


def cordons_late(fleet: SimFleet, watch: Watch, meanwhile: Callable[[], None]) -> None:
    """Stop a controller at its first cordon; something happens, another one takes the slot, and it goes on."""
    fleet.apply("1.0")
    first, second = fleet.nodes
    brake = fleet.nodes[second].folder / "wait-modprobe"
    brake.touch()
    begun = fleet.nodes[second].started("outage")
    with rival(fleet, cordons(first), *command(fleet, "apply", "1.1")) as late:
        assert late.stops()
        meanwhile()
        with start_elsewhere(fleet, *command(fleet, "apply", "1.1", "-l", second)) as other:
            eventually(lambda: bool(fleet.nodes[second].started("outage") - begun), "the other's outage", 240)
            ended = late.goes_on()
            brake.unlink()
            out, errors = other.communicate(timeout=240)
    assert (other.returncode, ended.code) == (0, 5), (out, errors, ended)
    assert "the lock was lost to " in ended.out
    assert watch.most == 1, watch.seen()
    assert fleet.nodes[first].call("cat /sys/class/misc/fleetdrv_toy/code").strip() == "1.0"
    fleet.apply("1.1")
    assert fleet.plan("1.1").code == 0


def test_a_job_that_comes_late_does_not_begin_on_a_node_that_serves_again(fleet: SimFleet) -> None:
    """Whoever took over wants what the node has: it went back without any job, and still knows the newer token."""
    fleet.apply("1.0")
    name, node = next(iter(fleet.nodes.items()))
    before = acts(fleet)[name]

    def launches(point: Point) -> bool:
        return (point.target, point.what) == (name, "launch outage")

    with rival(fleet, launches, *command(fleet, "apply", "1.1", "-l", name)) as late:
        assert late.stops()
        assert fleet.node(name)["spec"]["unschedulable"]
        other = elsewhere(fleet, *command(fleet, "apply", "1.0", "-l", name))
        assert other.code == 0, other
        assert not fleet.node(name)["spec"].get("unschedulable")
        ended = late.goes_on()
    assert ended.code == 5, ended
    assert acts(fleet)[name] == before
    assert "another controller took over" in node.call("cat /var/lib/fleetdrv/jobs/*.outage.1/log")
    assert node.call("cat /sys/class/misc/fleetdrv_toy/code").strip() == "1.0"
    assert fleet.plan("1.0", "-l", name).code == 0


@pytest.mark.parametrize("rounds", ROUNDS, ids=lambda rounds: f"{rounds.start} to {rounds[-1]}")
def test_whoever_wakes_late_changes_nothing_any_more(
    fleet: SimFleet, watch: Watch, rounds: range, record_property: Callable[[str, object], None]
) -> None:
    """A laptop and cron, one stopped at an effect of its run, the other on another machine; then both go on.

    Each round stops another effect; the two want the same version, or the later one what was there before.
    """
    fleet.apply("1.0")
    versions, stopped, late = ("1.0", "1.1"), 0, 0
    for number in rounds:
        wanted = versions[(number + 1) % 2]
        first, second = ("apply", "remediate") if number % 4 < 2 else ("remediate", "apply")
        other = wanted if number % 3 else versions[number % 2]
        fleet.points.arm(-1, Moment.BEFORE)
        at = partial(_is_number, fleet, number * 7 % 30)
        with rival(fleet, at, *command(fleet, first, wanted)) as sleeper:
            stopped += sleeper.stops()
            awake = elsewhere(fleet, *command(fleet, second, other))
            ended = sleeper.goes_on()
        last = fleet.apply(wanted, code=None)
        told = f"round {number}, {first} {wanted} at {sleeper.held}: {ended}\n{second} {other}: {awake}\n{last}"
        late += ended.code == 5
        assert last.code == 0, told
        assert watch.most <= 1, f"{watch.seen()}\n{told}"
        for name in fleet.nodes:
            assert tokens(fleet)[name] == sorted(tokens(fleet)[name]), told
            assert acts(fleet)[name] == sorted(acts(fleet)[name]), told
            assert fleet.nodes[name].call("cat /sys/class/misc/fleetdrv_toy/code").strip() == wanted, told
    record_property("rounds", len(rounds))
    record_property("stopped between look and act", stopped)
    record_property("ended by a lock that had passed on", late)
    record_property("changes of Nodes watched", len(watch.seen()))
    record_property("most nodes out at once", watch.most)
    assert stopped


def _is_number(fleet: SimFleet, number: int, _: Point) -> bool:
    return len(fleet.points.seen) > number
