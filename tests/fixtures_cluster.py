"""Two clusters to hold the port against: one in memory, and a real API server through `kubectl proxy`.

A `World` is what a test needs beside the port: nodes, pods and budgets to be there, and other people's hands
on them. The real one acts as administrator, while fleetdrv itself is a user with the rights of
docs/clusterrole.yaml. Where the control plane cannot be had, tests fail with the reason; none is skipped.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fleetdrv import names
from fleetdrv.api import Api
from fleetdrv.cluster import Cluster, KubectlCluster
from fleetdrv.effects import Effects
from fleetdrv.kubectl import Proxy
from fleetdrv.lab import controlplane, images
from fleetdrv.ownership import Object, Patch
from tests.cluster.front import Throttling
from tests.fakes.cluster import FakeCluster

KUBECTL = str(Path(sys.executable).parent / "kubectl")
_NODE_INFO = (
    "architecture",
    "containerRuntimeVersion",
    "kernelVersion",
    "kubeProxyVersion",
    "kubeletVersion",
    "operatingSystem",
    "osImage",
    "systemUUID",
)
READY = [{"type": "Ready", "status": "True"}]
FINISHED = {"phase": "Succeeded", "conditions": []}
RUNNING = {"phase": "Running", "conditions": READY}


def node_object(name: str, labels: Mapping[str, str]) -> Object:
    """Return a Ready node that says which machine it is."""
    info = dict.fromkeys(_NODE_INFO, "none")
    status = {
        "conditions": READY,
        "nodeInfo": {**info, "machineID": f"machine-{name}", "bootID": f"boot-{name}"},
        "allocatable": {"cpu": "4", "pods": "110", "example.com/device": "2"},
        "images": [{"names": ["registry/image"], "sizeBytes": 1}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": dict(labels)},
        "status": status,
    }


def pod_object(namespace: str, name: str, node: str, **more: Any) -> Object:
    """Return a Ready pod; `more` are grace, labels, owner, volumes, phase, finalizers, tolerations."""
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": more.get("labels", {}),
        "ownerReferences": [more["owner"]] if more.get("owner") else [],
        "finalizers": more.get("finalizers", []),
    }
    spec = {
        "nodeName": node,
        "terminationGracePeriodSeconds": more.get("grace", 0),
        "volumes": more.get("volumes", []),
        "tolerations": more.get("tolerations", []),
        "containers": [{"name": "c", "image": "none"}],
    }
    phase = more.get("phase", "Running")
    status = {"phase": phase, "conditions": READY if phase == "Running" else []}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


class World(ABC):
    """A cluster under test, and the hands of everybody else on it."""

    cluster: Cluster
    effects: Effects

    def __init__(self) -> None:
        self.tag = uuid.uuid4().hex[:8]
        self.namespace = f"test-{self.tag}"
        self.pool = f"pool-{self.tag}"
        self._owner: dict[str, Any] = {}

    def node(self, name: str = "node") -> str:
        """Create a node; return its full name."""
        full = f"{name}-{self.tag}"
        self.create(node_object(full, {"test": self.tag}))
        eventually(
            lambda: not self.cluster.node(full).get("spec", {}).get("taints"), "new node's taints to go"
        )
        return full

    def pod(self, name: str, node: str, **more: Any) -> Object:
        """Create a pod on a node; unless told otherwise it has a controller.

        One that exists: the garbage collector deletes at once what an unknown owner is said to own.
        """
        if not self._owner:
            made = self.create(
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": "controller", "namespace": self.namespace},
                }
            )
            self._owner = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "name": "controller",
                "controller": True,
                "uid": made["metadata"]["uid"],
            }
        return self.create(pod_object(self.namespace, name, node, **{"owner": self._owner, **more}))

    def daemon_set(self, name: str, *, tolerations: Sequence[Object] = (), label: str = "") -> None:
        """Create a DaemonSet for this world's nodes, or those of them with `label`=true."""
        labels = {"daemon": name}
        spec = {
            "nodeSelector": {"test": self.tag, **({label: "true"} if label else {})},
            "tolerations": list(tolerations),
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "none"}],
        }
        template = {"metadata": {"labels": labels}, "spec": spec}
        self.create(
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {"selector": {"matchLabels": labels}, "template": template},
            }
        )

    def daemon(self, name: str, node: str) -> Object | None:
        """Return the DaemonSet's pod that is Ready on a node, after controllers and kubelet did what was due."""
        self.settle(node)
        mine = (p for p in self.cluster.pods_on(node) if p["metadata"].get("labels", {}).get("daemon") == name)
        return next((p for p in mine if p["status"]["phase"] == "Running"), None)

    def settle(self, node: str) -> None:
        """Be the node's kubelet: confirm deletions, start pods."""
        self.kubelet(node)
        for pod in self.cluster.pods_on(node):
            if pod["status"]["phase"] == "Pending":
                self.start(pod)

    def budget(self, name: str, labels: Mapping[str, str], at_least: int) -> None:
        """Create a PodDisruptionBudget and wait until it counts."""
        spec = {"minAvailable": at_least, "selector": {"matchLabels": dict(labels)}}
        metadata = {"name": name, "namespace": self.namespace}
        self.create(
            {
                "apiVersion": "policy/v1beta1",
                "kind": "PodDisruptionBudget",
                "metadata": metadata,
                "spec": spec,
            }
        )

    def settled(self, budget: str, healthy: int) -> None:
        """Wait until the budget has counted that many healthy pods."""

        def counted() -> bool:
            found = {b["metadata"]["name"]: b.get("status", {}) for b in self.cluster.budgets(self.namespace)}
            return bool(found[budget].get("currentHealthy", 0) == healthy)

        eventually(counted, f"{budget} to count {healthy} healthy pods")

    @abstractmethod
    def create(self, obj: Object) -> Object:
        """Create any object, status included."""

    @abstractmethod
    def patch_node(self, name: str, patch: Patch, manager: str) -> Object:
        """Merge-patch a node as somebody else."""

    @abstractmethod
    def cordon(self, name: str, *, lift: bool = False) -> None:
        """Cordon or uncordon as an operator does, by kubectl."""

    @abstractmethod
    def throttle(self, count: int) -> None:
        """Let the API be too busy for so many evictions."""

    @abstractmethod
    def finish(self, name: str) -> None:
        """Let a pod end by itself, well."""

    @abstractmethod
    def finalize(self, name: str) -> None:
        """Take a pod's finalizers off."""

    @abstractmethod
    def start(self, pod: Object) -> None:
        """Make a pod Ready, if it is still there."""

    @abstractmethod
    def delete_pod(self, name: str) -> None:
        """Delete a pod at once."""

    @abstractmethod
    def delete_daemon_set(self, name: str) -> None:
        """Delete a DaemonSet."""

    @abstractmethod
    def delete_lease(self, name: str) -> None:
        """Delete a Lease."""

    @abstractmethod
    def kubelet(self, node: str) -> int:
        """Confirm deletions on a node; return how many."""

    @abstractmethod
    def events(self, node: str) -> list[Mapping[str, Any]]:
        """List the Events about a node."""


class FakeWorld(World):
    """In memory."""

    def __init__(self) -> None:
        super().__init__()
        self.effects = Effects()
        self.fake = FakeCluster(self.effects)
        self.cluster = self.fake

    def create(self, obj: Object) -> Object:
        return self.fake.create(obj)

    def patch_node(self, name: str, patch: Patch, manager: str) -> Object:
        return self.fake.patch("Node", "", name, patch, manager)

    def cordon(self, name: str, *, lift: bool = False) -> None:
        self.fake.patch(
            "Node", "", name, {"spec": {"unschedulable": None if lift else True}}, "kubectl-cordon"
        )

    def settle(self, node: str) -> None:
        self.fake.daemon_sets()
        super().settle(node)

    def throttle(self, count: int) -> None:
        self.fake.throttled = count

    def finish(self, name: str) -> None:
        self.fake.patch("Pod", self.namespace, name, {"status": FINISHED})

    def finalize(self, name: str) -> None:
        self.fake.patch("Pod", self.namespace, name, {"metadata": {"finalizers": []}})

    def start(self, pod: Object) -> None:
        self.fake.patch("Pod", self.namespace, pod["metadata"]["name"], {"status": RUNNING})

    def delete_pod(self, name: str) -> None:
        self.fake.delete("Pod", self.namespace, name)

    def delete_daemon_set(self, name: str) -> None:
        self.fake.delete("DaemonSet", self.namespace, name)

    def delete_lease(self, name: str) -> None:
        self.fake.delete("Lease", names.LEASE_NAMESPACE, name)

    def kubelet(self, node: str) -> int:
        return self.fake.kubelet(node)

    def events(self, node: str) -> list[Mapping[str, Any]]:
        return [e for e in self.fake.events if e["involvedObject"]["name"] == node]


class RealWorld(World):
    """A real API server: fleetdrv's own user on one side, the administrator on the other."""

    def __init__(self, user: Api, admin: Api, kubeconfig: Path) -> None:
        super().__init__()
        self.effects = Effects()
        self.cluster = KubectlCluster(user, self.effects)
        self._user, self._admin, self._kubeconfig = user, admin, kubeconfig
        self._front: Throttling | None = None
        self._made: list[str] = []
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})

    def create(self, obj: Object) -> Object:
        path = _collection(obj)
        made = _good(self._admin.send("POST", path, body=obj))
        full = f"{path}/{made['metadata']['name']}"
        if obj["kind"] in ("Node", "Namespace") or "/kube-system/" in path:
            self._made.append(full)
        if "status" in obj:
            made = _good(
                self._admin.send(
                    "PATCH",
                    f"{full}/status",
                    body={"status": obj["status"]},
                    content_type="application/merge-patch+json",
                )
            )
        return made

    def patch_node(self, name: str, patch: Patch, manager: str) -> Object:
        return _good(
            self._admin.send(
                "PATCH",
                f"/api/v1/nodes/{name}",
                body=patch,
                params={"fieldManager": manager},
                content_type="application/merge-patch+json",
            )
        )

    def cordon(self, name: str, *, lift: bool = False) -> None:
        self.kubectl("uncordon" if lift else "cordon", name)

    def kubectl(self, *words: str) -> str:
        """Run kubectl as the administrator; return what it prints."""
        argv = [KUBECTL, f"--kubeconfig={self._kubeconfig}", *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout

    def throttle(self, count: int) -> None:
        if self._front is None:
            self._front = Throttling(self._user, Path(tempfile.mkdtemp()))
            self.cluster = KubectlCluster(self._front.api, self.effects)
        self._front.left = count

    def finish(self, name: str) -> None:
        self._patch_pod(f"{name}/status", {"status": FINISHED})

    def finalize(self, name: str) -> None:
        self._patch_pod(name, {"metadata": {"finalizers": []}})

    def start(self, pod: Object) -> None:
        self._patch_pod(f"{pod['metadata']['name']}/status", {"status": RUNNING})

    def _patch_pod(self, what: str, patch: Patch) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{what}"
        merge = "application/merge-patch+json"
        answer = self._admin.send("PATCH", path, body=patch, content_type=merge)
        assert answer.code in (200, 404), answer

    def delete_pod(self, name: str) -> None:
        self._delete(f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    def delete_daemon_set(self, name: str) -> None:
        self._delete(f"/apis/apps/v1/namespaces/{self.namespace}/daemonsets/{name}")

    def delete_lease(self, name: str) -> None:
        self._delete(f"/apis/coordination.k8s.io/v1/namespaces/{names.LEASE_NAMESPACE}/leases/{name}")

    def kubelet(self, node: str) -> int:
        leaving = [p for p in self.cluster.pods_on(node) if p["metadata"].get("deletionTimestamp")]
        for pod in leaving:
            self.delete_pod(pod["metadata"]["name"])
        return len(leaving)

    def events(self, node: str) -> list[Mapping[str, Any]]:
        query = {"fieldSelector": f"involvedObject.name={node}"}
        return list(self._admin.get("/api/v1/namespaces/default/events", query)["items"])

    def close(self) -> None:
        if self._front:
            self._front.close()
        for pod in self._admin.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]:
            self.finalize(pod["metadata"]["name"])
            self.delete_pod(pod["metadata"]["name"])
        for path in self._made:
            self._delete(path)

    def _delete(self, path: str) -> None:
        answer = self._admin.send(
            "DELETE", path, body={"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
        )
        assert answer.code in (200, 202, 404), answer


def eventually(true: Callable[[], bool], what: str, seconds: float = 90) -> None:
    """Wait until something is so; controllers are asynchronous, and this machine may be busy."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def _collection(obj: Object) -> str:
    group = obj["apiVersion"]
    base = f"/api/{group}" if group == "v1" else f"/apis/{group}"
    namespace = obj["metadata"].get("namespace")
    return f"{base}{f'/namespaces/{namespace}' if namespace else ''}/{obj['kind'].lower()}s"


def _good(answer: Any) -> Object:
    assert answer.code < 400, answer
    body: Object = answer.body
    return body


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running control plane; the administrator's kubeconfig. Its programs are built by tests/conftest.py."""
    folder = tmp_path_factory.mktemp("control-plane")
    try:
        yield controlplane.start(folder, images.cache(), print)
    finally:
        controlplane.stop(folder)


@pytest.fixture(scope="session")
def least_privilege(control_plane: Path) -> Path:
    """The kubeconfig of a user who may do what fleetdrv needs, and nothing else."""
    rules = Path(__file__).parents[1] / "docs" / "clusterrole.yaml"
    argv = [KUBECTL, f"--kubeconfig={control_plane}", "apply", "-f", str(rules)]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return controlplane.user_kubeconfig(control_plane.parent, "fleetdrv-test", ["fleetdrv"])


@pytest.fixture(scope="session")
def user_api(least_privilege: Path) -> Iterator[Api]:
    with Proxy(kubeconfig=str(least_privilege)) as proxy:
        yield proxy.api


@pytest.fixture(scope="session")
def admin_api(control_plane: Path) -> Iterator[Api]:
    with Proxy(kubeconfig=str(control_plane)) as proxy:
        yield proxy.api


@pytest.fixture
def fake_world() -> FakeWorld:
    return FakeWorld()


@pytest.fixture
def real_world(user_api: Api, admin_api: Api, control_plane: Path) -> Iterator[RealWorld]:
    world = RealWorld(user_api, admin_api, control_plane)
    yield world
    world.close()


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> World:
    """Both clusters, one after the other."""
    chosen: World = request.getfixturevalue(f"{request.param}_world")
    return chosen
