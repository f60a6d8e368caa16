"""What an earlier run may leave behind: each is found, named by `status`, and ended by the command it prints.

The commands are taken from what `status` says and typed as they stand there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fleetdrv.api import Api
from tests.rollout.rivals import tokens
from tests.rollout.sim_fleet import Ended, SimFleet
from tests.rollout.test_repair import CORDONED, SERVES, marks, run_record, runs, wait_for

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture
def halfway(tmp_path: Path, least_privilege: Path, admin_api: Api, builds: Path) -> Iterator[SimFleet]:
    """Two nodes at 1.0; an upgrade to 1.1 was killed when the first one's outage job had just been sent."""
    fleet = SimFleet(tmp_path, least_privilege, admin_api, builds)
    try:
        fleet.apply("1.0")
        leave_halfway(fleet)
        yield fleet
    finally:
        fleet.close()


def leave_halfway(fleet: SimFleet) -> None:
    """Kill an upgrade that has sent its first outage job, before it knows of the answer.

    Up to that job every effect is counted alike in each run: cordon, drain, touched, job.
    """
    book = fleet.playbook("1.1")
    first = next(iter(fleet.nodes))
    brake = fleet.nodes[first].folder / "wait-modprobe"
    begun = fleet.nodes[first].started("outage")
    brake.touch()
    with fleet.start("apply", str(book), "-i", str(fleet.inventory), "--yes") as process:
        wait_for(lambda: fleet.nodes[first].started("outage") - begun, "the outage job")
        process.kill()
        process.communicate(timeout=120)
    brake.unlink()


def left(fleet: SimFleet) -> str:
    """Name the node that is out by our hand."""
    (name,) = (name for name in fleet.nodes if marks(fleet, name)["ours"])
    return name


def status(fleet: SimFleet) -> Ended:
    return fleet.fleetdrv("status", fleet.tag, code=0)


def told(ended: Ended, what: str) -> list[str]:
    """Return the commands that status prints after these words."""
    (line,) = re.findall(rf"^ +{what}(?:, once \S+ serves again)?: (.*)$", ended.raw, re.MULTILINE)
    return [part.removeprefix("or this node alone: ") for part in line.split("; ")]


def typed(fleet: SimFleet, command: str, code: int | None = 0) -> Ended:
    """Type a command as it is printed; without a terminal nobody is asked."""
    program, *rest = shlex.split(command)
    assert program == "fleetdrv"
    return fleet.fleetdrv(*rest, code=code)


def test_status_names_a_dead_controllers_node_and_the_commands_that_finish_it(halfway: SimFleet) -> None:
    name, shown = left(halfway), status(halfway)
    assert "nobody drives it: " in shown.out
    assert "is dead" in shown.out
    assert re.search(rf"^  {name}: out of service by fleetdrv since .*step outage, touched; nobody is at it$",
                     shown.out, re.MULTILINE)
    apply, repair = told(shown, "to finish it")
    assert told(shown, "to go on") == [apply]
    record = run_record(halfway)
    typed(halfway, repair)
    assert (runs(halfway, name, "1.1"), marks(halfway, name)) == (True, SERVES)
    assert run_record(halfway) == record
    typed(halfway, apply)
    assert run_record(halfway)["id"] == record["id"], "the rollout goes on as the run that it was"
    assert all(runs(halfway, each, "1.1") for each in halfway.nodes)
    assert "to " not in re.sub(r".*: nobody drives it.*", "", status(halfway).raw)


def test_another_playbook_a_rollback_a_limit_without_it_and_a_playbook_that_is_gone(halfway: SimFleet) -> None:
    """Each ends at 1.0, from where the upgrade is begun and killed again."""
    name = left(halfway)
    other = next(node for node in halfway.nodes if node != name)
    ended = halfway.apply("1.0", "-l", other, code=None)
    assert name in ended.out.partition("left out of service by fleetdrv: ")[2], "named though it is not selected"
    assert marks(halfway, name)["ours"]
    halfway.apply("1.0")
    assert (runs(halfway, name), marks(halfway, name)) == (True, SERVES)

    leave_halfway(halfway)
    halfway.fleetdrv("rollback", str(halfway.playbook("1.1")), "-i", str(halfway.inventory), "--yes", code=0)
    assert (runs(halfway, name), marks(halfway, name)) == (True, SERVES)

    leave_halfway(halfway)
    for path in halfway.folder.glob("toy-*.yaml"):
        path.unlink()
    halfway.fleetdrv("repair", name, "-i", str(halfway.inventory), "--yes", code=0)
    assert (runs(halfway, name), marks(halfway, name)) == (True, SERVES)


def test_a_paused_or_aborted_run_whose_controller_is_gone(halfway: SimFleet) -> None:
    name = left(halfway)
    halfway.fleetdrv("pause", halfway.tag, "--reason", "freeze", code=0)
    assert halfway.apply("1.1", code=5)
    resume, then = told(status(halfway), "to go on")
    typed(halfway, resume)
    record = run_record(halfway)
    halfway.fleetdrv("abort", halfway.tag, code=0)
    assert "aborted" in status(halfway).out
    typed(halfway, then.removeprefix("then: "))
    assert run_record(halfway)["id"] != record["id"], "an abort is final for its run"
    assert marks(halfway, name) == SERVES
    assert all(runs(halfway, each, "1.1") for each in halfway.nodes)


def test_a_node_that_left_the_pool_is_found_and_finished_by_name(halfway: SimFleet) -> None:
    """The pool has another name now, and the group another host: no rollout ever comes by again."""
    name = left(halfway)
    _, repair = told(status(halfway), "to finish it")
    book = Path(shlex.split(repair)[4])
    wanted = yaml.safe_load(book.read_text())
    book.write_text(yaml.safe_dump({**wanted, "pool": f"{halfway.tag}-new"}))
    words = ("apply", str(book), "-i", str(halfway.inventory), "--yes", "-l", name)
    assert f"out for pool {halfway.tag}" in halfway.fleetdrv(*words, code=0).out
    inventory = yaml.safe_load(halfway.inventory.read_text())
    hosts = inventory["all"]["children"]["gpu"]["hosts"]
    inventory["all"]["children"]["old"] = {"hosts": {name: hosts.pop(name)},
                                           "vars": inventory["all"]["children"]["gpu"]["vars"]}
    halfway.inventory.write_text(yaml.safe_dump(inventory))
    typed(halfway, repair)
    assert runs(halfway, name, "1.1")
    assert marks(halfway, name) == SERVES


def test_a_node_whose_host_left_the_inventory_is_named_until_it_is_back(halfway: SimFleet) -> None:
    """Without an address nobody can finish it, and nobody gives it back unseen; the others go on meanwhile."""
    name = left(halfway)
    other = next(node for node in halfway.nodes if node != name)
    inventory = yaml.safe_load(halfway.inventory.read_text())
    del inventory["all"]["children"]["gpu"]["hosts"][name]
    halfway.inventory.write_text(yaml.safe_dump(inventory))
    out = f"left out of service by fleetdrv: {name}\n  not in the inventory any more: {name}; see: fleetdrv "
    assert f"{out}status {halfway.tag}" in halfway.apply("1.1").out
    assert (runs(halfway, other, "1.1"), bool(marks(halfway, name)["ours"])) == (True, True)
    assert halfway.apply("1.1", "--json").json["left_out"] == [name], "there is nothing to do, and it is named"
    *_, repair = told(status(halfway), "to finish it")
    refused = typed(halfway, repair, code=3)
    assert "has no such host; its Node is out of service since " in refused.errors
    assert f"gone for good: kubectl delete node {name}" in refused.errors
    assert marks(halfway, name)["cordoned"]
    halfway.write_inventory()
    typed(halfway, repair)
    assert (runs(halfway, name, "1.1"), marks(halfway, name)) == (True, SERVES)
    assert "left out of service" not in halfway.apply("1.1").out


def test_a_lease_that_somebody_deletes_in_mid_run_ends_the_run_and_the_next_one_finishes(fleet: SimFleet) -> None:
    """Whoever deletes a lock wants somebody to stop: no further step; the job in hand ends by itself."""
    fleet.apply("1.0")
    first, second = fleet.nodes
    node, before = fleet.nodes[first], tokens(fleet)
    (node.folder / "wait-modprobe").touch()
    begun = node.started("outage")
    with fleet.start("apply", str(fleet.playbook("1.1")), "-i", str(fleet.inventory), "--yes") as process:
        wait_for(lambda: node.started("outage") - begun, "the outage job")
        fleet.delete_lease()
        wait_for(lambda: any("no more nodes start" in said for said in fleet.journal("", "rollout")), "its notice")
        (node.folder / "wait-modprobe").unlink()
        out, _ = process.communicate(timeout=240)
    ended = Ended(process.returncode, out.decode(), "")
    assert ended.code == 5, ended
    assert f"stopped: pool {fleet.tag}: the lock was lost: somebody deleted its Lease" in ended.out
    assert f"left out of service by fleetdrv: {first}" in ended.out
    assert f"next: the same command again; or: fleetdrv status {fleet.tag}" in ended.out
    assert f"{first}: out of service by fleetdrv since " in status(fleet).out
    assert runs(fleet, second, "1.0")
    fleet.apply("1.1")
    assert len(node.started("outage") - begun) == 1, "nothing is sent twice"
    for name in fleet.nodes:
        assert (runs(fleet, name, "1.1"), marks(fleet, name)) == (True, SERVES)
        assert tokens(fleet)[name] == sorted(tokens(fleet)[name]) > before[name]


def test_marks_on_a_node_that_somebody_uncordoned_and_cron(halfway: SimFleet) -> None:
    name = left(halfway)
    halfway.patch(name, {"spec": {"unschedulable": None}}, manager="kubectl-uncordon")
    shown = status(halfway)
    assert f"{name}: ours, lifted by somebody else" in shown.out
    apply, _ = told(shown, "to finish it")
    typed(halfway, apply, code=None)
    assert marks(halfway, name) == SERVES

    halfway.apply("1.0")
    leave_halfway(halfway)
    halfway.fleetdrv("remediate", str(halfway.playbook("1.1")), "-i", str(halfway.inventory), code=0)
    assert all(runs(halfway, each, "1.1") for each in halfway.nodes)


def test_status_names_who_and_which_rule_hold_a_pool_up_and_what_a_node_in_hand_waits_for(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    other = list(fleet.nodes)[1]
    fleet.patch(other, {"spec": {"unschedulable": True}})
    fleet.apply("1.1", code=5)
    shown = status(fleet)
    assert re.search(rf"^  max_unavailable: {other}: cordoned by somebody else \(by kubectl-cordon, ",
                     shown.out, re.MULTILINE)
    assert f"to go on, once {other} serves again: fleetdrv apply " in shown.out
    document = fleet.fleetdrv("status", fleet.tag, "--json", code=0).json
    assert list(document["pools"][0]["blocked_by"]) == [other]
    assert document["pools"][0]["rule"] == "max_unavailable"
    assert marks(fleet, other) == CORDONED
    fleet.patch(other, {"spec": {"unschedulable": None}})
    assert f"{other}: in service again" in status(fleet).out
    (command,) = told(shown, "to go on")
    typed(fleet, command)
    assert all(runs(fleet, each, "1.1") for each in fleet.nodes)

    fleet.apply("1.0")
    name = next(iter(fleet.nodes))
    node = fleet.nodes[name]
    (node.folder / "wait-modprobe").touch()
    begun = node.started("outage")
    book = str(fleet.playbook("1.1"))
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes", "-l", name) as process:
        wait_for(lambda: node.started("outage") - begun, "the outage job")
        document = fleet.fleetdrv("status", fleet.tag, "--json", code=0).json
        (node.folder / "wait-modprobe").unlink()
        process.communicate(timeout=240)
    (out,) = document["nodes"]
    assert re.fullmatch(r"its job \S+\.outage\.1", out["waits_for"])
    assert (out["driven"], out["next"]) == (True, ""), "its controller is at it: nothing to type"
    assert document["pools"][0]["driver"].startswith("driven by ")
