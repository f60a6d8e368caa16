"""Hosts outside Kubernetes (`--no-cluster`): nobody to cordon for, nothing to drain, and it is said so.

What remains of the promises: the node's own lock and token, limits within this process, verification and
rollback. What cannot be kept: a second controller sees no cordon, and a killed one leaves no run record.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from fleetdrv.records import Result, RunRecord
from fleetdrv.service import Check, Tell
from fleetdrv.standing import Standing
from fleetdrv.turn import Grip


@dataclass(slots=True)
class LoneHost:
    """A Service in this process's memory."""

    node: str
    _standing: Standing = field(default_factory=lambda: Standing(grip=Grip.FREE))

    def standing(self) -> Standing:
        """Return what this process made of the host."""
        return self._standing

    def obstacles(self) -> tuple[str, ...]:
        """There are no pods to ask."""
        return ()

    def neighbours(self) -> tuple[str, ...]:
        """Nobody else takes these hosts out of a cluster."""
        return ()

    def occupants(self) -> Mapping[str, str]:
        """Nobody knows the pods here."""
        return {}

    def take_out(self, run: str, why: str, still_allowed: Check = lambda: None) -> None:
        """Note the outage."""
        still_allowed()
        self._standing = Standing(grip=Grip.OURS, run=run, out=True, reason=why)

    def adopt(self, run: str) -> None:
        """Nobody else can have left it out."""

    def empty(self, still_allowed: Check, say: Tell) -> None:
        """Nobody to evict; a device that is in use still stops the unload."""
        del say
        still_allowed()

    def hold_off(self, run: str, holders: Collection[str], still_allowed: Check, say: Tell) -> None:
        """There are no pods."""
        del run, holders, say
        still_allowed()

    def mark_touched(self, run: str, step: str) -> None:
        """Note it."""
        began = self._standing.began or step
        self._standing = Standing(
            grip=Grip.OURS, run=run, out=True, touched=True, step=step, began=began, reason=step
        )

    def give_back(self, run: str, result: Result, drivers: Mapping[str, str]) -> None:
        """Note it."""
        del run, drivers
        self._standing = Standing(grip=Grip.FREE, last=result)

    def leave_out(self, run: str, result: Result) -> None:
        """Note it."""
        began = self._standing.began
        self._standing = Standing(grip=Grip.OURS, run=run, out=True, touched=True, began=began, last=result)

    def let_go(self, result: Result) -> None:
        """Note it."""
        self._standing = Standing(grip=Grip.FREE, last=result)

    def note(self, result: Result) -> None:
        """Note it."""
        self._standing = Standing(grip=self._standing.grip, last=result)

    def tell(self, result: Result) -> None:
        """To nobody."""


@dataclass(slots=True)
class LoneLock:
    """A Lock in this process's memory; rivals are told apart by the token on each node."""

    run: str
    token: int
    record: RunRecord

    def check(self) -> None:
        """Always allowed: the job itself refuses a lower token."""

    def save(self, record: RunRecord) -> None:
        """Remember the record."""
        self.record = record

    def orders(self) -> str:
        """Nobody can give any."""
        return ""
