"""The clocks of a lock, handed in so that a test can turn them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime


def steady_clock() -> float:
    """Seconds that never jump and also pass while the machine sleeps (Linux): a lid may close on a Lease."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def stamp() -> str:
    """The wall clock as records write it, ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a Lease lasts, and the clocks. `now` is only written down, never compared."""

    duration_seconds: int = 60
    monotonic: Callable[[], float] = steady_clock
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = utc_now


@dataclass(slots=True)
class Stopwatch:
    """Seconds by phase, one phase at a time; a phase that comes again is added up.

    >>> times = iter((0.0, 2.0, 5.0, 6.0))
    >>> watch = Stopwatch(lambda: next(times))
    >>> for phase in ("drain", "look", "drain", ""):
    ...     watch.enter(phase)
    >>> dict(watch.seconds)
    {'drain': 3.0, 'look': 3.0}
    """

    now: Callable[[], float]
    seconds: dict[str, float] = field(default_factory=dict)
    _phase: str = ""
    _since: float = 0.0

    def enter(self, phase: str) -> None:
        """Begin a phase and end the one before; with "" none begins."""
        now = self.now()
        if self._phase:
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now
