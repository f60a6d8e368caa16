"""What an operator sees of a rollout with failures, on a real terminal: looked at, and kept as golden text.

`python -m tests.screens.test_screens` takes the pictures anew; look at them before they are committed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.screens.tmux import REPOSITORY, Terminal

GOLDEN = REPOSITORY / "tests" / "golden" / "screens"
STOPS = {2: (20, 75, 112, 121), 1000: (20, 400, 1475)}
"""Seconds of the recorded rollout at which it is looked at."""
SIZES = ((2, 80, 24), (2, 200, 50), (2, 40, 20), (1000, 80, 24), (1000, 200, 50), (1000, 40, 20))


def player(mark: Path, nodes: int) -> str:
    """Return the command line that shows the recorded rollout."""
    stops = " ".join(map(str, STOPS[nodes]))
    return f"stty -echo; {sys.executable} -m tests.screens.play {mark} {nodes} {stops}; exec sleep 300"


def stood(mark: Path, times: int) -> None:
    """Wait until the player stands still for the so many-th time."""
    for _ in range(600):
        if mark.exists() and mark.stat().st_size >= times:
            return
        time.sleep(0.1)
    raise AssertionError("the player does not come so far")


def pictures(folder: Path, nodes: int, width: int, height: int) -> str:
    """Return all pictures of one terminal: at each stop, and of the end with all that was scrolled away."""
    mark, taken = folder / "mark", []
    with Terminal(folder, player(mark, nodes), width, height) as terminal:
        for number, seconds in enumerate(STOPS[nodes], start=1):
            stood(mark, number)
            taken.append(f"{f' after {seconds} s ':=^{width}}\n{terminal.settled()}")
            assert terminal.cursor()[:2] == ("1", "0"), "shown, at the start of a line"
            terminal.type("Enter")
        stood(mark, len(STOPS[nodes]) + 1)
        taken.append(f"{' the end ':=^{width}}\n{terminal.settled(scrolled=True)}")
        assert terminal.cursor()[:2] == ("1", "0")
    return "\n".join(taken) + "\n"


def golden(nodes: int, width: int) -> Path:
    """Return where the pictures of one terminal are kept."""
    return GOLDEN / f"{nodes}-nodes-{width}-columns.txt"


@pytest.mark.parametrize(("nodes", "width", "height"), SIZES)
def test_a_rollout_with_failures_looks_as_it_did(tmp_path: Path, nodes: int, width: int, height: int) -> None:
    assert pictures(tmp_path, nodes, width, height) == golden(nodes, width).read_text()


def test_a_window_that_changes_its_size_keeps_no_view_and_every_warning(tmp_path: Path) -> None:
    """What tmux pushes off the screen as it narrows a window is beyond reach, so the screen alone is looked at."""
    mark = tmp_path / "mark"
    with Terminal(tmp_path, player(mark, 1000), 120, 24) as terminal:
        for number, width in enumerate((50, 100, 30), start=1):
            stood(mark, number)
            terminal.settled()
            terminal.resize(width, 24)
            terminal.type("Enter")
        stood(mark, len(STOPS[1000]) + 1)
        left = terminal.settled()
        seen = terminal.settled(scrolled=True)
    joined = seen.replace("\n", "")
    assert "at work" not in left
    for node in ("gpu-0241", "gpu-0002", "gpu-0194", "gpu-0970"):
        assert f"{node}     end" in joined


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for nodes, width, height in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            golden(nodes, width).write_text(pictures(Path(folder), nodes, width, height))
