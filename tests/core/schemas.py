"""A playbook that says everything, and every way to break one of its values: both read off the published schema.

Text is written by hand here, not by the YAML library under test, so that the line of each value is known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Place = tuple[str | int, ...]
SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "playbook.schema.json").read_text())
_HOOK = {"command": ["true"], "timeout_seconds": 5}
_PODS = {"selector": "app=batch", "namespace": "jobs"}
WHOLE: dict[str, Any] = {
    "name": "whole",
    "pool": "gpu",
    "hosts": "gpu",
    "cluster": "8c1d",
    "drivers": [
        {
            "name": "built",
            "dkms": {"source": "toy.tar", "sha256": "0" * 64, "package": "toy", "version": "1.0"},
            "modules": ["toy", {"name": "net", "file": "net-current", "load_as": "net-alias"}],
            "parameters": {"toy": {"greeting": "hello"}},
            "conflicts": ["nouveau"],
            "services": ["dcgm.service"],
            "requires_pci": ["10de:*"],
            "checks": [["cat", "/dev/null"]],
            "strict": True,
        },
        {
            "name": "packaged",
            "apt": {
                "packages": {"acpi-call-dkms": "1.2.2-2"},
                "sha256": {"acpi-call-dkms": "0" * 64},
                "repository": {
                    "uri": "https://example.test/debian",
                    "suites": ["bookworm"],
                    "components": ["main"],
                    "key": "vendor.asc",
                    "fingerprint": "0" * 40,
                    "check_valid_until": False,
                },
                "hold": False,
                "conffiles": "replace",
            },
            "modules": ["acpi_call"],
        },
    ],
    "drain": {
        "timeout_seconds": 60,
        "delete_emptydir_data": True,
        "force": True,
        "grace_period_seconds": 5,
        "wait_for": [{**_PODS, "timeout_seconds": 60}],
        "skip": [_PODS],
        "operands": [{"label": "nvidia.com/gpu.deploy.device-plugin", "off": "paused"}],
    },
    "reboot": {"mode": "never", "timeout_seconds": 60},
    "rollout": {
        "canary": 1,
        "soak_seconds": 5,
        "max_unavailable": "10%",
        "max_unavailable_per": {"label": "topology.kubernetes.io/zone", "max_unavailable": 1},
        "max_parallel": 2,
        "staging": 4,
        "max_failures": 1,
        "max_unreachable": 2,
        "foreign_outages": "ignore",
        "maintenance_window": [{"days": ["sat"], "start": "22:00", "end": "04:00", "timezone": "UTC"}],
        "expected_seconds": 60,
    },
    "hooks": {when: [_HOOK] for when in ("before_run", "after_run", "before_node", "after_node")},
    "remediate": {"attempts": 2, "backoff_seconds": 60},
}
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
_WORDS = ("no-such-word", "", " ", "é", "a\nb", "x\n", "-", "$(touch pwned)", "101%", "7" * 3000)


def forms(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what a schema allows, every alternative for itself."""
    found = [inner for branch in ("anyOf", "oneOf") for one in schema.get(branch, ()) for inner in forms(one)]
    if "$ref" in schema:
        return forms(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    return found or [schema]


def kind(value: object) -> str:
    """Return JSON Schema's name of a value's type."""
    return "null" if value is None else _KINDS[type(value)]


@dataclass(frozen=True)
class Spot:
    """One value of the whole playbook, and what the schema allows there."""

    place: Place
    value: Any
    forms: list[Mapping[str, Any]]


def spots(value: Any = WHOLE, schema: Mapping[str, Any] = SCHEMA, place: Place = ()) -> Iterator[Spot]:
    """Walk the whole playbook along the schema; parents first."""
    allowed = forms(schema)
    yield Spot(place, value, allowed)
    mine = next(form for form in allowed if form.get("type") == kind(value))
    if isinstance(value, dict):
        pattern = next(iter(mine.get("patternProperties", {"": {}}).values()))
        for key, inner in value.items():
            yield from spots(inner, mine.get("properties", {}).get(key, pattern), (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from spots(inner, mine["items"], (*place, index))


def changed(place: Place, value: Any) -> Any:
    """Return as little of the whole playbook as holds a place, with another value there."""
    if not place:
        return value
    kept = ("name", "pool", "hosts", "drivers", place[0])
    spot = document = json.loads(json.dumps({key: inner for key, inner in WHOLE.items() if key in kept}))
    for part in place[:-1]:
        spot = spot[part]
    spot[place[-1]] = value
    return document


@dataclass(frozen=True)
class Case:
    """One broken playbook, and the place that has to be told."""

    rule: str
    at: Place
    """What is named; where it is missing, the line is that of what it is missing from."""
    document: Any

    def __str__(self) -> str:
        return f"{key(self.at)}-{self.rule}"


def cases(spot: Spot) -> Iterator[Case]:
    """Yield one case for each rule that the schema has for a value."""
    for rule, value in _wrong(spot):
        yield Case(rule, spot.place, changed(spot.place, value))
    if isinstance(spot.value, dict):
        for rule, inner, value in _wrong_keys(spot):
            yield Case(rule, (*spot.place, inner), changed(spot.place, value))


def _wrong(spot: Spot) -> Iterator[tuple[str, Any]]:
    kinds = {form.get("type") for form in spot.forms}
    for value in ("words", 7, 1.5, True, None, [], {}):
        if kind(value) not in kinds:
            yield f"type-{kind(value)}", value
    texts = [form for form in spot.forms if form.get("type") == "string"]
    for number, word in enumerate(_WORDS if texts else ()):
        if not any(accepts(form, word) for form in texts):
            yield f"word-{number}", word
    for form in spot.forms:
        yield from _beyond(form, spot.value)


def _beyond(form: Mapping[str, Any], value: Any) -> Iterator[tuple[str, Any]]:
    if "minimum" in form:
        yield "minimum", form["minimum"] - 1
    if "maximum" in form:
        yield "maximum", form["maximum"] + 1
    if "minItems" in form:
        yield "minItems", []
    if "maxItems" in form and isinstance(value, list):
        yield "maxItems", [value[0]] * (form["maxItems"] + 1)
    if "minProperties" in form:
        yield "minProperties", {}
    if "maxProperties" in form:
        one = next(iter(value.values()))
        yield "maxProperties", {f"key{number}": one for number in range(form["maxProperties"] + 1)}


def _wrong_keys(spot: Spot) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for form in spot.forms:
        for name in form.get("required", ()):
            yield "required", name, {key: value for key, value in spot.value.items() if key != name}
        if form.get("additionalProperties") is not False:
            continue
        for wrong in ("nmae", "a b", "", "é", "$(touch pwned)", "x\n"):
            if not any(re.search(pattern, wrong) for pattern in _strict(form)):
                yield f"key-{wrong!r}", wrong, {**spot.value, wrong: "1"}


def _strict(form: Mapping[str, Any]) -> list[str]:
    return [pattern.replace("$", r"\Z") for pattern in form.get("patternProperties", ())]


def accepts(form: Mapping[str, Any], word: str) -> bool:
    """Tell whether a schema of text takes a word; `$` is the end as for editors, not a line's end as in Python."""
    if "enum" in form or "const" in form:
        return word in form.get("enum", [form.get("const")])
    pattern = form.get("pattern", "")
    if pattern.endswith("$"):
        pattern = pattern[:-1] + r"\Z"
    long_enough = form.get("minLength", 0) <= len(word) <= form.get("maxLength", 10**9)
    return bool(long_enough and re.search(pattern, word))


def key(place: Place) -> str:
    """Return a place as messages name it."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p or repr(p)}" for p in place).lstrip(".") or "the file"


def written(document: Any) -> tuple[str, dict[Place, int]]:
    """Write a document in block style with quoted text; return it and the line of each place."""
    lines = _lines(document, ())
    places = {place: number for number, (_, here) in enumerate(lines, 1) for place in here}
    return "\n".join(text for text, _ in lines) + "\n", {(): 1, **places}


def _lines(value: Any, place: Place) -> list[tuple[str, list[Place]]]:
    """Return lines of text, each with the places that begin on it."""
    if not isinstance(value, dict | list) or not value:
        return [(json.dumps(value), [])]
    lines: list[tuple[str, list[Place]]] = []
    for part, inner in value.items() if isinstance(value, dict) else enumerate(value):
        here, below = (*place, part), _lines(inner, (*place, part))
        head = "-" if isinstance(value, list) else f"{json.dumps(part)}:"
        if isinstance(value, list) or not isinstance(inner, dict | list) or not inner:
            first, *below = below
            lines.append((f"{head} {first[0]}", [here, *first[1]]))
        else:
            lines.append((head, [here]))
        lines += [(f"  {text}", places) for text, places in below]
    return lines
