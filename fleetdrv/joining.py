"""Which host is which Node, by name and by address, and where that is not clear. Pure.

A host's Node is the one of its `node_name`. Its address may be another Node's: then one of the two is wrong, and
nobody should find out by a drain. An address that several Nodes have, or a loopback one, proves nothing.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleetdrv import nodeset
from fleetdrv.model import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Hosts and Nodes, held against each other."""

    nodes: Mapping[str, str]
    """Host to its Node; hosts without one are missing."""
    without_node: Mapping[str, str]
    """Host without a Node to a hint, which may be empty."""
    without_host: tuple[str, ...]
    faults: tuple[str, ...]
    """Why it is not clear which host is which Node."""


def join(
    hosts: Iterable[Host],
    ways: Mapping[str, tuple[str, str]],
    nodes: Mapping[str, Iterable[str]],
) -> Joined:
    """Hold hosts and Nodes against each other.

    `ways`: host to its address, and to the whole way there, as it is shown. `nodes`: Node to its addresses.
    """
    found, without, faults = dict[str, str](), dict[str, str](), _shared_ways(ways)
    owners = _owners(nodes)
    for host in hosts:
        by_address = owners.get(_plain(ways[host.name][0]), "")
        if host.node_name not in nodes:
            without[host.name] = _hint(host, by_address, nodes)
            continue
        found[host.name] = host.node_name
        if by_address and by_address != host.node_name:
            faults.append(
                f"{host.name}: is Node {host.node_name} by name, and Node {by_address} by its address "
                f"{ways[host.name][0]}; correct node_name or ansible_host"
            )
    rest = sorted(set(nodes) - set(found.values()), key=nodeset.natural)
    return Joined(nodes=found, without_node=without, without_host=tuple(rest), faults=tuple(faults))


def _shared_ways(ways: Mapping[str, tuple[str, str]]) -> list[str]:
    sharing: dict[str, list[str]] = {}
    for host, (_, way) in ways.items():
        sharing.setdefault(way, []).append(host)
    return [
        f"{nodeset.fold(names)}: are reached at the same {way}: one machine for {len(names)} Nodes; "
        "correct ansible_host or ansible_port"
        for way, names in sharing.items()
        if len(names) > 1
    ]


def _owners(nodes: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return each address that exactly one Node has, with its Node."""
    pairs = {(_plain(address), node) for node, addresses in nodes.items() for address in (*addresses, node)}
    counts = Counter(address for address, _ in pairs)
    return {address: node for address, node in pairs if counts[address] == 1 and not _is_here(address)}


def _plain(address: str) -> str:
    """Write an address in one way: IPv6 has many."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address.lower().removesuffix(".")


def _is_here(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _hint(host: Host, by_address: str, nodes: Mapping[str, Iterable[str]]) -> str:
    near = by_address or next((n for n in (host.name.partition(".")[0], host.name.lower()) if n in nodes), "")
    if not near:
        return ""
    why = f"its address is that of Node {near}" if by_address else f"there is a Node {near}"
    return f"{why}; if it is that, set node_name: {near}"
