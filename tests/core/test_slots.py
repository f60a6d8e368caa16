"""Places out of service: limits in whole nodes, in the pool and in each failure domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from fleetdrv.policy import PerTopology, Rollout
from fleetdrv.rollout import Progress, admit
from fleetdrv.slots import Domain, Member, Out, Pool, Slots, Stand, limits, resolve
from tests.core.factories import a_policy

TEN = Pool(size=10)
ZONE = "topology.kubernetes.io/zone"


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
    shown = {"max_unavailable": 10, "max_parallel": 7, "staging": 7, "max_failures": 3, "max_unreachable": 4}
    shown["canary"] = 2
    assert limits(policy, Pool(size=40, foreign_out=5)) == shown
    assert admit({}, Pool(size=40), policy, Progress(canary_passed=True)).limits == shown
    assert admit({}, Pool(size=40), policy, Progress(failures=4)).limits == shown


def test_staging_has_a_width_of_its_own() -> None:
    assert limits(a_policy(max_parallel=3), TEN)["staging"] == 3
    assert limits(a_policy(max_parallel=3, staging=20), TEN)["staging"] == 20


def counted(members: Mapping[str, Member]) -> Counter[Member]:
    return Counter(members.values())


def zoned(share: int | str = 1, **more: object) -> Rollout:
    per = PerTopology(label=ZONE, max_unavailable=share)
    return a_policy(max_unavailable_per=per, **{"max_unavailable": 9, **more})


THREE = Pool(size=17, domains={"a": Domain(size=10), "b": Domain(size=4, foreign_out=1), "": Domain(size=3)})


def test_one_limit_is_shown_for_all_domains_where_it_is_the_same() -> None:
    assert list(limits(zoned(2), THREE).items())[:2] == [
        ("max_unavailable", 9),
        (f"max_unavailable per {ZONE}", 2),
    ]
    assert limits(zoned("10%"), THREE)[f"max_unavailable per {ZONE}"] == 1
    assert limits(zoned("25%"), TEN)[f"max_unavailable per {ZONE}"] == 1
    assert not [name for name in limits(a_policy(), THREE) if ZONE in name]


def test_a_percentage_is_of_each_domain() -> None:
    assert [item for item in limits(zoned("50%"), THREE).items() if ZONE in item[0]] == [
        (f"max_unavailable of nodes without {ZONE}", 1),
        (f"max_unavailable of {ZONE}=a", 5),
        (f"max_unavailable of {ZONE}=b", 2),
    ]


def member(domain: str, stand: Stand = Stand.STAGED, **more: bool) -> Member:
    return Member(stand=stand, domain=domain, **more)


def test_a_member_stands_in_its_cluster_as_was_seen_last() -> None:
    seen = Out(out=True, ours=True, domain="b")
    assert member("a").at(seen) == Member(stand=Stand.STAGED, out=True, ours=True, domain="b")
    assert member("a", out=True, ours=True).at(Out(out=False, ours=False)) == Member(stand=Stand.STAGED)


def test_a_domain_is_full_by_nodes_in_outage_left_overs_and_outages_of_others() -> None:
    slots = Slots(counted({"n0": member("a", Stand.IN_OUTAGE), "n1": member("a")}), THREE, zoned(), 9)
    assert slots.full(member("a")) == f"a slot in {ZONE}=a: 1 of 1 out of service"
    assert slots.full(member("b")) == f"a slot in {ZONE}=b: 1 of 1 out of service", "a node that we do not drive"
    assert slots.full(member("")) == ""
    assert slots.full(member("z")) == "", "a domain that came meanwhile"
    assert slots.going == 1
    slots.take(member(""))
    assert slots.full(member("")) == f"a slot in nodes without {ZONE}: 1 of 1 out of service"
    for stand, ours in ((Stand.SETTLED, False), (Stand.FAILED, True), (Stand.WAITING, True)):
        out = Slots(counted({"n0": member("a", stand, out=True, ours=ours)}), THREE, zoned(), 9)
        assert out.full(member("a"))
        assert out.going == 0
    assert not Slots(counted({"n0": member("a", Stand.DONE)}), THREE, zoned(), 9).full(member("a"))


def test_a_share_of_a_domain_is_of_that_domain() -> None:
    slots = Slots(counted({"n0": member("a", Stand.IN_OUTAGE)}), THREE, zoned("50%"), 9)
    assert slots.full(member("a")) == ""
    for _ in range(4):
        slots.take(member("a"))
    assert slots.full(member("a")) == f"a slot in {ZONE}=a: 5 of 5 out of service"


def test_a_domain_that_ignores_outages_of_others_counts_our_own() -> None:
    policy = zoned(foreign_outages="ignore")
    members = {"n0": member("a", Stand.SETTLED, out=True)}
    assert Slots(counted(members), THREE, policy, 9).full(member("a")) == ""
    assert Slots(counted(members), THREE, policy, 9).full(member("b")) == ""
    left_out = counted({"n0": member("a", Stand.FAILED, out=True, ours=True)})
    assert Slots(left_out, THREE, policy, 9).full(member("a"))


def test_the_pools_own_limit_holds_beside_those_of_its_domains() -> None:
    pool = Pool(size=10, foreign_out=1, domains={"a": Domain(size=5), "b": Domain(size=5, foreign_out=1)})
    slots = Slots(counted({"n0": member("a")}), pool, zoned(3), 2)
    assert slots.full(member("a")) == ""
    slots.take(member("a"))
    assert slots.full(member("a")) == "a slot: 2 of 2 out of service"
    assert slots.full_domain("a") == ""
