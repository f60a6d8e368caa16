"""Maintenance windows over a moment that is handed in: how long nodes may still be out of service. Pure.

A window is wall-clock time of its zone, so its length in seconds depends on the day. All arithmetic is done in
UTC: two aware datetimes of one zone are subtracted as if no clock were ever changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo

from fleetdrv.policy import DAYS, MaintenanceWindow, zone

_DAYS_BACK, _DAYS_AHEAD = 2, 16
"""A window that is open began yesterday at the earliest, by any clock on earth; the next one opens within a week,
or a week later where a change of clocks swallows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the windows leave at one moment."""

    seconds_left: float
    """Until they shut; 0 when none is open."""
    closes: str = ""
    opens: str = ""
    """When the next one opens after that; for people, in its own zone."""
    longest_seconds: float = field(default=0.0, compare=False)
    """Of the longest one in sight; no outage that takes longer can ever start."""

    def __str__(self) -> str:
        """Say it for people."""
        return f"open until {self.closes}" if self.closes else f"shut until {self.opens}"


def room(windows: Sequence[MaintenanceWindow], now: datetime) -> Room | None:
    """Return how long nodes may be out of service from `now` on; None where no window bounds it.

    Windows that overlap or touch are one: Saturday and Sunday, 00:00 to 24:00, is two days without a break.
    """
    if not windows:
        return None
    each = (span for window in windows for span in _spans(window, now))
    spans = list(_merged(sorted(each, key=lambda span: span.start)))
    later = next((span for span in spans if span.start > now), None)
    opens = _told(later.start, later.opens_in) if later else "later than can be told"
    longest = max(((span.end - span.start).total_seconds() for span in spans), default=0.0)
    current = next((span for span in spans if span.start <= now < span.end), None)
    if current is None:
        return Room(seconds_left=0.0, opens=opens, longest_seconds=longest)
    closes = _told(current.end, current.closes_in)
    left = (current.end - now).total_seconds()
    return Room(seconds_left=left, closes=closes, opens=opens, longest_seconds=longest)


@dataclass(frozen=True, slots=True)
class _Span:
    """One opening, in UTC, with the zones in which people write its ends."""

    start: datetime
    end: datetime
    opens_in: tzinfo
    closes_in: tzinfo


def _spans(window: MaintenanceWindow, now: datetime) -> Iterator[_Span]:
    where = zone(window.timezone)
    today = now.astimezone(where).date()
    for ahead in range(-_DAYS_BACK, _DAYS_AHEAD):
        day = today + timedelta(days=ahead)
        if DAYS[day.weekday()] in window.days:
            start, end = _moment(day, window.start, where), _moment(day, window.end, where)
            if window.end <= window.start:
                end = _moment(day + timedelta(days=1), window.end, where)
            if start < end:  # else the hour that summer time skips
                yield _Span(start, end, where, where)


def _moment(day: date, clock: str, where: tzinfo) -> datetime:
    """Return a wall-clock time in UTC: the first where it comes twice, as much later where it never comes."""
    hours, minutes = map(int, clock.split(":"))
    day += timedelta(days=hours // 24)
    return datetime(day.year, day.month, day.day, hours % 24, minutes, tzinfo=where).astimezone(UTC)


def _told(moment: datetime, where: tzinfo) -> str:
    return moment.astimezone(where).strftime("%a %Y-%m-%d %H:%M %Z")


def _merged(spans: Iterable[_Span]) -> Iterator[_Span]:
    current: _Span | None = None
    for span in spans:
        if current is None or span.start > current.end:
            if current is not None:
                yield current
            current = span
        elif span.end > current.end:
            current = _Span(current.start, span.end, current.opens_in, span.closes_in)
    if current is not None:
        yield current
