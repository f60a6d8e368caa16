"""Simulated nodes for tests. They need root (namespaces), kernel headers and dkms; without, they say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fleetdrv.lab import toy
from tests.sim.node import SimNode


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled modules, shared by all nodes of a session."""
    return tmp_path_factory.mktemp("builds")


@pytest.fixture
def new_node(tmp_path: Path, builds: Path) -> Iterator[Callable[[str], SimNode]]:
    """Start nodes by name; all end with the test."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(SimNode(tmp_path / name, name, builds=builds))


@pytest.fixture
def node(new_node: Callable[[str], SimNode]) -> SimNode:
    return new_node("sim-1")


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The practice driver's source archive by version."""
    folder = tmp_path_factory.mktemp("archives")
    return {version: toy.archive(version, folder).read_bytes() for version in toy.VERSIONS}
