"""One node's turn: look, read the debt, pay it, look again.

There is no memory between two looks and no recovery code: a controller that was killed anywhere is
continued by reading the same debts. Runs in a worker thread of its own; tells what happens as Events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from fleetdrv import causes, entries, gone
from fleetdrv.attempts import Counting
from fleetdrv.buildonce import Builds
from fleetdrv.calling import NodeHooks
from fleetdrv.effects import Effects
from fleetdrv.ending import Ending
from fleetdrv.errors import ClusterAway, Gone, HandsOff, NodeError, NotFound, NotOurs, Permanent
from fleetdrv.events import Event, Level, Say
from fleetdrv.follow import Line
from fleetdrv.holders import with_owners
from fleetdrv.load import Loaded
from fleetdrv.look import OtherBoot, View, judge, look
from fleetdrv.mend import owed
from fleetdrv.outage import Outage
from fleetdrv.phases import Phase, last_job
from fleetdrv.send import Sender, Warrant
from fleetdrv.service import Service
from fleetdrv.staging import Staging
from fleetdrv.standing import Standing
from fleetdrv.timing import Stopwatch, stamp
from fleetdrv.turn import Debt, Grip, Owed, Verdict
from fleetdrv.versions import Versions

MAX_ROUNDS = 24
"""More looks than any turn needs; a turn that goes round and round is a bug, and ends here."""

FRESH_SECONDS = 30.0
"""A look that is younger serves as the first of a turn: the survey's for the nodes that start at once."""

AWAY_SECONDS = 5.0

BOOT_SECONDS = 300.0
"""For the kubelet of a node that was rebooted under way to report the new boot, once SSH answers."""

Act = Callable[[View, Owed, Warrant], Owed | None]


@dataclass(slots=True, kw_only=True)
class NodeDriver:
    """Drives one node for one run."""

    name: str
    line: Line
    service: Service
    loaded: Loaded
    say: Say
    builds: Builds
    hooks: NodeHooks = field(default_factory=NodeHooks)
    counting: Counting = field(default_factory=Counting)
    versions: Versions = field(default_factory=Versions)
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    effects: Effects = field(default_factory=Effects)
    plan_again: str = ""
    """The command that shows this node's plan, to be typed by whoever mends it."""
    today: Callable[[], str] = stamp
    view: View | None = None
    stopwatch: Stopwatch = field(init=False)
    """How long each phase of the turn took: of `_PHASES`, and `look`, which is also how a change is verified."""
    _due: Owed | None = None
    _anew: bool = False  # its Node was registered anew since this turn took it out
    _causes: causes.Causes = field(init=False)
    _looked_at: float = 0.0
    _jobs: Sender = field(init=False)
    _staging: Staging = field(init=False)
    _outage: Outage = field(init=False)

    def __post_init__(self) -> None:
        self.stopwatch = Stopwatch(self.now)
        self._jobs = Sender(line=self.line, pool=self.loaded.playbook.pool_name, now=self.now, tell=self._tell)
        self._causes = causes.Causes(self._jobs.ends)
        about = (self.name, self.loaded, self._jobs, self.builds, self.stopwatch)
        self._staging = Staging(*about, tell=self._tell)
        self._outage = Outage(
            service=self.service, loaded=self.loaded, jobs=self._jobs, tell=self._tell, now=self.now,
            today=self.today, sleep=self.sleep, hooks=self.hooks, effects=self.effects,
        )

    def look(self, run: str) -> Owed:
        """See how node and machine stand now, and what that makes due."""
        self._tell("look", "", Level.DETAIL)
        try:
            standing = self.service.standing()
            self._anew = gone.registered_anew(self._anew, self.view, standing, out=self._outage.out)
            self._outage.out = bool(standing.run)
            self.view = self._look_at(run, standing)
        finally:
            self._tell("seen", "", Level.DETAIL)
        self._due, self._looked_at = self._owed(self.view, run), self.now()
        self._outage.changing = False
        return self._due

    def _look_at(self, run: str, standing: Standing) -> View:
        book, back, repair = self.loaded.playbook, self.loaded.back, self.loaded.repair
        return look(self.line, book, self.versions, standing, run, back=back, repair=repair)

    def found(self) -> entries.Drivers | None:
        """Return the versions of each driver as they are known to be; None: not seen, or not since a change."""
        known = self.view is not None and not self._outage.changing
        return entries.found(self._seen.wanted, self._seen.facts) if known else None

    def _owed(self, view: View, run: str) -> Owed:
        bar = self.counting.bar(view.standing.last, run=run, now=datetime.fromisoformat(self.today()))
        due = owed(replace(view.sight, barred=bar))
        return gone.owed_anew(due, view.standing.grip) if self._anew else due

    def judge_again(self, run: str) -> Owed:
        """Say what is due by the last look, now that more versions are known."""
        seen, told = self._seen, self.loaded
        known = (seen.facts, seen.good, seen.standing)
        self.view = judge(told.playbook, self.versions, *known, run, back=told.back, repair=told.repair)
        self._due = self._owed(self.view, run)
        return self._due

    def _look_once(self, warrant: Warrant) -> Owed:
        """Use a fresh look that nothing was done after; each serves once."""
        due, self._due = self._due, None
        if due is not None and self.now() - self._looked_at < FRESH_SECONDS:
            return due
        due = self._look_patiently(warrant)
        self._due = None
        return due

    def _look_patiently(self, warrant: Warrant) -> Owed:
        """Look; a node that has proven itself to this run and was rebooted since gets time to report its boot."""
        until = self.now() + BOOT_SECONDS
        while True:
            try:
                return self.look(warrant.run)
            except OtherBoot:
                if self.view is None or self.now() >= until:
                    raise
                self._tell("boot", "it was rebooted under way; waiting until its kubelet has reported again")
                self.sleep(AWAY_SECONDS)
                warrant.check()

    def prepare(self, warrant: Warrant) -> Owed:
        """Do all that can be done without taking the node out of service; return what is due then.

        Marks of ours on a node that is somebody else's by now go here: that needs no slot, and what is due then
        is `Debt.LET_GO` with its final verdict. A finished build is fetched at its end, so also one that a
        controller left which was killed before that.
        """
        try:
            due = self._pay(warrant, self._serving())
            if due.debt is Debt.OUTAGE and not self._seen.standing.out:
                self._staging.share(self.line, self._seen)
            return due
        finally:
            self.stopwatch.enter("")
            self.builds.release(self.name)

    def _serving(self) -> dict[Debt, Act]:
        serving = self._staging
        return {Debt.FOLLOW: serving.follow, Debt.STAGE: serving.stage, Debt.LET_GO: self._outage.let_go}

    def perform(self, warrant: Warrant) -> Ending:
        """Do the outage, or what is left of one, to its end."""
        outage = self._outage
        acts: dict[Debt, Act] = {
            Debt.OUTAGE: outage.begin, Debt.ROLLBACK: outage.roll_back, Debt.FINISH: outage.finish,
            Debt.RETURN: outage.give_back, Debt.RETURN_ROLLED_BACK: outage.give_back,
            Debt.LEAVE_OUT: outage.leave_out,
        }
        try:
            due = self._pay(warrant, {**self._serving(), **acts})
        except NotOurs:
            raise
        except NodeError as error:
            self._outage.explain(error, warrant.run)
            self._after(warrant.run, Verdict.FAILED, f"{error.step}: {error.cause}")
            raise
        finally:
            self.stopwatch.enter("")
            self.builds.release(self.name)
        ending = self.ending(due)
        if ending.verdict is Verdict.BLOCKED:
            self.service.tell(self._outage.result(due, warrant.run))
        self._after(warrant.run, ending.verdict, ending.why)
        return ending

    def _after(self, run: str, verdict: Verdict, why: str) -> None:
        """The turn ended here: also one that a process before this began."""
        self.hooks.began |= self._seen.standing.grip in (Grip.OURS, Grip.LOST)
        self.hooks.after(run, verdict, why, self._outage.seconds_out)

    def ending(self, due: Owed) -> Ending:
        """Put the final debt into words, with the failed job's own last lines."""
        why = (self._seen.standing.reason if due.verdict is Verdict.SKIPPED else "") or due.why
        remedy = "" if due.verdict in _CALM else gone.next_step(due, self.service.node, self.plan_again)
        return Ending(
            node=self.name,
            verdict=due.verdict or Verdict.FAILED,
            why=why,
            evidence=self._evidence(due.job),
            remedy=remedy,
            found=self._causes.of(due.job, self._seen.facts) if due.verdict in causes.FAILED else None,
            seconds_out=self._outage.seconds_out,
            taken_over=self._outage.taken_over,
            cost=self._outage.cost,
        )

    def _with_cause(self, due: Owed) -> Owed:
        """Say why a job failed, before that is written anywhere."""
        if due.verdict not in causes.FAILED and due.debt is not Debt.ROLLBACK:
            return due
        failed = last_job(self._seen.sight, Phase.OUTAGE) if due.debt is Debt.ROLLBACK else None
        job = failed.id if failed else due.job
        self._jobs.fetch(job)
        return causes.with_cause(due, self._causes.of(job, self._seen.facts), job)

    def _evidence(self, job: str) -> str:
        text = self._jobs.evidence(job)
        return with_owners(text, self._outage.occupants()) if " of pod " in text else text

    @property
    def out(self) -> bool:
        """As `Outage.out`."""
        return self._outage.out

    def note(self, due: Owed, run: str) -> None:
        """Record on the Node how a turn ended that never took it out of service."""
        self.service.note(self._outage.result(due, run))

    def _pay(self, warrant: Warrant, acts: Mapping[Debt, Act]) -> Owed:
        """Pay debts until one is due that is not in `acts`, or an act was the last.

        Each act that is cut off is gone on with by looking again: an API that is away for a moment ends no turn.
        That is bounded by the Lease, which cannot be renewed meanwhile; where it can, by the number of looks.
        """
        why = "this is a bug"
        for _ in range(MAX_ROUNDS):
            warrant.check()
            self.stopwatch.enter("look")
            try:
                due = self._with_cause(self._look_once(warrant))
                act = acts.get(due.debt)
                if act is None:
                    self._due = due  # nothing was done: the next part of the turn may go on from here
                    return due
                self._adopt(due, warrant)
                final = act(self._seen, due, warrant)
            except HandsOff as error:
                self._tell("cordon", str(error.cause), Level.WARNING)
                continue  # the next look sees whose it is, or who holds it
            except ClusterAway as error:
                self._tell("cluster", why := f"waiting for the API: {error}", Level.WARNING)
                self.sleep(AWAY_SECONDS)
                continue
            except (Gone, NotFound) as error:
                gone.demand(self.service, error)
                return self._last_look(warrant.run)
            if final is not None:
                return final
        raise Permanent(self.name, "turn", f"still owes something after {MAX_ROUNDS} looks; {why}")

    def _last_look(self, run: str) -> Owed:
        touched, self._outage.out = self._seen.standing.touched or self._outage.changing, False
        machine = gone.LastLook(self._seen, lambda now: self._look_at(run, now), self._jobs.follow)
        return self._with_cause(machine.owed(touched=touched))

    def _adopt(self, due: Owed, warrant: Warrant) -> None:
        """What an earlier run left out is taken over first: whatever changes or returns it names this run."""
        if due.debt in _OF_THE_HOLDER and self._seen.standing.run not in ("", warrant.run):
            self.service.adopt(warrant.run)

    # -- helpers

    @property
    def _seen(self) -> View:
        if self.view is None:
            raise Permanent(self.name, "turn", "was not looked at")
        return self.view

    def _tell(self, phase: str, text: str, level: Level = Level.PROGRESS) -> None:
        if phase in _PHASES:
            self.stopwatch.enter(phase)
        self.say(Event(node=self.name, phase=phase, text=text, level=level))


_CALM = frozenset({Verdict.CONVERGED, Verdict.CHANGED, Verdict.SKIPPED})

_PHASES = frozenset({"stage", "cordon", "drain", "outage", "rollback", "keep", "return"})
"""What is told with one of these words begins that phase; what is told with another goes on within it."""

_OF_THE_HOLDER = {Debt.ROLLBACK, Debt.FINISH, Debt.RETURN, Debt.RETURN_ROLLED_BACK, Debt.LEAVE_OUT}
"""Debts of a node that is out; an outage takes it over by itself."""
