"""A selection never means more or less than was said."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv import nodeset
from fleetdrv.errors import InputError
from fleetdrv.model import Host
from fleetdrv.patterns import limit


def _host(n: int) -> Host:
    groups = {"all", "gpu", "rack1" if n <= 10 else "rack2", *(["canary"] if n in (1, 11) else [])}
    return Host(name=f"gpu-{n:03d}", node_name=f"node-{n}", groups=frozenset(groups))


SIX = Host(name="fe80::1", node_name="six", groups=frozenset({"all", "v6"}))
POOL = (*map(_host, range(1, 21)), SIX)
ALL = [host.name for host in POOL]


def chosen(pattern: str, **named: Collection[str]) -> str:
    """Return the selected hosts, folded."""
    return nodeset.fold(host.name for host in limit(POOL, pattern, lambda name: named[name]))


@pytest.mark.parametrize(
    ("pattern", "hosts"),
    [
        ("gpu:&rack1:!gpu-007", "gpu-[001-006,008-010]"),
        ("gpu,&rack1,!gpu-007", "gpu-[001-006,008-010]"),
        ("!gpu-007:&rack1:gpu", "gpu-[001-006,008-010]"),
        ("&rack2", "gpu-[011-020]"),
        ("&rack2:&canary", "gpu-011"),
        ("!gpu", "fe80::1"),
        ("rack1:rack2:!canary", "gpu-[002-010,012-020]"),
        ("gpu-[003,017-019]", "gpu-[003,017-019]"),
        ("gpu-[001-020/5]", "gpu-[001,006,011,016]"),
        ("node-[9-11]", "gpu-[009-011]"),
        ("gpu-0*5", "gpu-[005,015]"),
        ("canary[1]", "gpu-011"),
        ("rack2[-2]", "gpu-019"),
        ("rack1[8:]", "gpu-[009-010]"),
        ("rack[12]:&canary", "gpu-[001,011]"),
        ("gpu-00[45]", "gpu-[004-005]"),
        ("gpu-0?[12]", "gpu-[001-002,011-012]"),
        ("rack*:!rack2", "gpu-[001-010]"),
        ("~gpu-0(03|1[45])", "gpu-[003,014-015]"),
        ("~rack[2]:&canary", "gpu-011"),
        ("~node-1$", "gpu-001"),
        ("fe80::1", "fe80::1"),
        ("all:!fe80::1", "gpu-[001-020]"),
        ("@failed", "gpu-[002-003]"),
        ("@failed:!gpu-002", "gpu-003"),
        ("rack1:!@failed", "gpu-[001,004-010]"),
        ("@some.txt", "gpu-[001-004]"),
    ],
)
def test_a_pattern_selects_what_ansible_and_clustershell_would(pattern: str, hosts: str) -> None:
    named = {"failed": ["gpu-003", "gpu-002", "left-since"], "some.txt": ["gpu-[001-003]", "node-4"]}
    if "!fe80" in pattern:
        pattern = pattern.replace(":!", ",!")  # a colon cannot stand before an address that has some
    assert chosen(pattern, **named) == hosts


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("gpu-0077", "--limit gpu-0077: matches none of the pool's hosts; near to it: gpu-007"),
        ("gpu:&rak1", "--limit &rak1: matches none of the pool's hosts; near to it: rack1"),
        ("gpu:!canray", "--limit !canray: matches none of the pool's hosts; near to it: canary"),
        ("gpu-[019-022]", "--limit gpu-[019-022]: matches none of the pool's hosts: gpu-[021-022]; near"),
        ("gpu-[1-", "--limit gpu-[1-: matches none"),
        ("gpu-[5-1]", "--limit gpu-[5-1]: [5-1] counts down"),
        ("~gpu-(", "--limit ~gpu-(: no regular expression: "),
        ("~" + "a" * 201, "longer than 200 characters"),
        ("~xyz", "--limit ~xyz: matches none"),
        ("xyz*", "--limit xyz*: matches none"),
        ("!all", "--limit !all: selects no host"),
        ("rack1:&rack2", "--limit rack1:&rack2: selects no host"),
        ("@failed", "--limit @failed: names none of the pool's hosts"),
        ("@bad.txt", "--limit @bad.txt: no-such: matches none"),
        ("@self", "--limit @self: @self: @self: @self: @self: @self cannot be used here"),
        ("!", "--limit !: matches none"),
        ("@", "--limit @: "),
        ("~", ""),
        ("", "--limit : selects no host"),
        (",:", "--limit ,:: selects no host"),
    ],
)
def test_a_part_that_selects_nothing_is_refused_with_what_is_near(pattern: str, fault: str) -> None:
    named = {"failed": ["left-since"], "bad.txt": ["gpu-001", "no-such"], "self": ["@self"], "": []}
    if not fault:  # an empty regular expression is the beginning of every name
        assert len(limit(POOL, pattern)) == len(POOL)
        return
    with pytest.raises(InputError, match=re.escape(fault)):
        chosen(pattern, **named)


def test_what_has_no_name_here_says_so() -> None:
    with pytest.raises(InputError, match="@failed cannot be used here"):
        limit(POOL, "@failed")


PARTS = st.sampled_from(("gpu", "rack1", "canary", "gpu-0*2", "gpu-[001-004]", "~gpu-01", "node-7", "fe80::1"))


@given(st.lists(PARTS, max_size=3), st.lists(PARTS, max_size=2), st.lists(PARTS, max_size=2), st.data())
def test_it_is_the_union_cut_by_each_and_without_each(
    plain: list[str], within: list[str], without: list[str], data: st.DataObject
) -> None:
    def names(part: str) -> set[str]:
        return {host.name for host in limit(POOL, part)}

    wanted = set(ALL) if not plain else set().union(*map(names, plain))
    wanted = wanted.intersection(*map(names, within)).difference(*map(names, without))
    parts = [*plain, *(f"&{part}" for part in within), *(f"!{part}" for part in without)]
    pattern = ",".join(data.draw(st.permutations(parts)))
    if not (wanted and parts):
        with pytest.raises(InputError, match="selects no host"):
            limit(POOL, pattern)
        return
    assert [host.name for host in limit(POOL, pattern)] == [name for name in ALL if name in wanted]


@given(st.text(alphabet="gpu-01[]:,!&~@*?rack()+ ", max_size=25))
def test_any_text_selects_hosts_of_the_pool_or_is_refused(pattern: str) -> None:
    with suppress(InputError):
        found = [host.name for host in limit(POOL, pattern, lambda _: [])]
        assert found
        assert set(found) <= set(ALL)
