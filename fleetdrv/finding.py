"""What can be wrong with a node, as values: a cause that has a name, its remedy, and whether a retry can help. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Retry(StrEnum):
    """Whether the same act, tried again, may succeed."""

    NO = "no"
    """Not with this wanted state on this node: `remediate` does not repeat it."""
    LATER = "later"
    """By itself, once something else is over."""
    AFTER_REMEDY = "after the remedy"


class Repair(StrEnum):
    """What fleetdrv may do about it by itself, on a node that is out of service."""

    CONFIGURE_DPKG = "configure dpkg"
    """`dpkg --configure -a`, then `apt-get -f install`."""
    REBUILD = "rebuild"
    """Build and install the DKMS module again, for the kernels that lack it."""
    RELOAD = "reload"
    """Unload what is loaded, load what is on disk."""
    INITRAMFS = "initramfs"
    JOB = "job"
    """End a job that does not move, and clear what it left."""
    HEADERS = "headers"
    """Install the headers of the kernels that lack them."""
    HOLD = "hold"
    """Set the hold again that the playbook asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that can be wrong."""

    name: str
    """Stable: scripts, metrics and annotations depend on it."""
    rows: tuple[int, ...] = ()
    """Numbers in the list of failures of real nodes that the table was made from."""
    cause: str
    """One sentence."""
    remedy: str
    """One sentence, with the command to type where there is one."""
    retry: Retry
    repair: Repair | None = None
    quarantine: bool = False
    """The hardware is at fault: the node stays out, and nothing is installed on it again."""


class Weight(IntEnum):
    """How much a text says of the cause. The lower one wins; among equals the first in the log does."""

    CAUSE = 0
    SYMPTOM = 1
    """Something failed here; why is told before it, or by the kernel."""
    WRAPPER = 2
    """Somebody passes on that something below it failed."""
    NOTICE = 3
    """Bad for later, but nothing failed by it yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Texts that show a finding."""

    finding: Finding
    weight: Weight
    texts: tuple[re.Pattern[str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A finding, and what shows it."""

    finding: Finding
    """Its cause and remedy name kernel, package or module, where the evidence does."""
    evidence: str
    where: str
    """`log:12`, `kernel:3` (lines, from 1), or the name of a fact: `free-space`."""


UNKNOWN = Finding(
    name="unknown",
    cause="What is written here is none of the failures that fleetdrv knows.",
    remedy="Read the evidence; for all that the node can tell: fleetdrv diagnose NODE -i INVENTORY",
    retry=Retry.LATER,
)
