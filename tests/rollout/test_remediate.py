"""cron's apply, seen by whole commands against simulated nodes: mends, gives up in time, and is silent."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

from fleetdrv import names
from tests.rollout.points import Moment
from tests.rollout.sim_fleet import Ended, SimFleet
from tests.rollout.test_story import _wait_for


def book(fleet: SimFleet, version: str, backoff: int = 0, attempts: int = 3, **rollout: object) -> Path:
    path = fleet.playbook(version, **{"canary": 0, **rollout})
    wanted = yaml.safe_load(path.read_text())
    wanted["remediate"] = {"attempts": attempts, "backoff_seconds": backoff}
    path.write_text(yaml.safe_dump(wanted, sort_keys=False))
    return path


def remediate(fleet: SimFleet, path: Path, *options: str, code: int | None = 0) -> Ended:
    return fleet.fleetdrv("remediate", str(path), "-i", str(fleet.inventory), *options, code=code)


def result(fleet: SimFleet, name: str) -> dict[str, object]:
    text = fleet.node(name)["metadata"]["annotations"][names.LAST_RESULT]
    return dict(json.loads(text))


def test_all_is_well_in_silence_and_what_drifted_is_mended(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    path = book(fleet, "1.0")
    fleet.points.arm(-1, Moment.BEFORE)
    well = remediate(fleet, path)
    assert (well.out, well.errors) == ("", "")
    assert fleet.writes() == []
    drifted, sound = fleet.nodes
    fleet.nodes[drifted].call("rmmod fleetdrv_toy")
    fleet.points.arm(-1, Moment.BEFORE)
    mended = remediate(fleet, path)
    assert f"{drifted}: changed" in mended.out
    assert sound not in mended.out
    assert [point.what for point in fleet.points.seen if point.target == sound] == ["probe"]
    fleet.nodes[drifted].call("rmmod fleetdrv_toy")
    quiet = remediate(fleet, path, "--quiet")
    assert (quiet.out, quiet.errors) == ("", "")
    assert fleet.nodes[drifted].loaded()


def test_ten_periods_with_one_node_that_cannot_be_mended(fleet: SimFleet) -> None:
    """Tried three times, told of three times; the other is mended whenever it drifts."""
    fleet.apply("1.0")
    bad, good = fleet.nodes
    (fleet.nodes[bad].folder / "modprobe-lies").touch()
    fleet.nodes[bad].call("rmmod fleetdrv_toy")
    path = book(fleet, "1.0", max_unavailable=2, max_failures=1)
    outages = fleet.nodes[bad].started("outage")
    mails: list[int] = []
    for period in range(10):
        if period % 3 == 0:
            fleet.nodes[good].call("rmmod fleetdrv_toy")
        ended = remediate(fleet, path, "--quiet", code=4)
        assert fleet.nodes[good].loaded()
        assert good not in ended.out
        mails += [period] if ended.out or ended.errors else []
    assert len(fleet.nodes[bad].started("outage") - outages) == 3
    assert mails == [0, 1, 2]
    assert result(fleet, bad)["attempts"] == 3
    spoken = remediate(fleet, path, code=4)
    assert f"{bad}: given up: tried 3 of 3 times, last failed" in spoken.out
    (fleet.nodes[bad].folder / "modprobe-lies").unlink()
    assert remediate(fleet, path, "--quiet", code=4).out == ""
    fleet.fleetdrv("apply", str(path), "-i", str(fleet.inventory), "--yes", code=0)
    assert result(fleet, bad)["attempts"] == 0
    assert remediate(fleet, path).out == ""


def test_a_node_that_failed_waits_for_its_time(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    path = book(fleet, "1.3", backoff=3600, max_failures=2)
    failed = remediate(fleet, path, "--quiet", code=4)
    assert failed.out.count(": failed, rolled back") == 2, failed
    due = result(fleet, next(iter(fleet.nodes)))["not_before"]
    fleet.points.arm(-1, Moment.BEFORE)
    waiting = remediate(fleet, path, code=4)
    assert "not tried again yet: tried 1 of 3 times, last failed, rolled back" in waiting.out
    assert f"not again before {due}" in waiting.out
    assert fleet.writes() == []
    assert remediate(fleet, path, "--quiet", code=4).out == ""
    document = remediate(fleet, path, "--quiet", "--json", code=4).json
    assert {node["verdict"] for node in document["nodes"].values()} == {"not tried again yet"}
    assert remediate(fleet, book(fleet, "1.0"), "--quiet").out == "", "another wanted state has its own count"


def test_a_spent_budget_stays_spent_when_cron_comes_again(fleet: SimFleet) -> None:
    """Its init fails on whatever node: one is tried, not one more in each period."""
    fleet.apply("1.0")
    path = book(fleet, "1.3", backoff=3600)
    begun = {name: len(node.started("outage")) for name, node in fleet.nodes.items()}
    mails = [remediate(fleet, path, "--quiet", code=5).out for _ in range(3)]
    tried = sorted(len(node.started("outage")) - begun[name] for name, node in fleet.nodes.items())
    assert tried == [0, 1]
    assert "stopped: 1 failed, max_failures is 0" in mails[0]
    assert mails[1:] == ["", ""]
    assert "1 failed, max_failures is 0" in remediate(fleet, path, code=5).out
    assert remediate(fleet, book(fleet, "1.0"), "--quiet").out == "", "another wanted state has its own budget"


def test_a_build_that_fails_is_counted_though_the_node_was_never_taken_out(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    for node in fleet.nodes.values():
        (node.folder / "kill-make").touch()
    path = book(fleet, "1.1", attempts=2, max_failures=2)
    stages = {name: node.started("stage") for name, node in fleet.nodes.items()}
    mails = [bool(remediate(fleet, path, "--quiet", code=4).out) for _ in range(4)]
    assert mails == [True, True, False, False]
    for name, node in fleet.nodes.items():
        assert len(node.started("stage") - stages[name]) == 2
        assert not fleet.node(name)["spec"].get("unschedulable")
        assert str(result(fleet, name)["finding"]).startswith("build-killed: ")


def test_a_build_that_no_retry_can_help_is_tried_once(fleet: SimFleet) -> None:
    """1.2 does not fit the kernel's interfaces: the same sources never will."""
    fleet.apply("1.0")
    path = book(fleet, "1.2", attempts=3, max_failures=2)
    stages = {name: node.started("stage") for name, node in fleet.nodes.items()}
    mails = [bool(remediate(fleet, path, "--quiet", code=4).out) for _ in range(2)]
    assert mails == [True, False]
    for name, node in fleet.nodes.items():
        assert len(node.started("stage") - stages[name]) == 1
        assert str(result(fleet, name)["finding"]).startswith("kernel-api-changed: ")


def test_a_controller_that_is_killed_each_time_uses_its_tries_up(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    name = next(iter(fleet.nodes))
    path = book(fleet, "1.3", attempts=2)
    words = ("remediate", str(path), "-i", str(fleet.inventory), "-l", name)
    (fleet.nodes[name].folder / "wait-modprobe").touch()
    begun = fleet.nodes[name].started("outage")
    with fleet.start(*words) as process:
        _wait_for(lambda: fleet.nodes[name].started("outage") - begun, "the outage job")
        process.kill()
        process.communicate()
    assert (result(fleet, name)["verdict"], result(fleet, name)["attempts"]) == ("under way", 1)
    (fleet.nodes[name].folder / "wait-modprobe").unlink()
    time.sleep(1)
    assert fleet.fleetdrv(*words, code=None).code in (4, 5)
    assert result(fleet, name)["attempts"] == 1, "the same try, brought to its end"
    assert len(fleet.nodes[name].started("outage") - begun) == 1
    for _ in range(3):
        fleet.fleetdrv(*words, code=None)
    assert len(fleet.nodes[name].started("outage") - begun) == 2
    assert result(fleet, name)["attempts"] == 2


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_a_pool_that_somebody_drives_or_paused_is_left_alone(fleet: SimFleet, quiet: tuple[str, ...]) -> None:
    fleet.apply("1.0")
    name = next(iter(fleet.nodes))
    (fleet.nodes[name].folder / "wait-modprobe").touch()
    begun = fleet.nodes[name].started("outage")
    with fleet.start("apply", str(book(fleet, "1.1")), "-i", str(fleet.inventory), "--yes", "-l", name) as process:
        _wait_for(lambda: fleet.nodes[name].started("outage") - begun, "the outage job")
        taken = remediate(fleet, book(fleet, "1.1"), *quiet)
        (fleet.nodes[name].folder / "wait-modprobe").unlink()
        process.communicate(timeout=120)
    assert (f"pool {fleet.tag}: is driven by" in taken.out) == (not quiet)
    assert taken.out.count("\n") == (not quiet)
    assert taken.errors == ""
    fleet.fleetdrv("pause", fleet.tag, "--reason", "a freeze", code=0)
    paused = remediate(fleet, book(fleet, "1.0"), *quiet, code=5)
    assert ("a freeze" in paused.out) == (not quiet)
    assert paused.errors == ""


def test_what_blocks_or_cannot_be_reached_is_told_when_it_is_new(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    name = next(iter(fleet.nodes))
    path = book(fleet, "1.0")
    state = {"nvidia.com/gpu-driver-upgrade-state": "drain-required"}
    fleet.patch(name, {"metadata": {"labels": state}}, "gpu-operator")
    fleet.nodes[name].call("rmmod fleetdrv_toy")
    told = [remediate(fleet, path, "--quiet", code=5).out for _ in range(2)]
    assert f"{name}: blocked: others are at work" in told[0]
    assert told[1] == ""
    assert f"{name}: blocked" in remediate(fleet, path, code=5).out
    fleet.patch(name, {"metadata": {"labels": dict.fromkeys(state, "upgrade-done")}}, "gpu-operator")
    assert remediate(fleet, path, "--quiet").out == ""
    assert fleet.nodes[name].loaded()


def test_without_a_cluster_nobody_could_count(fleet: SimFleet) -> None:
    refused = remediate(fleet, book(fleet, "1.0"), "--no-cluster", code=3)
    assert "without one: apply" in refused.errors
