"""What a plan promises, held against a machine that obeys it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fleetdrv.compare import Layer
from fleetdrv.model import CheckResult, DkmsEntry, Kernels, NodeFacts
from fleetdrv.plan import Disruption, NodePlan, Outcome, Step, plan
from fleetdrv.playbook import Driver, Playbook
from fleetdrv.steps import build_key, renewed, restore, stage_key
from tests.core.factories import (
    KERNEL,
    NEXT_KERNEL,
    a_driver,
    a_file,
    a_loaded,
    a_playbook,
    an_identity,
    configured,
    installed,
    some_facts,
)
from tests.core.machine import Machine, demand_usage, payload, shown, twin
from tests.core.strategies import Scene, drivers, machines, pick, playbooks, put, scenes

TOY, NET = a_driver("toy"), a_driver("net")
TWO = Kernels(running=KERNEL, newest=NEXT_KERNEL, default=KERNEL)


def planned(scene: Scene) -> NodePlan:
    """Plan for a scene as it stands."""
    return plan(scene.playbook, scene.machine.facts(scene.playbook))


def programs(steps: tuple[Step, ...]) -> list[str]:
    """Return the steps' programs alone."""
    return [step.program for step in steps]


def only(steps: tuple[Step, ...], program: str) -> Step:
    """Return the one step that runs a program."""
    (step,) = [step for step in steps if step.program == program]
    return step


def both(**more: object) -> NodeFacts:
    """Return facts of a node on which toy and net, which depends on it, are as wanted."""
    toy, net = some_facts(TOY), some_facts(NET)
    facts = replace(
        toy,
        loaded={"toy": a_loaded("toy", holders=frozenset({"net"}), refcount=1), "net": a_loaded("net")},
        files=toy.files + net.files,
        dkms=toy.dkms + net.dkms,
        configuration=configured(TOY, NET),
    )
    return replace(facts, **more)  # type: ignore[arg-type]  # the fields are named by each test


# ---- the promises, as properties


@given(scenes(obstacles=True))
def test_converged_says_exactly_that_no_layer_differs(scene: Scene) -> None:
    result = planned(scene)
    assert (result.outcome is Outcome.CONVERGED) == (not result.differences)
    assert (result.outcome in (Outcome.CONVERGED, Outcome.CHANGEABLE)) == (not result.reason)
    if result.outcome is Outcome.CHANGEABLE:
        assert result.outage
        assert result.after
    else:
        assert (result.stage, result.outage, result.after) == ((), (), ())
        assert result.disruption is Disruption.NONE


@given(scenes(obstacles=True))
def test_a_plan_applied_leaves_nothing_to_plan(scene: Scene) -> None:
    first = planned(scene)
    assume(first.outcome is Outcome.CHANGEABLE)
    scene.machine.apply(first, scene.playbook)
    second = planned(scene)
    assert {d.layer for d in second.differences} <= {Layer.CHECKS}, second.differences
    assert bool(second.differences) == bool(scene.machine.broken)  # hardware that is broken shows only now
    for driver in scene.playbook.drivers:
        for module in driver.modules:
            in_force = scene.machine.loaded[module].parameters
            wanted = driver.parameters.get(module, {})
            assert {k: shown(k, v) for k, v in in_force.items()} == {k: shown(k, v) for k, v in wanted.items()}


@given(scenes())
def test_a_node_that_only_needs_a_change_is_never_refused(scene: Scene) -> None:
    assert planned(scene).outcome in (Outcome.CONVERGED, Outcome.CHANGEABLE)


@given(scenes(), st.integers(0, 12))
def test_a_crash_after_any_step_is_repaired_by_planning_again(scene: Scene, lived: int) -> None:
    first, files = planned(scene), payload(scene.playbook)
    assume(first.outcome is Outcome.CHANGEABLE)
    scene.machine.drain()  # the first run drained the node; nothing new came, for it stayed cordoned
    for step in (*first.stage, *first.outage, *first.after)[:lived]:
        scene.machine.run(step, files)
    second = planned(scene)
    if second.outcome is not Outcome.CONVERGED:
        assert second.outcome is Outcome.CHANGEABLE, second.reason
        scene.machine.apply(second, scene.playbook)
    assert planned(scene).outcome is Outcome.CONVERGED


@given(scenes(), st.integers(0, 12))
def test_services_end_as_they_were_found_also_after_a_crash(scene: Scene, lived: int) -> None:
    machine, files = scene.machine, payload(scene.playbook)
    owed = {unit for _, unit in machine.stopped}
    wanted = {unit: runs or unit in owed for unit, runs in machine.services.items()}
    first = planned(scene)
    machine.drain()
    for step in (*first.stage, *first.outage)[:lived]:
        machine.run(step, files)
    machine.apply(planned(scene), scene.playbook)
    assert planned(scene).outcome is Outcome.CONVERGED
    assert (machine.services, machine.stopped) == (wanted, set())


@given(scenes(obstacles=True))
def test_code_leaves_the_kernel_only_under_a_reload_and_a_reload_says_why(scene: Scene) -> None:
    result = planned(scene)
    unloads = "unload.sh" in programs(result.outage)
    assert unloads == (result.disruption is Disruption.RELOAD)
    if result.outcome is Outcome.CHANGEABLE and result.disruption is Disruption.NONE:
        before = {name: module.identity for name, module in scene.machine.loaded.items()}
        scene.machine.apply(result, scene.playbook)
        assert before.items() <= {n: m.identity for n, m in scene.machine.loaded.items()}.items()


@given(scenes(obstacles=True))
def test_no_plan_of_this_version_reboots(scene: Scene) -> None:
    assert planned(scene).disruption is not Disruption.REBOOT


def test_a_reboot_costs_more_than_a_reload_and_that_more_than_nothing() -> None:
    assert sorted(Disruption) == [Disruption.NONE, Disruption.RELOAD, Disruption.REBOOT]


@given(scenes())
def test_all_old_code_leaves_before_anything_is_installed(scene: Scene) -> None:
    result = planned(scene)
    names = programs(result.outage)
    changes = [name for name in names if name not in ("services.sh", "initramfs.sh")]
    assert changes == sorted(changes, key=lambda name: name != "unload.sh")
    order = list(scene.playbook.modules)
    leaving = [module for step in result.outage if step.program == "unload.sh" for module in step.argv]
    assert leaving == sorted(leaving, key=order.index, reverse=True)
    for driver in scene.playbook.drivers:
        mine = [
            step.program
            for step in result.outage
            if step.why.startswith(f"{driver.name}:") and step.program not in ("unload.sh", "services.sh")
        ]
        assert mine == [p for p in ("dkms_install.sh", "configure.sh", "load.sh") if p in mine]


@given(scenes())
def test_every_step_can_be_called_as_its_program_says_and_tells_why(scene: Scene) -> None:
    result = planned(scene)
    for step in (*result.stage, *result.outage, *result.after):
        demand_usage(step)
        assert step.why
        assert "\n" not in step.why


@given(scenes())
def test_what_is_installed_was_staged_before_for_the_same_kernels(scene: Scene) -> None:
    facts = scene.machine.facts(scene.playbook)
    result = plan(scene.playbook, facts)
    builds = {step.argv[4]: set(step.argv[5:]) for step in result.stage}
    for step in result.outage:
        if step.program == "dkms_install.sh":
            key = step.argv[2].split("/")[-2]
            assert key in facts.staged or set(step.argv[3:]) <= builds[key] == set(facts.kernels.bootable)
    assert not set(builds) & facts.staged


@given(scenes())
def test_a_kernel_whose_file_is_right_keeps_it(scene: Scene) -> None:
    """Else the loaded code of a node that only lacks a build for its next kernel would be stale at once."""
    result, machine = planned(scene), scene.machine
    assume(result.disruption is Disruption.NONE)
    before = {
        module: marks
        for (module, kernel), marks in machine.files.items()
        if kernel == machine.kernels.running and module in machine.loaded
    }
    scene.machine.apply(result, scene.playbook)
    facts = machine.facts(scene.playbook)
    for module, marks in before.items():
        file = facts.file(module, machine.kernels.running)
        assert file is not None
        assert marks == file.identity or marks.srcversion or marks.version


@given(playbooks(), st.data())
def test_a_playbook_in_place_is_converged_whoever_built_it(playbook: Playbook, data: st.DataObject) -> None:
    machine = data.draw(machines(playbook))
    assert plan(playbook, machine.facts(playbook)).outcome is Outcome.CONVERGED


@given(playbooks(), st.data())
def test_every_kernel_that_can_boot_next_is_covered(playbook: Playbook, data: st.DataObject) -> None:
    machine = data.draw(machines(playbook))
    driver, kernel = pick(data.draw, playbook.drivers), pick(data.draw, machine.kernels.bootable)
    if pick(data.draw, (False, True)):
        del machine.dkms[driver.dkms.package, driver.dkms.version, kernel]
    else:
        del machine.files[pick(data.draw, driver.modules), kernel]
    result = plan(playbook, machine.facts(playbook))
    assert result.outcome is Outcome.CHANGEABLE
    assert any(kernel in difference.found for difference in result.differences)
    assert only(result.outage, "dkms_install.sh").argv[3:] == (kernel,)
    assert set(only(result.stage, "dkms_stage.sh").argv[5:]) == set(machine.kernels.bootable)
    assert set(only(result.after, "keep.sh").argv[6:]) == set(machine.kernels.bootable)


@given(playbooks(), st.data())
def test_the_way_back_leads_to_the_last_known_good_from_anywhere(playbook: Playbook, data: st.DataObject) -> None:
    """A newer version failed after any of its steps; what was kept is restored, and its own plan verifies."""
    machine = data.draw(machines(playbook))
    for step in _kept(playbook, machine):
        machine.run(step, payload(playbook))
    newer = playbook.model_copy(update={"drivers": tuple(_newer(driver, data) for driver in playbook.drivers)})
    change = plan(newer, machine.facts(newer))
    assert change.outcome is Outcome.CHANGEABLE
    machine.services |= {unit: data.draw(st.booleans()) for driver in newer.drivers for unit in driver.services}
    as_found = dict(machine.services)
    machine.drain()
    for step in (*change.stage, *change.outage)[: data.draw(st.integers(0, 20))]:
        machine.run(step, payload(newer))
    failed = {driver.name: stage_key(driver, machine.facts(newer)) for driver in newer.drivers}
    listed = {driver.name: driver.services for driver in newer.drivers}
    for step in restore((driver.with_services(listed[driver.name]) for driver in playbook.drivers), failed):
        machine.run(step, {})
    for step in renewed((*playbook.drivers, *newer.drivers), machine.facts(newer)):
        machine.run(step, {})
    assert (machine.services, machine.stopped) == (as_found, set())
    again = plan(playbook, machine.facts(playbook))
    assert again.outcome is Outcome.CONVERGED, again.differences
    assert not set(failed.values()) & set(machine.staged)


def _kept(playbook: Playbook, machine: Machine) -> tuple[Step, ...]:
    """Return the steps that keep all drivers, as a plan that changed each would."""
    empty = twin(machine)
    empty.dkms.clear()
    return plan(playbook, empty.facts(playbook)).after


def _newer(driver: Driver, data: st.DataObject) -> Driver:
    fresh = data.draw(drivers(driver.name, "1.2"))
    services = (*driver.services, f"{driver.name}-exporter.service")
    same = {"modules": driver.modules, "services": services}
    return fresh.model_copy(update={**same, "parameters": {}, "checks": (), "requires_pci": ()})


# ---- one fault at a time, so that each reason is told in its own words


def test_a_converged_node_owes_nothing() -> None:
    assert plan(a_playbook(TOY), some_facts(TOY)) == NodePlan(outcome=Outcome.CONVERGED)


def test_an_upgrade_unloads_installs_and_loads_in_that_order() -> None:
    wanted = a_driver(version="1.2")
    result = plan(a_playbook(wanted), some_facts(TOY))
    assert result.outcome is Outcome.CHANGEABLE
    assert result.disruption is Disruption.RELOAD
    assert programs(result.stage) == ["dkms_stage.sh"]
    assert programs(result.outage) == ["unload.sh", "dkms_install.sh", "load.sh"]
    assert programs(result.after) == ["keep.sh"]


def test_an_upgrade_names_the_archive_the_build_and_what_is_kept() -> None:
    wanted, facts = a_driver(version="1.2"), some_facts(TOY)
    result, key = plan(a_playbook(wanted), facts), stage_key(wanted, facts)
    source = wanted.dkms
    assert key.startswith("toy-1.2-")
    assert only(result.stage, "dkms_stage.sh").argv == (
        "toy",
        "1.2",
        source.sha256,
        "payload/toy.archive",
        key,
        KERNEL,
    )
    tarball = f"/var/lib/fleetdrv/stage/{key}/toy-1.2.dkms.tar.gz"
    assert only(result.outage, "dkms_install.sh").argv == ("toy", "1.2", tarball, KERNEL)
    assert only(result.outage, "unload.sh").argv == ("toy",)
    assert only(result.outage, "load.sh").argv == ("toy",)
    assert only(result.after, "keep.sh").argv == (
        "toy",
        wanted.digest,
        "payload/toy.json",
        "toy",
        "1.2",
        key,
        KERNEL,
    )


def test_each_step_says_why_in_the_operators_words() -> None:
    wanted = a_driver(version="1.2", parameters={"toy": {"mode": "fast"}})
    result = plan(a_playbook(wanted), some_facts(TOY))
    assert [step.why for step in (*result.stage, *result.outage, *result.after)] == [
        "toy: trial build of toy/1.2",
        "toy: old code out of the kernel",
        "toy: install toy/1.2",
        "toy: module options",
        "toy: load and hold against the file",
        "toy: verified, kept as last known good",
    ]


def test_a_first_install_takes_nothing_from_anybody() -> None:
    result = plan(a_playbook(TOY), some_facts(TOY, loaded={}, files=(), dkms=(), configuration={}))
    assert result.disruption is Disruption.NONE
    assert programs(result.outage) == ["dkms_install.sh", "configure.sh", "load.sh"]


def test_a_module_that_was_unloaded_is_only_loaded_again() -> None:
    result = plan(a_playbook(TOY), some_facts(TOY, loaded={}))
    assert (result.stage, programs(result.outage)) == ((), ["load.sh"])
    assert result.disruption is Disruption.NONE


def test_configuration_is_written_file_by_file() -> None:
    wanted = a_driver(parameters={"toy": {"mode": "fast"}})
    facts = some_facts(wanted, loaded={"toy": a_loaded(parameters={"mode": "fast"})}, configuration={})
    result = plan(a_playbook(wanted), facts)
    assert programs(result.outage) == ["configure.sh"]
    assert only(result.outage, "configure.sh").argv == (
        "toy",
        "payload/etc/modprobe.d/fleetdrv-toy.conf",
        "/etc/modprobe.d/fleetdrv-toy.conf",
        "payload/etc/modules-load.d/fleetdrv-toy.conf",
        "/etc/modules-load.d/fleetdrv-toy.conf",
    )


def test_a_build_that_waits_is_not_built_again() -> None:
    wanted, facts = a_driver(version="1.2"), some_facts(TOY)
    waiting = replace(facts, staged=frozenset({stage_key(wanted, facts)}))
    result = plan(a_playbook(wanted), waiting)
    assert result.stage == ()
    assert "dkms_install.sh" in programs(result.outage)


def test_only_drivers_that_differ_are_changed_and_kept() -> None:
    facts = both(dkms=some_facts(TOY).dkms)
    result = plan(a_playbook(TOY, NET), facts)
    assert {step.why.split(":")[0] for step in (*result.stage, *result.outage, *result.after)} == {"net"}


def test_code_that_another_driver_holds_takes_that_driver_along_and_back() -> None:
    facts = both(dkms=some_facts(NET).dkms)
    result = plan(a_playbook(TOY, NET), facts)
    assert [(step.program, step.argv[0]) for step in result.outage] == [
        ("unload.sh", "net"),
        ("unload.sh", "toy"),
        ("dkms_install.sh", "toy"),
        ("load.sh", "toy"),
        ("load.sh", "net"),
    ]
    assert [step.argv[0] for step in result.after] == ["toy"]


def test_a_driver_that_holds_nothing_stays_when_another_is_reloaded() -> None:
    facts = both(loaded={"toy": a_loaded("toy"), "net": a_loaded("net")}, dkms=some_facts(NET).dkms)
    assert only(plan(a_playbook(TOY, NET), facts).outage, "unload.sh").argv == ("toy",)


def test_a_driver_held_through_two_others_takes_both_along() -> None:
    gpu = a_driver("gpu")
    facts = both(
        loaded={
            "toy": a_loaded("toy", holders=frozenset({"net"})),
            "net": a_loaded("net", holders=frozenset({"gpu"})),
            "gpu": a_loaded("gpu"),
        },
        files=(a_file("toy"), a_file("net"), a_file("gpu")),
        dkms=(installed("net"), installed("gpu")),
        configuration=configured(TOY, NET, gpu),
    )
    result = plan(a_playbook(TOY, NET, gpu), facts)
    assert [step.argv[0] for step in result.outage if step.program == "unload.sh"] == ["gpu", "net", "toy"]
    assert [step.argv[0] for step in result.outage if step.program == "load.sh"] == ["toy", "net", "gpu"]


def test_all_modules_that_are_loaded_in_the_wrong_order_are_told() -> None:
    loaded = {"toy": a_loaded("toy", holders=frozenset({"b", "a"})), "a": a_loaded("a"), "b": a_loaded("b")}
    early = a_driver("early", modules=("b", "a"))
    result = plan(a_playbook(early, a_driver(version="1.2")), some_facts(TOY, loaded=loaded))
    assert "toy is used by a, b, which the playbook loads before it; list it first" in result.reason


def test_a_driver_loaded_in_the_wrong_order_is_refused_before_the_node_is_drained() -> None:
    facts = both(dkms=some_facts(NET).dkms)
    result = plan(a_playbook(NET, TOY), facts)
    assert result.outcome is Outcome.BLOCKED
    assert result.reason == "toy is used by net, which the playbook loads before it; list it first"


@pytest.mark.parametrize(
    ("found", "outcome", "reason"),
    [
        (
            {"dkms_version": ""},
            Outcome.INCOMPATIBLE,
            "dkms is not installed; on the node: apt-get install dkms",
        ),
        (
            {"compiler": ""},
            Outcome.INCOMPATIBLE,
            "no C compiler; on the node: apt-get install build-essential",
        ),
        (
            {"headers": frozenset({NEXT_KERNEL})},
            Outcome.INCOMPATIBLE,
            f"no headers for kernel {KERNEL}, which can boot next; "
            f"on the node: apt-get install linux-headers-{KERNEL}",
        ),
        (
            {"secure_boot": True},
            Outcome.INCOMPATIBLE,
            "Secure Boot is on, and nothing proves that a module built here is signed with an enrolled key",
        ),
        (
            {"dpkg_interrupted": True},
            Outcome.BLOCKED,
            "dpkg was interrupted; on the node: dpkg --configure -a",
        ),
        (
            {"loaded": {"toy": a_loaded("toy", "1.1", state="going")}},
            Outcome.BLOCKED,
            "toy hangs half-way in or out of the kernel (state going): only a reboot clears it, and this "
            "version reboots no node; drain and reboot it by hand",
        ),
        (
            {"loaded": {"toy": a_loaded("toy", "1.1", holders=frozenset({"b", "a"}))}},
            Outcome.BLOCKED,
            "toy is used by a, b, which the playbook does not name; list b, a in modules after toy, or on the "
            "node: rmmod a b",
        ),
    ],
)
def test_what_stands_in_the_way_is_named_with_its_remedy(
    found: dict[str, object], outcome: Outcome, reason: str
) -> None:
    result = plan(a_playbook(a_driver(version="1.2")), some_facts(TOY, **found))
    assert (result.outcome, result.reason) == (outcome, reason)
    assert result.differences


def test_all_that_stands_in_the_way_is_told_at_once() -> None:
    facts = some_facts(TOY, dkms_version="", compiler="", headers=frozenset(), secure_boot=True)
    result = plan(a_playbook(a_driver(version="1.2")), facts)
    assert [part.split(" ")[0] for part in result.reason.split("; ") if not part.startswith("on the")] == [
        "dkms",
        "no",
        "no",
        "Secure",
    ]


def test_headers_are_wanted_for_every_kernel_that_can_boot_next() -> None:
    facts = some_facts(TOY, kernels=TWO)
    result = plan(a_playbook(TOY), facts)
    assert result.outcome is Outcome.INCOMPATIBLE
    assert f"no headers for kernel {NEXT_KERNEL}" in result.reason
    assert KERNEL not in result.reason


@pytest.mark.parametrize("found", [{"dkms_version": ""}, {"compiler": ""}, {"secure_boot": True}])
def test_what_is_only_needed_to_build_does_not_keep_a_module_from_being_loaded(
    found: dict[str, object],
) -> None:
    assert plan(a_playbook(TOY), some_facts(TOY, loaded={}, **found)).outcome is Outcome.CHANGEABLE


def test_a_stuck_module_is_no_obstacle_where_nothing_has_to_leave() -> None:
    facts = both(loaded={"toy": a_loaded("toy", holders=frozenset({"stranger"})), "net": a_loaded("net")})
    result = plan(a_playbook(TOY, NET), replace(facts, configuration=configured(TOY)))
    assert result.outcome is Outcome.CHANGEABLE


def test_modules_of_the_playbook_may_hold_each_other() -> None:
    result = plan(a_playbook(TOY, NET), both(dkms=()))
    assert result.outcome is Outcome.CHANGEABLE


def test_missing_hardware_is_nothing_that_software_mends() -> None:
    wanted = a_driver(requires_pci=("10de:*",), version="1.2")
    result = plan(a_playbook(wanted), some_facts(TOY, pci=frozenset({"8086:1237"})))
    assert result.outcome is Outcome.NOT_MENDABLE
    assert result.reason == "toy: hardware: found no such device, want PCI 10de:*"


def test_a_failed_check_on_an_else_converged_node_is_nothing_that_software_mends() -> None:
    wanted = a_driver(checks=(("toy-smi", "-L"),))
    facts = some_facts(
        wanted, checks=(CheckResult(argv=("toy-smi", "-L"), exit_code=3, output="a\nNo devices\n"),)
    )
    result = plan(a_playbook(wanted), facts)
    assert result.outcome is Outcome.NOT_MENDABLE
    assert result.reason == "toy: checks: found toy-smi -L: exit 3: No devices, want exit 0"


@pytest.mark.parametrize("at_fault", [TOY, NET])
def test_checks_count_only_once_all_drivers_agree(at_fault: Driver) -> None:
    checked = a_driver("toy", checks=(("toy-smi",),))
    facts = both(
        dkms=tuple(entry for entry in both().dkms if entry.name != at_fault.name),
        checks=(CheckResult(argv=("toy-smi",), exit_code=1, output=""),),
    )
    result = plan(a_playbook(checked, NET), facts)
    assert result.outcome is Outcome.CHANGEABLE
    assert Layer.CHECKS not in {difference.layer for difference in result.differences}


def test_what_cannot_be_mended_is_told_before_what_does_not_fit_and_that_before_who_blocks() -> None:
    wanted = a_driver(version="1.2", requires_pci=("10de:*",))
    facts = some_facts(TOY, compiler="", dpkg_interrupted=True)
    assert plan(a_playbook(wanted), facts).outcome is Outcome.NOT_MENDABLE
    assert plan(a_playbook(a_driver(version="1.2")), facts).outcome is Outcome.INCOMPATIBLE


def test_notes_are_told_whatever_the_outcome() -> None:
    for facts in (some_facts(TOY), some_facts(TOY, loaded={}), some_facts(TOY, dkms=(), compiler="")):
        (note,) = plan(a_playbook(TOY), replace(facts, no_autoinstall=True)).notes
        assert note.startswith("/etc/dkms/no-autoinstall")


CHANGES: list[Callable[[NodeFacts], NodeFacts]] = [
    lambda facts: replace(facts, architecture="arm64"),
    lambda facts: replace(facts, compiler="gcc 13"),
    lambda facts: replace(facts, dkms_version="3.2.0"),
    lambda facts: replace(facts, kernels=TWO),
    lambda facts: replace(facts, abi={KERNEL: "other symbols"}),
    lambda facts: replace(facts, abi={KERNEL: "symbols, other options"}),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_trial_build_is_used_again_only_for_the_same_inputs(
    change: Callable[[NodeFacts], NodeFacts],
) -> None:
    facts = some_facts(TOY)
    assert stage_key(TOY, facts) != stage_key(TOY, change(facts))
    assert stage_key(TOY, facts) != stage_key(a_driver(version="1.2"), facts)
    other_bytes = TOY.model_copy(update={"dkms": TOY.dkms.model_copy(update={"sha256": "0" * 64})})
    assert stage_key(TOY, facts) != stage_key(other_bytes, facts)


def test_a_trial_build_does_not_depend_on_which_of_its_kernels_runs() -> None:
    other = Kernels(running=NEXT_KERNEL, newest=NEXT_KERNEL, default=KERNEL)
    assert stage_key(TOY, some_facts(TOY, kernels=TWO)) == stage_key(TOY, some_facts(TOY, kernels=other))
    moved = TOY.model_copy(update={"dkms": TOY.dkms.model_copy(update={"source": "elsewhere/toy.tar"})})
    another = some_facts(TOY, boot_id="another", loaded={})
    assert stage_key(TOY, some_facts(TOY)) == stage_key(moved, another)


ANY_ABI = st.dictionaries(st.sampled_from((KERNEL, NEXT_KERNEL)), st.sampled_from(("s1 c1", "s1 c2", "s2 c1")))
ANY_BUILDER = st.fixed_dictionaries(
    {
        "abi": ANY_ABI,
        "architecture": st.sampled_from(("amd64", "arm64")),
        "compiler": st.sampled_from(("gcc 12", "gcc 13")),
        "dkms_version": st.sampled_from(("3.0.10", "3.2.0")),
        "kernels": st.sampled_from((TWO, Kernels(running=KERNEL, newest=KERNEL, default=KERNEL))),
    }
)


@given(ANY_BUILDER, ANY_BUILDER, st.sampled_from(("1.1", "1.2")))
def test_modules_are_shared_exactly_where_all_that_goes_into_them_is_equal(
    one: dict[str, Any], other: dict[str, Any], version: str
) -> None:
    """Which other kernels a node can boot is no part of it: the modules for one kernel are the same."""
    here, there, driver = some_facts(TOY, **one), some_facts(TOY, **other), a_driver(version=version)
    mine, theirs = build_key(TOY, here, KERNEL), build_key(driver, there, KERNEL)
    told = KERNEL in here.abi and KERNEL in there.abi
    inputs = ("architecture", "compiler", "dkms_version")
    equal = told and here.abi[KERNEL] == there.abi[KERNEL] and all(one[name] == other[name] for name in inputs)
    assert (bool(mine) and mine == theirs) == (equal and TOY.dkms.sha256 == driver.dkms.sha256)
    assert bool(mine) == (KERNEL in here.abi)
    both = replace(here, abi=dict.fromkeys((KERNEL, NEXT_KERNEL), "s1 c1"))
    assert build_key(TOY, both, KERNEL) != build_key(TOY, both, NEXT_KERNEL)


def test_the_key_of_a_trial_build_is_fit_for_a_folder_and_for_the_programs() -> None:
    name, version, digest = stage_key(TOY, some_facts(TOY)).split("-")
    assert (name, version, len(digest)) == ("toy", "1.1", 16)


def test_the_way_back_unloads_in_reverse_restores_and_loads_in_order() -> None:
    assert restore((TOY,), {}, ("toy", "toy_extra"))[0].argv == ("toy_extra", "toy"), "the failed code, too"
    steps = restore((TOY, NET), {"net": "net-1.2-key", "gpu": "no driver of these"})
    assert [(step.program, step.argv) for step in steps] == [
        ("unload.sh", ("net", "toy")),
        ("dkms_restore.sh", ("toy",)),
        ("dkms_restore.sh", ("net", "net-1.2-key")),
        ("load.sh", ("toy", "net")),
    ]
    assert [step.why for step in steps] == [
        "clear the failed version",
        "toy: back to 1.1, last known good",
        "net: back to 1.1, last known good",
        "load the last known good",
    ]


def test_another_version_left_in_dkms_is_taken_away_under_a_kernel_that_does_not_run() -> None:
    """dkms would build it for the next kernel; the running one keeps its file, and its pods."""
    facts = some_facts(
        TOY,
        kernels=TWO,
        headers=frozenset({KERNEL, NEXT_KERNEL}),
        files=(a_file(), a_file(kernel=NEXT_KERNEL)),
        dkms=(
            installed(),
            installed(kernel=NEXT_KERNEL),
            DkmsEntry(name="toy", version="1.0", state="added"),
        ),
    )
    result = plan(a_playbook(TOY), facts)
    assert [str(difference) for difference in result.differences] == [
        "toy: built: found toy/1.0, want only toy/1.1"
    ]
    assert only(result.outage, "dkms_install.sh").argv[3:] == (NEXT_KERNEL,)
    assert result.disruption is Disruption.NONE


def test_code_without_a_mark_that_outlives_a_rebuild_is_reloaded_with_its_file() -> None:
    left = (installed(), DkmsEntry(name="toy", version="1.0", state="added"))
    marks = an_identity()
    nameless = replace(marks, srcversion="", version="")
    for loaded, disruption in ((marks, Disruption.NONE), (nameless, Disruption.RELOAD)):
        facts = some_facts(
            TOY, dkms=left, loaded={"toy": a_loaded(identity=loaded)}, files=(a_file(identity=loaded),)
        )
        assert plan(a_playbook(TOY), facts).disruption is disruption


def test_putting_a_driver_in_place_is_what_the_factories_do() -> None:
    machine = Machine(kernels=TWO, headers={KERNEL, NEXT_KERNEL})
    put(machine, TOY)
    assert plan(a_playbook(TOY), machine.facts(a_playbook(TOY))).outcome is Outcome.CONVERGED


# ---- the kernel's own modules, and modules that must not be there

RXE = Driver(name="rxe", modules=("rdma_rxe",))


def rxe_facts(**more: object) -> NodeFacts:
    """Return facts of a node on which the kernel's own module is loaded; nothing can be compiled there."""
    found: dict[str, object] = {
        "loaded": {"rdma_rxe": a_loaded("rdma_rxe")},
        "files": (a_file("rdma_rxe"),),
        "dkms": (),
        "configuration": configured(RXE),
        "dkms_version": "",
        "compiler": "",
        "headers": frozenset(),
        "secure_boot": True,
    }
    return some_facts(TOY, **{**found, **more})


def test_a_module_of_the_kernel_is_loaded_without_anything_to_build_it() -> None:
    assert plan(a_playbook(RXE), rxe_facts()).outcome is Outcome.CONVERGED
    result = plan(a_playbook(RXE), rxe_facts(loaded={}, configuration={}))
    assert (result.stage, programs(result.outage), result.after) == ((), ["configure.sh", "load.sh"], ())
    assert result.disruption is Disruption.NONE
    assert "rdma_rxe in-tree" in str(result.differences[0])


def test_a_kernel_that_has_no_such_module_is_incompatible() -> None:
    result = plan(a_playbook(RXE), rxe_facts(kernels=TWO))
    assert result.outcome is Outcome.INCOMPATIBLE
    assert result.reason == f"rxe: file: found no rdma_rxe for {NEXT_KERNEL}, want rdma_rxe of the kernel"


def test_other_code_than_the_kernels_own_file_is_reloaded() -> None:
    result = plan(a_playbook(RXE), rxe_facts(loaded={"rdma_rxe": a_loaded("rdma_rxe", "0.9")}))
    assert programs(result.outage) == ["unload.sh", "load.sh"]
    assert result.disruption is Disruption.RELOAD


def test_a_conflicting_module_leaves_and_the_driver_is_loaded_anew() -> None:
    wanted = a_driver(conflicts=("nouveau", "nova"))
    facts = some_facts(wanted, loaded={"toy": a_loaded(), "nouveau": a_loaded("nouveau")})
    result = plan(a_playbook(wanted), facts)
    assert [str(d) for d in result.differences] == ["toy: conflicts: found nouveau loaded, want no nouveau"]
    assert [(step.program, step.argv) for step in result.outage] == [
        ("unload.sh", ("toy", "nouveau")),
        ("load.sh", ("toy",)),
    ]
    assert result.disruption is Disruption.RELOAD
    assert plan(a_playbook(wanted), some_facts(wanted)).outcome is Outcome.CONVERGED


def test_a_conflicting_module_that_others_use_blocks() -> None:
    wanted = a_driver(conflicts=("nouveau",))
    held = a_loaded("nouveau", holders=frozenset({"stranger"}))
    result = plan(a_playbook(wanted), some_facts(wanted, loaded={"toy": a_loaded(), "nouveau": held}))
    assert result.outcome is Outcome.BLOCKED
    assert result.reason == (
        "nouveau is used by stranger, which the playbook does not name; list stranger in conflicts before "
        "nouveau, or on the node: rmmod stranger"
    )


def test_a_conflicting_module_is_blacklisted_and_told_where_a_boot_may_load_it() -> None:
    wanted = a_driver(conflicts=("nouveau",), parameters={"toy": {"mode": "fast"}})
    text = wanted.configuration()["/etc/modprobe.d/fleetdrv-toy.conf"]
    assert text.splitlines()[1:] == ["options toy mode=fast", "blacklist nouveau"]
    plain = a_driver(conflicts=("nouveau",))
    there = {"initrds": frozenset({KERNEL})}
    assert plan(a_playbook(plain), some_facts(plain, **there)).outcome is Outcome.CONVERGED
    facts = some_facts(plain, **there, initramfs=frozenset({(KERNEL, "nouveau"), (NEXT_KERNEL, "stranger")}))
    result = plan(a_playbook(plain), facts)
    assert [str(d) for d in result.differences] == [
        f"toy: initramfs: found nouveau in the initramfs of {KERNEL}, older than its file or options, "
        "want an initramfs as the disk is now"
    ]
    assert [(step.program, step.argv) for step in result.outage] == [("initramfs.sh", (KERNEL, "toy", "nouveau"))]
    assert result.disruption is Disruption.NONE


def test_the_initramfs_is_seen_to_last_and_for_each_kernel_that_has_one() -> None:
    wanted = a_driver(version="1.2", conflicts=("nouveau",))
    facts = both(kernels=TWO, headers=frozenset({KERNEL, NEXT_KERNEL}), initrds=frozenset({KERNEL, NEXT_KERNEL}))
    result = plan(a_playbook(wanted, NET), facts)
    assert [step.argv for step in result.outage[-2:]] == [
        (KERNEL, "toy", "nouveau", "net"),
        (NEXT_KERNEL, "toy", "nouveau", "net"),
    ]
    assert "initramfs.sh" not in programs(plan(a_playbook(wanted), some_facts(TOY)).outage), "there is none"


def test_what_no_tool_can_list_is_a_note() -> None:
    result = plan(a_playbook(TOY), some_facts(TOY, initramfs=frozenset({(KERNEL, "-")})))
    assert result.outcome is Outcome.CONVERGED
    assert result.notes == (
        f"what the initramfs of {KERNEL} carries cannot be told: there is no lsinitramfs or lsinitrd",
    )


def test_the_way_back_of_a_module_of_the_kernel_is_to_load_it_again() -> None:
    steps = restore((RXE, TOY), {})
    assert [step.program for step in steps] == ["unload.sh", "dkms_restore.sh", "load.sh"]
    assert steps[1].argv == ("toy",)


SERVED = a_driver(services=("toy-persistenced", "toy-dcgm.socket"))


def test_services_stop_before_the_code_leaves_last_first_and_start_once_it_is_there() -> None:
    wanted = a_driver(version="1.2", services=SERVED.services)
    result = plan(a_playbook(wanted, NET), both())
    units = ("toy-persistenced.service", "toy-dcgm.socket")
    assert wanted.services == units
    assert [(s.program, s.argv[0]) for s in result.outage if s.program != "dkms_install.sh"] == [
        ("services.sh", "stop"),
        ("unload.sh", "net"),
        ("unload.sh", "toy"),
        ("load.sh", "toy"),
        ("load.sh", "net"),
        ("services.sh", "start"),
    ]
    assert result.outage[0].argv == ("stop", "100", "toy", *reversed(units))
    assert result.outage[-1].argv == ("start", "100", "toy", *units)


def test_no_service_is_stopped_where_no_code_leaves() -> None:
    result = plan(a_playbook(SERVED), some_facts(SERVED, loaded={}))
    assert programs(result.outage) == ["load.sh"]


def test_a_service_that_an_outage_left_stopped_is_a_difference_and_is_started() -> None:
    left = frozenset({("toy", "toy-persistenced.service"), ("toy", "not-listed.service"), ("net", "x.service")})
    result = plan(a_playbook(SERVED), some_facts(SERVED, stopped=left))
    assert [str(d) for d in result.differences] == [
        "toy: services: found toy-persistenced.service stopped for an outage, "
        "want toy-persistenced.service running again"
    ]
    assert (programs(result.outage), result.disruption) == (["services.sh"], Disruption.NONE)
    assert result.outage[0].argv[0] == "start"

