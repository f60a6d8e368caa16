"""Tells what happens: lines or a live view on stderr, and the run's journal in the user's state folder.

On a terminal the view is drawn at most four times a second and warnings scroll above it. Anywhere else each event
is a line, and a heartbeat now and then says who waits for what. SIGUSR1 (and SIGINFO where there is one) has that
printed at once; a handler may do next to nothing, so it sets a mark, and the thread that draws does the rest.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import IO

from fleetdrv import journals
from fleetdrv.board import Board
from fleetdrv.board_view import heartbeat, view, who_waits
from fleetdrv.events import Event, Level
from fleetdrv.lines import Row, Tone, shown
from fleetdrv.screen import Screen, fits
from fleetdrv.secret import hide

DRAW_SECONDS = 0.25
HEARTBEAT_SECONDS = 45.0


@dataclass(slots=True)
class Teller:
    """Shows events on stderr as they come, and keeps all of them in the run's journal.

    Safe to call from any thread. `quiet` shows warnings only, which is what a cron mail should hold.
    """

    quiet: bool = False
    log_json: bool = False
    stream: IO[str] = field(default_factory=lambda: sys.stderr)
    screen: Screen | None = None
    """Where the live view is drawn; None: lines."""
    board: Board = field(default_factory=Board)
    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    asked: bool = False
    """Somebody wants to know who waits for what."""
    _resting: bool = True
    _beat: float = 0.0
    _journal: IO[str] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: Event) -> None:
        """Take one event."""
        event = replace(event, text=hide(event.text))
        record = {
            "at": self.wall(),
            "node": event.node,
            "phase": event.phase,
            "level": event.level,
            "text": event.text,
        }
        with self._lock:
            self.board.take(event, self.now())
            if self._journal:
                kept = record if event.data is None else {**record, "data": event.data}
                _print(hide(json.dumps(kept)), self._journal)
            if event.level is Level.DETAIL or (self.quiet and event.level is not Level.WARNING):
                return
            if self.log_json:
                _print(json.dumps(record), self.stream)
            elif self.screen is None:
                _print(line(event, self.wall()), self.stream)
            elif event.level is Level.WARNING or event.phase in _KEPT:
                tone = Tone.WARNING if event.level is Level.WARNING else Tone.PLAIN
                self.screen.above([Row(line(event, self.wall()), tone)])

    def keep(self, run: str) -> str:
        """Write the journal of a run as JSON lines into the user's state folder; return where, or why not."""
        path = journals.folder() / f"{run}.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._journal = path.open("a", encoding="utf-8")
            path.chmod(0o600)
        except OSError as error:
            return f"cannot be written: {error}"
        return str(path)

    def close(self) -> None:
        """End the journal, and leave on the terminal what was to stay."""
        if self.screen:
            self.screen.erase()
        if self._journal:
            self._journal.close()

    @contextmanager
    def watching(self, title: str, total: int, limit: int | None = None) -> Iterator[None]:
        """Show how things stand while something goes on with so many nodes; nothing of it stays on the screen.

        `limit` is how many may be out of service, as far as it is known.
        """
        with self._lock:
            self.board.title, self.board.total, self.board.limit = title, total, limit
            self.board.began = self._beat = self.now()
            self._resting = False
        try:
            yield
        finally:
            with self._lock:
                self._resting = True
            if self.screen:
                self.screen.erase()

    def tick(self) -> None:
        """Draw, or give a sign of life, or an answer, whatever is due."""
        with self._lock:
            now = self.now()
            if self.asked:
                self.asked = False
                self._answer(now)
            if self.screen:
                self.screen.draw([] if self._resting else view(self.board, now, *self._room()))
            due = now - self._beat >= HEARTBEAT_SECONDS
            if self._resting or self.screen or self.quiet or not due:
                return
            self._beat, text = now, heartbeat(self.board, now)
        self(Event(node="", phase="waiting", text=text))

    def _room(self) -> tuple[int, int]:
        """The view leaves the last line to the cursor."""
        columns, rows = self.screen.size() if self.screen else (80, 24)
        return columns, max(1, rows - 1)

    def _answer(self, now: float) -> None:
        def stamp(then: float) -> str:
            return time.strftime("%H:%M:%S", time.localtime(self.wall() - (now - then)))

        said = who_waits(self.board, now, stamp)
        if self.log_json:
            _print(json.dumps({"at": self.wall(), "node": "", "phase": "waiting", "text": said}), self.stream)
        elif self.screen:
            self.screen.above([Row(text) for text in said])
        else:
            _print("\n".join(said), self.stream)


_KEPT = frozenset({"run", "cluster"})
"""Phases whose lines stay on a terminal, too."""


@contextmanager
def telling(*, quiet: bool, log_json: bool) -> Iterator[Teller]:
    """Return a teller for one command, with its thread, and answer signals until the end of this."""
    lines = quiet or log_json or not fits(sys.stderr, os.environ)
    teller = Teller(quiet=quiet, log_json=log_json, screen=None if lines else Screen(sys.stderr))
    over = threading.Event()

    def work() -> None:
        while not over.wait(DRAW_SECONDS):
            teller.tick()

    thread = threading.Thread(target=work, name="teller", daemon=True)
    thread.start()
    try:
        with _signals(teller):
            yield teller
    finally:
        over.set()
        thread.join()
        teller.close()


@contextmanager
def _signals(teller: Teller) -> Iterator[None]:
    """Have a question by signal noted; threads other than the main one cannot take any."""

    def ask(number: int, frame: object) -> None:
        del number, frame
        teller.asked = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (getattr(signal, name, None) for name in ("SIGUSR1", "SIGINFO")) if n is not None]
    former = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _print(text: str, stream: IO[str]) -> None:
    """Tell it if anybody listens: a closed pipe or a full disk must not end a node's turn half-way."""
    with suppress(OSError, ValueError):
        print(text, file=stream, flush=True)


def line(event: Event, at: float) -> str:
    """Return one plain line, without whatever a node's words could do to a terminal."""
    who = f"{event.node:<12} " if event.node else ""
    return f"{time.strftime('%H:%M:%S', time.localtime(at))} {who}{event.phase:<9} {shown(event.text)}"
