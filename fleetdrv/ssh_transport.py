"""Paramiko's Transport, made fit for hundreds of connections and for peers that vanish.

What is overridden, and why, was read in Paramiko 4.0 and 5.1; tests/ssh/test_ssh_transport.py holds the
private names to that, so that a new release fails there and not in the field.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import paramiko
from paramiko import Channel, Message
from paramiko.common import (
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_REQUEST,
    cMSG_CHANNEL_CLOSE,
    cMSG_CHANNEL_REQUEST,
    cMSG_GLOBAL_REQUEST,
)
from paramiko.packet import Packetizer

from fleetdrv.dial import Wire
from fleetdrv.known_hosts import order_algorithms

KEEPALIVE_SECONDS = 15
UNANSWERED_KEEPALIVES = 3
STACK_BYTES = 512 * 1024
"""Address space per reader thread, instead of 8 MiB."""
CLOSE_SECONDS = 5.0
CHANNEL_SECONDS = 30.0
"""For the answer to a channel request; stock waits an hour."""
ADMINISTRATIVELY_PROHIBITED = 1  # RFC 4254, 5.1

DISABLED: Mapping[str, Sequence[str]] = {
    # 29 and 50 ms of CPU per connection, against 7 for curve25519
    "kex": (
        "diffie-hellman-group-exchange-sha256",
        "diffie-hellman-group16-sha512",
        "diffie-hellman-group14-sha256",
    ),
    "macs": ("hmac-sha1", "hmac-md5", "hmac-sha1-96", "hmac-md5-96"),
    # CBC with encrypt-then-MAC is what Terrapin (CVE-2023-48795) needs on servers without strict kex
    "ciphers": ("aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc"),
}
DISABLED_FOR_OLD_PEERS: Mapping[str, Sequence[str]] = {
    "macs": ("hmac-md5", "hmac-sha1-96", "hmac-md5-96"),
    "ciphers": DISABLED["ciphers"],
}
"""For the one retry with a peer that speaks nothing of the first offer."""

_SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "ABRT": 6, "FPE": 8, "KILL": 9, "SEGV": 11}
_SIGNALS |= {"USR1": 10, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15}
"""Names that RFC 4254, 6.10 allows, as Linux counts them."""

# The stubs leave out what begins with an underscore, hence the ignores below.
# Paramiko logs a traceback for every link that dies; without a handler of its own it would reach stderr.
# Whoever wants to see them adds a handler to this logger.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False

_STOCK_CIPHERS: tuple[str, ...] = paramiko.Transport._preferred_ciphers  # type: ignore[attr-defined]
_stack_size_lock = threading.Lock()


def _take_request(channel: Channel, message: Message) -> None:
    """Understand `exit-signal`, which Paramiko drops: such a command would look like a lost link.

    The status becomes 128 + signal, as a shell would report it.
    """
    start = message.packet.tell()
    if message.get_text() == "exit-signal":
        message.get_boolean()
        channel.exit_status = 128 + _SIGNALS.get(message.get_text(), 0)
        channel.status_event.set()
        return
    message.packet.seek(start)
    Channel._handle_request(channel, message)  # type: ignore[attr-defined]


def _take_failure(channel: Channel, message: Message) -> None:
    """Remember that a request was refused: a link that dies closes the channel just the same."""
    channel.refused = True  # type: ignore[attr-defined]
    Channel._request_failed(channel, message)  # type: ignore[attr-defined]


def was_refused(channel: Channel) -> bool:
    """Tell whether the host itself said no to the command."""
    return getattr(channel, "refused", False)


class _Gate:
    """Stands between a channel and its transport: nothing of a channel goes out after its CLOSE.

    Paramiko decides under the channel's lock and sends outside of it, so data can overtake the CLOSE that
    another thread sends. sshd then ends the whole connection ("data packet referred to nonexistent
    channel"): on a bastion, with 12 threads and 200 short sessions, three times, each with all nodes on it.
    """

    def __init__(self, transport: FleetTransport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._shut = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _send_user_message(self, message: Message) -> None:
        with self._lock:
            if not self._shut:
                self._shut = message.asbytes()[:1] == cMSG_CHANNEL_CLOSE
                self._transport._send_user_message(message)  # type: ignore[attr-defined]


class QuietPacketizer(Packetizer):
    """A Packetizer that watches the handshake's limit without a Timer thread.

    The stock one starts a non-daemon thread per connection, which outlives a failed handshake by its whole
    limit and holds up the end of the program.
    """

    _handshake_end: float | None = None

    def start_handshake(self, timeout: float) -> None:
        self._handshake_end = time.monotonic() + timeout

    def handshake_timed_out(self) -> bool:
        return self._handshake_end is not None and time.monotonic() > self._handshake_end

    def complete_handshake(self) -> None:
        self._handshake_end = None


class FleetTransport(paramiko.Transport):
    """One SSH connection over one wire."""

    _active_check_timeout = 5.0  # stock: 10 wake-ups a second and connection, 7 % of a core at 300 idle ones
    # With any other cipher each packet has a MAC, compared byte by byte in Python: a tenth of the CPU of a look.
    _preferred_ciphers = tuple(sorted(_STOCK_CIPHERS, key=lambda name: "-gcm@" not in name))

    wire: Wire
    host_key_blob: bytes = b""
    """The key or certificate as the server sent it."""
    disconnect_reason: str = ""
    """What the peer said when it hung up on purpose."""
    _asked: Exception | None = None

    def __init__(
        self,
        wire: Wire,
        *,
        known_types: Sequence[str] = (),
        certificates: bool = False,
        disabled: Mapping[str, Sequence[str]] = DISABLED,
    ) -> None:
        self.wire = wire
        self._known_types, self._certificates = tuple(known_types), certificates
        super().__init__(
            wire,  # type: ignore[arg-type]  # the stub knows sockets and channels; the documented protocol is met
            disabled_algorithms=disabled,
            packetizer_class=QuietPacketizer,
        )
        self.channel_timeout = CHANNEL_SECONDS

    def start(self) -> None:
        with _stack_size_lock:
            before = threading.stack_size(STACK_BYTES)
            try:
                super().start()
            finally:
                threading.stack_size(before)

    @property
    def preferred_keys(self) -> Sequence[str]:
        """Host key algorithms, those we can judge first; stock would put certificates last of all."""
        return order_algorithms(super().preferred_keys, self._known_types, certificates=self._certificates)

    def watch(self) -> None:
        """Notice a peer that is gone although its kernel, or a bastion, still acknowledges our bytes.

        Stock keepalives want no answer, so they only ever find a dead TCP connection. OpenSSH answers every
        unknown global request that wants a reply with a failure, which is all that is needed.
        """
        self.packetizer.set_keepalive(KEEPALIVE_SECONDS, self._ask)

    def _ask(self) -> None:
        if self.wire.silent_seconds > KEEPALIVE_SECONDS * UNANSWERED_KEEPALIVES:
            raise TimeoutError(errno.ETIMEDOUT, f"no sign of life for {self.wire.silent_seconds:.0f} s")
        message = Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        self._send_user_message(message)  # type: ignore[attr-defined]

    def open_channel(self, *args: Any, **more: Any) -> Channel:
        channel = super().open_channel(*args, **more)
        channel.transport = _Gate(self)  # type: ignore[assignment]
        return channel

    def request_exec(self, channel: Channel, command: str) -> None:
        """Send the request and do not wait for its answer; a refusal closes the channel.

        Stock `exec_command` waits for the answer without any limit.
        """
        message = Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string("exec")
        message.add_boolean(True)
        message.add_string(command)
        channel.transport._send_user_message(message)  # type: ignore[union-attr]

    def get_exception(self) -> Exception | None:
        error = super().get_exception()
        if not isinstance(error, paramiko.ChannelException):  # that is one channel's matter
            self._asked = error or self._asked
        return error

    @property
    def trouble(self) -> Exception | None:
        """What ended the reader thread. `saved_exception` is cleared by whoever asks first; this is not."""
        return self.saved_exception or self._asked

    def close(self) -> None:
        """Hang up, and return when the reader thread has ended (at most `CLOSE_SECONDS`)."""
        self.wire.shut()
        if self.is_alive() and self is not threading.current_thread():
            self.join(CLOSE_SECONDS)
        super().close()
        self.wire.close()

    def _verify_key(self, host_key: bytes, sig: bytes) -> None:
        super()._verify_key(host_key, sig)  # type: ignore[misc]
        self.host_key_blob = host_key

    def _parse_debug(self, m: Message) -> None:
        if self.logger.isEnabledFor(logging.DEBUG):  # stock makes each text printable first, for nobody
            super()._parse_debug(m)  # type: ignore[misc]

    def _parse_disconnect(self, m: Message) -> None:
        m.get_int()
        self.disconnect_reason = m.get_text()

    _channel_handler_table = {
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]
        MSG_CHANNEL_REQUEST: _take_request,
        MSG_CHANNEL_FAILURE: _take_failure,
    }
