"""Maintenance windows: every minute of a week, and the nights on which clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv.policy import DAYS, MaintenanceWindow
from fleetdrv.windows import Room, room
from tests.core.factories import a_policy


def a_window(start: str = "22:00", end: str = "04:00", **more: Any) -> MaintenanceWindow:
    return MaintenanceWindow(**{"start": start, "end": end, **more})


BERLIN = {"timezone": "Europe/Berlin"}
WEEKEND = a_window(days=("sat", "sun"), **BERLIN)


def at(text: str) -> datetime:
    """Read a moment: UTC unless it says its offset."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def seen(now: str, *windows: MaintenanceWindow) -> Room:
    found = room(windows, at(now))
    assert found is not None
    return found


def test_without_windows_nothing_is_bounded() -> None:
    assert room((), at("2026-11-25T12:00")) is None


def test_a_window_that_passes_midnight_belongs_to_the_day_on_which_it_starts() -> None:
    assert seen("2026-11-28T22:30+01:00", WEEKEND) == Room(
        seconds_left=5.5 * 3600, closes="Sun 2026-11-29 04:00 CET", opens="Sun 2026-11-29 22:00 CET"
    )
    assert seen("2026-11-29T03:59:30+01:00", WEEKEND).seconds_left == 30
    assert seen("2026-11-30T03:00+01:00", WEEKEND).seconds_left == 3600, "Sunday's, on Monday"
    assert seen("2026-11-28T03:00+01:00", WEEKEND).seconds_left == 0, "Friday has none"


def test_a_shut_window_names_when_the_next_one_opens() -> None:
    shut = seen("2026-11-25T12:00", WEEKEND)
    assert shut == Room(seconds_left=0, opens="Sat 2026-11-28 22:00 CET")
    assert str(shut) == "shut until Sat 2026-11-28 22:00 CET"
    assert str(seen("2026-11-28T23:00", WEEKEND)) == "open until Sun 2026-11-29 04:00 CET"


def test_its_first_moment_is_in_it_and_its_last_is_not() -> None:
    window = a_window("08:00", "09:00")
    assert seen("2026-11-25T07:59:59", window).seconds_left == 0
    assert seen("2026-11-25T08:00", window).seconds_left == 3600
    assert seen("2026-11-25T08:59:59", window).seconds_left == 1
    assert seen("2026-11-25T09:00", window) == Room(seconds_left=0, opens="Thu 2026-11-26 08:00 UTC")
    assert seen("2026-11-25T08:00", window).opens == "Thu 2026-11-26 08:00 UTC"


def test_windows_that_touch_or_overlap_are_one() -> None:
    weekend = a_window("00:00", "24:00", days=("sat", "sun"))
    room_ = seen("2026-11-28T23:55", weekend)
    assert (room_.seconds_left, room_.closes) == (24 * 3600 + 300, "Mon 2026-11-30 00:00 UTC")
    assert room_.opens == "Sat 2026-12-05 00:00 UTC"
    overlapping = (a_window("20:00", "23:00", **BERLIN), a_window("21:30", "02:00"))
    assert seen("2026-11-25T20:00", *overlapping) == Room(
        seconds_left=6 * 3600, closes="Thu 2026-11-26 02:00 UTC", opens="Thu 2026-11-26 20:00 CET"
    )
    later_in_berlin = (a_window("20:00", "23:00"), a_window("22:00", "01:30", **BERLIN))
    assert seen("2026-11-25T20:00", *later_in_berlin).closes == "Thu 2026-11-26 01:30 CET"
    same_end = (a_window("20:00", "23:00"), a_window("22:00", "24:00", **BERLIN))
    assert seen("2026-11-25T22:00", *same_end).closes == "Wed 2026-11-25 23:00 UTC"
    inside = (a_window("20:00", "23:00"), a_window("21:00", "22:00"))
    assert seen("2026-11-25T20:00", *inside).seconds_left == 3 * 3600


def test_a_window_without_an_end_leaves_more_than_any_outage_takes() -> None:
    always = seen("2026-11-25T20:00", a_window("00:00", "24:00"))
    assert always.seconds_left > 7 * 86400
    assert always.opens == "later than can be told"


@pytest.mark.parametrize(
    ("now", "window", "seconds"),
    [
        # Clocks go forward on 2026-03-29 at 02:00 in Berlin: the night is an hour shorter.
        ("2026-03-28T21:00", a_window(**BERLIN), 5 * 3600),
        ("2026-03-29T21:00", a_window(**BERLIN), 5 * 3600),
        ("2026-03-28T20:30", a_window(**BERLIN), 0),
        ("2026-03-29T20:30", a_window(**BERLIN), 5.5 * 3600),
        # Back on 2026-10-25 at 03:00: an hour longer; what comes twice means the first.
        ("2026-10-24T20:00", a_window(**BERLIN), 7 * 3600),
        ("2026-10-24T20:00", a_window("22:00", "02:30", **BERLIN), 4.5 * 3600),
        ("2026-10-25T00:45", a_window("22:00", "02:30", **BERLIN), 0),
        # 02:15 never comes on 2026-03-29: as much later, and as short as ever.
        ("2026-03-29T01:20", a_window("02:15", "02:45", **BERLIN), 25 * 60),
        ("2026-03-29T01:15", a_window("02:30", "03:10", **BERLIN), 0),
    ],
)
def test_on_nights_on_which_clocks_are_changed(now: str, window: MaintenanceWindow, seconds: float) -> None:
    assert seen(now, window).seconds_left == seconds


def test_a_window_that_a_change_of_clocks_swallows_opens_a_week_later() -> None:
    for end in ("03:10", "03:30"):
        window = a_window("02:30", end, days=("sun",), **BERLIN)
        assert seen("2026-03-28T12:00", window).opens == "Sun 2026-04-05 02:30 CEST"


def test_zones_on_both_ends_of_the_earth() -> None:
    east = a_window("00:00", "01:00", days=("wed",), timezone="Pacific/Kiritimati")
    assert seen("2026-11-24T10:30", east).seconds_left == 1800, "Wednesday begins at 10:00 of Tuesday"
    west = a_window("23:00", "24:00", days=("wed",), timezone="Pacific/Pago_Pago")
    assert seen("2026-11-26T10:30", west).seconds_left == 1800, "and ends at 11:00 of Thursday"


CLOCKS = st.sampled_from([f"{hour:02}:{minute:02}" for hour in range(24) for minute in (0, 15, 45)])
WINDOWS = st.lists(
    st.tuples(st.sets(st.sampled_from(DAYS), min_size=1), CLOCKS, CLOCKS)
    .filter(lambda drawn: drawn[1] != drawn[2])
    .map(lambda drawn: a_window(drawn[1], drawn[2], days=tuple(sorted(drawn[0])))),
    min_size=1,
    max_size=3,
)
MOMENTS = st.integers(0, 14 * 24 * 4).map(lambda quarter: at("2026-02-20T00:00") + timedelta(minutes=15 * quarter))


def is_open(window: MaintenanceWindow, now: datetime) -> bool:
    """Tell it as a person would who looks at a clock and a calendar."""
    clock, today, yesterday = f"{now:%H:%M}", DAYS[now.weekday()], DAYS[now.weekday() - 1]
    if window.start < window.end:
        return today in window.days and window.start <= clock < window.end
    return (today in window.days and clock >= window.start) or (yesterday in window.days and clock < window.end)


@given(WINDOWS, MOMENTS)
def test_open_is_what_a_clock_and_a_calendar_say_and_lasts_as_long_as_is_told(
    windows: list[MaintenanceWindow], now: datetime
) -> None:
    found = room(windows, now)
    assert found is not None
    quarters = range(1, 7 * 24 * 4 + 1)
    later = [now + timedelta(minutes=15 * quarter) for quarter in quarters]
    opened = [any(is_open(window, moment) for window in windows) for moment in (now, *later)]
    assert bool(found.seconds_left) == bool(found.closes) == opened[0]
    if opened[0] and not all(opened):
        assert found.seconds_left == 900 * opened.index(False)
        assert found.closes == f"{now + timedelta(seconds=found.seconds_left):%a %Y-%m-%d %H:%M} UTC"
    if not opened[0]:
        assert found.opens == f"{now + timedelta(minutes=15 * opened.index(True)):%a %Y-%m-%d %H:%M} UTC"


@pytest.mark.parametrize(
    ("start", "end", "seconds"),
    [("22:00", "04:00", 21600), ("08:15", "09:00", 2700), ("00:00", "24:00", 86400), ("23:59", "24:00", 60)],
)
def test_how_long_a_window_is(start: str, end: str, seconds: int) -> None:
    assert a_window(start, end).seconds == seconds


def test_the_longest_window_is_told_as_it_joins_with_others() -> None:
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)
    ten = (a_window("22:00", "22:10"), a_window("23:00", "23:10"))
    joined = (a_window("22:00", "24:00"), a_window("00:00", "02:00"))
    lengths = [found.longest_seconds for each in (ten, joined) if (found := room(each, now))]
    assert lengths == [600, 4 * 3600]


def test_windows_that_may_join_are_not_refused_for_being_short_alone() -> None:
    halves = (a_window("22:00", "24:00"), a_window("00:00", "02:00"))
    assert a_policy(maintenance_window=halves, expected_seconds=4 * 3600)
    with pytest.raises(ValueError, match="no maintenance window is as long as expected_seconds, 14401"):
        a_policy(maintenance_window=halves, expected_seconds=4 * 3600 + 1)
