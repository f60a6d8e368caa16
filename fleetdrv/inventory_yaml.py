"""Ansible's YAML inventory (its plugins/inventory/yaml.py): groups of hosts, children and vars."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fleetdrv import hostnames
from fleetdrv.ansible_yaml import Document, line
from fleetdrv.errors import InputError
from fleetdrv.groups import Groups

_KEY_LINE = re.compile(rb"^[^#;\[\n]*:[ \t]*(#.*)?$", re.MULTILINE)
_KEYS = ("hosts", "children", "vars")


def gather(path: Path, data: bytes, groups: Groups) -> None:
    """Add what a file says. Raises InputError that names every fault with file, line and key."""
    Reader(Document(path, data), groups).read()


def is_likely(path: Path, data: bytes) -> bool:
    """Tell whether a file without a telling name is YAML: a mapping, or what was to be one.

    No line of an INI inventory ends in a colon.
    """
    try:
        return isinstance(Document(path, data).root, yaml.MappingNode)
    except InputError:
        return _KEY_LINE.search(data) is not None


class Reader:
    """Reads one document into groups."""

    def __init__(self, document: Document, groups: Groups) -> None:
        self._document, self._groups = document, groups
        self._faults: list[str] = []

    def read(self) -> None:
        """Read all of it."""
        root = self._document.root
        if not isinstance(root, yaml.MappingNode) or not root.value:
            raise InputError(
                f"{self._document.path}:1: an inventory is a mapping of groups, such as `all: {{hosts: …}}`"
            )
        pairs = tuple(self._document.pairs(root))
        for name, key, body in pairs:
            if name == "plugin" and isinstance(body, yaml.ScalarNode):
                raise InputError(self._plugin(line(key), body.value))  # what else is there is the plugin's to read
        for name, _, body in pairs:
            self._group(name, body, (name,))
        if self._faults:
            raise InputError("\n".join(self._faults))

    def _plugin(self, number: int, name: str) -> str:
        """Ansible itself can run it, behind an executable, which is an inventory for both."""
        path = self._document.path
        program = path.with_name(f"{path.name.partition('.')[0]}-inventory")
        script = f"exec ansible-inventory -i {shlex.quote(str(path.absolute()))} --list --export"
        words = shlex.join(("printf", r"%s\n", "#!/bin/sh", script))
        make = f"{words} >{shlex.quote(str(program))} && chmod +x {shlex.quote(str(program))}"
        return (
            f"{path}:{number}: plugin: {name:.60} is one of Ansible's inventory plugins, which do not run here; "
            f"make an executable that asks Ansible: {make}; then: --inventory {shlex.quote(str(program))}"
        )

    def _group(self, name: str, body: Any, place: tuple[str, ...]) -> None:
        if not name:
            self._fault(body, place, "a group must have a name")
            return
        self._groups.add_group(name)
        for key, at, value in self._pairs(body, place):
            here = (*place, key)
            if key == "vars":
                self._vars(name, value, here)
            elif key == "hosts":
                self._hosts(name, value, here)
            elif key == "children":
                self._children(name, value, here)
            else:
                self._fault(at, (name, key), f"unknown; known: {', '.join(_KEYS)}")

    def _vars(self, group: str, body: Any, place: tuple[str, ...]) -> None:
        if not self._is_mapping(body, place):
            return
        try:
            self._groups.set_group(group, self._document.variables(body))
        except ValueError as error:
            self._fault(body, place, str(error))
        except InputError as error:
            self._faults.append(str(error))

    def _hosts(self, group: str, body: Any, place: tuple[str, ...]) -> None:
        for written, at, said in self._pairs(body, place):
            here = (*place, written)
            try:
                names, port = hostnames.expand(written)
                own = self._document.variables(said) if self._is_mapping(said, here) else {}
            except ValueError as error:
                self._fault(at, here, str(error))
                continue
            except InputError as error:
                self._faults.append(str(error))
                continue
            for name in names:
                self._groups.add_host(name, group, port)
                self._groups.set_host(name, own)

    def _children(self, group: str, body: Any, place: tuple[str, ...]) -> None:
        for child, at, said in self._pairs(body, place):
            try:
                self._groups.add_child(group, child)
            except ValueError as error:
                self._fault(at, (*place, child), str(error))
                continue
            self._group(child, said, (*place, child))

    def _pairs(self, node: Any, place: tuple[str, ...]) -> Iterator[tuple[str, Any, Any]]:
        if isinstance(node, yaml.ScalarNode) and node.value and place[-1:] in (("hosts",), ("children",)):
            yield node.value, node, yaml.ScalarNode("tag:yaml.org,2002:null", "")  # Ansible allows `hosts: one`
        elif self._is_mapping(node, place):
            yield from self._document.pairs(node)

    def _is_mapping(self, node: Any, place: tuple[str, ...]) -> bool:
        """Tell whether there is a mapping; anything else but nothing is a fault."""
        if isinstance(node, yaml.MappingNode):
            return True
        if node.tag != "tag:yaml.org,2002:null":
            found = node.value if isinstance(node, yaml.ScalarNode) else "a list"
            self._fault(node, place, f"must be a mapping, found {found!r:.60}")
        return False

    def _fault(self, node: Any, place: tuple[str, ...], text: str) -> None:
        key = ".".join(part if part.isprintable() else repr(part) for part in place)  # else it breaks the line
        self._faults.append(f"{self._document.path}:{line(node)}: {key}: {text}")
