"""Neighbours at work: other programs that take nodes out of service, and what they write while they do. Pure.

Two of them at one node undo each other's cordon, drain each other's pods and reboot into each other's installs.
So a node that a neighbour works on is not cordoned by us; it is *blocked*, and the neighbour is named.

- kured holds a lock, an annotation on its own DaemonSet, for the node that it drains and reboots
  (internal/daemonsetlock), and with --annotate-nodes marks each node that it means to reboot. The lock of
  another node blocks only that node: how many may be out at once is `max_unavailable`'s business.
- NVIDIA's operators (k8s-operator-libs, pkg/upgrade) keep `nvidia.com/NAME-driver-upgrade-state` on the Node;
  others that are built on the same library use their own domain. Any state but `upgrade-done` counts, also
  `upgrade-required`: their controller may take the node within its next reconcile.
- A NodeMaintenance object (medik8s, and NVIDIA's maintenance-operator) stands as long as somebody wants the
  node in maintenance; whether it has got there yet makes no difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

KURED = ("kube-system", "kured")
"""Namespace and name of kured's DaemonSet, as its manifests have them."""

KURED_LOCK = "weave.works/kured-node-lock"
KURED_REBOOT = "weave.works/kured-reboot-in-progress"
MAINTENANCE_GROUPS = ("nodemaintenance.medik8s.io", "maintenance.nvidia.com")
"""API groups with a kind NodeMaintenance, cluster-wide in the first, in a namespace in the second."""

_UPGRADE_STATE = "-driver-upgrade-state"
_UPGRADE_DONE = ("", "upgrade-done")

Object = Mapping[str, Any]


def at_work(
    node: Object, kured: Object | None, maintenances: Iterable[Object], now: datetime
) -> tuple[str, ...]:
    """Name every neighbour that works on this node, or is about to.

    `kured` is its DaemonSet, None where there is none; `maintenances` are the cluster's NodeMaintenance
    objects, of any node. `now` is the wall clock, which kured's own lock is timed by.
    """
    name = str(node["metadata"]["name"])
    return (
        *_kured(node, name, kured, now),
        *_upgrades(node),
        *_maintenances(name, maintenances),
    )


def _kured(node: Object, name: str, kured: Object | None, now: datetime) -> Iterator[str]:
    since = _annotations(node).get(KURED_REBOOT)
    if since is not None:
        yield f"kured means to reboot it, since {since} (annotation {KURED_REBOOT})"
    text = _annotations(kured or {}).get(KURED_LOCK)
    if text is None:
        return
    try:
        locks = _locks(json.loads(text))
    except (ValueError, TypeError):
        yield f"kured's lock cannot be read, so nothing tells whose it is ({KURED_LOCK}: {text[:80]!r})"
        return
    for lock in locks:
        if lock.get("nodeID") == name and not _expired(lock, now):
            yield f"kured reboots it, since {lock.get('created', 'an unknown time')} ({KURED_LOCK})"


def _locks(value: Any) -> list[Mapping[str, Any]]:
    """Return the holders: one, or with kured's --concurrency a list; raises ValueError for anything else."""
    locks = value.get("locks") or [] if isinstance(value, dict) and "nodeID" not in value else [value]
    if not isinstance(locks, list) or not all(isinstance(lock, dict) for lock in locks):
        raise ValueError("no lock of kured's")
    return locks


def _expired(lock: Mapping[str, Any], now: datetime) -> bool:
    """Whether kured itself would take the lock for void: TTL, in nanoseconds, is 0 where it never is."""
    ttl = lock.get("TTL") or 0
    if not isinstance(ttl, int) or ttl <= 0:
        return False
    try:
        created = datetime.fromisoformat(str(lock.get("created")))
    except ValueError:
        return False  # cannot be told to be old
    created = created if created.tzinfo else created.replace(tzinfo=UTC)
    return now - created >= timedelta(microseconds=ttl / 1000)


def _upgrades(node: Object) -> Iterator[str]:
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    for key, state in sorted(labels.items()):
        if key.endswith(_UPGRADE_STATE) and state not in _UPGRADE_DONE:
            yield f"an operator upgrades its driver ({key}={state})"


def _maintenances(name: str, maintenances: Iterable[Object]) -> Iterator[str]:
    for found in maintenances:
        spec = found.get("spec") or {}
        if spec.get("nodeName") != name:
            continue
        group = str(found.get("apiVersion", "")).partition("/")[0]
        namespace = found["metadata"].get("namespace")
        title = f"{namespace}/{found['metadata']['name']}" if namespace else found["metadata"]["name"]
        whose = [spec.get("requestorID"), *(spec.get("additionalRequestors") or ()), spec.get("reason")]
        why = ", ".join(str(word) for word in whose if word)
        yield f"NodeMaintenance {title} of {group} is for it" + (f": {why}" if why else "")


def _annotations(obj: Object) -> Mapping[str, str]:
    return obj.get("metadata", {}).get("annotations") or {}
