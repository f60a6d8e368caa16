"""Commands on one node's connection: bare channels, bounded in every direction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import paramiko
from fabric import Connection
from paramiko import Channel

from fleetdrv.effects import Effects, Kind
from fleetdrv.errors import LinkLost, Permanent, Transient
from fleetdrv.ssh_exchange import CallbackFailed, Deadline, Exchange, Gate, Silence
from fleetdrv.ssh_transport import ADMINISTRATIVELY_PROHIBITED, CHANNEL_SECONDS, FleetTransport, was_refused

_LINK_ERRORS = (Silence, paramiko.SSHException, OSError, EOFError)


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended; 128 + signal when it was killed. `stdout` is empty where a callback took it."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Session:
    """One node's connection for its whole turn; one command at a time per thread, any number in a row."""

    def __init__(self, node: str, connection: Connection, effects: Effects) -> None:
        self.node = node
        self.user = str(connection.user)
        self._connection = connection  # Fabric's, which owns the transport
        self._transport: FleetTransport = connection.transport
        self._effects = effects

    @property
    def alive(self) -> bool:
        """Whether nothing is known against another command; only the next one tells for certain."""
        return bool(self._transport.is_active())

    def run(
        self,
        command: str,
        *,
        step: str,
        stdin: bytes = b"",
        deadline_seconds: float,
        silence_seconds: float | None = None,
        on_stdout: Callable[[bytes], None] | None = None,
        gate: Gate | None = None,
    ) -> Completed:
        """Run one command and return how it ended, exactly as it wrote it.

        With `on_stdout`, standard output is handed over as it comes, in this thread, and not collected.
        With `gate`, the input waits until it is open; so does the limit on silence. What it raises goes through.
        A command costs two round trips, one with `stdin` three (measured): OpenSSH opens the window for input
        only after it has started the command.

        Raises LinkLost when the link died, nothing was written for `silence_seconds`, or the command ended
        without an exit status: it may have run, may be running. Raises Transient at the deadline (the waiting
        ends, not the command), Permanent when the host refuses to run commands. After LinkLost the session is
        closed.
        """
        end = time.monotonic() + deadline_seconds
        exchange: Exchange | None = None
        try:
            with self._channel(step, end) as channel:
                exchange = Exchange(channel, stdin, on_stdout, end, silence_seconds, gate)
                with self._effects.passing(Kind.EXEC, self.node, step):
                    self._transport.request_exec(channel, command)
                    exit_code = exchange.finish()
                    if exit_code is None:
                        raise self._without_status(step, channel)
                return Completed(exit_code, bytes(exchange.stdout), bytes(exchange.stderr))
        except Deadline as error:
            evidence = exchange.tail() if exchange else ""
            cause = f"no end within {deadline_seconds:g} s"
            raise Transient(self.node, step, cause, evidence=evidence) from error
        except CallbackFailed as error:
            raise error.cause from None
        except _LINK_ERRORS as error:
            raise self._lost(step, error, sent=exchange is not None) from error

    def close(self) -> None:
        """Hang up; commands on the node run on or not as the node decides. Any number of times."""
        self._connection.close()
        self._transport.close()  # Fabric does nothing about a link that is down already

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _channel(self, step: str, end: float) -> Iterator[Channel]:
        channel = self._open(step, end)
        try:
            yield channel
        except _LINK_ERRORS:
            self.close()  # first of all: saying good-bye on a stalled link would block
            raise
        finally:
            with suppress(*_LINK_ERRORS):
                channel.close()

    def _open(self, step: str, end: float) -> Channel:
        if not self.alive:
            raise EOFError("the connection is closed")
        try:
            return self._transport.open_session(timeout=max(0.0, min(CHANNEL_SECONDS, end - time.monotonic())))
        except paramiko.ChannelException as error:
            kind = Permanent if error.code == ADMINISTRATIVELY_PROHIBITED else Transient
            cause = f"the host opens no session: {error.text}"
            raise kind(self.node, step, cause, remedy="see MaxSessions in its sshd_config") from error

    def _lost(self, step: str, error: BaseException, *, sent: bool = True) -> LinkLost:
        self.close()
        trouble = self._transport.trouble
        said = self._transport.disconnect_reason or str(error) or str(trouble or "")
        cause = said or self._transport.wire.ending or "the host hung up"
        fate = "whether the command ran is unknown" if sent else "the command was not sent"
        return LinkLost(self.node, step, f"link lost: {cause}; {fate}")

    def _without_status(self, step: str, channel: Channel) -> LinkLost | Permanent:
        """The channel is closed and there is no exit status: whose fault was it?"""
        if was_refused(channel):
            return Permanent(self.node, step, "the host refuses to run commands", remedy="see its sshd's log")
        silent = EOFError("the host closed the command without an exit status")
        return self._lost(step, self._transport.trouble or silent)
