"""One command's three streams over a bare channel, moved by the thread that wants its result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from paramiko import Channel
from paramiko.buffered_pipe import BufferedPipe

LINGER_SECONDS = 5.0
"""Wait for the streams' ends after the exit status: a daemon started by a postinst script may hold them."""
CHUNK_BYTES = 65536


class Deadline(Exception):
    """The caller's time is over."""


class Silence(Exception):
    """The caller's limit for no output at all is over."""


class CallbackFailed(Exception):
    """Not ours: raised by the receiver of standard output."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


class Gate(Protocol):
    """Stands between a command and its input, until whoever starts the command has let us in."""

    @property
    def open(self) -> bool:
        """Whether the input may go out."""
        ...

    def hear(self, stderr: bytearray, /) -> bytes:
        """Take all of standard error so far, which may be shortened; return what is to be written now."""
        ...

    def patience(self) -> float:
        """Return for how many seconds the gate is still waited for; raises when the time is over."""
        ...


class _Arrival(threading.Event):
    """Set when either stream has something. Paramiko's pipes clear their event when they run empty; this one
    is shared by two pipes, so only its reader may clear it."""

    def clear(self) -> None:
        """Ignore the pipes' wish."""

    def rearm(self) -> None:
        super().clear()


class _Plenty(threading.Event):
    """A stream whose bytes nobody waits for, only its end: one is woken for a full chunk, not for each line.

    A look's answer comes in some twenty packets, and waking a thread for each was a tenth of its CPU.
    """

    def __init__(self, arrival: _Arrival, stream: BufferedPipe[Any]) -> None:
        super().__init__()
        self._arrival, self._stream = arrival, stream

    def set(self) -> None:
        super().set()
        # Paramiko calls this with the stream's lock held, so its length is not to be asked for.
        if self._stream._closed or len(self._stream._buffer) >= CHUNK_BYTES:  # type: ignore[attr-defined]
            self._arrival.set()


class _Status(threading.Event):
    """The exit status has come: that too is an arrival, though no byte comes with it."""

    def __init__(self, arrival: _Arrival) -> None:
        super().__init__()
        self._arrival = arrival

    def set(self) -> None:
        super().set()
        self._arrival.set()


class _Room(threading.Condition):
    """The host takes more input: the third thing worth waking up for."""

    def __init__(self, lock: Any, arrival: _Arrival) -> None:
        super().__init__(lock)
        self._arrival = arrival

    def notify_all(self) -> None:
        super().notify_all()
        self._arrival.set()


class Exchange:
    """One command's streams, moved by one thread without a descriptor or a poll per channel.

    Both streams are drained all the time: 2 MiB unread on either would block the command for ever.
    """

    def __init__(
        self,
        channel: Channel,
        stdin: bytes,
        on_stdout: Callable[[bytes], None] | None,
        end: float,
        silence_seconds: float | None,
        gate: Gate | None = None,
    ) -> None:
        self._channel = channel
        self._gate = gate
        self._answer = b""
        """What the gate wants written before the input."""
        self._unsent = memoryview(stdin)
        self._on_stdout = on_stdout
        self._end = end
        self._silence = silence_seconds
        self._moved_at = time.monotonic()
        self.stdout, self.stderr = bytearray(), bytearray()
        self._arrival = _Arrival()
        channel.in_buffer.set_event(self._arrival)
        channel.in_stderr_buffer.set_event(self._arrival)
        if gate is None:
            self._sleep_through()
        channel.status_event = _Status(self._arrival)
        channel.out_buffer_cv = _Room(channel.lock, self._arrival)

    def finish(self) -> int | None:
        """Move bytes until the command has ended; return its exit code, None when the host gave none."""
        self._channel.settimeout(0.0)
        while True:
            self._arrival.rearm()
            over = self._channel.closed  # asked before draining: whatever came before the close is taken
            moved = self._drain() | self._feed()
            if moved:
                self._moved_at = time.monotonic()
            elif over or self._lingered():
                break
            patience = self._patience()
            if not moved:
                self._arrival.wait(patience)
        return self._channel.exit_status if self._channel.exit_status >= 0 else None

    def _sleep_through(self) -> None:
        """Where nobody waits for single bytes, be woken for many of them and for the end only."""
        if self._on_stdout is None and self._silence is None:
            for stream in (self._channel.in_buffer, self._channel.in_stderr_buffer):
                stream.set_event(_Plenty(self._arrival, stream))

    def tail(self) -> str:
        """Return the last lines of output, as evidence for a message."""
        return (self.stderr or self.stdout)[-2000:].decode("utf-8", "replace")

    def _drain(self) -> bool:
        """Take what is there, a bounded amount: a command that never stops talking must meet its deadline."""
        out, err = self._channel.recv_ready(), self._channel.recv_stderr_ready()
        if out:
            self._take(self._channel.recv(CHUNK_BYTES))
        if err:
            self.stderr += self._channel.recv_stderr(CHUNK_BYTES)
            if self._gate is not None and not self._gate.open:
                self._answer += self._gate.hear(self.stderr)
                if self._gate.open:
                    self._sleep_through()
        return out or err

    def _take(self, data: bytes) -> None:
        if self._on_stdout is None:
            self.stdout += data
            return
        try:
            self._on_stdout(data)
        except Exception as error:
            raise CallbackFailed(error) from error

    def _feed(self) -> bool:
        """Send what the host has room for, then end the command's standard input."""
        if self._channel.eof_sent or self._channel.closed:
            return False
        if self._gate is not None and not self._gate.open:
            sent = self._send(self._answer)
            self._answer = self._answer[sent:]
            return sent > 0
        sent = self._send(self._unsent[:CHUNK_BYTES])
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._channel.shutdown_write()
        return sent > 0

    def _send(self, data: bytes | memoryview) -> int:
        """Return how much went out: nothing where there is no room now, or the command just ended."""
        if not data:
            return 0
        try:
            return self._channel.send(bytes(data))
        except OSError:  # TimeoutError among them; a command may end without reading all
            return 0

    def _lingered(self) -> bool:
        return self._channel.exit_status_ready() and time.monotonic() - self._moved_at > LINGER_SECONDS

    def _patience(self) -> float:
        """Return how long to wait for bytes; raises when a limit is reached."""
        now = time.monotonic()
        if now >= self._end:
            raise Deadline
        limits = [self._end - now]
        if self._gate is not None and not self._gate.open:
            limits.append(self._gate.patience())
        elif self._silence is not None:
            left = self._moved_at + self._silence - now
            if left <= 0:
                raise Silence(f"nothing was heard for {self._silence:g} s")
            limits.append(left)
        if self._channel.exit_status_ready():
            limits.append(LINGER_SECONDS)
        return min(limits)
