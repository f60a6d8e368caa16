"""What an error makes of a node's turn, and a survey of the nodes that it met."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fleetdrv import survey
from fleetdrv.crew import Crew
from fleetdrv.endings import of_error, stand_of, unseen
from fleetdrv.errors import ClusterError, LinkLost, NodeRefused, Permanent, Refused, Unreachable
from fleetdrv.records import RunRecord
from fleetdrv.slots import Stand
from fleetdrv.turn import Debt, Owed, Verdict

CONVERGED = Owed(debt=Debt.NOTHING, verdict=Verdict.CONVERGED)
SILENT = (Unreachable("n0", "dial", "no route"), LinkLost("n0", "probe", "reset by peer"))


@pytest.mark.parametrize("error", SILENT)
def test_who_is_silent_before_any_touch_is_unreachable_and_later_failed(error: Exception) -> None:
    assert of_error("n0", error, early=True).verdict is Verdict.UNREACHABLE
    assert of_error("n0", error, early=False).verdict is Verdict.FAILED


UNSEEN = (
    Permanent("n0", "connect", "root@n0: the host's key changed"),
    Permanent("n0", "probe", "cannot be read"),
    ClusterError("GET /api/v1/nodes/n0: 500"),
)


@pytest.mark.parametrize("error", UNSEEN)
def test_who_cannot_be_looked_at_has_not_failed_a_change(error: Exception) -> None:
    assert of_error("n0", error, early=True).verdict is Verdict.UNSEEN
    assert stand_of(Verdict.UNSEEN) is Stand.UNREACHABLE
    assert of_error("n0", error, early=False).verdict is Verdict.FAILED
    assert unseen({"n0": error, "n1": CONVERGED, "n2": MISSING}) == ["n0"]
    assert of_error("n0", Permanent("n0", "stage", "job taken"), early=True).verdict is Verdict.FAILED


def test_a_refusal_of_one_node_is_no_failure_before_any_touch() -> None:
    error = NodeRefused("n0: no such Node")
    assert of_error("n0", error, early=True).verdict is Verdict.REFUSED
    assert of_error("n0", error, early=False).verdict is Verdict.FAILED
    assert of_error("n0", Refused("another cluster"), early=True).verdict is Verdict.FAILED
    assert stand_of(Verdict.REFUSED) is Stand.SETTLED


def test_an_error_keeps_its_words_and_its_own_remedy() -> None:
    error = Permanent("n0", "probe", "cannot be read", evidence="line 3", remedy="mend it")
    ending = of_error("n0", error, early=True, remedy="again")
    said = (ending.node, ending.verdict, ending.why, ending.evidence, ending.remedy)
    assert said == ("n0", Verdict.UNSEEN, "probe: cannot be read", "line 3", "mend it")
    assert of_error("n0", Permanent("n0", "probe", "x"), early=True, remedy="again").remedy == "again"
    assert of_error("n0", OSError("disk full"), early=True, remedy="again").why == "disk full"


@pytest.mark.parametrize("error", SILENT)
def test_where_nothing_is_due_a_silent_node_is_unreachable_all_the_same(error: Any) -> None:
    (ending,) = survey.nothing_to_do(a_crew(), {"n0": error}).endings
    assert ending.verdict is Verdict.UNREACHABLE


def test_a_canary_in_its_soak_is_something_to_do() -> None:
    record = RunRecord(id="r1", pool="gpu", playbook="toy", digest="d", soaking={"n0": "later"})
    assert survey.soaks({"n0": CONVERGED}, record, "r1")
    assert not survey.soaks({"n0": CONVERGED}, record, "r2")
    assert not survey.soaks({"n1": CONVERGED}, record, "r1")
    assert not survey.soaks({"n0": CONVERGED}, None, "r1")


def a_crew(**looks: Owed | Exception) -> Any:
    """Return as much of a crew as a survey needs; each driver finds or raises what it is told to."""

    def look(came: Owed | Exception) -> Owed:
        if isinstance(came, Exception):
            raise came
        return came

    drivers = {
        name: SimpleNamespace(look=lambda _, came=came: look(came), view=None) for name, came in looks.items()
    }
    return SimpleNamespace(drivers=drivers, _resolved=lambda *_: {})


MISSING = NodeRefused("n0: no such Node")
UNPROVEN = NodeRefused("n1: its Node object has no machineID")
SWAPPED = Refused("n1: the host reached over SSH is not this Node")


def test_one_rotten_node_does_not_stop_the_survey_of_the_others() -> None:
    assert Crew.survey(a_crew(n0=MISSING, n1=CONVERGED), "r1") == {"n0": MISSING, "n1": CONVERGED}
    assert Crew.survey(a_crew(n0=MISSING, n1=SILENT[0]), "r1")["n0"] is MISSING


@pytest.mark.parametrize("others", [{"n1": SWAPPED, "n2": CONVERGED}, {"n1": SWAPPED}, {"n1": UNPROVEN}, {}])
def test_a_machine_that_is_not_its_node_stops_all_and_so_does_a_pool_of_rotten_nodes(others: Any) -> None:
    with pytest.raises(Refused) as caught:
        Crew.survey(a_crew(n0=MISSING, **others), "r1")
    assert "no such Node" in str(caught.value)
    assert all(str(came) in str(caught.value) for came in others.values() if isinstance(came, Refused))
