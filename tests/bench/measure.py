"""Run a command and count what its whole process tree costs: CPU of all descendants, the orphaned ones included.

OpenSSH's ControlPersist masters leave their parents, so this process is the subreaper of what it starts: whoever
is orphaned becomes its child, is ended after the run, and is counted.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run cost and said."""

    code: int
    wall_seconds: float
    cpu_seconds: float
    peak_rss_mb: float
    """Of all processes of the tree together, sampled; pages that they share are counted once for each."""
    out: str


@contextmanager
def _subreaper() -> Iterator[None]:
    """Be the parent of orphans, for this long only: nobody else in this process would ever wait for them."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@_subreaper()
def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = 900,
    sample: bool = False,
) -> Cost:
    """Run a command to its end. What it leaves running is ended, its CPU counted."""
    before, began = _children(), time.monotonic()
    with tempfile.TemporaryFile() as said:  # not a pipe: whoever is left behind may hold it open
        process = subprocess.Popen(
            argv,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        fuse = threading.Timer(seconds, os.kill, (process.pid, signal.SIGKILL))  # Popen's own would reap it
        fuse.start()
        peak = _Peak(process.pid) if sample else None
        _, status, usage = os.wait4(process.pid, 0)
        fuse.cancel()
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        out = said.read()
    cpu = usage.ru_utime + usage.ru_stime + _reap(_children() - before)
    return Cost(
        code=process.returncode,
        wall_seconds=wall,
        cpu_seconds=cpu,
        peak_rss_mb=peak.end() if peak else 0.0,
        out=out.decode("utf-8", "replace"),
    )


def _children() -> frozenset[int]:
    path = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return frozenset(int(word) for word in path.read_text().split())


def _reap(orphans: Iterable[int]) -> float:
    """End what a run left behind; return its CPU."""
    spent = 0.0
    for pid in orphans:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGTERM)
            _, _, usage = os.wait4(pid, 0)
            spent += usage.ru_utime + usage.ru_stime
    return spent


class _Peak:
    """The most memory that a process and its descendants held at once, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self._pid, self._most, self._over = pid, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> float:
        self._over.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self._most = max(self._most, sum(_rss_mb(pid) for pid in _tree(self._pid)))


def _tree(pid: int) -> Iterator[int]:
    """Yield a process and its descendants. A fork that is not its program yet is its parent, seen twice."""
    yield pid
    with suppress(OSError):
        program = os.readlink(f"/proc/{pid}/exe")
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                if os.readlink(f"/proc/{child}/exe") != program:
                    yield from _tree(int(child))


def _rss_mb(pid: int) -> float:
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6
    return 0.0
