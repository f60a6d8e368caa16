"""The cluster's own Nodes as the inventory: `-i k8s:LABEL=VALUE`, any label selector; `-i k8s:` is all. Pure.

Such a source knows no groups, and it is itself the choice of hosts. So with a selector every Node that it selects
is in `all` and in the playbook's `hosts` group, whatever that is called, and together they are the pool. Without
one they are in `all` only: `-i k8s:` must not turn a playbook for `gpu` into one for the control plane.

SSH goes to the annotation `fleetdrv.io/address`, else the Node's InternalIP, else its Hostname, else its name;
`~/.ssh/config` counts for that address as for any other, and says user, port and jump hosts.
"""

from __future__ import annotations

from collections.abc import Iterable

from fleetdrv import names, ownership, selectors
from fleetdrv.errors import InputError
from fleetdrv.groups import ALL
from fleetdrv.model import Host
from fleetdrv.ownership import Object

PREFIX = "k8s:"


def selector(source: str) -> str:
    """Return the label selector of a source. Raises InputError where the API would refuse it."""
    text = source.removeprefix(PREFIX).strip()
    try:
        return selectors.checked(text) if text else ""
    except ValueError as error:
        raise InputError(f"--inventory {source}: {error}") from None


def hosts(source: str, nodes: Iterable[Object], group: str) -> dict[str, Host]:
    """Return each Node as a host. Raises InputError where the source selects none, or cannot be the group."""
    chosen = selector(source)
    if not chosen and group != ALL:
        raise InputError(
            f"--inventory {source}: all Nodes of the cluster are no group {group}; "
            f"say which they are: --inventory {PREFIX}LABEL=VALUE"
        )
    found = {}
    for node in nodes:
        name = ownership.name(node)
        variables = {"ansible_host": address(node)}
        found[name] = Host(name=name, node_name=name, variables=variables, groups=frozenset({ALL, group}))
    if not found:
        raise InputError(f"--inventory {source}: no Node is so labelled; see: kubectl get nodes --show-labels")
    return found


def address(node: Object) -> str:
    """Return where SSH reaches a Node."""
    annotations = node.get("metadata", {}).get("annotations") or {}
    by_kind: dict[str, str] = {}
    for kind, text in addresses(node):
        by_kind.setdefault(kind, text)
    found = annotations.get(names.ADDRESS) or by_kind.get("InternalIP") or by_kind.get("Hostname")
    return str(found or ownership.name(node))


def addresses(node: Object) -> list[tuple[str, str]]:
    """Return kind and text of each address that a Node has."""
    listed = node.get("status", {}).get("addresses") or ()
    return [(str(each.get("type")), str(each.get("address"))) for each in listed]
