"""A driver's services around an outage: the real program, a systemctl of files."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fleetdrv import parse
from tests.sim.job import Step, probe
from tests.sim.node import SimNode
from tests.sim.toy import LOAD, UNLOAD, Toy

pytestmark = pytest.mark.timeout(120)

UNITS = ("toy-one.service", "toy-two.service")


def stop(*units: str, seconds: int = 20) -> Step:
    return ("stop", "services.sh", "stop", str(seconds), "toy", *(units or tuple(reversed(UNITS))))


def start(*units: str) -> Step:
    return ("start", "services.sh", "start", "20", "toy", *(units or UNITS))


@pytest.fixture
def driver(node: SimNode, archives: Mapping[str, bytes]) -> Toy:
    """Both units run."""
    (node.folder / "units").mkdir()
    for unit in UNITS:
        state(node, unit, "active")
    return Toy(node, archives)


def state(node: SimNode, unit: str, to: str = "") -> str:
    path = node.folder / "units" / unit
    if to:
        path.write_text(f"{to}\n")
    return path.read_text().strip()


def said(node: SimNode) -> list[str]:
    path = node.folder / "units/said"
    return path.read_text().splitlines() if path.exists() else []


def owed(node: SimNode) -> set[str]:
    return {unit for _, unit in parse.facts(probe(node, "driver", "toy")).stopped}


def test_what_runs_is_stopped_last_first_and_started_again_in_order(driver: Toy) -> None:
    followed = driver.do(stop(), start())
    assert followed.ending == "exit 0", followed.text
    assert said(driver.node) == [
        f"{verb} {unit}"
        for verb, unit in zip(("stop", "stop", "start", "start"), (*reversed(UNITS), *UNITS), strict=True)
    ]
    assert owed(driver.node) == set()
    assert not (driver.node.state / "services/toy").exists()


def test_what_did_not_run_before_stays_stopped(driver: Toy) -> None:
    state(driver.node, UNITS[0], "inactive")
    followed = driver.do(stop(), start())
    assert f"{UNITS[0]} is inactive: left as it is\n" in followed.text
    assert said(driver.node) == [f"stop {UNITS[1]}", f"start {UNITS[1]}"]
    assert state(driver.node, UNITS[0]) == "inactive"


def test_a_job_that_ends_in_between_leaves_a_debt_that_the_next_one_pays(driver: Toy) -> None:
    assert driver.do(stop(), ("fails", "unload.sh")).ending == "exit 64 fails"
    assert owed(driver.node) == set(UNITS)
    assert driver.do(stop(), start()).ending == "exit 0", "stopping again forgets nothing"
    assert [state(driver.node, unit) for unit in UNITS] == ["active", "active"]
    assert owed(driver.node) == set()
    assert driver.do(start()).text == "== start\n"


def test_a_node_that_dies_in_between_remembers(driver: Toy) -> None:
    driver.do(stop())
    driver.node.reboot()
    assert owed(driver.node) == set(UNITS)


def test_a_unit_that_is_no_longer_named_is_neither_started_nor_remembered(driver: Toy) -> None:
    driver.do(stop())
    assert driver.do(start(UNITS[1])).ending == "exit 0"
    assert (state(driver.node, UNITS[0]), owed(driver.node)) == ("inactive", set())


def test_a_unit_that_does_not_stop_is_named_and_the_others_run_again(driver: Toy) -> None:
    (driver.node.folder / "units" / f"{UNITS[0]}.hangs").touch()
    followed = driver.do(stop(seconds=1), UNLOAD)
    assert followed.ending == "exit 83 stop"
    assert followed.text.splitlines()[-1] == (
        f"{UNITS[0]} did not stop within 1 s: it is deactivating (systemctl stop: exit 124)"
    )
    assert said(driver.node)[-2:] == [f"start {UNITS[0]}", f"start {UNITS[1]}"]
    assert [state(driver.node, unit) for unit in UNITS] == ["active", "active"]
    assert owed(driver.node) == set()


def test_a_unit_that_systemd_had_to_end_by_force_counts_as_one_that_does_not_stop(driver: Toy) -> None:
    (driver.node.folder / "units" / f"{UNITS[1]}.killed").touch()
    followed = driver.do(stop())
    assert followed.ending == "exit 83 stop"
    assert "did not stop within its own TimeoutStopSec" in followed.text.splitlines()[-1]


def test_units_that_would_be_taken_along_are_named_and_nothing_is_stopped(driver: Toy) -> None:
    (driver.node.folder / "units" / f"{UNITS[1]}.needs-it").write_text("other.service multi-user.target\n")
    state(driver.node, "multi-user.target", "active")
    assert driver.do(stop(), start()).ending == "exit 0", "the other does not run"
    state(driver.node, "other.service", "active")
    before = said(driver.node)
    followed = driver.do(stop())
    assert followed.ending == "exit 83 stop"
    assert followed.text.splitlines()[-1] == (
        f"{UNITS[1]}: other.service would stop with it; list other.service after {UNITS[1]} in the playbook, "
        "or stop it first"
    )
    assert said(driver.node) == before
    listed = (*UNITS, "other.service")
    assert driver.do(stop(*reversed(listed)), start(*listed)).ending == "exit 0"


def test_a_unit_that_does_not_stay_up_fails_by_name_and_stays_owed(driver: Toy) -> None:
    driver.do(stop())
    (driver.node.folder / "units" / f"{UNITS[0]}.fails").touch()
    followed = driver.do(start())
    assert followed.ending == "exit 84 start"
    assert followed.text.splitlines()[-1] == (
        f"of toy do not run: {UNITS[0]} (failed, exit-code); on the node: journalctl -n 50 -u {UNITS[0]}"
    )
    assert (state(driver.node, UNITS[1]), owed(driver.node)) == ("active", {UNITS[0]})


def test_a_module_that_somebody_else_uses_has_the_services_run_again(driver: Toy) -> None:
    driver.bring_to("1.0")
    (driver.node.folder / "busy/fleetdrv_toy").touch()
    followed = driver.do(stop(), UNLOAD, LOAD, start())
    assert followed.ending == "exit 75 unload"
    assert followed.text.splitlines()[-1].startswith("fleetdrv_toy is in use")
    assert [state(driver.node, unit) for unit in UNITS] == ["active", "active"]
    assert owed(driver.node) == set()


@pytest.mark.parametrize(
    "words", ["stop 5 toy", "stop 5 toy -x", "stop 5 ../toy a.service", "halt 5 toy a.service", ""]
)
def test_other_words_are_refused(driver: Toy, words: str) -> None:
    assert driver.do(("x", "services.sh", *words.split())).ending == "exit 64 x"


def test_without_systemd_it_says_so(driver: Toy) -> None:
    (driver.node.folder / "bin/systemctl").unlink()
    (driver.node.folder / "bin/systemctl").symlink_to("/nowhere")
    driver.node.call("mount --bind /dev/null $(command -v systemctl)")
    assert driver.do(stop()).ending == "exit 69 stop"
