"""The nodes' lines: each a session that is dialled at need, kept for its node's whole turn, and runs as root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fleetdrv.awake import Sleeps, Watch
from fleetdrv.effects import Effects
from fleetdrv.model import Host
from fleetdrv.secret import Secret
from fleetdrv.ssh import Dialler
from fleetdrv.ssh_session import Session
from fleetdrv.ssh_sudo import Sudo

CONNECT_SECONDS = 60.0
"""For a first connection, retries included: a node that does not answer by then is unreachable."""


@dataclass(slots=True)
class NodeLine:
    """The `Line` of follow.py over SSH."""

    host: Host
    dialler: Dialler
    sudo: Sudo = field(default_factory=Sudo)
    node: str = ""
    once: bool = False
    """Whether it hangs up after each command: who asks each node one thing holds no thousand links."""
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
        """Run argv as root, by sudo where the user is another."""
        self.sudo.check(self.node, step)
        if self._session is None or not self._session.alive:
            self._session = self.dialler.connect(self.host, CONNECT_SECONDS)
        try:
            done = self.sudo.run(
                self._session,
                argv,
                step=step,
                stdin=stdin,
                deadline_seconds=deadline_seconds,
                silence_seconds=silence_seconds,
                on_stdout=on_stdout,
            )
        finally:
            if self.once:
                self.close()
        return done.exit_code, done.stdout, done.stderr

    def redial(self, deadline_seconds: float) -> None:
        """Hang up and dial again until the deadline."""
        self.close()
        self._session = self.dialler.connect(self.host, deadline_seconds)

    def suspect(self) -> None:
        """From any thread: the link is not worth waiting for; a command on it ends as with a lost link."""
        session = self._session
        if session is not None:
            session.close()

    def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            self._session.close()
            self._session = None


class Lines:
    """All lines of a run, and what they share: one Dialler, one sudo password. A context manager."""

    def __init__(
        self,
        effects: Effects,
        password: Secret | None,
        note: Callable[[str], None],
        sleeps: Sleeps | None = None,
    ) -> None:
        self._dialler, self._sudo, self._note = Dialler(effects, note=note), Sudo(password), note
        self._lines: list[NodeLine] = []
        self._watch = Watch(self._woke, sleeps)

    def to(self, host: Host, *, once: bool = False) -> NodeLine:
        """Return a line to that host, not yet dialled; `once` as `NodeLine` says."""
        self._lines.append(NodeLine(host, self._dialler, self._sudo, once=once))
        return self._lines[-1]

    def away(self) -> str:
        """Say which way to nodes is gone for now, if one is."""
        gone = self._dialler.away()
        return f"jump host {gone} to be reached again" if gone else ""

    def _woke(self, seconds: float) -> None:
        """No link is worth waiting for: who needs one dials anew, and jobs are followed at the same byte."""
        self._note(f"this machine slept for {seconds:.0f} s: all links are dialled again, jobs on nodes ran on")
        self._dialler.suspect()
        for line in self._lines:
            line.suspect()

    def __enter__(self) -> Lines:
        self._watch.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.__exit__()
        for line in self._lines:
            line.close()
        self._dialler.close()
