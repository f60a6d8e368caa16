"""What a playbook leaves open of packages, made exact for a node: versions, and the names of files. Pure.

What version patterns mean is resolved once per run, release and architecture to exact versions and hashes.
The answer is kept in the run record (`RunRecord.versions`), so that later nodes and later runs of the same
playbook take the same versions, whatever the mirror has got since. Only lists that are new are asked: a node
whose lists are a year old must not decide what a fleet gets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fleetdrv.built import installed
from fleetdrv.model import Candidate, NodeFacts
from fleetdrv.modules import called
from fleetdrv.packages import compare_versions, resolve
from fleetdrv.playbook import Driver, Playbook
from fleetdrv.sources import AptSource
from fleetdrv.steps import lists_are_new, stage_key


def pin_name(facts: NodeFacts, package: str) -> str:
    """Name what one answer is for.

    >>> from types import SimpleNamespace
    >>> pin_name(SimpleNamespace(os="debian 12", architecture="amd64"), "acpi-call-dkms")
    'debian 12/amd64/acpi-call-dkms'
    """
    return f"{facts.os}/{facts.architecture}/{package}"


def resolved(playbook: Playbook, nodes: Iterable[NodeFacts], pins: Mapping[str, str]) -> dict[str, str]:
    """Return the pins, and what these nodes' new lists say to those that are missing: the newest of each.

    A pin is "VERSION SHA256".
    """
    offered: dict[tuple[str, str], list[Candidate]] = {}
    for facts in nodes:
        for driver, apt in _apt_drivers(playbook):
            if lists_are_new(driver, facts):
                for package, pattern in apt.packages.items():
                    there = [candidate for candidate in facts.candidates if candidate.name == package]
                    offered.setdefault((pin_name(facts, package), pattern), []).extend(there)
    newest = {name: resolve(pattern, there) for (name, pattern), there in offered.items()}
    return {**{name: f"{best.version} {best.sha256}" for name, best in newest.items() if best}, **pins}


def exact(playbook: Playbook, facts: NodeFacts, pins: Mapping[str, str], *, upgrade: bool = False) -> Playbook:
    """Return the playbook with exact versions, hashes and names of files for one node, as far as they are known.

    A version that is installed and fits its pattern is as wanted; with `upgrade` only if the pin is not newer.
    """
    if not any(True for _ in _apt_drivers(playbook)):
        return playbook
    drivers = tuple(_exact_driver(driver, facts, pins, upgrade) for driver in playbook.drivers)
    drivers = tuple(_with_files(driver, facts) for driver in drivers)
    return playbook.model_copy(update={"drivers": drivers})


def shown(pins: Mapping[str, str]) -> dict[str, str]:
    """Return pins for people: what they are for, and the version.

    >>> shown({"debian 12/amd64/acpi-call-dkms": "1.2.2-2 " + 64 * "0", "toy": "1.1"})
    {'acpi-call-dkms for debian 12/amd64': '1.2.2-2', 'toy': '1.1'}
    """
    return {_spoken(name): pin.partition(" ")[0] for name, pin in pins.items()}


def _spoken(name: str) -> str:
    platform, _, package = name.rpartition("/")
    return f"{package} for {platform}" if platform else name


def _apt_drivers(playbook: Playbook) -> Iterable[tuple[Driver, AptSource]]:
    return ((driver, driver.apt) for driver in playbook.drivers if driver.apt is not None)


def _exact_driver(driver: Driver, facts: NodeFacts, pins: Mapping[str, str], upgrade: bool) -> Driver:
    apt = driver.apt
    if apt is None:
        return driver
    packages, digests = dict(apt.packages), dict(apt.sha256)
    for name, pattern in apt.packages.items():
        version, _, digest = pins.get(pin_name(facts, name), "").partition(" ")
        if installed(facts, name, pattern) and not (upgrade and version and _newer(version, facts, name)):
            version = facts.packages[name].version
            digest = next((c.sha256 for c in facts.candidates if (c.name, c.version) == (name, version)), "")
        if version:
            packages[name] = version
            if digest:
                digests.setdefault(name, digest)  # what the playbook itself says, counts
    exact_apt = apt.model_copy(update={"packages": packages, "sha256": digests})
    return driver.model_copy(update={"apt": exact_apt})


def _with_files(driver: Driver, facts: NodeFacts) -> Driver:
    """What is built for the wanted versions knows its names; before, those of what is installed are likely."""
    if driver.apt is None:
        return driver
    key = stage_key(driver, facts)
    source = key if key in facts.staged else "-"
    modules = tuple(called(module, facts.named.get((source, module), module)) for module in driver.modules)
    return driver.model_copy(update={"modules": modules})


def _newer(version: str, facts: NodeFacts, package: str) -> bool:
    return compare_versions(version, facts.packages[package].version) > 0
