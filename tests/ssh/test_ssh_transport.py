"""The private names of Paramiko on which we rely: a new release must fail here, not in the field."""

from __future__ import annotations

import inspect
import logging
import threading

import paramiko
import pytest
from paramiko.buffered_pipe import BufferedPipe
from paramiko.packet import Packetizer

from fleetdrv.ssh_transport import FleetTransport, QuietPacketizer, _take_failure, _take_request


@pytest.mark.parametrize(
    "name",
    [
        "_active_check_timeout",
        "_send_user_message",
        "_send_message",
        "_verify_key",
        "_parse_disconnect",
        "_parse_debug",
        "_preferred_ciphers",
        "_channel_handler_table",
        "preferred_keys",
    ],
)
def test_names_of_the_transport(name: str) -> None:
    assert hasattr(paramiko.Transport, name)


def test_names_of_other_classes() -> None:
    assert hasattr(paramiko.Channel, "_handle_request")
    assert hasattr(paramiko.Channel, "_request_failed")
    for name in ("start_handshake", "handshake_timed_out", "complete_handshake"):
        assert name in vars(Packetizer)
        assert name in vars(QuietPacketizer)
    assert "packetizer_class" in inspect.signature(paramiko.Transport.__init__).parameters
    assert FleetTransport._channel_handler_table[98] is _take_request
    assert FleetTransport._channel_handler_table[100] is _take_failure
    assert inspect.signature(paramiko.Transport._verify_key).parameters.keys() == {"self", "host_key", "sig"}


@pytest.mark.parametrize(
    "name",
    ["in_buffer", "in_stderr_buffer", "status_event", "out_buffer_cv", "lock", "event_ready", "exit_status"],
)
def test_names_of_a_channel(name: str) -> None:
    assert hasattr(paramiko.Channel(0), name)


def test_a_stream_that_is_full_or_closed_says_so_under_its_lock() -> None:
    stream = BufferedPipe()
    assert vars(stream).keys() >= {"_buffer", "_closed", "_lock"}
    held: list[tuple[bool, int, bool]] = []

    class Told(threading.Event):
        def set(self) -> None:
            held.append((stream._lock.locked(), len(stream._buffer), stream._closed))

    stream.set_event(Told())
    stream.feed(b"one")
    stream.feed(b"two")
    stream.close()
    assert held == [(True, 0, False), (True, 3, False), (True, 6, True)]


def test_channels_send_through_the_transport_attribute_only() -> None:
    """The gate that holds back what comes after a CLOSE stands there."""
    source = inspect.getsource(paramiko.Channel)
    assert "self.transport._send_user_message(" in source
    assert source.count("_send_user_message(") == source.count("self.transport._send_user_message(")
    assert "packetizer" not in source


def test_the_reader_sleeps_long() -> None:
    assert FleetTransport._active_check_timeout == 5.0


def test_paramikos_tracebacks_do_not_reach_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("paramiko.transport").error("Traceback (most recent call last)")
    assert capfd.readouterr().err == ""
