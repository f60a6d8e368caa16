"""Decide what one node owes: (playbook, facts) → NodePlan. Pure: no clock, no network, no memory.

Verification is planning again and getting nothing, so dry run, drift, resume and verify are this one
function. Each driver is held against the node layer by layer (DKMS entry, built for every kernel that can
boot next, file on disk, loaded code, parameters, configuration, checks), because the exit codes of dkms
and modprobe prove nothing: `modprobe` exits 0 while the old build stays loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType

from fleetdrv import steps
from fleetdrv.built import as_installed, dkms_names, installed, packages_match
from fleetdrv.compare import (
    Comparison,
    Difference,
    Layer,
    compare,
    failed_checks,
    notes,
    overruled,
    with_dependants,
)
from fleetdrv.lifelines import lifelines, unload_order
from fleetdrv.model import NodeFacts
from fleetdrv.modules import among, to_load
from fleetdrv.packages import newest_last
from fleetdrv.playbook import Driver, Playbook
from fleetdrv.sources import AptSource
from fleetdrv.steps import Step as Step


class Disruption(IntEnum):
    """What a change costs the node's pods; the highest of all drivers counts."""

    NONE = 0
    """Cordon only: nothing that a pod may be using is taken away."""
    RELOAD = 1
    """Cordon and drain: loaded code is replaced."""
    REBOOT = 2


class Outcome(StrEnum):
    """What a plan says of a node."""

    CONVERGED = "converged"
    CHANGEABLE = "changeable"
    BLOCKED = "blocked"
    INCOMPATIBLE = "incompatible"
    NOT_MENDABLE = "not mendable here"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """All drivers of a playbook on one node, under one cordon."""

    outcome: Outcome
    reason: str = ""
    """Who blocks, what does not fit, or what is broken; empty where there is nothing to explain."""
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    """Worth telling, no cause to change anything."""
    disruption: Disruption = Disruption.NONE
    stage: tuple[Step, ...] = ()
    outage: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    remedy: bool = False
    """Its outage is what has to be mended before anything can be planned: see remedies.py."""


def plan(
    playbook: Playbook,
    facts: NodeFacts,
    *,
    upgrade: bool = False,
    kept: Mapping[str, steps.Kept] = MappingProxyType({}),
) -> NodePlan:
    """Say what is owed to bring the node to the playbook's state; an empty plan is *converged*.

    `upgrade`: whether packages are the newest that fit cannot be told from old lists, so new ones are owed.
    `kept`: drivers, by name, that are brought back from what the node keeps instead of staged and installed.
    """
    drivers = (d.with_services(kept[d.name].services if d.name in kept else ()) for d in playbook.drivers)
    comparisons = tuple(with_dependants((compare(driver, facts) for driver in drivers), facts))
    differences = tuple(difference for comparison in comparisons for difference in comparison.differences)
    differences += tuple(_lists_too_old(playbook, facts)) if upgrade else ()
    differences = differences or tuple(d for driver in playbook.drivers for d in failed_checks(driver, facts))
    remarks = tuple(notes(playbook.drivers, facts))
    remarks += tuple(said for c in comparisons if not c.loads for said in overruled(c.driver, facts))
    if not differences:
        return NodePlan(outcome=Outcome.CONVERGED, notes=remarks)
    fresh = tuple(comparison for comparison in comparisons if comparison.driver.name not in kept)
    for outcome, reasons in (
        (Outcome.NOT_MENDABLE, _not_mendable(differences)),
        (Outcome.INCOMPATIBLE, _incompatible(fresh, facts)),
        (Outcome.BLOCKED, _blocked(comparisons, facts, kept)),
    ):
        reason = "; ".join(reasons)
        if reason:
            return NodePlan(outcome=outcome, reason=reason, differences=differences, notes=remarks)
    return NodePlan(
        outcome=Outcome.CHANGEABLE,
        differences=differences,
        notes=remarks,
        disruption=Disruption.RELOAD if any(v.unload for v in comparisons) else Disruption.NONE,
        stage=tuple(step for c in fresh for step in steps.stage(c, facts, new_lists=upgrade)),
        outage=tuple(_outage(comparisons, facts, kept)),
        after=tuple(
            steps.keep(driver, facts)
            for driver, comparison in zip(playbook.drivers, comparisons, strict=True)
            if comparison.differences and comparison.driver.brought
        ),
    )


def _lists_too_old(playbook: Playbook, facts: NodeFacts) -> Iterator[Difference]:
    for driver in playbook.drivers:
        if driver.apt is not None and not steps.lists_are_new(driver, facts):
            wanted = "new ones, which tell whether there is a newer version"
            yield Difference(driver=driver.name, layer=Layer.PACKAGE, found="old package lists", wanted=wanted)


def _not_mendable(differences: tuple[Difference, ...]) -> Iterator[str]:
    for difference in differences:
        if difference.layer in (Layer.HARDWARE, Layer.CHECKS):
            yield str(difference)


def _incompatible(comparisons: tuple[Comparison, ...], facts: NodeFacts) -> Iterator[str]:
    for comparison in comparisons:
        if not comparison.driver.brought:
            yield from (str(d) for d in comparison.differences if d.layer is Layer.FILE)
        elif comparison.driver.apt is not None:
            yield from _packages_do_not_fit(comparison, comparison.driver.apt, facts)
    # Whether packages compile anything is known once they are installed; before that, stage finds out.
    if any(comparison.installs and dkms_names(comparison.driver, facts) for comparison in comparisons):
        yield from _cannot_build(facts)


def _cannot_build(facts: NodeFacts) -> Iterator[str]:
    if not facts.dkms_version:
        yield "dkms is not installed; on the node: apt-get install dkms"
    if not facts.compiler:
        yield "no C compiler; on the node: apt-get install build-essential"
    for kernel in facts.kernels.bootable:
        if kernel not in facts.headers:
            remedy = f"on the node: apt-get install linux-headers-{kernel}"
            yield f"no headers for kernel {kernel}, which can boot next; {remedy}"
    if facts.secure_boot:
        yield "Secure Boot is on, and nothing proves that a module built here is signed with an enrolled key"


def _packages_do_not_fit(comparison: Comparison, apt: AptSource, facts: NodeFacts) -> Iterator[str]:
    """Say which versions new lists do not have, and which modules the installed packages do not."""
    driver = comparison.driver
    if packages_match(apt, facts) and not dkms_names(driver, facts):
        yield from (str(d) for d in comparison.differences if d.layer is Layer.FILE)
    staged = steps.stage_key(driver, facts) in facts.staged
    if comparison.installs and not staged and steps.lists_are_new(driver, facts):
        for package in steps.not_offered(apt, facts):
            offered = sorted({c.version for c in facts.candidates if c.name == package}, key=newest_last)
            yield (
                f"{driver.name}: package {package} {apt.packages[package]} is not to be had here; "
                f"its lists offer {', '.join(offered) or 'none of it'}"
            )


def _blocked(
    comparisons: tuple[Comparison, ...], facts: NodeFacts, kept: Mapping[str, steps.Kept]
) -> Iterator[str]:
    ours = [module for comparison in comparisons for module in comparison.driver.modules]
    ours += [module for state in kept.values() for module in state.leaving]
    foes = {module for comparison in comparisons for module in comparison.driver.conflicts}
    for comparison in comparisons:
        for module in comparison.unload:
            if module.state != "live":
                yield (
                    f"{module.name} hangs half-way in or out of the kernel (state {module.state}): only a "
                    f"reboot clears it, and this version reboots no node; drain and reboot it by hand"
                )
            strangers = sorted(module.holders - set(ours) - foes)
            if strangers:
                yield _strangers(module.name, strangers, facts, "conflicts" if module.name in foes else "modules")
            before = () if module.name in foes else ours[: ours.index(module.name)]
            early = ", ".join(sorted(module.holders & set(before)))
            if early:
                yield f"{module.name} is used by {early}, which the playbook loads before it; list it first"
    yield from lifelines((module.name for comparison in comparisons for module in comparison.unload), facts)
    for comparison in comparisons:
        yield from _held(comparison.driver, facts)
        yield from overruled(comparison.driver, facts) if comparison.loads else ()
    if facts.dpkg_interrupted:
        yield "dpkg was interrupted; on the node: dpkg --configure -a"


def _strangers(module: str, strangers: list[str], facts: NodeFacts, key: str) -> str:
    """Nobody said that these may go, so they do not, and the way is told in the order that works."""
    chain = unload_order(strangers, facts)
    words = chain if key == "conflicts" else tuple(reversed(chain))
    where = "before" if key == "conflicts" else "after"
    return (
        f"{module} is used by {', '.join(strangers)}, which the playbook does not name; list {', '.join(words)} "
        f"in {key} {where} {module}, or on the node: rmmod {' '.join(chain)}"
    )


def _held(driver: Driver, facts: NodeFacts) -> Iterator[str]:
    """A hold that somebody else has set stands: he had a reason, and it is his to lift."""
    for name, version in driver.apt.packages.items() if driver.apt else ():
        package = facts.packages.get(name)
        if package and package.held and not package.held_by_us and not installed(facts, name, version):
            yield f"{name} is held at {package.version} by somebody else; on the node: apt-mark unhold {name}"


def _outage(
    comparisons: tuple[Comparison, ...], facts: NodeFacts, kept: Mapping[str, steps.Kept]
) -> Iterator[Step]:
    """Ask, stop services and unload all, newest dependants first; then install, configure and load in the
    playbook's order, start the services that ran before, and see to what the next boot would load."""
    for comparison in comparisons:
        if comparison.driver.name not in kept:
            yield from steps.before(comparison, facts)
    for comparison in reversed(comparisons):
        if comparison.unload and comparison.driver.services:
            yield steps.services("stop", comparison.driver)
    for comparison in reversed(comparisons):
        if comparison.unload:
            names = _unloaded(comparison, facts, kept.get(comparison.driver.name))
            leaving = (as_installed(among(comparison.driver.modules, name), facts) for name in names)
            why = f"{comparison.driver.name}: old code out of the kernel"
            yield Step(program="unload.sh", argv=tuple(map(to_load, leaving)), why=why)
    for comparison in comparisons:
        yield from _change(comparison, facts, kept.get(comparison.driver.name))
    for comparison in comparisons:
        if comparison.driver.services and (comparison.unload or Layer.SERVICES in comparison.layers):
            yield steps.services("start", comparison.driver)
    yield from steps.initramfs(comparisons, facts)


def _unloaded(comparison: Comparison, facts: NodeFacts, state: steps.Kept | None) -> tuple[str, ...]:
    """Name the modules that go, those first that only the version to be replaced has."""
    leaving = reversed(state.leaving if state else ())
    own = comparison.driver.modules
    stale = tuple(module for module in leaving if module in facts.loaded and module not in own)
    return (*stale, *(module.name for module in comparison.unload))


def _change(comparison: Comparison, facts: NodeFacts, state: steps.Kept | None) -> Iterator[Step]:
    driver = comparison.driver
    if state is not None:
        if comparison.brings or Layer.CONFIGURATION in comparison.layers:
            yield steps.bring_back(driver, state)
            yield from steps.rebuild(driver, facts) if state.rebuild and comparison.installs else ()
    else:
        yield from steps.install(comparison, facts)
    if Layer.CONFIGURATION in comparison.layers and state is None:
        pairs = [word for path in sorted(driver.configuration()) for word in (f"payload{path}", path)]
        yield Step(program="configure.sh", argv=(driver.name, *pairs), why=f"{driver.name}: module options")
    # Not otherwise: load.sh refuses loaded code that was only rebuilt since.
    if comparison.loads:
        why = f"{driver.name}: load and hold against the file"
        yield Step(program="load.sh", argv=tuple(map(to_load, driver.modules)), why=why)
