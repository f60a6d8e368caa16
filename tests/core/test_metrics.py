"""Results to metrics: what is told is bounded, complete, and what any Prometheus can read."""

from __future__ import annotations

import doctest
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import GaugeMetricFamily

from fleetdrv import metrics, records, timing
from fleetdrv.layers import Layer
from fleetdrv.metrics import DRIFTED, Family, NodeSeen, Run, driver_seen, families, finding, layers_of
from fleetdrv.model import Kernels, Package
from fleetdrv.plan import plan
from fleetdrv.sources import AptSource
from fleetdrv.turn import Verdict
from tests.core.factories import KERNEL, NEXT_KERNEL, a_driver, a_playbook, installed, some_facts
from tests.core.strategies import Scene, scenes

TOY = a_driver()
WHYS = st.sampled_from(
    ["load: exit 74 (job r1.outage.1)", "connect: no route to 10.0.0.7", "not verified: toy: loaded: found 1.0",
     "held (ann: 4711)", "", "Traceback 0x7f"]
) | st.text(max_size=80)  # fmt: skip


def a_run(*nodes: NodeSeen, **more: object) -> Run:
    """Return a run of cron's that ended well."""
    values = {"command": "remediate", "pool": "gpu", "exit_code": 0, "ended": 1e9, "seconds": 2.5, "version": "1"}
    return Run(**{**values, "nodes": nodes, **more})  # type: ignore[arg-type]


def told(run: Run, name: str) -> dict[tuple[str, ...], float]:
    """Return a family's samples by their label values, without the pool."""
    (family,) = (family for family in families(run) if family.name == name)
    return {labels[1:]: value for labels, value in family.samples}


@given(scenes(obstacles=True))
def test_every_layer_that_can_differ_is_told_also_while_it_does_not(scene: Scene) -> None:
    facts = scene.machine.facts(scene.playbook)
    differences = plan(scene.playbook, facts).differences
    for driver in scene.playbook.drivers:
        seen = driver_seen(driver, facts, differences)
        differ = {d.layer for d in differences if d.driver == driver.name}
        assert differ <= set(layers_of(driver)), "else its series comes and goes"
        assert seen.drift == {layer: layer in differ for layer in layers_of(driver)}


def test_a_plain_driver_has_six_series_a_node_and_each_wish_adds_one() -> None:
    always = [Layer.BUILT, Layer.FILE, Layer.LOADED, Layer.CONFIGURATION, Layer.INITRAMFS]
    assert set(layers_of(TOY)) == set(always)
    wishes = {"conflicts": ("nouveau",), "services": ("toy",), "requires_pci": ("10de:*",), "checks": (("true",),)}
    full = a_driver(parameters={"toy": {"a": "1"}}, **wishes)
    added = {Layer.CONFLICTS, Layer.SERVICES, Layer.HARDWARE, Layer.CHECKS, Layer.PARAMETERS}
    assert set(layers_of(full)) == {*always, *added}
    packaged = a_driver(dkms=None, apt=AptSource(packages={"toy-dkms": "1.*"}))
    assert set(layers_of(packaged)) == {*always, Layer.PACKAGE, Layer.HOLD, Layer.REPOSITORY}
    assert set(layers_of(a_driver(dkms=None))) == {*always} - {Layer.BUILT}


def test_versions_are_those_of_the_disk_and_of_the_kernel() -> None:
    two = Kernels(running=KERNEL, newest=NEXT_KERNEL, default=KERNEL)
    wanted = a_driver(version="1.2")
    facts = some_facts(TOY, kernels=two, dkms=(installed(), installed(version="1.2", kernel=NEXT_KERNEL)))
    seen = driver_seen(wanted, facts, ())
    assert (seen.wanted, seen.found, seen.loaded) == ("1.2", "1.1", "1.1")
    bare = driver_seen(TOY, some_facts(TOY, dkms=(installed(state="built"),), loaded={}), ())
    assert (bare.found, bare.loaded) == ("", "")
    apt = a_driver(dkms=None, apt=AptSource(packages={"toy-dkms": "1.*"}))
    for status, found in (("installed", "1.1-2"), ("config-files", "")):
        package = Package(name="toy-dkms", version="1.1-2", status=status)
        assert driver_seen(apt, some_facts(TOY, packages={"toy-dkms": package}), ()).found == found
    assert driver_seen(apt, some_facts(TOY), ()).found == ""
    in_tree = a_driver(dkms=None)
    assert driver_seen(in_tree, some_facts(TOY), ()).found == in_tree.version == "in-tree"
    assert driver_seen(in_tree, some_facts(TOY, files=()), ()).found == ""


@given(st.lists(st.tuples(st.sampled_from([*Verdict, DRIFTED]), WHYS), max_size=60))
def test_nodes_and_failures_are_counted_and_the_findings_are_few(ends: list[tuple[str, str]]) -> None:
    nodes = [NodeSeen(node=f"n{i}", verdict=str(v), why=why) for i, (v, why) in enumerate(ends)]
    run = a_run(*nodes)
    verdicts, findings = told(run, "fleetdrv_nodes"), told(run, "fleetdrv_failed_nodes")
    assert sum(verdicts.values()) == len(nodes)
    assert {(str(v),) for v in Verdict if v is not Verdict.UNDER_WAY} <= verdicts.keys(), "0 is told, too"
    calm = {"converged", "changed", "skipped", "blocked", "not tried again yet", "drifted"}
    assert sum(findings.values()) == sum(node.verdict not in calm for node in nodes)
    assert len(findings) <= 21
    assert all(len(label) <= 90 for (label,) in findings)


def test_a_thousand_kinds_of_failure_are_twenty_and_the_rest() -> None:
    whys = [f"step {i}: no" for i in range(40) for _ in range(40 - i)]
    nodes = [NodeSeen(node=f"n{i}", verdict="failed", why=why) for i, why in enumerate(whys)]
    findings = told(a_run(*nodes), "fleetdrv_failed_nodes")
    assert findings[("step 0",)] == 40
    assert findings[("step 19",)] == 21
    assert findings[("other",)] == sum(40 - i for i in range(20, 40))
    assert len(findings) == 21


@pytest.mark.parametrize(
    ("why", "short"),
    [
        ("load: exit 74 (job r1.outage.1); back at its last known good", "load: exit 74"),
        ("load: exit 74; held", "load: exit 74"),
        ("toy: install toy/1.1: exit 12", "toy: install toy/1.1: exit 12"),
        ("toy: load: exit 7 (job r1.outage.1); load the last known good: exit 8 (job x)", "toy: load: exit 7"),
        ("stage: interrupted 3 times (job r1.stage.3)", "stage"),
        ("not verified: toy: loaded: found 1.0, want 1.1", "not verified"),
        ("did not last its soak: kernel: BUG at 0xffff", "did not last its soak"),
        ("n: unload: in use by pid 7", "unload"),
        ("just words", "failed"),
        ("10.0.0.7 did not answer: timed out", "failed"),
        ("", "failed"),
    ],
)
def test_a_finding_names_no_host_job_or_number_of_the_day(why: str, short: str) -> None:
    assert finding(NodeSeen(node="n", verdict="failed", why=why)) == short
    assert finding(NodeSeen(node="n", verdict="refused", why=why)) == "refused"


def test_a_node_that_could_not_be_read_is_told_as_that_and_nothing_is_made_up() -> None:
    run = a_run(NodeSeen(node="n1", verdict="unreachable", why="connect: refused", readable=False))
    assert told(run, "fleetdrv_node_readable") == {("n1",): 0}
    assert told(run, "fleetdrv_drift") == told(run, "fleetdrv_driver_info") == {}


def test_a_nodes_turn_is_told_with_its_phases_and_its_outage() -> None:
    node = NodeSeen(node="n1", verdict="changed", phases={"drain": 3.5, "outage": 12.0}, seconds_out=21.25)
    run = a_run(node, NodeSeen(node="n2", verdict="converged"), out_since={"n3": 1e9})
    assert told(run, "fleetdrv_phase_duration_seconds") == {("n1", "drain"): 3.5, ("n1", "outage"): 12.0}
    assert told(run, "fleetdrv_out_of_service_seconds") == {("n1",): 21.25}
    assert told(run, "fleetdrv_out_of_service_since_timestamp_seconds") == {("n3",): 1e9}
    assert told(run, "fleetdrv_last_run_duration_seconds") == {("remediate",): 2.5}


@given(scenes(obstacles=True), WHYS)
def test_names_labels_and_samples_are_as_prometheus_wants_them(scene: Scene, why: str) -> None:
    facts = scene.machine.facts(scene.playbook)
    differences = plan(scene.playbook, facts).differences
    seen = tuple(driver_seen(driver, facts, differences) for driver in scene.playbook.drivers)
    nodes = [NodeSeen(node=f"n{i}", verdict="failed", why=why, drivers=seen, seconds_out=1) for i in range(2)]
    told = families(a_run(*nodes))
    assert all(count == 1 for count in Counter(family.name for family in told).values())
    for family in told:
        _demand_form(family)
        GaugeMetricFamily(family.name, family.help, labels=family.labels)


def _demand_form(family: Family) -> None:
    assert re.fullmatch(r"fleetdrv_[a-z_]+", family.name)
    assert family.help.endswith(".")
    assert all(re.fullmatch(r"[a-z]+", label) for label in family.labels)
    assert "run" not in family.labels, "each run would be a new series"
    assert all(len(values) == len(family.labels) for values, _ in family.samples)
    assert all(isinstance(value, str) for values, _ in family.samples for value in values)
    assert len({values for values, _ in family.samples}) == len(family.samples), "no series twice"
    assert family.name == "fleetdrv_build_info" or family.labels[0] == "pool"


def test_what_is_counted_is_the_pool_a_playbook_names() -> None:
    book = a_playbook(pool="gpu-a")
    assert book.pool_name == "gpu-a"
    assert {labels[0] for family in families(a_run(pool="gpu-a"))[1:] for labels, _ in family.samples} == {"gpu-a"}


def test_the_examples_in_the_docstrings_hold() -> None:
    assert [doctest.testmod(module).failed for module in (metrics, records, timing)] == [0, 0, 0]


def test_the_published_alerts_are_rules_on_metrics_that_exist() -> None:
    path = Path(__file__).parents[2] / "docs" / "alerts.yaml"
    checked = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    named = set(re.findall(r"fleetdrv_[a-z_]+", path.read_text()))
    assert named <= {family.name for family in families(a_run())}
