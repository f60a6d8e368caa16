"""From a name to a byte stream: resolve, connect, and a wire that notices when nobody is there any more.

Paramiko connects without any socket option, tries addresses one after the other, and retries a stalled
write for ever. Here every step has a limit in seconds and the caller hears of it as an OSError.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import resource
import selectors
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Any, Protocol

STAGGER_SECONDS = 0.25
"""Head start of one address before the next is tried as well (RFC 8305 recommends 250 ms)."""
USER_TIMEOUT_SECONDS = 30
"""Unacknowledged data for this long ends the connection, instead of the kernel's 15 minutes."""
AHEAD_BYTES = 32 * 1024
"""Taken from the wire at once: Paramiko asks for each packet in two or three pieces, forty times in one look."""
SEND_STALL_SECONDS = 30.0
"""A peer that takes no byte for this long is gone. Needed beside the kernel's limit: a wire through a
bastion has no socket of its own."""

Address = tuple[Any, ...]
Candidate = tuple[socket.AddressFamily, Address]


class Carrier(Protocol):
    """What a wire runs on: a socket, or a channel through a bastion."""

    def send(self, data: bytes, /) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def settimeout(self, seconds: float, /) -> None: ...
    def close(self) -> None: ...
    def getpeername(self) -> Any: ...


class Wire:
    """A byte stream in the shape that Paramiko expects, which knows when it last heard something."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._closed = False  # Paramiko reads this name, as on a socket
        self._ahead, self._taken = b"", 0
        self._stalled_since: float | None = None
        self._heard = time.monotonic()

    @property
    def ending(self) -> str:
        """What the carrier says of its own end; empty where it says nothing."""
        return ""

    @property
    def hopeless(self) -> bool:
        """Whether another try would end as this one did."""
        return False

    @property
    def silent_seconds(self) -> float:
        """Seconds since the last byte came in."""
        return time.monotonic() - self._heard

    def recv(self, size: int) -> bytes:
        """Return at least one byte, or none at the end of the stream; raises TimeoutError in between.

        For one thread: what comes with the bytes that were asked for is kept for the next call.
        """
        if self._taken == len(self._ahead):
            self._ahead, self._taken = self._carrier.recv(max(size, AHEAD_BYTES)), 0
            self._heard = time.monotonic()
        data = self._ahead[self._taken : self._taken + size]
        self._taken += len(data)
        return data

    def send(self, data: bytes) -> int:
        """Return how many bytes went out; raises once the peer has taken none for `SEND_STALL_SECONDS`.

        Callers are serialised by Paramiko's write lock. A TimeoutError it would only try again.
        """
        try:
            sent = self._carrier.send(data)
        except TimeoutError:
            now = time.monotonic()
            self._stalled_since = self._stalled_since or now
            if now - self._stalled_since >= SEND_STALL_SECONDS:
                raise ConnectionAbortedError(errno.ECONNABORTED, "the peer takes no more data") from None
            raise
        self._stalled_since = None
        return sent

    def settimeout(self, seconds: float) -> None:
        """Limit each single `recv` and `send`."""
        self._carrier.settimeout(seconds)

    def getpeername(self) -> Any:
        """Return the far end's address, as a socket does."""
        return self._carrier.getpeername()

    def shut(self) -> None:
        """Make a blocked `recv` in another thread return at once. Closing alone would not wake it."""
        with suppress(Exception):  # gone already; a channel says good-bye, on a bastion that may be gone
            if isinstance(self._carrier, socket.socket):
                self._carrier.shutdown(socket.SHUT_RDWR)
            else:
                self._carrier.close()

    def close(self) -> None:
        """Give the descriptor back; any number of times, never raising: Paramiko's reader ends with this."""
        self._closed = True
        with suppress(Exception):
            self._carrier.close()


def connect(host: str, port: int, *, within_seconds: float) -> Wire:
    """Open a TCP connection to the first address that answers.

    Raises socket.gaierror when the name does not resolve, otherwise the OSError of the last address.
    """
    end = time.monotonic() + within_seconds
    candidates = interleave(resolve(host, port, within_seconds=within_seconds))
    sock = _race(candidates, end)
    try:
        _tune(sock)
    except OSError:
        sock.close()
        raise
    return Wire(sock)


def resolve(host: str, port: int, *, within_seconds: float) -> list[Candidate]:
    """Look the name up. A literal address asks nobody.

    getaddrinfo cannot be interrupted, so a name is looked up in a thread of its own that is left behind
    when the time is over; the C library ends it after its own limit (resolv.conf, `timeout` x `attempts`).
    """
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    else:
        return _getaddrinfo(host, port)
    answer: list[list[Candidate] | OSError] = []

    def look_up() -> None:
        try:
            answer.append(_getaddrinfo(host, port))
        except OSError as error:
            answer.append(error)

    thread = threading.Thread(target=look_up, name=f"resolve {host}", daemon=True)
    thread.start()
    thread.join(within_seconds)
    if not answer:
        raise TimeoutError(errno.ETIMEDOUT, f"no answer from the name service within {within_seconds:.0f} s")
    if isinstance(answer[0], OSError):
        raise answer[0]
    return answer[0]


def _getaddrinfo(host: str, port: int) -> list[Candidate]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


def interleave(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Alternate the address families, keeping each family's order and the resolver's first choice first."""
    if not candidates:
        return []
    first = candidates[0][0]
    same = [candidate for candidate in candidates if candidate[0] == first]
    other = [candidate for candidate in candidates if candidate[0] != first]
    return [candidate for candidate in chain.from_iterable(zip_longest(same, other)) if candidate]


def _race(candidates: Sequence[Candidate], end: float) -> socket.socket:
    """Start the addresses `STAGGER_SECONDS` apart, sooner when all earlier ones failed; first wins."""
    waiting = list(candidates)
    trouble: OSError = TimeoutError(errno.ETIMEDOUT, "no answer to the TCP connect")
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or selector.get_map():
                if waiting:
                    try:
                        selector.register(_begin(waiting.pop(0)), selectors.EVENT_WRITE)
                    except OSError as error:
                        trouble = error
                        continue
                left = end - time.monotonic()
                if left <= 0:
                    break
                for key, _ in selector.select(min(left, STAGGER_SECONDS) if waiting else left):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    selector.unregister(sock)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not code:
                        return sock
                    sock.close()
                    trouble = OSError(code, os.strerror(code))
        finally:
            for key in list(selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()
    raise trouble


def _begin(candidate: Candidate) -> socket.socket:
    family, address = candidate
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def _tune(sock: socket.socket) -> None:
    """No Nagle (it costs 0.8 to 1.4 round trips per connect), and a dead peer is noticed.

    Keepalive alone does not see a peer that vanished with data on the way, and the user timeout alone does
    not see one while nothing is sent: both are needed.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        for option, value in (
            (socket.TCP_KEEPIDLE, 15),
            (socket.TCP_KEEPINTVL, 5),
            (socket.TCP_KEEPCNT, 4),
            (socket.TCP_USER_TIMEOUT, USER_TIMEOUT_SECONDS * 1000),
        ):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    elif sys.platform == "darwin":
        sock.setsockopt(socket.IPPROTO_TCP, 0x10, 15)  # TCP_KEEPALIVE, which is Linux's KEEPIDLE
        sock.setsockopt(socket.IPPROTO_TCP, 0x80, USER_TIMEOUT_SECONDS)  # TCP_RXT_CONNDROPTIME


def raise_descriptor_limit() -> None:
    """One descriptor per node: a laptop's soft limit (256 or 1024) would end a large run half-way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, 10240):  # macOS says unlimited and then takes no more than the kernel's own limit
        if soft == resource.RLIM_INFINITY or (wanted != resource.RLIM_INFINITY and soft >= wanted):
            return
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return
