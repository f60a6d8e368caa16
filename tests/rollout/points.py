"""Count effects outside the program, and kill it at one of them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Moment(StrEnum):
    """When the controller dies, as seen from the wire."""

    BEFORE = "before it is sent"
    """The effect reached the proxy and went no further: for the world it was never sent."""
    UNANSWERED = "sent, not answered"
    AFTER = "after the answer"


@dataclass(frozen=True, slots=True)
class Point:
    """One effect: what went where."""

    kind: str
    target: str
    what: str


@dataclass(slots=True)
class Points:
    """Shared by the API proxy and every node's SSH front; one counter over all of them."""

    seen: list[Point] = field(default_factory=list)
    victim: int = 0
    """Pid of the controller."""
    at: int = -1
    """Index of the effect to die at; -1 only records."""
    moment: Moment = Moment.BEFORE
    killed: Point | None = None
    on_arrival: Callable[[Point], None] = lambda _: None
    """Called with each effect before it is carried out: a test's chance to be somebody else meanwhile."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, at: int, moment: Moment) -> None:
        """Forget what was seen, and die at the effect with this index."""
        with self._lock:
            self.seen, self.at, self.moment, self.killed = [], at, moment, None

    def arrive(self, point: Point) -> Moment | None:
        """Count an effect; return when to kill, if this is the one. BEFORE is carried out here."""
        with self._lock:
            index = len(self.seen)
            self.seen.append(point)
            hit = index == self.at and not self.killed
            if hit:
                self.killed = point
        self.on_arrival(point)
        if not hit:
            return None
        if self.moment is Moment.BEFORE:
            self.kill()
        return self.moment

    def forget(self, point: Point) -> None:
        """Take back a write that the API refused as a conflict: it changed nothing, and is sent again."""
        with self._lock:
            self.seen.remove(point)

    def kill(self) -> None:
        """SIGKILL."""
        if self.victim:
            os.kill(self.victim, signal.SIGKILL)
