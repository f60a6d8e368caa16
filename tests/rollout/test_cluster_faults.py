"""Faults of the cluster in the middle of an outage: end state, message, and the next command to type.

CI tries a fixed part of them, `python -m tests.rollout` all.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fleetdrv import names
from fleetdrv.api import Api
from tests.fixtures_cluster import eventually
from tests.rollout.api_proxy import Refusal
from tests.rollout.points import Moment, Point
from tests.rollout.rivals import short_lived
from tests.rollout.sim_fleet import Ended, SimFleet

pytestmark = pytest.mark.timeout(1500)
WHOLE = os.environ.get("FLEETDRV_RELIABILITY") == "whole"
PATIENT = short_lived(3600)
"""With a Lease that outlasts any fault here, on a machine however slow."""
HASTY = short_lived(6, 3)
"""With one that does not."""


@pytest.fixture
def size() -> int:
    """How many nodes."""
    return 1


@pytest.fixture
def fleet(
    tmp_path: Path, least_privilege: Path, admin_api: Api, builds: Path, size: int
) -> Iterator[SimFleet]:
    """Nodes with 1.0, and what goes amiss begins with the upgrade to 1.1."""
    made = SimFleet(tmp_path, least_privilege, admin_api, builds, size=size)
    made.apply("1.0")
    yield made
    made.api.come_back()
    made.close()


def upgrade(fleet: SimFleet, program: Sequence[str], version: str = "1.1") -> subprocess.Popen[bytes]:
    """Start the upgrade."""
    return fleet.start("apply", str(fleet.playbook(version)), "-i", str(fleet.inventory), "--yes", program=program)


def ended(process: subprocess.Popen[bytes]) -> Ended:
    """Wait for it."""
    with process:
        out, errors = process.communicate(timeout=900)
    return Ended(process.returncode, out.decode(), errors.decode())


def once(fleet: SimFleet, what: str, act: Callable[[], object]) -> None:
    """Do something as soon as an effect that says so arrives, before it is carried out."""
    done: list[Point] = []

    def arrived(point: Point) -> None:
        if re.search(what, point.what) and not done:
            done.append(point)
            act()

    fleet.points.on_arrival = arrived


def code(fleet: SimFleet, name: str) -> str:
    """Return the version that is loaded."""
    return fleet.nodes[name].call("cat /sys/class/misc/fleetdrv_toy/code").strip()


def has_ended(fleet: SimFleet, name: str, before: set[Path]) -> Callable[[], bool]:
    """Tell whether the outage's job is over on the node."""
    return lambda: any((mark.parent / "rc").exists() for mark in fleet.nodes[name].started("outage") - before)


def freeze(fleet: SimFleet) -> None:
    """Let the API take requests in and never answer."""
    fleet.api.answers.clear()


def vanish(fleet: SimFleet) -> None:
    """Let the API refuse connections."""
    fleet.api.vanish()


AWAY = {"frozen": freeze, "gone": vanish}


@pytest.mark.parametrize("away", AWAY if WHOLE else ["gone"])
def test_an_api_that_is_away_in_the_outage_is_waited_for(fleet: SimFleet, away: str) -> None:
    """For less than the Lease lasts: nothing but the time is lost."""
    (name,) = fleet.nodes
    before = fleet.nodes[name].started("outage")
    once(fleet, "launch outage", lambda: AWAY[away](fleet))
    process = upgrade(fleet, short_lived(3600, 3))
    eventually(has_ended(fleet, name, before), "the outage's job", 600)
    fleet.api.come_back()
    told = ended(process)
    assert told.code == 0, told
    assert f"{name}: changed" in told.out
    assert (code(fleet, name), fleet.node(name)["spec"].get("unschedulable")) == ("1.1", None)
    assert len(fleet.nodes[name].started("outage") - before) == 1, "nothing is sent twice"


@pytest.mark.parametrize("away", AWAY if WHOLE else [])
def test_an_api_that_is_away_for_longer_than_the_lease_ends_the_run(fleet: SimFleet, away: str) -> None:
    """The job on the node ends by itself; the node stays out, is listed, and comes back with the next command."""
    (name,) = fleet.nodes
    before = fleet.nodes[name].started("outage")
    once(fleet, "launch outage", lambda: AWAY[away](fleet))
    told = ended(upgrade(fleet, HASTY))
    assert told.code == 5, told
    assert "the lock could not be renewed for" in told.out
    assert f"left out of service by fleetdrv: {name}" in told.out
    assert f"next: the same command again; or: fleetdrv status {fleet.tag}" in told.out
    eventually(has_ended(fleet, name, before), "the outage's job", 600)
    assert (code(fleet, name), fleet.node(name)["spec"].get("unschedulable")) == ("1.1", True)
    fleet.api.come_back()
    again = fleet.apply("1.1")
    assert (code(fleet, name), fleet.node(name)["spec"].get("unschedulable")) == ("1.1", None), again
    assert len(fleet.nodes[name].started("outage") - before) == 1, "nothing is sent twice"


STORMS = {
    "conflicts": Refusal(409, "the object has been modified; please apply your changes to the latest version"),
    "throttling": Refusal(429, "too many requests, please try again later", retry_after_seconds=1),
}


@pytest.mark.parametrize("storm", STORMS if WHOLE else ["conflicts"])
def test_a_storm_of_refusals_is_ridden_out(fleet: SimFleet, storm: str) -> None:
    """Each write is refused twice before it is taken, and so is each read where the API throttles."""
    refused: dict[tuple[str, str], int] = {}

    def refuse(method: str, path: str) -> Refusal | None:
        what = (method, path)
        if method == "GET" and storm == "conflicts":
            return None
        refused[what] = refused.get(what, 0) + 1
        return STORMS[storm] if refused[what] % 3 else None

    fleet.api.refusal = refuse
    (name,) = fleet.nodes
    before = fleet.nodes[name].started("outage")
    told = ended(upgrade(fleet, PATIENT))
    assert told.code == 0, told
    assert any(method == "PATCH" for method, _ in refused)
    assert (code(fleet, name), fleet.node(name)["spec"].get("unschedulable")) == ("1.1", None)
    assert len(fleet.nodes[name].started("outage") - before) == 1, "nothing is sent twice"


@pytest.mark.parametrize("storm", STORMS if WHOLE else [])
def test_a_storm_that_does_not_end_leaves_the_node_as_it_was(fleet: SimFleet, storm: str) -> None:
    """The Node can never be written: it is not taken out, nothing is sent to it, and the cause is named."""
    (name,) = fleet.nodes
    before = fleet.nodes[name].started("outage")
    cordons = ("PATCH", f"/api/v1/nodes/{name}")
    fleet.api.refusal = lambda method, path: STORMS[storm] if (method, path.partition("?")[0]) == cordons else None
    told = ended(upgrade(fleet, HASTY if storm == "throttling" else PATIENT))
    assert told.code in (4, 5), told
    assert STORMS[storm].message in told.out
    assert "next: the same command again; or: fleetdrv status" in told.out
    assert (code(fleet, name), fleet.node(name)["spec"].get("unschedulable")) == ("1.0", None)
    assert fleet.nodes[name].started("outage") == before
    fleet.api.come_back()
    fleet.apply("1.1")
    assert (code(fleet, name), fleet.node(name)["spec"].get("unschedulable")) == ("1.1", None)


@pytest.mark.parametrize("size", [2] if WHOLE else [])
def test_credentials_that_expire_under_way(fleet: SimFleet) -> None:
    """The node in hand finishes on its own, stays out and is listed; no other one starts."""
    first, second = fleet.nodes
    before = fleet.nodes[first].started("outage")
    expired = Refusal(401, "Unauthorized")
    once(fleet, "launch outage", lambda: setattr(fleet.api, "refusal", lambda *_: expired))
    told = ended(upgrade(fleet, PATIENT))
    assert told.code in (4, 5), told
    assert "have the credentials expired" in told.out
    assert f"left out of service by fleetdrv: {first}" in told.out
    assert f"next: the same command again; or: fleetdrv status {fleet.tag}" in told.out
    eventually(has_ended(fleet, first, before), "the outage's job", 600)
    assert (code(fleet, first), code(fleet, second)) == ("1.1", "1.0")
    assert [bool(fleet.node(name)["spec"].get("unschedulable")) for name in fleet.nodes] == [True, False]
    refused = fleet.apply("1.1", code=3)
    assert "have the credentials expired" in refused.errors
    fleet.api.come_back()
    fleet.apply("1.1")
    assert len(fleet.nodes[first].started("outage") - before) == 1, "nothing is sent twice"
    for name in fleet.nodes:
        assert (code(fleet, name), fleet.node(name)["spec"].get("unschedulable")) == ("1.1", None)


MOMENTS = {
    "before the drain": "POST .*/eviction",
    "in the outage": "launch outage",
    "before the uncordon": "launch keep",
}


Hand = Callable[[SimFleet, str], object]


def cordon(fleet: SimFleet, name: str) -> None:
    fleet.patch(name, {"spec": {"unschedulable": True}})


def uncordon(fleet: SimFleet, name: str) -> None:
    fleet.patch(name, {"spec": {"unschedulable": None}}, manager="kubectl-uncordon")


def both(fleet: SimFleet, name: str) -> None:
    uncordon(fleet, name)
    cordon(fleet, name)


TAKEN: dict[str, tuple[Hand, Any]] = {"uncordons": (uncordon, None), "uncordons and cordons": (both, True)}
PAIRS = [(hand, moment) for hand in TAKEN for moment in MOMENTS]


@pytest.mark.parametrize(("hand", "moment"), PAIRS if WHOLE else PAIRS[:1])
def test_a_colleague_takes_the_node_while_it_is_in_hand(fleet: SimFleet, hand: str, moment: str) -> None:
    """It is theirs from then on: no further step, our marks go, their cordon or its absence stays."""
    (name,) = fleet.nodes
    before = fleet.nodes[name].started("outage")
    act, left = TAKEN[hand]
    once(fleet, MOMENTS[moment], lambda: act(fleet, name))
    told = ended(upgrade(fleet, PATIENT))
    assert told.code == 4, told
    assert f"{name}: failed, taken over by somebody else" in told.out
    assert "the cordon was lifted or set anew by somebody else" in told.out
    assert f"next: fleetdrv plan {fleet.folder}/toy-1.1.yaml" in told.out
    node = fleet.node(name)
    assert node["spec"].get("unschedulable") is left
    assert names.CORDON not in node["metadata"]["annotations"]
    assert names.RUN_LABEL not in node["metadata"]["labels"]
    assert not [taint for taint in node["spec"].get("taints", []) if taint["key"] == names.MAINTENANCE_TAINT]
    untouched = moment == "before the drain"
    assert (fleet.nodes[name].started("outage") == before) == untouched
    assert code(fleet, name) == ("1.0" if untouched else "1.1")
    uncordon(fleet, name)
    fleet.apply("1.1")
    assert (code(fleet, name), fleet.node(name)["spec"].get("unschedulable")) == ("1.1", None)


@pytest.mark.parametrize("moment", MOMENTS if WHOLE else [])
def test_a_colleagues_cordon_beside_ours_changes_nothing(fleet: SimFleet, moment: str) -> None:
    """`kubectl cordon` finds the node cordoned and writes nothing: nobody can tell, and it goes back as it was."""
    (name,) = fleet.nodes
    once(fleet, MOMENTS[moment], lambda: cordon(fleet, name))
    told = ended(upgrade(fleet, PATIENT))
    assert told.code == 0, told
    assert (code(fleet, name), fleet.node(name)["spec"].get("unschedulable")) == ("1.1", None)


DELETED = {
    "before the drain": ("nothing was changed", "1.0"),
    "in the outage": ("its job ended, and the machine has what was wanted, verified", "1.1"),
    "before the uncordon": ("its job ended, and the machine has what was wanted, verified", "1.1"),
}


@pytest.mark.parametrize("size", [2])
@pytest.mark.parametrize("moment", DELETED if WHOLE else ["in the outage"])
def test_a_node_that_is_deleted_under_way_is_told_and_the_others_go_on(fleet: SimFleet, moment: str) -> None:
    """Its job runs to the end, its slot is free, no budget is spent; registered again, it serves as any other."""
    first, second = fleet.nodes
    once(fleet, MOMENTS[moment], lambda: fleet.delete_node(first))
    told = ended(upgrade(fleet, PATIENT))
    what, version = DELETED[moment]
    why = f"{first}: gone from the cluster: its Node was deleted from the cluster under way; {what}"
    assert (told.code, why in told.out, f"{second}: changed" in told.out) == (4, True, True), told
    again = f"fleetdrv plan {fleet.folder}/toy-1.1.yaml"
    assert f"next: kubectl get node {first}; once its kubelet has registered it again: {again}" in told.out
    assert "left out of service" not in told.out
    assert (code(fleet, first), code(fleet, second)) == (version, "1.1")
    refused = fleet.apply("1.1", code=4)
    assert f"{first}: refused: {first}: no such Node in this cluster" in refused.out
    fleet.make_node(first)
    assert not fleet.apply("1.1").errors.count("Traceback")
    assert (code(fleet, first), fleet.node(first)["spec"].get("unschedulable")) == ("1.1", None)


@pytest.mark.parametrize("moment", DELETED if WHOLE else [])
def test_a_node_that_is_deleted_and_registered_anew_under_way_is_looked_at_afresh(
    fleet: SimFleet, moment: str
) -> None:
    """Nothing of it is taken for ours; whatever is done from then on is done under a cordon of its own."""
    (name,) = fleet.nodes
    before, keeps = fleet.nodes[name].started("outage"), fleet.nodes[name].started("keep")
    uid = fleet.node(name)["metadata"]["uid"]

    def anew() -> None:
        fleet.delete_node(name)
        fleet.make_node(name)

    once(fleet, MOMENTS[moment], anew)
    told = ended(upgrade(fleet, PATIENT))
    assert (told.code, f"{name}: changed" in told.out) == (0, True), told
    assert ("its Node was deleted and registered anew under way" in told.out) == (moment == "in the outage")
    node = fleet.node(name)
    assert node["metadata"]["uid"] != uid
    assert (code(fleet, name), node["spec"].get("unschedulable")) == ("1.1", None)
    assert names.CORDON not in (node["metadata"].get("annotations") or {})
    assert names.RUN_LABEL not in node["metadata"]["labels"]
    assert len(fleet.nodes[name].started("outage") - before) == 1, "nothing is sent twice"
    assert fleet.nodes[name].started("keep") - keeps, "what is verified is the last known good"
    fleet.points.arm(-1, Moment.BEFORE)
    fleet.apply("1.1")
    assert fleet.writes() == []


@pytest.mark.parametrize("comes_back", [False, True] if WHOLE else [])
def test_a_change_that_fails_on_a_node_that_is_deleted_under_way(fleet: SimFleet, comes_back: bool) -> None:
    """Nothing is undone on a machine that is nobody's; on one that is registered anew, under a new cordon."""
    (name,) = fleet.nodes
    before = fleet.nodes[name].started("rollback")

    def away() -> None:
        fleet.delete_node(name)
        if comes_back:
            fleet.make_node(name)

    once(fleet, MOMENTS["in the outage"], away)
    told = ended(upgrade(fleet, PATIENT, "1.3"))
    assert told.code == 4, told
    assert bool(fleet.nodes[name].started("rollback") - before) == comes_back
    if comes_back:
        assert f"{name}: failed, rolled back" in told.out
        assert (code(fleet, name), fleet.node(name)["spec"].get("unschedulable")) == ("1.0", None)
    else:
        assert "its Node was deleted from the cluster under way; its job ended with exit " in told.out
        assert f"next: kubectl get node {name}; once its kubelet has registered it again: fleetdrv" in told.out
        fleet.make_node(name)
    fleet.apply("1.1")
    assert (code(fleet, name), fleet.node(name)["spec"].get("unschedulable")) == ("1.1", None)
