"""Where hosts come from: what `--inventory` names, read as Ansible reads it.

    FILE            YAML (inventory_yaml.py) or INI (inventory_ini.py); an executable is run (inventory_script.py)
    FOLDER          every file in it, sorted; hidden files, notes and backups are left out
    host1,host2,    a list with a comma in it: names, NodeSets, ports
    k8s:SELECTOR    the cluster's own Nodes (inventory_k8s.py), alone

Of several, the later ones win, as with Ansible.
group_vars/ and host_vars/ beside a file count. Unknown variables are kept. A host's Node is named by `node_name`,
else it is the host's own name; no two hosts may be the same Node.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleetdrv import hostnames, inventory_ini, inventory_k8s, inventory_script, inventory_yaml, nodeset
from fleetdrv.ansible_yaml import is_encrypted, read_bytes
from fleetdrv.errors import InputError
from fleetdrv.groups import UNGROUPED, Groups
from fleetdrv.inventory_vars import VarsFiles
from fleetdrv.model import Host
from fleetdrv.options import SEPARATOR

_YAML = (".yaml", ".yml", ".json")
_IGNORED_NAMES = ("host_vars", "group_vars", "vars_plugins")
_IGNORED_ENDS = (
    *(".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".txt", ".rst"),
    *(".orig", ".cfg", ".retry"),
)
_MOST_DEPTH = 16
Note = Callable[[str], None]


def _silent(text: str) -> None:
    del text


@dataclass(frozen=True, slots=True)
class Inventory:
    """Hosts by name, each with its groups and merged variables."""

    hosts: Mapping[str, Host]
    path: Path
    asks_cluster: bool = False
    """The hosts are the cluster's Nodes, which nobody has asked for yet: `hosts` is empty."""
    members: Callable[[str], tuple[str, ...]] = lambda _: ()
    """A group's hosts in its own order; empty where that is the order of `hosts`."""

    def group(self, name: str) -> tuple[Host, ...]:
        """Return the hosts of a group. Raises InputError when there are none."""
        found = tuple(host for host in self.hosts.values() if name in host.groups)
        if not found:
            groups = sorted({group for host in self.hosts.values() for group in host.groups})
            raise InputError(f"{self.path}: no host in group {name}; groups with hosts: {', '.join(groups)}")
        return found


def read(source: Path | str, note: Note = _silent) -> Inventory:
    """Read an inventory from a file, a folder, an executable, or a list of hosts; see `Inventory.asks_cluster`.

    Of several sources, which stand one a line, the later ones win. `note` is told what an operator should know
    though nothing is wrong. Raises InputError that names every fault with file, line and key.
    """
    sources = str(source).split(SEPARATOR)
    path, groups, folders, faults = Path(", ".join(sources)), Groups(), [], []
    if not str(source):
        raise InputError("no inventory: name one with --inventory FILE")
    if str(source).startswith(inventory_k8s.PREFIX) and len(sources) == 1:
        inventory_k8s.selector(str(source))
        return Inventory({}, path, asks_cluster=True)
    for each in sources:
        try:
            folders += _gather(each, groups, note)
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))
    if groups.empty:
        raise InputError(f"{path}: no hosts")
    files = VarsFiles(folders, note)
    hosts = groups.hosts(files.group, files.host)
    refuse_shared_nodes(str(path), hosts.values())
    return Inventory(hosts, path, members=groups.members)


def absolute(source: str) -> str:
    """Return the same for whoever starts in another folder."""
    return SEPARATOR.join(
        each if each.startswith(inventory_k8s.PREFIX) or _is_list(each) else str(Path(each).absolute())
        for each in source.split(SEPARATOR)
    )


def _is_list(source: str) -> bool:
    return "," in source and not Path(source).exists()


def _gather(source: str, groups: Groups, note: Note) -> list[Path]:
    """Add what one source says; return the folders in which files of variables may lie beside it."""
    if source.startswith(inventory_k8s.PREFIX):
        raise InputError(f"--inventory {source}: the cluster's Nodes go with no other inventory")
    if _is_list(source):
        _gather_list(source, groups)
        return []
    path = Path(source)
    _gather_all(_sources(path, _MOST_DEPTH), groups, note)
    return [path if path.is_dir() else path.parent]


def refuse_shared_nodes(source: str, hosts: Iterable[Host]) -> None:
    """Raise InputError where hosts claim the same Node; all of them are named."""
    claims: dict[str, list[str]] = {}
    for host in hosts:
        claims.setdefault(host.node_name, []).append(host.name)
    faults = [
        f"{source}: {' and '.join(names)} {'both' if len(names) == 2 else 'all'} claim Node {node}"
        for node, names in claims.items()
        if len(names) > 1
    ]
    if faults:
        raise InputError("\n".join(faults))


def _gather_list(text: str, groups: Groups) -> None:
    faults = []
    for part in nodeset.split(text):
        try:
            names, port = hostnames.expand(part)
        except ValueError as error:
            faults.append(f"--inventory {part[:60]}: {error}")
            continue
        for name in names:
            groups.add_host(name, UNGROUPED, port)
    if faults:
        raise InputError("\n".join(faults))


def _sources(path: Path, depth: int) -> Iterator[Path]:
    """Yield a file, or the files of a folder as Ansible chooses them."""
    if not path.is_dir():
        yield path
        return
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    for name in names:
        if not name.startswith(".") and name not in _IGNORED_NAMES and not name.endswith(_IGNORED_ENDS) and depth:
            yield from _sources(path / name, depth - 1)


def _gather_all(paths: Iterable[Path], groups: Groups, note: Note) -> None:
    faults = []
    for path in paths:
        try:
            _gather_file(path, groups, note)
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError("\n".join(faults))


def _gather_file(path: Path, groups: Groups, note: Note) -> None:
    data = read_bytes(path)
    if is_encrypted(data):
        raise InputError(f"{path}:1: encrypted by ansible-vault, which is not opened here; decrypt it first")
    if inventory_script.is_program(path, data):
        inventory_script.gather(path, groups, note)
    elif path.suffix in _YAML or (not path.suffix and inventory_yaml.is_likely(path, data)):
        inventory_yaml.gather(path, data, groups)
    else:
        inventory_ini.gather(path, data, groups)
