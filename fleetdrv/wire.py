"""Paths and bodies of the requests to the API. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from fleetdrv import names
from fleetdrv.ownership import Object

LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{names.LEASE_NAMESPACE}/leases"
"""Collection of the pools' Leases."""


def event_body(
    node: str, reason: str, message: str, *, key: str, warning: bool, now: datetime
) -> dict[str, Any]:
    """Return a core/v1 Event about a Node; those live in the namespace `default`.

    `uid` is the node's name, as kubelets write it: `kubectl describe node` (kubernetes/kubectl, describe.go) looks
    for that, and older ones for nothing else. The name follows from `key`: one occasion cannot be told twice.
    """
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": _event_name(node, f"{reason} {key}"), "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
        "reason": reason,
        "message": message[:1024],
        "type": "Warning" if warning else "Normal",
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "reportingInstance": "",
    }


def _event_name(node: str, occasion: str) -> str:
    """Return a DNS subdomain; a node's name alone may be as long as that may be (253 characters)."""
    digest = hashlib.sha256(f"{node} {occasion}".encode()).hexdigest()[:16]
    return f"{node[: 253 - len(digest) - 1].rstrip('.-')}.{digest}"


def without_images(node: Mapping[str, Any]) -> Object:
    """Drop the list of images, which is most of a Node and of no use here."""
    status = {key: value for key, value in node.get("status", {}).items() if key != "images"}
    return {**node, "status": status}


def node_path(name: str) -> str:
    """Return the path of a Node."""
    return f"/api/v1/nodes/{quote(name, safe='')}"


def pod_path(namespace: str, name: str) -> str:
    """Return the path of a pod."""
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"


def lease_path(name: str) -> str:
    """Return the path of a pool's Lease."""
    return f"{LEASES}/{quote(name, safe='')}"


def daemon_set_path(namespace: str, name: str) -> str:
    """Return the path of a DaemonSet; apps/v1 is its only version since Kubernetes 1.16."""
    return f"/apis/apps/v1/namespaces/{quote(namespace, safe='')}/daemonsets/{quote(name, safe='')}"


def budgets_path(version: str, namespace: str) -> str:
    """Return the collection of a namespace's PodDisruptionBudgets."""
    return f"/apis/{version}/namespaces/{quote(namespace, safe='')}/poddisruptionbudgets"
