"""The way to the cluster that a command's options name; apart, so that `status` imports nothing else."""

from __future__ import annotations

from contextlib import ExitStack

from fleetdrv.cluster import Cluster, KubectlCluster
from fleetdrv.effects import Effects
from fleetdrv.kubectl import Proxy
from fleetdrv.options import Options


def open_cluster(stack: ExitStack, options: Options, effects: Effects) -> Cluster:
    """Start the proxy for the life of a command."""
    proxy = stack.enter_context(Proxy(context=options.context))
    return KubectlCluster(proxy.api, effects)
