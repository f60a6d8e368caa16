"""A pool of simulated nodes behind SSH fronts, with Node objects in a real cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from fleetdrv import names, nodeset
from fleetdrv.api import Api
from tests.fixtures_cluster import READY, eventually
from tests.rollout.api_proxy import ApiProxy
from tests.rollout.points import Points
from tests.rollout.ssh_front import Loop, SshFront
from tests.sim.node import SimNode

REPOSITORY = Path(__file__).parents[2]
PLAYBOOKS = REPOSITORY / "playbooks"
FLEETDRV = str(Path(sys.executable).parent / "fleetdrv")
MakeNode = Callable[..., SimNode]

class SimFleet:
    """Two nodes or more; `fleetdrv` runs the program against them as an operator would."""

    def __init__(self, folder: Path, kubeconfig: Path, admin: Api, builds: Path, size: int = 2,
                 make: MakeNode = SimNode) -> None:
        self.folder, self.admin = folder, admin
        self.points, self._loop = Points(), Loop()
        self.tag = folder.name.replace("_", "-")
        self._loaded: dict[str, tuple[str, ...]] = {}
        self._pool: dict[str, Any] | None = None
        self.api = ApiProxy(kubeconfig, folder, self.points)
        key = folder / "id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        self.nodes: dict[str, SimNode] = {}
        self.fronts: dict[str, SshFront] = {}
        for number in range(1, size + 1):
            name = f"{self.tag}-n{number}"
            node = make(folder / name, name, builds=builds)
            self.nodes[name] = node
            self.fronts[name] = SshFront(name, _backend(node), Path(f"{key}.pub"), self.points, self._loop)
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text("".join(f"{front.known_hosts_line()}\n" for front in self.fronts.values()))
        self.inventory = folder / "inventory.yaml"
        self.write_inventory()
        for name in self.nodes:
            self.make_node(name)
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    # -- the cluster's side

    def _beat(self) -> None:
        """Renew the nodes' own Leases, as kubelets do: the Node objects stay as they are.

        A Lease may be missing for a moment while `make_node` replaces it.
        """
        while not self._stop.wait(15):
            for name in self.nodes:
                path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"
                now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                self._send("PATCH", path, {"spec": {"renewTime": now}}, also=404)

    def _node_lease(self, name: str) -> None:
        spec = {"holderIdentity": name, "leaseDurationSeconds": 40,
                "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec,
                "metadata": {"name": name, "namespace": "kube-node-lease"}}
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        self._send("DELETE", f"{path}/{name}")
        self._send("POST", path, body)

    def make_node(self, name: str) -> None:
        """Create the Node object as the node's kubelet would report it, and a pod on it."""
        node = self.nodes[name]
        blank = dict.fromkeys(("architecture", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion",
                               "kubeletVersion", "operatingSystem", "osImage", "systemUUID"), "none")
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"pool": self.tag}}}
        self._send("POST", "/api/v1/nodes", body)
        self._node_lease(name)
        self.report(name, {"nodeInfo": {**blank, "machineID": node.machine_id, "bootID": node.boot_id},
                           "conditions": READY})
        eventually(lambda: not self.node(name)["spec"].get("taints"), f"{name}'s first taints to go")
        self._make_pod(name)

    def delete_node(self, name: str) -> None:
        """Delete the Node object, as an operator, an autoscaler or a cloud does."""
        self._send("DELETE", f"/api/v1/nodes/{name}")

    def _make_pod(self, node: str) -> None:
        """Put a pod on the node that a drain has to evict. Its owner exists: else it were collected at once."""
        spaces, space = "/api/v1/namespaces", f"sim-{self.tag}"[:63]
        self._send("POST", spaces, {"metadata": {"name": space}}, also=409)
        self._send("POST", f"{spaces}/{space}/configmaps", {"metadata": {"name": "owner"}}, also=409)
        uid = self.admin.get(f"{spaces}/{space}/configmaps/owner")["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "controller": True}
        spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]}
        self._send("DELETE", f"{spaces}/{space}/pods/{node}", {"gracePeriodSeconds": 0})
        pod = {"metadata": {"name": node, "ownerReferences": [owner]}, "spec": spec}
        self._send("POST", f"{spaces}/{space}/pods", pod)

    def budget(self, node: str) -> None:
        """Let a node's pod not be evicted: a PodDisruptionBudget that never has one left."""
        space = f"sim-{self.tag}"[:63]
        label = {"metadata": {"labels": {"on": node}}}
        self._send("PATCH", f"/api/v1/namespaces/{space}/pods/{node}", label)
        running = {"status": {"phase": "Running", "conditions": READY}}  # no budget covers a Pending pod
        self._send("PATCH", f"/api/v1/namespaces/{space}/pods/{node}/status", running)
        path = f"/apis/policy/v1beta1/namespaces/{space}/poddisruptionbudgets"
        spec = {"minAvailable": 1, "selector": {"matchLabels": {"on": node}}}
        self._send("POST", path, {"metadata": {"name": "none-may-go"}, "spec": spec})
        budget = f"{path}/none-may-go"
        eventually(lambda: self.admin.get(budget).get("status", {}).get("currentHealthy") == 1, "the budget")

    def pods(self) -> list[str]:
        """Name the nodes whose pod is still there."""
        listed = self.admin.get(f"/api/v1/namespaces/{f'sim-{self.tag}'[:63]}/pods")["items"]
        return sorted(pod["metadata"]["name"] for pod in listed)

    def report(self, name: str, status: Mapping[str, Any]) -> None:
        """Patch a node's status, as its kubelet does."""
        self._send("PATCH", f"/api/v1/nodes/{name}/status", {"status": status})

    def node(self, name: str) -> dict[str, Any]:
        """Read a Node object."""
        return dict(self.admin.get(f"/api/v1/nodes/{name}"))

    def patch(self, name: str, patch: Mapping[str, Any], manager: str = "kubectl-cordon") -> None:
        """Change a Node object as somebody else."""
        self._send("PATCH", f"/api/v1/nodes/{name}?fieldManager={manager}", patch)

    def journal(self, name: str, phase: str = "job") -> list[str]:
        """Return what the last run's journal says of a node in a phase."""
        last = max((self.folder / "fleetdrv" / "runs").glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
        lines = last.read_text().rpartition("\n")[0].splitlines()  # the last one may be on its way to the disk
        said = [json.loads(line) for line in lines]
        return [entry["text"] for entry in said if entry["node"] == name and entry["phase"] == phase]

    def writes(self) -> list[str]:
        """Return the API writes that were counted outside the program since `points.arm`."""
        return [point.what for point in self.points.seen if point.kind == "api"]

    def lease(self) -> dict[str, Any] | None:
        """Read the pool's Lease."""
        answer = self.admin.send("GET", self._lease_path())
        return None if answer.code == 404 else dict(answer.body)

    def delete_lease(self) -> None:
        """Delete it, as somebody does who thinks that a lock is stuck."""
        self._send("DELETE", self._lease_path())

    def _lease_path(self) -> str:
        name = names.lease_name(self.tag)
        return f"/apis/coordination.k8s.io/v1/namespaces/{names.LEASE_NAMESPACE}/leases/{name}"

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None, also: int = 0) -> None:
        path, _, query = path.partition("?")
        params = dict(part.split("=") for part in query.split("&")) if query else {}
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        answer = self.admin.send(method, path, body=body, params=params, content_type=kind)
        assert answer.code < 400 or answer.code == (404 if method == "DELETE" else also), answer

    # -- the operator's side

    def write_inventory(self, ports: Mapping[str, int] | None = None) -> None:
        """Write the inventory; `ports` swaps addresses."""
        hosts = {
            name: {"ansible_host": "127.0.0.1", "ansible_port": (ports or {}).get(name, front.port)}
            for name, front in self.fronts.items()
        }
        variables = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.folder / "id_ed25519"),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.known_hosts}",
        }
        group = {"gpu": {"hosts": hosts, "vars": variables}}
        self.inventory.write_text(yaml.safe_dump({"all": {"children": group}}))

    def playbook(self, version: str, **changes: Any) -> Path:
        """Write a playbook of the practice driver for this pool; `changes` go into its rollout."""
        book = yaml.safe_load((PLAYBOOKS / f"toy-{version}.yaml").read_text())
        book["pool"] = self.tag
        book["drivers"][0]["dkms"]["source"] = str(PLAYBOOKS / "archives" / f"toy-{version}.tar")
        book["rollout"].update(changes)
        path = self.folder / f"toy-{version}.yaml"
        path.write_text(yaml.safe_dump(book, sort_keys=False))
        return path

    def start(self, *arguments: str, program: Sequence[str] = (FLEETDRV,)) -> subprocess.Popen[bytes]:
        """Start fleetdrv, or what stands for it; its cluster is behind the proxy."""
        environment = {**os.environ, "KUBECONFIG": str(self.api.kubeconfig), "XDG_STATE_HOME": str(self.folder)}
        environment["XDG_CACHE_HOME"] = str(self.folder / "cache")
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        return subprocess.Popen([*program, *arguments], env=environment, cwd=REPOSITORY, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def fleetdrv(self, *arguments: str, code: int | None = None) -> Ended:
        """Run fleetdrv to its end; with `code` it has to end so."""
        with self.start(*arguments) as process:
            out, errors = process.communicate(timeout=240)
        ended = Ended(process.returncode, out.decode(), errors.decode())
        assert code is None or ended.code == code, ended
        return ended

    def apply(self, version: str, *options: str, code: int | None = 0, **changes: Any) -> Ended:
        """Apply one version of the practice driver."""
        book = str(self.playbook(version, **changes))
        return self.fleetdrv("apply", book, "-i", str(self.inventory), "--yes", *options, code=code)

    def plan(self, version: str, *options: str, code: int | None = None, **changes: Any) -> Ended:
        """Plan one version of the practice driver."""
        book = str(self.playbook(version, **changes))
        return self.fleetdrv("plan", book, "-i", str(self.inventory), *options, code=code)

    # -- comparing and starting over

    def end_state(self) -> dict[str, Any]:
        """Return what two rollouts that ended alike must have in common: nodes and Node objects.

        Not the Lease: a run killed after its last change leaves the next command nothing to do, nor to write.
        """
        state: dict[str, Any] = {}
        for name, node in self.nodes.items():
            body = self.node(name)
            spec = {key: body["spec"].get(key) for key in ("unschedulable", "taints")}
            notes = dict(body["metadata"].get("annotations") or {})
            if names.LAST_RESULT in notes:
                result = json.loads(notes.pop(names.LAST_RESULT))
                notes["result"] = f"{result['verdict']} {result['digest']}"
            labels = body["metadata"].get("labels") or {}
            state[name] = {"spec": spec, "labels": labels, "annotations": notes, "node": node.end_state()}
        return state

    @property
    def cache(self) -> Path:
        """The controller's folder of finished builds."""
        return self.folder / "cache/fleetdrv/builds"

    def compiled(self) -> dict[str, list[str]]:
        """Return the kernels that each node has run a compiler for, one entry for each time."""
        return {name: node.compiled() for name, node in self.nodes.items()}

    def snapshot(self) -> None:
        """Remember the nodes and the Lease as they are."""
        self._pool = self.lease()
        self._loaded = {name: tuple(node.loaded()) for name, node in self.nodes.items()}
        self.cache.mkdir(parents=True, exist_ok=True)
        _mirror(self.folder / "cache", self.folder / "snapshot" / "cache")
        for name, node in self.nodes.items():
            for part in node.kept:
                _mirror(node.folder / part, self.folder / "snapshot" / name / part)

    def restore(self) -> None:
        """Bring nodes, Node objects and Lease back to the snapshot; what was loaded is loaded again."""
        self.delete_lease()
        if self._pool is not None:
            known = {key: self._pool["metadata"].get(key) for key in ("name", "annotations")}
            self._send("POST", self._lease_path().rpartition("/")[0], {**self._pool, "metadata": known})
        _mirror(self.folder / "snapshot" / "cache", self.folder / "cache")
        for name, node in self.nodes.items():
            node.close()
            for part in node.kept:
                _mirror(self.folder / "snapshot" / name / part, node.folder / part)
            node.reboot_from_disk()
            for module in self._loaded[name]:
                node.call(f"modprobe {module}")
            self.delete_node(name)
            self.make_node(name)

    def close(self) -> None:
        """End every process and server."""
        self._stop.set()
        self._heart.join()
        for front in self.fronts.values():
            front.close()
        for name, node in self.nodes.items():
            node.close()
            self.delete_node(name)
        self.delete_lease()
        self._loop.close()
        self.api.close()


class Ended:
    """How fleetdrv ended; `out` has a line for each node of a set that shares one, `raw` is as it was printed."""

    def __init__(self, code: int, out: str, errors: str) -> None:
        self.code, self.raw, self.errors = code, out, errors
        self.out = "".join(map(_spelt_out, out.splitlines(keepends=True)))

    @property
    def json(self) -> Any:
        """The document on stdout."""
        return json.loads(self.raw)

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.raw}\n--- stderr\n{self.errors[-6000:]}"


def _spelt_out(line: str) -> str:
    names, colon, rest = line.partition(": ")
    if not colon or "[" not in names or " " in names.strip():
        return line
    indent = names[: len(names) - len(names.lstrip())]
    return "".join(f"{indent}{name}: {rest}" for name in nodeset.expand(names.strip()))


def _backend(node: SimNode) -> Any:
    def start(command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(node.argv(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, env=dict(node.environment()), cwd="/")

    return start


def _mirror(source: Path, target: Path) -> None:
    """Copy a tree with everything that overlayfs keeps beside names and bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def jobs(node: SimNode) -> Sequence[str]:
    """Return the ids of all jobs on a node."""
    return sorted(path.name for path in node.state.glob("jobs/*"))
