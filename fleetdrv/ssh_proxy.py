"""ProxyCommand: a program of the operator's that stands in for the TCP connection to a host (ssh_config(5)).

One process per connection, in a session of its own: it can ask nothing on the terminal, where many would ask at
once, and Ctrl-C is for fleetdrv alone, which finishes the nodes in hand.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress
from typing import IO

from fleetdrv.dial import Wire
from fleetdrv.secret import hide

END_SECONDS = 2.0
"""For the program to end when it is told to; then it is killed."""
_TAIL_BYTES = 2000
_SHELL = "/bin/sh"
_NOT_STARTED = (126, 127)
"""Exit codes with which a shell says that there is no such program."""


class ProxyWire(Wire):
    """A wire to a program: what it says on stdout comes in, what goes out is its stdin."""

    def __init__(self, command: str) -> None:
        """Start it in the user's shell, as ssh(1) does. Raises OSError."""
        ours, theirs = socket.socketpair()
        # A file and no pipe: nobody has to read it, and the program never waits for that.
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                (os.environ.get("SHELL") or _SHELL, "-c", "exec " + command.strip().removeprefix("exec ")),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._said,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            self._said.close()
            raise
        finally:
            theirs.close()
        super().__init__(ours)
        self._lock = threading.Lock()
        self._hung_up = False
        self._last_words = ""

    def recv(self, size: int) -> bytes:
        """Return at least one byte, or none at the end of the stream; raises TimeoutError in between."""
        try:
            data = super().recv(size)
        except ConnectionResetError:  # it ended with words of ours unread
            data = b""
        self._hung_up = self._hung_up or not data
        return data

    @property
    def ending(self) -> str:
        """What it said last, and how it ended if it did. Empty where it runs and is silent."""
        with self._lock:
            return self._last_words if self._said.closed else self._told()

    @property
    def hopeless(self) -> bool:
        """Whether there is no such program."""
        with self._lock:
            return self._code() in _NOT_STARTED

    def close(self) -> None:
        """Hang up, and end what does not end by itself then; any number of times, never raising."""
        super().close()
        with self._lock:
            if self._said.closed:
                return
            self._last_words = self._told()  # before it ends by our hand
            self._said.close()
            if self._process.poll() is None:
                self._signal(signal.SIGHUP)  # as ssh(1) does
                try:
                    self._process.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    self._signal(signal.SIGKILL)
                    self._process.wait()

    def _code(self) -> int | None:
        """Return how it ended, None while it runs; one that hung up is waited for a moment."""
        with suppress(subprocess.TimeoutExpired):
            return int(self._process.wait(END_SECONDS if self._hung_up else 0.0))
        return None

    def _told(self) -> str:
        code, number = self._code(), self._said.fileno()
        begin = max(0, os.fstat(number).st_size - _TAIL_BYTES)
        text = os.pread(number, _TAIL_BYTES, begin).decode("utf-8", "replace")  # its own place stays where it is
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        how = f"ProxyCommand ended with exit code {code}" if code is not None else "ProxyCommand says"
        if not lines:
            return "" if code is None else how
        return hide(f"{how}: {'; '.join(lines[-3:])}")

    def _signal(self, number: signal.Signals) -> None:
        """To all that it started, too, unless they went into sessions of their own."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
