"""All hosts of an inventory, for commands without a rollout. The cluster is asked where it is the inventory."""

from __future__ import annotations

from contextlib import ExitStack

from fleetdrv import inventory, inventory_k8s
from fleetdrv.effects import Effects
from fleetdrv.groups import ALL
from fleetdrv.inventory import Inventory, Note
from fleetdrv.model import Host
from fleetdrv.options import Options
from fleetdrv.reach import open_cluster


def read(options: Options, note: Note = lambda _: None) -> tuple[Host, ...]:
    """Return every host. Raises InputError, or ClusterError where the cluster does not answer."""
    return of(inventory.read(options.inventory, note), options)


def of(everything: Inventory, options: Options, group: str = ALL) -> tuple[Host, ...]:
    """Return the hosts of a group of what was read. Raises as `read`."""
    if not everything.asks_cluster:
        return everything.group(group)
    source = str(everything.path)
    with ExitStack() as stack:
        nodes = open_cluster(stack, options, Effects()).nodes(inventory_k8s.selector(source))
    return tuple(inventory_k8s.hosts(source, nodes, group).values())
