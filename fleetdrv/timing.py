"""The clocks of a lock, handed in so that a test can turn them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


def steady_clock() -> float:
    """Seconds that never jump and also pass while the machine sleeps (Linux): a lid may close on a Lease."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a Lease lasts, and the clocks. `now` is only written down, never compared."""

    duration_seconds: int = 60
    monotonic: Callable[[], float] = steady_clock
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = utc_now
