"""Parameters that somebody else's file has otherwise: named while the node serves, which it goes on doing."""

from __future__ import annotations

import re

from fleetdrv import names
from tests.rollout.sim_fleet import SimFleet
from tests.rollout.test_story import Watcher

THEIRS = "/etc/modprobe.d/toy.conf"


def test_a_file_that_would_win_over_ours_is_named_before_the_cordon_and_its_remedy_helps(fleet: SimFleet) -> None:
    first, second = fleet.nodes
    node = fleet.nodes[first]
    fleet.apply("1.0")
    node.call(f"printf '# by Ansible\\noptions fleetdrv_toy greeting=\"from Ansible\"\\n' >{THEIRS}")
    said = f"{THEIRS}:2 says fleetdrv_toy.greeting=from Ansible, which modprobe takes instead of the playbook's "
    assert f"blocked: toy: {said}" in fleet.plan("1.1", code=5).out
    before, jobs = node.loaded(), node.started("outage")
    watcher = Watcher(fleet)
    ended = fleet.apply("1.1", code=None)
    watcher.stop()
    assert f"{first}: blocked: toy: {said}" in ended.out
    assert f"{second}: changed" in ended.out
    assert first not in watcher.ever
    assert (node.loaded(), node.started("outage")) == (before, jobs)
    assert names.CORDON not in fleet.node(first)["metadata"]["annotations"]
    (remedy,) = set(re.findall(rf"on the node: (sed -i \S+ {THEIRS})", ended.out))
    node.call(remedy)
    assert f"{first}: changed" in fleet.apply("1.1").out
