"""Many nodes: a rollout fed by `rollout.admit`, one thread that owns the state, workers that return or raise.

Each node's turn has two parts, both in a worker: `prepare` while it serves, `perform` once it has a slot.
Between them this loop decides, saves what a successor must know in the run record, and listens for
pause, abort and Ctrl-C, which only ever keep further nodes from starting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from fleetdrv import entries, progress
from fleetdrv.drive import NodeDriver
from fleetdrv.ending import Ending
from fleetdrv.endings import FAILED_BEFORE, NOTED, Result, failed_earlier, of_error, stand_of, unseen
from fleetdrv.errors import ClusterError, FleetdrvError, Stopped, WayGone
from fleetdrv.events import Event, Level, Say
from fleetdrv.policy import Rollout
from fleetdrv.records import RunRecord
from fleetdrv.rollout import Admission, admit
from fleetdrv.roster import Roster
from fleetdrv.send import Lock
from fleetdrv.slots import Member, Out, Pool, Stand
from fleetdrv.soaks import Soaks
from fleetdrv.timing import utc_now
from fleetdrv.turn import Debt, Owed, Verdict
from fleetdrv.windows import room

_TURN_SECONDS = 1.0
"""How long the loop waits for a worker before it listens for orders again."""

POOL_SECONDS = 5.0
"""How old the view of other people's outages may be when a slot is given away; ours are known exactly."""


@dataclass(slots=True, kw_only=True)
class Fleet:
    """One rollout under way."""

    drivers: Mapping[str, NodeDriver]
    policy: Rollout
    lock: Lock
    pool: Callable[[], tuple[Pool, Mapping[str, Out]]]
    """Read the whole pool: its size and foreign outages, and how each driven node stands."""
    say: Say
    stop_after_canary: bool = False
    interrupted: Callable[[], bool] = lambda: False
    away: Callable[[], str] = str  # what stands between us and the nodes for now
    pins: Callable[[], Mapping[str, str]] = dict
    """Exact versions that patterns were resolved to by now."""
    now: Callable[[], float] = time.monotonic
    wall: Callable[[], datetime] = utc_now
    """For maintenance windows, and for soaks that outlive their controller."""
    sleep: Callable[[float], None] = time.sleep
    expected: Mapping[str, float] = field(default_factory=dict)
    """How many seconds each node's outage may take, as far as former runs tell."""
    members: Roster = field(default_factory=lambda: Roster({}))
    endings: dict[str, Ending] = field(default_factory=dict)
    _under_way: dict[Future[Owed | Ending], tuple[str, str]] = field(default_factory=dict)
    _soaks: Soaks = field(init=False)
    _stop: str = ""
    _goes_on: bool = False
    _told: str = ""
    _pool: tuple[float, Pool] | None = None
    _away: bool = False
    """The cluster's API did not answer when the pool was to be read."""

    def __post_init__(self) -> None:
        self._soaks = Soaks(drivers=self.drivers, policy=self.policy, now=self.now, wall=self.wall)

    def meet(self, seen: Mapping[str, Owed | FleetdrvError]) -> None:
        """Take all nodes in with what the survey saw of them."""
        self.members = Roster({name: Member(stand=Stand.WAITING) for name in seen}, self.expected)
        self._note_down("", "rollout", "")
        with suppress(FleetdrvError):  # it is read again before anybody starts
            self._read_pool()
        for name in (name for name, member in self.members.items() if member.ours):
            self._note_down(name, "cordon", "out of service since an earlier command")
        away = [n for n in unseen(seen) if not (self.members[n].ours or n in self.lock.record.soaking)]
        record = progress.failed(self.lock.record, *failed_earlier(seen, self.drivers))
        self._save(progress.unreachable(record, *away))  # of thousands, in one write
        for name, came in seen.items():
            self._note_down(name, "found", "", {"drivers": self.drivers[name].found()})
            if self._soaks.left_behind(self.lock.record, name, came):
                self._ended(Ending(node=name, verdict=Verdict.CHANGED, why="changed before this controller came"))
            elif isinstance(came, FleetdrvError):
                self._failed(name, "prepare", came)
            elif came.debt is Debt.NOTHING:
                self._settled(name, came)
            elif came.debt in FAILED_BEFORE:  # spent now, though it has still to be brought to its end
                self._save(progress.failed(self.lock.record, name))

    def run(self) -> Result:
        """Roll until nobody may start and nobody is under way."""
        width = min((self.policy.staging or 0) + 2 * self.policy.max_parallel + 4, 2 * len(self.drivers) + 1)
        workers = ThreadPoolExecutor(width, thread_name_prefix="node")
        try:
            while self._step(workers):
                pass
        finally:
            workers.shutdown(wait=not self._under_way, cancel_futures=True)
        waiting = [n for n, m in self.members.items() if m.stand in (Stand.WAITING, Stand.STAGED)]
        return Result(
            endings=tuple(self.endings.values()),
            stopped=self._stop,
            waiting=tuple(waiting),
            goes_on=self._goes_on,
            interrupted=self.interrupted(),
        )

    def _step(self, workers: ThreadPoolExecutor) -> bool:
        """Start whom we may, then wait for somebody; return whether there is more to come."""
        for name in self._soaks.ended():
            self._under_way[workers.submit(self.drivers[name].look, self.lock.run)] = (name, "look")
        why = self._closed()
        admission = Admission(stopped=why) if why else self._admit()
        for name in admission.stage:
            self._start(workers, name, "prepare", Stand.STAGING)
        for name in admission.outage:
            self._start(workers, name, "perform", Stand.IN_OUTAGE)
        if not self._under_way and (why or not (self._soaks or self._away)):
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
        if self._under_way and (away := self.away()):
            return Admission(waiting_for=away)  # whoever is under way dials it again
        try:
            pool, self._away = self._read_pool(), False
        except FleetdrvError as error:  # nodes in hand are brought to their end
            self._away = isinstance(error, ClusterError)
            return Admission(waiting_for=f"the pool to be seen: {error}")
        return admit(
            self.members,
            pool,
            self.policy,
            progress.progress(self.lock.record, self.policy),
            room=room(self.policy.windows, self.wall()),
            stop_after_canary=self.stop_after_canary,
        )

    def _read_pool(self) -> Pool:
        """Read the pool again when one of ours did not come back as it should, or the last look is old."""
        if self._pool is None or self.now() - self._pool[0] > POOL_SECONDS:
            pool, stands = self.pool()
            self._pool = (self.now(), pool)
            for name, stand in stands.items():
                if self.members[name].stand is not Stand.IN_OUTAGE:  # it is known as it was found
                    self.members[name] = self.members[name].at(stand)
        return self._pool[1]

    def _start(self, workers: ThreadPoolExecutor, name: str, part: str, stand: Stand) -> None:
        self._stands(name, stand)
        self._under_way[workers.submit(getattr(self.drivers[name], part), self.lock)] = (name, part)

    def _take(self, future: Future[Owed | Ending], name: str, part: str) -> None:
        try:
            came = future.result()
        except (FleetdrvError, OSError) as error:
            if part != "look" or not self._soaks.again(name, error):
                self._failed(name, part, error)
            return
        if part == "look":
            self._soaked(name, came)
        elif isinstance(came, Ending):
            # Not after each that serves again: 1,000 Nodes with their images are 15 MB and 0.2 s of CPU.
            if came.verdict is not Verdict.CHANGED or self.members[name].out:
                self._pool = None
            self._ended(came)
        elif came.debt in (Debt.NOTHING, Debt.LET_GO):
            self._settled(name, came)
        else:
            self._keep_versions()
            self._stands(name, Stand.STAGED)

    def _stands(self, name: str, stand: Stand) -> None:
        self.members[name] = replace(self.members[name], stand=stand)
        self._note_down(name, "stand", stand)

    def _note_down(self, name: str, phase: str, text: str, data: Mapping[str, Any] | None = None) -> None:
        """Tell what whoever draws the rollout has to know, and a reader of lines has not."""
        self.say(Event(node=name, phase=phase, text=text, level=Level.DETAIL, data=data))

    def _keep_versions(self) -> None:
        """What stage found out of versions is recorded before the first outage that relies on it."""
        record, pins = self.lock.record, self.pins()
        if not pins.items() <= record.versions.items():
            self._save(replace(record, versions={**record.versions, **pins}))

    def _settled(self, name: str, due: Owed) -> None:
        """The turn ended while the node served."""
        ending = self.drivers[name].ending(due)
        if ending.verdict in NOTED and name not in self.lock.record.failed:
            self._note(name, due)
        self._ended(ending)

    def _note(self, name: str, due: Owed) -> None:
        try:
            self.drivers[name].note(due, self.lock.run)
        except FleetdrvError as error:
            self.say(Event(node=name, phase="note", text=f"could not be noted: {error}", level=Level.WARNING))

    def _ended(self, ending: Ending) -> None:
        self.endings[ending.node] = ending
        stand = stand_of(ending.verdict)
        self.members[ending.node] = replace(self.members[ending.node], stand=stand)
        record = progress.measured(self.lock.record, self.policy, ending.own_seconds_out)
        if stand is Stand.FAILED:
            record = progress.failed(record, ending.node)
        elif stand is Stand.UNREACHABLE:
            record = progress.unreachable(record, ending.node)
        elif stand is Stand.DONE and progress.is_canary(record, self.policy, ending.node):
            record = self._soaks.begin(record, ending.node)
        self._save(record)
        level = Level.WARNING if stand in (Stand.FAILED, Stand.UNREACHABLE) else Level.PROGRESS
        self.say(entries.ended(ending, level, self.drivers[ending.node].found()))
        if ending.node in record.soaking:
            self._note_down(ending.node, "soak", f"serves until a look at {record.soaking[ending.node]}")

    def _failed(self, name: str, part: str, error: FleetdrvError | OSError) -> None:
        """An act raised. Lost before any touch is unreachable; lost after the cordon counts as failed."""
        self._pool = None  # it may stand cordoned: the next slot is given away after a look
        if isinstance(error, Stopped):
            self._stop, self._goes_on = self._stop or str(error), self._goes_on or isinstance(error, WayGone)
        again = f"the same command again; or: fleetdrv status {self.lock.record.pool}"
        self._ended(of_error(name, error, early=part == "prepare" and not self.members[name].ours, remedy=again))

    def _soaked(self, name: str, came: Owed | Ending) -> None:
        """A canary passes when a look after its soak finds nothing amiss."""
        fault = self._soaks.fault(self.lock.record, name, came)
        if not fault:
            self._note_down(name, "soaked", "came through")
            self._save(progress.passed(self.lock.record, name))
            return
        why = f"did not last its soak: {fault}"
        self._note(name, Owed(debt=Debt.NOTHING, verdict=Verdict.FAILED, why=why))
        self._ended(Ending(node=name, verdict=Verdict.FAILED, why=why, remedy=self.drivers[name].plan_again))

    def _save(self, record: RunRecord) -> None:
        if record == self.lock.record:
            return
        try:
            self.lock.save(record)
        except (Stopped, ClusterError) as error:
            why = f"the run record could not be saved ({error}); to go on: the same command again"
            self._stop, self._goes_on = self._stop or why, self._goes_on or not self._stop

    def _end(self, admission: Admission) -> None:
        left = [n for n, m in self.members.items() if m.stand in (Stand.WAITING, Stand.STAGED)]
        if left and not self._stop:
            self._stop = admission.stopped or f"waiting for {admission.waiting_for or 'nothing: a bug'}"
            self._goes_on = admission.later

    def _mention(self, waiting_for: str) -> None:
        if waiting_for and waiting_for != self._told:
            self.say(Event(node="", phase="rollout", text=f"next node waits for {waiting_for}"))
        elif waiting_for != self._told and not self._stop:
            self._note_down("", "rollout", "")
        self._told = waiting_for
