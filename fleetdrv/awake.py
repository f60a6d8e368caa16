"""Notice that this machine slept: a laptop's lid was closed on a run.

Two clocks tell: CLOCK_BOOTTIME goes on while a machine sleeps, CLOCK_MONOTONIC stands still. That the second one
stands still also means that no deadline of ours runs out in a sleep, as all of them are counted by it; only a
Lease is counted by the first, as others count it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fleetdrv.timing import steady_clock

SLEPT_SECONDS = 30.0
"""A shorter nap is survived by TCP, and told apart from a busy machine."""
_LOOK_SECONDS = 1.0


@dataclass(slots=True)
class Sleeps:
    """Tells sleeps by two clocks, in seconds; without CLOCK_BOOTTIME they are one, and nothing is told."""

    awake_clock: Callable[[], float] = time.monotonic
    clock: Callable[[], float] = steady_clock
    _before: float | None = None

    def slept(self) -> float:
        """Return for how long this machine slept since the last call; 0 for naps."""
        apart = self.clock() - self.awake_clock()
        gap = 0.0 if self._before is None else apart - self._before
        self._before = apart
        return gap if gap > SLEPT_SECONDS else 0.0


class Watch:
    """Calls `woke` with the seconds slept, from a thread of its own, soon after each sleep. A context manager."""

    def __init__(self, woke: Callable[[float], None], sleeps: Sleeps | None = None) -> None:
        self._woke, self._sleeps = woke, sleeps or Sleeps()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="awake", daemon=True)

    def __enter__(self) -> Watch:
        self._sleeps.slept()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            if gap := self._sleeps.slept():
                self._woke(gap)
