"""Put a file in its place as a whole: who reads it at any time sees the former one or the new one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def put(path: Path, data: bytes, mode: int) -> None:
    """Write the file beside its place, hidden, and rename it. Raises OSError; then nothing is left of it."""
    descriptor, name = tempfile.mkstemp(prefix=".fleetdrv-", dir=path.absolute().parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
