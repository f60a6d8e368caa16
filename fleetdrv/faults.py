"""What is wrong with a playbook, in the operator's words: file, line, key, what was found, what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from fleetdrv.playbook import Playbook
from fleetdrv.sources import Contradiction
from fleetdrv.yamlfile import Document, Place

_PLAINLY = {
    "tuple_type": "Input should be a list",
    "dict_type": "Input should be a mapping of names to values",
    "model_type": "Input should be a mapping of keys to values",
}
"""Pydantic's types in the words of YAML."""


def told(document: Document, error: ValidationError) -> str:
    """Return every fault on a line of its own, in the order of the file."""
    faults = [fault for found in _causes(error) for fault in _explained(document, found)]
    ordered = sorted(dict.fromkeys(faults), key=lambda fault: document.line(fault[0]))
    return "\n".join(at(document, place, text) for place, text in ordered)


def at(document: Document, place: Place, text: str) -> str:
    """Return a fault with file, line and key."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{_shown(part)}" for part in place)
    return f"{document.path}:{document.line(place)}: {key.lstrip('.') or 'the file'}: {text}"


def _shown(key: str) -> str:
    """Return a key as it is, or quoted where it would not be seen to end."""
    return key if key and ": " not in key else repr(key)


def _causes(error: ValidationError) -> list[Any]:
    """Leave out what only follows from another fault: a list without its bad items is "too short"."""
    found = error.errors()
    inner = [fault["loc"] for fault in found]
    return [
        fault
        for fault in found
        if fault["type"] != "too_short"
        or not any(len(loc) > len(fault["loc"]) and loc[: len(fault["loc"])] == fault["loc"] for loc in inner)
    ]


def _explained(document: Document, fault: Any) -> Iterator[tuple[Place, str]]:
    place = tuple(part for part in fault["loc"] if not _is_type_tag(part))
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, Contradiction):
        yield from (((*place, *inner), text) for inner, text in cause.found)
    else:
        yield place, _text(document, place, fault)


def _text(document: Document, place: Place, fault: Any) -> str:
    kind, found, text = fault["type"], fault["input"], str(fault["msg"]).removeprefix("Value error, ")
    text = _PLAINLY.get(kind, text).replace("Tuple should", "List should").replace("Dictionary", "Mapping")
    if kind == "extra_forbidden":
        return f"unknown key; {_known(place)}"
    if kind in ("missing", "value_error"):
        return text
    if kind == "string_type" and type(found) in (int, float):
        return f"{document.numbers.get(place, found)} was read as a number; write it in quotes"
    if kind == "string_type" and (found is None or isinstance(found, bool)):
        text += "; what is meant as text, write in quotes"
    if kind == "bool_type":
        text += "; write true or false"
    if kind == "int_type" and isinstance(found, str) and found.lstrip("+-").isdecimal():
        text += "; write it without quotes and leading zeros"
    return f"{text}; found {document.numbers.get(place) or repr(found):.80}"


def _is_type_tag(part: object) -> bool:
    """Pydantic names the branch of a union in `loc`; a reader looks for the key only."""
    return isinstance(part, str) and (
        part in ("int", "[key]") or part.startswith(("constrained-", "function-", "tag-"))
    )


def _known(place: Place) -> str:
    """Say which keys may stand beside an unknown one, by the published schema."""
    schema = Playbook.model_json_schema()
    forms: list[Mapping[str, Any]] = [schema]
    for part in place[:-1]:
        forms = [inner for form in forms for inner in _inside(schema, form, part)]
    known = sorted({key for form in forms for key in form.get("properties", ())})
    close = get_close_matches(str(place[-1]), known, 1)
    return (f"did you mean {close[0]}? " if close else "") + f"known: {', '.join(known)}"


def _inside(schema: Mapping[str, Any], form: Mapping[str, Any], part: str | int) -> Iterator[Mapping[str, Any]]:
    """Yield what a schema allows at one key or index, every alternative for itself."""
    found: list[Mapping[str, Any]]
    if isinstance(part, int):
        found = [form.get("items", {})]
    else:
        found = [form.get("properties", {}).get(part, {}), *form.get("patternProperties", {}).values()]
    while found:
        one = found.pop()
        found += [*one.get("anyOf", ()), *one.get("oneOf", ())]
        if "$ref" in one:
            one = schema["$defs"][str(one["$ref"]).rpartition("/")[2]]
        yield one
