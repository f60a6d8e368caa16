"""Journals of the runs of this machine: JSON lines in the user's state folder. Correctness never needs them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import platformdirs

from fleetdrv.errors import InputError

LAST = "last"
"""Stands for the newest run."""


def folder() -> Path:
    """Return where they are."""
    return Path(platformdirs.user_state_dir("fleetdrv")) / "runs"


def runs() -> list[str]:
    """Return the ids of the runs that this machine drove, the newest first."""
    found = [(path.stat().st_mtime, path.stem) for path in folder().glob("*.jsonl")]
    return [name for _, name in sorted(found, reverse=True)]


def means(wanted: str, known: list[str]) -> list[str]:
    """Return what a whole name, the beginning of one, or `last` can mean; `known` has the newest first."""
    if wanted == LAST:
        return known[:1]
    return [run for run in known if run == wanted] or [run for run in known if run.startswith(wanted)]


def choose(wanted: str, known: list[str], where: str) -> str:
    """Return the one run that is meant. Raises InputError where it is none, or more than one."""
    found = means(wanted, known)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"run {wanted}: {len(found)} runs begin so: {', '.join(found[:5])}")
    near = get_close_matches(wanted, known, 3) or known[:3]
    raise InputError(f"run {wanted}: none {where}; there: {', '.join(near) or 'no run at all'}")


def entries(run: str) -> Iterator[dict[str, Any]]:
    """Yield what was told in a run; a line that was cut off in the middle (full disk, power) is passed over."""
    try:
        lines = (folder() / f"{run}.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"run {run}: its journal cannot be read: {error}") from error
    yield from _entries(lines)


def _entries(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            yield entry


@dataclass(slots=True)
class Tail:
    """A journal that may still be written: each look yields what came since the one before."""

    run: str
    _offset: int = 0
    _rest: bytes = b""

    @property
    def path(self) -> Path:
        """Where it is."""
        return folder() / f"{self.run}.jsonl"

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield what is new; a line without an end waits for it. Raises InputError where it cannot be read."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError as error:
            raise InputError(f"run {self.run}: its journal cannot be read: {error}") from error
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        yield from _entries(line.decode("utf-8", "replace") for line in lines)


def log(run: str, node: str) -> list[str]:
    """Return the lines that a node's jobs said in a run."""
    told = entries(run)
    return [str(entry.get("text")) for entry in told if (entry.get("node"), entry.get("phase")) == (node, "job")]
