"""Ansible's static YAML inventory, read as Ansible reads it: groups, children, vars, precedence.

Unknown variables are kept. A host's Node is named by `node_name`, else it is the host's own name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from string import ascii_letters
from typing import Any

from fleetdrv import yamlfile
from fleetdrv.errors import InputError
from fleetdrv.model import Host

_GROUP_KEYS = ("hosts", "children", "vars")


@dataclass(frozen=True, slots=True)
class Inventory:
    """Hosts by name, each with its groups and merged variables."""

    hosts: Mapping[str, Host]
    path: Path

    def group(self, name: str) -> tuple[Host, ...]:
        """Return the hosts of a group. Raises InputError when there are none."""
        found = tuple(host for host in self.hosts.values() if name in host.groups)
        if not found:
            groups = sorted({group for host in self.hosts.values() for group in host.groups})
            raise InputError(f"{self.path}: no host in group {name}; groups with hosts: {', '.join(groups)}")
        return found


def limit(hosts: Sequence[Host], pattern: str) -> tuple[Host, ...]:
    """Return the hosts that a comma-separated list of names, globs or groups selects.

    `!name` takes away, wherever it stands in the list. Raises InputError for a part that selects nothing:
    a typing mistake must not turn into "nothing to do".
    """
    chosen: dict[str, Host] = {}
    parts = [part.strip() for part in pattern.split(",") if part.strip()]
    if parts and all(part.startswith("!") for part in parts):
        chosen = {host.name: host for host in hosts}
    for part in sorted(parts, key=lambda part: part.startswith("!")):
        wanted = part.removeprefix("!")
        found = [h for h in hosts if fnmatchcase(h.name, wanted) or wanted in (h.node_name, *h.groups)]
        if not found:
            names = ", ".join(host.name for host in hosts[:10])
            raise InputError(f"--limit {part}: matches none of the pool's hosts ({names}, …)")
        for host in found:
            if part.startswith("!"):
                chosen.pop(host.name, None)
            else:
                chosen[host.name] = host
    if not chosen:
        raise InputError(f"--limit {pattern}: selects no host")
    return tuple(host for host in hosts if host.name in chosen)


def read(path: Path) -> Inventory:
    """Read an inventory file. Raises InputError with file, line and key."""
    document = yamlfile.read(path)
    if not isinstance(document.data, dict) or not document.data:
        raise InputError(f"{path}:1: an inventory is a mapping of groups, such as `all: {{hosts: …}}`")
    groups: dict[str, _Group] = {}
    _gather(document, document.data, (), groups)
    own: dict[str, dict[str, object]] = {}
    for group in groups.values():
        for host, variables in group.hosts.items():
            own.setdefault(host, {}).update(variables)
    if not own:
        raise InputError(f"{path}: no hosts")
    depths = _depths(path, groups)
    hosts = {name: _host(name, own[name], groups, depths) for name in own}
    _refuse_shared_nodes(path, hosts.values())
    return Inventory(hosts, path)


@dataclass(slots=True)
class _Group:
    """All that a file says of one group, wherever it says it."""

    hosts: dict[str, dict[str, object]] = field(default_factory=dict)
    variables: dict[str, object] = field(default_factory=dict)
    parents: set[str] = field(default_factory=set)


def _gather(
    document: yamlfile.Document, said: Any, place: yamlfile.Place, groups: dict[str, _Group], parent: str = "all"
) -> None:
    for name, body in _mapping(document, said, place).items():
        here, group = (*place, name), groups.setdefault(str(name), _Group())
        content = _mapping(document, body, here)
        for key in content:
            if key not in _GROUP_KEYS:
                line, known = document.line((*here, key)), ", ".join(_GROUP_KEYS)
                raise InputError(f"{document.path}:{line}: {name}.{key}: unknown; known: {known}")
        if name != "all":
            group.parents.add(parent)
        group.variables.update(_mapping(document, content.get("vars"), (*here, "vars")))
        for host, own in _mapping(document, content.get("hosts"), (*here, "hosts")).items():
            place = (*here, "hosts", host)
            for each in _expanded(document, str(host), place):
                group.hosts.setdefault(each, {}).update(_mapping(document, own, place))
        _gather(document, content.get("children"), (*here, "children"), groups, str(name))


_RANGE = re.compile(r"\[([^\[\]]*)\]")


def _expanded(document: yamlfile.Document, name: str, place: yamlfile.Place) -> list[str]:
    """Return the hosts that a name with ranges means, as Ansible does: `n[01:10]`, `n[a:f]`, `n[0:8:2]`.

    The end counts; leading zeros set the width. Raises InputError for brackets that are no range.
    """
    found = _RANGE.search(name)
    try:
        if found is None:
            if "[" in name or "]" in name:
                raise ValueError("brackets hold no range")
            return [name]
        words, rest = _range(found[1]), _expanded(document, name[found.end() :], place)
    except ValueError as error:
        where = f"{document.path}:{document.line(place)}: {'.'.join(map(str, place))}"
        raise InputError(f"{where}: {error}; a range is [BEGIN:END] or [BEGIN:END:STEP]") from None
    return [name[: found.start()] + word + tail for word in words for tail in rest]


def _range(text: str) -> list[str]:
    """Spell out a range without its brackets.

    >>> _range("08:10"), _range("a:e:2")
    (['08', '09', '10'], ['a', 'c', 'e'])
    """
    begin, end, step, *more = [*text.split(":"), "1"] if text.count(":") == 1 else [*text.split(":"), "", ""]
    begin = begin or "0"
    if (more and any(more)) or not re.fullmatch("[1-9][0-9]{0,5}", step):
        raise ValueError(f"[{text}] is no range")
    if re.fullmatch("[0-9]{1,9}", begin) and re.fullmatch("[0-9]{1,9}", end):
        width = len(begin) if len(begin) > 1 and begin.startswith("0") else 0
        if width and len(end) != width:
            raise ValueError(f"[{text}]: both ends must have the same width")
        words = [f"{number:0{width}d}" for number in range(int(begin), int(end) + 1, int(step))]
    elif re.fullmatch("[a-zA-Z]", begin) and re.fullmatch("[a-zA-Z]", end):
        first, last = ascii_letters.index(begin), ascii_letters.index(end)
        words = list(ascii_letters[first : last + 1 : int(step)])
    else:
        raise ValueError(f"[{text}] is no range")
    if not words:
        raise ValueError(f"[{text}] is empty")
    return words


def _depths(path: Path, groups: Mapping[str, _Group]) -> dict[str, int]:
    """Return each group's distance from `all`, its longest: a deeper group's variables win, as in Ansible."""
    depths = {"all": 0}
    for _ in range(len(groups) + 1):
        found = {
            name: 1 + max(depths.get(parent, 0) for parent in group.parents)
            for name, group in groups.items()
            if group.parents
        }
        if all(depths.get(name) == depth for name, depth in found.items()):
            return depths
        depths.update(found)
    raise InputError(f"{path}: groups that are each other's children")


def _host(name: str, own: Mapping[str, object], groups: Mapping[str, _Group], depths: Mapping[str, int]) -> Host:
    inside = {group for group, said in groups.items() if name in said.hosts} | {"all"}
    for _ in depths:  # as often as the deepest group has parents
        inside |= {parent for group in inside if group in groups for parent in groups[group].parents}
    variables: dict[str, object] = {}
    for group in sorted(inside & set(groups), key=lambda group: (depths.get(group, 0), group)):
        variables.update(groups[group].variables)
    variables.update(own)
    node_name = str(variables.get("node_name", name))
    return Host(name=name, node_name=node_name, variables=variables, groups=frozenset(inside))


def _mapping(document: yamlfile.Document, value: Any, place: yamlfile.Place) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        where = ".".join(str(part) for part in place)
        raise InputError(
            f"{document.path}:{document.line(place)}: {where}: must be a mapping, found {value!r:.60}"
        )
    return value


def _refuse_shared_nodes(path: Path, hosts: Any) -> None:
    seen: dict[str, str] = {}
    for host in hosts:
        if host.node_name in seen:
            raise InputError(f"{path}: {seen[host.node_name]} and {host.name} both claim Node {host.node_name}")
        seen[host.node_name] = host.name
