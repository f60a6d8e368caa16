"""Send a job and follow it to its end, whatever happens to the link.

When the link dies the job runs on; it is found again by its name and its log is taken up at the same byte.
A job is never submitted twice: the node claims its name by a rename, and a second launch of the same digest
follows the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fleetdrv.errors import LinkLost, Permanent, Transient, Unreachable
from fleetdrv.jobs import Bundle, whole

BEAT_SECONDS = 5.0
MAX_KILLED = 5
"""So often a follower may be killed on the node, as by a shutdown or for want of memory: the job runs on."""

SILENCE_SECONDS = 6 * BEAT_SECONDS
"""A follower that says nothing for so long has lost its link: launch.sh promises a beat every 5 seconds."""


_SIGNALLED = 128
"""A shell's exit code for a command that a signal ended is this and the signal's number."""


class Line(Protocol):
    """One node's connection for its whole turn."""

    node: str

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
        """Run argv as root; return exit code, stdout and stderr."""
        ...

    def redial(self, deadline_seconds: float) -> None:
        """Drop what is left of the connection and make a new one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """How a job ended; `log` is its whole log as it was sent, without gap or repetition."""

    job: str
    exit_code: int | None
    """None: interrupted, its end was never written (power cut, reboot, killed)."""
    failed_step: str = ""
    log: bytes = field(default=b"", repr=False)

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of the log, as evidence."""
        return "\n".join(self.log.decode("utf-8", "replace").splitlines()[-lines:])


@dataclass(slots=True)
class Lines:
    """Cut a job's log into lines."""

    emit: Callable[[str], None]
    _rest: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> None:
        """Take the next bytes; a line that has no end yet waits for it."""
        self._rest += data
        *whole, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        for line in whole:
            self.emit(line.decode("utf-8", "replace"))

    def end(self) -> None:
        """Emit what came after the last newline."""
        if self._rest:
            self.feed(b"\n")


@dataclass(slots=True)
class Frames:
    """Cut the follower's stdout into frames; launch.sh tells the grammar."""

    on_log: Callable[[bytes], None]
    log: bytearray = field(default_factory=bytearray)
    end: tuple[str, ...] | None = None
    _buffer: bytearray = field(default_factory=bytearray)

    @property
    def offset(self) -> int:
        """Bytes of the log that are here."""
        return len(self.log)

    def feed(self, data: bytes) -> None:
        """Take what came over the link."""
        self._buffer += data
        while self.end is None and self._take():
            pass

    def restart(self) -> None:
        """Forget half a frame: after a reattach the follower begins with a whole one."""
        self._buffer.clear()

    def _take(self) -> bool:
        line, newline, _ = self._buffer.partition(b"\n")
        if not newline:
            return False
        words = tuple(line.decode("ascii", "replace").split(" "))
        body = len(line) + 1
        if words[0] != "log":
            del self._buffer[:body]
            if words[0] != "beat":
                self.end = words
            return True
        length = int(words[2])
        if len(self._buffer) < body + length:
            return False
        chunk = bytes(self._buffer[body : body + length])
        del self._buffer[: body + length]
        if int(words[1]) != self.offset:
            raise ValueError(f"log frame at {words[1]}, expected {self.offset}")
        self.log += chunk
        self.on_log(chunk)
        return True


@dataclass(slots=True, kw_only=True)
class Follower:
    """Follows the jobs of one node over one line.

    `deadline_seconds` ends the waiting, never the job. `now` is a monotonic clock.
    """

    line: Line
    now: Callable[[], float]
    on_log: Callable[[bytes], None]
    deadline_seconds: float

    def execute(self, work: Bundle, grade: str) -> JobEnd:
        """Send a job and follow it; one that is there already is followed, never run again.

        `grade` is `background` (the first that a node under pressure kills) or `outage` (protected).
        Raises Transient when the deadline passes, LinkLost when the node cannot be reached again.
        """
        return self._pursue(work.job, ("launch", work.job, work.digest, grade), work.data, grade)

    def attach(self, job: str, grade: str) -> JobEnd:
        """Follow a job that an earlier controller sent, from the first byte of its log."""
        return self._pursue(job, ("attach", job, grade), b"", grade)

    def watch(self, job: str) -> JobEnd:
        """Follow a job and only look on: nothing is started or written on the node, whatever is seen."""
        return self._pursue(job, ("watch", job), b"", "")

    def _pursue(self, job: str, argv: tuple[str, ...], stdin: bytes, grade: str) -> JobEnd:
        frames, until, killed = Frames(self.on_log), self.now() + self.deadline_seconds, 0
        step = [*job.split("."), job][1]  # RUN.PHASE.NUMBER, unless somebody started it by hand
        while frames.end is None:
            command = ("/bin/sh", "-c", whole("launch.sh"), "launch.sh", *argv, str(frames.offset))
            try:
                code, _, errors = self.line.run(
                    command,
                    step=step,
                    stdin=stdin,
                    deadline_seconds=max(1.0, until - self.now()),
                    silence_seconds=SILENCE_SECONDS,
                    on_stdout=frames.feed,
                )
                if frames.end is None and code > _SIGNALLED and killed < MAX_KILLED:
                    killed += 1
                    raise LinkLost(self.line.node, step, f"what followed the job was killed (exit {code})")
            except LinkLost as lost:
                if frames.end is not None:
                    break  # the link died after the job's last word
                self._redial(job, until, lost)
                frames.restart()
                if frames.offset and argv[0] == "launch":
                    argv, stdin = ("attach", job, grade), b""
                # else the launch may never have arrived: sent again, its name makes that harmless
                continue
            except (ValueError, IndexError) as error:
                raise Permanent(self.line.node, step, f"the node's answer cannot be read: {error}") from error
            if frames.end is None:
                raise _not_started(self.line.node, step, code, errors)
        return _end(self.line.node, step, job, frames)

    def _redial(self, job: str, until: float, lost: LinkLost) -> None:
        remedy = "the job runs on; the same command follows it again"
        if self.now() >= until:
            raise Transient(self.line.node, job, "the link is gone and the deadline passed", remedy=remedy)
        try:
            self.line.redial(until - self.now())
        except Unreachable as error:
            cause = f"{lost.cause}; cannot reach the node again: {error.cause}"
            raise LinkLost(self.line.node, job, cause, remedy=remedy) from error


def _not_started(node: str, step: str, code: int, errors: bytes) -> Permanent:
    text = errors.decode("utf-8", "replace").strip()
    last = text.splitlines()[-1] if text else "no reason given"
    cause = f"the job could not be started: exit {code}: {last}"
    return Permanent(node, step, cause, evidence=text[-2000:])


def _end(node: str, step: str, job: str, frames: Frames) -> JobEnd:
    match frames.end:
        case ("exit", code, *rest):
            return JobEnd(job=job, exit_code=int(code), failed_step=" ".join(rest), log=bytes(frames.log))
        case ("interrupted", *_):
            return JobEnd(job=job, exit_code=None, log=bytes(frames.log))
        case other:
            raise Permanent(node, step, f"job {job}: unexpected answer {' '.join(other or ())!r}")
