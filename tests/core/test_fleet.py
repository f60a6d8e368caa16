"""The loop over many nodes: what a failing cluster, a failing node or a soak may not do to the others."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from fleetdrv.alone import LoneLock
from fleetdrv.ending import Ending
from fleetdrv.endings import Result as RollResult
from fleetdrv.errors import (
    ClusterAway,
    ClusterError,
    LinkLost,
    NodeRefused,
    Permanent,
    Stopped,
    Unreachable,
    WayGone,
)
from fleetdrv.events import Event
from fleetdrv.fleet import Fleet
from fleetdrv.model import Fault
from fleetdrv.policy import MaintenanceWindow, PerTopology
from fleetdrv.records import Result, RunRecord
from fleetdrv.slots import Domain, Out, Pool
from fleetdrv.turn import Debt, Owed, Verdict
from tests.core.factories import a_policy, some_facts

START = datetime(2026, 11, 25, 12, tzinfo=UTC)
OUTAGE = Owed(debt=Debt.OUTAGE, job="r1.outage.1", why="toy: loaded not as wanted")
CONVERGED = Owed(debt=Debt.NOTHING, verdict=Verdict.CONVERGED)


@dataclass
class Node:
    """A node driver in memory."""

    name: str
    world: World
    fails: bool = False
    stages: Callable[[], object] = str
    meets: Callable[[], object] = str
    """What happens in stage, and in the outage."""
    staged: Owed | Exception = OUTAGE
    view: Any = None
    cordoned: bool = False
    domain: str = ""
    seconds_out: float | None = None
    taken_over: bool = False
    looks: Owed | Exception = CONVERGED
    """What a look after the soak finds."""
    faults: tuple[Fault, ...] = ()
    plan_again: str = "fleetdrv plan"
    noted: list[str] = field(default_factory=list)
    prepared: int = 0
    performed: int = 0

    def prepare(self, warrant: object) -> Owed:
        del warrant
        self.prepared += 1
        self.stages()
        if isinstance(self.staged, Exception):
            raise self.staged
        return self.staged

    def perform(self, warrant: object) -> Ending:
        del warrant
        self.cordoned, self.performed = True, self.performed + 1
        self.world.most = max(self.world.most, sum(node.cordoned for node in self.world.nodes.values()))
        self.meets()
        if self.fails:
            raise Permanent(self.name, "outage", "the job could not be started")
        self.cordoned = False
        self.view = a_view()
        seconds = self.seconds_out
        return Ending(
            node=self.name, verdict=Verdict.CHANGED, seconds_out=seconds, taken_over=self.taken_over
        )

    def look(self, run: str) -> Owed:
        del run
        if isinstance(self.looks, Exception):
            raise self.looks
        self.view = a_view(out=self.cordoned, faults=self.faults)
        return self.looks

    def ending(self, due: Owed) -> Ending:
        return Ending(node=self.name, verdict=due.verdict or Verdict.FAILED, why=due.why)

    def found(self) -> None:
        return None

    def note(self, due: Owed, run: str) -> None:
        if self.world.mute:
            raise ClusterError(f"no answer: {due.why}, {run}")
        self.noted.append(due.why)


def a_view(*, out: bool = False, last: Result | None = None, faults: tuple[Fault, ...] = ()) -> Any:
    standing = SimpleNamespace(out=out, reason="cordoned by somebody else" if out else "", last=last)
    return SimpleNamespace(standing=standing, facts=some_facts(faults=faults))


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
    mute: bool = True
    """Results cannot be written to Nodes."""
    bystanders: int = 0
    reads: int = 0
    """How often the pool was read."""
    read: threading.Event = field(default_factory=threading.Event)
    """It was read again."""
    away: Callable[[], bool] = lambda: False
    ways_gone: Callable[[], str] = str
    said: list[Event] = field(default_factory=list)
    lock: Lock = field(
        default_factory=lambda: Lock("r1", 1, RunRecord(id="r1", pool="gpu", playbook="toy", digest="d"))
    )

    def pool(self) -> tuple[Pool, Mapping[str, Out]]:
        if self.away():
            raise ClusterAway("GET /api/v1/nodes: no answer")
        self.reads += 1
        if self.reads > 1:
            self.read.set()
        outs = {
            n: Out(out=node.cordoned, ours=node.cordoned, domain=node.domain) for n, node in self.nodes.items()
        }
        sizes = Counter(node.domain for node in self.nodes.values())
        domains = {name: Domain(size=size) for name, size in sizes.items()}
        return Pool(size=len(self.nodes) + self.bystanders, domains=domains), outs

    def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        self.seconds += seconds
        assert self.sleeps < 1000, "an endless wait"

    def roll(
        self,
        interrupted: Callable[[], bool] = lambda: False,
        *,
        seen: Mapping[str, Any] | None = None,
        stop_after_canary: bool = False,
        expected: Mapping[str, float] | None = None,
        **policy: Any,
    ) -> RollResult:
        fleet = Fleet(
            drivers=self.nodes,  # type: ignore[arg-type]
            policy=a_policy(**policy),
            lock=self.lock,
            pool=self.pool,
            say=self.said.append,
            interrupted=interrupted,
            now=lambda: self.seconds,
            wall=lambda: START + timedelta(seconds=self.seconds),
            stop_after_canary=stop_after_canary,
            expected=expected or {},
            away=self.ways_gone,
            sleep=self.sleep,
        )
        fleet.meet({**dict.fromkeys(self.nodes, OUTAGE), **(seen or {})})
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


def test_a_node_that_serves_again_is_no_cause_to_list_all_nodes() -> None:
    """1,000 of them are 15 MB; only what others do, and what went wrong, has to be looked for."""
    world = a_world(*[False] * 20)
    result = world.roll(max_unavailable=3, max_parallel=3)
    assert (len(result.endings), world.reads) == (20, 1)


def test_a_look_at_the_pool_during_an_outage_of_ours_does_not_make_that_one_somebody_elses() -> None:
    world = a_world(False, False)
    perform = world.nodes["n0"].perform

    def slow(warrant: object) -> Ending:
        world.nodes["n0"].cordoned, world.seconds = True, world.seconds + 6
        assert world.read.wait(20), "the view is old, and nobody looks"
        return perform(warrant)

    world.nodes["n0"].perform = slow  # type: ignore[method-assign]
    result = world.roll(max_unavailable=1)
    assert {ending.verdict for ending in result.endings} == {Verdict.CHANGED}
    assert world.reads == 2


def test_a_node_that_an_earlier_run_left_out_gives_its_slot_back_when_it_is_done() -> None:
    world = a_world(False, False)
    world.nodes["n0"].cordoned = True
    assert world.roll(max_unavailable=1).waiting == ()


def test_a_node_that_its_turn_left_out_keeps_its_slot() -> None:
    world = a_world(False, False)

    def left_out(warrant: object) -> Ending:
        del warrant
        world.nodes["n0"].cordoned = True
        return Ending(node="n0", verdict=Verdict.LEFT_OUT)

    world.nodes["n0"].perform = left_out  # type: ignore[method-assign]
    assert world.roll(max_unavailable=1, max_failures=3).waiting == ("n1",)


def test_a_node_that_somebody_else_had_out_keeps_its_slot_when_it_is_done() -> None:
    """It is changed, and goes back as it was found."""
    world = a_world(False, False)
    node = world.nodes["n0"]
    node.cordoned, perform = True, node.perform

    def as_found(warrant: object) -> Ending:
        ended = perform(warrant)
        node.cordoned = True
        return ended

    node.perform = as_found  # type: ignore[method-assign]
    result = world.roll(max_unavailable=1)
    assert (result.waiting, world.nodes["n1"].performed) == (("n1",), 0)


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


def test_while_the_way_is_gone_nobody_starts_and_those_in_hand_go_on() -> None:
    world, gone, back, waits = a_world(False, False, False), *(threading.Event() for _ in range(3))
    late = [world.nodes["n1"], world.nodes["n2"]]
    performed_meanwhile: list[int] = []

    def lose_the_way() -> None:
        gone.set()
        assert waits.wait(10)
        performed_meanwhile.extend(node.performed for node in late)
        back.set()

    def heard(event: Event) -> None:
        if event.text == "next node waits for jump host b to be reached again":
            waits.set()

    world.ways_gone = lambda: "jump host b to be reached again" if gone.is_set() and not back.is_set() else ""
    world.nodes["n0"].meets = lose_the_way
    world.said = SimpleNamespace(append=heard)  # type: ignore[assignment]
    for node in late:
        node.stages = lambda: gone.wait(10)
    result = world.roll(max_unavailable=3, max_parallel=3)
    assert performed_meanwhile == [0, 0]
    assert {ending.verdict for ending in result.endings} == {Verdict.CHANGED}


def test_a_way_that_stays_gone_ends_the_run_and_no_node_is_to_blame() -> None:
    world = a_world(False, False)

    def lose_the_way() -> None:
        raise WayGone("bastion root@b:22: Connection refused, for 900 s now")

    world.nodes["n0"].meets = lose_the_way
    result = world.roll(max_unavailable=1)
    assert (result.stopped, result.goes_on) == ("bastion root@b:22: Connection refused, for 900 s now", True)
    assert [(ending.node, ending.verdict) for ending in result.endings] == [("n0", Verdict.UNDER_WAY)]
    assert result.waiting == ("n1",)
    assert (world.lock.record.failed, world.lock.record.unreachable) == ((), ())


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


# ---- what survives a controller, and what one must make of it


SOAK = {"canary": 1, "soak_seconds": 600, "max_failures": 5}


class Killed(BaseException):
    """SIGKILL: nothing of the program runs after it."""


def killed(world: World, after_seconds: float, **policy: Any) -> None:
    """Let a controller run and die; what stands on the Lease stays."""

    def die() -> bool:
        if world.seconds >= after_seconds:
            raise Killed
        return False

    with pytest.raises(Killed):
        world.roll(interrupted=die, **policy)
    world.lock = Lock("r1", 2, RunRecord.from_json(world.lock.record.to_json(), "lease"))


def test_a_successor_goes_on_with_what_is_left_of_a_soak_and_with_the_look_at_its_end() -> None:
    world = a_world(False, False)
    killed(world, 400, **SOAK)
    assert world.lock.record.soaking == {"n0": "2026-11-25T12:10:00Z"}
    assert (world.nodes["n0"].performed, world.nodes["n1"].performed) == (1, 0)
    result = world.roll(seen={"n0": CONVERGED}, **SOAK)
    assert 600 <= world.seconds < 605
    assert world.lock.record.canary_passed == ("n0",)
    assert world.lock.record.soaking == {}
    assert {ending.verdict for ending in result.endings} == {Verdict.CHANGED}
    assert (world.nodes["n0"].performed, world.nodes["n1"].performed) == (1, 1)


def test_a_soak_that_ended_while_nobody_looked_is_judged_at_once() -> None:
    world = a_world(False, False)
    killed(world, 400, **SOAK)
    world.seconds = 5000
    world.roll(seen={"n0": CONVERGED}, **SOAK)
    assert world.seconds < 5005
    assert world.lock.record.canary_passed == ("n0",)


def test_what_a_successor_sees_too_early_neither_ends_a_soak_nor_costs_anything() -> None:
    """As an undisturbed controller would, which looks at the end only."""
    for early in (Unreachable("n0", "dial", "no route"), OUTAGE):
        world = a_world(False, False)
        killed(world, 400, **SOAK)
        world.roll(seen={"n0": early}, **SOAK)
        assert world.lock.record.canary_passed == ("n0",)
        assert (world.lock.record.unreachable, world.nodes["n0"].performed) == ((), 1)


def test_a_controller_that_died_before_it_could_note_a_canary_leaves_it_on_the_node() -> None:
    world = a_world(False, False)
    last = Result(run="r1", digest="d", verdict="changed", finding="", at="")
    world.nodes["n0"].view = a_view(last=last)
    world.roll(seen={"n0": CONVERGED}, **SOAK)
    assert (world.nodes["n0"].performed, world.nodes["n1"].performed) == (0, 1)
    assert 600 <= world.seconds < 605
    assert world.lock.record.canary_passed == ("n0",)
    other = a_world(False, False)
    other.nodes["n0"].view = a_view(last=replace(last, run="r0"))
    other.roll(seen={"n0": CONVERGED}, **SOAK)
    assert other.lock.record.canary_passed == ("n1",)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"looks": OUTAGE}, "toy: loaded not as wanted"),
        ({"cordoned": True}, "cordoned by somebody else"),
        ({"faults": (Fault(stamp=9.0, text="Oops: 0002 [#1]"),)}, "kernel: Oops: 0002 [#1]"),
    ],
)
def test_a_canary_that_does_not_last_its_soak_is_a_failure_and_says_so_on_its_node(
    broken: Mapping[str, Any], said: str
) -> None:
    world = a_world(False, False)
    world.mute = False

    def breaks() -> bool:
        for key, value in broken.items() if world.seconds > 10 else ():
            setattr(world.nodes["n0"], key, value)
        return False

    result = world.roll(breaks, **{**SOAK, "max_failures": 0})
    assert result.stopped == "1 failed, max_failures is 0"
    assert world.lock.record.failed == ("n0",)
    assert world.lock.record.soaking == {}
    (ending,) = result.endings
    assert (ending.verdict, ending.why) == (Verdict.FAILED, f"did not last its soak: {said}")
    assert ending.remedy == "fleetdrv plan"
    assert world.nodes["n0"].noted == [ending.why]
    assert result.waiting == ("n1",)


def test_a_canary_that_cannot_be_reached_at_the_end_of_its_soak_failed() -> None:
    world = a_world(False, False)
    world.nodes["n0"].looks = Unreachable("n0", "dial", "no route")
    result = world.roll(**{**SOAK, "max_failures": 0})
    assert result.endings[0].verdict is Verdict.FAILED
    assert world.lock.record.failed == ("n0",)


def test_faults_that_the_kernel_had_before_the_soak_are_not_the_canarys() -> None:
    world = a_world(False, False)
    known = (Fault(stamp=9.0, text="Oops"),)
    world.nodes["n0"].faults = known
    world.nodes["n0"].view = a_view(faults=known)
    last = Result(run="r1", digest="d", verdict="changed", finding="", at="")
    world.nodes["n0"].view = a_view(last=last, faults=known)
    assert not world.roll(seen={"n0": CONVERGED}, **SOAK).stopped


def test_stop_after_the_canaries_ends_the_run_and_the_same_run_goes_on() -> None:
    world = a_world(False, False, False)
    result = world.roll(stop_after_canary=True, **SOAK)
    assert result.stopped == "the canaries came through; to go on: the same command without --stop-after"
    assert result.goes_on
    assert result.waiting == ("n1", "n2")
    world.lock = Lock("r1", 2, RunRecord.from_json(world.lock.record.to_json(), "lease"))
    again = world.roll(seen={"n0": CONVERGED}, **SOAK)
    assert world.seconds < 610
    assert not again.stopped
    assert [node.performed for node in world.nodes.values()] == [1, 1, 1]


def test_nobody_is_left_to_stop_for() -> None:
    result = a_world(False).roll(stop_after_canary=True, **SOAK)
    assert (result.stopped, result.goes_on) == ("", False)


NIGHT = MaintenanceWindow(start="12:00", end="13:00")


def test_a_window_that_leaves_no_time_ends_the_run_and_says_when_the_next_one_opens() -> None:
    world = a_world(False, False, False)
    world.seconds = 2500
    for node in world.nodes.values():
        node.seconds_out = 1500.5
    result = world.roll(maintenance_window=NIGHT, expected_seconds=1000)
    assert result.stopped.startswith(
        "waiting for the next maintenance window, which opens Thu 2026-11-26 12:00 UTC"
    )
    assert result.goes_on
    assert len(result.waiting) == 2
    assert world.lock.record.outage_seconds == 1501, "longer than was expected: the next one would not fit"
    world.seconds = 3600 * 2
    shut = world.roll(maintenance_window=NIGHT, expected_seconds=1000)
    assert shut.stopped == "waiting for the maintenance window, which opens Thu 2026-11-26 12:00 UTC"


def test_an_outage_that_lay_there_half_the_night_says_nothing_of_the_next_ones() -> None:
    world = a_world(False, False)
    for node in world.nodes.values():
        node.seconds_out, node.taken_over = 20_000, True
    result = world.roll(maintenance_window=NIGHT, expected_seconds=1000)
    assert (result.stopped, result.waiting) == ("", ())
    assert world.lock.record.outage_seconds == 0



def test_nodes_of_one_domain_go_one_after_the_other() -> None:
    world = a_world(False, False, False, True)
    for node in world.nodes.values():
        node.domain = "a"
    per = PerTopology(label="zone")
    result = world.roll(max_unavailable=4, max_unavailable_per=per, max_failures=5)
    assert world.most == 1
    assert not result.waiting


def test_marks_on_a_node_that_is_somebody_elses_go_without_a_slot() -> None:
    world = a_world(False, False)
    world.nodes["n0"].staged = Owed(debt=Debt.LET_GO, verdict=Verdict.LOST, why="lifted")
    result = world.roll(max_failures=1, max_unavailable=1)
    assert world.nodes["n0"].performed == 0
    assert result.endings[0].verdict is Verdict.LOST
    assert world.lock.record.failed == ("n0",)


@pytest.mark.parametrize("at", ["survey", "prepare"])
def test_a_node_that_nothing_proves_is_refused_by_itself_and_spends_no_budget(at: str) -> None:
    world = a_world(False, False)
    error = NodeRefused("n0: no such Node in this cluster")
    world.nodes["n0"].staged = error
    result = world.roll(seen={"n0": error} if at == "survey" else None, max_failures=0, max_unreachable=0)
    assert {ending.node: ending.verdict for ending in result.endings} == {
        "n0": Verdict.REFUSED,
        "n1": Verdict.CHANGED,
    }
    assert (world.lock.record.failed, world.lock.record.unreachable) == ((), ())


@pytest.mark.parametrize("error", [Unreachable("n0", "dial", "no route"), LinkLost("n0", "probe", "reset")])
@pytest.mark.parametrize("ours", [False, True])
def test_who_is_silent_is_unreachable_unless_we_had_cordoned_him(error: Exception, ours: bool) -> None:
    world = a_world(False, False)
    world.nodes["n0"].cordoned = ours
    world.roll(seen={"n0": error}, max_failures=5, max_unreachable=5, max_unavailable=2)
    record = world.lock.record
    assert (record.failed, record.unreachable) == ((("n0",), ()) if ours else ((), ("n0",)))


def test_a_node_that_cannot_be_read_does_not_keep_the_others_from_being_mended() -> None:
    world = a_world(False, False)
    result = world.roll(seen={"n0": Permanent("n0", "probe", "cannot be read")}, max_unreachable=1)
    assert {ending.node: ending.verdict for ending in result.endings} == {
        "n0": Verdict.UNSEEN,
        "n1": Verdict.CHANGED,
    }
    assert (world.lock.record.failed, world.lock.record.unreachable) == ((), ("n0",))


def test_an_interrupt_counts_though_the_run_was_ending_already() -> None:
    world = a_world(False, False)
    world.lock.orders = lambda: "aborted by somebody"  # type: ignore[method-assign]
    answers = iter([False])
    result = world.roll(interrupted=lambda: next(answers, True))
    assert (result.stopped, result.interrupted) == ("aborted by somebody", True)


def test_that_nobody_starts_any_more_is_what_stands_last_whatever_was_waited_for() -> None:
    world = a_world(False, False)

    def told(words: str) -> bool:
        return any(words in event.text for event in world.said)

    def until_it_is_told() -> None:
        for _ in range(500):
            if told("no more nodes start"):
                return
            time.sleep(0.01)

    for node in world.nodes.values():
        node.meets = until_it_is_told
    world.roll(interrupted=lambda: told("next node waits for"), max_unavailable=1, max_parallel=1)
    last = [event.text for event in world.said if event.phase == "rollout"][-1]
    assert last == "no more nodes start, those in hand are finished: interrupted"


def test_who_took_longest_before_goes_out_first_once_the_canary_is_through() -> None:
    world = a_world(False, False, False, False)
    expected = {"n1": 10.0, "n2": 50.0, "n3": 300.0}
    world.roll(expected=expected, canary=1, max_unavailable=1, max_parallel=1)
    assert [event.node for event in world.said if event.phase == "end"] == ["n0", "n3", "n2", "n1"]


def test_a_change_that_had_failed_before_this_controller_came_is_spent_before_anybody_starts() -> None:
    world = a_world(True, False)
    world.nodes["n0"].cordoned = True
    world.nodes["n0"].staged = left = Owed(debt=Debt.LEAVE_OUT, verdict=Verdict.LEFT_OUT, why="rolled back")
    result = world.roll(seen={"n0": left}, max_failures=0, max_unavailable=2)
    assert result.waiting == ("n1",)
    assert world.nodes["n1"].prepared == 0
    assert world.nodes["n0"].performed == 1, "it is brought to its end"


def test_an_api_that_is_away_when_a_record_is_due_leaves_the_run_open_for_the_next_command() -> None:
    """A run that is closed then forgets its canaries, its soaks and its budgets."""
    world = a_world(False, False)
    save = world.lock.save

    def away(record: RunRecord) -> None:
        if record.soaking:
            raise ClusterAway("PUT lease: no answer")
        save(record)

    world.lock.save = away  # type: ignore[method-assign]
    result = world.roll(canary=1, soak_seconds=60)
    assert result.stopped.startswith("the run record could not be saved")
    assert "the same command again" in result.stopped
    assert result.goes_on


def test_an_api_that_is_away_at_the_end_of_a_soak_is_asked_again_and_costs_no_canary() -> None:
    world, asked = a_world(False, False), list[float]()

    class Away(Node):
        def look(self, run: str) -> Owed:
            asked.append(world.seconds)
            if len(asked) < 3:
                raise ClusterAway("GET /api/v1/nodes/n0: no answer")
            return Node.look(self, run)

    world.nodes["n0"] = Away("n0", world)
    result = world.roll(canary=1, soak_seconds=60)
    assert {ending.verdict for ending in result.endings} == {Verdict.CHANGED}
    assert world.lock.record.canary_passed == ("n0",)
    assert asked[2] - asked[0] >= 2


def test_many_nodes_that_are_away_are_noted_in_one_write() -> None:
    """Behind a dead bastion are thousands; the Lease was written once for each."""
    world = a_world(*[False] * 50)
    saved, save = [], world.lock.save

    def counted(record: RunRecord) -> None:
        saved.append(record)
        save(record)

    world.lock.save = counted  # type: ignore[method-assign]
    away = {name: Unreachable(name, "connect", "timed out") for name in world.nodes}
    result = world.roll(seen=away)
    assert {ending.verdict for ending in result.endings} == {Verdict.UNREACHABLE}
    assert len(world.lock.record.unreachable) == 50
    assert len(saved) == 1


def test_a_successor_counts_the_canaries_that_passed_before_he_came() -> None:
    world = a_world(*[False] * 5)
    world.lock.record = replace(world.lock.record, canary_passed=("n0",))
    seen, soak = {"n0": CONVERGED}, {"canary": 2, "soak_seconds": 60}
    result = world.roll(seen=seen, max_unavailable=5, stop_after_canary=True, **soak)
    assert [name for name, node in world.nodes.items() if node.performed] == ["n1"]
    assert result.stopped.startswith("the canaries came through")


@pytest.mark.parametrize("verdict", [Verdict.DEFERRED, Verdict.GIVEN_UP])
def test_a_node_that_failed_in_a_period_before_still_spends_the_budget(verdict: Verdict) -> None:
    """Else a driver that fails wherever it goes takes one more node with it each time that cron comes."""
    world = a_world(False, False, False)
    last = Result(run="r0", digest="d", verdict=Verdict.ROLLED_BACK, finding="init", at="", attempts=1)
    world.nodes["n0"].view = a_view(last=last)
    waits = {"n0": Owed(debt=Debt.NOTHING, verdict=verdict, why="tried 1 of 3 times")}
    result = world.roll(seen=waits, max_failures=0, max_unavailable=2)
    assert result.stopped == "1 failed, max_failures is 0"
    assert [node.prepared for node in world.nodes.values()] == [0, 0, 0]
    assert world.lock.record.failed == ("n0",)
    assert not world.roll(seen=waits, max_failures=1).stopped


def test_what_never_fits_spends_nothing_in_a_later_period_either() -> None:
    world = a_world(False, False)
    last = Result(run="r0", digest="d", verdict=Verdict.INCOMPATIBLE, finding="no headers", at="")
    world.nodes["n0"].view = a_view(last=last)
    waits = {"n0": Owed(debt=Debt.NOTHING, verdict=Verdict.GIVEN_UP, why="incompatible")}
    assert not world.roll(seen=waits, max_failures=0).stopped


def test_who_draws_is_told_where_each_node_stands() -> None:
    world = a_world(False, False)
    world.roll(canary=1, soak_seconds=30, max_unavailable=1)
    told = [event for event in world.said if event.node == "n0"]
    assert [event.text for event in told if event.phase == "stand"] == ["staging", "staged", "in outage"]
    phases = [event.phase for event in told]
    assert phases.index("end") < phases.index("soak") < phases.index("soaked")
