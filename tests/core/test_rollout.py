"""Who may start: promises over whole rollouts, whatever happens on the way, and each rule by itself."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetdrv import progress
from fleetdrv.policy import MaintenanceWindow, PerTopology, Rollout
from fleetdrv.rollout import Admission, Progress, admit
from fleetdrv.roster import Roster
from fleetdrv.slots import Domain, Member, Pool, Stand, limits
from fleetdrv.windows import Room
from tests.core.factories import a_playbook, a_policy
from tests.core.world import OPEN, Node, World

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


# ---- whole rollouts, simulated

SHARES = st.sampled_from((1, 1, 2, 3, "10%", "25%", "50%"))
NIGHTS = (
    MaintenanceWindow(start="22:00", end="04:00", timezone="Europe/Berlin"),
    MaintenanceWindow(start="12:30", end="13:15", days=("fri", "sat", "sun")),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draw a pool of one to thirty nodes in up to four domains, some of them out already, and a policy."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    per = draw(st.sampled_from((None, None, 1, 2, "25%")))
    policy = a_policy(
        canary=draw(st.sampled_from((0, 1, 1, 2, 3))),
        soak_seconds=draw(st.sampled_from((0, 60, 1800))),
        max_unavailable=draw(SHARES),
        max_unavailable_per=PerTopology(label="zone", max_unavailable=per) if per else None,
        max_parallel=draw(st.sampled_from((1, 2, 10))),
        staging=draw(st.sampled_from((None, 1, 4))),
        max_failures=draw(st.sampled_from((0, 1, 3))),
        max_unreachable=draw(st.sampled_from((0, 1, "10%"))),
        foreign_outages=draw(st.sampled_from(("count", "count", "ignore"))),
        maintenance_window=draw(st.sampled_from((None, None, NIGHTS[:1], NIGHTS))),
        expected_seconds=draw(st.sampled_from((60, 900, 3000))),
    )
    domains = ("a", "b", "c", "")[: draw(st.integers(1, 4))]
    nodes = {f"n{number}": Node(domain=chance.choice(domains)) for number in range(draw(st.integers(1, 30)))}
    for node in nodes.values():
        luck = chance.random()
        node.cordoned_by_us, node.foreign = luck < 0.06, 0.06 <= luck < 0.12
        if 0.12 <= luck < 0.2:
            node.stand = Stand.SETTLED
    bystanders = [Node(domain=chance.choice(domains)) for _ in range(draw(st.integers(0, 10)))]
    return World(policy=policy, nodes=nodes, bystanders=bystanders, chance=chance)


@settings(max_examples=10 * settings().max_examples)
@given(worlds())
def test_a_rollout_keeps_its_bounds_through_any_history_and_comes_to_an_end(world: World) -> None:
    last = world.live()
    if world.standing(*OPEN):
        assert last.stopped or last.waiting_for
        if last.waiting_for:
            assert any(node.failed and node.cordoned_by_us for node in world.nodes.values()), last.waiting_for
    else:
        assert not last.stage
        assert not last.outage


def test_the_histories_hold_what_they_are_made_for() -> None:
    """Else the property above would prove little."""
    met: Counter[str] = Counter()
    for seed in range(150):
        chance = random.Random(seed)
        nodes = {f"n{number}": Node() for number in range(8)}
        policy = a_policy(canary=1, soak_seconds=60, max_failures=3, max_unavailable=2)
        policy = policy.model_copy(update={"maintenance_window": NIGHTS if seed % 2 else None})
        world = World(policy=policy, nodes=nodes, bystanders=[], chance=chance)
        world.live()
        met += world.histories
    assert set(met) >= {"killed", "killed at an end", "later", "done", "the c", "4 fai"}, met


@given(worlds())
def test_left_overs_are_finished_even_when_a_budget_is_spent(world: World) -> None:
    for name in ("a", "b", "c", "d"):
        world.record = progress.failed(world.record, name)
        world.nodes[name] = Node(stand=Stand.FAILED, failed=True)
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
    for so_far in (PASSED, replace(PASSED, failures=9)):
        admission = started(
            LEFT_OUT, DONE, FAILED, IN_OUTAGE, policy=a_policy(max_unavailable=9), progress=so_far
        )
        assert (admission.stage, admission.outage) == ((), ())


# ---- staging, domains, windows, the end after the canaries


def test_staging_may_be_wider_or_narrower_than_outages() -> None:
    wide = a_policy(max_parallel=1, staging=3)
    assert started(STAGING, WAITING, WAITING, WAITING, policy=wide).stage == ("n1", "n2")
    assert started(STAGED, STAGED, policy=a_policy(max_parallel=2, max_unavailable=2, staging=1)).outage == (
        "n0",
        "n1",
    )
    assert started(STAGING, WAITING, policy=a_policy(max_parallel=2, staging=1)).stage == ()


def zoned(**more: Any) -> Rollout:
    return a_policy(**{"max_unavailable": 5, "max_unavailable_per": PerTopology(label="zone"), **more})


def inside(domain: str, member: Member = STAGED) -> Member:
    return replace(member, domain=domain)


ZONES = Pool(size=10, domains={"a": Domain(size=5), "b": Domain(size=5)})
SOME_IN_A = Pool(size=10, foreign_out=1, domains={"a": Domain(size=5, foreign_out=1), "b": Domain(size=5)})


def test_a_full_domain_holds_back_its_own_nodes_only() -> None:
    members = (inside("a"), inside("a"), inside("b"), inside("b"))
    first = started(*members, policy=zoned(), pool=ZONES)
    assert (first.outage, first.waiting_for) == (("n0", "n2"), "a slot in zone=a: 1 of 1 out of service")
    assert not first.later
    second = started(inside("a", IN_OUTAGE), *members, policy=zoned(), pool=ZONES)
    assert second.outage == ("n3",)
    assert started(*members, policy=zoned(), pool=SOME_IN_A).outage == ("n2",)
    ignored = zoned(foreign_outages="ignore")
    assert started(*members, policy=ignored, pool=SOME_IN_A).outage == ("n0", "n2")


def test_nodes_without_the_label_are_one_domain() -> None:
    assert started(STAGED, STAGED, inside("b"), policy=zoned(), pool=ZONES).outage == ("n0", "n2")


def test_what_is_out_already_needs_no_slot_of_its_domain() -> None:
    busy = (inside("a", IN_OUTAGE), inside("a", NOT_READY), inside("a", LEFT_OVER), inside("a"))
    assert started(*busy, policy=zoned(), pool=ZONES).outage == ("n2", "n1")


def test_canaries_are_chosen_where_a_slot_is_free() -> None:
    policy = zoned(canary=1)
    members = (inside("a"), inside("a", WAITING), inside("b", WAITING))
    admission = started(*members, policy=policy, pool=SOME_IN_A, progress=FRESH)
    assert (admission.stage, admission.outage) == (("n2",), ())
    assert started(*members, policy=policy, pool=ZONES, progress=FRESH).outage == ("n0",)
    nowhere = Pool(size=10, foreign_out=2, domains={name: Domain(size=5, foreign_out=1) for name in "ab"})
    assert started(*members, policy=policy, pool=nowhere, progress=FRESH).waiting_for.startswith(
        "a slot in zone=a"
    )
    out = started(inside("a"), inside("a", NOT_READY), policy=policy, pool=SOME_IN_A, progress=FRESH)
    assert out.outage == ("n1",), "who is out takes no slot that is missing"


def test_of_those_that_stand_alike_the_one_that_is_expected_to_take_longest_starts_first() -> None:
    seconds = {"n0": 60.0, "n1": 600.0, "n2": 300.0}
    roster = Roster(dict.fromkeys(seconds, STAGED), seconds)
    assert admit(roster, TEN, a_policy(max_unavailable=2), PASSED).outage == ("n1", "n2")


def within(*members: Member, left: float, progress: Progress = PASSED, **policy: Any) -> Admission:
    """Admit members while a window shuts in `left` seconds."""
    room = Room(seconds_left=left, closes="04:00" if left else "", opens="Sat 22:00", longest_seconds=21600)
    named = {f"n{number}": member for number, member in enumerate(members)}
    return admit(named, TEN, a_policy(**{"expected_seconds": 600, **policy}), progress, room=room)


def test_an_outage_starts_only_if_it_is_expected_to_end_in_the_window() -> None:
    assert within(STAGED, left=600).outage == ("n0",)
    late = within(STAGED, left=599.9)
    assert (late.outage, late.later) == ((), True)
    assert late.waiting_for == (
        "the next maintenance window, which opens Sat 22:00: this one shuts 04:00, "
        "an outage is expected to take 600 s"
    )
    assert within(STAGED, left=599.9, expected_seconds=500).outage == ("n0",)


@given(
    drain=st.integers(1, 86400),
    waits=st.lists(st.integers(1, 86400), max_size=3),
    expected=st.integers(1, 3600),
    spare=st.integers(-2, 2),
)
def test_whoever_starts_has_time_for_the_longest_drain_and_for_the_driver(
    drain: int, waits: list[int], expected: int, spare: int
) -> None:
    """A window bounds the finish, though nobody thought of one number when he changed the other."""
    wait_for = tuple({"selector": "app=batch", "timeout_seconds": seconds} for seconds in waits)
    book = a_playbook(
        drain={"timeout_seconds": drain, "wait_for": wait_for}, rollout={"expected_seconds": expected, "canary": 0}
    )
    needed = max(expected, drain + max(waits, default=0) + 300)
    left = Room(seconds_left=needed + spare, closes="04:00", opens="Sat 22:00", longest_seconds=10**6)
    admission = admit({"n0": STAGED}, TEN, book.policy, PASSED, room=left)
    assert bool(admission.outage) is (spare >= 0)


def test_what_this_run_measured_makes_an_outage_longer_but_never_shorter_than_was_expected() -> None:
    """A canary that was empty took 60 s; the next node may be drained for as long as the policy says."""
    for seconds, left, starts in ((60, 600, True), (60, 599, False), (700, 600, False), (700, 700, True)):
        measured = replace(PASSED, outage_seconds=seconds)
        assert bool(within(STAGED, left=left, progress=measured).outage) is starts


def test_an_outage_that_no_window_holds_is_told_with_a_way_on() -> None:
    for left in (0, 21600):
        late = within(STAGED, left=left, progress=replace(PASSED, outage_seconds=21601))
        assert (late.outage, late.later) == ((), True)
        assert late.waiting_for == (
            "a longer maintenance window: none is as long as the 21601 s that an outage may take; "
            "change the playbook, or end this run with `fleetdrv abort`: the next one measures afresh"
        )
    fits = within(STAGED, left=0, progress=replace(PASSED, outage_seconds=21600))
    assert fits.waiting_for == "the maintenance window, which opens Sat 22:00", "the longest is just long enough"


def test_a_shut_window_lets_staging_and_left_overs_go_on() -> None:
    shut = within(WAITING, STAGED, NOT_READY, LEFT_OVER, replace(LEFT_OVER, stand=Stand.WAITING), left=0)
    assert (shut.stage, shut.outage, shut.later) == (("n4", "n0"), ("n3",), True)
    assert shut.waiting_for == "the maintenance window, which opens Sat 22:00"
    assert not shut.stopped
    idle = within(WAITING, DONE, left=0)
    assert (idle.stage, idle.waiting_for, idle.later) == (("n0",), "", False)


def test_a_full_pool_is_told_before_a_shut_window_is_not() -> None:
    full = within(IN_OUTAGE, STAGED, left=0, max_parallel=1)
    assert (full.waiting_for, full.later) == ("max_parallel", False), "it may be open when a place is free"


def test_a_run_that_is_to_stop_after_its_canaries_starts_nobody_then() -> None:
    members = {
        "n0": DONE,
        "n1": WAITING,
        "n2": STAGED,
        "n3": LEFT_OVER,
        "n4": replace(LEFT_OVER, stand=Stand.WAITING),
    }
    policy = a_policy(canary=1, max_unavailable=5)
    stopped = admit(members, TEN, policy, PASSED, stop_after_canary=True)
    assert (stopped.stage, stopped.outage, stopped.later) == (("n4",), ("n3",), True)
    assert stopped.stopped == "the canaries came through; to go on: the same command without --stop-after"
    assert stopped.limits == limits(policy, TEN)
    assert admit(members, TEN, policy, PASSED).stage == ("n4", "n1")
    assert not admit(members, TEN, policy, FRESH, stop_after_canary=True).stopped
    spent = admit(members, TEN, policy, replace(PASSED, failures=9), stop_after_canary=True)
    assert spent.stopped == "9 failed, max_failures is 0"
    assert not spent.later


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
