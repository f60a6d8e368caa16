"""`fleetdrv repair NODE`: one node brought back, whoever cordoned it and whatever its kubelet says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from fleetdrv import names
from tests.fixtures_cluster import READY
from tests.rollout.points import Moment
from tests.rollout.sim_fleet import Ended, SimFleet
from tests.sim.node import build_id

pytestmark = pytest.mark.timeout(1500)


def words(fleet: SimFleet, name: str, version: str = "1.0") -> tuple[str, ...]:
    return ("repair", name, "--playbook", str(fleet.playbook(version)), "-i", str(fleet.inventory), "--yes")


def repair(fleet: SimFleet, name: str, version: str = "1.0", *options: str, code: int | None = 0) -> Ended:
    return fleet.fleetdrv(*words(fleet, name, version), *options, code=code)


def runs(fleet: SimFleet, name: str, version: str = "1.0") -> bool:
    """Whether the node has this version loaded, from its file."""
    node = fleet.nodes[name]
    module = node.folder / "modules/up" / node.kernel / "updates/dkms/fleetdrv_toy.ko"
    code = node.call("cat /sys/class/misc/fleetdrv_toy/code").strip()
    return (node.loaded()["fleetdrv_toy"], code) == (build_id(module), version)


def marks(fleet: SimFleet, name: str) -> dict[str, Any]:
    """Return what of ours stands on a Node that is out, and whether it is cordoned."""
    node = fleet.node(name)
    ours = {key for key in node["metadata"].get("annotations") or {} if key == names.CORDON}
    ours |= {key for key in node["metadata"].get("labels") or {} if key == names.RUN_LABEL}
    ours |= {taint["key"] for taint in node["spec"].get("taints") or () if names.DOMAIN in taint["key"]}
    return {"ours": ours, "cordoned": bool(node["spec"].get("unschedulable"))}


def wait_for(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 240
    while not true():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)


SERVES: dict[str, Any] = {"ours": set(), "cordoned": False}
CORDONED: dict[str, Any] = {"ours": set(), "cordoned": True}


def run_record(fleet: SimFleet) -> dict[str, Any]:
    lease = fleet.lease()
    assert lease is not None
    return dict(json.loads(lease["metadata"]["annotations"][names.RUN_RECORD]))


def test_what_differs_is_mended_on_that_node_alone(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    name, other = fleet.nodes
    before = run_record(fleet)
    fleet.nodes[name].call("rmmod fleetdrv_toy")
    fleet.points.arm(-1, Moment.BEFORE)
    assert f"{name}: changed" in repair(fleet, name).out
    assert (runs(fleet, name), marks(fleet, name)) == (True, SERVES)
    assert not [point for point in fleet.points.seen if point.target == other]
    assert run_record(fleet) == before, "the record on the Lease is the rollout's"
    fleet.points.arm(-1, Moment.BEFORE)
    assert f"{name}: converged" in repair(fleet, name).out
    assert fleet.writes() == []

    # other code than on disk: reloaded, under cordon and drain
    assert fleet.pods() == [name, other]
    fleet.nodes[name].call("echo 0.9 >/sys/module/fleetdrv_toy/version; "
                           "echo 1234 >/sys/module/fleetdrv_toy/srcversion; "
                           "rm /sys/module/fleetdrv_toy/notes/.note.gnu.build-id")
    repair(fleet, name)
    assert (runs(fleet, name), marks(fleet, name)) == (True, SERVES)
    assert fleet.pods() == [other], "drained: loaded code was replaced"


def test_a_colleagues_cordon_does_not_keep_a_node_from_being_mended_and_stays(fleet: SimFleet) -> None:
    name = next(iter(fleet.nodes))
    fleet.apply("1.0", "-l", name)
    fleet.patch(name, {"spec": {"unschedulable": True}})
    fleet.nodes[name].call("rmmod fleetdrv_toy")
    assert f"{name}: skipped" in fleet.apply("1.0", "-l", name).out, "a rollout passes it by"
    fleet.points.arm(-1, Moment.BEFORE)
    assert f"{name}: changed" in repair(fleet, name).out
    launch = [point.what for point in fleet.points.seen].index("launch outage")
    assert (runs(fleet, name), marks(fleet, name)) == (True, CORDONED)
    managers = {entry["manager"] for entry in fleet.node(name)["metadata"]["managedFields"]
                if "f:unschedulable" in entry["fieldsV1"].get("f:spec", {})}
    assert managers == {"kubectl-cordon"}, "it is still theirs"

    # killed under it, the same command finishes, and leaves it
    fleet.nodes[name].call("rmmod fleetdrv_toy")
    fleet.points.arm(launch, Moment.UNANSWERED)
    with fleet.start(*words(fleet, name)) as process:
        fleet.points.victim = process.pid
        process.communicate(timeout=240)
    fleet.points.victim = 0
    assert marks(fleet, name)["ours"], "left out, with our marks"
    fleet.points.arm(-1, Moment.BEFORE)
    repair(fleet, name)
    assert (runs(fleet, name), marks(fleet, name)) == (True, CORDONED)


def test_a_node_that_is_not_ready_after_a_reboot_is_mended_first_and_serves_once_it_is(fleet: SimFleet) -> None:
    """Its kubelet is dead since the reboot: the Node tells of the boot before."""
    name = next(iter(fleet.nodes))
    fleet.apply("1.0", "-l", name)
    node = fleet.nodes[name]
    gone = [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped"}]
    fleet.report(name, {"conditions": gone})
    node.reboot()
    refused = fleet.apply("1.0", "-l", name, code=None)
    assert "its boot id is" in refused.out + refused.errors, "a rollout wants more proof"
    with fleet.start(*words(fleet, name)) as process:
        wait_for(lambda: "fleetdrv_toy" in node.loaded(), "the driver to be loaded")
        wait_for(lambda: node.started("keep"), "it to be verified")
        assert marks(fleet, name)["cordoned"], "verified, but not Ready: it must not serve yet"
        known = fleet.node(name)["status"]["nodeInfo"]
        fleet.report(name, {"conditions": READY, "nodeInfo": {**known, "bootID": node.boot_id}})
        out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, (out, errors)
    assert runs(fleet, name)
    assert marks(fleet, name) == SERVES

    # a clone must not be taken for its original
    other = list(fleet.nodes)[1]
    known = fleet.node(other)["status"]["nodeInfo"]
    fleet.report(other, {"nodeInfo": {**known, "machineID": node.machine_id}})
    fleet.report(name, {"conditions": [{"type": "Ready", "status": "False"}]})
    ended = repair(fleet, name, code=3)
    assert f"Node {other} has the same one" in ended.errors + ended.out
    assert marks(fleet, name)["ours"] == set()


def test_what_holds_rollouts_up_and_what_holds_a_repair_up(fleet: SimFleet) -> None:
    for wrong in ("gpu", "*", f"{next(iter(fleet.nodes))},", "@failed", f"{fleet.tag}-n9"):
        assert repair(fleet, wrong, code=3).errors.strip(), wrong
    assert fleet.lease() is None, "one node by its name, and nothing else"
    fleet.apply("1.0")
    name, other = fleet.nodes
    for node in fleet.nodes.values():
        node.call("rmmod fleetdrv_toy")

    # a hold is for every command
    fleet.fleetdrv("hold", other, "--reason", "mine", code=0)
    assert f"{other}: skipped: held (mine" in repair(fleet, other).out
    assert "fleetdrv_toy" not in fleet.nodes[other].loaded()
    fleet.fleetdrv("release", other, code=0)

    # a node that serves needs a slot, one that is out already needs none
    fleet.patch(other, {"spec": {"unschedulable": True}})
    assert "1 of 1 out of service" in repair(fleet, name, code=5).out
    assert marks(fleet, name) == SERVES
    repair(fleet, other)
    assert (runs(fleet, other), marks(fleet, other)) == (True, CORDONED)
    fleet.patch(other, {"spec": {"unschedulable": None}})

    # a pause is for rollouts
    fleet.fleetdrv("pause", fleet.tag, "--reason", "mending by hand", code=0)
    repair(fleet, name)
    assert runs(fleet, name)
    assert "paused" in fleet.fleetdrv("status", fleet.tag, code=0).out


def test_without_a_playbook_the_node_comes_back_to_what_it_keeps_from_its_own_disk(fleet: SimFleet) -> None:
    name = next(iter(fleet.nodes))
    bare = ("repair", name, "-i", str(fleet.inventory), "--yes")
    refused = fleet.fleetdrv(*bare, code=3)
    assert f"fleetdrv repair {name} --playbook FILE" in refused.errors, "it keeps nothing yet"
    fleet.apply("1.0", "-l", name)
    node, before = fleet.nodes[name], fleet.end_state()[name]["node"]
    compiled = node.compiled()
    node.call(f"rmmod fleetdrv_toy; rm -r /var/lib/dkms/toy /usr/src/toy-1.0 /lib/modules/{node.kernel}/updates "
              "/etc/modules-load.d/fleetdrv-toy.conf")
    assert "toy: back to 1.0, kept on the node" in fleet.fleetdrv(*bare, code=0).out
    assert (runs(fleet, name), marks(fleet, name)) == (True, SERVES)
    assert fleet.end_state()[name]["node"] == before
    assert node.compiled() == compiled

    # a machine at fault is quarantined, and nothing is installed on it
    book = yaml.safe_load(fleet.playbook("1.1").read_text())
    book["drivers"][0]["requires_pci"] = ["dead:beef"]
    path = fleet.folder / "broken.yaml"
    path.write_text(yaml.safe_dump(book))
    command = (*bare, "--playbook", str(path))
    assert f"fleetdrv release {name}" in fleet.fleetdrv(*command, code=4).out
    assert marks(fleet, name)["ours"] == {names.QUARANTINE_TAINT}
    assert "PCI dead:beef" in fleet.fleetdrv("status", fleet.tag, code=0).out
    assert runs(fleet, name, "1.0")
    assert f"{name}: skipped: held (hardware" in fleet.fleetdrv(*command, code=0).out
    fleet.fleetdrv("release", name, code=0)
    assert marks(fleet, name) == SERVES


def test_hardware_that_the_kernel_saw_fail_is_quarantined_and_nothing_is_installed_on_it(fleet: SimFleet) -> None:
    name = next(iter(fleet.nodes))
    fleet.apply("1.0", "-l", name)
    node = fleet.nodes[name]
    node.call("rmmod fleetdrv_toy")
    before = node.started("outage")
    xid = "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
    (node.folder / "kmsg").write_text(f"<3>[   98.000000] {xid}\n")
    ended = repair(fleet, name, "1.1", code=4)
    assert f"{name}: not mendable here: gpu-off-bus: A GPU has fallen off the bus" in ended.out
    assert xid in ended.out
    assert f"then: fleetdrv release {name}" in ended.out
    assert marks(fleet, name) == {"ours": {names.QUARANTINE_TAINT}, "cordoned": False}
    assert (node.loaded(), node.started("outage")) == ({}, before)
    (node.folder / "kmsg").write_text("")
    assert "held (hardware: gpu-off-bus" in repair(fleet, name, "1.1").out
    fleet.fleetdrv("release", name, code=0)
    assert f"{name}: changed" in fleet.apply("1.1", "-l", name).out, "who released it said that it is mended"
    assert marks(fleet, name) == SERVES


def test_a_job_that_died_without_a_word_an_old_initramfs_and_a_lock_of_the_dead(fleet: SimFleet) -> None:
    """Controller and job were killed in the outage; whatever the lock's text says, nobody holds it any more."""
    name = next(iter(fleet.nodes))
    fleet.apply("1.0", "-l", name)
    node = fleet.nodes[name]
    (node.folder / "carries").write_text("fleetdrv_toy.ko\n")
    node.call(f"update-initramfs -u -k {node.kernel}; touch -d yesterday /boot/initrd.img-{node.kernel}")
    (node.folder / "wait-modprobe").touch()
    begun = node.started("outage")
    with fleet.start("apply", str(fleet.playbook("1.1")), "-i", str(fleet.inventory), "--yes", "-l", name) as run:
        wait_for(lambda: node.started("outage") - begun, "the outage job")
        wait_for(lambda: "fleetdrv_toy" not in node.loaded(), "the old code to be unloaded")
        run.kill()
        run.communicate(timeout=240)
    (started,) = node.started("outage") - begun
    node.call(f"kill -9 {started.read_text().split()[1]}")
    (node.folder / "wait-modprobe").unlink()
    assert not (started.parent / "rc").exists(), "it left no word of its end"
    ended = repair(fleet, name, "1.1")
    assert f"{name}: changed" in ended.out
    assert runs(fleet, name, "1.1")
    assert marks(fleet, name) == SERVES
    assert "converged" in repair(fleet, name, "1.1").out, "the initramfs is newer than the module"
