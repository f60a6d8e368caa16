"""The pool's lock, on both clusters: rivals, dead and silent holders, lost answers, orders by others."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from fleetdrv import holding, names
from fleetdrv import lease as leases
from fleetdrv.errors import ClusterAway, Refused, Stopped
from fleetdrv.holding import acquire
from fleetdrv.lease import Holder
from fleetdrv.proc import alive, this_process
from fleetdrv.records import RunRecord
from fleetdrv.timing import Timing, utc_now
from tests.fixtures_cluster import FakeWorld, World

ME = this_process()
FAR = replace(ME, host="far", boot="another-boot", pid=1)
RECORD = RunRecord(id="r1", pool="gpu", playbook="nvidia", digest="d")


class Clock:
    """A clock that passes when somebody sleeps, and lets others act meanwhile."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.meanwhile: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.meanwhile()

    @property
    def timing(self) -> Timing:
        return Timing(monotonic=self.monotonic, sleep=self.sleep)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Another process of this machine."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def as_holder(process: subprocess.Popen[bytes]) -> Holder:
    with open(f"/proc/{process.pid}/stat") as stat:
        started = int(stat.read().rpartition(")")[2].split()[19])
    return replace(ME, pid=process.pid, started=started)


def test_a_free_pool_is_taken_and_given_back(world: World, clock: Clock) -> None:
    held = acquire(world.cluster, world.pool, ME, timing=clock.timing)
    assert (held.token, held.may_act(), held.record) == (1, True, None)
    held.update_record(RECORD)
    held.release()
    assert not held.may_act()
    lease = world.cluster.lease(names.lease_name(world.pool))
    assert leases.holder_identity(lease) == ""
    assert leases.run_record(lease) == RECORD
    again = acquire(world.cluster, world.pool, FAR, timing=clock.timing)
    assert (again.token, again.record) == (2, RECORD)


def test_the_token_is_above_what_any_node_has_seen(world: World, clock: Clock) -> None:
    assert acquire(world.cluster, world.pool, ME, floor_token=41, timing=clock.timing).token == 42


def test_a_live_holder_is_named_as_soon_as_it_renews(world: World, clock: Clock) -> None:
    theirs = acquire(world.cluster, world.pool, FAR, timing=clock.timing)
    began = clock.seconds
    clock.meanwhile = lambda: clock.seconds - began >= 20 and theirs.renew()
    with pytest.raises(Stopped, match=f"is driven by {FAR.user}@far"):
        acquire(world.cluster, world.pool, ME, timing=clock.timing)
    assert clock.seconds - began < 25
    assert theirs.may_act()


def test_of_two_rivals_at_once_one_gets_the_pool(world: World) -> None:
    outcomes: list[object] = []
    gate = threading.Barrier(4)

    def rival(number: int) -> None:
        gate.wait()
        try:
            outcomes.append(
                acquire(world.cluster, world.pool, replace(FAR, boot=f"boot-{number}"), timing=quick())
            )
        except Stopped as error:
            outcomes.append(error)

    threads = [threading.Thread(target=rival, args=(n + 1,)) for n in range(4)]
    keeper = threading.Event()
    for thread in threads:
        thread.start()

    def renew() -> None:
        while not keeper.wait(0.3):
            for winner in [o for o in outcomes if isinstance(o, holding.Held)]:
                winner.renew()

    renewals = threading.Thread(target=renew)
    renewals.start()
    for thread in threads:
        thread.join(60)
    keeper.set()
    renewals.join()
    assert sorted(type(o).__name__ for o in outcomes) == ["Held", "Taken", "Taken", "Taken"]


def quick() -> Timing:
    """Real clocks, and a Lease that outlasts a busy machine's hiccups."""
    return Timing(duration_seconds=15)


def test_a_killed_holder_of_this_machine_is_taken_over_at_once(
    world: World, clock: Clock, sleeper: subprocess.Popen[bytes]
) -> None:
    theirs = as_holder(sleeper)
    assert alive(theirs, ME) is True
    acquire(world.cluster, world.pool, theirs, timing=clock.timing)
    sleeper.kill()  # and stays a zombie: nobody has waited for it
    while alive(theirs, ME):
        pass
    began = clock.seconds
    assert acquire(world.cluster, world.pool, ME, timing=clock.timing).token == 2
    assert clock.seconds == began


def test_a_pid_that_somebody_else_has_now_is_a_dead_holder(world: World, clock: Clock) -> None:
    acquire(world.cluster, world.pool, replace(ME, started=ME.started - 1), timing=clock.timing)
    began = clock.seconds
    assert acquire(world.cluster, world.pool, ME, timing=clock.timing).token == 2
    assert clock.seconds == began


@pytest.mark.parametrize("change", [{"boot": "b"}, {"pid_namespace": 1}])
def test_of_another_boot_or_container_nothing_is_known(change: dict[str, object]) -> None:
    assert alive(replace(ME, pid=1, **change), ME) is None  # type: ignore[arg-type]


def test_expiry_is_judged_by_our_own_clock(world: World, clock: Clock) -> None:
    """The holder's clock is years ahead, and its renewTime with it."""
    ahead = replace(clock.timing, now=lambda: utc_now().replace(year=2099))
    theirs = acquire(world.cluster, world.pool, FAR, timing=ahead)
    began = clock.seconds
    ours = acquire(world.cluster, world.pool, ME, timing=clock.timing)
    assert 60 <= clock.seconds - began < 65
    assert ours.token == 2
    assert not theirs.renew()
    assert not theirs.may_act()
    assert "was lost to" in theirs.why_not()
    with pytest.raises(Stopped, match="was lost to"):
        theirs.update_record(RECORD)


def test_a_pause_from_elsewhere_does_not_keep_a_dead_holder_alive(world: World, clock: Clock) -> None:
    acquire(world.cluster, world.pool, FAR, timing=clock.timing)
    paused: list[bool] = []

    def pause_once() -> None:
        if not paused:
            paused.append(True)
            holding.pause(world.cluster, world.pool, "op", "lunch")

    clock.meanwhile = pause_once
    began = clock.seconds
    held = acquire(world.cluster, world.pool, ME, timing=clock.timing)
    assert clock.seconds - began < 65
    assert held.orders.paused is not None


def test_pause_and_abort_reach_the_holder(world: World, clock: Clock) -> None:
    held = acquire(world.cluster, world.pool, ME, timing=clock.timing)
    with pytest.raises(Refused, match="no run is under way"):
        holding.abort(world.cluster, world.pool, "op", "why")
    held.update_record(RECORD)
    holding.pause(world.cluster, world.pool, "anna", "incident 7")
    assert held.orders.paused is None
    paused = held.look().paused
    assert paused is not None
    assert (paused.who, paused.why) == ("anna", "incident 7")
    holding.resume(world.cluster, world.pool)
    holding.abort(world.cluster, world.pool, "bert", "smoke")
    assert held.renew()  # the renewal meets the conflict, and learns
    assert held.orders.paused is None
    assert held.orders.aborted is not None
    assert held.orders.aborted.run == "r1"
    held.update_record(replace(RECORD, finished=True))
    assert held.record == replace(RECORD, finished=True)
    assert held.orders.aborted is not None


def test_a_pool_is_paused_before_anybody_drove_it(world: World, clock: Clock) -> None:
    holding.pause(world.cluster, world.pool, "op", "not today")
    held = acquire(world.cluster, world.pool, ME, timing=clock.timing)
    assert held.orders.paused is not None


def test_stop_buttons_that_change_nothing_write_nothing(world: World) -> None:
    holding.resume(world.cluster, world.pool)
    assert world.effects.api_writes == 0
    assert world.cluster.lease(names.lease_name(world.pool)) is None


def test_a_deleted_lease_is_a_lost_one(world: World, clock: Clock) -> None:
    held = acquire(world.cluster, world.pool, ME, timing=clock.timing)
    world.delete_lease(names.lease_name(world.pool))
    assert not held.renew()
    assert not held.may_act()
    with pytest.raises(Stopped):
        held.look()


def test_an_older_token_of_the_same_holder_is_lost_too(world: World, clock: Clock) -> None:
    older = acquire(world.cluster, world.pool, ME, timing=clock.timing)
    newer = acquire(world.cluster, world.pool, ME, floor_token=10, timing=clock.timing)
    assert newer.token == 11
    assert not older.renew()
    assert not older.may_act()
    assert newer.renew()


def test_a_run_record_of_a_newer_fleetdrv_is_refused_before_anything_is_written(
    world: World, clock: Clock
) -> None:
    lease = leases.annotated(leases.unheld(world.pool), {names.RUN_RECORD: '{"schema": 99}'})
    world.cluster.create_lease(lease)
    with pytest.raises(Refused, match="newer fleetdrv"):
        acquire(world.cluster, world.pool, ME, timing=clock.timing)
    assert world.effects.api_writes == 1


def test_the_thread_keeps_the_lease(world: World) -> None:
    with acquire(world.cluster, world.pool, ME, timing=Timing(duration_seconds=3)) as held:
        threading.Event().wait(4)
        assert held.may_act()
    assert leases.holder_identity(world.cluster.lease(names.lease_name(world.pool))) == ""


def test_acting_ends_before_the_lease_does(fake_world: FakeWorld, clock: Clock) -> None:
    held = acquire(fake_world.cluster, fake_world.pool, ME, timing=clock.timing)
    fake_world.fake.fault = lambda _target, _what: "before"
    clock.seconds += 39
    assert not held.renew()
    clock.seconds = 1000 + 39.9
    assert held.may_act()
    clock.seconds = 1000 + 40
    assert "could not be renewed for 40 s: PUT Lease" in held.why_not()
    with pytest.raises(Stopped):
        held.check()
    fake_world.fake.fault = lambda _target, _what: ""
    assert held.renew()
    assert held.may_act()


def test_a_machine_that_slept_renews_before_it_acts(fake_world: FakeWorld, clock: Clock) -> None:
    held = acquire(fake_world.cluster, fake_world.pool, ME, timing=clock.timing)
    clock.seconds += 7200
    held.check()
    assert held.may_act()


def test_a_machine_that_slept_too_long_is_told_who_came_after_it(fake_world: FakeWorld, clock: Clock) -> None:
    held = acquire(fake_world.cluster, fake_world.pool, ME, timing=clock.timing)
    clock.seconds += 7200
    other = acquire(fake_world.cluster, fake_world.pool, FAR, timing=clock.timing)
    with pytest.raises(Stopped, match=r"was lost to .*far"):
        held.check()
    other.check()


def test_the_time_of_a_renewal_is_when_it_was_sent(fake_world: FakeWorld, clock: Clock) -> None:
    held = acquire(fake_world.cluster, fake_world.pool, ME, timing=clock.timing)

    def slow(_target: str, _what: str) -> str:
        clock.seconds += 45
        return ""

    fake_world.fake.fault = slow
    assert held.renew()
    assert not held.may_act()


@pytest.mark.parametrize("fate", ["before", "after"])
def test_a_lost_answer_is_looked_into(fake_world: FakeWorld, clock: Clock, fate: str) -> None:
    fates = [fate, ""]
    fake_world.fake.fault = lambda _target, _what: fates.pop(0)
    held = acquire(fake_world.cluster, fake_world.pool, ME, timing=clock.timing)
    assert held.token == 1
    fates = [fate, ""]
    held.update_record(RECORD)
    assert held.look().paused is None
    assert held.record == RECORD
    fates = [fate, "", ""]
    holding.pause(fake_world.cluster, fake_world.pool, "op", "x", clock.timing)
    assert held.look().paused is not None


def test_an_api_that_stays_away_is_told(fake_world: FakeWorld, clock: Clock) -> None:
    fake_world.fake.fault = lambda _target, _what: "before"
    with pytest.raises(ClusterAway):
        acquire(fake_world.cluster, fake_world.pool, ME, timing=clock.timing)
