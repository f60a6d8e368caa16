"""Round trips as the application makes them: a slow relay that keeps a logical clock for each end.

Whatever an end sends carries the clock that the end had when it sent it; what it receives moves its clock on. So
a reply counts one more than what it may answer, however many packets both were. The relay holds everything back
for a moment, so that what needs no answer is not mistaken for one.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

_HOLD_SECONDS = 0.05


@dataclass(slots=True)
class Clocks:
    """How many turns each end of one connection has seen."""

    client: int = 0
    server: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Relay:
    """Relays 127.0.0.1:`port` to another port on loopback. A context manager."""

    def __init__(self, to_port: int, hold_seconds: float = _HOLD_SECONDS) -> None:
        self._to, self._hold = to_port, hold_seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._connections: list[Clocks] = []
        self._sockets: list[socket.socket] = [self._listener]

    def round_trips(self) -> int:
        """Return the turns of all connections since this was asked last."""
        made, self._connections = self._connections, []
        return sum(clocks.client for clocks in made)

    def __enter__(self) -> Relay:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, far = self._listener.accept()[0], socket.create_connection(("127.0.0.1", self._to))
                for sock in (near, far):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clocks = Clocks()
                self._connections.append(clocks)
                self._sockets += [near, far]
                self._pump(near, far, clocks, up=True)
                self._pump(far, near, clocks, up=False)

    def _pump(self, source: socket.socket, sink: socket.socket, clocks: Clocks, *, up: bool) -> None:
        held: queue.Queue[tuple[float, int, bytes]] = queue.Queue()

        def take() -> None:
            data = b"begin"
            while data:
                try:
                    data = source.recv(65536)
                except OSError:
                    data = b""
                with clocks.lock:
                    held.put((time.monotonic() + self._hold, clocks.client if up else clocks.server + 1, data))

        def give() -> None:
            with suppress(OSError):
                while True:
                    due, stamp, data = held.get()
                    time.sleep(max(0.0, due - time.monotonic()))
                    if not data:
                        sink.shutdown(socket.SHUT_WR)
                        return
                    with clocks.lock:
                        if up:
                            clocks.server = max(clocks.server, stamp)
                        else:
                            clocks.client = max(clocks.client, stamp)
                    sink.sendall(data)

        for work in (take, give):
            threading.Thread(target=work, daemon=True).start()
