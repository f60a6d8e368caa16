"""Groups, hosts and variables as Ansible puts them together: what wins where several say something. Pure.

Sources add to a `Groups` one after the other; `hosts` is what comes of it. From weakest to strongest (Ansible's
VARIABLE_PRECEDENCE, inventory/helpers.py): vars of `all`; vars of the other groups, the farther from `all` the
stronger, among equals by `ansible_group_priority`, then by name; group_vars files in the same order; the host's
own; its host_vars file. A variable replaces another whole, mappings too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fleetdrv.errors import InputError
from fleetdrv.model import Host

ALL, UNGROUPED = "all", "ungrouped"
PRIORITY = "ansible_group_priority"

Variables = Mapping[str, object]
_PLACED = ("ansible_", "node_name")
"""How the names of those variables begin whose places are kept: what fleetdrv itself may find fault with."""


class Said(dict[str, object]):
    """Variables that know where each is said, as far as that is known: file and line, or less."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, str] = {}

    def say(self, key: str, value: object, place: str) -> None:
        """Set one."""
        self[key] = value
        if key.startswith(_PLACED):
            self.places[key] = place

    def take(self, other: Variables) -> None:
        """Have another one's win over these."""
        self.update(other)
        places = other.places if isinstance(other, Said) else {}
        if places or self.places:
            self.places.update({key: places.get(key, "") for key in other if key.startswith(_PLACED)})


VarsOf = Callable[[str], Variables]
"""What the files beside the inventory say of the group or host of that name."""


def _nothing(name: str) -> Variables:
    del name
    return {}


@dataclass(slots=True)
class _Group:
    """All that the sources say of one group, wherever they say it."""

    hosts: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    variables: Said = field(default_factory=Said)
    parents: set[str] = field(default_factory=set)
    priority: int = 1


@dataclass(frozen=True, slots=True)
class _Inherited:
    """What the hosts of the same groups have in common."""

    groups: frozenset[str]
    variables: Said


class Groups:
    """Gathers what the sources of an inventory say. Names are taken as they are."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {ALL: _Group(), UNGROUPED: _Group(parents={ALL})}
        self._own: dict[str, Said] = {}

    def __contains__(self, group: str) -> bool:
        """Tell whether a group was named."""
        return group in self._groups

    @property
    def empty(self) -> bool:
        """Whether there is no host yet."""
        return not self._own

    def add_group(self, name: str) -> None:
        """Name a group; harmless twice."""
        self._groups.setdefault(name, _Group())

    def add_child(self, parent: str, child: str) -> None:
        """Put a group into another. Raises ValueError where that would make a circle."""
        self.add_group(parent)
        self.add_group(child)
        if child in (ALL, parent) or child in self._above({parent}):
            raise ValueError(f"{parent} and {child} are groups that are each other's children")
        self._groups[child].parents.add(parent)
        self._groups[parent].children[child] = None

    def add_host(self, name: str, group: str, port: int | None = None) -> None:
        """Put a host into a group. A port counts where the host is named first, as with Ansible."""
        self.add_group(group)
        self._groups[group].hosts[name] = None
        if name not in self._own:
            self._own[name] = Said()
            if port is not None:
                self._own[name]["ansible_port"] = port

    def set_host(self, name: str, variables: Variables) -> None:
        """Give a host variables of its own."""
        self._own[name].take(variables)

    def set_group(self, name: str, variables: Variables) -> None:
        """Give a group variables. Raises ValueError for a priority that is no number."""
        self.add_group(name)
        if PRIORITY in variables:
            value = variables[PRIORITY]
            try:
                self._groups[name].priority = int(str(value))
            except ValueError:
                raise ValueError(f"{PRIORITY}: must be a whole number, found {value!r:.60}") from None
        self._groups[name].variables.take(variables)
        self._groups[name].variables.pop(PRIORITY, None)

    def members(self, group: str) -> tuple[str, ...]:
        """Return a group's hosts in its own order: as it names them, then its children, level by level.

        Empty for `all`, whose order is that of the hosts' naming. So Ansible counts them (Group.get_hosts).
        """
        found, level, seen = dict[str, None](), [group] if group != ALL else [], {group}
        while level:
            for each in level:
                found.update(self._groups[each].hosts if each in self._groups else {})
            inside = [child for each in level if each in self._groups for child in self._groups[each].children]
            level = [child for child in dict.fromkeys(inside) if child not in seen]
            seen.update(level)
        return tuple(found)

    def hosts(self, group_vars: VarsOf = _nothing, host_vars: VarsOf = _nothing) -> dict[str, Host]:
        """Return every host with all its groups and its merged variables, in the order of their naming."""
        memberships: dict[str, set[str]] = {name: set() for name in self._own}
        for name, group in self._groups.items():
            for host in group.hosts:
                memberships[host].add(name)
        depths, known = self._depths(), dict[frozenset[str], _Inherited]()
        found = {}
        for name, own in self._own.items():
            direct = frozenset(memberships[name] - {ALL, UNGROUPED}) or frozenset({UNGROUPED})
            if direct not in known:
                known[direct] = self._inherited(direct, depths, group_vars)
            variables = Said()
            for said in (known[direct].variables, own, host_vars(name)):
                variables.take(said)
            node = variables.get("node_name")
            if isinstance(node, dict | list):  # by ansible-vault encrypted text is a mapping, too
                where = f"{variables.places.get('node_name') or name}: {name}"
                raise InputError(f"{where}: node_name: must be text in the clear, found {node!r:.60}")
            found[name] = Host(
                name=name,
                node_name=name if node is None else str(node),
                variables=variables,
                groups=known[direct].groups,
                places=variables.places,
            )
        return found

    def _inherited(self, direct: frozenset[str], depths: Mapping[str, int], group_vars: VarsOf) -> _Inherited:
        inside = {*direct, *self._above(direct), ALL}
        ordered = sorted(inside, key=lambda g: (depths[g], self._groups[g].priority, g))  # `all` alone has depth 0
        variables = Said()
        for group in ordered:
            variables.take(self._groups[group].variables)
        for group in ordered:
            variables.take(group_vars(group))
        return _Inherited(frozenset(inside), variables)

    def _above(self, groups: Iterable[str]) -> set[str]:
        """Return the groups that these are in, however far up."""
        above: set[str] = set()
        rest = list(groups)
        while rest:
            new = self._groups[rest.pop()].parents - above
            above |= new
            rest += new
        return above

    def _depths(self) -> dict[str, int]:
        """Return each group's longest way from `all`."""
        depths = {ALL: 0}
        changed = True
        while changed:  # ends: add_child lets no circle in
            changed = False
            for name, group in self._groups.items():
                depth = 0 if name == ALL else 1 + max((depths.get(p, 0) for p in group.parents), default=0)
                changed |= depths.get(name) != depth
                depths[name] = depth
        return depths
