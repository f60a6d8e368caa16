"""The soaks of a rollout's canaries: who serves for how long yet, and what a last look says of him.

What a soak is stands in the run record, for any controller; this one's clock runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from fleetdrv import progress
from fleetdrv.drive import AWAY_SECONDS, NodeDriver
from fleetdrv.ending import Ending
from fleetdrv.errors import ClusterAway, FleetdrvError
from fleetdrv.policy import Rollout
from fleetdrv.records import RunRecord
from fleetdrv.turn import Owed, Verdict


@dataclass(slots=True, kw_only=True)
class Soaks:
    """Canaries that serve and are to be looked at once more."""

    drivers: Mapping[str, NodeDriver]
    policy: Rollout
    now: Callable[[], float]
    wall: Callable[[], datetime]
    _until: dict[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anybody soaks."""
        return bool(self._until)

    def left_behind(self, record: RunRecord, name: str, came: Owed | FleetdrvError) -> bool:
        """Whether an earlier controller of this run changed a canary and did not see its soak's end.

        How it stands then is what counts: neither drift nor silence that is seen earlier ends a soak.
        """
        view = self.drivers[name].view
        if name in record.soaking or isinstance(came, FleetdrvError) or not view:
            return name in record.soaking
        passed = name in record.canary_passed or not progress.is_canary(record, self.policy, name)
        return not passed and progress.was_changed(record, came, view.standing.last)

    def begin(self, record: RunRecord, name: str) -> RunRecord:
        """Let a canary serve for its soak, or for what is left of one; without a soak it has passed."""
        if not self.policy.soak_seconds:
            return progress.passed(record, name)
        view, wall = self.drivers[name].view, self.wall()
        record = progress.soak(record, self.policy, name, wall, view.facts if view else None)
        self._until[name] = self.now() + progress.remaining_seconds(record, self.policy, name, wall)
        return record

    def ended(self) -> list[str]:
        """Return whose soak is over by now; each is named once."""
        ended = [name for name, until in self._until.items() if self.now() >= until]
        for name in ended:
            del self._until[name]
        return ended

    def again(self, name: str, error: Exception) -> bool:
        """Whether to look once more in a moment: an API that is away says nothing of a canary.

        How long that is tried is bounded by the Lease, which cannot be renewed meanwhile.
        """
        if isinstance(error, ClusterAway):
            self._until[name] = self.now() + AWAY_SECONDS
        return isinstance(error, ClusterAway)

    def fault(self, record: RunRecord, name: str, came: Owed | Ending) -> str:
        """Say what a look after the soak found: in service, converged, no new fault of the kernel, or else why."""
        view = self.drivers[name].view
        if view and view.standing.out:
            return view.standing.reason or "out of service"
        if came.verdict is not Verdict.CONVERGED or view is None:
            return came.why or str(came.verdict)
        return progress.disturbed(record.kernel_marks.get(name, ""), view.facts)
