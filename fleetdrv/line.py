"""One node's line: a session that is dialled at need, kept for the node's whole turn, and runs as root."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from fleetdrv.model import Host
from fleetdrv.ssh import Dialler
from fleetdrv.ssh_session import Session

CONNECT_SECONDS = 60.0
"""For a first connection, retries included: a node that does not answer by then is unreachable."""


@dataclass(slots=True)
class NodeLine:
    """The `Line` of follow.py over SSH."""

    host: Host
    dialler: Dialler
    node: str = ""
    _session: Session | None = None

    def __post_init__(self) -> None:
        self.node = self.node or self.host.name

    def run(
        self,
        argv: tuple[str, ...],
        *,
        step: str,
        stdin: bytes = b"",
        deadline_seconds: float,
        silence_seconds: float | None = None,
        on_stdout: Callable[[bytes], None] | None = None,
    ) -> tuple[int, bytes, bytes]:
        """Run argv as root, by sudo where the user is another; quoted here and nowhere else."""
        if self._session is None or not self._session.alive:
            self._session = self.dialler.connect(self.host, CONNECT_SECONDS)
        elevated = argv if self._session.user == "root" else ("sudo", "-n", "--", *argv)
        done = self._session.run(
            shlex.join(elevated),
            step=step,
            stdin=stdin,
            deadline_seconds=deadline_seconds,
            silence_seconds=silence_seconds,
            on_stdout=on_stdout,
        )
        return done.exit_code, done.stdout, done.stderr

    def redial(self, deadline_seconds: float) -> None:
        """Hang up and dial again until the deadline."""
        self.close()
        self._session = self.dialler.connect(self.host, deadline_seconds)

    def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            self._session.close()
            self._session = None
