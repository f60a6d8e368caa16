"""Evidence in one file that can be sent to somebody: a .tar.gz that only its owner may read."""

from __future__ import annotations

import io
import re
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from fleetdrv import atomic
from fleetdrv.errors import InputError


def destination(output: str, node: str) -> Path:
    """Return where a bundle goes: what was asked for, or a new name in the user's state folder.

    Raises InputError, before any node is asked, where it could not be written there.
    """
    if not output:
        folder = Path(platformdirs.user_state_dir("fleetdrv")) / "diagnoses"
        name = re.sub(r"[^A-Za-z0-9._-]", "_", node).lstrip(".") or "node"
        return folder / f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.tar.gz"
    path = Path(output).expanduser()
    if path.exists() or path.is_symlink():
        raise InputError(f"--output {path}: is there already; name a file that is not")
    if not path.parent.is_dir():
        raise InputError(f"--output {path}: there is no folder {path.parent}")
    return path


def write(path: Path, files: Mapping[str, str]) -> None:
    """Write it, mode 0600, by a rename. Raises InputError where the disk or a permission forbids it."""
    top, stream = path.name.partition(".tar")[0], io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for inner, text in files.items():
            data = text.encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"{top}/{inner}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
            tar.addfile(entry, io.BytesIO(data))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        atomic.put(path, stream.getvalue(), 0o600)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
