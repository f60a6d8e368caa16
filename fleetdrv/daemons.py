"""DaemonSets of a node that is out: off while they would hold the device, back before the node is.

A drain leaves their pods alone, as their controller ignores cordons. A NoSchedule taint does not end them
either, but keeps them from being made again; those that tolerate it are switched off by their operator's label
on the Node, where the playbook names one (as k8s-driver-manager does with `nvidia.com/gpu.deploy.*`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from fleetdrv import ownership, pods
from fleetdrv.cluster import Cluster
from fleetdrv.drain import Hands, Judge, drain
from fleetdrv.errors import NotFound, Permanent
from fleetdrv.ownership import Object
from fleetdrv.pods import Fate
from fleetdrv.policy import Drain
from fleetdrv.records import Cordon

_POLL_SECONDS = 1.0
_BACK_SECONDS = 300.0


def hold_off(
    cluster: Cluster,
    node: str,
    policy: Drain,
    judge: Judge,
    note: Callable[[Collection[str]], None],
    hands: Hands,
) -> None:
    """Send off the pods that `judge` condemns (`pods.judge_holders`), and wait until they are gone.

    `note` switches operands off and records the DaemonSets that are to be back later, before any pod is
    evicted. Raises Permanent, with nothing done, where a holder cannot be kept off; Transient at the drain's
    deadline.
    """

    sentences = judge(cluster.pods_on(node))
    kept = [sentence for sentence in sentences if sentence.fate is Fate.BLOCKS]
    if kept:
        raise Permanent(
            node,
            "hold off",
            "; ".join(f"pod {sentence}" for sentence in kept),
            remedy=f"kubectl get pods -A -o wide --field-selector spec.nodeName={node}",
        )
    going = [s.pod for s in sentences if s.fate in (Fate.EVICT, Fate.LEAVES)]
    note({pods.daemon_set(pod) for pod in going} - {""})
    if going:
        drain(cluster, node, policy, hands, judge)


def wait_back(
    cluster: Cluster,
    node: str,
    record: Cordon,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Wait until the DaemonSets' pods are Ready on the node and as many devices allocatable as before us.

    Raises Permanent where that takes too long. A DaemonSet that is gone or not for this node any more is not
    waited for.
    """
    until = monotonic() + _BACK_SECONDS
    while record.allocatable or record.daemon_sets:
        seen = cluster.node(node)
        missing = [*_sets_missing(cluster, seen, record), *_devices_missing(seen, record)]
        if not missing:
            return
        if monotonic() >= until:
            raise Permanent(
                node,
                "uncordon",
                f"not back as before within {_BACK_SECONDS:.0f} s: {', '.join(missing)}",
                remedy=f"kubectl get pods -A -o wide --field-selector spec.nodeName={node}",
            )
        sleep(_POLL_SECONDS)


def _sets_missing(cluster: Cluster, node: Object, record: Cordon) -> list[str]:
    if not record.daemon_sets:
        return []
    running = {pods.daemon_set(pod) for pod in cluster.pods_on(ownership.name(node)) if pods.serves(pod)}
    missing = [name for name in record.daemon_sets if name not in running and _belongs(cluster, node, name)]
    return [f"no Ready pod of DaemonSet {name}" for name in missing]


def _belongs(cluster: Cluster, node: Object, daemon_set: str) -> bool:
    namespace, _, name = daemon_set.partition("/")
    try:
        template = cluster.daemon_set(namespace, name)["spec"]["template"]
    except NotFound:
        return False
    labels = node["metadata"].get("labels") or {}
    wanted = template.get("spec", {}).get("nodeSelector") or {}
    return all(labels.get(key) == value for key, value in wanted.items())


def _devices_missing(node: Object, record: Cordon) -> list[str]:
    found = ownership.devices(node)
    return [
        f"allocatable {name}: {found.get(name, '0')} of {wanted}"
        for name, wanted in record.allocatable.items()
        if _count(found.get(name, "0")) < _count(wanted)
    ]


def _count(quantity: str) -> int:
    """Read a whole number of devices as the API writes it: 1000 RDMA resources are "1k". Else 0: not there.

    >>> _count("8"), _count("1k"), _count("2Ki"), _count("")
    (8, 1000, 2048, 0)
    """
    match = re.fullmatch(r"([0-9]+)([kMGTPE]?)(i?)", quantity.replace("K", "k"))
    return int(match[1]) * (1024 if match[3] else 1000) ** " kMGTPE".index(match[2] or " ") if match else 0
