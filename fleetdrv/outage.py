"""The acts of one node's outage: out of service, changed or rolled back, recorded, and back again.

Each act pays one debt. It returns the final debt, or None where another look decides what is due next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from fleetdrv import ready
from fleetdrv.calling import NodeHooks, Veto
from fleetdrv.effects import Cost, Effects
from fleetdrv.errors import FleetdrvError, HandsOff, NodeError, Permanent, Transient
from fleetdrv.events import Level
from fleetdrv.holders import Holder, holders, told
from fleetdrv.lifelines import stay
from fleetdrv.load import Loaded
from fleetdrv.look import View, ask
from fleetdrv.model import NodeFacts
from fleetdrv.parse import ProbeError
from fleetdrv.phases import Phase, job_id
from fleetdrv.plan import Disruption
from fleetdrv.playbook import Driver
from fleetdrv.records import Result, seconds_between
from fleetdrv.secret import hide
from fleetdrv.send import Sender, Tell, Warrant
from fleetdrv.service import Service
from fleetdrv.steps import keep, renewed, restore, stage_key
from fleetdrv.turn import Debt, Grip, Owed, Verdict

_LOOK_SECONDS = 60.0
_PATIENCE_SECONDS = (0.5, 1.0, 2.0)


@dataclass(slots=True, kw_only=True)
class Outage:
    """Takes one node out of service for one run, and gives it back."""

    service: Service
    loaded: Loaded
    jobs: Sender
    tell: Tell
    now: Callable[[], float]
    today: Callable[[], str]
    sleep: Callable[[float], None]
    hooks: NodeHooks
    out: bool = False
    """Out by our hand, as far as this process knows: for who cannot ask the cluster."""
    seconds_out: float | None = None
    """Node-seconds out of service: from the cordon, whoever set it for us, to the uncordon."""
    taken_over: bool = False
    """An earlier controller began this outage: how long it takes says little of the next node's."""
    effects: Effects = field(default_factory=Effects)
    cost: Cost | None = None
    """What was sent out meanwhile, for this node."""
    changing: bool = False
    """Something was sent that changes the node; who looks at it afterwards takes this back."""
    _since: float | None = None
    _before: Cost | None = None
    _occupants: dict[str, str] = field(default_factory=dict)

    def begin(self, seen: View, due: Owed, warrant: Warrant) -> Owed | None:
        """Cordon, drain where the plan says so, record that the node is touched, send the job."""
        if blocked := self._neighbours(seen):
            return blocked
        drains = seen.plan.disruption is not Disruption.NONE
        if drains and not seen.standing.out and (obstacles := self.service.obstacles()):
            why = "; ".join(obstacles)
            return Owed(debt=Debt.NOTHING, verdict=Verdict.BLOCKED, why=f"cannot be drained: {why}")
        if seen.standing.grip is not Grip.OURS:
            waited, blocked = self._wait_for_apt(seen, warrant)
            if waited or blocked:
                return blocked  # whoever was waited for may have changed packages: look again
        try:
            if seen.standing.grip is not Grip.OURS and self.hooks.before(warrant.run, due.why):
                return None  # minutes may have passed: look again before anything is done
        except Veto as veto:
            return Owed(debt=Debt.NOTHING, verdict=Verdict.BLOCKED, why=str(veto))
        if drains:
            self._occupants.update(self.service.occupants())  # who owned a pod is not known once it is gone
        self.tell("cordon", due.why, Level.PROGRESS)
        self._before = self._before or self.effects.of_this_thread()
        self.out = True  # first: should no answer come, it may well be
        self.service.take_out(warrant.run, due.why, warrant.check)
        self._clock(seen)
        if drains and (failed := self._drain(seen, warrant)):
            return failed
        if _unloads(seen) and not seen.standing.touched and (failed := self._release(seen, warrant)):
            return failed
        self.service.mark_touched(warrant.run, due.job)
        warrant.check()
        self.changing = True
        self.tell("outage", f"{len(seen.plan.outage)} steps", Level.PROGRESS)
        self.jobs.send(due.job, seen.plan.outage, warrant, _configuration(seen))
        return None

    def _neighbours(self, seen: View) -> Owed | None:
        """A node that another program works on is not cordoned; one that is out by our hand is finished."""
        others = () if seen.standing.grip is Grip.OURS else self.service.neighbours()
        if not others:
            return None
        return Owed(debt=Debt.NOTHING, verdict=Verdict.BLOCKED, why=f"others are at work: {'; '.join(others)}")

    def _wait_for_apt(self, seen: View, warrant: Warrant) -> tuple[bool, Owed | None]:
        return ready.wait(
            self.jobs.line, seen.plan, warrant.check, lambda text: self.tell("apt", text, Level.PROGRESS)
        )

    def _drain(self, seen: View, warrant: Warrant) -> Owed | None:
        """Empty the node; where that fails and nothing was touched, it goes back as it was found."""
        self.tell("drain", "pods leave", Level.PROGRESS)
        try:
            self.service.empty(warrant.check, lambda text: self.tell("drain", text, Level.PROGRESS))
        except (Transient, Permanent) as error:
            if isinstance(error, HandsOff) or seen.standing.touched:
                raise
            return self._untouched(seen, error, warrant)
        return None

    def _release(self, seen: View, warrant: Warrant) -> Owed | None:
        """Have nobody use the modules any more: DaemonSets are kept off, anybody else is named and stays."""
        users = self._look_for_users(seen)
        try:
            self._hold_off(users, warrant)
            self._wait_for_users(users, seen)
        except HandsOff:
            raise
        except (Transient, Permanent) as error:
            return self._untouched(seen, error, warrant)
        return None

    def _hold_off(self, users: Sequence[Holder], warrant: Warrant) -> None:
        pods = {user.pod for user in users} - {""}
        try:
            self.service.hold_off(
                warrant.run, pods, warrant.check, lambda text: self.tell("hold off", text, Level.PROGRESS)
            )
        except (Transient, Permanent) as error:
            if users and not isinstance(error, HandsOff):
                error.cause = f"{error.cause}; {told(users, self.occupants())}"
            raise

    def occupants(self) -> Mapping[str, str]:
        """Name the pods that are on the node or were when its outage began, with their owners, by UID."""
        with suppress(FleetdrvError):  # for a message only
            self._occupants.update(self.service.occupants())
        return self._occupants

    def _wait_for_users(self, users: Sequence[Holder], seen: View) -> None:
        """Whoever was just told to end may need a moment to close its files."""
        for pause in _PATIENCE_SECONDS:
            if not users:
                return
            first = f"{users[0].command} ({users[0].pid})"
            self.tell("drain", f"waiting for {first} to close {users[0].device}", Level.PROGRESS)
            self.sleep(pause)
            users = self._look_for_users(seen)
        if users:
            who = told(users, self.occupants())
            raise Permanent(self.jobs.line.node, "unload", f"still in use: {who}")

    def _look_for_users(self, seen: View) -> tuple[Holder, ...]:
        """Return who must let go by itself; services of the playbook are stopped by the job, by name."""
        line, modules = self.jobs.line, _unloads(seen)
        code, out, errors = ask(line, "holders.sh", modules, step="holders", deadline_seconds=_LOOK_SECONDS)
        try:
            users = holders(out.decode("utf-8", "replace"))
        except ProbeError as error:
            evidence = errors.decode("utf-8", "replace")[-2000:]
            raise Permanent(line.node, "holders", f"exit {code}: {error}", evidence=evidence) from error
        return tuple(user for user in users if user.unit not in _stops(seen))

    def _untouched(self, seen: View, error: NodeError, warrant: Warrant) -> Owed:
        due = Owed(debt=Debt.NOTHING, verdict=Verdict.FAILED, why=f"{error.step}: {error.cause}")
        self._uncordon(seen, due, warrant, {})
        return due

    def roll_back(self, seen: View, due: Owed, warrant: Warrant) -> None:
        """Send the way back to the last known good of every driver."""
        self.tell("rollback", due.why, Level.WARNING)
        self.service.mark_touched(warrant.run, due.job)
        self.changing = True
        failed = {d.name: stage_key(d, seen.facts) for d in seen.wanted if d.brought}
        modules = [module for driver in seen.wanted for module in driver.modules]
        among = (*modules, *(module for driver in seen.good for module in driver.modules))
        listed = {driver.name: driver.services for driver in seen.wanted}
        good = tuple(driver.with_services(listed.get(driver.name, ())) for driver in seen.good)
        steps = restore(good, failed, modules, staying=stay(among, seen.facts))
        steps += tuple(renewed((*seen.good, *seen.wanted), seen.facts))
        self.jobs.send(due.job, steps, warrant, {})

    def finish(self, seen: View, due: Owed, warrant: Warrant) -> Owed | None:
        """Record what was verified as last known good, then uncordon."""
        drivers = seen.wanted
        unkept = [driver for driver in drivers if _unkept(driver, seen.facts)]
        if (unkept or seen.obeys_before(warrant.token)) and not self._keep(seen.facts, unkept, warrant):
            return None
        self._uncordon(seen, due, warrant, {driver.name: driver.version for driver in drivers})
        return due

    def _keep(self, facts: NodeFacts, drivers: Sequence[Driver], warrant: Warrant) -> bool:
        """Record drivers as last known good, if any. False: the job was cut off or never began, so look again."""
        ours = f"{warrant.run}.{Phase.KEEP}."
        taken = [int(job.id.removeprefix(ours)) for job in facts.jobs if job.id.startswith(ours)]
        said = "verified; recorded as last known good" if drivers else "the node learns who drives it now"
        self.tell("keep", said, Level.PROGRESS)
        payload = {f"{d.name}.json": d.model_dump_json().encode() for d in drivers}
        job = job_id(warrant.run, Phase.KEEP, max(taken, default=0) + 1)
        end = self.jobs.send(job, tuple(keep(d, facts) for d in drivers), warrant, payload)
        if end.exit_code is None or end.failed_step == "lock":
            return False
        if end.exit_code != 0 and not drivers:
            raise Permanent(self.jobs.line.node, "token", end.tail(1))
        if end.exit_code != 0:
            # The driver is verified: no reason to keep the node from serving, but one to say so.
            why = f"not kept as last known good, so the next version could not be rolled back: {end.tail(1)}"
            self.tell("keep", why, Level.WARNING)
        return True

    def give_back(self, seen: View, due: Owed, warrant: Warrant) -> Owed | None:
        """Uncordon a node that was not touched, or stands at its last known good again."""
        if seen.obeys_before(warrant.token) and not self._keep(seen.facts, (), warrant):
            return None
        drivers = seen.good if due.debt is Debt.RETURN_ROLLED_BACK else ()
        self._uncordon(seen, due, warrant, {driver.name: driver.version for driver in drivers})
        self.jobs.fetch(due.job)
        return due

    def leave_out(self, _: View, due: Owed, warrant: Warrant) -> Owed:
        """Keep the node out of service, and say why on the Node."""
        self.tell("leave out", due.why, Level.WARNING)
        self.service.leave_out(warrant.run, self.result(due, warrant.run))
        self.jobs.fetch(due.job)
        return due

    def let_go(self, _: View, due: Owed, warrant: Warrant) -> Owed:
        """Take our marks off a node that is somebody else's now."""
        self.service.let_go(self.result(due, warrant.run))
        self.out = False
        return due

    def explain(self, error: NodeError, run: str) -> None:
        """Say on a node that stays out by our hand why its turn broke off. Best effort."""
        with suppress(FleetdrvError):
            standing = self.service.standing()
            if standing.grip is Grip.OURS and standing.run == run:
                due = Owed(debt=Debt.LEAVE_OUT, verdict=Verdict.FAILED, why=f"{error.step}: {error.cause}")
                self.service.leave_out(run, self.result(due, run))

    def result(self, due: Owed, run: str) -> Result:
        """Return what is recorded on the Node of a final debt."""
        verdict, finding = str(due.verdict or Verdict.FAILED), hide(due.why)[:500]
        return Result(run=run, digest=self.loaded.digest, verdict=verdict, finding=finding, at=self.today())

    def _clock(self, seen: View) -> None:
        """Begin to count, once: from now, or from the cordon that an earlier controller has set."""
        if self._since is not None:
            return
        self._since = self.now()
        if seen.standing.grip is Grip.OURS and seen.standing.since:
            self.taken_over = True
            self._since -= seconds_between(seen.standing.since, self.today())

    def _uncordon(self, seen: View, due: Owed, warrant: Warrant, drivers: Mapping[str, str]) -> None:
        self._clock(seen)
        self.tell("return", "taint off; DaemonSets and devices come back", Level.DETAIL)
        self.service.give_back(warrant.run, self.result(due, warrant.run), drivers)
        assert self._since is not None
        self.out = False
        self.seconds_out = self.now() - self._since
        self.cost = self.effects.of_this_thread() - self._before if self._before is not None else None
        seconds = f" after {self.seconds_out:.1f} s out of service" + (f": {self.cost}" if self.cost else "")
        self.tell("uncordon", f"back in service{seconds}", Level.PROGRESS)


def _unkept(driver: Driver, facts: NodeFacts) -> bool:
    """Whether what is kept may be of something else; a trial build that is still there was installed since."""
    if not driver.brought:
        return False  # nothing of the kernel's own modules can be lost
    good = facts.good.get(driver.name)
    return good is None or good.digest != driver.digest or stage_key(driver, facts) in facts.staged


def _configuration(seen: View) -> dict[str, bytes]:
    texts = (pair for driver in seen.wanted for pair in driver.configuration().items())
    return {path: text.encode() for path, text in texts}


def _unloads(seen: View) -> tuple[str, ...]:
    """Return the modules that the outage is going to take out of the kernel."""
    steps = (step for step in seen.plan.outage if step.program == "unload.sh")
    return tuple(word.partition(":")[0] for step in steps for word in step.argv)


def _stops(seen: View) -> frozenset[str]:
    """Return the systemd units that the outage is going to stop before that."""
    steps = [step for step in seen.plan.outage if step.program == "services.sh" and step.argv[0] == "stop"]
    return frozenset(unit for step in steps for unit in step.argv[3:])
