"""Who may start: promises over whole rollouts, whatever happens on the way, and each rule by itself."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetdrv.playbook import Rollout
from fleetdrv.rollout import Admission, Member, Pool, Progress, Stand, admit, limits, resolve
from tests.core.factories import a_policy

WAITING, STAGING, STAGED = (
    Member(stand=Stand.WAITING),
    Member(stand=Stand.STAGING),
    Member(stand=Stand.STAGED),
)
IN_OUTAGE = Member(stand=Stand.IN_OUTAGE, out=True, ours=True)
DONE, FAILED = Member(stand=Stand.DONE), Member(stand=Stand.FAILED)
LEFT_OUT = Member(stand=Stand.FAILED, out=True, ours=True)
LEFT_OVER = Member(stand=Stand.STAGED, out=True, ours=True)
NOT_READY = Member(stand=Stand.STAGED, out=True)
FRESH, PASSED = Progress(), Progress(canary_passed=True)
TEN = Pool(size=10)


# ---- a whole rollout, simulated


@dataclass(slots=True)
class Node:
    """The truth about one node, beside what the controller thinks of it."""

    stand: Stand = Stand.WAITING
    cordoned_by_us: bool = False
    foreign: bool = False
    """Cordoned by somebody else, or not Ready."""
    soaking: bool = False

    @property
    def out(self) -> bool:
        return self.cordoned_by_us or self.foreign

    @property
    def member(self) -> Member:
        return Member(stand=self.stand, out=self.out, ours=self.cordoned_by_us)


@dataclass(slots=True)
class World:
    """A pool under a rollout, played as fleet.py plays it; only the run record outlives a controller."""

    policy: Rollout
    nodes: dict[str, Node]
    bystanders: int
    """Nodes of the pool that this rollout does not drive (`--limit`)."""
    chance: random.Random
    foreign_bystanders: int = 0
    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    unreachable: set[str] = field(default_factory=set)
    admissions: int = 0

    @property
    def pool(self) -> Pool:
        return Pool(size=len(self.nodes) + self.bystanders, foreign_out=self.foreign_bystanders)

    @property
    def progress(self) -> Progress:
        return Progress(
            canary_passed=len(self.passed) >= self.policy.canary,
            failures=len(self.failed),
            unreachable=len(self.unreachable),
        )

    def standing(self, *stands: Stand) -> list[str]:
        return [name for name, node in self.nodes.items() if node.stand in stands]

    def roll(self) -> Admission:
        """Play to the end; check each admission against what is true."""
        for _ in range(20 * len(self.nodes) + 50):
            self.somebody_else()
            if self.chance.random() < 0.05:
                self.restart()
            admission = self.admit()
            under_way = self.standing(Stand.STAGING, Stand.IN_OUTAGE)
            if not under_way and not any(node.soaking for node in self.nodes.values()):
                return admission
            self.events(under_way)
        raise AssertionError("the rollout has no end")

    def admit(self) -> Admission:
        members = {name: node.member for name, node in self.nodes.items()}
        admission = admit(members, self.pool, self.policy, self.progress)
        self.check(members, admission)
        for name in admission.stage:
            self.nodes[name].stand = Stand.STAGING
        for name in admission.outage:
            self.nodes[name].stand = Stand.IN_OUTAGE
        self.admissions += 1
        return admission

    def check(self, members: Mapping[str, Member], admission: Admission) -> None:
        """Hold one decision against the promises."""
        bounds = limits(self.policy, self.pool)
        starts = (*admission.stage, *admission.outage)
        assert len(set(starts)) == len(starts)
        assert all(members[name].stand is Stand.WAITING for name in admission.stage)
        assert all(members[name].stand is Stand.STAGED for name in admission.outage)
        going = set(self.standing(Stand.IN_OUTAGE))
        self.check_slots(going, admission, bounds["max_unavailable"])
        strangers = [name for name in starts if not members[name].ours]
        left = [name for name, m in members.items() if m.ours and m.stand is Stand.STAGED]
        if len(self.failed) > self.policy.max_failures or len(self.unreachable) > bounds["max_unreachable"]:
            assert admission.stopped
            assert not strangers
            assert set(left) <= set(admission.outage)
        else:
            assert not admission.stopped
            staging = len(self.standing(Stand.STAGING))
            assert len(admission.stage) <= max(0, self.policy.max_parallel - staging)
            assert len(admission.outage) <= max(0, self.policy.max_parallel - len(going))
        if set(left) - set(admission.outage):
            assert not [name for name in admission.outage if not members[name].ours]
        if not self.progress.canary_passed:
            begun = self.standing(Stand.STAGING, Stand.IN_OUTAGE, Stand.DONE)
            assert len(begun) + len(strangers) <= max(self.policy.canary, len(begun))
        if not starts and not going and not self.standing(Stand.STAGING) and self.standing(*OPEN):
            assert admission.stopped or admission.waiting_for

    def check_slots(self, going: set[str], admission: Admission, bound: int) -> None:
        """Never more than the bound out of service, once a node was taken out that served."""
        counted = self.policy.foreign_outages == "count"
        out = {name for name, node in self.nodes.items() if (node.out if counted else node.cordoned_by_us)}
        foreign = self.foreign_bystanders if counted else 0
        taken = [name for name in admission.outage if not self.nodes[name].out]
        if taken:
            assert len(out | going | set(taken)) + foreign <= bound

    def events(self, under_way: list[str]) -> None:
        """Let some of those under way come to their end."""
        for name in under_way:
            node = self.nodes[name]
            if node.stand is Stand.IN_OUTAGE and not node.foreign:
                node.cordoned_by_us = True
            if self.chance.random() < 0.6:
                self.end(name, node)
        for name, node in self.nodes.items():
            if node.soaking and self.chance.random() < 0.5:
                node.soaking = False
                if self.chance.random() < 0.9:
                    self.passed.add(name)
                else:
                    node.stand = Stand.FAILED
                    self.failed.add(name)

    def end(self, name: str, node: Node) -> None:
        luck = self.chance.random()
        if node.stand is Stand.STAGING:
            node.stand = Stand.STAGED if luck < 0.85 else Stand.UNREACHABLE if luck < 0.92 else Stand.FAILED
        elif luck < 0.8:
            node.stand, node.cordoned_by_us = Stand.DONE, False
            node.soaking = len(self.passed) < self.policy.canary
        else:
            node.stand = Stand.FAILED
            node.cordoned_by_us = node.cordoned_by_us and luck < 0.9  # else rolled back
        if node.stand is Stand.FAILED:
            self.failed.add(name)
        if node.stand is Stand.UNREACHABLE:
            self.unreachable.add(name)

    def restart(self) -> None:
        """Another controller takes over: it sees cordons and the run record, and no more."""
        for name, node in self.nodes.items():
            node.soaking = False
            if node.stand in (Stand.STAGING, Stand.IN_OUTAGE, Stand.STAGED):
                node.stand = Stand.WAITING
            elif node.stand is Stand.DONE:
                node.stand = Stand.SETTLED
            elif name in self.failed and node.cordoned_by_us:
                node.stand = Stand.WAITING  # it still owes to be left out

    def somebody_else(self) -> None:
        """Cordons of others come and go, on nodes that are not in our hands."""
        for node in self.nodes.values():
            if node.stand is not Stand.IN_OUTAGE and not node.cordoned_by_us and self.chance.random() < 0.03:
                node.foreign = not node.foreign
        if self.chance.random() < 0.1:
            self.foreign_bystanders = self.chance.randint(0, min(2, self.bystanders))


OPEN = (Stand.WAITING, Stand.STAGED)
SHARES = st.sampled_from((1, 1, 2, 3, "10%", "25%", "50%"))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draw a pool of one to thirty nodes, some of them out already, and a policy."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    policy = a_policy(
        canary=draw(st.sampled_from((0, 1, 1, 2, 3))),
        max_unavailable=draw(SHARES),
        max_parallel=draw(st.sampled_from((1, 2, 10))),
        max_failures=draw(st.sampled_from((0, 1, 3))),
        max_unreachable=draw(st.sampled_from((0, 1, "10%"))),
        foreign_outages=draw(st.sampled_from(("count", "count", "ignore"))),
    )
    nodes = {f"n{number}": Node() for number in range(draw(st.integers(1, 30)))}
    for node in nodes.values():
        luck = chance.random()
        node.cordoned_by_us, node.foreign = luck < 0.06, 0.06 <= luck < 0.12
        if 0.12 <= luck < 0.2:
            node.stand = Stand.SETTLED
    return World(policy=policy, nodes=nodes, bystanders=draw(st.integers(0, 10)), chance=chance)


@settings(max_examples=10 * settings().max_examples)
@given(worlds())
def test_a_rollout_keeps_its_bounds_and_comes_to_an_end(world: World) -> None:
    last = world.roll()
    if world.standing(*OPEN):
        assert last.stopped or last.waiting_for
    else:
        assert not last.stage
        assert not last.outage


@given(worlds())
def test_left_overs_are_finished_even_when_a_budget_is_spent(world: World) -> None:
    world.failed = {"a", "b", "c", "d"}
    halfway = {name for name, node in world.nodes.items() if node.cordoned_by_us and node.stand is Stand.WAITING}
    assert halfway == set(world.admit().stage)
    for name in halfway:
        world.nodes[name].stand = Stand.STAGED
    assert halfway == set(world.admit().outage)


@given(
    st.dictionaries(
        st.integers(0, 40).map("n{}".format),
        st.builds(
            Member,
            stand=st.sampled_from((*Stand, Stand.WAITING, Stand.STAGED, Stand.STAGED)),
            out=st.booleans(),
            ours=st.booleans(),
        ).map(lambda member: replace(member, ours=member.ours and member.out)),
    ),
    st.integers(0, 3),
    st.integers(0, 4),
)
def test_as_long_as_a_node_waits_somebody_starts_or_is_under_way_or_the_reason_is_told(
    members: dict[str, Member], foreign: int, canary: int
) -> None:
    policy = a_policy(canary=canary, max_unavailable=2, max_parallel=3)
    admission = admit(members, Pool(size=50, foreign_out=foreign), policy, FRESH)
    stands = {member.stand for member in members.values()}
    if stands & set(OPEN) and not stands & {Stand.STAGING, Stand.IN_OUTAGE}:
        assert admission.stage or admission.outage or admission.waiting_for


# ---- each rule by itself


def started(*members: Member, policy: Rollout, pool: Pool = TEN, progress: Progress = PASSED) -> Admission:
    """Admit members that are named n0, n1 and so on."""
    return admit({f"n{number}": member for number, member in enumerate(members)}, pool, policy, progress)


@pytest.mark.parametrize(
    ("share", "size", "nodes"),
    [
        ("25%", 7, 1),
        ("50%", 7, 3),
        ("10%", 9, 1),
        ("100%", 7, 7),
        ("29%", 100, 29),
        ("0%", 10, 1),
        (3, 2, 3),
        (1, 9, 1),
    ],
)
def test_percentages_round_down_and_are_at_least_one(share: int | str, size: int, nodes: int) -> None:
    assert resolve(share, size, least=1) == nodes


def test_a_number_below_the_least_is_raised_to_it() -> None:
    assert resolve(0, 10, least=1) == 1
    assert resolve(0, 10, least=0) == 0


@pytest.mark.parametrize(("share", "nodes"), [(0, 0), ("0%", 0), ("2%", 1), ("50%", 5), (4, 4)])
def test_no_unreachable_node_is_allowed_only_where_the_policy_says_none(share: int | str, nodes: int) -> None:
    assert limits(a_policy(max_unreachable=share), TEN)["max_unreachable"] == nodes


def test_the_limits_are_shown_in_whole_nodes_of_the_pool() -> None:
    policy = Rollout(canary=2, max_unavailable="25%", max_parallel=7, max_failures=3, max_unreachable="10%")
    shown = {"max_unavailable": 10, "max_parallel": 7, "max_failures": 3, "max_unreachable": 4, "canary": 2}
    assert limits(policy, Pool(size=40, foreign_out=5)) == shown
    assert admit({}, Pool(size=40), policy, PASSED).limits == shown
    assert admit({}, Pool(size=40), policy, replace(PASSED, failures=4)).limits == shown


def test_slots_are_refilled_up_to_max_unavailable() -> None:
    policy = a_policy(max_unavailable=2)
    assert started(STAGED, STAGED, STAGED, policy=policy).outage == ("n0", "n1")
    assert started(IN_OUTAGE, STAGED, STAGED, policy=policy).outage == ("n1",)
    assert started(DONE, IN_OUTAGE, STAGED, STAGED, policy=policy).outage == ("n2",)
    full = started(IN_OUTAGE, IN_OUTAGE, STAGED, policy=policy)
    assert full.outage == ()
    assert full.waiting_for == "a slot: 2 of 2 out of service"


def test_a_node_in_outage_holds_its_slot_before_its_cordon_is_seen() -> None:
    assert started(Member(stand=Stand.IN_OUTAGE), STAGED, policy=a_policy()).outage == ()


def test_outages_of_others_count_wherever_they_are_in_the_pool() -> None:
    policy = a_policy(max_unavailable=2)
    elsewhere = Pool(size=10, foreign_out=1)
    assert started(STAGED, STAGED, policy=policy, pool=elsewhere).outage == ("n0",)
    settled = Member(stand=Stand.SETTLED, out=True)
    assert started(settled, STAGED, STAGED, policy=policy).outage == ("n1",)
    assert started(settled, STAGED, policy=policy, pool=elsewhere).waiting_for == "a slot: 2 of 2 out of service"


def test_outages_of_others_are_ignored_where_the_policy_says_so() -> None:
    policy = a_policy(max_unavailable=1, foreign_outages="ignore")
    settled = Member(stand=Stand.SETTLED, out=True)
    assert started(settled, STAGED, policy=policy, pool=Pool(size=10, foreign_out=5)).outage == ("n1",)
    assert started(LEFT_OUT, STAGED, policy=policy).waiting_for == "a slot: 1 of 1 out of service"


def test_a_failed_node_that_stays_out_keeps_its_slot_and_one_that_was_rolled_back_frees_it() -> None:
    policy = a_policy(max_unavailable=1, max_failures=5)
    assert started(LEFT_OUT, STAGED, policy=policy).outage == ()
    assert started(FAILED, STAGED, policy=policy).outage == ("n1",)


def test_a_node_that_is_out_already_goes_first_and_costs_nothing() -> None:
    policy = a_policy(max_unavailable=1)
    assert started(STAGED, NOT_READY, policy=policy).outage == ("n1",)
    assert started(IN_OUTAGE, NOT_READY, LEFT_OVER, policy=policy).outage == ("n2", "n1")
    assert started(STAGED, NOT_READY, LEFT_OVER, policy=a_policy(max_unavailable=3)).outage == (
        "n2",
        "n1",
        "n0",
    )


def test_no_more_are_in_outage_at_once_than_max_parallel() -> None:
    policy = a_policy(max_unavailable=9, max_parallel=2)
    first = started(STAGED, STAGED, STAGED, policy=policy)
    assert (first.outage, first.waiting_for) == (("n0", "n1"), "max_parallel")
    second = started(IN_OUTAGE, LEFT_OVER, LEFT_OVER, policy=policy)
    assert (second.outage, second.waiting_for) == (("n1",), "max_parallel")
    assert started(IN_OUTAGE, IN_OUTAGE, STAGED, policy=policy).outage == ()


def test_who_starts_last_waits_for_nothing() -> None:
    policy = a_policy(max_unavailable=2, max_parallel=2)
    assert started(STAGED, STAGED, policy=policy).waiting_for == ""
    assert started(policy=policy) == Admission(limits=limits(policy, TEN))


def test_staging_needs_no_slot_but_has_a_width_of_its_own() -> None:
    policy = a_policy(max_unavailable=1, max_parallel=3)
    admission = started(IN_OUTAGE, STAGING, WAITING, WAITING, WAITING, policy=policy)
    assert admission.stage == ("n2", "n3")
    assert started(STAGING, STAGING, STAGING, WAITING, policy=policy).stage == ()
    assert started(STAGING, STAGING, STAGING, STAGING, WAITING, policy=policy).stage == ()


def test_what_is_staged_starts_in_the_same_turn_in_which_others_begin_to_stage() -> None:
    admission = started(WAITING, STAGED, policy=a_policy())
    assert (admission.stage, admission.outage) == (("n0",), ("n1",))


def test_nodes_keep_their_order_where_nothing_tells_them_apart() -> None:
    policy = a_policy(max_unavailable=9)
    assert started(STAGED, STAGED, STAGED, policy=policy).outage == ("n0", "n1", "n2")
    assert started(WAITING, WAITING, WAITING, policy=policy).stage == ("n0", "n1", "n2")


def test_canaries_go_first_and_alone() -> None:
    policy = a_policy(canary=2, max_unavailable=5)
    assert started(WAITING, WAITING, WAITING, policy=policy, progress=FRESH).stage == ("n0", "n1")
    assert started(STAGED, STAGING, WAITING, policy=policy, progress=FRESH).outage == ("n0",)
    waits = started(IN_OUTAGE, DONE, WAITING, policy=policy, progress=FRESH)
    assert (waits.stage, waits.waiting_for) == ((), "the canaries to pass")
    assert started(DONE, DONE, WAITING, policy=policy, progress=PASSED).stage == ("n2",)


def test_a_canary_that_is_staged_already_is_chosen_before_one_that_is_not() -> None:
    admission = started(WAITING, STAGED, policy=a_policy(canary=1), progress=FRESH)
    assert (admission.stage, admission.outage) == ((), ("n1",))


def test_another_takes_the_place_of_a_canary_that_did_not_come_through() -> None:
    """How many may fail that way is what the budgets are for."""
    policy = a_policy(canary=1, max_failures=5, max_unreachable=5)
    for other in (Stand.FAILED, Stand.UNREACHABLE, Stand.SETTLED):
        assert started(Member(stand=other), WAITING, policy=policy, progress=FRESH).stage == ("n1",)


def test_without_canaries_nobody_is_waited_for() -> None:
    assert started(WAITING, WAITING, policy=a_policy(canary=0), progress=FRESH).stage == ("n0", "n1")


def test_left_overs_do_not_wait_for_canaries_and_stand_in_for_them() -> None:
    policy = a_policy(canary=1, max_unavailable=5)
    both = started(LEFT_OVER, LEFT_OVER, WAITING, policy=policy, progress=FRESH)
    assert (both.outage, both.stage, both.waiting_for) == (("n0", "n1"), (), "")
    during = started(IN_OUTAGE, LEFT_OVER, WAITING, policy=policy, progress=FRESH)
    assert (during.outage, during.waiting_for) == (("n1",), "the canaries to pass")


def test_nobody_waits_for_canaries_when_nobody_is_held_back() -> None:
    assert started(IN_OUTAGE, DONE, policy=a_policy(canary=1), progress=FRESH).waiting_for == ""
    assert started(IN_OUTAGE, LEFT_OVER, policy=a_policy(canary=1), progress=FRESH).waiting_for == ""


@pytest.mark.parametrize(
    ("progress", "reason"),
    [
        (Progress(canary_passed=True, failures=1), ""),
        (Progress(canary_passed=True, failures=2), "2 failed, max_failures is 1"),
        (Progress(canary_passed=True, unreachable=2), ""),
        (Progress(canary_passed=True, unreachable=3), "3 unreachable, max_unreachable is 2"),
        (Progress(canary_passed=True, failures=2, unreachable=3), "2 failed, max_failures is 1"),
    ],
)
def test_a_budget_is_spent_by_one_more_than_it_allows(progress: Progress, reason: str) -> None:
    policy = a_policy(max_failures=1, max_unreachable=2)
    admission = started(WAITING, STAGED, policy=policy, progress=progress)
    assert admission.stopped == reason
    assert bool(admission.stage) == bool(admission.outage) == (not reason)


def test_a_spent_budget_still_lets_left_overs_come_to_their_end() -> None:
    waiting = replace(LEFT_OVER, stand=Stand.WAITING)
    policy = a_policy(max_parallel=1)
    spent = replace(PASSED, failures=9)
    admission = started(WAITING, STAGED, NOT_READY, LEFT_OVER, LEFT_OUT, waiting, policy=policy, progress=spent)
    assert (admission.stage, admission.outage) == (("n5",), ("n3",))
    assert admission.waiting_for == ""


def test_a_node_that_is_left_out_is_not_started_again_by_itself() -> None:
    for progress in (PASSED, replace(PASSED, failures=9)):
        admission = started(
            LEFT_OUT, DONE, FAILED, IN_OUTAGE, policy=a_policy(max_unavailable=9), progress=progress
        )
        assert (admission.stage, admission.outage) == ((), ())


class Counted(Mapping[str, Member]):
    """Members that count how often they are looked at."""

    def __init__(self, members: dict[str, Member]) -> None:
        self.members, self.looks = members, 0

    def __getitem__(self, name: str) -> Member:
        self.looks += 1
        return self.members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)


@pytest.mark.parametrize("stand", [Stand.WAITING, Stand.STAGED, Stand.IN_OUTAGE, Stand.DONE])
def test_an_admission_looks_at_each_of_ten_thousand_nodes_a_few_times_only(stand: Stand) -> None:
    members = Counted({f"n{number}": Member(stand=stand) for number in range(10_000)})
    for canary in (0, 1):
        members.looks = 0
        admit(members, Pool(size=10_000), a_policy(canary=canary, max_unavailable="25%"), FRESH)
        assert 10_000 <= members.looks <= 12 * 10_000
