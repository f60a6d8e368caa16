"""The published schema and the program agree: an editor marks what `plan` would refuse, and no more."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from fleetdrv.playbook import Playbook
from tests.core.schemas import SCHEMA, WHOLE, Spot, cases, changed, key, spots

ROOT = Path(__file__).parents[2]
BEYOND_A_SCHEMA = (
    "stands there twice",
    "is a module of one driver and in conflicts of another",
    "is wanted in two ways",
    "stands in modules and in conflicts",
    "which modules does not list",
    "does not name it with an exact version",
    "ends in a slash, so it has no components",
    "only a suite that ends in a slash has none",
    "is no time zone",
    "is no label selector",
    "starts and ends at",
    "no maintenance window is as long as",
    "cannot name the pool's Lease",
    "valid integer",  # 7.0 is one to JSON
    "unable to parse raw data as a unicode string",  # half a character, which no file can hold
)
"""What one value says of another, or what a database knows."""


def as_editors_read_it(schema: Any) -> Any:
    """Return a schema whose `$` is the end of the text, as in JavaScript, not also before a last newline."""
    if isinstance(schema, dict):
        return {re.sub(r"\$$", r"\\Z", name): as_editors_read_it(inner) for name, inner in schema.items()}
    if isinstance(schema, list):
        return [as_editors_read_it(inner) for inner in schema]
    return re.sub(r"\$$", r"\\Z", schema) if isinstance(schema, str) else schema


EDITOR = Draft202012Validator(as_editors_read_it(SCHEMA))


def refused(document: Any) -> list[str]:
    """Return what the program says against a playbook's data, lists and mappings as YAML gives them."""
    try:
        Playbook.model_validate(document)
    except ValidationError as error:
        return [str(fault["msg"]) for fault in error.errors()]
    return []


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks").glob("*.yaml")), ids=lambda path: path.name)
def test_the_shipped_playbooks_are_right_to_an_editor(path: Path) -> None:
    EDITOR.validate(yaml.safe_load(path.read_text()))


def test_a_playbook_that_says_everything_is_right_to_both() -> None:
    EDITOR.validate(WHOLE)
    assert refused(WHOLE) == []


SPOTS = tuple(spots())


@pytest.mark.parametrize("spot", SPOTS, ids=lambda spot: key(spot.place))
def test_what_the_program_refuses_by_a_rule_an_editor_marks(spot: Spot) -> None:
    for case in cases(spot):
        assert refused(case.document), case
        assert not EDITOR.is_valid(case.document), case


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("drivers", 0, "apt"), {"packages": {"toy": "1"}}),
        (("drivers", 0, "services"), ["sshd.service"]),
        (("drivers", 0, "services"), ["kubelet"]),
        (("drivers", 0, "parameters"), {"toy": {"a b": "c"}}),
        (("drivers", 1, "apt", "packages"), {"Toy": "1"}),
        (("rollout", "max_unavailable"), "0%"),
        (("rollout", "max_unavailable"), 0),
        (("rollout", "max_unavailable_per", "max_unavailable"), "0%"),
        (("rollout", "maintenance_window", 0, "start"), "24:00"),
        (("drain", "skip", 0, "selector"), ""),
    ],
)
def test_rules_of_code_are_in_the_schema_where_it_can_say_them(place: Any, value: Any) -> None:
    assert refused(changed(place, value))
    assert not EDITOR.is_valid(changed(place, value))


WORDS = st.text(max_size=6) | st.sampled_from(
    ["1", "24:00", "0%", "7%", "10de:*", "a/b", "flat/", "app in (a)", "sshd", "toy", "nbd", "*", "UTC", "sat"]
)
LEAVES = st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats(-3, 3) | WORDS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2), max_leaves=4
)


@given(st.sampled_from(SPOTS[1:]), VALUES)
def test_both_say_the_same_of_any_value_anywhere(spot: Spot, value: Any) -> None:
    document = json.loads(json.dumps(changed(spot.place, value)))
    said, fine = refused(document), EDITOR.is_valid(document)
    assert said or fine, f"{key(spot.place)}: only an editor marks {value!r}"
    if fine:
        assert all(any(known in fault for known in BEYOND_A_SCHEMA) for fault in said), said
