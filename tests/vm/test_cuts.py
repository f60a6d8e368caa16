"""The link to a node is cut at random moments of installs: dpkg is never hung up, its log arrives whole.

What is cut is the SSH session on the node, by SIGKILL, with whatever hangs on it. A program on the node does it
and sees what dpkg is at just then; dpkg waits in its maintainer scripts until it was cut off often enough. Nodes
without systemd: tests/rollout/test_cuts.py.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.apt.repository import Package
from tests.vm.mirror import Mirror
from tests.vm.test_faults import NODE, TOOLS, assert_serves, assert_whole, installed, jobs, tools
from tests.vm.vm_fleet import VmFleet

pytestmark = pytest.mark.long

CUTS, INSTALLS = 50, 4
CUTTER = Path(__file__).with_name("cutter.py")
_SEEN = "/run/cuts"
_WAIT = """#!/bin/sh
n=0
while [ "$(grep -c '"{kind}"' {file})" -lt {times} ] && [ $n -lt 1800 ]; do n=$((n + 1)); sleep 0.5; done
"""


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    """Packages whose unpacking and configuring waits for three and for seven cuts."""
    made = Mirror(tmp_path_factory.mktemp("cuts"))
    scripts = {"preinst": _WAIT.format(kind="unpack", file=_SEEN, times=3),
               "postinst": _WAIT.format(kind="configure", file=_SEEN, times=7)}
    made.repository.add(*(Package(name=TOOLS, version=f"2.{n}", scripts=scripts) for n in range(INSTALLS)))
    yield made
    made.close()


def test_a_link_that_is_cut_at_random_moments_never_hangs_dpkg_up(
    fleet: VmFleet, mirror: Mirror, record_property: Callable[[str, object], None]
) -> None:
    seen: list[str] = []
    fleet.put(NODE, "/run/cutter.py", CUTTER.read_bytes())
    for number in range(INSTALLS):
        fleet.ssh(NODE, f"rm -f {_SEEN}.stop; : >{_SEEN}; systemd-run --quiet --collect --unit=cutter "
                        f"python3 -I -S /run/cutter.py {number} {_SEEN}")
        try:
            fleet.apply_book(tools(fleet, mirror, f"2.{number}"), "-l", NODE)
        finally:
            said = _stop(fleet)
        seen += [json.loads(line)["dpkg"] for line in said.splitlines()]
        assert installed(fleet) == f"2.{number} installed"
        assert [job for job in jobs(fleet) if job.startswith("outage")] == ["outage.1"], "once, and to its end"
        assert_whole(fleet)
        assert_serves(fleet)
        if len(seen) >= CUTS:
            break
    kinds = Counter(kind or "else" for kind in seen)
    assert len(seen) >= CUTS, kinds
    assert kinds["unpack"] + kinds["configure"] >= CUTS / 4, kinds
    record_property("links cut at random moments of installs by dpkg",
                    f"{len(seen)} in {number + 1} installs: {kinds['unpack']} while it unpacked, "
                    f"{kinds['configure']} while it configured, {kinds['else']} else; none hung up")


def _stop(fleet: VmFleet) -> str:
    """End the program; it may cut this session too, as the last one."""
    for _ in range(5):
        try:
            fleet.ssh(NODE, f"touch {_SEEN}.stop")
            return fleet.ssh(NODE, f"while systemctl -q is-active cutter; do sleep 0.2; done; cat {_SEEN}")
        except AssertionError:
            continue
    raise AssertionError("the node's sessions end again and again")
