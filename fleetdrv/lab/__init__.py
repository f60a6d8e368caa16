"""The practice fleet: virtual machines and a real Kubernetes control plane on one small machine.

Nothing imports this package but the task `fleetdrv lab` and the tests, so the program that changes real nodes
carries none of it: whatever is wrong here can spoil practice, never a rollout.
"""

from fleetdrv.errors import FleetdrvError


class LabError(FleetdrvError):
    """The practice fleet cannot be built, started or stopped; the message says why and what to do."""
