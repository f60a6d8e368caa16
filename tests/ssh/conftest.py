"""A shared server, a way to make Diallers that know it, and a watch on leaks around every test."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest
import ssh_server
from ssh_proxy import Proxy
from ssh_server import Sshd

from fleetdrv.effects import Effects
from fleetdrv.ssh import Dialler

MakeDialler = Callable[..., Dialler]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One server for all tests that only use it."""
    running = ssh_server.start(tmp_path_factory.mktemp("sshd"))
    yield running
    running.stop()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """Start servers of one's own: start_server("Option value", ..., host_kinds=..., accept=...)."""
    running: list[Sshd] = []

    def start(*extra: str, **more: object) -> Sshd:
        running.append(ssh_server.start(tmp_path / f"sshd{len(running)}", *extra, **more))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture
def effects() -> Effects:
    return Effects()


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def make_dialler(
    request: pytest.FixtureRequest, tmp_path: Path, effects: Effects, notes: list[str]
) -> Iterator[MakeDialler]:
    """Make a Dialler from the text of its known_hosts file and, at will, of its ssh config."""
    request.getfixturevalue("leaks_nothing")  # set up before, so that it looks after everything is closed
    made: list[Dialler] = []

    def make(known: str = "", config: str = "") -> Dialler:
        (tmp_path / "known_hosts").write_text(known)
        (tmp_path / "ssh_config").write_text(config)
        made.append(
            Dialler(
                effects,
                ssh_config=tmp_path / "ssh_config",
                known_hosts=[tmp_path / "known_hosts"],
                note=notes.append,
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def dialler(server: Sshd, make_dialler: MakeDialler) -> Dialler:
    """A Dialler that knows the shared server."""
    return make_dialler(server.known_line())


@pytest.fixture
def make_proxy() -> Iterator[Callable[[int], Proxy]]:
    made: list[Proxy] = []

    def make(to_port: int) -> Proxy:
        made.append(Proxy(to_port))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def simulated() -> Iterator[Callable[..., int]]:
    """Start asyncssh servers; simulated(ServerClass, host_key) returns the port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="asyncssh", daemon=True)
    thread.start()
    running: list[asyncssh.SSHAcceptor] = []

    def start(factory: type[asyncssh.SSHServer], host_key: Path) -> int:
        async def listen() -> asyncssh.SSHAcceptor:
            return await asyncssh.listen("127.0.0.1", 0, server_factory=factory, server_host_keys=[str(host_key)])

        running.append(asyncio.run_coroutine_threadsafe(listen(), loop).result(10))
        return int(running[-1].get_port())

    async def stop() -> None:
        for each in running:
            each.close()
            await each.wait_closed()

    yield start
    asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture(autouse=True)
def _no_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The operator's own keys and agent stay out of the tests."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def _descriptors() -> set[str]:
    folder = "/proc/self/fd"
    names = set()
    for number in os.listdir(folder):
        try:
            names.add(f"{number} {os.readlink(f'{folder}/{number}')}")
        except FileNotFoundError:
            continue
    return {name for name in names if "socket:" in name or "pipe:" in name}


@pytest.fixture
def leaks_nothing() -> Iterator[None]:
    """Fail when the test leaves a thread or a socket behind. Ask for it first, so that it ends last."""
    threads, descriptors = set(threading.enumerate()), _descriptors()
    yield
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        left = set(threading.enumerate()) - threads, _descriptors() - descriptors
        if not any(left):
            return
        time.sleep(0.02)
    pytest.fail(f"left behind: {left}")
