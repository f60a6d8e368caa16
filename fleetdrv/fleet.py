"""Many nodes: a rollout fed by `rollout.admit`, one thread that owns the state, workers that return or raise.

Each node's turn has two parts, both in a worker: `prepare` while it serves, `perform` once it has a slot.
Between them this loop decides, saves what a successor must know in the run record, and listens for
pause, abort and Ctrl-C, which only ever keep further nodes from starting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Protocol

from fleetdrv.drive import Ending, NodeDriver
from fleetdrv.errors import ClusterError, FleetdrvError, LinkLost, NodeError, Stopped, Unreachable
from fleetdrv.events import Event, Level, Say
from fleetdrv.playbook import Rollout
from fleetdrv.records import RunRecord
from fleetdrv.rollout import Admission, Member, Pool, Progress, Stand, admit
from fleetdrv.send import Warrant
from fleetdrv.turn import Debt, Owed, Verdict

_TURN_SECONDS = 1.0
"""How long the loop waits for a worker before it listens for orders again."""

POOL_SECONDS = 5.0
"""How old the view of other people's outages may be when a slot is given away; ours are known exactly."""


class Lock(Warrant, Protocol):
    """The pool's Lease, or what stands for it without a cluster."""

    @property
    def record(self) -> RunRecord:
        """The run's record, as last saved."""
        ...

    def save(self, record: RunRecord) -> None:
        """Write the run record, as a compare-and-swap on the Lease. Raises Stopped when it is lost."""
        ...

    def orders(self) -> str:
        """Return why no more nodes may start (paused, aborted), or nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Out:
    """Whether a node is out of service now, and by our hand."""

    out: bool
    ours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a whole rollout ended."""

    endings: tuple[Ending, ...]
    stopped: str = ""
    """Why it ended early."""
    waiting: tuple[str, ...] = ()
    """Nodes that still owe a change and were not started."""


@dataclass(slots=True, kw_only=True)
class Fleet:
    """One rollout under way."""

    drivers: Mapping[str, NodeDriver]
    policy: Rollout
    lock: Lock
    pool: Callable[[], tuple[Pool, Mapping[str, Out]]]
    """Read the whole pool: its size and foreign outages, and how each driven node stands."""
    say: Say
    interrupted: Callable[[], bool] = lambda: False
    pins: Callable[[], Mapping[str, str]] = dict
    """Exact versions that patterns were resolved to by now."""
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    members: dict[str, Member] = field(default_factory=dict)
    endings: dict[str, Ending] = field(default_factory=dict)
    _under_way: dict[Future[Owed | Ending], tuple[str, str]] = field(default_factory=dict)
    _soaking: dict[str, float] = field(default_factory=dict)
    _stop: str = ""
    _told: str = ""
    _pool: tuple[float, Pool] | None = None
    _away: bool = False
    """The cluster's API did not answer when the pool was to be read."""

    def meet(self, name: str, came: Owed | FleetdrvError) -> None:
        """Take a node in with what the survey saw of it."""
        self.members[name] = Member(stand=Stand.WAITING)
        if isinstance(came, FleetdrvError):
            self._failed(name, "prepare", came)
        elif came.debt is Debt.NOTHING:
            self._settled(name, came)

    def run(self) -> Result:
        """Roll until nobody may start and nobody is under way."""
        width = min(2 * self.policy.max_parallel + 4, 2 * len(self.drivers) + 1)
        workers = ThreadPoolExecutor(width, thread_name_prefix="node")
        try:
            while self._step(workers):
                pass
        finally:
            workers.shutdown(wait=not self._under_way, cancel_futures=True)
        waiting = [n for n, m in self.members.items() if m.stand in (Stand.WAITING, Stand.STAGED)]
        return Result(endings=tuple(self.endings.values()), stopped=self._stop, waiting=tuple(waiting))

    def _step(self, workers: ThreadPoolExecutor) -> bool:
        """Start whom we may, then wait for somebody; return whether there is more to come."""
        self._soak(workers)
        why = self._closed()
        admission = Admission(stopped=why) if why else self._admit()
        for name in admission.stage:
            self._start(workers, name, "prepare", Stand.STAGING)
        for name in admission.outage:
            self._start(workers, name, "perform", Stand.IN_OUTAGE)
        if not self._under_way and (why or not (self._soaking or self._away)):
            self._end(admission)
            return False
        self._mention(admission.waiting_for)
        if not self._under_way:
            self.sleep(_TURN_SECONDS)  # for the end of a soak, or for the API
        done, _ = wait(self._under_way, timeout=_TURN_SECONDS, return_when=FIRST_COMPLETED)
        for future in done:
            self._take(future, *self._under_way.pop(future))
        return True

    def _closed(self) -> str:
        """Say why no further node may start, whoever wanted it so."""
        if not self._stop:
            self._stop = "interrupted" if self.interrupted() else self._orders()
            if self._stop:
                text = f"no more nodes start, those in hand are finished: {self._stop}"
                self.say(Event(node="", phase="rollout", text=text))
        return self._stop

    def _orders(self) -> str:
        try:
            return self.lock.orders()
        except ClusterError:
            self._pool = None  # nobody starts unseen
            return self._lost()
        except FleetdrvError as error:
            return str(error)

    def _lost(self) -> str:
        """An API that is away is waited for as long as the Lease holds without it."""
        try:
            self.lock.check()
        except Stopped as error:
            return str(error)
        return ""

    def _admit(self) -> Admission:
        try:
            pool, self._away = self._read_pool(), False
        except FleetdrvError as error:  # nodes in hand are brought to their end
            self._away = isinstance(error, ClusterError)
            return Admission(waiting_for=f"the pool to be seen: {error}")
        record = self.lock.record
        progress = Progress(
            canary_passed=len(record.canary_passed) >= self.policy.canary,
            failures=len(record.failed),
            unreachable=len(record.unreachable),
        )
        return admit(self.members, pool, self.policy, progress)

    def _read_pool(self) -> Pool:
        """Read the pool again when a node of ours came back, or the last look is old."""
        if self._pool is None or self.now() - self._pool[0] > POOL_SECONDS:
            pool, stands = self.pool()
            self._pool = (self.now(), pool)
            for name, stand in stands.items():
                self.members[name] = replace(self.members[name], out=stand.out, ours=stand.ours)
        return self._pool[1]

    def _start(self, workers: ThreadPoolExecutor, name: str, part: str, stand: Stand) -> None:
        self.members[name] = replace(self.members[name], stand=stand)
        act: Callable[[Warrant], Owed | Ending] = getattr(self.drivers[name], part)
        self._under_way[workers.submit(act, self.lock)] = (name, part)

    def _take(self, future: Future[Owed | Ending], name: str, part: str) -> None:
        try:
            came = future.result()
        except (FleetdrvError, OSError) as error:
            self._failed(name, part, error)
            return
        if part == "look":
            self._soaked(name, came)
        elif isinstance(came, Ending):
            self._pool = None
            self._ended(came)
        elif came.debt is Debt.NOTHING:
            self._settled(name, came)
        else:
            self._keep_versions()
            self.members[name] = replace(self.members[name], stand=Stand.STAGED)

    def _keep_versions(self) -> None:
        """What stage found out of versions is recorded before the first outage that relies on it."""
        record, pins = self.lock.record, self.pins()
        if not pins.items() <= record.versions.items():
            self._save(replace(record, versions={**record.versions, **pins}))

    def _settled(self, name: str, due: Owed) -> None:
        """The turn ended while the node served."""
        ending = self.drivers[name].ending(due)
        if ending.verdict in _NOTED and name not in self.lock.record.failed:
            try:
                self.drivers[name].note(due, self.lock.run)
            except FleetdrvError as error:
                text = f"its result could not be noted: {error}"
                self.say(Event(node=name, phase="note", text=text, level=Level.WARNING))
        self._ended(ending)

    def _ended(self, ending: Ending) -> None:
        self.endings[ending.node] = ending
        stand = _STANDS.get(ending.verdict, Stand.FAILED)
        self.members[ending.node] = replace(self.members[ending.node], stand=stand)
        record = self.lock.record
        if stand is Stand.FAILED and ending.node not in record.failed:
            self._save(replace(record, failed=(*record.failed, ending.node)))
        elif stand is Stand.UNREACHABLE and ending.node not in record.unreachable:
            self._save(replace(record, unreachable=(*record.unreachable, ending.node)))
        elif stand is Stand.DONE and len(record.canary_passed) < self.policy.canary:
            self._soaking[ending.node] = self.now() + self.policy.soak_seconds
        level = Level.WARNING if stand in (Stand.FAILED, Stand.UNREACHABLE) else Level.PROGRESS
        why = f": {ending.why}" if ending.why else ""
        self.say(Event(node=ending.node, phase="end", text=f"{ending.verdict}{why}", level=level))

    def _failed(self, name: str, part: str, error: FleetdrvError | OSError) -> None:
        """An act raised. Lost before any touch is unreachable; lost after the cordon counts as failed."""
        self._pool = None  # it may stand cordoned: the next slot is given away after a look
        if isinstance(error, Stopped):
            self._stop = self._stop or str(error)
        early = part == "prepare" and isinstance(error, Unreachable | LinkLost)
        cause = error.cause if isinstance(error, NodeError) else str(error)
        self._ended(
            Ending(
                node=name,
                verdict=Verdict.UNREACHABLE if early else Verdict.FAILED,
                why=f"{error.step}: {cause}" if isinstance(error, NodeError) else cause,
                evidence=error.evidence if isinstance(error, NodeError) else "",
                remedy=(error.remedy if isinstance(error, NodeError) else "")
                or f"the same command again; or: fleetdrv status {self.lock.record.pool}",
            )
        )

    def _soak(self, workers: ThreadPoolExecutor) -> None:
        """A canary passes when a look after its soak finds nothing to do."""
        for name, until in list(self._soaking.items()):
            if self.now() >= until:
                del self._soaking[name]
                if self.policy.soak_seconds:
                    self._under_way[workers.submit(self.drivers[name].look, self.lock.run)] = (name, "look")
                else:
                    self._passed(name)

    def _soaked(self, name: str, came: Owed | Ending) -> None:
        view = self.drivers[name].view
        if isinstance(came, Owed) and came.verdict is Verdict.CONVERGED and view and not view.standing.out:
            self._passed(name)
            return
        why = view.standing.reason if view and view.standing.out else came.why
        self._ended(Ending(node=name, verdict=Verdict.FAILED, why=f"did not last its soak: {why}"))

    def _passed(self, name: str) -> None:
        record = self.lock.record
        self._save(replace(record, canary_passed=(*record.canary_passed, name)))

    def _save(self, record: RunRecord) -> None:
        try:
            self.lock.save(record)
        except (Stopped, ClusterError) as error:
            self._stop = self._stop or f"the run record could not be saved: {error}"

    def _end(self, admission: Admission) -> None:
        left = [n for n, m in self.members.items() if m.stand in (Stand.WAITING, Stand.STAGED)]
        if left and not self._stop:
            self._stop = admission.stopped or f"waiting for {admission.waiting_for or 'nothing: a bug'}"

    def _mention(self, waiting_for: str) -> None:
        if waiting_for and waiting_for != self._told:
            self.say(Event(node="", phase="rollout", text=f"next node waits for {waiting_for}"))
        self._told = waiting_for


_STANDS = {
    Verdict.CHANGED: Stand.DONE,
    Verdict.CONVERGED: Stand.SETTLED,
    Verdict.SKIPPED: Stand.SETTLED,
    Verdict.BLOCKED: Stand.SETTLED,
    Verdict.INCOMPATIBLE: Stand.SETTLED,
    Verdict.NOT_MENDABLE: Stand.SETTLED,
    Verdict.DEFERRED: Stand.SETTLED,
    Verdict.GIVEN_UP: Stand.SETTLED,
    Verdict.UNREACHABLE: Stand.UNREACHABLE,
}

_NOTED = {Verdict.FAILED, Verdict.INCOMPATIBLE, Verdict.NOT_MENDABLE}
"""Ends without an outage that `remediate` must know of later."""
