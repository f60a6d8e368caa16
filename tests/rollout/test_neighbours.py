"""A node that another program works on is passed by, seen by whole commands against simulated nodes."""

from __future__ import annotations

from tests.rollout.sim_fleet import SimFleet
from tests.rollout.test_story import Watcher

STATE = "nvidia.com/gpu-driver-upgrade-state"


def test_a_node_that_an_operator_upgrades_is_named_and_never_cordoned(fleet: SimFleet) -> None:
    busy, free = fleet.nodes
    fleet.patch(busy, {"metadata": {"labels": {STATE: "drain-required"}}}, "gpu-operator")
    watcher = Watcher(fleet)
    ended = fleet.apply("1.0", code=5, canary=0)
    watcher.stop()
    why = f"others are at work: an operator upgrades its driver ({STATE}=drain-required)"
    assert f"{busy}: blocked: {why}" in ended.out
    assert f"{free}: changed" in ended.out
    assert busy not in watcher.ever
    fleet.patch(busy, {"metadata": {"labels": {STATE: "upgrade-done"}}}, "gpu-operator")
    assert f"{busy}: changed" in fleet.apply("1.0").out
