"""What happened, as values: told by those who act, shown by those who draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

OVER = "over"
"""Phase of the event that ends a run: the command came to its end and tells its exit code."""


class Level(StrEnum):
    """How much a reader wants it."""

    DETAIL = "detail"
    """For the journal: a job's whole log."""
    PROGRESS = "progress"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to one node, or to the run when `node` is empty."""

    node: str
    phase: str
    text: str
    level: Level = Level.PROGRESS
    data: Mapping[str, Any] | None = None
    """What the journal keeps of it beside the words, as plain values."""


Say = Callable[[Event], None]
