"""Hold a pool for a run, and keep the run's record on its Lease."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from fleetdrv import holding, names, ownership, selection
from fleetdrv import lease as leases
from fleetdrv.alone import LoneLock
from fleetdrv.cluster import Cluster
from fleetdrv.crew import Crew
from fleetdrv.endings import Result
from fleetdrv.errors import FleetdrvError, Stopped, Taken
from fleetdrv.events import Say
from fleetdrv.fence import fence
from fleetdrv.holding import Held
from fleetdrv.lease import Holder
from fleetdrv.look import View
from fleetdrv.proc import alive, this_process
from fleetdrv.records import Course, RunRecord
from fleetdrv.send import Lock
from fleetdrv.standing import is_out
from fleetdrv.timing import utc_now


@dataclass(slots=True)
class _LeaseLock:
    """The pool's Lease as the fleet needs it."""

    held: Held
    run: str
    record: RunRecord
    course: Course

    @property
    def token(self) -> int:
        return self.held.token

    def check(self) -> None:
        self.held.check()

    def save(self, record: RunRecord) -> None:
        self.held.update_record(record, self.course)
        self.record = record

    def orders(self) -> str:
        orders = self.held.look()
        if orders.aborted:
            return f"aborted by {orders.aborted.who}: {orders.aborted.why}"
        if orders.paused:
            return f"paused by {orders.paused.who}: {orders.paused.why}"
        return ""


class _NodeLock(_LeaseLock):
    """The pool's Lease for one node's repair: what it records of a rollout stays, for that to go on.

    Pause and abort are for rollouts, too: who paused a pool to mend a node by hand must not have to resume it.
    """

    __slots__ = ()

    def save(self, record: RunRecord) -> None:
        self.held.check()
        self.record = record

    def orders(self) -> str:
        self.held.look()
        return ""


@contextmanager
def locked_for_one(crew: Crew, views: Mapping[str, View | str], run: str) -> Iterator[Lock]:
    """Hold the pool while one node is repaired; the run is recorded on its Node alone."""
    record = _fresh(crew, run)
    floor = _floor(views)
    if crew.cluster is None:
        yield LoneLock(run=run, token=floor + 1, record=record)
        return
    with _held(crew, crew.cluster, floor) as held:
        yield _NodeLock(held=held, run=run, record=record, course=_course(crew, run))


@contextmanager
def locked(
    crew: Crew, views: Mapping[str, View | str], run: str, record: RunRecord | None
) -> Iterator[Lock]:
    """Hold the pool for this run, going on with its record where an earlier controller was cut off."""
    book = crew.loaded.playbook
    current = record if record is not None and record.id == run else _fresh(crew, run)
    current = replace(current, versions={**current.versions, **crew.versions.pins}, reason="")
    floor = _floor(views)
    if crew.cluster is None:
        yield LoneLock(run=run, token=floor + 1, record=current)
        return
    with _held(crew, crew.cluster, floor) as held:
        if held.record != record:
            raise Taken(f"pool {book.pool_name}: another run went on while this command looked; type it again")
        lock = _LeaseLock(held=held, run=run, record=current, course=_course(crew, run))
        if held.orders.paused:
            raise Stopped(f"pool {book.pool_name}: {lock.orders()}; to go on: fleetdrv resume {book.pool_name}")
        if held.record != current:
            lock.save(current)  # first: an abort is for the run that the record names
        yield lock


@contextmanager
def _held(crew: Crew, cluster: Cluster, floor: int) -> Iterator[Held]:
    """Hold the pool's Lease; whoever held it before, and may wake again, is fenced off."""
    with holding.acquire(cluster, crew.pool_name, this_process(), floor_token=floor) as held:
        held.fence_off(partial(fence, cluster, crew.members))
        yield held


def _fresh(crew: Crew, run: str) -> RunRecord:
    book = crew.loaded.playbook
    return RunRecord(
        id=run,
        pool=book.pool_name,
        playbook=book.name,
        digest=crew.digest,
        versions={driver.name: driver.version for driver in book.drivers if driver.apt is None},
    )


def _course(crew: Crew, run: str) -> Course:
    command, repair = crew.again
    return Course(run=run, command=command, repair=repair)


def _floor(views: Mapping[str, View | str]) -> int:
    return max((view.facts.highest_token for view in views.values() if isinstance(view, View)), default=0)


def demand_free(crew: Crew) -> None:
    """Raise Taken where a process of this machine drives the pool: known at once, before any node is looked at.

    One that has not renewed the Lease in its time hangs (stopped, say): `acquire` then judges by its own clock.
    """
    if crew.cluster is None:
        return
    lease = crew.cluster.lease(names.lease_name(crew.pool_name))
    other = Holder.parse(leases.holder_identity(lease))
    if other and alive(other, this_process()) and not leases.silent(lease, utc_now()):
        raise Taken(f"pool {crew.pool_name}: is driven by {other}; see: fleetdrv status {crew.pool_name}")


def close(crew: Crew, lock: Lock, result: Result, say: Say) -> None:
    """Write the record's end, or what the run waits for and who is out; the journal keeps a copy.

    One that is paused, interrupted, or to be gone on with at another time stays open, so that it is continued.
    """
    continued = ("paused by ", "interrupted", f"pool {lock.record.pool}: the lock ")
    if not result.stopped.startswith(continued):
        with suppress(FleetdrvError):  # for people only
            if isinstance(lock, _LeaseLock) and result.stopped:
                lock.course = replace(lock.course, out=_out(crew))
        with suppress(FleetdrvError):  # else the next command finds it unfinished, and nothing to do
            lock.save(replace(lock.record, finished=not result.goes_on, reason=result.stopped))
    selection.note(lock.record, say)


def _out(crew: Crew) -> tuple[str, ...]:
    """Name the pool's nodes that take no pods now, whoever did it."""
    members = crew.members
    nodes = crew.cluster.nodes() if crew.cluster else ()
    return tuple(sorted(name for name in map(ownership.name, filter(is_out, nodes)) if name in members))
