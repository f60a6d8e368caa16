"""A cordon by us, in short."""

from __future__ import annotations

from typing import Any

from fleetdrv import ownership
from fleetdrv.cluster import Cluster
from fleetdrv.ownership import Object
from fleetdrv.records import Cordon
from fleetdrv.swap import swap_node


def a_cordon(**changes: Any) -> Cordon:
    """Return a record of run r1."""
    values = {
        "run": "r1",
        "pool": "gpu",
        "holder": "op@laptop",
        "reason": "nvidia 1.0 to 1.1",
        "since": "2026-11-23T05:00:00+00:00",
    }
    return Cordon(**{**values, **changes})


def cordon(cluster: Cluster, name: str) -> Object:
    """Take a node out."""

    def decide(node: Object) -> ownership.Patch:
        return ownership.cordon_patch(node, ownership.cordon_record(node, a_cordon()))

    return swap_node(cluster, name, decide)


def uncordon(cluster: Cluster, name: str) -> Object:
    """Give it back."""

    def decide(node: Object) -> ownership.Patch:
        record = ownership.state(node).record
        assert record is not None
        return ownership.uncordon_patch(node, record)

    return swap_node(cluster, name, decide)
