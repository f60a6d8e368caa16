"""Metrics of whole commands, written and pushed, scraped by a real Prometheus and read back over its API."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.fixtures_cluster import eventually
from tests.rollout.points import Moment
from tests.rollout.prometheus import Prometheus
from tests.rollout.sim_fleet import SimFleet


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    made = Prometheus(tmp_path / "prometheus")
    yield made
    made.close()


def test_drift_and_its_mending_as_prometheus_sees_them(fleet: SimFleet, prometheus: Prometheus) -> None:
    file = prometheus.textfiles / "gpu.prom"
    told = ("--metrics-file", str(file), "--pushgateway", prometheus.gateway)
    book = ("-i", str(fleet.inventory), *told)
    drifted, sound = fleet.nodes
    fleet.apply("1.0", *told)
    fleet.nodes[drifted].call("rmmod fleetdrv_toy")
    path = str(fleet.playbook("1.0"))

    before = fleet.end_state()
    fleet.points.arm(-1, Moment.BEFORE)
    fleet.fleetdrv("drift", path, *book, code=2)
    assert (fleet.writes(), fleet.end_state()) == ([], before), "what is measured is not touched"
    prometheus.fresh()
    for job in ("node", "push"):
        of_job = "{instance=~'.+'}" if job == "node" else "{instance=''}"
        drift = prometheus.values(f"fleetdrv_drift{of_job} == 1", "pool", "node", "driver", "layer")
        assert drift == {(fleet.tag, drifted, "toy", "loaded"): 1}, job
        info = prometheus.values(f"fleetdrv_driver_info{of_job}", "node", "wanted", "found", "loaded")
        assert info == {(drifted, "1.0", "1.0", ""): 1, (sound, "1.0", "1.0", "1.0"): 1}
        assert prometheus.values(f"fleetdrv_nodes{of_job} > 0", "verdict") == {("drifted",): 1, ("converged",): 1}
        assert prometheus.values(f"fleetdrv_last_run_exit_code{of_job}", "command") == {("drift",): 2}
    pushed = {("fleetdrv", fleet.tag)}
    assert prometheus.values("fleetdrv_last_run_exit_code{instance=''}", "job", "pool").keys() == pushed

    fleet.fleetdrv("remediate", path, *book, code=0)
    prometheus.fresh()
    assert prometheus.values("sum by (node) (fleetdrv_drift)", "node") == {(drifted,): 0, (sound,): 0}
    out = prometheus.values("fleetdrv_out_of_service_seconds{instance=''}", "node")
    assert out.keys() == {(drifted,)}
    phases = prometheus.values("fleetdrv_phase_duration_seconds{instance=''}", "node", "phase")
    assert {(drifted, phase) for phase in ("cordon", "outage", "look", "return")} <= phases.keys()
    assert {node for node, _ in phases} == {drifted}
    (whole,) = prometheus.values("fleetdrv_last_run_duration_seconds{instance=''}").values()
    assert 0 < out[drifted,] <= sum(phases.values()) <= whole
    checked = subprocess.run(["promtool", "check", "metrics"], input=file.read_bytes(), capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, b""), checked.stderr.decode()

    inventory = yaml.safe_load(fleet.inventory.read_text())
    del inventory["all"]["children"]["gpu"]["hosts"][sound]
    fleet.inventory.write_text(yaml.safe_dump(inventory))
    fleet.fleetdrv("drift", path, *book, code=0)
    prometheus.fresh()
    assert prometheus.values(f"{{node='{sound}'}}") == {}, "a node that is gone is gone here, too"


def test_failures_and_nodes_left_out_are_told_by_finding_and_since(fleet: SimFleet, tmp_path: Path) -> None:
    fleet.apply("1.0")
    liar = next(iter(fleet.nodes))
    (fleet.nodes[liar].folder / "modprobe-lies").touch()
    file = tmp_path / "gpu.prom"
    assert fleet.apply("1.1", "--metrics-file", str(file), code=None).code in (4, 5)
    lines = file.read_text().splitlines()
    assert f'fleetdrv_nodes{{pool="{fleet.tag}",verdict="failed, left out of service"}} 1.0' in lines
    (failed,) = (line for line in lines if line.startswith("fleetdrv_failed_nodes{"))
    assert 'finding="toy: load and hold against the file: exit ' in failed
    (since,) = (line for line in lines if line.startswith("fleetdrv_out_of_service_since_timestamp_seconds{"))
    assert f'node="{liar}"' in since
    assert abs(time.time() - float(since.split()[-1])) < 3600


def test_a_cluster_that_cannot_be_reached_is_told_and_so_is_a_gateway_that_is_away(
    fleet: SimFleet, tmp_path: Path
) -> None:
    file, away = tmp_path / "gpu.prom", "http://127.0.0.1:9"
    told = ("-i", str(fleet.inventory), "--metrics-file", str(file), "--pushgateway", away)
    fleet.apply("1.0")
    well = fleet.fleetdrv("drift", str(fleet.playbook("1.0")), *told, code=0)
    assert f"--pushgateway {away}: not pushed" in well.errors
    refused = fleet.fleetdrv("remediate", str(fleet.playbook("1.0")), *told, "--context", "nowhere", code=3)
    assert "nowhere" in refused.errors
    assert f'exit_code{{command="remediate",pool="{fleet.tag}"}} 3.0' in file.read_text()
    assert "node=" not in file.read_text(), "what was not seen is not told"


def test_an_outage_that_was_taken_over_is_measured_from_its_cordon(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    name = next(iter(fleet.nodes))
    words = ("apply", str(fleet.playbook("1.1")), "-i", str(fleet.inventory), "--yes", "-l", name)
    (fleet.nodes[name].folder / "wait-modprobe").touch()
    begun = fleet.nodes[name].started("outage")
    with fleet.start(*words) as process:
        eventually(lambda: len(fleet.nodes[name].started("outage")) > len(begun), "the outage job")
        killed = time.monotonic()
        process.kill()
        process.communicate()
    time.sleep(3)
    (fleet.nodes[name].folder / "wait-modprobe").unlink()
    taken_over = time.monotonic()
    ended = fleet.fleetdrv(*words, "--json", code=0).json["nodes"][name]
    assert ended["verdict"] == "changed"
    assert ended["seconds_out_of_service"] >= taken_over - killed - 1, "what the dead one had begun counts"
    events = fleet.admin.get("/api/v1/namespaces/default/events",
                             {"fieldSelector": f"involvedObject.name={name},reason=DriverUncordoned"})["items"]
    newest = max(events, key=lambda event: str(event["lastTimestamp"]))["message"]
    assert int(newest.partition(" after ")[2].partition(" s ")[0]) >= taken_over - killed - 1
