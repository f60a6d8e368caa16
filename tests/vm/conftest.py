from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.vm.vm_fleet import PAIR, VmFleet

EVERYTHING = "full"
_OTHER_FLEETS = ("mixed", "roce")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Choose what runs: the story always; the rest with VM_TIER=full, else the one the commit's hash picks."""
    ours = [item for item in items if Path(item.fspath).parent == Path(__file__).parent]
    for item in ours:
        item.add_marker(pytest.mark.vm)
        item.add_marker(pytest.mark.timeout(3600))
    ours.sort(key=lambda item: [name in getattr(item, "fixturenames", ()) for name in _OTHER_FLEETS])
    items[:] = [*(item for item in items if item not in ours), *ours]  # one fleet after the other
    tier = os.environ.get("VM_TIER", "slice")
    rest = [item for item in ours if not item.get_closest_marker("story")]
    if tier == EVERYTHING or not rest:
        return
    # A test that was asked for by name is run.
    if tier == "named":
        return
    sliceable = [item for item in rest if not item.get_closest_marker("long")]
    picked = sliceable[_commit() % len(sliceable)] if sliceable else None
    dropped = [item for item in rest if item is not picked]
    if dropped:
        dropped[0].config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


def _commit() -> int:
    said = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False,
                          cwd=Path(__file__).parent)
    return int(said.stdout[:12] or "0", 16)


class Fleets:
    """The one fleet that is up: two machines at a time are what two processors can emulate."""

    def __init__(self, scratch: pytest.TempPathFactory) -> None:
        self._scratch = scratch
        self._up: VmFleet | None = None

    def get(self, releases: Sequence[str]) -> VmFleet:
        """Return a fleet of these releases; another one that is up goes down first."""
        if self._up is None or self._up.releases != tuple(releases):
            self.close()
            kept = os.environ.get("VM_LAB")  # a fleet that is up already, to be left as it is
            self._up = VmFleet(Path(kept) if kept else None, self._scratch.mktemp("vm"), releases)
        return self._up

    def close(self) -> None:
        """End the fleet that is up."""
        if self._up is not None:
            self._up.close()
            self._up = None


@pytest.fixture(scope="session")
def _fleets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    fleets = Fleets(tmp_path_factory)
    try:
        yield fleets
    finally:
        fleets.close()


@pytest.fixture
def fleet(_fleets: Fleets) -> VmFleet:
    """Two machines, up over all tests that want them: those come in the order of a story."""
    return _fleets.get(PAIR)


@pytest.fixture
def mixed(_fleets: Fleets) -> VmFleet:
    """Two machines of two Debian releases."""
    return _fleets.get(("bookworm", "trixie"))


@pytest.fixture
def roce(_fleets: Fleets) -> VmFleet:
    """Two machines with the kernel that has Soft-RoCE."""
    return _fleets.get(("bookworm-generic", "bookworm-generic"))


@pytest.fixture
def fresh_cache(fleet: VmFleet, tmp_path: Path) -> Iterator[None]:
    """No build of an earlier test or session is on the controller: the nodes compile."""
    fleet.cache = tmp_path / "cache"
    yield
    fleet.cache = None
