"""Ansible's INI inventory (its plugins/inventory/ini.py): sections of hosts, children and vars.

Values are read as there: what is a Python literal is one (`5`, `True`, `["a"]`), everything else is text. On a
host's line the shell's quoting comes first and `#` begins a comment; in a section of vars neither is so.
"""

from __future__ import annotations

import ast
import re
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path

from fleetdrv import hostnames
from fleetdrv.ansible_yaml import AS_WRITTEN
from fleetdrv.errors import InputError
from fleetdrv.groups import UNGROUPED, Groups, Said

_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
_GROUP_NAME = re.compile(r"([^:\]\s]+)\s*(?:#.*)?")
_COMMENTS = ("#", ";")


def gather(path: Path, data: bytes, groups: Groups) -> None:
    """Add what a file says. Raises InputError that names every fault with file and line."""
    reader = _Reader(path, groups)
    reader.read(_lines(path, data))
    if reader.faults:
        raise InputError("\n".join(reader.faults))


def value(text: str) -> object:
    """Return what a value means.

    >>> [value(text) for text in ("5", "0755", "True", "yes", "'5'", "[1, 'a']", "a b", "1.10")]
    [5, '0755', True, 'yes', '5', [1, 'a'], 'a b', 1.1]
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return _plain(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _plain(found: object) -> object:
    """Turn what JSON has no word for into what Ansible turns it into."""
    if isinstance(found, list | tuple | set):
        return [_plain(item) for item in (sorted(found, key=repr) if isinstance(found, set) else found)]
    if isinstance(found, dict):
        return {key if isinstance(key, str) else str(key): _plain(item) for key, item in found.items()}
    if isinstance(found, bytes):
        return found.decode("utf-8", "surrogateescape")
    if found is ...:
        return "..."
    return str(found) if isinstance(found, complex) else found


def _variable(name: str, text: str) -> object:
    found = value(text)
    return text if name in AS_WRITTEN and not isinstance(found, str) else found


def _lines(path: Path, data: bytes) -> list[str]:
    """Decode; a comment may be in any encoding."""
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        lines = []
        for number, line in enumerate(data.splitlines(), 1):
            comment = line.startswith((b"#", b";"))
            try:
                lines.append("" if comment else line.decode())
            except UnicodeDecodeError as error:
                raise InputError(f"{path}:{number}: not UTF-8: {error.reason}") from error
        return lines


class _Reader:
    """One pass over the lines, told before which groups they declare: that may stand below their use."""

    def __init__(self, path: Path, groups: Groups) -> None:
        self.faults: list[str] = []
        self._path, self._groups = path, groups
        self._number = 0

    def read(self, lines: list[str]) -> None:
        """Add all lines."""
        for found in filter(None, (_SECTION.fullmatch(line.strip()) for line in lines)):
            if found[2] in (None, "hosts", "children"):
                self._groups.add_group(found[1])
        group, take = UNGROUPED, self._taker(UNGROUPED, "hosts")
        for self._number, raw in enumerate(lines, 1):
            line = raw.strip()
            if not line or line.startswith(_COMMENTS):
                continue
            if section := _SECTION.fullmatch(line):
                group, take = section[1], self._taker(section[1], section[2] or "hosts")
            elif line.startswith("[") and line.endswith("]"):
                self._fault(line, "no section: write [group], [group:children] or [group:vars], without spaces")
                take = self._nothing
            else:
                take(group, line)

    def _taker(self, group: str, kind: str) -> Callable[[str, str], None]:
        takers = {"hosts": self._host, "children": self._child, "vars": self._var}
        if kind not in takers:
            self._fault(f"[{group}:{kind}]", f"unknown kind of section; known: {', '.join(takers)}")
        elif group not in self._groups:
            self._fault(f"[{group}:{kind}]", f"no such group; declare it with [{group}]")
        else:
            return takers[kind]
        return self._nothing

    def _nothing(self, group: str, line: str) -> None:
        """Pass by what stands in a section that was refused."""

    def _host(self, group: str, line: str) -> None:
        key = f"[{group}]"
        try:
            written, *words = shlex.split(line, comments=True)
            key = f"[{group}] {written}"
            hosts, port = hostnames.expand(written)
        except ValueError as error:
            self._fault(key, str(error))
            return
        own = Said()
        for word in words:
            name, sign, text = word.partition("=")
            if not sign:
                self._fault(key, f"{word!r:.60}: a variable is name=value; quote values with spaces")
            own.say(name, _variable(name, text), f"{self._path}:{self._number}")
        for host in hosts:
            self._groups.add_host(host, group, port)
            self._groups.set_host(host, own)

    def _child(self, group: str, line: str) -> None:
        key, found = f"[{group}:children]", _GROUP_NAME.fullmatch(line)
        if found is None:
            self._fault(key, f"{line!r:.60} is no name of a group")
        elif found[1] not in self._groups:
            self._fault(key, f"no group {found[1]}; declare it with [{found[1]}]")
        else:
            try:
                self._groups.add_child(group, found[1])
            except ValueError as error:
                self._fault(key, str(error))

    def _var(self, group: str, line: str) -> None:
        key, (name, sign, text) = f"[{group}:vars]", line.partition("=")
        if not sign:
            self._fault(key, f"{line!r:.60}: a variable is name=value")
            return
        try:
            said = Said()
            said.say(name.strip(), _variable(name.strip(), text.strip()), f"{self._path}:{self._number}")
            self._groups.set_group(group, said)
        except ValueError as error:
            self._fault(key, str(error))

    def _fault(self, key: str, text: str) -> None:
        self.faults.append(f"{self._path}:{self._number}: {key}: {text}")
