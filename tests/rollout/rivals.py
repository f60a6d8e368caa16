"""Two controllers of one pool: one that is stopped in mid-act, one on another machine, and who watches both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rollout.points import Point
from tests.rollout.sim_fleet import Ended, SimFleet

LEASE_SECONDS = 6
"""Long enough that a busy machine renews it in time, which the rounds do not rely on."""

def short_lived(lease_seconds: int, api_seconds: int = 30) -> tuple[str, ...]:
    """Return a fleetdrv whose Lease, and patience with an API that does not answer, lasts so long."""
    return (sys.executable, "-m", "tests.rollout.short_lease", str(lease_seconds), str(api_seconds))


_LAPTOP = short_lived(LEASE_SECONDS)
_ELSEWHERE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *_LAPTOP)
"""In a pid namespace of its own, as on another machine: nobody there can tell whether a pid here lives."""
PATIENCE_SECONDS = 240


class Rival:
    """A controller that is stopped (SIGSTOP) as one of its effects arrives; the effect is held up meanwhile.

    For the world it is a controller that was stopped between its look at the Lease and its act.
    """

    def __init__(self, fleet: SimFleet, when: Callable[[Point], bool], *command: str) -> None:
        self._fleet, self._when = fleet, when
        self._stopped, self._go = threading.Event(), threading.Event()
        self.held: Point | None = None
        self._process: subprocess.Popen[bytes] | None = None
        fleet.points.on_arrival = self._arrived
        self._process = fleet.start(*command, program=_LAPTOP)

    def _arrived(self, point: Point) -> None:
        if self.held is None and self._process is not None and self._when(point):
            self.held = point
            os.kill(self._process.pid, signal.SIGSTOP)
            self._stopped.set()
            assert self._go.wait(PATIENCE_SECONDS)

    def stops(self) -> bool:
        """Wait until it is stopped; False: it ended before."""
        assert self._process is not None
        while not self._stopped.wait(0.05):
            if self._process.poll() is not None:
                return False
        return True

    def goes_on(self) -> Ended:
        """Let it continue and its act happen; return how it ended."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._go.set()
        with self._process as process:
            out, errors = process.communicate(timeout=PATIENCE_SECONDS)
        return Ended(process.returncode, out.decode(), errors.decode())

    def close(self) -> None:
        """End it, however it stands."""
        self._fleet.points.on_arrival = lambda _: None
        self._go.set()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


@contextmanager
def rival(fleet: SimFleet, when: Callable[[Point], bool], *command: str) -> Iterator[Rival]:
    """Have a controller that will be stopped; it is gone at the end."""
    made = Rival(fleet, when, *command)
    try:
        yield made
    finally:
        made.close()


def start_elsewhere(fleet: SimFleet, *command: str) -> subprocess.Popen[bytes]:
    """Start the other controller, as on another machine."""
    return fleet.start(*command, program=_ELSEWHERE)


def elsewhere(fleet: SimFleet, *command: str) -> Ended:
    """Run the other controller to its end."""
    with start_elsewhere(fleet, *command) as process:
        out, errors = process.communicate(timeout=PATIENCE_SECONDS)
    return Ended(process.returncode, out.decode(), errors.decode())


class Watch:
    """A process of its own that hears of each change of every Node, and writes down who was out of service."""

    def __init__(self, fleet: SimFleet, kubeconfig: Path) -> None:
        self._said = fleet.folder / "watched"
        words = (str(kubeconfig), f"pool={fleet.tag}", str(self._said))
        program = (sys.executable, "-m", "tests.rollout.watcher")
        self._process = fleet.start(*words, program=program)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"watching\n"

    def seen(self) -> list[list[str]]:
        """Return, for each change, the nodes that were out of service after it."""
        return [json.loads(line) for line in self._said.read_text().splitlines()]

    @property
    def most(self) -> int:
        """The most nodes that were out at once."""
        return max(map(len, self.seen()), default=0)

    def close(self) -> None:
        """End the process; it has to have watched until now."""
        ended = self._process.poll()
        self._process.kill()
        self._process.communicate()
        assert ended is None, "the watcher ended before the test"


def tokens(fleet: SimFleet) -> dict[str, list[int]]:
    """Return what each node's append-only record of tokens says, in the order of writing."""
    told = {}
    for name, node in fleet.nodes.items():
        record = node.state / "tokens" / fleet.tag
        lines = record.read_text().split("\n") if record.exists() else []
        told[name] = [int(line.split()[0]) for line in lines if line]
    return told


def acts(fleet: SimFleet) -> dict[str, list[int]]:
    """Return the token under which each module was loaded or unloaded, as the stand-ins wrote it down."""
    told = {}
    for name, node in fleet.nodes.items():
        record = node.folder / "acts"
        told[name] = [int(word) for word in record.read_text().split()] if record.exists() else []
    return told
