"""What a run looks like: the numbers add up after any history, and every view fits its window."""

from __future__ import annotations

import doctest
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from fleetdrv import lines
from fleetdrv.board import Board
from fleetdrv.board_view import heartbeat, view, who_waits
from fleetdrv.events import Event, Level
from fleetdrv.lines import cells, clean, cut, flow, middle, shown
from tests.screens import rollout

NODES = [f"n{number}" for number in range(6)]
STANDS = ("staging", "staged", "in outage")
ENDS = ("changed: verified", "converged", "failed: no", "unreachable: connect: no answer", "blocked: by a PDB")


def event(node: str, phase: str, text: str = "", level: Level = Level.PROGRESS) -> Event:
    """Return an event."""
    return Event(node=node, phase=phase, text=text, level=level)


def words() -> st.SearchStrategy[str]:
    """What a node may say: anything."""
    return st.text(max_size=30) | st.sampled_from(("", "\x1b[2J\x1b[31mred", "漢字" * 40, "a\tb\r\nc", "e\u0301"))


@st.composite
def events(draw: st.DrawFn) -> list[Event]:
    """Return any history, in any order, also one that no rollout would have."""
    told = []
    for _ in range(draw(st.integers(0, 25))):
        node = draw(st.sampled_from(["", *NODES]))
        phase = draw(st.sampled_from(
            ("stand", "end", "cordon", "uncordon", "drain", "job", "look", "seen", "soak", "soaked", "rollout",
             "hook", "note", "leave out", "a phase with a long name")
        ))
        said = {"stand": st.sampled_from(STANDS), "end": st.sampled_from(ENDS)}.get(phase, words())
        told.append(event(node, phase, draw(said), draw(st.sampled_from(tuple(Level)))))
    return told


def after(told: list[Event]) -> Board:
    """Return the board after a history, one event a second."""
    board = Board(title="toy", total=len(NODES), limit=2)
    for second, one in enumerate(told):
        board.take(one, float(second))
    return board


@given(events())
def test_every_node_stands_in_one_place_and_the_numbers_add_up(told: list[Event]) -> None:
    board = after(told)
    places = (board.at_work, board.staged, board.ended)
    for node in NODES:
        assert sum(node in place for place in places) <= 1, node
        assert not (node in board.failed and node not in board.ended)
    if board.rolling:
        numbers = [int(part.split()[0]) for part in board.counts() if not part.endswith("soaking")]
        in_outage = sum(node in board.out for node in board.at_work)
        assert sum(numbers) + in_outage == len(NODES)


@settings(max_examples=200)
@given(events(), st.integers(1, 220), st.integers(1, 60))
def test_every_view_fits_its_window(told: list[Event], width: int, height: int) -> None:
    rows = view(after(told), 100.0, width, height)
    assert 1 <= len(rows) <= height
    for row in rows:
        assert cells(row.text) <= width, row
        assert "\n" not in row.text
        assert clean(row.text) == row.text


@given(st.text(), st.integers(1, 80))
def test_what_is_cut_fits_and_says_so(text: str, width: int) -> None:
    for fitted in (cut(shown(text), width), middle(shown(text), width)):
        assert cells(fitted) <= width
        assert fitted == shown(text) or "…" in fitted


@given(st.lists(st.text("abc ", min_size=1, max_size=30), max_size=8), st.integers(1, 60))
def test_no_part_is_lost_where_each_has_room(parts: list[str], width: int) -> None:
    flowed = flow(parts, width)
    assert all(cells(line) <= width for line in flowed)
    if all(cells(part) <= width for part in parts):
        assert " · ".join(flowed) == " · ".join(parts)


def board_at(size: int, seconds: float) -> Board:
    """Return the recorded rollout as it stands then."""
    board = Board(title="nvidia-535", total=size, limit=rollout.slots(size))
    for at, one in rollout.events(size):
        if at > seconds:
            break
        board.take(one, at)
    return board


def test_a_thousand_nodes_fit_a_small_window_and_the_slowest_are_named() -> None:
    rows = [row.text for row in view(board_at(1000, 1475.0), 1475.0, 80, 23)]
    assert len(rows) <= 14
    assert rows[0].startswith("nvidia-535: 480 of 1000 nodes done · 6 of at most 20 out of service")
    assert any("478 to go" in row for row in rows)
    assert any(row.startswith("next node waits for a slot: 20 of 20") for row in rows)
    first = next(i for i, row in enumerate(rows) if row.startswith("NODE")) + 1
    assert rows[first].split()[:7] == ["gpu-0480", "keep", "3", "s", "51", "s", "verified;"]
    assert [len(row.split()) > 4 for row in rows[first : first + 5]] == [True] * 5
    assert "failed, rolled back: unload: exit 75" in rows[-1]


def test_a_node_that_failed_its_outage_counts_as_out_until_it_is_back() -> None:
    board = after([event("n1", "stand", "in outage", Level.DETAIL), event("n1", "cordon"),
                   event("n1", "leave out", "no way back", Level.WARNING),
                   event("n1", "end", "failed, left out of service: no way back", Level.WARNING)])
    assert board.head(9.0)[1] == "1 of at most 2 out of service"
    assert "n1: out of service, nobody works there" in who_waits(board, 9.0, str)


def test_a_node_left_out_by_an_earlier_run_is_counted_and_not_at_work() -> None:
    board = after([event("", "rollout", "", Level.DETAIL), event("n1", "cordon", "since before", Level.DETAIL)])
    assert (set(board.out), board.at_work) == ({"n1"}, {})


def test_the_look_at_the_pool_counts_who_was_seen() -> None:
    told = [event(node, "look", "", Level.DETAIL) for node in NODES] + [event("n0", "seen", "", Level.DETAIL)]
    board = after(told)
    assert board.head(30.0)[0] == "toy: looked at 1 of 6 nodes"
    assert board.slowest() == NODES[1:]
    board.take(event("", "rollout", "", Level.DETAIL), 31.0)
    assert board.at_work == {}


def test_a_line_for_a_log_says_who_waits_for_what() -> None:
    said = heartbeat(board_at(2, 75.0), 75.0)
    assert said == (
        "nvidia-535: 0 of 2 nodes done, 1 of at most 1 out of service, 1 staged; "
        "gpu-1 outage for 24 s: nvidia: install nvidia/535.309; "
        "next node waits for a slot: 1 of 1 out of service (44 s)"
    )


def test_who_waits_names_everybody_at_work_with_the_time_of_day() -> None:
    def stamp(then: float) -> str:
        return time.strftime("%H:%M:%S", time.gmtime(36_000 + then))

    said = who_waits(board_at(1000, 1475.0), 1475.0, stamp)
    board = board_at(1000, 1475.0)
    assert {line.partition(":")[0] for line in said} >= set(board.at_work)
    drained = next(line for line in said if line.startswith("gpu-0481: "))
    assert drained == "gpu-0481: drain since 10:24:31 (4 s), out of service since 10:24:31: pods leave"
    assert said[-1].startswith("next node waits for a slot: 20 of 20 out of service, since 10:00:31 (24 min 4 s)")


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(lines).failed == 0
