"""Hold a node's disk against one driver: its packages, DKMS's word for each kernel, the module files. Pure.

A driver comes from a DKMS archive, from packages, or from the kernel's own tree. Packages may hold sources for
DKMS, modules that are built already, or only the tools of an in-tree module: what is theirs is read from the
installed ones, never guessed from names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from fleetdrv.layers import Difference, Layer
from fleetdrv.model import NodeFacts
from fleetdrv.modules import Module, called
from fleetdrv.packages import matches
from fleetdrv.playbook import Driver
from fleetdrv.sources import AptSource


def on_disk(driver: Driver, facts: NodeFacts) -> Iterator[Difference]:
    """Yield every layer of the driver below the loaded code that is not as wanted."""
    if driver.apt is not None:
        yield from _packages(driver, driver.apt, facts)
    for kernel in facts.kernels.bootable:
        yield from _built_for(driver, facts, kernel)
    for name, version in dkms_names(driver, facts):
        others = sorted({e.version for e in facts.dkms if e.name == name and e.version != version})
        if others:
            found, wanted = f"{name}/{', '.join(others)}", f"only {name}/{version}"
            yield Difference(driver=driver.name, layer=Layer.BUILT, found=found, wanted=wanted)


def lacking(driver: Driver, facts: NodeFacts) -> tuple[str, ...]:
    """Return the kernels under which modprobe would not find the wanted version."""
    if driver.apt is not None and not packages_match(driver.apt, facts):
        return facts.kernels.bootable
    return tuple(kernel for kernel in facts.kernels.bootable if any(_built_for(driver, facts, kernel)))


def dkms_names(driver: Driver, facts: NodeFacts) -> tuple[tuple[str, str], ...]:
    """Return DKMS's name and version of all that the driver builds, as far as the node can tell already."""
    if driver.dkms is not None:
        return ((driver.dkms.package, driver.dkms.version),)
    if driver.apt is None:
        return ()
    return tuple((p.dkms_name, p.dkms_version) for p in facts.packaged if p.package in driver.apt.packages)


def packages_match(apt: AptSource, facts: NodeFacts) -> bool:
    """Tell whether every package is installed at its version."""
    return all(installed(facts, name, version) for name, version in apt.packages.items())


def installed(facts: NodeFacts, name: str, version: str) -> bool:
    """Tell whether a package is wholly installed, at an exact version or one that fits a pattern."""
    package = facts.packages.get(name)
    return package is not None and package.status == "installed" and matches(version, package.version)


def as_installed(module: str, facts: NodeFacts) -> str:
    """Return a module with the name that its file has on the node now, whatever another version calls it."""
    file = facts.named.get(("-", module))
    return Module(module, file, derived=True) if file else called(module, module)


def repository_digest(driver: Driver) -> str:
    """Return the digest of the extra repository and its key, as a node tells it; empty where there is none."""
    text = repository_text(driver)
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def _packages(driver: Driver, apt: AptSource, facts: NodeFacts) -> Iterator[Difference]:
    for name, version in apt.packages.items():
        package = facts.packages.get(name)
        if not installed(facts, name, version):
            found = f"{name} {package.version or package.status}" if package else f"no {name}"
            if package and package.version and package.status != "installed":
                found += f" ({package.status})"
            yield Difference(driver=driver.name, layer=Layer.PACKAGE, found=found, wanted=f"{name} {version}")
        elif apt.hold and package and not package.held:
            yield Difference(
                driver=driver.name, layer=Layer.HOLD, found=f"{name} not held", wanted=f"{name} held"
            )
        elif not apt.hold and package and package.held_by_us:
            found = f"{name} held by us"
            yield Difference(driver=driver.name, layer=Layer.HOLD, found=found, wanted=f"{name} not held")
    path = f"/etc/apt/sources.list.d/fleetdrv-{driver.name}.sources"
    wanted_text, found_text = repository_text(driver), facts.configuration.get(path)
    if found_text != (hashlib.sha256(wanted_text.encode()).hexdigest() if wanted_text else None):
        yield Difference(
            driver=driver.name,
            layer=Layer.REPOSITORY,
            found=f"{path} {'absent' if found_text is None else 'with other content'}",
            wanted="as the playbook says" if wanted_text else "absent",
        )


def repository_text(driver: Driver) -> str:
    """Return what stands in the node's own .sources file of the driver; empty where it has no repository."""
    repository = driver.apt.repository if driver.apt else None
    if repository is None:
        return ""
    return f"{repository.text()}Signed-By: /etc/apt/keyrings/fleetdrv-{repository.fingerprint}.gpg\n"


def _built_for(driver: Driver, facts: NodeFacts, kernel: str) -> Iterator[Difference]:
    names = dkms_names(driver, facts)
    complete = True
    for name, version in names:
        found = _dkms_says(name, version, facts, kernel)
        if found != "installed":
            complete = False
            wanted = f"{name}/{version} installed"
            yield Difference(driver=driver.name, layer=Layer.BUILT, found=f"{found} for {kernel}", wanted=wanted)
    if not complete:
        return
    for module in driver.modules:
        if facts.file(module, kernel) is None:
            found, wanted = f"no {module} for {kernel}", f"{module} of {_origin(driver, names)}"
            yield Difference(driver=driver.name, layer=Layer.FILE, found=found, wanted=wanted)


def _origin(driver: Driver, names: tuple[tuple[str, str], ...]) -> str:
    if names:
        return ", ".join(f"{name}/{version}" for name, version in names)
    return ", ".join(driver.apt.packages) if driver.apt else "the kernel"


def _dkms_says(name: str, version: str, facts: NodeFacts, kernel: str) -> str:
    entry = next((e for e in facts.dkms if (e.name, e.version, e.kernel) == (name, version, kernel)), None)
    # That DKMS put the kernel's own module aside for this one is as it should be.
    remarks = entry.remark.split("; ") if entry else []
    remark = "; ".join(remark for remark in remarks if remark != "Original modules exist")
    return "nothing" if entry is None else f"{entry.state} {remark}".strip()
