"""A DaemonSet's pod that holds the device goes before the unload and serves again before the uncordon."""

from __future__ import annotations

import threading
from typing import Any

from tests.fixtures_cluster import RUNNING, eventually
from tests.rollout.sim_fleet import SimFleet

PLUGIN = "plugin"
DAEMON_SETS = "/apis/apps/v1/namespaces/default/daemonsets"


class Kubelet:
    """The node's kubelet, as far as the DaemonSet goes: starts its pods, ends the process of one that is gone."""

    def __init__(self, fleet: SimFleet, node: str) -> None:
        self.fleet, self.node, self.pods = fleet, node, "/api/v1/namespaces/default/pods"
        self.holder: tuple[str, str] | None = None
        """Pod UID and pid of the process that has the device open."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Kubelet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def pod(self) -> dict[str, Any] | None:
        """Return the DaemonSet's pod on the node."""
        listed = self.fleet.admin.get(self.pods)["items"]
        mine = (p for p in listed if p["metadata"].get("labels", {}).get("daemon") == f"{self.node}-{PLUGIN}")
        return next((p for p in mine if p["spec"].get("nodeName") == self.node), None)

    def _work(self) -> None:
        while not self._stop.wait(0.1):
            pod = self.pod()
            if self.holder and (pod is None or pod["metadata"]["uid"] != self.holder[0]):
                self.fleet.nodes[self.node].call(f"kill {self.holder[1]}")
                (self.fleet.nodes[self.node].folder / "busy/fleetdrv_toy").unlink()
                self.holder = None
            if pod is not None and pod["status"]["phase"] == "Pending":
                self._start(pod["metadata"]["name"])

    def _start(self, name: str) -> None:
        kind = "application/merge-patch+json"
        path = f"{self.pods}/{name}/status"
        self.fleet.admin.send("PATCH", path, body={"status": RUNNING}, params={}, content_type=kind)


def test_a_daemon_sets_pod_that_holds_the_device_goes_and_is_back_before_the_uncordon(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    node = next(iter(fleet.nodes))
    fleet.report(node, {"allocatable": {"pods": "110"}, "capacity": {"pods": "110"}})
    _create_daemon_set(fleet, node)
    try:
        with Kubelet(fleet, node) as kubelet:
            eventually(lambda: (kubelet.pod() or {}).get("status", {}).get("phase") == "Running", "the plugin")
            first = (kubelet.pod() or {})["metadata"]["uid"]
            pid = fleet.nodes[node].hold_device("fleetdrv_toy", f"0::/kubepods/pod{first}/{'8c1d' * 16}")
            kubelet.holder = (first, pid)
            before = fleet.nodes[node].loaded()
            fleet.apply("1.1", "-l", node)
            assert fleet.nodes[node].loaded() != before
            assert kubelet.holder is None, "nothing ended the process but its pod's end"
            # Back and Ready already when the command ends: the uncordon waited for it.
            back = kubelet.pod()
            assert back is not None
            assert back["metadata"]["uid"] != first
            assert back["status"]["phase"] == "Running"
        assert not fleet.node(node)["spec"].get("unschedulable")
        assert not fleet.node(node)["spec"].get("taints")
    finally:
        _send(fleet, "DELETE", f"{DAEMON_SETS}/{node}-{PLUGIN}", None)


def _create_daemon_set(fleet: SimFleet, node: str) -> None:
    name = f"{node}-{PLUGIN}"
    labels = {"daemon": name}
    spec = {"nodeSelector": {"pool": fleet.tag}, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "none"}]}
    template = {"metadata": {"labels": labels}, "spec": spec}
    body = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": labels}, "template": template}}
    assert _send(fleet, "POST", DAEMON_SETS, body) == 201


def _send(fleet: SimFleet, method: str, path: str, body: dict[str, Any] | None) -> int:
    return fleet.admin.send(method, path, body=body, params={}, content_type="application/json").code
