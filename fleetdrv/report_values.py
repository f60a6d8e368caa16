"""Values out of a journal's line, whatever stands there: of a damaged journal a report tells less. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from fleetdrv.lines import clean

Drivers = Mapping[str, Mapping[str, str]]
"""Driver to its versions: wanted, found, loaded."""


def number(value: object) -> float | None:
    """Return a number that is one.

    >>> number(7), number(True), number("7"), number(float("nan"))
    (7.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e15 and isfinite(value) else None


def words(value: object) -> dict[str, str]:
    """Return names and what they stand for, as text.

    >>> words({"a": 1}), words([1])
    ({'a': '1'}, {})
    """
    if not isinstance(value, Mapping):
        return {}
    return {clean(str(name)): clean(str(told)) for name, told in value.items() if told is not None}


def counts(value: object) -> dict[str, int]:
    """Return names and how many there are."""
    read = {name: number(told) for name, told in value.items()} if isinstance(value, Mapping) else {}
    return {clean(str(name)): int(told) for name, told in read.items() if told is not None}


def drivers(value: object) -> Drivers | None:
    """Return the versions of drivers; None where nobody saw any."""
    return {clean(str(name)): words(told) for name, told in value.items()} if isinstance(value, Mapping) else None


def text(value: object) -> str:
    """Return what is a text, without control characters; anything else is none."""
    return clean(value) if isinstance(value, str) else ""
