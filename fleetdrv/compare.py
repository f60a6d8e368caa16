"""Hold one driver against one node, layer by layer. Pure.

The layers must agree before a driver is done: DKMS's word for every kernel that can boot next, the file on
disk, the loaded code, its parameters, the configuration under /etc, no conflicting module, and the playbook's
own checks. A driver of the kernel's own tree has no build: the kernel has its files, or does not fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from fleetdrv.built import lacking, on_disk
from fleetdrv.layers import Difference as Difference
from fleetdrv.layers import Layer as Layer
from fleetdrv.model import LoadedModule, NodeFacts, Sameness, module_name
from fleetdrv.modprobe import plain_value, settings
from fleetdrv.modules import among, file_name, load_name
from fleetdrv.playbook import Driver


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One driver held against one node."""

    driver: Driver
    differences: tuple[Difference, ...]
    kernels: tuple[str, ...]
    """Kernels for which a build has to be brought onto the node. The others keep the file that they have:
    a build put in its place would be other code than the loaded one."""
    unload: tuple[LoadedModule, ...]
    """Loaded modules of the driver that must leave the kernel, in the order of their unloading."""

    @property
    def layers(self) -> frozenset[Layer]:
        """The layers that differ."""
        return frozenset(difference.layer for difference in self.differences)

    @property
    def installs(self) -> bool:
        """Whether a build has to be brought onto the node."""
        return bool(self.kernels)

    @property
    def loads(self) -> bool:
        """Whether the driver's code is loaded anew."""
        return bool(self.unload) or Layer.LOADED in self.layers

    @property
    def brings(self) -> bool:
        """Whether anything of the driver's source has to be settled on the node: a hold, a repository, a build."""
        return self.installs or bool(self.layers & {Layer.PACKAGE, Layer.HOLD, Layer.REPOSITORY})


def compare(driver: Driver, facts: NodeFacts) -> Comparison:
    """Return every layer of the driver that is not as wanted, and the loaded modules that must go first.

    The playbook's checks are not among them: they count once all drivers agree (`failed_checks`).
    """
    differences = (
        *_hardware(driver, facts),
        *on_disk(driver, facts),
        *_loaded(driver, facts),
        *_configured(driver, facts),
        *_conflicts(driver, facts),
        *_initramfs(driver, facts),
        *_services(driver, facts),
    )
    layers = {difference.layer for difference in differences}
    without = lacking(driver, facts)
    # To take other versions away alone, dkms_install.sh needs a kernel; best one that does not run.
    kernels = (without or facts.kernels.bootable[-1:] * (Layer.BUILT in layers)) if driver.brought else ()
    unload = (
        layers & {Layer.LOADED, Layer.PARAMETERS, Layer.CONFLICTS}
        or facts.kernels.running in without
        or (facts.kernels.running in kernels and not _outlives_rebuild(driver, facts))
        or _options_in_doubt(driver, facts)
    )
    return Comparison(
        driver=driver,
        differences=differences,
        kernels=kernels,
        unload=_leaving(driver, facts) if unload else (),
    )


def with_dependants(comparisons: Iterable[Comparison], facts: NodeFacts) -> Iterator[Comparison]:
    """Let also those drivers go, and come back, whose modules hold one that must leave the kernel."""
    leaving: set[str] = set()
    for comparison in comparisons:
        holders = {holder for module in leaving for holder in facts.loaded[module].holders}
        if holders & set(comparison.driver.modules):
            comparison = replace(comparison, unload=_leaving(comparison.driver, facts))
        leaving |= {module.name for module in comparison.unload}
        yield comparison


def _in_kernel(driver: Driver, facts: NodeFacts) -> tuple[LoadedModule, ...]:
    return tuple(facts.loaded[module] for module in reversed(driver.modules) if module in facts.loaded)


def _leaving(driver: Driver, facts: NodeFacts) -> tuple[LoadedModule, ...]:
    """The driver's own modules, then those it conflicts with."""
    return (*_in_kernel(driver, facts), *(facts.loaded[m] for m in driver.conflicts if m in facts.loaded))


def _conflicts(driver: Driver, facts: NodeFacts) -> Iterator[Difference]:
    for module in driver.conflicts:
        if module in facts.loaded:
            found, wanted = f"{module} loaded", f"no {module}"
            yield Difference(driver=driver.name, layer=Layer.CONFLICTS, found=found, wanted=wanted)


def _initramfs(driver: Driver, facts: NodeFacts) -> Iterator[Difference]:
    """Old code or options, or a conflicting module without its blacklist: the next boot would load them."""
    for kernel, module in sorted(facts.initramfs):
        if module in driver.modules or module in driver.conflicts:
            found = f"{module} in the initramfs of {kernel}, older than its file or options"
            wanted = "an initramfs as the disk is now"
            yield Difference(driver=driver.name, layer=Layer.INITRAMFS, found=found, wanted=wanted)


def _services(driver: Driver, facts: NodeFacts) -> Iterator[Difference]:
    for unit in driver.services:
        if (driver.name, unit) in facts.stopped:
            found, wanted = f"{unit} stopped for an outage", f"{unit} running again"
            yield Difference(driver=driver.name, layer=Layer.SERVICES, found=found, wanted=wanted)


def _hardware(driver: Driver, facts: NodeFacts) -> Iterator[Difference]:
    for wanted in driver.requires_pci:
        vendor, _, device = wanted.partition(":")
        if not any(p == wanted or (device == "*" and p.startswith(f"{vendor}:")) for p in facts.pci):
            yield Difference(
                driver=driver.name, layer=Layer.HARDWARE, found="no such device", wanted=f"PCI {wanted}"
            )


def _loaded(driver: Driver, facts: NodeFacts) -> Iterator[Difference]:
    for module in driver.modules:
        loaded, file = facts.loaded.get(module), facts.file(module, facts.kernels.running)
        if loaded is None or loaded.state != "live":
            found = "not loaded" if loaded is None else f"state {loaded.state}"
            yield Difference(
                driver=driver.name,
                layer=Layer.LOADED,
                found=f"{module} {found}",
                wanted=f"{module} {driver.version}",
            )
        elif file is not None:
            sameness = loaded.identity.compare(file.identity)
            if sameness is Sameness.DIFFERENT or (driver.strict and sameness is Sameness.REBUILT):
                yield Difference(
                    driver=driver.name,
                    layer=Layer.LOADED,
                    found=f"{module} {_code(loaded)}, other code than its file",
                    wanted=f"the code of {file.path}",
                )
        if loaded is not None:
            yield from _parameters(driver, loaded)


def _parameters(driver: Driver, loaded: LoadedModule) -> Iterator[Difference]:
    """Parameters that the kernel shows; one without a file in /sys cannot be read back."""
    for name, wanted in driver.parameters.get(loaded.name, {}).items():
        found = loaded.parameters.get(name)
        if found is not None and plain_value(found) != plain_value(wanted):
            yield Difference(
                driver=driver.name,
                layer=Layer.PARAMETERS,
                found=f"{loaded.name}.{name}={found}",
                wanted=f"{loaded.name}.{name}={wanted}",
            )


def _configured(driver: Driver, facts: NodeFacts) -> Iterator[Difference]:
    for path in (_options_file(driver), f"/etc/modules-load.d/fleetdrv-{driver.name}.conf"):
        wanted, found = _wanted_digest(driver, path), facts.configuration.get(path)
        if found != wanted:
            yield Difference(
                driver=driver.name,
                layer=Layer.CONFIGURATION,
                found=f"{path} {'absent' if found is None else 'with other content'}",
                wanted="absent" if wanted is None else "as the playbook says",
            )


def _options_file(driver: Driver) -> str:
    return f"/etc/modprobe.d/fleetdrv-{driver.name}.conf"


def _wanted_digest(driver: Driver, path: str) -> str | None:
    text = driver.configuration().get(path)
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


def _options_in_doubt(driver: Driver, facts: NodeFacts) -> bool:
    """Whether loaded code may run with other options than modprobe.d will say, and nothing shows it.

    Other options stood there before, or one that is wanted has no file in /sys.
    """
    found = facts.configuration.get(_options_file(driver))
    if found == _wanted_digest(driver, _options_file(driver)):
        return False
    return found is not None or any(
        name not in module.parameters
        for module in _in_kernel(driver, facts)
        for name in driver.parameters.get(module.name, ())
    )


def overruled(driver: Driver, facts: NodeFacts) -> Iterator[str]:
    """Say which lines of other files modprobe would take instead of the playbook's parameters, and what helps.

    One that is read before ours loses against it, and what says the same as ours is nobody's trouble.
    """
    ours = (False, _options_file(driver).rpartition("/")[2])
    later = [one for one in settings(facts.options) if one.line.order > ours]
    for module, wanted in driver.parameters.items():
        itself = among(driver.modules, module)
        called = {module, *map(module_name, (file_name(itself), load_name(itself)))}
        for name, value in wanted.items():
            theirs = [one for one in later if one.module in called and one.name == name]
            if theirs and plain_value(theirs[-1].value) != plain_value(value):
                for one in theirs:
                    yield (
                        f"{driver.name}: {one.line.place} says {module}.{name}={one.value}, which modprobe takes "
                        f"instead of the playbook's {value}; have both say the same, or on the node: {one.remedy}"
                    )


def failed_checks(driver: Driver, facts: NodeFacts) -> Iterator[Difference]:
    """Yield failed checks; they count once all else agrees: before, they fail for reasons already named."""
    for check in facts.checks:
        if check.argv in driver.checks and check.exit_code != 0:
            last = check.output.strip().splitlines()[-1:] or ["no output"]
            yield Difference(
                driver=driver.name,
                layer=Layer.CHECKS,
                found=f"{' '.join(check.argv)}: exit {check.exit_code}: {last[0]}",
                wanted="exit 0",
            )


def _outlives_rebuild(driver: Driver, facts: NodeFacts) -> bool:
    """Whether loaded code still counts as the file's when that is replaced by the same source built again."""
    marks = [module.identity for module in _in_kernel(driver, facts)]
    return not driver.strict and all(mark.srcversion or mark.version for mark in marks)


def notes(drivers: Iterable[Driver], facts: NodeFacts) -> Iterator[str]:
    """Yield what is worth telling and no cause to change anything."""
    if facts.no_autoinstall:
        yield "/etc/dkms/no-autoinstall is there: DKMS builds nothing for kernels that come later"
    for kernel in sorted(kernel for kernel, module in facts.initramfs if module == "-"):
        yield f"what the initramfs of {kernel} carries cannot be told: there is no lsinitramfs or lsinitrd"
    for driver in drivers:
        for module in driver.modules:
            loaded, file = facts.loaded.get(module), facts.file(module, facts.kernels.running)
            if loaded and file and loaded.identity.compare(file.identity) is Sameness.REBUILT:
                yield f"{module} on disk was rebuilt from the same source; the loaded code is as good"


def _code(loaded: LoadedModule) -> str:
    identity = loaded.identity
    return identity.version or identity.srcversion or identity.build_id or "of unknown origin"
