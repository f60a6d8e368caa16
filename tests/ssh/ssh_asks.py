"""What several test modules ask of a Dialler."""

from __future__ import annotations

import pytest
from ssh_server import Sshd

from fleetdrv.model import Host
from fleetdrv.ssh import Dialler


def fails(dialler: Dialler, host: Host, kind: type[Exception], deadline_seconds: float = 20) -> Exception:
    with pytest.raises(kind) as caught:
        dialler.connect(host, deadline_seconds)
    return caught.value


def logs_in(dialler: Dialler, host: Host) -> bool:
    with dialler.connect(host, 20) as session:
        return session.run("echo in", step="test", deadline_seconds=20).stdout == b"in\n"


def at(port: int, server: Sshd) -> Host:
    return server.host(ansible_port=port)
