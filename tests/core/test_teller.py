"""What is told, where: lines, a live view, JSON lines, a heartbeat, an answer; none of it disturbs a run."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fleetdrv import teller as telling
from fleetdrv.events import Event, Level
from fleetdrv.lines import Row
from fleetdrv.screen import Screen, asking, fits
from fleetdrv.teller import HEARTBEAT_SECONDS, Teller

WARNING = Event(node="n1", phase="rollback", text="exit \x1b[31m75", level=Level.WARNING)
STAGE = Event(node="n1", phase="stage", text="toy: trial build")
STANDS = Event(node="n1", phase="stand", text="staging", level=Level.DETAIL)


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def teller(clock: list[float], **more: Any) -> Teller:
    """Return a teller whose time stands still; what it said is in its stream."""
    return Teller(stream=io.StringIO(), now=lambda: clock[0], wall=lambda: 1_000_000.0 + clock[0], **more)


def said(one: Teller) -> list[str]:
    """Return the lines on its stream."""
    assert isinstance(one.stream, io.StringIO)
    return one.stream.getvalue().splitlines()


def test_without_a_terminal_each_event_is_a_line_that_moves_no_cursor() -> None:
    one = teller([0.0])
    for event in (STANDS, STAGE, WARNING):
        one(event)
    assert [line.split(maxsplit=1)[1] for line in said(one)] == [
        "n1           stage     toy: trial build", "n1           rollback  exit ?[31m75"
    ]


def test_quiet_tells_warnings_and_has_no_heartbeat() -> None:
    clock = [0.0]
    one = teller(clock, quiet=True)
    with one.watching("toy", 2):
        for event in (STANDS, STAGE, WARNING):
            one(event)
        clock[0] = 10 * HEARTBEAT_SECONDS
        one.tick()
    assert [line.split()[2] for line in said(one)] == ["rollback"]


@pytest.mark.parametrize("log_json", [False, True])
def test_a_heartbeat_comes_while_something_goes_on_and_says_who_waits(log_json: bool) -> None:
    clock = [0.0]
    one = teller(clock, log_json=log_json)
    beats = []
    with one.watching("toy", 2, 1):
        one(STANDS)
        one(STAGE)
        for second in range(200):
            clock[0] = float(second)
            before = len(said(one))
            one.tick()
            beats += [second] if len(said(one)) > before else []
    clock[0] = 1000.0
    one.tick()
    assert beats == [45, 90, 135, 180]
    last = said(one)[-1]
    if log_json:
        assert json.loads(last)["phase"] == "waiting"
    assert "n1 stage for 3 min 0 s: toy: trial build" in last


def test_an_answer_is_given_once_also_where_nothing_is_shown() -> None:
    one = teller([5.0], quiet=True)
    one.asked = True
    one.tick()
    one.tick()
    assert len(said(one)) == 1


def test_the_journal_has_everything_and_the_terminal_only_what_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    stream = Tty()
    one = Teller(screen=Screen(stream))
    path = Path(one.keep("r1"))
    for event in (STANDS, STAGE, WARNING):
        one(event)
    one.close()
    assert [json.loads(line)["phase"] for line in path.read_text().splitlines()] == ["stand", "stage", "rollback"]
    assert path.stat().st_mode & 0o077 == 0
    assert "trial build" not in stream.getvalue()
    assert "exit ?[31m75" in stream.getvalue()


def test_nothing_is_drawn_over_a_question_and_nothing_waits_for_its_answer() -> None:
    stream = Tty()
    screen = Screen(stream)
    screen.draw([Row("the view")])
    told = threading.Event()
    with asking():
        stream.write("passphrase: ")
        before = stream.getvalue()

        def tell() -> None:
            screen.above([Row("a warning")])
            screen.draw([Row("the next view")])
            told.set()

        threading.Thread(target=tell).start()
        assert told.wait(10)
        assert stream.getvalue() == before
    screen.draw([Row("the last view")])
    after = stream.getvalue().removeprefix(before)
    assert after.index("a warning") < after.index("the last view")
    assert "the next view" not in after


@pytest.mark.parametrize(
    ("terminal", "environment", "drawn"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, True),
        (False, {"TERM": "xterm"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {}, False),
        (True, {"TERM": "xterm", "CI": "true"}, False),
    ],
)
def test_it_is_drawn_where_somebody_can_see_it(terminal: bool, environment: dict[str, str], drawn: bool) -> None:
    assert fits(Tty() if terminal else io.StringIO(), environment) is drawn


def test_colours_are_for_who_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    shown = {}
    for colour in ("", "1"):
        monkeypatch.setenv("NO_COLOR", colour)
        stream = Tty()
        Screen(stream).draw([Row("bad", telling.Tone.BAD)])
        shown[colour] = stream.getvalue()
    assert "\x1b[31m" in shown[""]
    assert "\x1b[31m" not in shown["1"]
    assert "\x1b[?25" not in "".join(shown.values()), "the cursor is never hidden, so nothing can leave it hidden"


ASKED = """
import os, signal, sys, time
from fleetdrv.events import Event, Level
from fleetdrv.teller import telling
with telling(quiet=False, log_json=False) as say:
    with say.watching("toy", 2, 1):
        say(Event(node="n1", phase="look", text="", level=Level.DETAIL))
        print("ready", flush=True)
        sys.stdin.readline()
    print("done", flush=True)
print(signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL)
"""


def test_a_signal_is_answered_and_ends_nothing() -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", ASKED]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        assert process.stdin
        assert process.stderr
        assert process.stdout.readline() == "ready\n"
        for _ in range(3):
            os.kill(process.pid, signal.SIGUSR1)
            assert process.stderr.readline().startswith("toy: looked at 0 of 2 nodes; ")
            assert process.stderr.readline().startswith("n1: look since ")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.read() == "done\nTrue\n"
    assert process.returncode == 0
