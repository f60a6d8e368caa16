"""Who is meant: by files alone where files can tell, else by the cluster; and which host is which Node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from fleetdrv import inventory, joining, listing, names, nodeset, selection
from fleetdrv import lease as leases
from fleetdrv.cluster import Cluster
from fleetdrv.errors import InputError
from fleetdrv.events import Event
from fleetdrv.inventory_k8s import address
from fleetdrv.main import program
from fleetdrv.model import Host
from fleetdrv.records import RunRecord
from fleetdrv.selection import Selection
from tests.fakes.cluster import FakeCluster
from tests.fixtures_cluster import node_object

RUN = RunRecord(
    id="20261125T090000-abc", pool="gpu", playbook="toy", digest="d", failed=("n1",), unreachable=("n3",)
)


def node(name: str, *addresses: tuple[str, str], labels: dict[str, str] | None = None, at: str = "") -> Any:
    """Return a Node with addresses."""
    made = json.loads(json.dumps(node_object(name, labels or {})))
    made["status"]["addresses"] = [{"type": kind, "address": text} for kind, text in addresses]
    made["metadata"]["annotations"] = {names.ADDRESS: at} if at else {}
    return made


def asked(source: str, limit: str = "", *, said: list[str] | None = None, **more: Any) -> Selection:
    """Return what a command with a playbook for the group gpu was asked for."""

    def say(event: Event) -> None:
        if said is not None:
            said.append(event.text)

    wanted = {"group": "gpu", "pool": "gpu", "no_cluster": False, **more}
    return Selection(everything=inventory.read(source), limit=limit, say=say, **wanted)


@pytest.fixture
def hosts(tmp_path: Path) -> str:
    path = tmp_path / "hosts.yaml"
    path.write_text("all: {children: {gpu: {hosts: {'n[1:4]': }}, web: {hosts: {w: }}}}")
    return str(path)


def folded(pair: tuple[tuple[Host, ...], tuple[Host, ...]] | None) -> tuple[str, str]:
    """Return pool and selected hosts, folded."""
    assert pair is not None
    return nodeset.fold(h.name for h in pair[0]), nodeset.fold(h.name for h in pair[1])


# ---- the pool and its part


def test_files_alone_tell_the_pool_and_the_limit_never_makes_it_smaller(hosts: str) -> None:
    assert folded(asked(hosts).now()) == ("n[1-4]", "n[1-4]")
    assert folded(asked(hosts, "n[2-3]").now()) == ("n[1-4]", "n[2-3]")
    with pytest.raises(InputError, match="--limit w: matches none"):
        asked(hosts, "w").now()  # of another group


def test_a_file_of_hosts_is_read_and_refused_with_its_name(hosts: str, tmp_path: Path) -> None:
    parts = tmp_path / "some.txt"
    parts.write_text("# since Monday\nn[1-2]  # two\n\nn4,n1\n")
    assert folded(asked(hosts, f"@{parts}").now())[1] == "n[1-2,4]"
    parts.write_text("# nobody\n")
    with pytest.raises(InputError, match=r"some\.txt: names no host"):
        asked(hosts, f"@{parts}").now()
    with pytest.raises(InputError, match=r"--limit @nowhere: cannot be read"):
        asked(hosts, "@nowhere").now()


def test_the_failed_of_the_last_run_stand_on_the_lease(hosts: str) -> None:
    fake, said = FakeCluster(), list[str]()
    wanted = asked(hosts, "@failed:!n3", said=said)
    assert wanted.now() is None
    with pytest.raises(InputError, match="pool gpu has no run on record in this cluster"):
        wanted.ask(fake)
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": names.lease_name("gpu"),
            "namespace": names.LEASE_NAMESPACE,
            "annotations": {names.RUN_RECORD: RUN.to_json()},
        },
        "spec": {},
    }
    fake.create_lease(lease)
    assert leases.run_record(fake.lease(names.lease_name("gpu"))) == RUN
    assert folded(wanted.ask(fake)) == ("n[1-4]", "n1")
    assert said == ["@failed: run 20261125T090000-abc: n[1,3]"]


def test_without_a_cluster_the_journals_of_this_machine_know_the_failed(
    hosts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    wanted = asked(hosts, "@failed", no_cluster=True)
    with pytest.raises(InputError, match=r"no journal in .*/runs tells of a run of pool gpu"):
        wanted.now()
    journal("20261125T1", "gpu", "n4")
    journal("20261125T2", "gpu", "n2")
    path = journal("20261125T3", "web")
    assert folded(wanted.now()) == ("n[1-4]", "n2")
    with path.open("a") as torn:
        torn.write('{"phase": "record", "te')  # the disk was full
    assert folded(wanted.now()) == ("n[1-4]", "n2")
    journal("20261125T4", "gpu")
    with pytest.raises(InputError, match="nothing failed in run 20261125T4, the last of pool gpu"):
        wanted.now()


def journal(run: str, pool: str, *failed: str) -> Path:
    """Leave a run's journal; that the program writes it so is held by tests/rollout/test_rivals.py."""
    path = platformdirs.user_state_path("fleetdrv") / "runs" / f"{run}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    events: list[Event] = []
    selection.note(RunRecord(id=run, pool=pool, playbook="p", digest="d", failed=failed), events.append)
    events.append(Event(node="n4", phase="job", text="a line after it"))
    path.write_text("".join(json.dumps({"phase": e.phase, "text": e.text}) + "\n" for e in events))
    return path


# ---- the cluster's own Nodes


def cluster_of_three() -> FakeCluster:
    """Return a control plane and two GPU nodes."""
    fake = FakeCluster()
    fake.create(node("cp", ("InternalIP", "10.0.0.1")))
    gpu = {"gpu": "a100"}
    fake.create(node("g1", ("Hostname", "g1.example"), ("InternalIP", "10.0.0.2"), labels=gpu))
    fake.create(node("g2", ("InternalIP", "10.0.0.3"), labels=gpu, at="gate.example"))
    return fake


def test_the_cluster_can_be_the_inventory_by_label() -> None:
    wanted = asked("k8s:gpu=a100", "!g2")
    assert wanted.now() is None
    pool, chosen = wanted.ask(cluster_of_three())
    assert (nodeset.fold(h.name for h in pool), [h.name for h in chosen]) == ("g[1-2]", ["g1"])
    assert {h.name: (h.node_name, h.variables["ansible_host"]) for h in pool} == {
        "g1": ("g1", "10.0.0.2"),
        "g2": ("g2", "gate.example"),
    }


def test_all_nodes_of_a_cluster_are_nobodys_gpu_group() -> None:
    fake = cluster_of_three()
    with pytest.raises(InputError, match=r"all Nodes of the cluster are no group gpu; .* k8s:LABEL=VALUE"):
        asked("k8s:").ask(fake)
    assert folded(asked("k8s:", group="all").ask(fake))[0] == "cp,g[1-2]"


@pytest.mark.parametrize(
    ("source", "fault"),
    [("k8s:gpu=no", "no Node is so labelled"), ("k8s:gpu==a=b", "is no label"), ("k8s:,", "is no label")],
)
def test_a_selector_that_is_wrong_or_selects_nobody_is_refused(source: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        asked(source).ask(cluster_of_three())


def test_without_a_cluster_there_are_no_nodes_to_ask_for() -> None:
    with pytest.raises(InputError, match="leave out --no-cluster"):
        asked("k8s:gpu=a100", no_cluster=True).now()


@pytest.mark.parametrize(
    ("addresses", "at", "wanted"),
    [
        ([("Hostname", "h"), ("InternalIP", "10.0.0.1"), ("InternalIP", "fd00::1")], "", "10.0.0.1"),
        ([("Hostname", "h"), ("ExternalIP", "1.2.3.4")], "", "h"),
        ([("InternalIP", "10.0.0.1")], "gate", "gate"),
        ([], "", "n"),
    ],
)
def test_ssh_goes_to_the_override_the_internal_address_the_hostname(
    addresses: list[tuple[str, str]], at: str, wanted: str
) -> None:
    assert address(node("n", *addresses, at=at)) == wanted


# ---- which host is which Node


def joined(hosts: dict[str, tuple[str, str]], nodes: dict[str, list[str]]) -> joining.Joined:
    """Join hosts, each with Node name and address, to Nodes with addresses."""
    made = [Host(name=name, node_name=of, variables={}) for name, (of, _) in hosts.items()]
    return joining.join(made, {name: (at, f"root@{at}:22") for name, (_, at) in hosts.items()}, nodes)


def test_hosts_and_nodes_are_held_against_each_other() -> None:
    found = joined(
        {
            "a": ("a", "10.0.0.1"),
            "b": ("node-b", "10.0.0.2"),
            "c": ("c", "10.9.9.9"),
            "d.example": ("d.example", "x"),
        },
        {"a": ["10.0.0.1"], "node-b": ["10.0.0.2"], "d": [], "e10": [], "e9": []},
    )
    assert found.nodes == {"a": "a", "b": "node-b"}
    assert found.without_node == {"c": "", "d.example": "there is a Node d; if it is that, set node_name: d"}
    assert found.without_host == ("d", "e9", "e10")
    assert not found.faults


def test_a_host_whose_address_is_another_nodes_is_refused() -> None:
    """Two lines of an inventory that were swapped: each would drain the other's pods."""
    found = joined({"a": ("a", "10.0.0.2"), "b": ("b", "10.0.0.1")}, {"a": ["10.0.0.1"], "b": ["10.0.0.2"]})
    assert [fault.partition(";")[0] for fault in found.faults] == [
        "a: is Node a by name, and Node b by its address 10.0.0.2",
        "b: is Node b by name, and Node a by its address 10.0.0.1",
    ]


def test_two_hosts_at_one_address_are_refused_and_two_ports_are_not() -> None:
    found = joined({"a": ("a", "10.0.0.1"), "b": ("b", "10.0.0.1")}, {"a": [], "b": []})
    assert found.faults == (
        "a,b: are reached at the same root@10.0.0.1:22: one machine for 2 Nodes; "
        "correct ansible_host or ansible_port",
    )
    made = [Host(name=name, node_name=name) for name in "ab"]
    ways = {"a": ("gate", "root@gate:2201"), "b": ("gate", "root@gate:2202")}
    assert not joining.join(made, ways, {"a": ["10.0.0.1"], "b": ["10.0.0.2"]}).faults


@pytest.mark.parametrize("shared", ["10.0.0.9", "127.0.0.1", "::1", "localhost"])
def test_an_address_that_proves_nothing_is_no_fault(shared: str) -> None:
    nodes = {"a": ["10.0.0.1"], "b": [shared]}
    if shared == "10.0.0.9":
        nodes["a"].append(shared)
    assert not joined({"a": ("a", shared)}, nodes).faults


def test_a_host_that_names_no_node_is_told_whose_address_it_has() -> None:
    found = joined({"gpu-1": ("gpu-1", "FD00:0::1")}, {"node-a": ["fd00::1"]})
    assert found.without_node == {
        "gpu-1": "its address is that of Node node-a; if it is that, set node_name: node-a"
    }


# ---- the command


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCluster:
    """A cluster of three, and nobody's own ~/.ssh/config."""
    fake = cluster_of_three()

    def opened(*_: object) -> Cluster:
        return fake

    monkeypatch.setattr(listing, "open_cluster", opened)
    monkeypatch.setenv("HOME", str(tmp_path))
    return fake


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run `fleetdrv inventory`."""
    with pytest.raises(SystemExit) as ended:
        program.run(["fleetdrv", "inventory", *words])
    out, errors = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, errors


HOSTS = """\
all:
  vars: {ansible_user: root, ansible_ssh_common_args: -o ProxyJump=ops@gate:2222}
  children:
    gpu:
      hosts:
        one: {node_name: g1, ansible_host: 10.0.0.2, secret: hunter2}
        two: {ansible_host: 10.0.0.3}
    rack: {hosts: {one: }}
"""


@pytest.mark.usefixtures("fleet")
def test_the_command_shows_hosts_ways_groups_and_nodes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text(HOSTS)
    code, out, errors = run(capsys, "-i", str(path))
    assert (code, errors) == (0, "")
    assert out.splitlines() == [
        "HOST  REACHED AS                         GROUPS     NODE",
        "one   root@10.0.0.2:22 by ops@gate:2222  gpu, rack  g1",
        "two   root@10.0.0.3:22 by ops@gate:2222  gpu        none",
        "all: one,two (2)",
        "gpu: one,two (2)",
        "rack: one (1)",
        "hosts without a Node: two (1)",
        "  two: its address is that of Node g2; if it is that, set node_name: g2",
        "Nodes without a host: cp,g2 (2)",
    ]
    code, out, _ = run(capsys, "-i", str(path), "-l", "two", "--no-cluster")
    assert [line.split()[0] for line in out.splitlines()] == ["HOST", "two", "all:", "gpu:"]


@pytest.mark.usefixtures("fleet")
def test_the_command_has_one_document_and_no_secret_in_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text(HOSTS)
    code, out, _ = run(capsys, "-i", str(path), "--json")
    document = json.loads(out)
    assert (code, document["exit_code"], document["errors"]) == (0, 0, [])
    assert document["hosts"]["one"] == {
        "address": "10.0.0.2",
        "port": 22,
        "user": "root",
        "jump_hosts": ["ops@gate:2222"],
        "groups": ["all", "gpu", "rack"],
        "node": "g1",
    }
    assert (document["hosts_without_node"], document["nodes_without_host"]) == (["two"], ["cp", "g2"])
    assert "hunter2" not in out


@pytest.mark.usefixtures("fleet")
def test_the_command_refuses_what_is_not_clear(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text("all: {vars: {ansible_user: root}, hosts: {g1: {ansible_host: 10.0.0.3}}}")
    code, out, errors = run(capsys, "-i", str(path))
    assert code == 3
    assert "g1" in out
    assert errors.startswith("fleetdrv: g1: is Node g1 by name, and Node g2 by its address 10.0.0.3")
    path.write_text("all: {hosts: {a: {node_name: g1}, b: {node_name: g1}}}")
    code, out, errors = run(capsys, "-i", str(path))
    assert (code, errors) == (3, f"fleetdrv: {path}: a and b both claim Node g1\n")
    path.write_text("all: {hosts: {a: {ansible_port: high}, b: {ansible_port: low}}}")
    code, out, errors = run(capsys, "-i", str(path))
    assert (code, len(errors.splitlines())) == (3, 2)


@pytest.mark.usefixtures("fleet")
def test_the_clusters_own_nodes_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "-i", "k8s:gpu", "--json")
    document = json.loads(out)
    assert (code, list(document["hosts"])) == (0, ["g1", "g2"])
    assert document["hosts"]["g2"]["address"] == "gate.example"
    assert document["nodes_without_host"] == ["cp"]
