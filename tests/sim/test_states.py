"""Two states of a driver are kept on a node: the one verified last, and the former one of another wanted state."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fleetdrv.parse import facts
from tests.sim.job import launch_command, probe
from tests.sim.node import SimNode
from tests.sim.test_kills import calls, count_calls
from tests.sim.toy import LOAD, RESTORE, UNLOAD, Toy, keep_step

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def driver(node: SimNode, archives: Mapping[str, bytes]) -> Toy:
    return Toy(node, archives)


def kept(node: SimNode) -> tuple[str, str]:
    """Return the digests of the two states, as the controller sees them."""
    seen = facts(probe(node, "driver", "toy"))
    states = [states.get("toy") for states in (seen.good, seen.former)]
    for state in states:
        assert state is None or state.wanted == f'{{"version": "{state.digest.removeprefix("digest-")}"}}'
    one, two = (state.digest.removeprefix("digest-") if state else "" for state in states)
    return one, two


def folders(node: SimNode) -> int:
    return int(node.call("ls -d /var/lib/fleetdrv/good/toy/v.* | wc -l"))


def back_to(driver: Toy, version: str) -> None:
    followed = driver.do(UNLOAD, (*RESTORE, "-", f"digest-{version}"), LOAD)
    assert followed.ending == "exit 0", followed.text


def test_the_former_state_stays_and_becomes_the_current_one_by_a_rollback(driver: Toy) -> None:
    node = driver.node
    driver.bring_to("1.0")
    assert (kept(node), folders(node)) == (("1.0", ""), 1)
    first = node.end_state()
    driver.bring_to("1.1")
    assert (kept(node), folders(node)) == (("1.1", "1.0"), 2)
    second = node.end_state()

    before = len(node.compiled())
    back_to(driver, "1.0")
    assert node.call("cat /sys/class/misc/fleetdrv_toy/code") == "1.0\n"
    assert driver.keep("1.0").ending == "exit 0"
    assert (kept(node), folders(node)) == (("1.0", "1.1"), 2)
    assert {**node.end_state(), "good": None} == {**first, "good": None}

    back_to(driver, "1.1")
    assert driver.keep("1.1").ending == "exit 0"
    assert kept(node) == ("1.1", "1.0")
    assert node.end_state() == second
    assert len(node.compiled()) == before, "nothing is compiled on the way back"


def test_the_same_wanted_state_kept_anew_leaves_the_former_one(driver: Toy) -> None:
    node = driver.node
    driver.bring_to("1.0")
    driver.bring_to("1.1")
    node.call("echo '# by hand' >>/etc/modprobe.d/fleetdrv-toy.conf")
    followed = driver.keep("1.1")
    assert "is kept as last known good" in followed.text
    assert (kept(node), folders(node)) == (("1.1", "1.0"), 2)


def test_a_state_that_is_not_kept_is_named(driver: Toy) -> None:
    driver.bring_to("1.0")
    followed = driver.do((*RESTORE, "-", "digest-1.1"))
    assert followed.ending == "exit 72 restore"
    assert followed.text.endswith("toy: no last known good with digest digest-1.1 on this node\n")


def test_keeping_killed_anywhere_leaves_both_states_of_before_or_both_of_after(driver: Toy) -> None:
    node = driver.node
    driver.bring_to("1.0")
    driver.bring_to("1.1")
    back_to(driver, "1.0")
    node.call("cp -a /var/lib/fleetdrv/good /var/lib/fleetdrv/saved")
    packed = driver.job(keep_step(node, "1.0"), version="1.0")
    count_calls(node)
    assert driver.keep("1.0").ending == "exit 0"
    wanted, seen = node.end_state(), set()
    for deadly in range(1, calls(node) + 1):
        count_calls(node)
        node.call("rm -rf /var/lib/fleetdrv/good && cp -a /var/lib/fleetdrv/saved /var/lib/fleetdrv/good")
        count_calls(node, deadly)
        with node.run(launch_command(f"killed-{deadly}"), packed) as process:
            process.communicate(timeout=60)
        assert calls(node) == deadly or len(seen) == 2, "not killed, though much was left to do"
        count_calls(node)
        state = kept(node)
        assert state in (("1.1", "1.0"), ("1.0", "1.1")), deadly
        seen.add(state)
        assert driver.keep("1.0").ending == "exit 0"
        assert (kept(node), folders(node)) == (("1.0", "1.1"), 2)
        assert node.end_state() == wanted
    assert len(seen) == 2, "killed before and after"
