"""YAML text to plain data, with the line of every key, and without YAML 1.1's surprises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fleetdrv.errors import InputError

Place = tuple[str | int, ...]

MAX_BYTES = 8 * 1024 * 1024
"""An inventory of 50,000 hosts has a few; what is larger is another file than the one that was meant."""
MAX_DEPTH = 64
"""Of lists and mappings inside each other."""
MAX_DIGITS = 18
"""Of a number: what is longer is a serial number or a version, and Python refuses to print very long ones."""

# What YAML's own "printable" leaves out, and what is the end of a line to YAML 1.1 and to few editors.
_UNFIT = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Document:
    """A file's data and the line on which each key or item stands. Every key is text, as it is written."""

    path: Path
    data: Any
    lines: dict[Place, int]
    numbers: dict[Place, str] = field(default_factory=dict)
    """Numbers with a point as they are written: 550.90 is another version than 550.9."""

    def line(self, place: Place) -> int:
        """Return the line of a place, or of the nearest enclosing one that has a line."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


class _Loader(yaml.SafeLoader):
    """Only what JSON knows resolves to anything but text: `on`, `0755` and `1_000` stay as written.

    What is refused is gathered in `faults`, by line, so that all of it is told at once.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.faults: list[tuple[int, str]] = []
        self._depth = 0

    def refuse(self, mark: Any, fault: str) -> None:
        """Note a fault at a place of the text."""
        self.faults.append((mark.line + 1, fault))

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse what makes a value stand elsewhere than where it is read; an alias is never followed."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None or event.tag is not None:
            self.refuse(mark, "anchors, aliases and tags are not read here; write the value out")
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            return yaml.ScalarNode("tag:yaml.org,2002:null", "", mark, mark)
        event.anchor = event.tag = None
        if self._depth == MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {MAX_DEPTH}", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Read every key as text: `1`, `on` and `null` may be names of hosts and parameters."""
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|false|False)$", "tTfF"),
    ("null", r"^(?:null|~|)$", ["~", "n", ""]),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]+)?$", "-+0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def read(path: Path) -> Document:
    """Read one YAML file. Raises InputError that names every line at fault.

    At fault is a file that cannot be read, is not YAML, holds a key twice, or uses anchors, aliases or tags (a
    wanted state that is written once is read once).
    """
    return parse(path, text(path))


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """Return a file's content. Raises InputError, also where it is larger than `most` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: no path can hold a NUL
        raise InputError(f"{path}: cannot be read: {error}") from error
    if len(data) > most:
        raise InputError(f"{path}: cannot be read: larger than {most} bytes")
    return data


def text(path: Path) -> str:
    """Return a file's text. Raises InputError, with the line where a character cannot be meant."""
    data = read_bytes(path)
    try:
        said = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: cannot be read: not UTF-8: {error.reason}") from error
    said = said.replace("\r\n", "\n").replace("\r", "\n")
    faults = [
        f"{path}:{number}: cannot be read: holds the character U+{ord(found[0]):04X}; "
        'if it is meant, write it as an escape in "…"'
        for number, line in enumerate(said.split("\n"), 1)
        if (found := _UNFIT.search(line))
    ]
    if faults:
        raise InputError("\n".join(faults[:20]))
    return said


def parse(path: Path, said: str) -> Document:
    """Read the text of a YAML file, as `read` does."""
    loader = _Loader(said)
    try:
        node: Any = loader.get_single_node()
        document = Document(path, None, {})
        for place, line, number in _lines(loader, node, ()) if node else ():
            document.lines[place] = line
            if number:
                document.numbers[place] = number
        if loader.faults:
            raise InputError("\n".join(f"{path}:{line}: {fault}" for line, fault in sorted(loader.faults)))
        data = loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        raise InputError(f"{path}:{_line_of(error)}: not YAML: {_problem(error)}") from error
    except (ValueError, OverflowError) as error:  # an escape beyond Unicode: "\U00110000"
        line = loader.line + 1  # the reader's
        raise InputError(f"{path}:{line}: not YAML: {error}") from error
    finally:
        loader.dispose()
    return Document(path, data, document.lines, document.numbers)


def _line_of(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else 1


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "cannot be read"
    return problem.replace("but found another document", "a file holds one document, here begins another")


def _lines(loader: _Loader, node: yaml.Node, place: Place) -> Iterator[tuple[Place, int, str]]:
    """Yield each place with its line, and with a number as it is written; note what is refused."""
    if isinstance(node.value, str) and _HALF.search(node.value):
        loader.refuse(node.start_mark, "holds half a character, a surrogate without its other half")
    yield place, node.start_mark.line + 1, node.value if node.tag.endswith(":float") else ""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                loader.refuse(key.start_mark, "a key must be plain text")
                continue
            if not key.value.isprintable():  # it would break the lines of every message
                loader.refuse(key.start_mark, f"a key must be plain text, found {key.value!r:.60}")
            elif key.value in seen:
                loader.refuse(key.start_mark, f"{key.value}: this key stands there twice")
            seen.add(key.value)
            yield from _lines(loader, value, (*place, key.value))
            yield (*place, key.value), key.start_mark.line + 1, ""
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(loader, item, (*place, index))
    elif node.tag.endswith(":int") and len(node.value.lstrip("+-")) > MAX_DIGITS:
        loader.refuse(node.start_mark, f"a number of {len(node.value)} digits; write it in quotes")
