"""What went wrong, by name: texts of apt, dpkg, dkms, make, modprobe and the kernel, and facts of a node. Pure."""

from __future__ import annotations

from fleetdrv.finding import UNKNOWN, Finding, Found, Repair, Retry
from fleetdrv.model import NodeFacts

__all__ = ["UNKNOWN", "Finding", "Found", "Repair", "Retry", "classify"]


def classify(log: str, *, kernel: str = "", facts: NodeFacts | None = None) -> tuple[Found, ...]:
    """Return what is wrong, the likeliest cause first; never empty where `log` has a line.

    `log`: of the job that failed, whole. `kernel`: lines of the kernel's log, oldest first. What is not known is
    `UNKNOWN`, with the last meaningful lines as its evidence.
    """
    del kernel, facts
    lines = [line for line in log.splitlines() if line.strip()]
    evidence = "\n".join(lines[-5:])
    return (Found(finding=UNKNOWN, evidence=evidence, where=f"log:{len(log.splitlines())}"),) if lines else ()
