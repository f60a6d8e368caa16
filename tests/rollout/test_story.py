"""One driver on two simulated nodes: from nothing, again, upgraded, drifted, broken, rolled back."""

from __future__ import annotations

import threading
import time

import pytest

from fleetdrv import names
from tests.rollout.points import Moment, Point
from tests.rollout.sim_fleet import SimFleet
from tests.sim.node import build_id


class Watcher:
    """Counts, ten times a second and through the API, how many nodes are out of service."""

    def __init__(self, fleet: SimFleet) -> None:
        self._fleet, self.most, self.ever = fleet, 0, set[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            out = {n for n in self._fleet.nodes if self._fleet.node(n)["spec"].get("unschedulable")}
            self.most, self.ever = max(self.most, len(out)), self.ever | out

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def test_from_nothing_then_nothing_to_do(fleet: SimFleet) -> None:
    ended = fleet.apply("1.0")
    for name, node in fleet.nodes.items():
        assert f"{name}: changed" in ended.out
        assert node.loaded()["fleetdrv_toy"] == build_id(_file(fleet, name))
        assert fleet.node(name)["metadata"]["labels"]["fleetdrv.io/driver.toy"] == "1.0"
        assert names.CORDON not in fleet.node(name)["metadata"]["annotations"]
    assert fleet.pods() == sorted(fleet.nodes), "nothing was loaded that a pod could use: cordoned, not drained"
    fleet.points.arm(-1, Moment.BEFORE)
    again = fleet.apply("1.0", "--json")
    assert fleet.writes() == []
    assert [point.what for point in fleet.points.seen] == ["probe", "probe"]
    assert again.json["effects"] == {"execs": 2, "api_writes": 0}
    assert {node["verdict"] for node in again.json["nodes"].values()} == {"converged"}
    assert fleet.plan("1.0").code == 0


def test_an_upgrade_replaces_loaded_code_one_node_at_a_time(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    before = {name: node.loaded()["fleetdrv_toy"] for name, node in fleet.nodes.items()}
    first = {name: front.connections for name, front in fleet.fronts.items()}
    watcher = Watcher(fleet)
    fleet.points.arm(-1, Moment.BEFORE)
    fleet.apply("1.1")
    watcher.stop()
    assert fleet.pods() == [], "loaded code is replaced on an empty node only"
    assert watcher.most == 1
    assert watcher.ever == set(fleet.nodes)
    for name, node in fleet.nodes.items():
        loaded = node.loaded()["fleetdrv_toy"]
        assert before[name] != loaded == build_id(_file(fleet, name))
        assert node.call("cat /sys/class/misc/fleetdrv_toy/code").strip() == "1.1"
        assert "toy/1.0" not in node.call("dkms status")
        assert fleet.fronts[name].connections == first[name] + 1
        execs = [point.what for point in fleet.points.seen if (point.kind, point.target) == ("exec", name)]
        acts = [what for what in execs if what not in ("probe", "built")]
        assert acts == ["launch stage", "launch outage", "launch keep"]
        looks = " ".join(execs).split("launch")
        assert all(part.split().count("probe") <= 2 for part in looks), "at most two commands in a phase"
    fetched = [point.target for point in fleet.points.seen if point.what == "built"]
    assert len(fetched) == 1, "one node has compiled, and its build was fetched once"


def test_what_an_outage_cost_is_what_the_wire_saw(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    fleet.points.arm(-1, Moment.BEFORE)
    ended = fleet.apply("1.1", "--json").json["nodes"]
    for name in fleet.nodes:
        ours = [p for p in fleet.points.seen if name in p.target or name in p.what]
        written = ("nodes/", "/events ")  # the last Event, of the uncordon, comes right after it
        writes = [at for at, point in enumerate(ours) if any(word in point.what for word in written)]
        during = ours[writes[0] : writes[-1] + 1]
        cost = ended[name]["effects_out_of_service"]
        assert cost["execs"] == sum(point.kind == "exec" for point in during), during
        assert cost["api_writes"] == sum(point.kind == "api" for point in during), during
        assert ended[name]["seconds_out_of_service"] > 0


def test_a_modprobe_that_lies_is_found_out(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    liar = next(iter(fleet.nodes))
    (fleet.nodes[liar].folder / "modprobe-lies").touch()
    ended = fleet.apply("1.1", code=None)
    assert ended.code in (4, 5)
    assert fleet.node(liar)["spec"].get("unschedulable"), "a node without its driver must not serve"
    assert liar in ended.out.partition("left out of service by fleetdrv: ")[2]


def test_a_module_that_somebody_unloaded_is_mended_on_that_node_only(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    drifted, sound = fleet.nodes
    fleet.nodes[drifted].call("rmmod fleetdrv_toy")
    planned = fleet.plan("1.0", "--json", code=2)
    differences = planned.json["nodes"][drifted]["differences"]
    assert [(d["driver"], d["layer"]) for d in differences] == [("toy", "loaded")]
    assert planned.json["nodes"][sound]["outcome"] == "converged"
    fleet.points.arm(-1, Moment.BEFORE)
    fleet.apply("1.0")
    assert fleet.nodes[drifted].loaded()
    touched = [p for p in fleet.points.seen if p.target == sound]
    assert [p.what for p in touched] == ["probe"]


def test_a_version_that_does_not_compile_never_cordons(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    before = fleet.end_state()
    watcher = Watcher(fleet)
    ended = fleet.apply("1.2", code=4, max_failures=2)
    watcher.stop()
    assert watcher.ever == set()
    assert "does not compile" in ended.out
    after = fleet.end_state()
    for name in fleet.nodes:
        assert after[name]["node"] == before[name]["node"]
        assert after[name]["spec"] == before[name]["spec"]


def test_a_version_whose_init_fails_is_rolled_back_and_verified(fleet: SimFleet) -> None:
    fleet.apply("1.1")
    before = fleet.end_state()
    ended = fleet.apply("1.3", code=4, max_failures=2)
    after = fleet.end_state()
    for name in fleet.nodes:
        assert f"{name}: failed, rolled back" in ended.out
        for part in ("dkms", "loaded", "files", "configuration", "sources", "good", "running"):
            assert after[name]["node"][part] == before[name]["node"][part], part  # type: ignore[index]
        assert not fleet.node(name)["spec"].get("unschedulable")
        assert fleet.node(name)["metadata"]["labels"]["fleetdrv.io/driver.toy"] == "1.1"
    assert "finds no device it can drive" in ended.out, "the kernel's own words are the evidence"
    _report_tells_it(fleet)


def _report_tells_it(fleet: SimFleet) -> None:
    """What the journal of the run above has in it is enough for its page."""
    run = fleet.fleetdrv("report", "last", "--json", code=0).json["run"]
    assert (run["state"], run["exit_code"], run["counts"]) == ("over", 4, {"failed": len(fleet.nodes)})
    assert (run["about"]["pool"], run["about"]["playbook"]) == (fleet.tag, "toy-1.3")
    assert run["about"]["again"].startswith("fleetdrv apply ")
    for node in run["nodes"].values():
        out = [phase["phase"] for phase in node["phases"] if phase["out_of_service"]]
        assert out == ["cordon", "drain", "change", "verify", "roll back", "verify", "uncordon"]
        assert node["verdict"] == "failed, rolled back"
        assert "finds no device it can drive" in node["evidence"]
        assert node["next"].startswith("fleetdrv plan ")
        assert node["seconds_out_of_service"] > 0
        assert node["before"] == node["after"] == {"toy": {"wanted": "1.3", "found": "1.1", "loaded": "1.1"}}
    assert max(count for _, count in run["out_of_service_at_once"]) == 1


def test_a_device_that_a_pod_holds_open_is_named_and_the_node_goes_back_untouched(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    first = next(iter(fleet.nodes))
    uid = "0f6a1c52-3b7e-4c1d-9a35-7d2f8e4b6a10"
    pid = fleet.nodes[first].hold_device("fleetdrv_toy", f"0::/kubepods/pod{uid}/{'8c1d' * 16}")
    before = fleet.nodes[first].loaded()
    ended = fleet.apply("1.1", "-l", first, code=None)
    assert ended.code in (4, 5), ended
    assert f"process {pid} (sleep) has /dev/shm/fleetdrv_toy open, in pod {uid}" in ended.out
    assert not fleet.node(first)["spec"].get("unschedulable")
    assert fleet.nodes[first].loaded() == before
    assert not any(".outage." in job.name for job in fleet.nodes[first].state.glob(f"jobs/{_run(fleet)}.*"))
    fleet.nodes[first].call(f"kill {pid}")
    (fleet.nodes[first].folder / "busy/fleetdrv_toy").unlink()
    fleet.apply("1.1", "-l", first)
    assert fleet.nodes[first].loaded() != before


def test_a_spent_budget_starts_no_more_nodes(fleet: SimFleet) -> None:
    fleet.apply("1.1")
    ended = fleet.apply("1.3", code=5)
    first, second = fleet.nodes
    assert f"{first}: failed, rolled back" in ended.out
    assert "max_failures is 0" in ended.out
    assert "1.3" not in fleet.nodes[second].call("dkms status; ls /usr/src")


@pytest.mark.parametrize("place", ["stage", "outage"])
def test_a_cut_link_neither_stops_the_job_nor_tears_its_log(fleet: SimFleet, place: str) -> None:
    fleet.apply("1.0")
    name = next(iter(fleet.nodes))
    node, brake = fleet.nodes[name], "wait-make" if place == "stage" else "wait-modprobe"
    (node.folder / brake).touch()
    book = str(fleet.playbook("1.1"))
    before = node.started(place)
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes", "-l", name) as process:
        _wait_for(lambda: node.started(place) - before, f"the {place} job")
        time.sleep(1)
        for _ in range(3):
            fleet.fronts[name].cut()
            time.sleep(0.5)
        (node.folder / brake).unlink()
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, (out, errors)
    jobs = sorted(node.state.glob("jobs/*"), key=lambda path: (path / "digest").stat().st_mtime)
    ours = [job for job in jobs if job.name.startswith(_run(fleet))]
    assert [job.name.split(".")[1] for job in ours] == ["stage", "outage", "keep"], "nothing is sent twice"
    logged = "".join((job / "log").read_text() for job in ours)
    assert "\n".join(fleet.journal(name)) + "\n" == logged


@pytest.mark.timeout(600)
def test_a_node_that_reboots_in_a_trial_build_is_waited_for_and_builds_again(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    name = next(iter(fleet.nodes))
    node, before = fleet.nodes[name], fleet.nodes[name].started("stage")
    (node.folder / "wait-make").touch()
    book = str(fleet.playbook("1.1"))
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes", "-l", name) as process:
        _wait_for(lambda: node.started("stage") - before, "the stage job")
        up = threading.Event()

        def wait(_: Point) -> None:
            """Nobody answers while it boots."""
            up.wait(60)

        fleet.points.on_arrival = wait
        node.reboot()
        (node.folder / "wait-make").unlink()
        up.set()
        _wait_for(lambda: fleet.journal(name, "boot") or process.poll() is not None, "the new boot to be seen")
        assert not fleet.node(name)["spec"].get("unschedulable")
        fleet.report(name, {"nodeInfo": {**fleet.node(name)["status"]["nodeInfo"], "bootID": node.boot_id}})
        out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, (out, errors)
    assert [line.split(";")[0] for line in fleet.journal(name, "boot")][:1] == ["it was rebooted under way"]
    jobs = sorted(job.name.split(".", 1)[1] for job in node.state.glob(f"jobs/{_run(fleet)}.*"))
    assert jobs == ["keep.1", "outage.1", "stage.1", "stage.2"]


def _run(fleet: SimFleet) -> str:
    last = max((fleet.folder / "fleetdrv" / "runs").glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    return last.stem


def _file(fleet: SimFleet, name: str):  # type: ignore[no-untyped-def]
    node = fleet.nodes[name]
    return next((node.folder / "modules/up" / node.kernel / "updates").rglob("fleetdrv_toy.ko"))


def _wait_for(true, what: str) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)
