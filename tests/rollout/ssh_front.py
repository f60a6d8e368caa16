"""An SSH server in front of a node: counts every exec, and hands it to whatever runs commands there.

asyncssh, so that the client under test does not talk to its own implementation. `Backend` is a simulated
node's namespace, or OpenSSH to a virtual machine.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh

from tests.rollout.points import Moment, Point, Points

Backend = Callable[[str], "subprocess.Popen[bytes]"]
"""Start a command line on the node, with pipes for its three streams."""


class SshFront:
    """Listens on loopback for one node; all of them share one event loop in a thread."""

    def __init__(self, name: str, backend: Backend, user_key: Path, points: Points, loop: Loop) -> None:
        self.name, self._backend, self._points = name, backend, points
        self.connections = 0
        self._open: list[asyncssh.SSHServerConnection] = []
        self._held = ThreadPoolExecutor(thread_name_prefix=f"arrivals {name}")
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._client_keys = asyncssh.import_authorized_keys(user_key.read_text())
        self._loop = loop
        self._server = loop.call(self._listen())
        self.port: int = self._server.get_port()

    def known_hosts_line(self) -> str:
        """Return the line that pins this front's host key."""
        return f"[127.0.0.1]:{self.port} {self._host_key.export_public_key().decode().strip()}"

    def close(self) -> None:
        """Stop listening and drop all connections."""
        self._loop.call(self._shut())
        self._held.shutdown(wait=False, cancel_futures=True)

    def cut(self) -> None:
        """Drop every connection without a word, as a lost link does; new ones are welcome."""
        self._loop.call(self._abort())

    async def _abort(self) -> None:
        while self._open:
            self._open.pop().abort()

    async def _shut(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _listen(self) -> asyncssh.SSHAcceptor:
        front = self

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                front.connections += 1
                front._open.append(conn)

        return await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Server, server_host_keys=[self._host_key],
            authorized_client_keys=self._client_keys, process_factory=self._exec, encoding=None,
        )

    async def _exec(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        command = process.command or ""
        point = Point("exec", self.name, label(command))
        # In a thread: a test may hold one effect up while others pass.
        moment = await asyncio.get_running_loop().run_in_executor(self._held, self._points.arrive, point)
        try:
            if moment is not Moment.BEFORE:
                await self._carry_out(process, command, moment)
        finally:
            await process.wait_closed()
        if moment is Moment.AFTER:
            self._points.kill()

    async def _carry_out(
        self, process: asyncssh.SSHServerProcess[bytes], command: str, moment: Moment | None
    ) -> None:
        child = self._backend(command)
        assert child.stdin
        await process.redirect(stdin=child.stdin)
        if moment is Moment.UNANSWERED:
            # Everything was sent: give the command its whole input, then die without reading its answer.
            await asyncio.get_running_loop().run_in_executor(None, _die_unanswered, child, self._points)
            return
        await process.redirect(stdout=child.stdout, stderr=child.stderr)
        code = await asyncio.get_running_loop().run_in_executor(None, child.wait)
        await process.stdout.drain()
        process.exit(code if code >= 0 else 128 - code)


def _die_unanswered(child: subprocess.Popen[bytes], points: Points) -> None:
    """Kill once the command has its input, which its first word proves; then hang up on it as sshd would."""
    assert child.stdout
    assert child.stderr
    child.stdout.read(1)
    points.kill()
    child.stdout.close()
    child.stderr.close()
    child.wait(timeout=60)


def label(command: str) -> str:
    """Name an exec: `launch RUN.PHASE.N` is `launch PHASE`, a fetch of builds `built`, anything else the probe.

    >>> label("sh -c '...' launch.sh launch r1.stage.1 abc background 0"), label("sh -c '...' built.sh toy-1 9")
    ('launch stage', 'built')
    """
    if re.search(r"built\.sh \S+ \d+$", command):
        return "built"
    found = re.search(r"launch\.sh (launch|attach) \S+\.(\w+)\.\d+ ", command)
    return f"{found[1]} {found[2]}" if found else "probe"


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, coroutine):  # type: ignore[no-untyped-def]  # returns whatever the coroutine does
        """Run a coroutine there and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=60)

    def close(self) -> None:
        """End what still runs there, and stop it."""
        self.call(_end_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _end_others() -> None:
    """Give connections a moment to close, then cancel what is left."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if others:
        _, late = await asyncio.wait(others, timeout=2)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
