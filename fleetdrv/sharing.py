"""Which builds of a node other nodes could have made, or could use. Pure.

What is compiled once in a fleet is a driver's modules for one kernel. Its key holds all that goes into them:
source, kernel release with its Module.symvers and .config, architecture, compiler, dkms. Equal keys, equal
modules, so symbol versions need not be compared again on the node that takes a build.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fleetdrv.model import NodeFacts
from fleetdrv.playbook import Driver
from fleetdrv.steps import build_key, stage_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A driver's modules for one kernel."""

    driver: str
    kernel: str
    stage: str
    """Key of the trial build that makes it, or uses it."""
    key: str
    """Equal keys, equal modules; empty where it is not shared."""
    alone: str = ""
    """Why it is not shared."""

    @property
    def file(self) -> str:
        """Its name in a stage job's payload, where trial.sh looks for it."""
        return f"{self.driver}.{self.kernel}.build"


def builds(drivers: Iterable[Driver], facts: NodeFacts) -> Iterator[Build]:
    """Yield every build that the drivers could need on this node.

    With Secure Boot on, none is shared: a module carries the signature of the node that built it, and only that
    node's own key can be expected to be enrolled there.
    """
    for driver in drivers:
        if not driver.brought:
            continue
        for kernel in facts.kernels.bootable:
            alone = _alone(driver, facts, kernel)
            key = "" if alone else build_key(driver, facts, kernel)
            yield Build(driver=driver.name, kernel=kernel, stage=stage_key(driver, facts), key=key, alone=alone)


def _alone(driver: Driver, facts: NodeFacts, kernel: str) -> str:
    if facts.secure_boot:
        return "Secure Boot is on, and a module carries the key of the node that built it"
    if kernel not in facts.abi:
        return f"the node cannot tell Module.symvers and .config of {kernel}"
    unknown = sorted(set(driver.apt.packages) - set(driver.apt.sha256)) if driver.apt else []
    return f"the SHA-256 of {', '.join(unknown)} is not known" if unknown else ""
