"""Decide what one node owes: (playbook, facts) → NodePlan. Pure: no clock, no network, no memory.

Verification is planning again and getting nothing, so dry run, drift, resume and verify are this one
function. Each driver is held against the node layer by layer (DKMS entry, built for every kernel that can
boot next, file on disk, loaded code, parameters, configuration, checks), because the exit codes of dkms
and modprobe prove nothing: `modprobe` exits 0 while the old build stays loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from fleetdrv.compare import Comparison, Difference, Layer, compare, failed_checks, notes, with_dependants
from fleetdrv.model import NodeFacts
from fleetdrv.playbook import Driver, Playbook
from fleetdrv.sources import DkmsSource


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
class Step:
    """One node program with its arguments, and why it is there. `plan` prints what `apply` runs."""

    program: str
    argv: tuple[str, ...]
    why: str


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


def plan(playbook: Playbook, facts: NodeFacts) -> NodePlan:
    """Say what is owed to bring the node to the playbook's state; an empty plan is *converged*."""
    comparisons = tuple(with_dependants((compare(driver, facts) for driver in playbook.drivers), facts))
    differences = tuple(difference for comparison in comparisons for difference in comparison.differences)
    differences = differences or tuple(d for driver in playbook.drivers for d in failed_checks(driver, facts))
    remarks = tuple(notes(playbook.drivers, facts))
    if not differences:
        return NodePlan(outcome=Outcome.CONVERGED, notes=remarks)
    for outcome, reasons in (
        (Outcome.NOT_MENDABLE, _not_mendable(differences)),
        (Outcome.INCOMPATIBLE, _incompatible(comparisons, facts)),
        (Outcome.BLOCKED, _blocked(comparisons, facts)),
    ):
        reason = "; ".join(reasons)
        if reason:
            return NodePlan(outcome=outcome, reason=reason, differences=differences, notes=remarks)
    return NodePlan(
        outcome=Outcome.CHANGEABLE,
        differences=differences,
        notes=remarks,
        disruption=Disruption.RELOAD if any(v.unload for v in comparisons) else Disruption.NONE,
        stage=tuple(_stage(comparisons, facts)),
        outage=tuple(_outage(comparisons, facts)),
        after=tuple(
            keep(comparison.driver, source, facts)
            for comparison in comparisons
            if comparison.differences and (source := comparison.driver.dkms)
        ),
    )


def stage_key(source: DkmsSource, facts: NodeFacts) -> str:
    """Name a trial build by all that went into it, so that one left behind is used again or never."""
    return f"{source.package}-{source.version}-{_inputs(source, facts, *facts.kernels.bootable)[:16]}"


def build_key(source: DkmsSource, facts: NodeFacts, kernel: str) -> str:
    """Name a driver's modules for one kernel by all that goes into them: equal keys, equal modules.

    Empty where the node cannot tell what its kernel exports; nothing is shared then.
    """
    return _inputs(source, facts, kernel) if kernel in facts.abi else ""


def _inputs(source: DkmsSource, facts: NodeFacts, *kernels: str) -> str:
    built_for = sorted(f"{kernel} {facts.abi.get(kernel, '')}" for kernel in kernels)
    inputs = (source.sha256, facts.architecture, facts.compiler, facts.dkms_version, *built_for)
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()


def keep(driver: Driver, source: DkmsSource, facts: NodeFacts) -> Step:
    """Record the driver as last known good, and give back the room of its trial build."""
    argv = (
        driver.name,
        driver.digest,
        f"payload/{driver.name}.json",
        source.package,
        source.version,
        stage_key(source, facts),
        *facts.kernels.bootable,
    )
    return Step(program="keep.sh", argv=argv, why=f"{driver.name}: verified, kept as last known good")


def restore(
    drivers: Iterable[Driver], staged: Mapping[str, str], failed: Iterable[str] = ()
) -> tuple[Step, ...]:
    """Plan the way back to the last known good of each driver, given as it was kept.

    A driver of the kernel's own tree was never anything else: it is only unloaded and loaded again.
    `staged` names, by driver, the failed version's trial build, which goes as well; `failed` its modules.
    Everything is unloaded first: whatever half-way state the failed change left, the same steps apply.
    """
    drivers = tuple(drivers)
    modules = [module for driver in drivers for module in driver.modules]
    leaving = dict.fromkeys((*modules, *failed))
    steps = [Step(program="unload.sh", argv=tuple(reversed(leaving)), why="clear the failed version")]
    steps += [
        Step(
            program="dkms_restore.sh",
            argv=(driver.name, *filter(None, (staged.get(driver.name),))),
            why=f"{driver.name}: back to {driver.version}, last known good",
        )
        for driver in drivers
        if driver.dkms is not None
    ]
    steps.append(Step(program="load.sh", argv=tuple(modules), why="load the last known good"))
    return tuple(steps)


def _not_mendable(differences: tuple[Difference, ...]) -> Iterator[str]:
    for difference in differences:
        if difference.layer in (Layer.HARDWARE, Layer.CHECKS):
            yield str(difference)


def _incompatible(comparisons: tuple[Comparison, ...], facts: NodeFacts) -> Iterator[str]:
    for comparison in comparisons:
        if comparison.driver.dkms is None:
            yield from (str(d) for d in comparison.differences if d.layer is Layer.FILE)
    if not any(comparison.installs for comparison in comparisons):
        return
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


def _blocked(comparisons: tuple[Comparison, ...], facts: NodeFacts) -> Iterator[str]:
    ours = [module for comparison in comparisons for module in comparison.driver.modules]
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
                yield f"{module.name} is used by {', '.join(strangers)}, which the playbook does not name"
            before = () if module.name in foes else ours[: ours.index(module.name)]
            early = ", ".join(sorted(module.holders & set(before)))
            if early:
                yield f"{module.name} is used by {early}, which the playbook loads before it; list it first"
    if facts.dpkg_interrupted:
        yield "dpkg was interrupted; on the node: dpkg --configure -a"


def _stage(comparisons: tuple[Comparison, ...], facts: NodeFacts) -> Iterator[Step]:
    for comparison in comparisons:
        source = comparison.driver.dkms
        if source is None or not comparison.installs:
            continue
        key = stage_key(source, facts)
        if key not in facts.staged:
            argv = (
                source.package,
                source.version,
                source.sha256,
                f"payload/{comparison.driver.name}.archive",
                key,
                *facts.kernels.bootable,
            )
            yield Step(
                program="dkms_stage.sh",
                argv=argv,
                why=f"{comparison.driver.name}: trial build of {source.package}/{source.version}",
            )


def _outage(comparisons: tuple[Comparison, ...], facts: NodeFacts) -> Iterator[Step]:
    """Unload all, newest dependants first; then install, configure and load in the playbook's order."""
    for comparison in reversed(comparisons):
        if comparison.unload:
            names = tuple(module.name for module in comparison.unload)
            yield Step(
                program="unload.sh", argv=names, why=f"{comparison.driver.name}: old code out of the kernel"
            )
    for comparison in comparisons:
        yield from _change(comparison, facts)


def _change(comparison: Comparison, facts: NodeFacts) -> Iterator[Step]:
    driver, source = comparison.driver, comparison.driver.dkms
    if source is not None and comparison.installs:
        tarball = f"{source.package}-{source.version}.dkms.tar.gz"
        staged = f"/var/lib/fleetdrv/stage/{stage_key(source, facts)}/{tarball}"
        yield Step(
            program="dkms_install.sh",
            why=f"{driver.name}: install {source.package}/{source.version}",
            argv=(source.package, source.version, staged, *comparison.kernels),
        )
    if Layer.CONFIGURATION in comparison.layers:
        pairs = [word for path in sorted(driver.configuration()) for word in (f"payload{path}", path)]
        yield Step(program="configure.sh", argv=(driver.name, *pairs), why=f"{driver.name}: module options")
    # Not otherwise: load.sh refuses loaded code that was only rebuilt since.
    if comparison.unload or Layer.LOADED in comparison.layers:
        why = f"{driver.name}: load and hold against the file"
        yield Step(program="load.sh", argv=driver.modules, why=why)
