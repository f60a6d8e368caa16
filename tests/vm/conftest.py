from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.vm_fleet import VmFleet

EVERYTHING = "full"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Choose what runs: the story always; the rest with VM_TIER=full, else the one the commit's hash picks."""
    ours = [item for item in items if Path(item.fspath).parent == Path(__file__).parent]
    for item in ours:
        item.add_marker(pytest.mark.vm)
        item.add_marker(pytest.mark.timeout(3600))
    tier = os.environ.get("VM_TIER", "slice")
    rest = [item for item in ours if not item.get_closest_marker("story")]
    if tier == EVERYTHING or not rest:
        return
    # A test that was asked for by name is run.
    if tier == "named":
        return
    sliceable = [item for item in rest if not item.get_closest_marker("long")]
    picked = sliceable[_commit() % len(sliceable)]
    dropped = [item for item in rest if item is not picked]
    if dropped:
        dropped[0].config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


def _commit() -> int:
    said = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False,
                          cwd=Path(__file__).parent)
    return int(said.stdout[:12] or "0", 16)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VmFleet]:
    """Two virtual machines, up for the whole session; the tests come in the order of a story."""
    kept = os.environ.get("VM_LAB")  # a fleet that is up already, to be left as it is
    made = VmFleet(Path(kept) if kept else None, tmp_path_factory.mktemp("vm"))
    try:
        yield made
    finally:
        made.close()
