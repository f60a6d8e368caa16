"""What can be wrong with a node, as values: a named cause, its remedy, and whether a retry can help. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import cache


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
    """How much a text says of the cause."""

    CAUSE = 0
    SYMPTOM = 1
    """Something failed here; why is told before it, or right after it, or by the kernel, or by a fact."""
    WRAPPER = 2
    """Somebody passes on that something below it failed."""
    NOTICE = 3
    """Nothing failed by it yet, and no exit code tells of it; it may be why something fails later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The texts that show a finding."""

    finding: Finding
    texts: tuple[tuple[Weight, str], ...] = ()
    """Regular expressions; see `pattern`."""
    explained_by: frozenset[str] = frozenset()
    """Names of the findings that may be the cause behind this symptom."""
    before: int = 0
    """So many lines before the text belong to its evidence."""


def rule(
    finding: Finding,
    *says: str,
    symptoms: tuple[str, ...] = (),
    wrappers: tuple[str, ...] = (),
    notices: tuple[str, ...] = (),
    explained_by: tuple[str, ...] = (),
    before: int = 0,
) -> Rule:
    """Make a row of the table."""
    weighed = zip(Weight, (says, symptoms, wrappers, notices), strict=True)
    texts = tuple((weight, text) for weight, group in weighed for text in group)
    return Rule(finding=finding, texts=texts, explained_by=frozenset(explained_by), before=before)


@cache
def pattern(text: str) -> re.Pattern[str]:
    """Compile a text of the table; a blank in it stands for any white space, for logs wrap their lines.

    Not when the table is made: that is some 200 of them, and most commands meet no failure.
    """
    return re.compile(text.replace(" ", r"\s+"), re.MULTILINE)


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
