"""A build that is gone, made again on the node from its own sources; and what the node says it keeps."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pytest

from fleetdrv.jobs import whole
from tests.sim.job import Step
from tests.sim.node import SimNode
from tests.sim.toy import Toy

pytestmark = pytest.mark.timeout(600)


def step(node: SimNode, version: str = "1.0") -> Step:
    return ("rebuild", "dkms_rebuild.sh", "toy", version, node.kernel)


def test_only_a_build_that_is_lost_is_made_again(node: SimNode, archives: Mapping[str, bytes]) -> None:
    driver = Toy(node, archives)
    driver.bring_to("1.0")
    sound, compiled = node.end_state(), len(node.compiled())
    assert "is installed for kernel" in driver.do(step(node)).text
    assert len(node.compiled()) == compiled
    node.call(f"rm -r /var/lib/dkms/toy/1.0/{node.kernel} /var/lib/dkms/toy/kernel-* "
              f"/lib/modules/{node.kernel}/updates/dkms/*")
    assert driver.do(step(node)).ending == "exit 0"
    assert len(node.compiled()) == compiled + 1
    assert node.end_state()["dkms"] == sound["dkms"]
    assert node.end_state()["files"] == sound["files"], "the same sources make the same module"
    # The file alone was deleted: DKMS still takes it for installed.
    node.call(f"rm /lib/modules/{node.kernel}/updates/dkms/*")
    assert driver.do(step(node)).ending == "exit 0"
    assert node.end_state()["files"] == sound["files"]

    node.call("rm -r /usr/src/toy-1.0")
    failed = driver.do(step(node))
    assert failed.ending == "exit 72 rebuild"


def test_what_does_not_compile_says_so(node: SimNode, archives: Mapping[str, bytes]) -> None:
    driver = Toy(node, archives)
    driver.bring_to("1.0")
    node.call("sed -i 's/^int /wrong /; 1i this is no C' /usr/src/toy-1.0/*.c; "
              f"rm -r /var/lib/dkms/toy/1.0/{node.kernel} /var/lib/dkms/toy/kernel-*")
    failed = driver.do(step(node))
    assert failed.ending == "exit 68 rebuild"
    assert "does not compile for kernel" in failed.text


def test_the_node_tells_what_it_keeps_and_who_drove_it(node: SimNode, archives: Mapping[str, bytes]) -> None:
    def told() -> list[list[str]]:
        return [line.split("\t") for line in node.call("sh -s", whole("kept.sh").encode()).splitlines()]

    assert told() == [["end"]]
    driver = Toy(node, archives)
    driver.bring_to("1.0")
    driver.bring_to("1.1")
    pool, good, former, end = told()
    assert pool[0] == "pool"
    assert good[:3] == ["good", "toy", "digest-1.1"]
    assert base64.b64decode(good[3]) == b'{"version": "1.1"}'
    assert (former[0], end) == ("former", ["end"])
