"""The kubelet's stand-in: runs inside a practice node and speaks for it to the real API.

It does the parts of a kubelet that a driver rollout can see. It registers the Node and refreshes its status
and Lease from inside, so that a power cut, a reboot and a hang look to the cluster as they do elsewhere; it
makes the pods bound to the node Running and Ready; it ends pods that are to be deleted, after their grace
period, and with a pod whatever runs in its cgroup. It never touches a Node's spec, labels or annotations once
the Node exists: those are for others.

Plain HTTP, no credentials: the API's address in the guest leads to a private socket on the host.
"""

import http.client
import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

CONFIG = Path("/etc/fleetdrv-lab.json")
HEARTBEAT_SECONDS = 10
POD_SECONDS = 1
LONGEST_PAUSE_SECONDS = 10
LEASE_SECONDS = 40
ANSWER_SECONDS = 30
CGROUPS = Path("/sys/fs/cgroup")
VERSION = "v1.20.2-fleetdrv-lab"
PATCH = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"

Json = dict[str, Any]


class Refused(Exception):
    """The API answered, and the answer is not a success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:300]}")
        self.status = status


class Api:
    """One kept connection to the API; a broken one is made anew by the next call."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)

    def call(self, method: str, path: str, body: Json | None = None, kind: str = "application/json") -> Json:
        """Make one request; the caller repeats it if it wants to, at its next turn."""
        headers = {"Host": "localhost", "Content-Type": kind, "User-Agent": "fleetdrv-lab-kubelet"}
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = self._connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        if answer.status >= 300:
            raise Refused(answer.status, text)
        parsed: Json = json.loads(text)
        return parsed


class Kubelet:
    """One node; it remembers between turns which pods it had, and since when one has been terminating."""

    def __init__(self, name: str, address: str, taints: list[Json], api: Api) -> None:
        self._name = name
        self._taints = taints
        self._api = api
        self._status = node_status(name, address)
        self._terminating: dict[str, float] = {}
        self._running: set[str] = set()
        self._next_heartbeat = 0.0

    def turn(self) -> None:
        """Refresh the Node when it is due, then bring this node's pods to where they should be."""
        if time.monotonic() >= self._next_heartbeat:
            self._heartbeat()
            self._next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS
        selector = quote(f"spec.nodeName={self._name}", safe="")
        pods = self._api.call("GET", f"/api/v1/pods?fieldSelector={selector}&resourceVersion=0")["items"]
        running = {uid_of(pod) for pod in pods}
        for uid in self._running - running:  # without a grace period a pod is not seen on its way out
            end_processes(uid)
        self._running = running
        self._terminating = {uid: since for uid, since in self._terminating.items() if uid in running}
        for pod in pods:
            self._care_for(pod)

    def _heartbeat(self) -> None:
        path = f"/api/v1/nodes/{self._name}"
        try:
            node = self._api.call("GET", path)
        except Refused as refused:
            if refused.status != 404:
                raise
            node = self._api.call("POST", "/api/v1/nodes", node_object(self._name, self._taints))
        conditions = refreshed(node.get("status", {}).get("conditions", []), now())
        status = {"status": {**self._status, "conditions": conditions}}
        self._api.call("PATCH", f"{path}/status", status, PATCH)
        self._renew_lease(node["metadata"]["uid"])

    def _renew_lease(self, uid: str) -> None:
        """Renew the Lease that the node lifecycle controller watches; it goes with its owner, the Node."""
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._name, "uid": uid}
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "ownerReferences": [owner]},
            "spec": {
                "holderIdentity": self._name,
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
            },
        }
        try:
            self._api.call("PATCH", f"{leases}/{self._name}", lease, MERGE)
        except Refused as refused:
            if refused.status != 404:
                raise
            self._api.call("POST", leases, lease)

    def _care_for(self, pod: Json) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        try:
            if "deletionTimestamp" in metadata:
                if self._grace_is_over(pod):
                    end_processes(metadata["uid"])
                    condition = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
                    self._api.call("DELETE", path, condition)
            elif not is_served(pod):
                body = {"metadata": {"uid": metadata["uid"]}, "status": pod_status(pod, now())}
                self._api.call("PATCH", f"{path}/status", body, PATCH)
        except Refused as refused:
            if refused.status not in (404, 409):  # gone, or another pod of that name: seen at the next turn
                raise

    def _grace_is_over(self, pod: Json) -> bool:
        """Count from when this node saw the deletion: its clock may differ from the API's."""
        since = self._terminating.setdefault(uid_of(pod), time.monotonic())
        return time.monotonic() - since >= int(pod["metadata"].get("deletionGracePeriodSeconds") or 0)


def uid_of(pod: Json) -> str:
    """Give what tells this pod from a later one of the same name."""
    return str(pod["metadata"]["uid"])


def end_processes(uid: str) -> None:
    """Kill what runs in the pod's cgroup, wherever a practitioner has made one (both drivers' names)."""
    names = (f"kubepods/**/pod{uid}", f"kubepods.slice/**/*-pod{uid.replace('-', '_')}.slice")
    for folder in (folder for name in names for folder in CGROUPS.glob(name)):
        (folder / "cgroup.kill").write_text("1")


def is_served(pod: Json) -> bool:
    """Tell whether the pod is finished, or Running and Ready: nothing is left to say about it."""
    status = pod.get("status", {})
    if status.get("phase") in ("Succeeded", "Failed"):
        return True
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
    return ready and status.get("phase") == "Running"


def pod_status(pod: Json, at: str) -> Json:
    """Say that every container runs since now and is ready."""
    kinds = ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": f"lab://{container['image']}",
            "containerID": f"lab://{uid_of(pod)}/{container['name']}",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": at}},
        }
        for container in pod["spec"]["containers"]
    ]
    return {
        "phase": "Running",
        "startTime": pod.get("status", {}).get("startTime", at),
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": at} for kind in kinds],
        "containerStatuses": containers,
    }


def node_object(name: str, taints: list[Json]) -> Json:
    """Describe the Node at its registration: the labels every kubelet gives, and one that says "practice"."""
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture(),
        "fleetdrv.io/lab": "true",
    }
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": taints}}


def node_status(name: str, address: str) -> Json:
    """Read what this boot of this machine is; the boot id and the kernel cannot change while we run."""
    resources = {"cpu": str(os.cpu_count()), "memory": f"{memory_kib()}Ki", "pods": "110"}
    return {
        "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
        "capacity": resources,
        "allocatable": resources,
        "nodeInfo": {
            "machineID": text("/etc/machine-id"),
            "systemUUID": text("/sys/class/dmi/id/product_uuid"),
            "bootID": text("/proc/sys/kernel/random/boot_id"),
            "kernelVersion": os.uname().release,
            "osImage": os_image(),
            "containerRuntimeVersion": "fleetdrv-lab://0",
            "kubeletVersion": VERSION,
            "kubeProxyVersion": VERSION,
            "operatingSystem": "linux",
            "architecture": architecture(),
        },
    }


def refreshed(former: list[Json], at: str) -> list[Json]:
    """Give the conditions of a healthy node; the time of the last transition stays unless there was one."""
    healthy = {"Ready": "True", "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False"}
    known = {condition["type"]: condition for condition in former}
    conditions = []
    for kind, status in healthy.items():
        before = known.get(kind, {})
        since = before.get("lastTransitionTime", at) if before.get("status") == status else at
        conditions.append(
            {
                "type": kind,
                "status": status,
                "reason": "KubeletReady" if kind == "Ready" else f"KubeletHasNo{kind}",
                "message": "the practice node's kubelet stand-in is posting ready status",
                "lastHeartbeatTime": at,
                "lastTransitionTime": since,
            }
        )
    return conditions


def now() -> str:
    """Give the time as the API writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def text(path: str) -> str:
    """Read a small file of the kernel or of /etc."""
    return Path(path).read_text().strip()


def architecture() -> str:
    """Name the machine as Kubernetes does."""
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def memory_kib() -> int:
    """Read how much memory the kernel has."""
    line = next(line for line in text("/proc/meminfo").splitlines() if line.startswith("MemTotal:"))
    return int(line.split()[1])


def os_image() -> str:
    """Read the name the distribution gives itself."""
    lines = text("/etc/os-release").splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values.get("PRETTY_NAME", "Linux").strip('"')


def main() -> None:
    """Turn for ever; an API that is away is waited for, longer each time; a new trouble is told once."""
    config = json.loads(CONFIG.read_text())
    api = Api(config["api_host"], config["api_port"])
    kubelet = Kubelet(config["node"], config["address"], config["taints"], api)
    pause: float = POD_SECONDS
    trouble = ""
    while True:
        try:
            kubelet.turn()
            pause, problem = POD_SECONDS, ""
        except (OSError, http.client.HTTPException, Refused, ValueError, KeyError, TypeError) as error:
            pause, problem = min(pause * 2, LONGEST_PAUSE_SECONDS), f"{type(error).__name__}: {error}"
        if problem != trouble:
            os.write(1, f"{problem or 'the API answers'}\n".encode())
            trouble = problem
        time.sleep(pause)


if __name__ == "__main__":
    main()
