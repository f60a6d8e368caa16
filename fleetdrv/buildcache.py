"""Finished builds in a folder of the operator's cache: kept from run to run, never believed without their digest.

One file for each build, KEY-SHA256.tar.gz, put there by a rename. Any number of controllers may use the folder
at once: there is no index and no lock, a file that another one removed meanwhile is only not there. A file
whose bytes have another digest than its name is removed and told.

A build comes from a node and goes to others. Whoever is root on a node can so put code into every node that
needs the same build; the digest guards what lies here, not against a node that lies.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

LIMIT_BYTES = 4 * 1024**3
"""NVIDIA's modules for one kernel pack into some 30 MB."""

_LEFT_OVER_SECONDS = 86400.0


def default_folder() -> Path:
    """Name the folder where builds are kept on this machine."""
    return Path(platformdirs.user_cache_dir("fleetdrv")) / "builds"


@dataclass(slots=True, kw_only=True)
class BuildCache:
    """The folder. Without a usable one nothing is kept, `note` is told once, and every node compiles."""

    folder: Path
    note: Callable[[str], None]
    limit_bytes: int = LIMIT_BYTES
    usable: bool = True

    def has(self, key: str) -> bool:
        """Tell whether there is a file for that key, without reading it."""
        return bool(self._files(key))

    def get(self, key: str) -> bytes | None:
        """Return a build, if there is an undamaged one; it counts as used now."""
        for path in self._files(key):
            with suppress(OSError):
                data = path.read_bytes()
                if hashlib.sha256(data).hexdigest() == _digest(path):
                    os.utime(path)
                    return data
                path.unlink()
                self.note(f"{path}: damaged or tampered with, its SHA-256 is another; removed, compiled again")
        return None

    def put(self, key: str, data: bytes) -> None:
        """Keep a build; the longest unused go where the folder grows too large."""
        try:
            self._prepare()
            digest = hashlib.sha256(data).hexdigest()
            new = self.folder / f".new.{key[:16]}.{os.getpid()}.{time.monotonic_ns()}"
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.rename(self.folder / f"{key}-{digest}.tar.gz")
            self._make_room()
        except OSError as error:
            why = error.strerror or error
            self._give_up(f"{self.folder}: no build can be kept there, so each node compiles: {why}")

    def _files(self, key: str) -> list[Path]:
        """An unusable folder holds nothing: somebody else may have written what lies there."""
        if not key or not self.usable or not self._ours():
            return []
        return sorted(self.folder.glob(f"{key}-*.tar.gz"))

    def _ours(self) -> bool:
        try:
            found = self.folder.stat()
        except OSError:
            return False
        if found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return True
        self._give_up(f"{self.folder}: others can write there; no build in it is used. Make it yours, mode 0700")
        return False

    def _prepare(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._ours():
            raise PermissionError("not ours alone")
        self.folder.chmod(0o700)

    def _make_room(self) -> None:
        """Remove the longest unused until the rest fits, and what killed controllers left half-written.

        The newest stays, however large: other nodes wait for it.
        """
        kept = 0
        files = [(path, found) for path in self.folder.iterdir() if (found := _stat(path))]
        for path, found in sorted(files, key=lambda item: -item[1].st_mtime_ns):
            if path.name.startswith(".new."):
                if time.time() - found.st_mtime > _LEFT_OVER_SECONDS:
                    path.unlink(missing_ok=True)
                continue
            if kept and kept + found.st_size > self.limit_bytes:
                path.unlink(missing_ok=True)
            else:
                kept += found.st_size

    def _give_up(self, text: str) -> None:
        if self.usable:
            self.usable = False
            self.note(text)


def _digest(path: Path) -> str:
    return path.name.removesuffix(".tar.gz").rpartition("-")[2]


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None  # another controller made room
