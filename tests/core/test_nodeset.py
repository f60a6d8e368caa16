"""A folded set of names means exactly the names that went in."""

from __future__ import annotations

import doctest
import re
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetdrv import nodeset
from fleetdrv.nodeset import MOST, expand, fold

NUMBERS = st.one_of(
    st.integers(0, 30).map(str),
    st.integers(0, 30).map(lambda n: f"{n:02d}"),
    st.integers(95, 103).map(lambda n: f"{n:03d}"),
    st.integers(0, 10**20).map(str),
)
NAMES = st.one_of(
    st.tuples(st.sampled_from(("n", "gpu-", "r1n", "")), NUMBERS, st.sampled_from(("", "-ib", "."))).map("".join),
    st.builds("ip-10-0-{}-{}.ec2.internal".format, st.integers(1, 2), st.integers(8, 12)),
    st.builds("10.0.{}.{}".format, st.integers(0, 1), st.integers(8, 12)),
    st.text(alphabet="ab09.-_é٣", min_size=1, max_size=6),
)


def test_the_examples_hold() -> None:
    assert doctest.testmod(nodeset).failed == 0


@given(st.lists(NAMES, max_size=40))
@example(["n9", "n09", "n10", "n11", "n099", "n100", "n1000"])
@example(["n0", "n00", "n1", "n01"])
def test_what_is_folded_comes_back_whole(names: list[str]) -> None:
    folded = fold(names)
    assert sorted(expand(folded)) == sorted(set(names))
    assert fold(reversed(names)) == folded


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        ([], ""),
        (["node003", "node017", "node018", "node019", "node020", "node021"], "node[003,017-021]"),
        ([f"n{i}" for i in range(1, 1001)], "n[1-1000]"),
        ([f"n{i:03d}" for i in range(98, 103)], "n[098-102]"),
        (["b", "a2", "a10", "a1"], "a[1-2,10],b"),
        (["n1"], "n1"),
        (["r1n1", "r1n2", "r2n1", "r2n2"], "r1n[1-2],r2n[1-2]"),
        (["gpu-1.c7.example", "gpu-2.c7.example"], "gpu-[1-2].c7.example"),
        (["10.0.0.1", "10.0.0.2"], "10.0.0.[1-2]"),
        (["101", "102"], "[101-102]"),
    ],
)
def test_names_fold_as_people_write_them(names: list[str], folded: str) -> None:
    assert fold(names) == folded


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node[001-003]", "node001 node002 node003"),
        ("n[1-9/2]", "n1 n3 n5 n7 n9"),
        ("n[1-3,9]", "n1 n2 n3 n9"),
        ("n[8-11]", "n8 n9 n10 n11"),
        ("dc[1-2]n[1-2], login", "dc1n1 dc1n2 dc2n1 dc2n2 login"),
        ("n1,n[1-2]", "n1 n2"),
        ("", ""),
    ],
)
def test_sets_are_spelt_out_in_the_order_written(text: str, names: str) -> None:
    assert expand(text) == names.split()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("n[1-", "a bracket stands alone"),
        ("n1]", "a bracket stands alone"),
        ("n[]", "[] is no range"),
        ("n[a-c]", "[a-c] is no range"),
        ("n[1:3]", "[1:3] is no range"),
        ("n[1-9/0]", "is no range"),
        ("n[3-1]", "counts down"),
        ("n[01-100]", "both ends must have the same width"),
        ("n[1-010]", "both ends must have the same width"),
        ("n[1-999999999]", f"more than {MOST} names"),
        ("n[1-999][1-999]", f"more than {MOST} names"),
        ("a[1-60000],b[1-60000]", f"more than {MOST} names"),
    ],
)
def test_what_is_no_set_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=re.escape(fault)) as caught:
        expand(text)
    assert str(caught.value).startswith(text)


@given(st.text(alphabet="n[]-,/:019 ", max_size=20))
def test_any_text_is_a_set_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert len(expand(text)) <= MOST
