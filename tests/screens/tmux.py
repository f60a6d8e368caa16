"""A real terminal of a chosen size: tmux on a server of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

REPOSITORY = Path(__file__).parents[2]


class Terminal:
    """One window in which one command line runs; nothing is left of it after the `with`."""

    def __init__(
        self, folder: Path, command: str, width: int, height: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        kept = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR", "TMUX")}
        self._environment = {**kept, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", **(environment or {})}
        self._run("new-session", "-d", "-x", str(width), "-y", str(height), "-c", str(REPOSITORY), command)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("kill-server")

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            [*self._tmux, *words], capture_output=True, text=True, env=self._environment, check=True, timeout=30
        )
        return done.stdout

    def type(self, *keys: str) -> None:
        """Press keys, by tmux's names, or text."""
        self._run("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        """Change the window."""
        self._run("resize-window", "-x", str(width), "-y", str(height))

    def screen(self, *, scrolled: bool = False, colours: bool = False) -> str:
        """Return what stands on the screen; `scrolled`: with all that has left it above."""
        more = (["-S", "-5000"] if scrolled else []) + (["-e"] if colours else [])
        lines = self._run("capture-pane", "-p", *more).splitlines()
        return "\n".join(line.rstrip() for line in lines).rstrip("\n")

    def cursor(self) -> tuple[str, str, str]:
        """Return whether the cursor is shown (1), its column and its row."""
        shown, column, row = self._run("display", "-p", "#{cursor_flag} #{cursor_x} #{cursor_y}").split()
        return shown, column, row

    def settled(self, *, scrolled: bool = False) -> str:
        """Return the screen once it stays the same."""
        seen = ""
        for _ in range(100):
            before, seen = seen, self.screen(scrolled=scrolled)
            if before == seen != "":
                return seen
            time.sleep(0.1)
        raise AssertionError(f"the screen goes on changing:\n{seen}")

    def until(self, wanted: str | Callable[[str], bool], seconds: float = 60) -> str:
        """Wait for a text on the screen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seen = self.screen(scrolled=True)
            if wanted in seen if isinstance(wanted, str) else wanted(seen):
                return seen
            time.sleep(0.1)
        raise AssertionError(f"{wanted} is not on the screen:\n{seen}")


def line(*words: str | Path) -> str:
    """Return a command line that leaves the terminal open after its end."""
    return f"{shlex.join(map(str, words))}; exec sleep 300"
