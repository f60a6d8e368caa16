"""The block of lines at the foot of a terminal that is drawn anew, and the lines that scroll above it.

Not rich's Live, which hides the cursor, takes stdout over, and leaves debris where a window becomes narrower: here
the cursor is never hidden and rests at the start of a line of its own, so whatever ends the program, `kill -9`
included, leaves the terminal whole, and what others write begins on a line of its own. rich knows what the
terminal can do (NO_COLOR, TERM); it is imported when the first block is drawn.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

from fleetdrv.lines import Row, cells

if TYPE_CHECKING:
    from rich.console import Console

_MODES: list[list[Any]] = []
"""How the terminal was set before the question that is asked now."""
_TERMINAL = threading.RLock()
"""Whoever writes to the terminal holds this; a question holds it until it is answered."""


@contextmanager
def asking() -> Iterator[None]:
    """Have the terminal for a question: the block is taken away, nothing is written until the end of this.

    >>> with asking():
    ...     pass
    """
    with _TERMINAL:
        for screen in list(_DRAWN):
            screen.erase()
        _MODES[:] = _modes()
        try:
            yield
        finally:
            _MODES.clear()


def restore() -> None:
    """Before the program ends at once: a question that is not answered yet may have switched the echo off."""
    import termios

    for modes in _MODES:
        with suppress(OSError, termios.error):
            termios.tcsetattr(0, termios.TCSANOW, modes)


def _modes() -> list[list[Any]]:
    """Return how the terminal is set, or nothing where there is none."""
    import termios

    try:
        return [termios.tcgetattr(0)]
    except (OSError, termios.error):
        return []


def fits(stream: IO[str], environment: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal that can be drawn on, and somebody looks at it."""
    dull = environment.get("TERM", "") in ("", "dumb", "unknown") or environment.get("CI")
    return bool(stream.isatty() and not dull)


class Screen:
    """A block on one terminal."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._block: list[Row] = []
        self._late: deque[Row] = deque()
        """Lines that are still to be printed above it."""
        self._size = (0, 0)

    @cached_property
    def _console(self) -> Console:
        from rich.console import Console

        return Console(file=self._stream, highlight=False, markup=False, emoji=False)

    def size(self) -> tuple[int, int]:
        """Return columns and rows now."""
        try:
            columns, rows = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):  # closed under us
            columns, rows = 0, 0
        return columns or 80, rows or 24

    def draw(self, rows: Sequence[Row]) -> None:
        """Put a block where the last one was, unless somebody asks a question just now.

        The same block in the same window costs nothing.
        """
        if not _TERMINAL.acquire(blocking=False):
            return
        try:
            size = self.size()
            rows = list(rows)[: size[1] - 1]
            if self._late or rows != self._block or size != self._size:
                late = [self._late.popleft() for _ in range(len(self._late))]
                text = self._erasure() + self._styled(late, whole=True) + self._styled(rows)
                self._block, self._size = rows, size
                (_DRAWN.add if rows else _DRAWN.discard)(self)
                self._write(text)
        finally:
            _TERMINAL.release()

    def above(self, rows: Iterable[Row]) -> None:
        """Print lines that stay, above the block; never waits: who asks a question has the terminal till later."""
        self._late.extend(rows)
        self.draw(self._block)

    def erase(self) -> None:
        """Take the block away; nothing that was to stay is lost."""
        with _TERMINAL:
            self.draw([])

    def _erasure(self) -> str:
        """Go up to the block's first line, clearing; a window that became narrower has broken lines by now."""
        columns, drawn = self.size()[0], self._size[0]
        widths = [min(cells(row.text), drawn) for row in self._block]
        # Line by line: tmux keeps a screen that is cleared as a whole in its history.
        return "\r" + "\x1b[1A\x1b[2K" * sum(max(1, -(-width // columns)) for width in widths)

    def _styled(self, rows: Sequence[Row], *, whole: bool = False) -> str:
        """Return lines with the codes that this terminal knows; `whole` ones may be wider than it is."""
        from rich.text import Text

        with self._console.capture() as captured:
            for row in rows:
                text = Text(row.text, style=row.tone)
                self._console.print(text, no_wrap=True, overflow=None if whole else "ellipsis", soft_wrap=whole)
        return captured.get()

    def _write(self, text: str) -> None:
        """Write at once, so that nothing flickers; nobody looking is no reason to stop."""
        if text:
            with suppress(OSError, ValueError):
                self._stream.write(text)
                self._stream.flush()


_DRAWN: set[Screen] = set()
"""Screens with a block."""
