"""A cluster in memory with the API's own semantics, held to them by tests/cluster/test_contract.py.

The port's methods are what the program sees. `create`, `patch`, `delete` and `kubelet` are the rest of the
world: operators, controllers, other field managers. `fault` makes answers get lost.
"""

from __future__ import annotations

import copy
import itertools
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from fleetdrv import names, pods
from fleetdrv.effects import Effects, Kind
from fleetdrv.errors import ClusterAway, ClusterError, Conflict, Forbidden, NotFound
from fleetdrv.ownership import Object, Patch
from fleetdrv.pods import Eviction, Verdict
from fleetdrv.wire import event_body, without_images

Key = tuple[str, str, str]
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")


def merge(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386, the pseudo-code of section 2)."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


class FakeCluster:
    """Implements fleetdrv.cluster.Cluster."""

    def __init__(self, effects: Effects | None = None) -> None:
        self.effects = effects or Effects()
        self.events: list[Mapping[str, Any]] = []
        self.fault: Callable[[str, str], str] = lambda _target, _what: ""
        """Asked on each write: "before" loses the request, "after" loses the answer, "" does neither."""
        self.throttled = 0
        """So many evictions are answered with 429, as the API does when it is overloaded."""
        self.blind = False
        """This user may not read other programs' objects."""
        self.deaf = False
        """This user may not create Events."""
        self._lock = threading.RLock()
        self._versions = itertools.count(1)
        self._objects: dict[Key, dict[str, Any]] = {}
        self.create({"kind": "Namespace", "metadata": {"name": "kube-system"}})

    # ---- the port

    def uid(self) -> str:
        return str(self._get("Namespace", "", "kube-system")["metadata"]["uid"])

    def nodes(self, selector: str = "") -> tuple[Object, ...]:
        return tuple(copy.deepcopy(n) for n in self.every("Node") if _selected(n, selector))

    def node(self, name: str) -> Object:
        return self._get("Node", "", name)

    def patch_node(self, name: str, patch: Patch, resource_version: str) -> Object:
        with self._write(f"node/{name}", "PATCH"):
            self._at_version("Node", "", name, resource_version)
            return self.patch("Node", "", name, patch, names.FIELD_MANAGER)

    def pods_on(self, node: str) -> tuple[Object, ...]:
        return tuple(copy.deepcopy(p) for p in self.every("Pod") if p["spec"].get("nodeName") == node)

    def pod(self, namespace: str, name: str) -> Object:
        return self._get("Pod", namespace, name)

    def daemon_set(self, namespace: str, name: str) -> Object:
        return self._get("DaemonSet", namespace, name)

    def evict(self, pod: Object, *, dry_run: bool, grace: int | None = None) -> Eviction:
        if dry_run:
            return self._evict(pod, dry_run=True, grace=grace)
        with self._write(f"pod/{pods.title(pod)}", "POST evict"):
            return self._evict(pod, dry_run=False, grace=grace)

    def budgets(self, namespace: str) -> tuple[Object, ...]:
        return tuple(
            self._with_status(b)
            for b in self.every("PodDisruptionBudget")
            if b["metadata"]["namespace"] == namespace
        )

    def maintenances(self) -> tuple[Object, ...]:
        if self.blind:
            raise Forbidden("GET nodemaintenances: may not list them (HTTP 403)")
        return tuple(copy.deepcopy(found) for found in self.every("NodeMaintenance"))

    def leases(self) -> tuple[Object, ...]:
        ours = [e for e in self.every("Lease") if e["metadata"]["name"].startswith(names.LEASE_PREFIX)]
        return tuple(copy.deepcopy(lease) for lease in ours)

    def lease(self, name: str) -> Object | None:
        try:
            return self._get("Lease", names.LEASE_NAMESPACE, name)
        except NotFound:
            return None

    def create_lease(self, lease: Object) -> Object:
        with self._write(f"lease/{lease['metadata']['name']}", "POST Lease"):
            return self.create(lease)

    def replace_lease(self, lease: Object) -> Object:
        name = lease["metadata"]["name"]
        with self._write(f"lease/{name}", "PUT Lease"):
            version = lease["metadata"].get("resourceVersion")
            if not version:
                raise ClusterError(f"lease/{name}: metadata.resourceVersion: must be specified for an update")
            self._at_version("Lease", names.LEASE_NAMESPACE, name, version)
            return self._store(copy.deepcopy(dict(lease)))

    def record_event(self, node: str, reason: str, message: str, *, key: str, warning: bool = False) -> None:
        with self._write(f"node/{node}", "POST Event"):
            if self.deaf:
                raise Forbidden("POST events: may not create them (HTTP 403)")
            event = event_body(node, reason, message, key=key, warning=warning, now=datetime.now(UTC))
            if any(event["metadata"]["name"] == other["metadata"]["name"] for other in self.events):
                raise Conflict(f"event {event['metadata']['name']}: already exists")
            self.events.append(event)

    # ---- the rest of the world

    def create(self, obj: Object) -> Object:
        """Create any object, status included."""
        new = copy.deepcopy(dict(obj))
        new["metadata"] = {**new["metadata"], "uid": str(uuid.uuid4())}
        with self._lock:
            if _key(new) in self._objects:
                raise Conflict(f"{_key(new)}: already exists")
            return self._store(new)

    def patch(self, kind: str, namespace: str, name: str, patch: Patch, manager: str = "kubectl") -> Object:
        """Merge-patch any object, as some field manager."""
        with self._lock:
            old = self._get(kind, namespace, name)
            new = merge(old, patch)
            if kind == "Node":
                _track(old, new, manager)
            return self._store(new)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete at once, without grace."""
        with self._lock:
            self._get(kind, namespace, name)
            del self._objects[kind, namespace, name]

    def kubelet(self, node: str) -> int:
        """Confirm the deletions on a node, as its kubelet would; return how many. Finalizers keep a pod."""
        with self._lock:
            gone = [p for p in self.pods_on(node) if p["metadata"].get("deletionTimestamp")]
            gone = [p for p in gone if not p["metadata"].get("finalizers")]
            for pod in gone:
                del self._objects[_key(pod)]
            return len(gone)

    def daemon_sets(self) -> None:
        """Do once what the DaemonSet controller does: a pod on each node that is for it, and on no other.

        A taint of effect NoSchedule keeps a pod from being made, and ends none.
        """
        with self._lock:
            for owner, node in itertools.product(self.every("DaemonSet"), self.every("Node")):
                self._daemon(owner, node)

    def _daemon(self, owner: Object, node: Object) -> None:
        namespace, template = owner["metadata"]["namespace"], owner["spec"]["template"]
        name = f"{owner['metadata']['name']}-{node['metadata']['name']}"
        wanted = template["spec"].get("nodeSelector", {}).items() <= node["metadata"].get("labels", {}).items()
        there = self._objects.get(("Pod", namespace, name))
        if there and not wanted:
            self._delete_gracefully(there, None)
        taints = [t for t in node["spec"].get("taints", ()) if t["effect"] == "NoSchedule"]
        if there or not wanted or not all(pods.tolerates(template, taint) for taint in taints):
            return
        by = {"kind": "DaemonSet", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
        metadata = {"name": name, "namespace": namespace, "labels": template["metadata"]["labels"]}
        metadata["ownerReferences"] = [{**by, "controller": True}]
        spec = {**template["spec"], "nodeName": node["metadata"]["name"]}
        self.create({"kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": "Pending"}})

    def every(self, kind: str) -> list[dict[str, Any]]:
        """List objects of a kind, by name."""
        with self._lock:
            return [obj for key, obj in sorted(self._objects.items()) if key[0] == kind]

    # ---- how it works

    @contextmanager
    def _write(self, target: str, what: str) -> Iterator[None]:
        with self.effects.passing(Kind.API_WRITE, target, what):
            fault = self.fault(target, what)
            if fault == "before":
                raise ClusterAway(f"{what} {target}: lost on the way there")
            with self._lock:
                yield
            if fault == "after":
                raise ClusterAway(f"{what} {target}: the answer was lost")

    def _get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        with self._lock:
            if (kind, namespace, name) not in self._objects:
                raise NotFound(f"{kind} {namespace}/{name}: not found")
            return copy.deepcopy(self._objects[kind, namespace, name])

    def _at_version(self, kind: str, namespace: str, name: str, version: str) -> None:
        now = self._get(kind, namespace, name)["metadata"]["resourceVersion"]
        if now != version:
            raise Conflict(f"{kind} {name}: the object has been modified ({version} is now {now})")

    def _store(self, obj: dict[str, Any]) -> Object:
        new = _as_the_api_keeps_it(obj)
        with self._lock:
            if self._objects.get(_key(new)) != new:  # else the version stays: nothing is written
                new["metadata"]["resourceVersion"] = str(next(self._versions))
                self._objects[_key(new)] = new
        return copy.deepcopy(new)

    def _evict(self, pod: Object, *, dry_run: bool, grace: int | None) -> Eviction:
        with self._lock:
            if self.throttled:
                self.throttled -= 1
                said = "too many requests, please try again later"
                return Eviction(verdict=Verdict.THROTTLED, message=said, retry_after_seconds=1)
            now = self._objects.get(_key({**pod, "kind": "Pod"}))
            if now is None or now["metadata"]["uid"] != pod["metadata"]["uid"]:
                return Eviction(verdict=Verdict.GONE)
            leaving = now["metadata"].get("deletionTimestamp")
            if not leaving and now.get("status", {}).get("phase") not in ("Succeeded", "Failed", "Pending"):
                refused = self._refusal(now)
                if refused:
                    return refused
            if not dry_run:
                self._delete_gracefully(now, grace)
            return Eviction(verdict=Verdict.ACCEPTED)

    def _refusal(self, pod: Object) -> Eviction | None:
        over = [b for b in self.every("PodDisruptionBudget") if _matches(b, pod)]
        if len(over) > 1:
            return Eviction(
                verdict=Verdict.REFUSED,
                message="This pod has more than one PodDisruptionBudget, which the eviction "
                "subresource does not support.",
            )
        if not over or self._with_status(over[0])["status"]["disruptionsAllowed"] > 0:
            return None
        name, status = over[0]["metadata"]["name"], self._with_status(over[0])["status"]
        said = (
            f"The disruption budget {name} needs {status['desiredHealthy']} healthy pods and has "
            f"{status['currentHealthy']} currently"
        )
        return Eviction(verdict=Verdict.BLOCKED, budgets=(name,), message=said)

    def _delete_gracefully(self, pod: dict[str, Any], grace: int | None) -> None:
        seconds = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
        if (seconds == 0 and not pod["metadata"].get("finalizers")) or not pod["spec"].get("nodeName"):
            del self._objects[_key(pod)]
        else:
            stamp = {"metadata": {"deletionTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}}
            self._store(merge(pod, stamp))

    def _with_status(self, budget: Object) -> Object:
        """Count as the disruption controller does, only without its delay; `minAvailable` as a number."""
        covered = [p for p in self.every("Pod") if _matches(budget, p)]
        healthy = sum(_is_ready(p) and not p["metadata"].get("deletionTimestamp") for p in covered)
        desired = budget["spec"]["minAvailable"]
        status = {
            "disruptionsAllowed": max(0, healthy - desired),
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": len(covered),
        }
        return {**copy.deepcopy(dict(budget)), "status": status}


def _key(obj: Object) -> Key:
    return obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _as_the_api_keeps_it(obj: dict[str, Any]) -> dict[str, Any]:
    """Drop what Go's omitempty drops, and refuse what validation refuses."""
    metadata, spec = dict(obj["metadata"]), dict(obj.get("spec") or {})
    for key in ("labels", "annotations", "managedFields"):
        if not metadata.get(key):
            metadata.pop(key, None)
    for key in ("taints", "unschedulable"):
        if not spec.get(key):
            spec.pop(key, None)
    values = [*metadata.get("labels", {}).values(), *(t.get("value", "") for t in spec.get("taints", ()))]
    for value in values:
        if len(value) > 63 or not _LABEL_VALUE.fullmatch(value):
            raise ClusterError(f"{_key(obj)}: invalid label or taint value {value!r}")
    new = {**obj, "metadata": metadata, "spec": spec}
    return dict(without_images(new)) if obj["kind"] == "Node" else new


def _track(old: dict[str, Any], new: dict[str, Any], manager: str) -> None:
    """Keep managedFields of spec.unschedulable: whoever changes it owns it; nobody owns what is absent."""
    before, after = (bool(n.get("spec", {}).get("unschedulable")) for n in (old, new))
    if before == after:
        return
    others = [e for e in new["metadata"].get("managedFields", ()) if "f:unschedulable" not in str(e)]
    entry = {
        "manager": manager,
        "operation": "Update",
        "apiVersion": "v1",
        "fieldsType": "FieldsV1",
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "fieldsV1": {"f:spec": {"f:unschedulable": {}}},
    }
    new["metadata"]["managedFields"] = [*others, entry] if after else others


def _selected(obj: Object, selector: str) -> bool:
    """Match `a=b`, `a==b`, `a!=b`, `a`, `!a`, joined by commas."""
    labels = obj["metadata"].get("labels", {})
    for term in filter(None, selector.split(",")):
        key, operator, value = re.fullmatch(r"(!?[^=!]+)(==|=|!=|)(.*)", term).groups()  # type: ignore[union-attr]
        if operator:
            fits = (labels.get(key) == value) != (operator == "!=")
        else:
            fits = key.lstrip("!") in labels if not key.startswith("!") else key[1:] not in labels
        if not fits:
            return False
    return True


def _matches(budget: Object, pod: Object) -> bool:
    wanted = budget["spec"]["selector"]["matchLabels"]
    labels = pod["metadata"].get("labels", {})
    same_namespace = budget["metadata"]["namespace"] == pod["metadata"]["namespace"]
    return same_namespace and all(labels.get(key) == value for key, value in wanted.items())


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
