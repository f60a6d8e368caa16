"""A node's turn as Events: few, once each, and never in the way. On the real API and on the fake alike."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from fleetdrv import names
from fleetdrv.announce import AnnouncedNode, Herald
from fleetdrv.attempts import Counting
from fleetdrv.errors import ClusterError, NotOurs
from fleetdrv.events import Event, Level
from fleetdrv.playbook import Drain
from fleetdrv.records import Result
from fleetdrv.wire import event_body
from tests.fixtures_cluster import FakeWorld, World

RESULT = Result(run="r1", digest="d", verdict="changed", finding="", at="2026-11-23T05:00:30Z")


@dataclass
class Stage:
    """A node, and a controller that may be followed by another."""

    world: World
    name: str = ""
    clock: str = "2026-11-23T05:00:00Z"
    said: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.world.node()

    def controller(self) -> AnnouncedNode:
        """Return a fresh one: what it knows is on the Node."""
        return AnnouncedNode(
            herald=Herald(self.world.cluster, self.said.append),
            cluster=self.world.cluster,
            node=self.name,
            pool="gpu",
            holder="op@laptop",
            policy=Drain(),
            clock=lambda: self.clock,
            counting=Counting(digest="d"),
            drivers=("toy",),
        )

    def events(self) -> list[tuple[str, str, str]]:
        """Return kind, reason and message of ours, in no order."""
        ours = [e for e in self.world.events(self.name) if e["source"]["component"] == names.FIELD_MANAGER]
        return sorted((e["type"], e["reason"], e["message"]) for e in ours)

    def label(self) -> str | None:
        """Return what schedulers see of the driver."""
        labels: dict[str, str] = self.world.cluster.node(self.name)["metadata"]["labels"]
        return labels.get("fleetdrv.io/driver.toy")


def test_a_turn_is_three_events_however_often_its_controller_was_killed(world: World) -> None:
    stage = Stage(world)
    for _ in range(2):
        stage.controller().take_out("r1", "toy: loaded not as wanted")
    for _ in range(2):
        stage.controller().mark_touched("r1", "r1.outage.1")
    stage.clock = RESULT.at
    controller = stage.controller()
    for _ in range(2):  # the second finds its work done, as after an answer that was lost
        controller.give_back("r1", RESULT, {"toy": "1.1"})
    assert stage.events() == [
        ("Normal", "DriverCordoned", "toy: loaded not as wanted (run r1)"),
        ("Normal", "DriverInstalled", "toy 1.1 (run r1)"),
        ("Normal", "DriverUncordoned", "back in service after 30 s (run r1)"),
    ]
    assert stage.said == []


def test_a_node_that_stays_out_is_told_once_and_what_a_later_run_makes_of_it_too(world: World) -> None:
    stage = Stage(world)
    failed = replace(RESULT, verdict="failed, left out of service", finding="load: exit 74")
    stage.controller().take_out("r1", "why")
    for _ in range(2):
        stage.controller().leave_out("r1", failed)
    stage.controller().adopt("r2")
    stage.clock = "2026-11-23T06:00:00Z"
    rolled_back = replace(RESULT, run="r2", verdict="failed, rolled back", finding="back, verified")
    stage.controller().give_back("r2", rolled_back, {"toy": "1.0"})
    assert stage.events() == [
        ("Normal", "DriverCordoned", "why (run r1)"),
        ("Normal", "DriverUncordoned", "back in service after 3600 s (run r2)"),
        ("Warning", "DriverFailed", "load: exit 74 (run r1)"),
        ("Warning", "DriverRolledBack", "toy 1.0: back, verified (run r2)"),
    ]


def test_a_node_that_others_took_over_is_let_go_and_told(world: World) -> None:
    stage = Stage(world)
    stage.controller().take_out("r1", "why")
    world.cordon(stage.name, lift=True)
    with pytest.raises(NotOurs):
        stage.controller().give_back("r1", RESULT, {})
    stage.controller().let_go(replace(RESULT, verdict="failed, taken over by somebody else", finding="lifted"))
    assert ("Warning", "DriverReleased", "lifted (run r1)") in stage.events()
    assert not [event for event in stage.events() if event[1] == "DriverUncordoned"]


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        ("blocked", "DriverBlocked"),
        ("incompatible", "DriverIncompatible"),
        ("not mendable here", "DriverNotMendable"),
        ("unreachable", "DriverNodeUnreachable"),
        ("failed", "DriverFailed"),
    ],
)
def test_what_cron_finds_each_time_is_told_when_it_is_new(world: World, verdict: str, reason: str) -> None:
    stage = Stage(world)
    for period in range(3):
        stage.controller().note(replace(RESULT, verdict=verdict, finding="why", run=f"r{min(period, 1)}"))
    told = stage.events()
    assert set(told) <= {("Warning", reason, f"why (run r{n})") for n in (0, 1)}
    assert len(told) == (2 if verdict == "failed" else 1), "each failure is another one"


def test_without_the_right_to_create_events_it_is_said_once_and_all_else_goes_on(fake_world: FakeWorld) -> None:
    fake_world.fake.deaf = True
    stage = Stage(fake_world)
    controller = stage.controller()
    controller.take_out("r1", "why")
    writes = fake_world.effects.api_writes
    controller.give_back("r1", RESULT, {"toy": "1.1"})
    assert stage.label() == "1.1"
    assert [(event.level, event.phase) for event in stage.said] == [(Level.WARNING, "events")]
    assert "docs/clusterrole.yaml" in stage.said[0].text
    assert fake_world.effects.api_writes == writes + 2, "the taint and the uncordon; no Event is tried again"


@pytest.mark.parametrize("fate", ["before", "after"])
def test_an_event_that_is_lost_harms_nothing(fake_world: FakeWorld, fate: str) -> None:
    fake_world.fake.fault = lambda _target, what: fate if what == "POST Event" else ""
    stage = Stage(fake_world)
    stage.controller().take_out("r1", "why")
    controller = stage.controller()
    controller.give_back("r1", RESULT, {"toy": "1.1"})
    assert stage.label() == "1.1"
    assert [event.text.split(":")[0] for event in stage.said] == ["Events on Nodes are not written"] * 2
    assert len(stage.events()) == (3 if fate == "after" else 0)


def test_a_label_says_what_was_verified_and_nothing_while_it_is_not(world: World) -> None:
    stage = Stage(world)
    world.patch_node(stage.name, {"metadata": {"labels": {"fleetdrv.io/driver.other": "2"}}}, "fleetdrv")

    def turn(drivers: dict[str, str], touched: bool = True) -> list[str | None]:
        controller = stage.controller()
        controller.take_out("r1", "why")
        seen = [stage.label()]
        if touched:
            controller.mark_touched("r1", "r1.outage.1")
            controller.mark_touched("r1", "r1.rollback.1")
        seen.append(stage.label())
        controller.give_back("r1", RESULT, drivers)
        return [*seen, stage.label()]

    assert turn({"toy": "1:535.309.01-1~deb12u1"}) == [None, None, "1_535.309.01-1_deb12u1"]
    former = "1_535.309.01-1_deb12u1"
    assert turn({}, touched=False) == [former] * 3, "untouched is as it was verified"
    assert turn({"toy": "1.2"}) == [former, None, "1.2"]
    assert turn({}) == ["1.2", None, None], "touched and not verified again"
    assert world.cluster.node(stage.name)["metadata"]["labels"]["fleetdrv.io/driver.other"] == "2"


def test_an_api_that_refuses_an_event_is_no_error_of_the_act(fake_world: FakeWorld) -> None:
    class Broken:
        def record_event(self, *_: object, **__: object) -> None:
            raise ClusterError("HTTP 422")

    stage = Stage(fake_world)
    controller = replace(stage.controller(), herald=Herald(Broken(), stage.said.append))  # type: ignore[arg-type]
    controller.take_out("r1", "why")
    controller.leave_out("r1", replace(RESULT, verdict="failed", finding="f"))
    assert len(stage.said) == 1


def test_a_run_that_takes_an_outage_over_does_not_tell_its_cordon_again(world: World) -> None:
    stage = Stage(world)
    stage.controller().take_out("r1", "toy: built not as wanted")
    stage.clock = "2026-11-23T06:00:00Z"
    stage.controller().take_out("r2", "toy: loaded not as wanted")
    assert stage.events() == [("Normal", "DriverCordoned", "toy: built not as wanted (run r1)")]


def test_a_node_that_is_taken_out_again_in_the_same_run_is_told_again(world: World) -> None:
    stage = Stage(world)
    for at in ("2026-11-23T05:00:00Z", "2026-11-23T06:00:00Z"):
        stage.clock = at
        stage.controller().take_out("r1", "why")
        stage.controller().give_back("r1", replace(RESULT, verdict="skipped"), {})
    assert [reason for _, reason, _ in stage.events()] == ["DriverCordoned"] * 2 + ["DriverUncordoned"] * 2


@pytest.mark.parametrize("length", [1, 63, 235, 236, 237, 253])
def test_an_events_name_is_a_dns_subdomain_however_long_its_nodes_is(length: int) -> None:
    part = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    for filling in ("n", "n-", "n."):
        node = (filling * length)[: length - 1] + "n"
        event = event_body(node, "R", "m", key="k", warning=False, now=datetime.now(UTC))
        name = event["metadata"]["name"]
        assert len(name) <= 253
        assert re.fullmatch(rf"{part}(\.{part})*", name), name
