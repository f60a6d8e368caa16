"""The kubelet's stand-in against an API that is a function: what it says, when, and what it never touches."""

import importlib.util
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Json = dict[str, Any]
Answer = Callable[[str, str, Json | None], Json]


def _load() -> ModuleType:
    """Import the guest's file as what it is there, a program beside no package."""
    path = str(resources.files("fleetdrv.lab").joinpath("guest", "kubelet.py"))
    spec = importlib.util.spec_from_file_location("lab_kubelet", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lab_kubelet"] = module
    spec.loader.exec_module(module)
    return module


kubelet = _load()


class Cluster:
    """The few answers a kubelet needs, and every write it made."""

    def __init__(self, pods: list[Json]) -> None:
        self.pods = pods
        self.node: Json | None = None
        self.writes: list[tuple[str, str, Json]] = []

    def call(self, method: str, path: str, body: Json | None = None, kind: str = "") -> Json:
        assert kind != "application/json" or method != "PATCH"
        if method != "GET":
            self.writes.append((method, path, body or {}))
        if path.startswith("/api/v1/pods?"):
            return {"items": self.pods}
        if path == "/api/v1/nodes/node-1" and self.node is None:
            raise kubelet.Refused(404, "no such node")
        if (method, path) == ("POST", "/api/v1/nodes"):
            self.node = {**(body or {}), "metadata": {"name": "node-1", "uid": "u1"}, "status": {}}
        if path.endswith("/status") and "/nodes/" in path and self.node is not None:
            self.node["status"] = (body or {})["status"]
        return self.node or {}


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubelet, "node_status", lambda *_: {"nodeInfo": {"bootID": "b1"}})


def pod(phase: str = "Pending", **metadata: object) -> Json:
    named = {"name": "shop-1", "namespace": "shop", "uid": "p1", **metadata}
    return {"metadata": named, "spec": {"containers": [{"name": "a", "image": "a:1"}]}, "status": {"phase": phase}}


def node_with(cluster: Cluster) -> Any:
    return kubelet.Kubelet("node-1", "10.0.0.1", [], cluster)


def test_it_registers_once_and_then_writes_status_and_lease_only() -> None:
    cluster = Cluster([])
    node = node_with(cluster)
    node.turn()
    node._next_heartbeat = 0
    node.turn()
    assert [(method, path) for method, path, _ in cluster.writes if "leases" not in path] == [
        ("POST", "/api/v1/nodes"),
        ("PATCH", "/api/v1/nodes/node-1/status"),
        ("PATCH", "/api/v1/nodes/node-1/status"),
    ]
    assert cluster.node is not None
    assert cluster.node["status"]["nodeInfo"] == {"bootID": "b1"}


def test_a_bound_pod_becomes_running_and_ready_once() -> None:
    cluster = Cluster([pod()])
    node = node_with(cluster)
    node.turn()
    method, path, body = cluster.writes[-1]
    assert (method, path) == ("PATCH", "/api/v1/namespaces/shop/pods/shop-1/status")
    assert body["metadata"] == {"uid": "p1"}
    cluster.pods[0]["status"] = body["status"]
    before = len(cluster.writes)
    node.turn()
    assert len(cluster.writes) == before


def test_a_deleted_pod_goes_after_its_grace_period_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    time = 1000.0
    monkeypatch.setattr(kubelet.time, "monotonic", lambda: time)
    cluster = Cluster([pod("Running", deletionTimestamp="2026-01-01T00:00:00Z", deletionGracePeriodSeconds=5)])
    node = node_with(cluster)
    node.turn()
    time = 1004.0
    node.turn()
    assert not [write for write in cluster.writes if write[0] == "DELETE"]
    time = 1005.0
    node.turn()
    condition = {"gracePeriodSeconds": 0, "preconditions": {"uid": "p1"}}
    assert ("DELETE", "/api/v1/namespaces/shop/pods/shop-1", condition) in cluster.writes


def test_ready_keeps_its_time_until_it_changes() -> None:
    first = kubelet.refreshed([], "t1")
    ready = next(c for c in kubelet.refreshed(first, "t2") if c["type"] == "Ready")
    assert (ready["lastHeartbeatTime"], ready["lastTransitionTime"]) == ("t2", "t1")
    lost = [{**c, "status": "Unknown"} for c in first]
    again = next(c for c in kubelet.refreshed(lost, "t3") if c["type"] == "Ready")
    assert again["lastTransitionTime"] == "t3"


@pytest.mark.parametrize("folder", ["kubepods/burstable/podp-1", "kubepods.slice/kubepods-podp_1.slice"])
def test_what_runs_in_a_pods_cgroup_ends_with_the_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setattr(kubelet, "CGROUPS", tmp_path)
    files = {name: tmp_path / name / "cgroup.kill" for name in (folder, "kubepods/podp-2", "system.slice/podp-1")}
    for file in files.values():
        file.parent.mkdir(parents=True)
        file.touch()
    kubelet.end_processes("p-1")
    assert [name for name, file in files.items() if file.read_text()] == [folder]


def test_what_runs_in_a_pod_that_is_gone_at_once_is_ended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod with no grace period is not seen on its way out: the API has it, and then it has not."""
    monkeypatch.setattr(kubelet, "CGROUPS", tmp_path)
    kill = tmp_path / "kubepods" / "burstable" / "podp1" / "cgroup.kill"
    kill.parent.mkdir(parents=True)
    cluster = Cluster([pod("Running")])
    node = node_with(cluster)
    node.turn()
    assert not kill.exists()
    cluster.pods = []
    node.turn()
    assert kill.read_text() == "1"
