"""The link is cut at random moments of installs by dpkg: it is never hung up, and its log arrives whole.

Nodes without systemd, so jobs take the setsid way; on virtual machines: tests/vm/test_cuts.py. FLEETDRV_CUTS sets
how many cuts there are at least; 8 where it does not.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from itertools import cycle

import pytest

from tests.apt.repository import dkms_package
from tests.rollout.points import Point
from tests.rollout.sim_fleet import SimFleet
from tests.rollout.ssh_front import SshFront
from tests.rollout.test_packages import AptFleet, fleet, key  # noqa: F401  # fixtures

CUTS = int(os.environ.get("FLEETDRV_CUTS", "8"))
SEED = 20261125
MOST_LOOKS = 3
"""So many cuts in a row may meet a look: one that loses five links in a row says that the node is not fit."""


@pytest.fixture
def size() -> int:
    return 1


class Cutter:
    """After each command that arrives, the link is cut a random moment later, whatever goes on then."""

    def __init__(self, front: SshFront, seed: int) -> None:
        self._front, self._chance = front, random.Random(seed)
        self.cuts: Counter[str] = Counter()
        """By the command that the link died under."""
        self._lock, self._timer, self._looks, self._links = threading.Lock(), threading.Timer(0, self._cut), 0, 0
        self._current = ""

    def arrived(self, point: Point) -> None:
        if point.kind != "exec":
            return
        with self._lock:
            self._current = point.what
            self._looks = self._looks if point.what == "probe" else 0
            if not self._timer.is_alive():
                self._timer = threading.Timer(self._chance.uniform(0, 1.5), self._cut)
                self._timer.start()

    def _cut(self) -> None:
        with self._lock:
            if self._current == "probe" and self._looks >= MOST_LOOKS:
                return
            self._looks += self._current == "probe"
            if self._front.connections == self._links:
                return  # none is open since the last one
            self._links = self._front.connections
            self.cuts[self._current] += 1
        self._front.cut()

    def end(self) -> None:
        """Cut no more."""
        self._timer.cancel()
        self._timer.join()


def whole_log(fleet: SimFleet, name: str) -> tuple[str, list[str]]:  # noqa: F811
    """Return what the last run's jobs logged on the node, in their order, and their names without its id."""
    run = max((fleet.folder / "fleetdrv" / "runs").glob("*.jsonl"), key=lambda path: path.stat().st_mtime).stem
    ours = fleet.nodes[name].state.glob(f"jobs/{run}.*")
    jobs = sorted(ours, key=lambda path: (path / "digest").stat().st_mtime)
    return "".join((job / "log").read_text() for job in jobs), [job.name.split(".", 1)[1] for job in jobs]


@pytest.mark.timeout(120 + 20 * CUTS)
def test_a_link_that_is_cut_at_random_moments_never_hangs_dpkg_up(fleet: AptFleet) -> None:  # noqa: F811
    fleet.repository.add(dkms_package("1.1", Depends="dkms, toy-lib"))
    (name,) = fleet.nodes
    cutter = Cutter(fleet.fronts[name], SEED)
    fleet.points.on_arrival = cutter.arrived
    try:
        for version in cycle(("1.0", "1.1")):
            ended = fleet.bring(version)
            assert f"{name}: changed" in ended.out, ended
            logged, jobs = whole_log(fleet, name)
            assert "\n".join(fleet.journal(name)) + "\n" == logged
            assert [job for job in jobs if job.startswith("outage")] == ["outage.1"], "sent once, and to its end"
            assert fleet.packages() == {f"hi {version}"}
            assert fleet.is_sound()
            if cutter.cuts.total() >= CUTS:
                break
    finally:
        cutter.end()
    print(f"{cutter.cuts.total()} cuts: {dict(cutter.cuts)}")
