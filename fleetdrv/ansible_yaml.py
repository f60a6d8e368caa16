"""YAML as Ansible reads it, node by node with lines: an inventory made for it must not mean another thing here.

So values follow YAML 1.1 (`yes` is true, `0755` is 493), and anchors, aliases and `<<` count. Playbooks are read
more strictly (yamlfile.py). Keys are text as written, and so are the values of `AS_WRITTEN`: Node 007 is not
Node 7. Refused are keys that stand there twice, of which Ansible takes the last with a warning: a pool must not
lose nodes by a slip.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from fleetdrv import yamlfile
from fleetdrv.errors import InputError
from fleetdrv.groups import Said

MAX_BYTES = 32 * 1024 * 1024
_MAX_NODES = 4_000_000
"""Of a document with its aliases followed; nine lines of nested aliases would be billions."""
_MAX_DEPTH = 60

AS_WRITTEN = frozenset({"node_name", "ansible_host", "ansible_ssh_host", "ansible_user", "ansible_ssh_user"})
"""Variables that are text to fleetdrv, whatever they look like."""

_ENCRYPTED = b"$ANSIBLE_VAULT"
_KINDS = ("str", "int", "float", "bool", "null", "seq", "map", "timestamp", "merge")
_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in _KINDS)
_OTHER_TAGS = frozenset({"!unsafe", "!vault", "!vault-encrypted"})
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # libyaml's where PyYAML has it: ten times as quick
    """PyYAML's safe loader with Ansible's own tags; a date stays text."""


def _vault(_: Any, node: Any) -> dict[str, object]:
    return {"__ansible_vault": node.value}  # as `ansible-inventory --list` shows it; never text that could be used


_Loader.add_constructor("!vault", _vault)
_Loader.add_constructor("!vault-encrypted", _vault)
_Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))
_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: loader.construct_scalar(node))


class Document:
    """One YAML file. `root` is its top node, None where it is empty."""

    def __init__(self, path: Path, data: bytes) -> None:
        """Parse; raises InputError with file and line."""
        self.path = path
        try:
            self._loader = _Loader(_without_tabs(data.decode("utf-8-sig")))
            self.root: Any = self._loader.get_single_node()
            faults = _faults(path, self.root) if self.root else []
        except yaml.MarkedYAMLError as error:
            raise self._not_yaml(error) from error
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise InputError(f"{path}: not YAML: {str(error).splitlines()[0]}") from error
        if faults:
            raise InputError("\n".join(faults))

    def _not_yaml(self, error: yaml.MarkedYAMLError) -> InputError:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}" if mark else ""
        return InputError(f"{self.path}{where}: not YAML: {error.problem or error.context}")

    def value(self, node: Any) -> Any:
        """Return a node as plain data; raises InputError with file and line."""
        try:
            return self._loader.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            problem = getattr(error, "problem", None) or error
            raise InputError(f"{self.path}:{line(node)}: cannot be read: {problem}") from error

    def pairs(self, node: Any) -> Iterator[tuple[str, Any, Any]]:
        """Yield each key of a mapping as text, its node and its value's node, with `<<` followed."""
        try:
            self._loader.flatten_mapping(node)
        except yaml.MarkedYAMLError as error:
            raise self._not_yaml(error) from error
        latest = {key.value: (key, value) for key, value in node.value}
        for name, (key, value) in latest.items():
            yield str(name), key, value

    def variables(self, node: Any) -> Said:
        """Return a mapping of variables as plain data."""
        said = Said()
        for name, key, value in self.pairs(node):
            said.say(name, self._variable(name, value), f"{self.path}:{line(key)}")
        return said

    def _variable(self, name: str, node: Any) -> object:
        plain = isinstance(node, yaml.ScalarNode) and node.tag in _TAGS and not node.tag.endswith(":null")
        return node.value if plain and name in AS_WRITTEN else self.value(node)


def _without_tabs(text: str) -> str:
    """JSON may be indented by tabs, YAML not; inside a JSON string none can be."""
    if "\t" in text and text.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):
            json.loads(text)
            return text.replace("\t", " ")
    return text


def line(node: Any) -> int:
    """Return the line on which a node begins."""
    return int(node.start_mark.line) + 1


def read_bytes(path: Path) -> bytes:
    """Return a file's content. Raises InputError."""
    return yamlfile.read_bytes(path, MAX_BYTES)


def is_encrypted(data: bytes) -> bool:
    """Tell whether ansible-vault wrote this file."""
    return data.startswith(_ENCRYPTED)


def _faults(path: Path, root: Any) -> list[str]:
    weigher = _Weigher()
    weigher.weigh(root, 0)
    return [f"{path}:{line(node)}: {fault}" for node, fault in weigher.faults]


class _Weigher:
    """Looks at each node once for what is refused, and counts it as often as aliases repeat it."""

    def __init__(self) -> None:
        self.faults: list[tuple[Any, str]] = []
        self._weights: dict[int, int] = {}
        self._under: set[int] = set()

    def weigh(self, node: Any, depth: int) -> int:
        """Return how many values a node is. Raises ValueError for one without end."""
        if id(node) in self._weights:
            return self._weights[id(node)]
        if id(node) in self._under or depth > _MAX_DEPTH:
            raise ValueError(f"line {line(node)}: an alias inside itself, or nested deeper than {_MAX_DEPTH}")
        if node.tag not in _TAGS and node.tag not in _OTHER_TAGS:
            self.faults.append((node, f"the tag {node.tag} is not known here; write the value out"))
        self._under.add(id(node))
        weight = 1 + sum(self.weigh(child, depth + 1) for child in self._inside(node))
        self._under.discard(id(node))
        if weight > _MAX_NODES:
            raise ValueError(f"line {line(node)}: more than {_MAX_NODES} values, with aliases followed")
        self._weights[id(node)] = weight
        return weight

    def _inside(self, node: Any) -> list[Any]:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    self.faults.append((key, "a key must be plain text"))
                elif key.value in seen:
                    self.faults.append((key, f"{key.value}: this key stands there twice"))
                else:
                    seen.add(key.value)
            return [value for _, value in node.value]
        return list(node.value) if isinstance(node, yaml.SequenceNode) else []
