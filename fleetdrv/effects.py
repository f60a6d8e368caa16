"""The one counter through which every outward effect passes: each SSH exec and each API write.

"The second run wrote nothing" is a number read here, not a claim. The counter itself does no I/O; whoever
wants to see the effects as they happen (`--log-json`, a test) hands in a listener.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can be changed outside of this process."""

    EXEC = "exec"
    API_WRITE = "api_write"


class Passage(StrEnum):
    """How far one effect has come."""

    SENT = "sent"
    """About to go out. From here on it must be assumed to have happened."""
    ANSWERED = "answered"
    UNANSWERED = "unanswered"
    """The act raised: refused, timed out, link lost. Whether it happened is the caller's to find out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One act on the outside world; `number` counts from 1 over all kinds, in the order of sending."""

    number: int
    kind: Kind
    target: str
    what: str


@dataclass(frozen=True, slots=True)
class Cost:
    """How many effects a stretch of work had."""

    execs: int = 0
    api_writes: int = 0

    def __sub__(self, earlier: Cost) -> Cost:
        """Count what came after `earlier`."""
        return Cost(self.execs - earlier.execs, self.api_writes - earlier.api_writes)

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.execs} commands over SSH, {self.api_writes} writes to the cluster"


Listener = Callable[[Effect, Passage], None]


class Effects:
    """Count effects from any number of threads.

    >>> effects = Effects()
    >>> with effects.passing(Kind.EXEC, "gpu-01", "probe"):
    ...     pass
    >>> effects.execs, effects.api_writes
    (1, 0)
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, Kind]] = Counter()
        self._mine = threading.local()
        self._listener = listener

    @contextmanager
    def passing(self, kind: Kind, target: str, what: str) -> Iterator[Effect]:
        """Count one effect on entry, so that one cut off half-way is counted too.

        The listener runs in the calling thread; if it raises on SENT, nothing is sent.
        """
        with self._lock:
            self._counts[target, kind] += 1
            cost = self.of_this_thread()
            is_exec = kind is Kind.EXEC
            self._mine.cost = Cost(cost.execs + is_exec, cost.api_writes + (not is_exec))
            effect = Effect(number=self._counts.total(), kind=kind, target=target, what=what)
        self._tell(effect, Passage.SENT)
        try:
            yield effect
        except BaseException:
            self._tell(effect, Passage.UNANSWERED)
            raise
        self._tell(effect, Passage.ANSWERED)

    def _tell(self, effect: Effect, passage: Passage) -> None:
        if self._listener is not None:
            self._listener(effect, passage)

    def count(self, kind: Kind) -> int:
        """Return how many effects of that kind were sent."""
        with self._lock:
            return sum(number for (_, of_kind), number in self._counts.items() if of_kind is kind)

    def of_this_thread(self) -> Cost:
        """Return how many effects the calling thread has sent; a node's turn has a thread of its own."""
        cost: Cost = getattr(self._mine, "cost", Cost())
        return cost

    @property
    def execs(self) -> int:
        """Commands sent over SSH."""
        return self.count(Kind.EXEC)

    @property
    def api_writes(self) -> int:
        """Requests to the cluster that may change something."""
        return self.count(Kind.API_WRITE)

    @property
    def by_target(self) -> Mapping[str, Mapping[Kind, int]]:
        """A copy of the counts: target, then kind."""
        with self._lock:
            copy = dict(self._counts)
        targets: dict[str, dict[Kind, int]] = {}
        for (target, kind), number in sorted(copy.items()):
            targets.setdefault(target, {})[kind] = number
        return targets
