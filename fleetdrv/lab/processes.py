"""Daemons that outlive the command that started them, recorded in pid files; no stranger is ever signalled.

A pid alone is not a name: after a crash or a reboot it may belong to somebody else. A record holds the pid
and the start time the kernel gives it, and a signal goes through a pidfd, which cannot change hands between
look and kill.
"""

import contextlib
import json
import os
import select
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fleetdrv.lab import LabError

KILL_DEADLINE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Process:
    """One recorded daemon; whether it still runs is asked of the kernel each time."""

    name: str
    pid: int
    start_time: int  # field 22 of /proc/PID/stat, clock ticks after boot
    argv0: str
    folder: Path  # where its pid file and its log are

    def alive(self) -> bool:
        """Tell whether this very process still runs; a zombie and another owner of the pid do not count."""
        state, start_time = _state(self.pid)
        return start_time == self.start_time and state not in "ZX"

    def stop(self, deadline_seconds: float = 10) -> None:
        """End the process (TERM, KILL once the deadline has passed) and forget it; harmless when it is gone.

        Its own children are not signalled: a daemon that has some ends them itself when told TERM.
        """
        with contextlib.suppress(ProcessLookupError):  # gone already
            handle = os.pidfd_open(self.pid)
            try:
                self._end(handle, deadline_seconds)
            finally:
                os.close(handle)
        self._reap()
        _pid_file(self.folder, self.name).unlink(missing_ok=True)

    def _end(self, handle: int, deadline_seconds: float) -> None:
        for number, seconds in ((signal.SIGTERM, deadline_seconds), (signal.SIGKILL, KILL_DEADLINE_SECONDS)):
            if not self.alive():
                return
            signal.pidfd_send_signal(handle, number)
            if _ended(handle, seconds):
                return
        raise LabError(f"{self.name}: process {self.pid} survives SIGKILL; see /proc/{self.pid}/stack")

    def _reap(self) -> None:
        """Leave no zombie where the daemon is a child of ours."""
        if _state(self.pid)[1] == self.start_time:
            with contextlib.suppress(ChildProcessError):  # another command started it
                os.waitpid(self.pid, os.WNOHANG)


def start(argv: Sequence[str], *, folder: Path, name: str, env: Mapping[str, str] | None = None) -> Process:
    """Start a daemon in a session of its own, output in folder/NAME.log, recorded in folder/NAME.pid.

    Refuses while the recorded process of that name runs, so that no daemon is ever lost from sight. The log
    is begun anew; `env` is the whole environment, by default this process's own.
    """
    former = load(folder, name)
    if former is not None and former.alive():
        raise LabError(f"{name} runs already, process {former.pid} of {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    log = str(folder / f"{name}.log")
    outputs = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        environment = os.environ if env is None else env
        pid = os.posix_spawnp(argv[0], list(argv), environment, file_actions=outputs, setsid=True)
    except OSError as error:
        raise LabError(f"{name}: cannot start {argv[0]}: {error.strerror}") from error
    process = Process(name, pid, _state(pid)[1], argv[0], folder)
    _record(process)
    return process


def load(folder: Path, name: str) -> Process | None:
    """Read the record of that name; None without one. It may tell of a process that has died: ask `alive`."""
    try:
        record = json.loads(_pid_file(folder, name).read_text())
        return Process(name, int(record["pid"]), int(record["start_time"]), str(record["argv0"]), folder)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"{_pid_file(folder, name)} is not a record of a process: {error}") from error


def every(folder: Path) -> list[Process]:
    """List what `start` recorded in the folder, dead or alive, by name."""
    found = (load(folder, file.stem) for file in sorted(folder.glob("*.pid")))
    return [process for process in found if process is not None]


def last_lines(folder: Path, name: str, count: int = 15) -> str:
    """Give the end of the daemon's log, for an error message."""
    with contextlib.suppress(FileNotFoundError):
        return "\n".join((folder / f"{name}.log").read_text(errors="replace").splitlines()[-count:])
    return ""


def _pid_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.pid"


def _record(process: Process) -> None:
    values = asdict(process)
    del values["folder"], values["name"]  # both are said by where the record is
    new = process.folder / f"{process.name}.pid.new"
    new.write_text(json.dumps(values) + "\n")
    new.replace(_pid_file(process.folder, process.name))


def _state(pid: int) -> tuple[str, int]:
    """Read the kernel's state letter and when the process began; X (dead) and 0 when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return fields[0], int(fields[19])


def _ended(handle: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
