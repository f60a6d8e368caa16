"""The loop over many nodes: what a failing cluster, a failing node or a soak may not do to the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleetdrv.alone import LoneLock
from fleetdrv.drive import Ending
from fleetdrv.errors import ClusterAway, ClusterError, Permanent, Stopped
from fleetdrv.events import Event
from fleetdrv.fleet import Fleet, Out, Result
from fleetdrv.records import RunRecord
from fleetdrv.rollout import Pool
from fleetdrv.turn import Debt, Owed, Verdict
from tests.core.factories import a_policy

OUTAGE = Owed(debt=Debt.OUTAGE, job="r1.outage.1", why="toy: loaded not as wanted")
CONVERGED = Owed(debt=Debt.NOTHING, verdict=Verdict.CONVERGED)


@dataclass(slots=True)
class Node:
    """A node driver in memory."""

    name: str
    world: World
    fails: bool = False
    staged: Owed = OUTAGE
    view: Any = None
    cordoned: bool = False

    def prepare(self, warrant: object) -> Owed:
        del warrant
        return self.staged

    def perform(self, warrant: object) -> Ending:
        del warrant
        self.cordoned = True
        self.world.most = max(self.world.most, sum(node.cordoned for node in self.world.nodes.values()))
        if self.fails:
            raise Permanent(self.name, "outage", "the job could not be started")
        self.cordoned = False
        return Ending(node=self.name, verdict=Verdict.CHANGED)

    def look(self, run: str) -> Owed:
        del run
        self.view = type("View", (), {"standing": type("Standing", (), {"out": False, "reason": ""})})
        return CONVERGED

    def ending(self, due: Owed) -> Ending:
        return Ending(node=self.name, verdict=due.verdict or Verdict.FAILED, why=due.why)

    def note(self, due: Owed, run: str) -> None:
        raise ClusterError(f"no answer: {due.why}, {run}")


class Lock(LoneLock):
    """Counts who asks for orders; may be lost."""

    asked = 0
    lost = ""

    def orders(self) -> str:
        self.asked += 1
        return ""

    def check(self) -> None:
        if self.lost:
            raise Stopped(self.lost)


@dataclass(slots=True)
class World:
    """A pool, a clock and a cluster that may be away."""

    nodes: dict[str, Node] = field(default_factory=dict)
    seconds: float = 0.0
    most: int = 0
    sleeps: int = 0
    away: Callable[[], bool] = lambda: False
    said: list[Event] = field(default_factory=list)
    lock: Lock = field(
        default_factory=lambda: Lock("r1", 1, RunRecord(id="r1", pool="gpu", playbook="toy", digest="d"))
    )

    def pool(self) -> tuple[Pool, Mapping[str, Out]]:
        if self.away():
            raise ClusterAway("GET /api/v1/nodes: no answer")
        outs = {name: Out(out=node.cordoned, ours=node.cordoned) for name, node in self.nodes.items()}
        return Pool(size=len(self.nodes)), outs

    def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        self.seconds += seconds
        assert self.sleeps < 1000, "an endless wait"

    def roll(self, interrupted: Callable[[], bool] = lambda: False, **policy: Any) -> Result:
        fleet = Fleet(
            drivers=self.nodes,  # type: ignore[arg-type]
            policy=a_policy(**policy),
            lock=self.lock,
            pool=self.pool,
            say=self.said.append,
            interrupted=interrupted,
            now=lambda: self.seconds,
            sleep=self.sleep,
        )
        for name in self.nodes:
            fleet.meet(name, OUTAGE)
        return fleet.run()


def a_world(*failing: bool) -> World:
    world = World()
    world.nodes = {f"n{n}": Node(f"n{n}", world, fails) for n, fails in enumerate(failing)}
    return world


def test_a_node_that_fails_right_after_its_cordon_keeps_its_slot() -> None:
    """The last look at the pool is older than that cordon."""
    world = a_world(True, False, False)
    result = world.roll(max_unavailable=1, max_failures=3)
    assert world.most == 1
    assert "1 of 1 out of service" in result.stopped


def test_an_api_that_is_away_for_a_moment_is_waited_for() -> None:
    world = a_world(False, False)
    world.away = lambda: world.seconds < 20
    result = world.roll()
    assert {ending.verdict for ending in result.endings} == {Verdict.CHANGED}
    assert not result.stopped


def test_an_api_that_stays_away_ends_the_rollout_with_the_lease_and_nobody_starts() -> None:
    world = a_world(False, False)

    def away() -> bool:
        world.lock.lost = "pool gpu: the lock could not be renewed for 40 s" if world.seconds > 40 else ""
        return True

    def orders() -> str:
        raise ClusterAway("GET lease: no answer")

    world.away = away
    world.lock.orders = orders  # type: ignore[method-assign]
    result = world.roll()
    assert result.stopped == "pool gpu: the lock could not be renewed for 40 s"
    assert sorted(result.waiting) == ["n0", "n1"]
    assert world.most == 0


def test_a_result_that_cannot_be_noted_does_not_end_the_rollout() -> None:
    world = a_world(False, False)
    world.nodes["n0"].staged = Owed(debt=Debt.NOTHING, verdict=Verdict.FAILED, why="does not compile")
    result = world.roll(max_failures=1)
    assert [ending.verdict for ending in result.endings] == [Verdict.FAILED, Verdict.CHANGED]
    assert "could not be noted" in "".join(event.text for event in world.said)


def test_a_soak_asks_for_orders_once_a_second_and_not_as_fast_as_it_can() -> None:
    world = a_world(False, False)
    world.roll(canary=1, soak_seconds=60)
    assert world.lock.record.canary_passed == ("n0",)
    assert 60 <= world.lock.asked < 80


def test_an_interrupt_does_not_wait_for_the_end_of_a_soak() -> None:
    world = a_world(False, False)
    result = world.roll(interrupted=lambda: world.seconds > 5, canary=1, soak_seconds=3600)
    assert result.stopped == "interrupted"
    assert result.waiting == ("n1",)
    assert world.seconds < 10
