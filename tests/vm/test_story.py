"""The practice driver on two virtual machines. In order: each test goes on from where the last one ended."""

from __future__ import annotations

import json
import threading
import time

import pytest
import yaml

from fleetdrv import names
from fleetdrv.lab import lab
from tests.rollout.api_proxy import client
from tests.vm.vm_fleet import CODE, VmFleet, eventually


@pytest.mark.story
def test_installed_from_nothing_then_nothing_to_do(fleet: VmFleet) -> None:
    fleet.apply("1.0")
    for node in fleet.names:
        assert fleet.ssh(node, CODE).strip() == "1.0"
        assert fleet.loaded(node) == fleet.on_disk(node)
    written, since = len(fleet.audit()), {node: fleet.clock(node) for node in fleet.names}
    again = fleet.apply("1.0", "--json").json
    assert again["effects"] == {"execs": 2, "api_writes": 0}
    assert len(fleet.audit()) == written, "the API server itself saw no write"
    assert {node["verdict"] for node in again["nodes"].values()} == {"converged"}
    assert [fleet.sessions(node, since[node]) for node in fleet.names] == [(1, 1), (1, 1)]


@pytest.mark.story
def test_upgraded_while_loaded_one_node_at_a_time(fleet: VmFleet) -> None:
    before = {node: fleet.loaded(node) for node in fleet.names}
    since = {node: fleet.clock(node) for node in fleet.names}
    most, ever, stop = [0], set[str](), threading.Event()

    def watch() -> None:
        with client(yaml.safe_load(fleet.kubeconfig.read_text()), fleet.scratch) as api:
            while not stop.wait(0.1):
                nodes = api.get("/api/v1/nodes").json()["items"]
                out = {n["metadata"]["name"] for n in nodes if n["spec"].get("unschedulable")}
                most[0] = max(most[0], len(out))
                ever.update(out)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        ended = fleet.apply("1.1")
    finally:
        stop.set()
        watcher.join()
    print(ended)
    assert most[0] == 1
    assert ever == set(fleet.names)
    for node in fleet.names:
        assert before[node] != fleet.loaded(node) == fleet.on_disk(node)
        assert fleet.ssh(node, CODE).strip() == "1.1"
        log_ins, commands = fleet.sessions(node, since[node])
        assert log_ins - 3 == 1, "one connection beside the three questions of this test"
        # Look, stage, look, outage, look, keep; a look that has grown old while others had their turn is renewed.
        assert 6 <= commands - 3 <= 8


def test_a_module_that_somebody_unloaded_is_mended_on_that_node_only(fleet: VmFleet) -> None:
    fleet.apply("1.1")
    fleet.ssh("node-1", "rmmod fleetdrv_toy")
    planned = fleet.plan("1.1", "--json", code=2).json["nodes"]
    assert [d["layer"] for d in planned["node-1"]["differences"]] == ["loaded"]
    assert planned["node-2"]["outcome"] == "converged"
    since = fleet.clock("node-2")
    fleet.apply("1.1")
    assert fleet.ssh("node-1", CODE).strip() == "1.1"
    assert fleet.sessions("node-2", since) == (1, 1)


def test_a_version_that_does_not_compile_never_cordons(fleet: VmFleet) -> None:
    fleet.apply("1.1")
    before, written = {n: fleet.end_state(n) for n in fleet.names}, len(fleet.audit())
    ended = fleet.apply("1.2", code=4, max_failures=2)
    assert "does not compile" in ended.out
    assert {n: fleet.end_state(n) for n in fleet.names} == before
    assert "unschedulable" not in str(fleet.audit()[written:])


def test_a_version_whose_init_fails_is_rolled_back_and_verified(fleet: VmFleet) -> None:
    fleet.apply("1.1")
    before = {node: fleet.end_state(node) for node in fleet.names}
    ended = fleet.apply("1.3", code=4, max_failures=2)
    assert ended.out.count("failed, rolled back") >= 2
    assert "Invalid argument" in ended.out
    assert {node: fleet.end_state(node) for node in fleet.names} == before


def test_a_modprobe_that_loads_nothing_is_found_out(fleet: VmFleet) -> None:
    fleet.apply("1.0")
    modprobe = "$(command -v modprobe)"
    fleet.ssh("node-1", f"rm -f /root/real; cp -P {modprobe} /root/real; rm {modprobe}; "
                        "printf '#!/bin/sh\\nexit 0\\n' >/usr/sbin/modprobe; chmod 755 /usr/sbin/modprobe")
    try:
        ended = fleet.apply("1.1", "-l", "node-1", code=4)
        assert "left out of service" in ended.out
    finally:
        fleet.ssh("node-1", "rm /usr/sbin/modprobe; cp -P /root/real /usr/sbin/modprobe")
    assert fleet.node("node-1")["spec"]["unschedulable"] is True
    fleet.apply("1.1")
    assert fleet.ssh("node-1", CODE).strip() == "1.1"
    assert not fleet.node("node-1")["spec"].get("unschedulable")


def test_swapped_addresses_are_refused_before_any_write(fleet: VmFleet) -> None:
    text, ports = fleet.inventory.read_text(), [lab.machine(fleet.folder, n).ssh_port for n in fleet.names]
    swapped = fleet.scratch / "swapped.yaml"
    first, second = (str(port) for port in ports)
    swapped.write_text(text.replace(first, "PORT").replace(second, first).replace("PORT", second))
    written = len(fleet.audit())
    ended = fleet.apply("1.0", code=3, inventory=swapped)
    for node in fleet.names:
        assert fleet.ssh(node, "cat /etc/machine-id").strip() in ended.errors
    assert len(fleet.audit()) == written


def test_a_foreign_cordon_is_left_alone(fleet: VmFleet) -> None:
    fleet.apply("1.0")
    fleet.kubectl("cordon", "node-1")
    try:
        ended = fleet.apply("1.1", max_unavailable=2)
        assert "node-1: skipped" in ended.out
        assert fleet.node("node-1")["spec"]["unschedulable"] is True
        assert fleet.ssh("node-1", CODE).strip() == "1.0"
        assert fleet.ssh("node-2", CODE).strip() == "1.1"
    finally:
        fleet.kubectl("uncordon", "node-1")


@pytest.mark.long
@pytest.mark.parametrize("phase", ["stage", "outage"])
def test_a_cut_link_neither_stops_the_job_nor_tears_its_log(fleet: VmFleet, phase: str) -> None:
    version = "1.0" if fleet.ssh("node-2", CODE).strip() == "1.1" else "1.1"
    machine = lab.machine(fleet.folder, "node-2")
    book = str(fleet.playbook(version))
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes", "-l", "node-2") as process:
        runs = fleet.scratch / "fleetdrv" / "runs"
        eventually(lambda: runs.is_dir() and any(f".{phase}." in _jobs(fleet) for _ in [0]), f"the {phase} job")
        machine.set_link(up=False)
        time.sleep(45)  # longer than the silence after which the link counts as lost
        machine.set_link(up=True)
        out, errors = process.communicate(timeout=1800)
    assert process.returncode == 0, (out, errors)
    run = max(runs.glob("*.jsonl"), key=lambda path: path.stat().st_mtime).stem
    logs = " ".join(f"{run}.{part}.1/log" for part in ("stage", "outage", "keep"))
    wanted = fleet.ssh("node-2", f"cd /var/lib/fleetdrv/jobs && cat {logs}")
    said = [json.loads(line) for line in (runs / f"{run}.jsonl").read_text().splitlines()]
    shown = [entry["text"] for entry in said if entry["phase"] == "job"]
    assert "\n".join(shown) + "\n" == wanted
    assert names.CORDON not in fleet.node("node-2")["metadata"].get("annotations", {})


def _jobs(fleet: VmFleet) -> str:
    """Jobs that run on node-2 now."""
    return fleet.ssh("node-2", "cd /var/lib/fleetdrv/jobs 2>/dev/null && "
                               "for j in *; do [ -e $j/rc ] || echo $j; done || :")
