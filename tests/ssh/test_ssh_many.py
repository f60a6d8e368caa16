"""A whole fleet at once, with default settings, against sshd's default MaxStartups: nobody is lost.

One sshd plays all hosts, which is harder than life: there, every host has a MaxStartups of its own.
FLEETDRV_MANY sets their number; 100 are asked where it does not.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from ssh_server import Sshd

from fleetdrv.line import NodeLine
from fleetdrv.ssh import Dialler

HOSTS = int(os.environ.get("FLEETDRV_MANY", "100"))
StartServer = Callable[..., Sshd]


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("leaks_nothing")
def test_nobody_is_lost(start_server: StartServer, make_dialler: Callable[..., Dialler]) -> None:
    server = start_server("MaxStartups 10:30:100", "MaxSessions 10")
    dialler = make_dialler(server.known_line())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard or soft > 2 * HOSTS
    lines = [NodeLine(server.host(f"n{number}"), dialler) for number in range(HOSTS)]

    def turn(line: NodeLine) -> bytes:
        return line.run(("echo", line.node), step="look", deadline_seconds=120)[1]

    with ThreadPoolExecutor(64) as pool:  # as wide as a survey
        assert list(pool.map(turn, lines)) == [f"{line.node}\n".encode() for line in lines]
    assert all(line._session is not None and line._session.alive for line in lines)  # all of them open at once
    with ThreadPoolExecutor(64) as pool:
        list(pool.map(NodeLine.close, lines))
    dialler.close()
