"""What the node itself hangs on stays in the kernel, whoever wants it changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetdrv.lifelines import stay, unload_order, users
from fleetdrv.model import NodeFacts
from fleetdrv.plan import Disruption, Outcome, plan
from fleetdrv.steps import restore
from tests.core.factories import a_driver, a_loaded, a_playbook, some_facts

NIC = ("toy", "the SSH session's interface eth0")
DISK = ("fs", "the disk under /")
WANTED = a_playbook(a_driver(version="1.2"))


def chain(**more: object) -> NodeFacts:
    """Return facts of a node on which fs depends on net and that on toy."""
    loaded = {
        "toy": a_loaded("toy", "1.1", holders=frozenset({"net"})),
        "net": a_loaded("net", holders=frozenset({"fs"})),
        "fs": a_loaded("fs"),
    }
    return some_facts(a_driver(), loaded=loaded, **more)


def test_code_under_the_session_is_not_reloaded_and_the_reason_says_what_would_be_cut() -> None:
    result = plan(WANTED, some_facts(a_driver(), needed=(NIC,)))
    assert (result.outcome, result.outage) == (Outcome.BLOCKED, ())
    assert result.reason == (
        "toy cannot leave the kernel of a node that runs: the SSH session's interface eth0 depends on it; "
        "only a reboot into the new driver changes that, and this version reboots no node"
    )


def test_code_that_only_carries_what_the_node_hangs_on_is_told_with_what_stands_on_it() -> None:
    drivers = (a_driver(version="1.2"), a_driver("net"), a_driver("fs"))
    result = plan(a_playbook(*drivers), chain(needed=(DISK,)))
    assert result.outcome is Outcome.BLOCKED
    assert (
        "toy cannot leave the kernel of a node that runs: the disk under / depends on it by way of fs"
        in result.reason
    )
    assert "fs cannot leave the kernel of a node that runs: the disk under / depends on it; only" in result.reason


def test_both_are_told_where_both_hang_on_it() -> None:
    result = plan(WANTED, some_facts(a_driver(), needed=(NIC, ("toy", "the disk under /"))))
    assert "the SSH session's interface eth0 and the disk under / depends on it" in result.reason


def test_a_module_that_stays_may_have_its_options_written_and_its_next_kernels_build_brought() -> None:
    facts = some_facts(a_driver(), needed=(NIC,), configuration={})
    result = plan(a_playbook(a_driver()), facts)
    assert (result.outcome, result.disruption) == (Outcome.CHANGEABLE, Disruption.NONE)


def test_the_way_back_leaves_in_the_kernel_what_the_node_hangs_on() -> None:
    """Also a module of the kernel's own that shares a playbook with the driver that failed."""
    good = (a_driver(), a_driver("net"))
    steps = restore(good, {}, staying=stay(("toy", "net"), chain(needed=(DISK,))))
    assert [step.program for step in steps] == ["dkms_restore.sh", "dkms_restore.sh", "load.sh"]
    steps = restore(good, {}, staying=stay(("toy", "net"), some_facts(a_driver(), needed=(NIC,))))
    assert [step.argv for step in steps if step.program == "unload.sh"] == [("net",)]
    assert stay(("toy", "net"), chain()) == frozenset()


@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda pair: pair[0] < pair[1])))
def test_whoever_depends_on_a_module_leaves_before_it(edges: set[tuple[int, int]]) -> None:
    loaded = {
        f"m{n}": a_loaded(f"m{n}", holders=frozenset(f"m{up}" for low, up in edges if low == n)) for n in range(6)
    }
    facts = some_facts(a_driver(), loaded=loaded)
    order = unload_order(["m0", "m1"], facts)
    assert len(order) == len(set(order))
    for low, up in edges:
        if f"m{low}" in order:
            assert order.index(f"m{up}") < order.index(f"m{low}")
    assert set(users("m0", facts)) == set(unload_order(["m0"], facts))
