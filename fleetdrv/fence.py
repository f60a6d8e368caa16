"""Fence off a controller that lost its Lease without knowing: it may wake in the middle of an act.

A node's jobs refuse an older token by themselves; the API server knows no tokens. What a sleeper may still have
under way there is a cordon, decided while fewer nodes were out. It names the resourceVersion of the Node that it
was decided on, so one write to each Node of the pool, of whatever kind, has it refused; and who tries again looks
at the Lease between reading the Node and writing it (`Service.take_out`).
"""

from __future__ import annotations

import time
from collections.abc import Collection

from fleetdrv import names, ownership
from fleetdrv.cluster import Cluster
from fleetdrv.errors import ClusterAway, Conflict, NotFound
from fleetdrv.ownership import Object

_TRIES = 6


def fence(cluster: Cluster, pool: Collection[str], token: int) -> None:
    """Write `token` on the pool's Nodes that are not cordoned. Raises ClusterError where one cannot be written."""
    for node in cluster.nodes():
        if ownership.name(node) in pool and not ownership.unschedulable(node):
            _write(cluster, node, {"metadata": {"annotations": {names.FENCE: str(token)}}})


def _write(cluster: Cluster, node: Object, patch: ownership.Patch) -> None:
    """A conflict is as good: whatever was decided before this look is refused then, too."""
    for attempt in range(_TRIES):
        try:
            cluster.patch_node(ownership.name(node), patch, node["metadata"]["resourceVersion"])
        except (Conflict, NotFound):
            return
        except ClusterAway:
            if attempt + 1 == _TRIES:
                raise
            time.sleep(0.1 * 2**attempt)
        else:
            return
