"""YAML text to plain data, with the line of every key, and without YAML 1.1's surprises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fleetdrv.errors import InputError

Place = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Only what JSON knows resolves to anything but text: `on`, `0755` and `1_000` stay as written."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|false|False)$", "tTfF"),
    ("null", r"^(?:null|~|)$", ["~", "n", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]+)?$", "-+0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


@dataclass(frozen=True, slots=True)
class Document:
    """A file's data and the line on which each key or item stands."""

    path: Path
    data: Any
    lines: dict[Place, int]

    def line(self, place: Place) -> int:
        """Return the line of a place, or of the nearest enclosing one that has a line."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read(path: Path) -> Document:
    """Read one YAML file.

    Raises InputError for a file that cannot be read, is not YAML, holds a key twice, or uses anchors,
    aliases or tags (a wanted state that is written once is read once).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    try:
        _refuse_anchors(path, text)
        node = yaml.compose(text, Loader=_Loader)
        lines = dict(_lines(path, node, ())) if node else {}
        return Document(path, yaml.load(text, Loader=_Loader), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where}: not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: not YAML: {error}") from error


def _refuse_anchors(path: Path, text: str) -> None:
    for token in yaml.scan(text, Loader=_Loader):
        if isinstance(token, yaml.AnchorToken | yaml.AliasToken | yaml.TagToken):
            line = token.start_mark.line + 1
            raise InputError(
                f"{path}:{line}: anchors, aliases and tags are not read here; write the value out"
            )


def _lines(path: Path, node: yaml.Node, place: Place) -> Iterator[tuple[Place, int]]:
    yield place, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{path}:{line}: a key must be plain text")
            if key.value in seen:
                raise InputError(f"{path}:{line}: {key.value}: this key stands there twice")
            seen.add(key.value)
            name = int(key.value) if key.tag.endswith(":int") else key.value
            yield from _lines(path, value, (*place, name))
            yield (*place, name), line
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(path, item, (*place, index))
