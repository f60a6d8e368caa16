"""What `fleetdrv repair` mends before it plans: what makes a plan impossible, or worthless, on a node. Pure.

Everything else that can be mended without a human is a difference like any other, and the plan's: a broken or
missing build, other code loaded than on disk, an old initramfs, a lost hold. Here is what a rollout refuses to
touch, because it is somebody else's or needs a package that no playbook names; who names one node for repair
wants it mended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from fleetdrv.built import dkms_names
from fleetdrv.findings import classify
from fleetdrv.layers import Layer
from fleetdrv.model import NodeFacts
from fleetdrv.plan import Disruption, NodePlan, Outcome
from fleetdrv.playbook import Driver, Playbook
from fleetdrv.steps import Kept, Step

DPKG = "dpkg_mend.sh"
HEADERS = "headers.sh"


class Repair(StrEnum):
    """Whether a node is repaired, and to what."""

    NO = ""
    WANTED = "wanted"
    """To the playbook's state."""
    KEPT = "kept"
    """To what the node itself keeps as verified last, from its own disk."""


def from_kept(drivers: Iterable[Driver], facts: NodeFacts) -> dict[str, Kept]:
    """Return, by driver, the states that the node keeps; what they lack for newer kernels is built on the node."""
    return {d.name: Kept(digest=facts.good[d.name].digest, rebuild=True) for d in drivers if d.name in facts.good}


def remedies_first(found: NodePlan, playbook: Playbook, facts: NodeFacts) -> NodePlan:
    """Return a plan of remedies where some are due, else the plan as it is.

    Hardware that is at fault gets none: nothing is installed on it again.
    """
    steps = tuple(remedies(playbook, facts))
    if not steps or found.outcome is Outcome.NOT_MENDABLE:
        return found
    return NodePlan(
        outcome=Outcome.CHANGEABLE,
        reason="; ".join(step.why for step in steps),
        differences=found.differences,
        notes=found.notes,
        disruption=_disruption(playbook, facts),
        outage=steps,
        remedy=True,
    )


def remedies(playbook: Playbook, facts: NodeFacts) -> Iterator[Step]:
    """Yield what has to be mended first, in an order that works: no package comes past an interrupted dpkg."""
    if facts.dpkg_interrupted:
        yield Step(program=DPKG, argv=(), why="dpkg was interrupted: finish what is half done")
    builds = any(dkms_names(driver, facts) for driver in playbook.drivers)
    lacking = tuple(kernel for kernel in facts.kernels.bootable if kernel not in facts.headers)
    if builds and lacking:
        yield Step(program=HEADERS, argv=lacking, why=f"headers of {', '.join(lacking)}, to build drivers with")


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """What is wrong with a machine itself."""

    why: str
    evidence: str = ""
    remedy: str = "mend the machine"


def broken_hardware(found: NodePlan, facts: NodeFacts) -> Broken | None:
    """Say what is wrong with the machine itself; None where nothing tells that it is.

    A check that fails may have any cause; a device that is not there is none of the driver's, nor is one that the
    kernel has seen fail since it booted. A log outlives a GPU that was only reset, so what ends it is named.
    """
    told = [one for one in classify("", kernel=facts.kernel_log) if one.finding.quarantine]
    gone = [str(difference) for difference in found.differences if difference.layer is Layer.HARDWARE]
    if not told:
        return Broken(why="; ".join(gone)) if gone else None
    causes = [f"{one.finding.name}: {one.finding.cause.rstrip('.')}" for one in told]
    return Broken(
        why="; ".join((*causes, *gone)),
        evidence="\n".join(one.evidence for one in told),
        remedy=f"{told[0].finding.remedy}; mended without a reboot, its log still says this: dmesg --clear",
    )


def _disruption(playbook: Playbook, facts: NodeFacts) -> Disruption:
    """Half done packages may be anything, a driver's userspace too; who uses the driver leaves first.

    Headers are of no concern to what runs.
    """
    in_use = any(module in facts.loaded for module in playbook.modules)
    return Disruption.RELOAD if facts.dpkg_interrupted and in_use else Disruption.NONE
