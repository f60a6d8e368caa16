"""What is told on a Node as Kubernetes Events: for `kubectl describe node`, and for whoever watches Events. Pure.

A turn has three at most: the cordon, how it ended, the uncordon. Each is named by its occasion (`Notice.key`), so
that a controller which was killed and goes on does not tell it twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleetdrv.records import Result, seconds_between
from fleetdrv.turn import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One Event to be."""

    reason: str
    """One word in upper camel case, as Kubernetes has it; people filter by it."""
    message: str
    key: str
    """What makes the occasion one of its kind on its node."""
    warning: bool = False


_ENDINGS = {
    Verdict.CHANGED: ("DriverInstalled", False),
    Verdict.CONVERGED: ("DriverConverged", False),
    Verdict.ROLLED_BACK: ("DriverRolledBack", True),
    Verdict.FAILED: ("DriverFailed", True),
    Verdict.LEFT_OUT: ("DriverFailed", True),
    Verdict.LOST: ("DriverReleased", True),
    Verdict.BLOCKED: ("DriverBlocked", True),
    Verdict.INCOMPATIBLE: ("DriverIncompatible", True),
    Verdict.NOT_MENDABLE: ("DriverNotMendable", True),
    Verdict.UNREACHABLE: ("DriverNodeUnreachable", True),
}
"""The others are nothing that happened to the node."""


def cordoned(run: str, why: str, since: str) -> Notice:
    """Tell that the node was taken out; once for each cordon, whatever run goes on with it."""
    return Notice(reason="DriverCordoned", message=f"{why} (run {run})", key=since or run)


def uncordoned(run: str, since: str, now: str) -> Notice:
    """Tell that the node is back."""
    message = f"back in service after {seconds_between(since, now):.0f} s (run {run})"
    return Notice(reason="DriverUncordoned", message=message, key=since)


def ended(result: Result, since: str = "", drivers: Mapping[str, str] | None = None) -> Notice | None:
    """Tell how a turn ended; `drivers` are those that were verified, and their versions."""
    if result.verdict not in _ENDINGS:
        return None
    reason, warning = _ENDINGS[Verdict(result.verdict)]
    verified = ", ".join(f"{name} {version}" for name, version in (drivers or {}).items())
    said = ": ".join(filter(None, (verified, result.finding))) or result.verdict
    key = f"{since or result.run} {result.run} {result.finding}"
    return Notice(reason=reason, message=f"{said} (run {result.run})", key=key, warning=warning)
