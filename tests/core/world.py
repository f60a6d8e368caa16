"""A pool under a rollout, in memory: controllers come and are killed, people and other outages come and go.

It plays a controller as fleet.py does, with the same decisions (`rollout.admit`) and the same memory
(`progress.py` over a run record that is written and read as JSON). What is true of a node stands beside what the
controller thinks of it, and every decision is held against what is true.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fleetdrv import progress
from fleetdrv.policy import Rollout
from fleetdrv.records import Result, RunRecord
from fleetdrv.rollout import Admission, admit
from fleetdrv.slots import Domain, Member, Pool, Stand, limits, resolve
from fleetdrv.turn import Debt, Owed, Verdict
from fleetdrv.windows import room

OPEN = (Stand.WAITING, Stand.STAGED)
MOST_CALLS = 500
"""So often cron comes, every 20 minutes: a week; thirty nodes, one at a time, are done in a tenth of it."""
CONVERGED = Owed(debt=Debt.NOTHING, verdict=Verdict.CONVERGED)


@dataclass(slots=True)
class Node:
    """The truth about one node, beside what the controller thinks of it."""

    stand: Stand = Stand.WAITING
    cordoned_by_us: bool = False
    foreign: bool = False
    """Cordoned by somebody else, or not Ready."""
    domain: str = ""
    changed: datetime | None = None
    """When it came through: it serves with the new driver since then."""
    failed: bool = False
    out_since: datetime | None = None

    @property
    def out(self) -> bool:
        return self.cordoned_by_us or self.foreign

    @property
    def member(self) -> Member:
        return Member(stand=self.stand, out=self.out, ours=self.cordoned_by_us, domain=self.domain)


@dataclass(slots=True, kw_only=True)
class World:
    """A pool, its clock, the run record on its Lease, and chance."""

    policy: Rollout
    nodes: dict[str, Node]
    bystanders: list[Node]
    """Nodes of the pool that this rollout does not drive (`--limit`)."""
    chance: random.Random
    now: datetime = datetime(2026, 3, 27, 12, tzinfo=UTC)
    record: RunRecord = field(default_factory=lambda: RunRecord(id="r1", pool="gpu", playbook="toy", digest="d"))
    soaking: dict[str, datetime] = field(default_factory=dict)
    stop_after_canary: bool = False
    calm: bool = False
    """Nobody interferes any more."""
    passed: set[str] = field(default_factory=set)
    unreachable: set[str] = field(default_factory=set)
    histories: Counter[str] = field(default_factory=Counter)

    # ---- a history

    def live(self) -> Admission:
        """Play controllers, each killed, paused or at its end; then one whom nobody disturbs: its last word."""
        for _ in range(self.chance.randint(0, 4)):
            self.stop_after_canary = self.chance.random() < 0.3
            self.survey()
            self.roll()
            self.now += timedelta(seconds=self.chance.choice((1, 600, 20_000)))
        self.calm, self.stop_after_canary = True, False
        for node in (*self.nodes.values(), *self.bystanders):
            node.foreign = False
        for _ in range(MOST_CALLS):
            self.survey()
            last = self.roll()
            assert last is not None
            if not last.later:
                return last
            self.now += timedelta(minutes=20)  # cron comes again
        raise AssertionError("cron comes again and again, and the rollout has no end")

    def roll(self) -> Admission | None:
        """Play one controller; None where it was killed or paused."""
        for _ in range(60 * len(self.nodes) + 300):
            self.somebody_else()
            if not self.calm and self.chance.random() < 0.04:
                self.histories["killed"] += 1
                return None
            paused = not self.calm and self.chance.random() < 0.04
            admission = Admission(stopped="paused") if paused else self.admit()
            under_way = self.standing(Stand.STAGING, Stand.IN_OUTAGE)
            if paused and not under_way:
                return None
            if not under_way and not self.soaking:
                self.histories[admission.stopped[:5] or ("later" if admission.later else "done")] += 1
                return admission
            if not self.events(under_way):
                return None
        raise AssertionError("the rollout has no end")

    def survey(self) -> None:
        """Another controller takes over: it sees cordons, results on nodes and the run record, and no more."""
        self.record = RunRecord.from_json(self.record.to_json(), "lease")
        self.soaking = {}
        for name, node in self.nodes.items():
            if node.stand is Stand.SETTLED:
                continue
            result = Result(run="r1", digest="d", verdict=Verdict.CHANGED, finding="", at="")
            came_through = node.changed is not None and not node.failed
            unseen = progress.was_changed(self.record, CONVERGED, result if came_through else None)
            canary = name not in self.record.canary_passed and progress.is_canary(self.record, self.policy, name)
            if name in self.record.soaking or (unseen and canary):
                self.serves(name, node)
            elif came_through:
                node.stand = Stand.SETTLED
            elif node.failed:
                self.record = progress.failed(self.record, name)
                node.stand = Stand.WAITING if node.cordoned_by_us else Stand.FAILED
            else:
                node.stand = Stand.WAITING

    def serves(self, name: str, node: Node) -> None:
        node.stand = Stand.DONE
        if not self.policy.soak_seconds:
            self.record = progress.passed(self.record, name)
            self.passed.add(name)
            return
        self.record = progress.soak(self.record, self.policy, name, self.now, None)
        left = progress.remaining_seconds(self.record, self.policy, name, self.now)
        assert 0 <= left <= self.policy.soak_seconds
        self.soaking[name] = self.now + timedelta(seconds=left)

    def standing(self, *stands: Stand) -> list[str]:
        return [name for name, node in self.nodes.items() if node.stand in stands]

    # ---- what happens

    def events(self, under_way: list[str]) -> bool:
        """Let time pass, and some of those under way come to their end. False: killed in the middle of it."""
        self.now += timedelta(seconds=self.chance.randint(5, 400))
        for name in under_way:
            node = self.nodes[name]
            if node.stand is Stand.IN_OUTAGE and not node.foreign and not node.cordoned_by_us:
                node.cordoned_by_us, node.out_since = True, self.now
            if self.chance.random() < 0.6 and not self.end(name, node):
                return False
        for name in [name for name, until in self.soaking.items() if self.now >= until]:
            del self.soaking[name]
            changed = self.nodes[name].changed
            assert changed is not None
            assert self.now >= changed + timedelta(seconds=self.policy.soak_seconds - 1), "ISO has no fractions"
            if self.chance.random() < 0.9:
                self.record = progress.passed(self.record, name)
                self.passed.add(name)
            else:
                self.nodes[name].stand, self.nodes[name].failed = Stand.FAILED, True
                self.record = progress.failed(self.record, name)
        return True

    def end(self, name: str, node: Node) -> bool:
        """End what a node is in; its record may be lost with the controller, what stands on the node is not."""
        luck = self.chance.random()
        if node.stand is Stand.STAGING:
            node.stand = Stand.STAGED if luck < 0.9 else Stand.UNREACHABLE if luck < 0.95 else Stand.FAILED
            if node.cordoned_by_us and node.stand is Stand.UNREACHABLE:
                node.stand = Stand.FAILED  # lost after its cordon
            node.failed = node.failed or node.stand is Stand.FAILED
        elif luck < 0.85 and not node.failed:
            node.stand, node.cordoned_by_us, node.changed = Stand.DONE, False, self.now
        else:
            node.stand, node.failed = Stand.FAILED, True
            node.cordoned_by_us = node.cordoned_by_us and luck < 0.9  # else rolled back
        if not self.calm and self.chance.random() < 0.1:
            self.histories["killed at an end"] += 1
            return False
        self.note(name, node)
        return True

    def note(self, name: str, node: Node) -> None:
        seconds = (self.now - node.out_since).total_seconds() if node.out_since and node.changed else None
        self.record = progress.measured(self.record, self.policy, seconds)
        if node.stand is Stand.FAILED:
            self.record = progress.failed(self.record, name)
        elif node.stand is Stand.UNREACHABLE:
            self.record = progress.unreachable(self.record, name)
            self.unreachable.add(name)
        elif node.stand is Stand.DONE and progress.is_canary(self.record, self.policy, name):
            self.serves(name, node)

    def somebody_else(self) -> None:
        """Outages of others come and go, on nodes that are not in our hands."""
        if self.calm:
            return
        for node in self.nodes.values():
            if node.stand is not Stand.IN_OUTAGE and not node.cordoned_by_us and self.chance.random() < 0.03:
                node.foreign = not node.foreign
        for node in self.bystanders:
            if self.chance.random() < 0.03:
                node.foreign = not node.foreign

    # ---- decisions

    @property
    def pool(self) -> Pool:
        every = (*self.nodes.values(), *self.bystanders)
        sizes = Counter(node.domain for node in every if self.policy.max_unavailable_per)
        foreign = Counter(node.domain for node in self.bystanders if node.foreign)
        domains = {name: Domain(size=size, foreign_out=foreign[name]) for name, size in sizes.items()}
        return Pool(size=len(every), foreign_out=foreign.total(), domains=domains)

    def admit(self) -> Admission:
        members = {name: node.member for name, node in self.nodes.items()}
        admission = admit(
            members,
            self.pool,
            self.policy,
            progress.progress(self.record, self.policy),
            room=room(self.policy.windows, self.now),
            stop_after_canary=self.stop_after_canary,
        )
        self.check(members, admission)
        for name in admission.stage:
            self.nodes[name].stand = Stand.STAGING
        for name in admission.outage:
            self.nodes[name].stand = Stand.IN_OUTAGE
        return admission

    def check(self, members: Mapping[str, Member], admission: Admission) -> None:
        """Hold one decision against the promises."""
        starts = (*admission.stage, *admission.outage)
        strangers = [name for name in starts if not members[name].ours]
        going = self.standing(Stand.IN_OUTAGE)
        assert len(set(starts)) == len(starts)
        assert all(members[name].stand is Stand.WAITING for name in admission.stage)
        assert all(members[name].stand is Stand.STAGED for name in admission.outage)
        self.check_slots(admission)
        self.check_budgets(members, admission, strangers)
        self.check_canaries(strangers)
        self.check_window([name for name in admission.outage if not members[name].ours])
        left = {name for name, m in members.items() if m.ours and m.stand is Stand.STAGED}
        if left - set(admission.outage):
            assert not set(admission.outage) - left, "our left-overs go first"
        if not starts and not going and not self.standing(Stand.STAGING) and self.standing(*OPEN):
            assert admission.stopped or admission.waiting_for

    def check_slots(self, admission: Admission) -> None:
        """Never more than the bound out of service, once a node was taken out that served."""
        counted = self.policy.foreign_outages == "count"
        taken = [name for name in admission.outage if not self.nodes[name].out]
        out = [
            node
            for name, node in self.nodes.items()
            if node.stand is Stand.IN_OUTAGE or name in taken or (node.out if counted else node.cordoned_by_us)
        ] + [node for node in self.bystanders if node.foreign and counted]
        every = (*self.nodes.values(), *self.bystanders)
        assert not taken or len(out) <= resolve(self.policy.max_unavailable, len(every), least=1)
        per = self.policy.max_unavailable_per
        for domain in {self.nodes[name].domain for name in taken} if per else ():
            assert per is not None
            size = sum(node.domain == domain for node in every)
            assert sum(node.domain == domain for node in out) <= resolve(per.max_unavailable, size, least=1)

    def check_budgets(self, members: Mapping[str, Member], admission: Admission, strangers: list[str]) -> None:
        bounds = limits(self.policy, self.pool)
        failed = sum(node.failed for node in self.nodes.values())
        if failed > self.policy.max_failures or len(self.unreachable) > bounds["max_unreachable"]:
            assert admission.stopped
            assert not strangers
            halfway = {name for name, m in members.items() if m.ours and m.stand in OPEN}
            assert halfway == {*admission.stage, *admission.outage}
            return
        assert bool(admission.stopped) == (self.stop_after_canary and len(self.passed) >= self.policy.canary)
        if not admission.stopped:
            width = self.policy.staging or self.policy.max_parallel
            assert len(admission.stage) <= max(0, width - len(self.standing(Stand.STAGING)))
            going = len(self.standing(Stand.IN_OUTAGE))
            assert len(admission.outage) <= max(0, self.policy.max_parallel - going)

    def check_canaries(self, strangers: list[str]) -> None:
        through = len(self.passed) >= self.policy.canary
        assert not (self.stop_after_canary and through and strangers)
        if not through:
            begun = {*self.standing(Stand.STAGING, Stand.IN_OUTAGE, Stand.DONE), *self.record.canary_passed}
            assert len(begun) + len(strangers) <= max(self.policy.canary, len(begun))

    def check_window(self, starts: list[str]) -> None:
        left = room(self.policy.windows, self.now)
        if starts and left is not None:
            assert left.seconds_left >= (self.record.outage_seconds or self.policy.expected_seconds)
