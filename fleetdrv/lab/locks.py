"""One at a time: a lock that the kernel drops when its holder dies, so none has to be cleared by hand."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(path: Path, waiting: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file while the block runs; says `waiting` when another process holds it, and waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
