"""A TCP relay that can stop forwarding without closing anything, as a firewall or a lost radio link does."""

from __future__ import annotations

import select
import socket
import threading


class Proxy:
    """Relays 127.0.0.1:`port` to another port on loopback, until told to freeze."""

    def __init__(self, to_port: int) -> None:
        self._to = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._running = threading.Event()
        self._running.set()
        self._done = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)
        self._thread.start()

    def freeze(self) -> None:
        """Take nothing and send nothing from now on; the kernel still acknowledges what arrives."""
        self._running.clear()

    def thaw(self) -> None:
        self._running.set()

    def stop(self) -> None:
        self._done = True
        self._running.set()
        self._thread.join(5)
        for sock in (self._listener, *(sock for pair in self._pairs for sock in pair)):
            sock.close()

    def _serve(self) -> None:
        while not self._done:
            self._running.wait()
            other = dict(self._pairs) | {b: a for a, b in self._pairs}
            ready, _, _ = select.select([self._listener, *other], [], [], 0.02)
            for sock in ready if self._running.is_set() else []:
                if sock is self._listener:
                    self._pairs.append((sock.accept()[0], socket.create_connection(("127.0.0.1", self._to))))
                    continue
                try:
                    data = sock.recv(65536)
                    other[sock].sendall(data)
                except OSError:
                    data = b""
                if not data:
                    for end in (sock, other[sock]):
                        end.close()
                    self._pairs = [pair for pair in self._pairs if sock not in pair]
                    break
