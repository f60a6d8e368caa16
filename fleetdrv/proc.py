"""Processes and signals: who we are, whether another holder on this machine still runs, who wants us to end."""

from __future__ import annotations

import getpass
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fleetdrv import screen
from fleetdrv.errors import ExitCode
from fleetdrv.lease import Holder


def this_process() -> Holder:
    """Return who we are. Where there is no /proc, `boot` is empty and only expiry can end our hold."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.stat("/proc/self/ns/pid").st_ino
        started = _stat(os.getpid())[1]
    except OSError:
        boot, namespace, started = "", 0, 0
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # this container has no such user
        user = str(os.getuid())
    return Holder(
        user=user,
        host=socket.gethostname(),
        boot=boot,
        pid_namespace=namespace,
        pid=os.getpid(),
        started=started,
    )


def alive(other: Holder, observer: Holder) -> bool | None:
    """Tell whether a holder's process runs; None where this machine cannot know.

    A zombie is dead: it holds nothing and does nothing more.
    """
    here = (observer.boot, observer.pid_namespace)
    if not observer.boot or (other.boot, other.pid_namespace) != here:
        return None
    try:
        os.kill(other.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, so it is there
    try:
        state, started = _stat(other.pid)
    except OSError:
        return True  # hidden from us (hidepid), or it ended just now: not known to be dead
    return started == other.started and state not in "ZX"


def _stat(pid: int) -> tuple[str, int]:
    """Return state letter and start time: fields 3 and 22 of /proc/PID/stat (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[19])


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """First Ctrl-C, or TERM: start no more nodes, so tell whoever asks. Second: leave now; jobs run on."""
    pressed: list[int] = []

    def press(number: int, frame: object) -> None:
        del number, frame
        pressed.append(1)
        if len(pressed) > 1:
            with suppress(OSError):  # straight to the descriptor: the interrupted code may be just writing
                os.write(2, b"left: jobs on nodes run on, the same command finds them\n")
            screen.restore()
            os._exit(ExitCode.INTERRUPTED)

    former = {number: signal.signal(number, press) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(pressed)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C, or TERM, raises KeyboardInterrupt: for who only looks on and has nothing to finish."""
    former = {n: signal.signal(n, signal.default_int_handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
