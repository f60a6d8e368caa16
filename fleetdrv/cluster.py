"""The cluster as this program needs it: a port in the field's words, and its one real implementation.

Objects go in and out as the API's own JSON; what they mean is decided in ownership.py, pods.py and
holding.py. Every write is one HTTP request, counted once in `Effects`. A write is either a
compare-and-swap (resourceVersion, UID) or creates something; none is repeated here. After ClusterAway its
fate is unknown, after Conflict it did not happen: read again, decide again (swap.py does).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from fleetdrv import names, neighbours, pods
from fleetdrv.api import Answer, Api, Expired, refusal
from fleetdrv.effects import Effects, Kind
from fleetdrv.errors import ClusterError, NotFound
from fleetdrv.ownership import Object, Patch
from fleetdrv.pods import Eviction, Verdict
from fleetdrv.wire import (
    LEASES,
    budgets_path,
    daemon_set_path,
    event_body,
    lease_path,
    node_path,
    pod_path,
    without_images,
)

_PAGE = 500
"""Objects per list request: 1,000 nodes are two."""


class Cluster(Protocol):
    """What fleetdrv asks of a cluster. All methods may be called from any thread.

    They raise ClusterAway, Forbidden, NotFound, Conflict or ClusterError, each where it says so below or
    where HTTP makes it so.
    """

    def uid(self) -> str:
        """Return what tells this cluster from any other: the UID of kube-system."""
        ...

    def nodes(self, selector: str = "") -> tuple[Object, ...]:
        """List nodes, by label selector; without their lists of images, which are most of a Node."""
        ...

    def node(self, name: str) -> Object:
        """Read one node; raises NotFound."""
        ...

    def patch_node(self, name: str, patch: Patch, resource_version: str) -> Object:
        """Merge-patch a node that is still at that version, and return it; raises Conflict, NotFound."""
        ...

    def pods_on(self, node: str) -> tuple[Object, ...]:
        """List the pods that are bound to a node, in all namespaces."""
        ...

    def pod(self, namespace: str, name: str) -> Object:
        """Read one pod; raises NotFound."""
        ...

    def daemon_set(self, namespace: str, name: str) -> Object:
        """Read one DaemonSet; raises NotFound."""
        ...

    def evict(self, pod: Object, *, dry_run: bool, grace: int | None = None) -> Eviction:
        """Evict this very pod (its UID). A dry run asks budgets and webhooks, and changes nothing."""
        ...

    def budgets(self, namespace: str) -> tuple[Object, ...]:
        """List a namespace's PodDisruptionBudgets, in the newest API version that the server has."""
        ...

    def maintenances(self) -> tuple[Object, ...]:
        """List the NodeMaintenance objects of every API group of `neighbours` that this cluster has."""
        ...

    def leases(self) -> tuple[Object, ...]:
        """List the pools' Leases, by name."""
        ...

    def lease(self, name: str) -> Object | None:
        """Read a Lease in kube-system."""
        ...

    def create_lease(self, lease: Object) -> Object:
        """Create a Lease; raises Conflict where there is one."""
        ...

    def replace_lease(self, lease: Object) -> Object:
        """Replace a Lease that is still at its `metadata.resourceVersion`; raises Conflict, NotFound."""
        ...

    def record_event(self, node: str, reason: str, message: str, *, key: str, warning: bool = False) -> None:
        """Record an Event on a Node, as `kubectl describe node` shows them.

        Raises Conflict where one with this reason and key is there: it was told.
        """
        ...


class KubectlCluster:
    """The cluster behind `kubectl proxy`."""

    def __init__(self, api: Api, effects: Effects) -> None:
        """Take `Proxy.api`, and the counter that every write passes."""
        self._api, self._effects = api, effects
        self._lock = threading.Lock()
        self._versions: dict[str, str] = {}

    def uid(self) -> str:
        """See Cluster."""
        return str(self._api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"])

    def nodes(self, selector: str = "") -> tuple[Object, ...]:
        """See Cluster."""
        listed = self._list("/api/v1/nodes", {"labelSelector": selector} if selector else {})
        return tuple(without_images(node) for node in listed)

    def node(self, name: str) -> Object:
        """See Cluster."""
        return without_images(self._api.get(node_path(name)))

    def patch_node(self, name: str, patch: Patch, resource_version: str) -> Object:
        """See Cluster."""
        metadata = {**patch.get("metadata", {}), "resourceVersion": resource_version}
        answer = self._write(
            "PATCH",
            node_path(name),
            {**patch, "metadata": metadata},
            f"node/{name}",
            content_type="application/merge-patch+json",
        )
        return without_images(answer)

    def pods_on(self, node: str) -> tuple[Object, ...]:
        """See Cluster."""
        return tuple(self._list("/api/v1/pods", {"fieldSelector": f"spec.nodeName={node}"}))

    def pod(self, namespace: str, name: str) -> Object:
        """See Cluster."""
        return self._api.get(pod_path(namespace, name))

    def daemon_set(self, namespace: str, name: str) -> Object:
        """See Cluster."""
        return self._api.get(daemon_set_path(namespace, name))

    def evict(self, pod: Object, *, dry_run: bool, grace: int | None = None) -> Eviction:
        """See Cluster."""
        metadata = pod["metadata"]
        path = f"{pod_path(metadata['namespace'], metadata['name'])}/eviction"
        body = pods.eviction_body(pod, self._eviction_version(), dry_run=dry_run, grace=grace)
        if dry_run:
            answer = self._api.send("POST", path, body=body, params={"dryRun": "All"})
        else:
            answer = self._send("POST", path, body, f"pod/{pods.title(pod)}", "evict")
        eviction = pods.read_eviction(answer.code, answer.body, answer.retry_after_seconds)
        if eviction:
            return eviction
        if answer.code == 409:
            return self._after_race(pod, answer.message)
        raise refusal("POST", path, answer)

    def _after_race(self, pod: Object, message: str) -> Eviction:
        """A 409 is the UID that does not match, or a race inside the API server: look which."""
        try:
            now = self.pod(pod["metadata"]["namespace"], pod["metadata"]["name"])
        except NotFound:
            return Eviction(verdict=Verdict.GONE, message=message)
        same = pods.uid(now) == pods.uid(pod)
        return Eviction(verdict=Verdict.THROTTLED if same else Verdict.GONE, message=message)

    def budgets(self, namespace: str) -> tuple[Object, ...]:
        """See Cluster."""
        version = self._known("budgets", self._find_budget_version)
        return tuple(self._list(budgets_path(version, namespace), {}))

    def maintenances(self) -> tuple[Object, ...]:
        """See Cluster.

        The group is asked for first: who may not list objects of a kind that is not there is told 403, not 404.
        """
        found: list[Object] = []
        for group in neighbours.MAINTENANCE_GROUPS:
            with suppress(NotFound):
                version = str(self._api.get(f"/apis/{group}")["preferredVersion"]["groupVersion"])
                listed = self._list(f"/apis/{version}/nodemaintenances", {})
                found += [{"apiVersion": version, **obj} for obj in listed]
        return tuple(found)

    def leases(self) -> tuple[Object, ...]:
        """See Cluster."""
        every = self._list(LEASES, {})
        return tuple(lease for lease in every if lease["metadata"]["name"].startswith(names.LEASE_PREFIX))

    def lease(self, name: str) -> Object | None:
        """See Cluster."""
        try:
            return self._api.get(lease_path(name))
        except NotFound:
            return None

    def create_lease(self, lease: Object) -> Object:
        """See Cluster."""
        return self._write("POST", LEASES, lease, f"lease/{lease['metadata']['name']}")

    def replace_lease(self, lease: Object) -> Object:
        """See Cluster."""
        name = lease["metadata"]["name"]
        return self._write("PUT", lease_path(name), lease, f"lease/{name}")

    def record_event(self, node: str, reason: str, message: str, *, key: str, warning: bool = False) -> None:
        """See Cluster."""
        event = event_body(node, reason, message, key=key, warning=warning, now=datetime.now(UTC))
        self._write("POST", "/api/v1/namespaces/default/events", event, f"node/{node}")

    def _write(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        target: str,
        content_type: str = "application/json",
    ) -> Object:
        answer = self._send(method, path, body, target, str(body.get("kind", "")), content_type)
        if answer.code >= 400:
            raise refusal(method, path, answer)
        return answer.body

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        target: str,
        what: str = "",
        content_type: str = "application/json",
    ) -> Answer:
        with self._effects.passing(Kind.API_WRITE, target, f"{method} {what}".strip()):
            return self._api.send(
                method,
                path,
                body=body,
                params={"fieldManager": names.FIELD_MANAGER},
                content_type=content_type,
            )

    def _list(self, path: str, params: Mapping[str, str]) -> list[Object]:
        """List all pages; begins anew, once, where the server has forgotten the place in between."""
        try:
            return list(self._pages(path, params))
        except Expired:
            return list(self._pages(path, params))

    def _pages(self, path: str, params: Mapping[str, str]) -> Iterator[Object]:
        query = {**params, "limit": str(_PAGE)}
        while True:
            page = self._api.get(path, query)
            yield from page.get("items") or ()
            query["continue"] = page.get("metadata", {}).get("continue", "")
            if not query["continue"]:
                return

    def _known(self, key: str, find: Callable[[], str]) -> str:
        with self._lock:
            if key not in self._versions:
                self._versions[key] = find()
            return self._versions[key]

    def _eviction_version(self) -> str:
        return self._known("eviction", self._find_eviction_version)

    def _find_eviction_version(self) -> str:
        """policy/v1 came with 1.22, policy/v1beta1 went with 1.25; the pods/eviction resource says which."""
        for resource in self._api.get("/api/v1").get("resources", ()):
            if resource.get("name") == "pods/eviction":
                return f"{resource.get('group', 'policy')}/{resource.get('version', 'v1')}"
        raise ClusterError("this cluster's API has no pods/eviction")

    def _find_budget_version(self) -> str:
        group = self._api.get("/apis/policy")
        offered = [version["groupVersion"] for version in group.get("versions", ())]
        return "policy/v1" if "policy/v1" in offered else "policy/v1beta1"
