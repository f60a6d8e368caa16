"""A survey of many nodes: what was seen of each, and what all of them together say."""

from __future__ import annotations

import gc
import os
import signal
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fleetdrv import names, recap
from fleetdrv.crew import Crew
from fleetdrv.effects import Effects
from fleetdrv.errors import Unreachable
from fleetdrv.load import Loaded
from fleetdrv.model import Host
from fleetdrv.ownership import Object
from fleetdrv.records import Cordon
from fleetdrv.rollout import Progress, admit
from fleetdrv.slots import Member, Stand
from fleetdrv.turn import Debt, Owed
from tests.core.factories import a_playbook, a_policy
from tests.core.test_apt import PIN, a_packaged, lists_of


@dataclass
class Driven:
    """A node's driver, as far as a survey uses it."""

    view: object = None
    away: bool = False

    def look(self, run: str) -> Owed:
        if self.away:
            raise Unreachable("n1", "connect", "timed out")
        self.view = SimpleNamespace(facts=lists_of("1.1"))
        return Owed(debt=Debt.STAGE, why=run)

    def judge_again(self, run: str) -> Owed:
        return Owed(debt=Debt.OUTAGE, why=run)


def test_a_node_that_answered_before_and_does_not_now_is_not_judged_by_what_it_said_then() -> None:
    playbook = a_playbook(a_packaged("1.*"))
    here, away = Driven(), Driven()
    crew = Crew(
        loaded=Loaded(playbook, Path("x.yaml"), {}),
        pool_hosts=(),
        drivers={"n1": away, "n2": here},  # type: ignore[dict-item]
        cluster=None,
        effects=Effects(),
        say=lambda _: None,
    )
    assert {name: came.debt for name, came in crew.survey("r1").items()} == {"n1": Debt.OUTAGE, "n2": Debt.OUTAGE}
    assert crew.versions.pins[PIN].startswith("1.1 ")
    away.away = True
    seen = crew.survey("r2")
    assert isinstance(seen["n1"], Unreachable)
    assert seen["n2"] == Owed(debt=Debt.OUTAGE, why="r2")


def a_node(name: str, *, out: bool = False, pool: str = "") -> Object:
    marks: dict[str, Any] = {}
    if pool:
        cordon = Cordon(run="r0", pool=pool, holder="h", reason="", since="")
        marks = {"annotations": {names.CORDON: cordon.to_json()}}
    conditions = [{"type": "Ready", "status": "True"}]
    return {
        "metadata": {"name": name, **marks},
        "spec": {"unschedulable": True} if out else {},
        "status": {"conditions": conditions},
    }


def test_what_we_left_out_beside_the_selection_is_no_outage_of_others() -> None:
    """`apply --limit n1` left n1 out; `--limit n2` must not take it for somebody else's, which may be ignored."""
    playbook = a_playbook(a_packaged("1.*"))
    nodes = [a_node("n1", out=True, pool=playbook.pool_name), a_node("n2"), a_node("n3", out=True)]
    crew = Crew(
        loaded=Loaded(playbook, Path("x.yaml"), {}),
        pool_hosts=tuple(Host(name=n, node_name=n) for n in ("n1", "n2", "n3")),
        drivers={"n2": SimpleNamespace(service=SimpleNamespace(node="n2"))},  # type: ignore[dict-item]
        cluster=SimpleNamespace(nodes=lambda: nodes),  # type: ignore[arg-type]
        effects=Effects(),
        say=lambda _: None,
    )
    pool, _ = crew.pool()
    assert (pool.size, pool.ours_out, pool.foreign_out) == (3, 1, 1)
    policy = a_policy(foreign_outages="ignore")
    admission = admit({"n2": Member(stand=Stand.STAGED)}, pool, policy, Progress(canary_passed=True))
    assert (admission.outage, admission.waiting_for) == ((), "a slot: 1 of 1 out of service")


def test_a_left_over_is_named_though_its_host_left_the_inventory() -> None:
    """It is out for this pool; that of another pool is for who drives that one."""
    playbook = a_playbook()
    ours = [a_node(name, out=True, pool=playbook.pool_name) for name in ("n1", "n9")]
    crew = Crew(
        loaded=Loaded(playbook, Path("x.yaml"), {}),
        pool_hosts=(Host(name="h1", node_name="n1"), Host(name="h2", node_name="n2")),
        drivers={},
        cluster=SimpleNamespace(nodes=lambda _: [*ours, a_node("n8", out=True, pool="x")]),  # type: ignore[arg-type]
        effects=Effects(),
        say=lambda _: None,
    )
    assert crew.left_out() == ["n1", "n9"]
    assert recap._unlisted(crew, crew.left_out()).startswith("not in the inventory any more: n9; see: fleetdrv ")
    assert recap._unlisted(crew, ["n1"]) == ""


def test_a_ctrl_c_during_the_survey_does_not_wait_for_all_that_were_not_asked_yet() -> None:
    """Thousands of dead addresses take minutes; whoever pressed Ctrl-C wants his terminal back."""
    asked: list[str] = []
    number = count(1)

    def look(run: str) -> Owed:
        asked.append(run)
        if next(number) == 100:  # all are waiting in the queue by now
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        return Owed(debt=Debt.NOTHING)

    drivers = {f"n{n}": SimpleNamespace(look=look, view=None) for n in range(64 * 20)}
    gc.disable()  # an interrupt that meets a callback of the collector (Hypothesis has one) is swallowed there
    try:
        with pytest.raises(KeyboardInterrupt):
            Crew.survey(SimpleNamespace(drivers=drivers), "r1")  # type: ignore[arg-type]
    finally:
        gc.enable()
    time.sleep(1.5)
    assert len(asked) < 64 * 5
