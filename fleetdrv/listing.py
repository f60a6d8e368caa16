"""`fleetdrv inventory`: hosts, how each is reached, and which Node it is. Touches no host."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from fleetdrv import inventory as inventories
from fleetdrv import inventory_k8s, joining, nodeset, ownership, report
from fleetdrv.effects import Effects
from fleetdrv.errors import ExitCode, InputError
from fleetdrv.events import Event
from fleetdrv.groups import ALL
from fleetdrv.joining import Joined
from fleetdrv.model import Host
from fleetdrv.options import Options
from fleetdrv.reach import open_cluster
from fleetdrv.selection import Selection
from fleetdrv.ssh import Dialler
from fleetdrv.ssh_settings import Target
from fleetdrv.teller import Teller

_MOST_NAMED = 20
"""Hosts without a Node that are told one by one, for their hints."""

_Ways = Mapping[str, tuple[Target, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What is to be shown."""

    hosts: Sequence[Host]
    ways: _Ways
    joined: Joined | None
    """None without a cluster."""


def inventory(options: Options) -> ExitCode:
    """Print it. Raises InputError where hosts cannot be read or selected."""
    teller = Teller()

    def note(text: str) -> None:
        teller(Event(node="", phase="inventory", text=text))

    found = _look(options, inventories.read(options.inventory, note), teller)
    faults = found.joined.faults if found.joined else ()
    code = ExitCode.REFUSED if faults else ExitCode.DONE
    print(_document(code, found) if options.json else _text(found))
    for fault in faults:
        print(f"fleetdrv: {fault}", file=sys.stderr)
    return code


def _look(options: Options, everything: inventories.Inventory, teller: Teller) -> _Found:
    selection = Selection(
        everything=everything,
        group=ALL,
        limit=options.limit,
        pool="",
        no_cluster=options.no_cluster,
        say=teller,
    )
    selected = selection.now()
    with ExitStack() as stack:
        dialler = stack.enter_context(Dialler(Effects()))
        ways = _ways(dialler, selected[0]) if selected else {}
        nodes = None
        if not options.no_cluster:
            cluster = open_cluster(stack, options, Effects())
            if selected is None:
                selected = selection.ask(cluster)
                ways = _ways(dialler, selected[0])
            nodes = cluster.nodes()
        assert selected is not None  # without a cluster `now` tells or refuses
        every, chosen = selected
        joined = None
        if nodes is not None:
            addresses = {ownership.name(n): [text for _, text in inventory_k8s.addresses(n)] for n in nodes}
            shown = {name: (way[-1].address, _way(way)) for name, way in ways.items()}
            joined = joining.join(every, shown, addresses)
        return _Found(hosts=chosen, ways=ways, joined=joined)


def _ways(dialler: Dialler, hosts: Iterable[Host]) -> _Ways:
    ways, faults = {}, []
    for host in hosts:
        try:
            ways[host.name] = dialler.targets(host)
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))
    return ways


def _way(targets: Sequence[Target]) -> str:
    command = targets[0].proxy_command
    via = [*([f"ProxyCommand {command}"] if command else ()), *map(str, targets[:-1])]
    return f"{targets[-1]}{' by ' if via else ''}{', '.join(via)}"


def _text(found: _Found) -> str:
    joined = found.joined
    head = ("HOST", "REACHED AS", "GROUPS") + (("NODE",) if joined else ())
    rows = [head]
    for host in found.hosts:
        row = (host.name, _way(found.ways[host.name]), ", ".join(sorted(host.groups - {ALL})) or "-")
        rows.append((*row, joined.nodes.get(host.name, "none")) if joined else row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{name}: {nodeset.fold(hosts)} ({len(hosts)})" for name, hosts in _groups(found.hosts).items()]
    return "\n".join((*lines, *(_apart(joined) if joined else ())))


def _apart(joined: Joined) -> list[str]:
    lines = []
    if joined.without_node:
        lines.append(f"hosts without a Node: {nodeset.fold(joined.without_node)} ({len(joined.without_node)})")
        hints = [f"  {host}: {hint}" for host, hint in joined.without_node.items() if hint]
        lines += hints[:_MOST_NAMED]
        lines += [f"  … and {len(hints) - _MOST_NAMED} more"] if hints[_MOST_NAMED:] else []
    if joined.without_host:
        lines.append(f"Nodes without a host: {nodeset.fold(joined.without_host)} ({len(joined.without_host)})")
    return lines


def _groups(hosts: Iterable[Host]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for host in hosts:
        for group in host.groups:
            found.setdefault(group, []).append(host.name)
    return dict(sorted(found.items(), key=lambda item: (item[0] != ALL, item[0])))


def _document(code: ExitCode, found: _Found) -> str:
    joined = found.joined
    hosts: dict[str, dict[str, Any]] = {}
    for host in found.hosts:
        *jumps, target = found.ways[host.name]
        hosts[host.name] = {
            "address": target.address,
            "port": target.port,
            "user": target.user,
            "jump_hosts": list(map(str, jumps)),
            "groups": sorted(host.groups),
            "node": joined.nodes.get(host.name) if joined else None,
        }
    apart: dict[str, Any] = {}
    if joined:
        apart["hosts_without_node"] = list(joined.without_node)
        apart["nodes_without_host"] = list(joined.without_host)
        apart["errors"] = list(joined.faults)
    return report.document("inventory", code, hosts=hosts, groups=_groups(found.hosts), **apart)
