"""How one node's turn ended, as a value. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from fleetdrv.effects import Cost
from fleetdrv.finding import Found
from fleetdrv.turn import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a node's turn ended."""

    node: str
    verdict: Verdict
    why: str = ""
    evidence: str = ""
    remedy: str = ""
    found: Found | None = None
    """The cause, where a job failed: by its log, and how the node stood then."""
    seconds_out: float | None = None
    """Node-seconds out of service: from the cordon, whoever set it for us, to the uncordon."""
    taken_over: bool = False
    """An earlier controller had set that cordon."""
    cost: Cost | None = None
    """Commands and writes to the cluster meanwhile, for this node."""

    @property
    def own_seconds_out(self) -> float | None:
        """The same, where it says what an outage takes: not if a controller was dead for a part of it."""
        return None if self.taken_over else self.seconds_out
