"""A survey of many nodes: what was seen of each, and what all of them together say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from fleetdrv.crew import Crew
from fleetdrv.effects import Effects
from fleetdrv.errors import Unreachable
from fleetdrv.load import Loaded
from fleetdrv.turn import Debt, Owed
from tests.core.factories import a_playbook
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
