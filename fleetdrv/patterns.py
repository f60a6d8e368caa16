"""Which hosts a pattern selects, as with Ansible's --limit: `gpu:&rack1:!gpu-007`. Pure.

Parts stand between commas or colons, and their order does not matter: first all plain parts together, or all
hosts where there are none; of these, those that every `&part` selects, and that no `!part` selects. A part is

    gpu-007             a host, its Node, or a group
    gpu[0], gpu[-1]     one of a group's hosts, counted in the group's own order, of the pool's only
    gpu[0:2], gpu[3:]   several of them, the last one included, as with Ansible
    gpu-[001-128]       a NodeSet: each of its names must be there
    gpu-0?1*, n[45]     a glob over hosts, Nodes and groups
    ~gpu-0[13]          a regular expression over the same, from the beginning of the name
    @failed             the hosts that failed in the pool's last run
    @FILE               the parts in a file, one a line; `#` begins a comment

A part that selects nothing is a typing mistake: it must not turn into "nothing to do", nor `!part` into one
host more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from fleetdrv import nodeset
from fleetdrv.errors import InputError
from fleetdrv.model import Host

FAILED = "failed"

_REGEX_LIMIT = 200
"""Characters of a regular expression; fleets' names are short, and so are the patterns for them."""

_SUBSCRIPT = re.compile(r"(.+)\[(?:(-?[0-9]{1,9})|([0-9]{1,9}):([0-9]{0,9}))\]")
"""As Ansible's, but for `[1-3]`, which is a NodeSet here, and only behind a group: `n[45]` is a glob."""

Named = Callable[[str], Collection[str]]
"""What `@NAME` stands for: parts of a pattern."""
Members = Callable[[str], Sequence[str]]


def limit(
    hosts: Sequence[Host], pattern: str, named: Named | None = None, members: Members = lambda _: ()
) -> tuple[Host, ...]:
    """Return the hosts that a pattern selects, in the order of `hosts`. `members`: see Inventory.

    Raises InputError for a part that selects nothing, with the names that are nearest to it.
    """
    found = _Names(hosts, named, members)
    plain: set[str] = set()
    within: set[str] = {host.name for host in hosts}
    without: set[str] = set()
    parts = found.split(pattern)
    for part in parts:
        if part.startswith("!"):
            without |= found.select(part[1:], part)
        elif part.startswith("&"):
            within &= found.select(part[1:], part)
        else:
            plain |= found.select(part, part)
    if not any(part[0] not in "!&" for part in parts):
        plain = {host.name for host in hosts} if parts else set()
    chosen = tuple(host for host in hosts if host.name in (plain & within) - without)
    if not chosen:
        raise InputError(f"--limit {pattern}: selects no host")
    return chosen


class _Names:
    """Finds hosts by each of their names."""

    def __init__(self, hosts: Iterable[Host], named: Named | None, members: Members) -> None:
        self._named, self._members = named, members
        self._order: list[str] = []
        self._by_name: dict[str, set[str]] = {}
        self._groups: dict[str, set[str]] = {}
        for host in hosts:
            self._order.append(host.name)
            for group in host.groups:
                self._groups.setdefault(group, set()).add(host.name)
            for name in {host.name, host.node_name}:
                self._by_name.setdefault(name, set()).add(host.name)

    def split(self, pattern: str) -> list[str]:
        """Split at commas, and at colons where the text between them is no name: IPv6 addresses have colons."""
        parts = []
        for part in nodeset.split(pattern):
            parts += [part] if part.lstrip("!&") in self._by_name else nodeset.split(part, ":")
        return parts

    def select(self, wanted: str, part: str, depth: int = 4) -> set[str]:
        """Return the hosts of one part without its sign; `part` is what messages call it."""
        wanted = wanted.strip()
        if wanted.startswith("@"):
            return self._select_named(wanted[1:], part, depth)
        if wanted.startswith("~"):
            found = self._matching(_regex(wanted[1:], part))
        elif wanted in self._by_name or wanted in self._groups:
            found = self._by_name.get(wanted, set()) | self._groups.get(wanted, set())
        elif (subscript := _SUBSCRIPT.fullmatch(wanted)) and subscript[1] in self._groups:
            found = self._counted(subscript, part)
        elif nodeset.is_set(wanted) and not any(sign in wanted for sign in "*?"):
            found = self._set(wanted, part)
        else:
            found = self._matching(lambda name: fnmatchcase(name, wanted))
        if not found:
            raise InputError(f"--limit {part}: matches none of the pool's hosts{self._near(wanted)}")
        return found

    def _counted(self, subscript: re.Match[str], part: str) -> set[str]:
        group, place, first, last = subscript.groups()
        order = self._members(group) or self._order
        hosts = [name for name in order if name in self._groups[group]]
        if place is None:
            chosen = hosts[int(first) : int(last) + 1 if last else None]
        else:
            chosen = hosts[int(place) :][:1] if -len(hosts) <= int(place) else []
        if not chosen:
            raise InputError(f"--limit {part}: the pool has {len(hosts)} hosts of {group}, counted from 0")
        return set(chosen)

    def _set(self, wanted: str, part: str) -> set[str]:
        try:
            names = nodeset.expand_name(wanted)
        except ValueError as error:
            raise InputError(f"--limit {part}: {error}") from None
        missing = [name for name in names if name not in self._by_name]
        if missing:
            folded = nodeset.fold(missing)
            raise InputError(f"--limit {part}: matches none of the pool's hosts: {folded}{self._near(missing[0])}")
        return set().union(*(self._by_name[name] for name in names))

    def _select_named(self, name: str, part: str, depth: int) -> set[str]:
        if self._named is None or not depth:
            raise InputError(f"--limit {part}: @{name} cannot be used here")
        found: set[str] = set()
        for inner in self._named(name):
            if name == FAILED:  # the record may name hosts that have left the pool since
                found |= self._by_name.get(inner, set())
            else:
                found |= self.select(inner, f"{part}: {inner}", depth - 1)
        if not found:
            raise InputError(f"--limit {part}: names none of the pool's hosts")
        return found

    def _matching(self, fits: Callable[[str], bool]) -> set[str]:
        every = (*self._by_name.items(), *self._groups.items())
        return set[str]().union(*(hosts for name, hosts in every if fits(name)))

    def _near(self, wanted: str) -> str:
        known = [*self._order, *self._groups, *self._by_name]
        close = list(dict.fromkeys(get_close_matches(wanted[:80], known, n=4, cutoff=0.7)))[:3]
        if close:
            return f"; near to it: {', '.join(close)}"
        more = ", …" if len(self._order) > 10 else ""
        return f" ({nodeset.fold(self._order[:10])}{more})"


def _regex(text: str, part: str) -> Callable[[str], bool]:
    try:
        compiled = re.compile(text[: _REGEX_LIMIT + 1])
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"--limit {part}: no regular expression: {error}") from None
    if len(text) > _REGEX_LIMIT:
        raise InputError(f"--limit {part[:60]}…: longer than {_REGEX_LIMIT} characters")
    return lambda name: compiled.match(name) is not None
