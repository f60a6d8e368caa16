"""The kinds of run that an operator types, each as what was there before it and the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.apt.repository import dkms_package

Fleet = Any
"""A `SimFleet`, or an `AptFleet` where the kind is `packaged`."""
Words = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of run. `prepare` brings a fresh fleet to where the command is typed."""

    prepare: Callable[[Fleet], object]
    command: Callable[[Fleet], Words]
    code: int = 0
    """Exit code of the run that nobody kills."""
    size: int = 1
    """Nodes: more of them add nothing but the order of turns, which is one kind's part."""
    packaged: bool = False
    stride: int = 0
    """In CI one of so many moments is tried, with 0 none. No multiple of three: all kinds of moment take turns."""


def _upgraded(fleet: Fleet) -> None:
    fleet.apply("1.0")
    fleet.apply("1.1")


def _drifted(fleet: Fleet) -> None:
    fleet.apply("1.0")
    for node in fleet.nodes.values():
        node.call("rmmod fleetdrv_toy")


def _broken_build(fleet: Fleet) -> None:
    """DKMS has lost what it built, and the module's file is gone with it."""
    fleet.apply("1.0")
    for node in fleet.nodes.values():
        built = f"/var/lib/dkms/toy/1.0/{node.kernel} /lib/modules/{node.kernel}/updates"
        node.call(f"rmmod fleetdrv_toy; rm -r {built}")


def _broken_package(fleet: Fleet) -> None:
    """The same of a packaged driver, whose hold is gone, too."""
    fleet.bring("1.0")
    for node in fleet.nodes.values():
        broken = f"/var/lib/dkms/toy/1.0/source /lib/modules/{node.kernel}/updates/dkms/fleetdrv_toy.ko*"
        node.call(f"rmmod fleetdrv_toy; apt-mark unhold toy-dkms; rm {broken}")


def _newer_package(fleet: Fleet) -> None:
    fleet.bring("1.0")
    fleet.repository.add(dkms_package("1.1", Depends="dkms, toy-lib"))


def _typed(verb: str, version: str) -> Callable[[Fleet], Words]:
    def words(fleet: Fleet) -> Words:
        yes = () if verb == "remediate" else ("--yes",)
        return (verb, str(fleet.playbook(version)), "-i", str(fleet.inventory), *yes)

    return words


def _repair(playbook: Callable[[Fleet], object]) -> Callable[[Fleet], Words]:
    def words(fleet: Fleet) -> Words:
        return ("repair", *fleet.nodes, "--playbook", str(playbook(fleet)), "-i", str(fleet.inventory), "--yes")

    return words


def _packages(version: str) -> Callable[[Fleet], Words]:
    return lambda fleet: tuple(fleet.command(version))


KINDS = {
    "from nothing": Kind(prepare=lambda _: None, command=_typed("apply", "1.0"), stride=7),
    "upgrade": Kind(prepare=lambda f: f.apply("1.0"), command=_typed("apply", "1.1"), size=2, stride=4),
    "init fails, rolled back": Kind(prepare=lambda f: f.apply("1.1"), command=_typed("apply", "1.3"), code=4),
    "rollback": Kind(prepare=_upgraded, command=_typed("rollback", "1.1"), stride=7),
    "remediate": Kind(prepare=_drifted, command=_typed("remediate", "1.0")),
    "repair": Kind(prepare=_broken_build, command=_repair(lambda f: f.playbook("1.0")), stride=23),
    "packages from nothing": Kind(prepare=lambda _: None, command=_packages("1.0"), packaged=True),
    "packages upgraded": Kind(prepare=_newer_package, command=_packages("1.1"), packaged=True),
    "packages repaired": Kind(prepare=_broken_package, command=_repair(lambda f: f.book("1.0")), packaged=True),
}
