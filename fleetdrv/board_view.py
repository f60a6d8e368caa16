"""A run's state as lines of text: the live view, the heartbeat, the answer to SIGUSR1. Pure."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

from fleetdrv.board import Board, Turn
from fleetdrv.lines import Row, Tone, alike, cells, cut, flow, middle, span
from fleetdrv.nodeset import fold

SLOWEST = 5
"""Rows of nodes at work."""
FAILURES = 3
"""Rows of failures, each for all nodes that failed alike."""


def view(board: Board, now: float, width: int, height: int) -> list[Row]:
    """Return the live view: no line wider than `width`, no more lines than `height`, both at least 1.

    What it comes down to stands first: where room is short, rows of nodes are left out, then the rest.
    """
    rows = [Row(line, Tone.HEAD) for line in flow(board.head(now), width)]
    rows += [Row(line) for line in flow(board.counts() if board.rolling else [], width)]
    if board.waits.text:
        rows.append(Row(cut(f"{board.waits.text} ({span(now - board.waits.since)})", width)))
    failed = [Row(line, Tone.BAD) for line in _failures(board, width)]
    room = height - len(rows) - len(failed)
    return [*rows, *_nodes(board, now, width, room), *failed][:height]


def _nodes(board: Board, now: float, width: int, room: int) -> list[Row]:
    names, more = board.slowest(), ""
    if len(names) + len(board.soaking) == 0 or room < 2:
        return []
    first = names[: min(SLOWEST, room - 1)]
    if len(names) > len(first):
        first = names[: min(SLOWEST, max(0, room - 2))]
        more = f"and {len(names) - len(first)} more at work"
    turns = {name: board.at_work[name] for name in first}
    for name in sorted(board.soaking)[: max(0, min(2, room - 1 - len(first) - bool(more)))]:
        turns[name] = board.soaking[name]
    wide = max(4, min(width // 3, max((cells(name) for name in turns), default=4)))
    rows = [Row(line, Tone.FAINT) for line in _table_head(wide, width)]
    rows += [Row(_node(board, name, turn, now, wide, width)) for name, turn in turns.items()]
    return [*rows, *([Row(cut(more, width), Tone.FAINT)] if more else [])]


_PHASE_WIDTH = 10


def _table_head(wide: int, width: int) -> list[str]:
    return [cut(f"{'NODE':<{wide}} {'PHASE':<{_PHASE_WIDTH}} {'FOR':>7} {_out_column('OUT', width)}DOES", width)]


def _out_column(text: str, width: int) -> str:
    """There is room for how long a node is out only in a window that is not narrow."""
    return f"{text:>7}  " if width >= 60 else " "


def _node(board: Board, name: str, turn: Turn, now: float, wide: int, width: int) -> str:
    out = _out_column(f"{now - board.out[name]:.0f} s" if name in board.out else "-", width)
    phase = cut(turn.phase, _PHASE_WIDTH)
    seconds = f"{now - turn.since:.0f} s"
    return cut(f"{middle(name, wide):<{wide}} {phase:<{_PHASE_WIDTH}} {seconds:>7} {out}{turn.text}", width)


def _failures(board: Board, width: int) -> list[str]:
    groups = alike(board.failed)
    wide = max(12, width // 2)
    lines = [cut(f"{middle(fold(names), wide)}: {text}", width) for text, names in groups[-FAILURES:]]
    more = sum(len(names) for _, names in groups[:-FAILURES])
    return [*([cut(f"{more} more failed before", width)] if more else []), *lines]


def heartbeat(board: Board, now: float) -> str:
    """Return one line for a log: how far it is, who is slowest, and what is waited for."""
    parts = [", ".join((*board.head(now)[:-1], *(board.counts() if board.rolling else ())))]
    for name in board.slowest()[:2]:
        turn = board.at_work[name]
        parts.append(f"{name} {turn.phase} for {span(now - turn.since)}" + (f": {turn.text}" if turn.text else ""))
    parts += [f"{fold(board.soaking)} soaking"] if board.soaking else []
    parts += [f"{board.waits.text} ({span(now - board.waits.since)})"] if board.waits.text else []
    return "; ".join(parts)


def who_waits(board: Board, now: float, stamp: Callable[[float], str]) -> list[str]:
    """Return who works or waits, for what and since when; `stamp` makes a time of day of a number of seconds.

    Every node at work has a line of its own; those that only wait for their turn share one.
    """
    lines = ["; ".join((*board.head(now), *(board.counts() if board.rolling else ())))]
    for name, turn in chain(((n, board.at_work[n]) for n in board.slowest()), board.soaking.items()):
        text = f": {turn.text}" if turn.text else ""
        out = f", out of service since {stamp(board.out[name])}" if name in board.out else ""
        lines.append(f"{name}: {turn.phase} since {stamp(turn.since)} ({span(now - turn.since)}){out}{text}")
    if board.staged:
        lines.append(f"{fold(board.staged)}: staged, the first since {stamp(min(board.staged.values()))}")
    left = sorted(board.out.keys() - board.at_work.keys())
    if left:
        lines.append(f"{fold(left)}: out of service, nobody works there")
    if board.waits.text:
        lines.append(f"{board.waits.text}, since {stamp(board.waits.since)} ({span(now - board.waits.since)})")
    return lines
