"""Packaged drivers, whole rollouts: real apt, dpkg and DKMS on simulated nodes, under a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleetdrv.api import Api
from tests.apt.conftest import _packages
from tests.apt.repository import Key, Repository
from tests.fixtures_cluster import admin_api, control_plane, least_privilege  # noqa: F401  # fixtures
from tests.rollout.points import Moment
from tests.rollout.sim_fleet import Ended, SimFleet
from tests.sim.debian import DebianNode
from tests.sim.node import build_id


class AptFleet(SimFleet):
    """Two nodes whose packages come from a repository that the tests publish."""

    repository: Repository

    def book(self, version: str, **apt: Any) -> Path:
        """Write a playbook that wants the packaged practice driver at a version or pattern."""
        (self.folder / "key.asc").write_bytes(self.repository.key.armoured)
        repository = {
            "uri": "file:/srv/repository",
            "suites": ["stable"],
            "components": ["main"],
            "key": "key.asc",
            "fingerprint": self.repository.key.fingerprint,
        }
        driver = {
            "name": "toy",
            "apt": {"packages": {"toy-dkms": version}, "repository": repository, **apt},
            "modules": ["fleetdrv_toy"],
            "checks": [["cat", "/sys/class/misc/fleetdrv_toy/code"]],
        }
        path = self.folder / "packages.yaml"
        path.write_text(
            yaml.safe_dump(
                {"name": "toy", "hosts": "gpu", "pool": self.tag, "drivers": [driver], "rollout": {"canary": 1}}
            )
        )
        return path

    def bring(self, version: str, *options: str, code: int | None = 0, **apt: Any) -> Ended:
        """Apply it."""
        words = ("apply", str(self.book(version, **apt)), "-i", str(self.inventory), "--yes", *options)
        return self.fleetdrv(*words, code=code)

    def look(self, version: str, *options: str, code: int | None = None, **apt: Any) -> Ended:
        """Plan it."""
        words = ("plan", str(self.book(version, **apt)), "-i", str(self.inventory), *options)
        return self.fleetdrv(*words, code=code)

    def packages(self) -> set[str]:
        """Return what the nodes have of the driver's package, each answer once."""
        ask = "dpkg-query -W -f '${db:Status-Abbrev}${Version}' toy-dkms 2>/dev/null || echo none"
        return {node.call(ask).strip() for node in self.nodes.values()}

    def recorded(self) -> dict[str, str]:
        """Return the versions in the run record."""
        lease = self.lease()
        assert lease is not None
        return dict(json.loads(lease["metadata"]["annotations"]["fleetdrv.io/run"])["versions"])

    def is_sound(self) -> bool:
        """Whether dpkg finds nothing half done, and every node serves."""
        sound = all(node.call("dpkg --audit") == "" for node in self.nodes.values())
        return sound and not any(self.node(name)["spec"].get("unschedulable") for name in self.nodes)


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    with Key() as made:
        yield made


@pytest.fixture
def fleet(
    tmp_path: Path,
    least_privilege: Path,  # noqa: F811
    admin_api: Api,  # noqa: F811
    builds: Path,
    key: Key,
) -> Iterator[AptFleet]:
    served = tmp_path / "srv"
    served.mkdir()
    repository = Repository(served / "repository", key)
    repository.add(*(package for package in _packages() if (package.name, package.version) != ("toy-dkms", "1.1")))
    made = AptFleet(tmp_path, least_privilege, admin_api, builds, make=partial(DebianNode, served=served))
    made.repository = repository
    yield made
    made.close()


def test_from_nothing_then_nothing_to_do(fleet: AptFleet) -> None:
    ended = fleet.bring("1.0")
    assert fleet.packages() == {"hi 1.0"}
    for name, node in fleet.nodes.items():
        assert f"{name}: changed" in ended.out
        module = node.folder / "modules/up" / node.kernel / "updates/dkms/fleetdrv_toy.ko"
        assert node.loaded()["fleetdrv_toy"] == build_id(module)
        assert fleet.node(name)["metadata"]["labels"]["fleetdrv.io/driver.toy"] == "1.0"
    digest = fleet.repository.sha256["toy-dkms=1.0"]
    assert fleet.recorded() == {"debian 12/amd64/toy-dkms": f"1.0 {digest}"}
    fleet.points.arm(-1, Moment.BEFORE)
    again = fleet.bring("1.0", "--json")
    assert (fleet.writes(), again.json["effects"]) == ([], {"execs": 2, "api_writes": 0})
    assert {node["verdict"] for node in again.json["nodes"].values()} == {"converged"}
