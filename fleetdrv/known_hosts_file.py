"""Add lines to a known_hosts file that others write, too: ssh(1), ssh-keygen, a second fleetdrv.

Appended in one write under a lock, never rewritten: a rewriting library loses the comments, markers and types of
keys that it does not understand, and of two writers the slower one's lines.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fleetdrv.known_hosts import Finding, KnownHosts, Verdict, known_line

SALT_BYTES = 20
_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """A key to be known from now on. Host and port as for `KnownHosts.judge`, name as of `lookup_name`."""

    host: str
    port: int
    name: str
    blob: bytes
    hashed: bool = False


def append(path: Path, additions: Sequence[Addition]) -> dict[Addition, Finding]:
    """Add what is not there by now; return what the file says otherwise of, which is left out.

    Raises OSError. A file that is missing is made, readable for its owner alone, and so is its folder.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(path) as descriptor:
        with open(descriptor, "rb", closefd=False) as stream:
            text = stream.read()
        known = KnownHosts()
        known.add(path, text)
        findings = {new: known.judge(new.host, new.port, new.blob) for new in additions}
        fresh = [new for new, finding in findings.items() if finding.verdict is Verdict.UNKNOWN]
        lines = [known_line(new.name, new.blob, os.urandom(SALT_BYTES) if new.hashed else b"") for new in fresh]
        if lines:
            gap = "\n" if text and not text.endswith(b"\n") else ""
            os.write(descriptor, (gap + "".join(f"{line}\n" for line in dict.fromkeys(lines))).encode())
            os.fsync(descriptor)
    return {
        new: finding
        for new, finding in findings.items()
        if finding.verdict in (Verdict.CHANGED, Verdict.REVOKED)
    }


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Open for appending, and lock; again where somebody has put a new file in its place (`ssh-keygen -R`)."""
    for _ in range(_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                yield descriptor
                return
        finally:
            os.close(descriptor)
    raise OSError(f"{path} is replaced all the time")
