"""One Node changed by what it is now: the loop around every compare-and-swap."""

from __future__ import annotations

import time
from collections.abc import Callable

from fleetdrv.cluster import Cluster
from fleetdrv.errors import ClusterAway, Conflict
from fleetdrv.ownership import Object, Patch

_TRIES = 6


def swap_node(
    cluster: Cluster,
    name: str,
    decide: Callable[[Object], Patch | None],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Object:
    """Change a node by what it is now: read, decide, patch; on a conflict read and decide again, bounded.

    `decide` returns None where nothing is left to do, which is also how a write whose answer was lost is
    recognised; it raises where the change must not be made any more. Returns the node as it is then.
    """
    for attempt in range(_TRIES):
        node = cluster.node(name)
        patch = decide(node)
        if patch is None:
            return node
        try:
            return cluster.patch_node(name, patch, node["metadata"]["resourceVersion"])
        except (Conflict, ClusterAway) as error:
            last = error
        sleep(0.1 * 2**attempt)  # 6 s in all
    raise last
