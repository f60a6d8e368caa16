"""Versions of packages, held against dpkg itself."""

from __future__ import annotations

import doctest
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv import packages
from fleetdrv.model import Candidate
from fleetdrv.packages import compare_versions, matches, newest_last, resolve
from tests.core.factories import sha256

PIECES = st.sampled_from(("0", "1", "2", "10", "09", "a", "b", "Z", "~", "~~", ".", "+", "rc", "deb12u1"))
PARTS = st.lists(PIECES, max_size=5).map("".join)
VERSIONS = st.builds(
    lambda epoch, upstream, revision: f"{epoch}1{upstream}{revision}",
    st.sampled_from(("", "", "0:", "1:", "10:")),
    PARTS,
    st.one_of(st.just(""), PARTS.map(lambda part: f"-0{part}"), PARTS.map(lambda part: f"-1-{part}1")),
)


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="no dpkg on this machine to compare with")
def test_the_order_is_dpkgs() -> None:
    """One shell asks dpkg for every pair, so that the whole batch costs one process start of ours."""
    pairs: list[tuple[str, str]] = []

    @given(VERSIONS, VERSIONS)
    def draw(one: str, other: str) -> None:
        pairs.append((one, other))

    draw()
    asks = "".join(
        f"if dpkg --compare-versions '{one}' lt '{other}'; then echo -1; "
        f"elif dpkg --compare-versions '{one}' eq '{other}'; then echo 0; else echo 1; fi\n"
        for one, other in pairs
    )
    done = subprocess.run(["/bin/sh"], input=asks, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    said = [int(line) for line in done.stdout.split()]
    ours = [compare_versions(one, other) for one, other in pairs]
    assert [pair for pair, us, dpkg in zip(pairs, ours, said, strict=True) if us != dpkg] == []
    assert {-1, 1} <= set(said)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.0~rc1", "1.0"),
        ("1.0~~", "1.0~"),
        ("1.0", "1.0a"),
        ("1.0a", "1.0+b"),
        ("1.9", "1.10"),
        ("9", "1:1"),
        ("1.0-1", "1.0-1+b1"),
        ("1.0-1~bpo12+1", "1.0-1"),
        ("1-1-1", "1-1-2"),
        ("535.309.01-1", "550.54.14-1"),
    ],
)
def test_known_orders(older: str, newer: str) -> None:
    assert (compare_versions(older, newer), compare_versions(newer, older)) == (-1, 1)


@pytest.mark.parametrize(("one", "other"), [("1.0", "1.0-0"), ("0:1.0", "1.0"), ("1.01", "1.1"), ("1.0-", "1.0")])
def test_versions_may_be_written_differently_and_be_equal(one: str, other: str) -> None:
    assert compare_versions(one, other) == compare_versions(other, one) == 0


@given(VERSIONS, VERSIONS, VERSIONS)
def test_it_is_an_order(one: str, two: str, three: str) -> None:
    assert compare_versions(one, one) == 0
    assert compare_versions(one, two) == -compare_versions(two, one)
    low, middle, high = sorted((one, two, three), key=newest_last)
    assert compare_versions(low, high) <= 0
    assert max(compare_versions(low, middle), compare_versions(middle, high)) <= 0


@pytest.mark.parametrize(
    ("pattern", "version", "means"),
    [
        ("1.2.2-2", "1.2.2-2", True),
        ("1.2.2-2", "1.2.2-20", False),
        ("1.2.*", "1.2.2-2", True),
        ("1.2.*", "1x2.2-2", False),
        ("*", "anything", True),
        ("1.*-2", "1.2.3-2", True),
        ("1.*-2", "1.2.3-2+b1", False),
        ("1.2.[0-9]", "1.2.3", False),
    ],
)
def test_a_pattern_knows_the_star_and_nothing_else(pattern: str, version: str, means: bool) -> None:
    assert matches(pattern, version) is means


def test_the_newest_that_the_pattern_means_is_taken() -> None:
    versions = ("1.9-1", "1.10-1", "1.10~rc1-1", "2.0-1")
    offered = [Candidate(name="toy", version=v, sha256=sha256(v)) for v in versions]
    assert resolve("1.*", offered) == offered[1]
    assert resolve("*", reversed(offered)) == offered[3]
    assert resolve("3.*", offered) is None


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(packages).failed == 0
