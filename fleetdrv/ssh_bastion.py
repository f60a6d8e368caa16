"""Jump hosts: one connection each for the whole fleet, one forwarded channel per node.

A log-in per node would run into the bastion's MaxStartups and ask for a one-time code per node. MaxSessions
does not count forwarded channels (measured: 100 of them with MaxSessions 1).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import paramiko

from fleetdrv.dial import Wire
from fleetdrv.errors import NodeError, Permanent, Unreachable, WayLost
from fleetdrv.ssh_handshake import STEP
from fleetdrv.ssh_settings import Target
from fleetdrv.ssh_transport import ADMINISTRATIVELY_PROHIBITED, CHANNEL_SECONDS, FleetTransport

FRESH_SECONDS = 2.0
"""A failure this young is reported again instead of dialling again: all waiting nodes would, one by one."""

Open = Callable[[Target, str, float], FleetTransport]
"""Target, node on whose behalf, time.monotonic() of the end."""


class Bastions:
    """All jump hosts of a run; for many threads."""

    def __init__(self, open_transport: Open) -> None:
        self._open = open_transport
        self._lock = threading.Lock()
        self._bastions: dict[Target, _Bastion] = {}

    def wire(self, jump: Target, address: str, port: int, *, node: str, end: float) -> Wire:
        """Return a byte stream to address:port as the jump host sees it."""
        with self._lock:
            bastion = self._bastions.setdefault(jump, _Bastion(jump, self._open))
        return bastion.wire(address, port, node=node, end=end)

    def away(self) -> str:
        """Name the jump hosts that were there before and are not now."""
        with self._lock:
            bastions = list(self._bastions.values())
        return ", ".join(away for bastion in bastions if (away := bastion.away))

    def suspect(self) -> None:
        """Hang up on all of them; each is dialled again when it is needed."""
        with self._lock:
            bastions = list(self._bastions.values())
        for bastion in bastions:
            bastion.suspect()

    def close(self) -> None:
        """Hang up on all of them."""
        with self._lock:
            bastions = list(self._bastions.values())
            self._bastions.clear()
        for bastion in bastions:
            bastion.close()


class _Bastion:
    def __init__(self, target: Target, open_transport: Open) -> None:
        self._target = target
        self._open = open_transport
        self._lock = threading.Lock()
        self._transport: FleetTransport | None = None
        self._failure: NodeError | None = None
        self._failed_at = 0.0
        self._was_up = False

    @property
    def away(self) -> str:
        """Name it if it was there before and is not now."""
        gone = self._was_up and not (self._transport is not None and self._transport.is_active())
        return str(self._target) if gone else ""

    def wire(self, address: str, port: int, *, node: str, end: float) -> Wire:
        transport = self._connected(node, end)
        limit = max(0.0, min(CHANNEL_SECONDS, end - time.monotonic()))
        try:
            channel = transport.open_channel("direct-tcpip", (address, port), ("", 0), timeout=limit)
        except paramiko.ChannelException as error:
            raise self._refused(node, address, port, error) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._unreachable(node, f"bastion {self._target}: {error or 'hung up'}") from error
        return Wire(channel)

    def _refused(self, node: str, address: str, port: int, error: paramiko.ChannelException) -> NodeError:
        cause = f"bastion {self._target} opens no way to {address}:{port}: {error.text}"
        if error.code == ADMINISTRATIVELY_PROHIBITED:
            return Permanent(
                node, STEP, cause, remedy="see AllowTcpForwarding and PermitOpen in the bastion's sshd_config"
            )
        return Unreachable(node, STEP, cause)

    def _connected(self, node: str, end: float) -> FleetTransport:
        if not self._lock.acquire(timeout=max(0.0, end - time.monotonic())):
            raise self._unreachable(node, f"bastion {self._target} is still being connected")
        try:
            if self._transport is not None and self._transport.is_active():
                return self._transport
            self._raise_known_failure(node)
            self._hang_up()
            try:
                self._transport = self._open(self._target, node, end)
            except NodeError as error:
                if isinstance(error, Unreachable):
                    error = self._unreachable(node, error.cause, evidence=error.evidence, remedy=error.remedy)
                self._failure, self._failed_at = error, time.monotonic()
                self._raise_known_failure(node)
                raise  # not reached: the failure is fresh
            self._failure, self._was_up = None, True
            return self._transport
        finally:
            self._lock.release()

    def _unreachable(self, node: str, cause: str, **more: str) -> Unreachable:
        """One that was there before is waited for, and the nodes behind it are not to blame."""
        return (WayLost if self.away else Unreachable)(node, STEP, cause, **more)

    def _raise_known_failure(self, node: str) -> None:
        """A permanent failure stays for the run: more failed log-ins would only get the laptop locked out."""
        error = self._failure
        if error is None:
            return
        if isinstance(error, Permanent) or time.monotonic() - self._failed_at < FRESH_SECONDS:
            # Not type(error): whoever dials the node would take refused keys for its own (KeysRefused)
            kind = Permanent if isinstance(error, Permanent) else type(error)
            cause = f"bastion {error.cause}"
            raise kind(node, STEP, cause, evidence=error.evidence, remedy=error.remedy) from error

    def close(self) -> None:
        with self._lock:
            self._hang_up()

    def suspect(self) -> None:
        """Hang up; the next who needs it dials anew."""
        transport = self._transport
        if transport is not None:
            transport.close()

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None
