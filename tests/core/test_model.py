"""The nouns: what makes two builds the same, and which kernels can boot next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv.model import Identity, Kernels, Sameness
from tests.core.factories import KERNEL, NEXT_KERNEL, a_file, an_identity, some_facts

MARKS = st.builds(
    Identity,
    build_id=st.sampled_from(("", "b1", "b2")),
    srcversion=st.sampled_from(("", "s1", "s2")),
    version=st.sampled_from(("", "1.0", "1.1")),
)


@given(MARKS, MARKS)
def test_it_does_not_matter_which_of_two_builds_is_loaded(one: Identity, other: Identity) -> None:
    assert one.compare(other) is other.compare(one)


@given(MARKS)
def test_code_is_the_same_as_itself_wherever_it_carries_a_mark(marks: Identity) -> None:
    expected = Sameness.DIFFERENT if marks == Identity() else Sameness.SAME
    assert marks.compare(marks) is expected


@pytest.mark.parametrize(
    ("one", "other", "sameness"),
    [
        (Identity(build_id="b1"), Identity(build_id="b2"), Sameness.DIFFERENT),
        (Identity(build_id="b1", srcversion="s"), Identity(build_id="b2", srcversion="s"), Sameness.REBUILT),
        (Identity(build_id="b1", version="1"), Identity(build_id="b2", version="1"), Sameness.REBUILT),
        (Identity(build_id="b1", version="1"), Identity(build_id="b2", version="2"), Sameness.DIFFERENT),
        (Identity(build_id="b", srcversion="s1"), Identity(build_id="b", srcversion="s2"), Sameness.SAME),
        (Identity(srcversion="s"), Identity(srcversion="s"), Sameness.SAME),
        (Identity(build_id="b1", srcversion="s"), Identity(srcversion="s"), Sameness.SAME),
        (Identity(srcversion="s1", version="1"), Identity(srcversion="s2", version="1"), Sameness.DIFFERENT),
        (Identity(srcversion="s", version="1"), Identity(srcversion="s", version="2"), Sameness.SAME),
        (Identity(srcversion="s"), Identity(version="1"), Sameness.DIFFERENT),
        (Identity(), Identity(), Sameness.DIFFERENT),
        (an_identity("1.1"), an_identity("1.1", build="b"), Sameness.REBUILT),
        (an_identity("1.1"), an_identity("1.0"), Sameness.DIFFERENT),
    ],
)
def test_the_strongest_mark_that_both_carry_decides(one: Identity, other: Identity, sameness: Sameness) -> None:
    assert one.compare(other) is sameness


def test_kernels_that_can_boot_are_named_once_the_running_one_first() -> None:
    assert Kernels(running="b", newest="a", default="b").bootable == ("b", "a")
    assert Kernels(running="a", newest="b", default="c").bootable == ("a", "b", "c")
    assert Kernels(running="a", newest="a", default="a").bootable == ("a",)


def test_a_file_is_found_by_module_and_kernel() -> None:
    here, next_one, other = a_file(), a_file(kernel=NEXT_KERNEL), a_file("other")
    facts = some_facts(files=(other, next_one, here))
    assert facts.file("toy", KERNEL) == here
    assert facts.file("toy", NEXT_KERNEL) == next_one
    assert facts.file("other", NEXT_KERNEL) is None
