"""The node programs that bring, keep and bring back a driver, with their arguments. Pure.

One place knows what each program wants to be told; `plan` decides when, and in which order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from fleetdrv.built import as_installed, dkms_names, repository_digest
from fleetdrv.compare import Comparison
from fleetdrv.layers import Layer
from fleetdrv.model import Candidate, NodeFacts
from fleetdrv.modules import file_name, question, to_load
from fleetdrv.packages import compare_versions
from fleetdrv.playbook import Driver
from fleetdrv.sources import AptSource, DkmsSource

LISTS_SECONDS = 86400
"""Package lists that are older say nothing of what there is to install: stage asks for new ones first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One node program with its arguments, and why it is there. `plan` prints what `apply` runs."""

    program: str
    argv: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A state of a driver that the node keeps and is to go back to."""

    digest: str
    """Of its wanted state: names it on the node."""
    leaving: tuple[str, ...] = ()
    """Modules of what it replaces, in load order."""
    services: tuple[str, ...] = ()
    """Its services, which are stopped and started as the state's own are."""
    rebuild: bool = False
    """For kernels that it has no build of, one is made on the node."""


def stage_key(driver: Driver, facts: NodeFacts) -> str:
    """Name a trial build by all that went into it, so that one left behind is used again or never."""
    name = f"{driver.dkms.package}-{driver.dkms.version}" if driver.dkms else driver.name
    return f"{name}-{_inputs(_source_digest(driver), facts, *facts.kernels.bootable)[:16]}"


def build_key(driver: Driver, facts: NodeFacts, kernel: str) -> str:
    """Name a driver's modules for one kernel by all that goes into them: equal keys, equal modules.

    Empty where the node cannot tell what its kernel exports; nothing is shared then.
    """
    return _inputs(_source_digest(driver), facts, kernel) if kernel in facts.abi else ""


def _source_digest(driver: Driver) -> str:
    if driver.dkms is not None:
        return driver.dkms.sha256
    return "\n".join(sorted(_pins(driver.apt, digests=True))) if driver.apt else ""


def _inputs(source: str, facts: NodeFacts, *kernels: str) -> str:
    built_for = sorted(f"{kernel} {facts.abi.get(kernel, '')}" for kernel in kernels)
    inputs = (source, facts.architecture, facts.compiler, facts.dkms_version, *built_for)
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()


def _pins(apt: AptSource, *, digests: bool = False) -> tuple[str, ...]:
    """Return NAME=VERSION words, with =SHA256 where it is wanted and known."""
    pins = apt.packages.items()
    return tuple(
        f"{name}={version}" + (f"={apt.sha256[name]}" if digests and name in apt.sha256 else "")
        for name, version in pins
    )


def lists_are_new(driver: Driver, facts: NodeFacts) -> bool:
    """Tell whether the node's package lists can be believed, the driver's own repository among them."""
    own = facts.refreshed.get(driver.name)
    if own and own.repository == repository_digest(driver) and own.seconds <= LISTS_SECONDS:
        return True
    system = facts.lists_seconds if driver.apt and driver.apt.repository is None else None
    return system is not None and system <= LISTS_SECONDS


def not_offered(apt: AptSource, facts: NodeFacts) -> tuple[str, ...]:
    """Return the packages that the node's lists do not offer at their exact version and hash."""
    return tuple(
        name
        for name, version in apt.packages.items()
        if Candidate(name=name, version=version, sha256=apt.sha256.get(name, "")) not in facts.candidates
    )


def stage(comparison: Comparison, facts: NodeFacts, *, new_lists: bool = False) -> Iterator[Step]:
    """Yield what is left to do while the node serves: lists, downloads, a trial build.

    `new_lists`: package lists that are old are asked for anew also where nothing else needs them.
    """
    driver = comparison.driver
    if driver.apt is not None and _lists_wanted(comparison, driver.apt, facts, new_lists):
        yield _refresh(driver, driver.apt)
    elif comparison.installs and stage_key(driver, facts) not in facts.staged:
        if driver.dkms is not None:
            yield _dkms_stage(driver, driver.dkms, facts)
        elif driver.apt is not None:
            yield _apt_stage(driver, driver.apt, facts)


def _lists_wanted(comparison: Comparison, apt: AptSource, facts: NodeFacts, new_lists: bool) -> bool:
    if lists_are_new(comparison.driver, facts):
        return False
    if new_lists or (Layer.REPOSITORY in comparison.layers and apt.repository):
        return True
    staged = stage_key(comparison.driver, facts) in facts.staged
    return comparison.installs and not staged and bool(not_offered(apt, facts))


def _refresh(driver: Driver, apt: AptSource) -> Step:
    own = (f"payload/{driver.name}.sources", f"payload/{driver.name}.key")
    argv = (driver.name, *own, apt.repository.fingerprint) if apt.repository else (driver.name,)
    return Step(program="apt_refresh.sh", argv=argv, why=f"{driver.name}: new package lists")


def _dkms_stage(driver: Driver, source: DkmsSource, facts: NodeFacts) -> Step:
    archive, key = f"payload/{driver.name}.archive", stage_key(driver, facts)
    named = (source.package, source.version, source.sha256)
    return Step(
        program="dkms_stage.sh",
        argv=(*named, archive, key, *facts.kernels.bootable),
        why=f"{driver.name}: trial build of {source.package}/{source.version}",
    )


def _apt_stage(driver: Driver, apt: AptSource, facts: NodeFacts) -> Step:
    down = ("--allow-downgrade",) if _goes_down(apt, facts) else ()
    words = (*down, driver.name, stage_key(driver, facts), apt.conffiles, ",".join(map(question, driver.modules)))
    pins = _pins(apt, digests=True)
    return Step(
        program="apt_stage.sh",
        argv=(*words, *pins, "--", *facts.kernels.bootable),
        why=f"{driver.name}: download and trial build of {', '.join(_pins(apt))}",
    )


def _goes_down(apt: AptSource, facts: NodeFacts) -> bool:
    """An older version than the installed one is taken where the playbook's own words leave no other."""
    found = {name: facts.packages[name].version for name in apt.packages if name in facts.packages}
    return any(have and compare_versions(apt.packages[name], have) < 0 for name, have in found.items())


def before(comparison: Comparison, facts: NodeFacts) -> Iterator[Step]:
    """Yield what is asked first in an outage, before anything is changed: may apt install now?"""
    driver = comparison.driver
    if driver.apt is not None and comparison.brings:
        yield Step(
            program="apt_ready.sh",
            argv=(driver.name, stage_key(driver, facts), *_pins(driver.apt)),
            why=f"{driver.name}: may apt install now?",
        )


def install(comparison: Comparison, facts: NodeFacts) -> Iterator[Step]:
    """Yield what brings the driver onto the node's disk; nothing is downloaded or compiled by it."""
    driver = comparison.driver
    if driver.dkms is not None and comparison.installs:
        source = driver.dkms
        tarball = f"{source.package}-{source.version}.dkms.tar.gz"
        staged = f"/var/lib/fleetdrv/stage/{stage_key(driver, facts)}/{tarball}"
        yield Step(
            program="dkms_install.sh",
            why=f"{driver.name}: install {source.package}/{source.version}",
            argv=(source.package, source.version, staged, *comparison.kernels),
        )
    elif driver.apt is not None and comparison.brings:
        apt, hold = driver.apt, "yes" if driver.apt.hold else "no"
        kernels = comparison.kernels or facts.kernels.bootable
        yield Step(
            program="apt_install.sh",
            why=f"{driver.name}: install {', '.join(_pins(apt))}",
            argv=(driver.name, stage_key(driver, facts), hold, apt.conffiles, *_pins(apt), "--", *kernels),
        )


def bring_back(driver: Driver, kept: Kept) -> Step:
    """Bring back a state that the node keeps: packages or build, and configuration. Nothing is compiled."""
    return Step(
        program="apt_restore.sh" if driver.apt else "dkms_restore.sh",
        argv=(driver.name, "-", kept.digest),
        why=f"{driver.name}: back to {driver.version}, kept on the node",
    )


def rebuild(driver: Driver, facts: NodeFacts) -> Iterator[Step]:
    """Yield what compiles, on the node and from its own sources, for each kernel that DKMS has no build for."""
    for name, version in dkms_names(driver, facts):
        why = f"{driver.name}: {name}/{version} for every kernel that can boot"
        yield Step(program="dkms_rebuild.sh", argv=(name, version, *facts.kernels.bootable), why=why)


def keep(driver: Driver, facts: NodeFacts) -> Step:
    """Record a driver that was brought as last known good, and give back the room of its trial build."""
    why = f"{driver.name}: verified, kept as last known good"
    words = (driver.name, driver.digest, f"payload/{driver.name}.json")
    key, kernels = stage_key(driver, facts), facts.kernels.bootable
    if driver.apt is not None:
        argv = (*words, key, *_pins(driver.apt), "--", *kernels)
        return Step(program="apt_keep.sh", argv=argv, why=why)
    if driver.dkms is None:
        raise ValueError(f"{driver.name}: nothing of the kernel's own modules can be kept")
    argv = (*words, driver.dkms.package, driver.dkms.version, key, *kernels)
    return Step(program="keep.sh", argv=argv, why=why)


_IN_THE_INITRAMFS = (Layer.CONFIGURATION, Layer.CONFLICTS, Layer.INITRAMFS)


def initramfs(comparisons: Iterable[Comparison], facts: NodeFacts) -> Iterator[Step]:
    """Yield what takes old code and old options out of each kernel's initramfs.

    Last of all, once loaded code has proven itself: a driver that does not load is not put where the next boot
    would meet it. Where the initramfs carries nothing of the driver, its program only looks.
    """
    changed = [c for c in comparisons if c.brings or any(layer in c.layers for layer in _IN_THE_INITRAMFS)]
    yield from renewed((c.driver for c in changed), facts)


def renewed(drivers: Iterable[Driver], facts: NodeFacts) -> Iterator[Step]:
    """Yield a look into the initramfs of each kernel, for anything of the drivers, also by files' former names."""
    carried: dict[str, None] = {}
    for driver in drivers:
        former = (as_installed(module, facts) for module in driver.modules)
        carried |= dict.fromkeys((*map(file_name, (*driver.modules, *former)), *driver.conflicts))
    names = tuple(carried)
    for kernel in facts.kernels.bootable:
        if names and kernel in facts.initrds:
            why = f"initramfs of {kernel}: written anew if it carries any of this"
            yield Step(program="initramfs.sh", argv=(kernel, *names), why=why)


SERVICE_SECONDS = 100
"""For one service to stop or start: systemd's own default for either is 90."""


def services(verb: Literal["stop", "start"], driver: Driver) -> Step:
    """Stop the services of a driver that run, or start those that did."""
    units = driver.services if verb == "start" else tuple(reversed(driver.services))
    what = "use it: stop those that run" if verb == "stop" else "ran before: start them"
    return Step(
        program="services.sh",
        argv=(verb, str(SERVICE_SECONDS), driver.name, *units),
        why=f"{driver.name}: services that {what}",
    )


def restore(
    drivers: Iterable[Driver],
    staged: Mapping[str, str],
    failed: Iterable[str] = (),
    *,
    staying: Collection[str] = (),
) -> tuple[Step, ...]:
    """Plan the way back to the last known good of each driver, given as it was kept.

    A driver of the kernel's own tree was never anything else: it is only unloaded and loaded again.
    `staged` names, by driver, the failed version's trial build, which goes as well; `failed` its modules.
    Everything is unloaded first: whatever half-way state the failed change left, the same steps apply. Only
    `staying` modules are not: the node hangs on them.
    """
    drivers = tuple(drivers)
    modules = [module for driver in drivers for module in driver.modules]
    leaving = tuple(to_load(m) for m in reversed(dict.fromkeys((*modules, *failed))) if m not in staying)
    steps = [services("stop", driver) for driver in reversed(drivers) if driver.services]
    steps += [Step(program="unload.sh", argv=leaving, why="clear the failed version")] if leaving else []
    steps += [
        Step(
            program="apt_restore.sh" if driver.apt else "dkms_restore.sh",
            argv=(driver.name, *filter(None, (staged.get(driver.name),))),
            why=f"{driver.name}: back to {driver.version}, last known good",
        )
        for driver in drivers
        if driver.brought
    ]
    steps.append(Step(program="load.sh", argv=tuple(map(to_load, modules)), why="load the last known good"))
    steps += [services("start", driver) for driver in drivers if driver.services]
    return tuple(steps)
