"""The files of ~/.ssh/config, read once per run: blocks with the conditions under which each counts.

Read here and not by Paramiko, which knows no `Include`, takes `Host *` for the end of every block that includes,
and forgets on which line it read what. What a block's options are for one host is ssh_config.py's.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from fleetdrv.errors import InputError

MOST_INCLUDES = 16
"""Depth at which OpenSSH gives up, too."""
LISTS = frozenset({"identityfile", "certificatefile"})
"""Options of which all values count, not the first."""
_RAW = frozenset({"proxycommand", "userknownhostsfile", "globalknownhostsfile"})
"""Options whose quotes belong to the value: a command, and lists of files."""
_WITHOUT_VALUE = frozenset({"all", "final", "canonical"})
_FOLLOWED = frozenset({"Host", "all", "final", "canonical", "host", "originalhost", "user", "localuser"})
_SETTING = re.compile(r"(\w+)(?:\s*=\s*|\s+)(.+)")

Options = dict[str, str | list[str] | None]


@dataclass(frozen=True, slots=True)
class Asking:
    """For whom options are looked up, as far as it is known by now."""

    original: str
    """The name as it was given."""
    host: str
    user: str
    local_user: str
    final: bool


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a `Host` or `Match` line."""

    kind: str
    """Of a `Match` line in lower case; `Host` is the other line's own."""
    patterns: tuple[str, ...]
    negated: bool
    place: str

    def holds(self, asking: Asking) -> bool:
        """Tell whether it is met. Raises InputError, with file and line, for one that is not followed here."""
        if self.kind not in _FOLLOWED:
            raise InputError(
                f"{self.place}: Match {self.kind} is not followed here, and {asking.original} depends on it; "
                "say it by Host or Match host"
            )
        return self._met(asking) != self.negated

    def _met(self, asking: Asking) -> bool:
        if self.kind == "all":
            return True
        if self.kind in ("final", "canonical"):
            return asking.final
        if self.kind == "Host":
            # ssh(1) reads its files a second time for the name that came out of the first, as if that were given.
            return _matches(self.patterns, asking.host if asking.final else asking.original)
        name = {"user": asking.user, "localuser": asking.local_user, "host": asking.host}.get(self.kind)
        lower = tuple(pattern.lower() for pattern in self.patterns)  # of users, too: ssh(1) does the same
        return _matches(lower, (asking.original if name is None else name).lower())


@dataclass(slots=True)
class Block:
    """Options that count where all conditions hold; there are none at the top of a file."""

    conditions: tuple[Condition, ...]
    options: Options = field(default_factory=dict)


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    """Tell whether a name fits some pattern and no `!pattern` (match_pattern_list of OpenSSH)."""
    wanted = False
    for pattern in patterns:
        if fnmatchcase(name, pattern.removeprefix("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            wanted = True
    return wanted


def read(path: Path) -> list[Block]:
    """Return the blocks of a file and of those that it includes. Raises InputError with file and line."""
    return list(_blocks(path, path.parent, (), 0))


def _blocks(path: Path, folder: Path, within: tuple[Condition, ...], depth: int) -> Iterator[Block]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8: {error.reason}") from None
    yield from _parsed(lines, path, folder, within, depth)


def _parsed(
    lines: list[str], path: Path, folder: Path, within: tuple[Condition, ...], depth: int
) -> Iterator[Block]:
    """Yield blocks in the order in which they count; `within` holds for every line of an included file.

    An `Include` belongs to the block that it stands in, which goes on behind it.
    """
    block = Block(within)
    for number, raw in enumerate(lines, 1):
        line, place = raw.strip(), f"{path}:{number}"
        if not line or line.startswith("#"):
            continue
        key, value = _setting(line, place)
        if key in ("host", "match"):
            yield block
            block = Block((*within, *(_host if key == "host" else _match)(_words(value, place), place)))
        elif key == "include":
            if depth >= MOST_INCLUDES:
                raise InputError(f"{place}: Include: more than {MOST_INCLUDES} files deep")
            yield block
            for name in _included(_words(value, place), folder):
                yield from _blocks(Path(name), folder, block.conditions, depth + 1)
            block = Block(block.conditions)
        else:
            _add(block.options, key, value)
    yield block


def _setting(line: str, place: str) -> tuple[str, str]:
    found = _SETTING.fullmatch(line)
    if found is None:
        raise InputError(f"{place}: {line[:60]!r} is no option with a value")
    key, value = found[1].lower(), found[2]
    if key not in _RAW and '"' not in value:
        value = re.sub(r"\s+#.*", "", value)
    return key, value


def _words(value: str, place: str) -> list[str]:
    try:
        return shlex.split(value, comments=True)
    except ValueError as error:
        raise InputError(f"{place}: {error}") from None


def _included(patterns: list[str], folder: Path) -> Iterator[str]:
    """Yield files that are there; one that is missing is none, as with ssh(1)."""
    for pattern in patterns:
        yield from sorted(glob.glob(os.path.join(folder, os.path.expanduser(pattern))))


def _host(patterns: list[str], place: str) -> list[Condition]:
    return [Condition("Host", tuple(patterns), False, place)]


def _match(words: list[str], place: str) -> list[Condition]:
    conditions = []
    while words:
        written = words.pop(0)
        kind, equals, value = written.removeprefix("!").partition("=")
        kind = kind.lower()
        patterns: tuple[str, ...] = ()
        if kind not in _WITHOUT_VALUE:
            if not equals and not words:
                raise InputError(f"{place}: Match {written}: says not of what")
            patterns = tuple((value if equals else words.pop(0)).split(","))
        conditions.append(Condition(kind, patterns, written.startswith("!"), place))
    if not conditions:
        raise InputError(f"{place}: Match: says not of what")
    return conditions


def _add(options: Options, key: str, value: str) -> None:
    """Keep the first value of an option, all of a list's."""
    if key == "proxycommand" and value.lower() == "none":
        options.setdefault(key, None)
        return
    if key not in _RAW and value.startswith('"') and value.endswith('"') and len(value) > 1:
        value = value[1:-1]
    if key in LISTS:
        options[key] = [*(options.get(key) or ()), value]
    else:
        options.setdefault(key, value)
