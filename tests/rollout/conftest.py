from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetdrv.api import Api
from tests.fixtures_cluster import admin_api, control_plane, least_privilege  # noqa: F401  # fixtures
from tests.rollout.sim_fleet import SimFleet


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled practice drivers, shared by all simulated nodes."""
    return tmp_path_factory.mktemp("builds")


@pytest.fixture
def fleet(tmp_path: Path, least_privilege: Path, admin_api: Api, builds: Path) -> Iterator[SimFleet]:  # noqa: F811
    """Two fresh nodes; fleetdrv acts as a user with the published role and no other rights."""
    made = SimFleet(tmp_path, least_privilege, admin_api, builds)
    yield made
    made.close()
