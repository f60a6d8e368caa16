"""Proof that nothing was touched: every socket and every child of this process is heard of."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TOUCHES = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "pty.")
_listeners: list[list[str]] = []
_installed: list[bool] = []


def _hear(event: str, _: tuple[Any, ...]) -> None:
    if _listeners and event.startswith(_TOUCHES):
        for heard in _listeners:
            heard.append(event)


@contextmanager
def listening() -> Iterator[list[str]]:
    """Yield the list of audit events that open a socket or start a child, as they happen."""
    if not _installed:
        sys.addaudithook(_hear)  # it stays for the life of the process
        _installed.append(True)
    heard: list[str] = []
    _listeners.append(heard)
    try:
        yield heard
    finally:
        _listeners.remove(heard)


if __name__ == "__main__":  # python -m tests.core.guard ARGUMENTS…: the program, heard from its start
    with listening() as touched:
        from fleetdrv.main import program

        try:
            program.run(["fleetdrv", *sys.argv[1:]])
        finally:
            print("\n".join(f"touched: {event}" for event in touched), file=sys.stderr)
