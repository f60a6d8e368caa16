"""Times on a page: clock, spans, and the one axis that all bars share. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from fleetdrv.lines import span

_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(60 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(3600 * hours for hours in (1, 2, 3, 6, 12)),
    *(86_400 * days for days in (1, 2, 7, 14, 28)),
)
MOST_TICKS = 5


@dataclass(frozen=True, slots=True)
class Clock:
    """Says times as people at one place read them."""

    zone: tzinfo
    day: str = ""
    """The day that goes without saying."""

    def at(self, seconds: float) -> str:
        """Return the time of day, with its day where that is another one."""
        moment = datetime.fromtimestamp(seconds, self.zone)
        day = f"{moment:%Y-%m-%d}"
        return f"{moment:%H:%M:%S}" if day == self.day else f"{day} {moment:%H:%M:%S}"

    def iso(self, seconds: float) -> str:
        """Return it for machines."""
        return datetime.fromtimestamp(seconds, self.zone).isoformat(timespec="seconds")

    def full(self, seconds: float) -> str:
        """Return day and time, as on a letter.

        >>> from datetime import UTC
        >>> Clock(UTC).full(1_795_592_874.0)
        'Wednesday, 25 November 2026, 07:47:54'
        """
        moment = datetime.fromtimestamp(seconds, self.zone)
        return f"{moment:%A}, {moment.day} {moment:%B %Y, %H:%M:%S}"

    def place(self, seconds: float) -> str:
        """Return how far this clock is from UTC.

        >>> from datetime import timezone
        >>> Clock(timezone(timedelta(hours=5, minutes=-30))).place(0)
        'UTC+04:30'
        """
        offset = f"{datetime.fromtimestamp(seconds, self.zone):%z}"
        return "UTC" if not int(offset[:5]) else f"UTC{offset[:3]}:{offset[3:5]}"


def took(seconds: float) -> str:
    """Say how long something took.

    >>> took(7.34), took(40.0), took(75)
    ('7.3 s', '40.0 s', '75 s')
    """
    return f"{seconds:.1f} s" if seconds < 59.95 else span(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """From when to when the bars reach, and where a line stands across them."""

    began: float
    ended: float
    step: int
    first: float
    """The first line: a round time of the clock."""

    def percent(self, seconds: float) -> float:
        """Return where a time stands, in percent of the width."""
        share = (seconds - self.began) / (self.ended - self.began)
        return 100 * min(1.0, max(0.0, share))

    def ticks(self) -> list[float]:
        """Return the times of the lines."""
        number = int((self.ended - self.first) // self.step) + 1
        return [self.first + self.step * place for place in range(max(0, number))]

    def label(self, seconds: float, zone: tzinfo) -> str:
        """Return what stands at a line."""
        moment = datetime.fromtimestamp(seconds, zone)
        if self.step >= 86_400:
            return f"{moment:%d %b}"
        return f"{moment:%H:%M}" if self.step >= 60 else f"{moment:%H:%M:%S}"


def axis(began: float, ended: float, zone: tzinfo) -> Axis:
    """Return an axis with few lines at round times; one of no length gets a second."""
    ended = max(ended, began + 1.0)
    step = next((step for step in _STEPS if (ended - began) / step <= MOST_TICKS), _STEPS[-1])
    step = max(step, int((ended - began) // 1000))  # journals of years: still few lines
    offset = datetime.fromtimestamp(began, zone).utcoffset() or timedelta()
    local = began + offset.total_seconds()
    return Axis(began=began, ended=ended, step=step, first=began + (-local % step))
