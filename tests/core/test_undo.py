"""Back to last known good: which state a node goes back to, and that a look then finds nothing to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv.load import Loaded
from fleetdrv.model import Good, NodeFacts
from fleetdrv.plan import NodePlan, Outcome, plan
from fleetdrv.playbook import Driver, Playbook
from fleetdrv.sources import AptSource
from fleetdrv.steps import keep
from fleetdrv.undo import NOTHING_KEPT, plan_back
from tests.core.factories import a_driver, a_loaded, a_playbook, installed, some_facts
from tests.core.machine import Machine, demand_usage, payload
from tests.core.strategies import drivers, machines, playbooks

OLD, NEW, NEWER = a_driver(version="1.0"), a_driver(version="1.1"), a_driver(version="1.2")


def kept(driver: Driver, digest: str = "") -> dict[str, Good]:
    good = Good(driver=driver.name, digest=digest or driver.digest, wanted=driver.model_dump_json())
    return {driver.name: good}


def back(driver: Driver, facts: NodeFacts) -> tuple[Driver, NodePlan]:
    book, result = plan_back(a_playbook(driver), a_playbook(driver), facts)
    return book.drivers[0], result


def test_the_newest_state_that_is_not_the_playbooks_own() -> None:
    def target(driver: Driver, **states: Any) -> Driver:
        return back(driver, some_facts(driver, **states))[0]

    assert target(NEW, good=kept(NEW), former=kept(OLD)) == OLD
    assert target(NEW, good=kept(OLD), former=kept(NEW)) == OLD, "once undone, undone"
    assert target(NEW, good=kept(OLD)) == OLD, "it never came to this node"
    assert target(NEW, good=kept(NEWER), former=kept(NEW)) == NEWER, "another playbook came after it"


@pytest.mark.parametrize("states", [{}, {"good": kept(NEW)}, {"good": kept(NEW), "former": kept(NEW, "older")}])
def test_a_node_that_keeps_nothing_else_is_named_and_left(states: dict[str, Any]) -> None:
    facts = some_facts(NEW, **states)
    wanted, result = back(NEW, facts)
    assert (wanted, result.outcome, result.reason) == (NEW, Outcome.INCOMPATIBLE, NOTHING_KEPT)
    assert (result.stage, result.outage, result.after) == ((), (), ())


def test_the_kernels_own_modules_cannot_be_undone() -> None:
    driver = a_driver("rdma", dkms=None)
    facts = replace(some_facts(NEW), good=kept(driver.model_copy(update={"strict": True})))
    assert back(driver, facts)[1].outcome is Outcome.INCOMPATIBLE


def test_nothing_is_staged_and_the_state_is_named_by_its_digest() -> None:
    """No compiler, no headers, no network are needed: it is all on the node."""
    facts = some_facts(NEW, good=kept(NEW), former=kept(OLD), headers=frozenset(), compiler="")
    _, result = back(NEW, facts)
    assert result.outcome is Outcome.CHANGEABLE, result.reason
    assert result.stage == ()
    assert [step.program for step in result.outage] == ["unload.sh", "dkms_restore.sh", "load.sh"]
    assert result.outage[1].argv == ("toy", "-", OLD.digest)
    assert result.outage[1].why == "toy: back to 1.0, kept on the node"
    assert [step.program for step in result.after] == ["keep.sh"]
    named = kept(OLD, "as-named-by-an-older-fleetdrv")
    _, result = back(NEW, replace(facts, former=named))
    assert result.outage[1].argv == ("toy", "-", "as-named-by-an-older-fleetdrv")


def test_other_parameters_alone_come_back_too() -> None:
    now = a_driver(parameters={"toy": {"mode": "fast"}})
    facts = some_facts(now, good=kept(now), former=kept(NEW))
    _, result = back(now, facts)
    assert [step.program for step in result.outage] == ["unload.sh", "dkms_restore.sh", "load.sh"]


def test_modules_that_only_the_undone_version_has_leave_first() -> None:
    now = a_driver(modules=("toy", "toy_extra"))
    loaded = {
        "toy": a_loaded("toy", "1.1", refcount=1, holders=frozenset({"toy_extra"})),
        "toy_extra": a_loaded("toy_extra", "1.1"),
    }
    facts = some_facts(now, good=kept(now), former=kept(OLD), loaded=loaded)
    _, result = back(now, facts)
    assert result.outcome is Outcome.CHANGEABLE, result.reason
    assert result.outage[0].argv == ("toy_extra", "toy")


def test_a_driver_without_another_state_stays_as_it_is() -> None:
    net = a_driver("net")
    facts = some_facts(NEW, good={**kept(NEW), **kept(net)}, former=kept(OLD))
    facts = replace(facts, dkms=(*facts.dkms, installed("net", "1.1")))
    book = a_playbook(NEW, net)
    target, result = plan_back(book, book, facts)
    assert target.drivers == (OLD, net)
    restored = [step for step in result.outage if step.program == "dkms_restore.sh"]
    assert [step.argv[0] for step in restored] == ["toy"]


def an_apt(version: str, **more: Any) -> Driver:
    source = AptSource.model_validate({"packages": {"toy-dkms": version}, **more})
    return a_driver(dkms=None, apt=source)


def test_a_pattern_is_every_version_that_it_was_resolved_to() -> None:
    """Whatever is installed half-way back: the way still leads to the same state."""
    one, two = an_apt("1.0-1"), an_apt("2.0-1", sha256={"toy-dkms": "0" * 64})
    facts = replace(some_facts(NEW), good=kept(two), former=kept(one))
    for exact in ("2.0-1", "1.0-1", "2.*"):
        book, wanted = a_playbook(an_apt("2.*")), a_playbook(an_apt(exact))
        target, _ = plan_back(book, wanted, facts)
        assert target.drivers == (one,)
    book = a_playbook(an_apt("*"))
    assert plan_back(book, book, facts)[1].reason == NOTHING_KEPT, "both are its own"
    held_otherwise = a_playbook(an_apt("2.*", hold=False))
    assert plan_back(held_otherwise, held_otherwise, facts)[0].drivers == (two,)


def test_an_apt_state_is_restored_by_its_own_program() -> None:
    one, two = an_apt("1.0-1"), an_apt("2.0-1")
    facts = replace(some_facts(NEW), good=kept(two), former=kept(one))
    _, result = plan_back(a_playbook(two), a_playbook(two), facts)
    assert result.outcome is Outcome.CHANGEABLE, result.reason
    programs = {step.program for step in result.outage}
    assert (result.stage, "apt_restore.sh" in programs) == ((), True)
    assert not {"apt_install.sh", "apt_ready.sh"} & programs


def test_a_run_that_undoes_a_playbook_is_not_one_that_applies_it(tmp_path: Any) -> None:
    applied = Loaded(a_playbook(NEW), tmp_path, {})
    assert replace(applied, back=True).digest != applied.digest == applied.playbook.digest


@given(playbooks(), st.data())
def test_after_a_rollback_a_plan_for_what_was_there_before_is_empty(
    playbook: Playbook, data: st.DataObject
) -> None:
    """Also when it is cut off after any step and begun anew; and undoing it again does nothing."""
    machine: Machine = data.draw(machines(playbook))
    for step in _keeping(playbook, machine):
        machine.run(step, payload(playbook))
    newer = playbook.model_copy(update={"drivers": tuple(_newer(driver, data) for driver in playbook.drivers)})
    both = playbook.model_copy(update={"drivers": (*newer.drivers, *playbook.drivers)})
    change = plan(newer, machine.facts(both))
    machine.drain()
    for step in (*change.stage, *change.outage, *change.after):
        machine.run(step, payload(newer))
    undone = {driver.name for driver in newer.drivers}
    assert set(machine.former) == undone

    machine.services |= {unit: data.draw(st.booleans()) for driver in newer.drivers for unit in driver.services}
    as_found = dict(machine.services)
    machine.headers.clear()  # nothing may be compiled
    machine.staged.clear()
    for cut in (data.draw(st.integers(0, 6)), 99):
        target, result = plan_back(newer, newer, machine.facts(both))
        assert target.drivers == playbook.drivers
        assert result.outcome in (Outcome.CHANGEABLE, Outcome.CONVERGED), result.reason
        assert result.stage == ()
        machine.drain()
        for step in result.outage[:cut]:
            demand_usage(step)
            machine.run(step, {})
    assert plan(playbook, machine.facts(both)).outcome is Outcome.CONVERGED
    assert (machine.services, machine.stopped) == (as_found, set())

    for driver in playbook.drivers:
        machine.run(keep(driver, machine.facts(playbook)), payload(playbook))
    assert {name: state.digest for name, state in machine.good.items()} == {
        driver.name: driver.digest for driver in playbook.drivers
    }
    target, result = plan_back(newer, newer, machine.facts(both))
    assert (target.drivers, result.outcome) == (playbook.drivers, Outcome.CONVERGED)


def _keeping(playbook: Playbook, machine: Machine) -> tuple[Any, ...]:
    """Return the steps that keep all drivers, as a plan that changed each would."""
    bare = replace(machine, dkms={}, ran=[])
    return plan(playbook, bare.facts(playbook)).after


def _newer(driver: Driver, data: st.DataObject) -> Driver:
    fresh = data.draw(drivers(driver.name, "1.2"))
    same = {"modules": driver.modules, "services": (*driver.services, f"{driver.name}-exporter.service")}
    return fresh.model_copy(update={**same, "parameters": {}, "checks": (), "requires_pci": ()})
