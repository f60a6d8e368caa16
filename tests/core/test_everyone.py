"""Whoever is named by `-i`: the cluster for every command, several sources, and faults with their line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from fleetdrv import inventory, joblogs
from fleetdrv.errors import InputError
from fleetdrv.files import demand_ways
from fleetdrv.main import program
from fleetdrv.options import Options
from tests.fakes.cluster import FakeCluster
from tests.fixtures_cluster import node_object

PLAYBOOK = str(next((Path(__file__).parents[2] / "playbooks").glob("toy-*.yaml")))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCluster:
    fake = FakeCluster()
    for name, labels in (("g1", {"gpu": "yes"}), ("g2", {"gpu": "yes"}), ("cp", {})):
        fake.create(json.loads(json.dumps(node_object(name, labels))))
    monkeypatch.setattr("fleetdrv.everyone.open_cluster", lambda *_: fake)
    monkeypatch.setenv("HOME", str(tmp_path))
    return fake


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        program.run(["fleetdrv", *words])
    out, errors = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, errors


# ---- the cluster as the inventory


@pytest.mark.usefixtures("cluster")
def test_a_node_of_the_cluster_is_found_for_its_jobs() -> None:
    assert joblogs.host_named(Options(inventory="k8s:gpu=yes"), "g2").name == "g2"
    assert joblogs.host_named(Options(inventory="k8s:"), "cp").name == "cp"
    with pytest.raises(InputError, match="k8s:gpu=yes: no host cp"):
        joblogs.host_named(Options(inventory="k8s:gpu=yes"), "cp")


@pytest.mark.usefixtures("cluster")
def test_a_schedule_keeps_asking_the_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "schedule", PLAYBOOK, "-i", "k8s:gpu=yes", "--print", "cron")
    assert code == 0
    assert "--inventory k8s:gpu=yes --quiet" in out
    code, _, errors = run(capsys, "schedule", PLAYBOOK, "-i", "k8s:gpu=no", "--print", "cron")
    assert code == 3
    assert "no Node is so labelled" in errors


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("source", ["k8s:gpu=yes", "g1,g2,", "."])
def test_a_cron_job_takes_a_file_along_or_says_that_it_cannot(
    capsys: pytest.CaptureFixture[str], source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hosts").write_text("[gpu]\ng1\n")
    words = ("schedule", PLAYBOOK, "-i", source, "--print", "cronjob", "--image", "x/y:1")
    code, _, errors = run(capsys, *words)
    assert code == 3
    assert "a CronJob takes one file along" in errors


# ---- what a schedule carries


def scheduled(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    code, out, errors = run(capsys, "schedule", PLAYBOOK, "--print", "cron", *words)
    assert code == 0, errors
    return shlex.split(out.splitlines()[-1])


def group() -> str:
    from fleetdrv import load

    return load.playbook(Path(PLAYBOOK)).playbook.hosts


def test_a_schedule_names_files_as_they_are_found_from_anywhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.ini", "b.ini"):
        Path(name).write_text(f"[{group()}]\nn1\n")
    (tmp_path / "secret").write_text("hunter2hunter2\n")
    (tmp_path / "secret").chmod(0o600)
    words = scheduled(capsys, "-i", "a.ini", "-i", "b.ini", "--sudo-password-file", "secret")
    named = [words[at + 1] for at, word in enumerate(words) if word == "--inventory"]
    assert named == [str(tmp_path / "a.ini"), str(tmp_path / "b.ini")]
    assert words[words.index("--sudo-password-file") + 1] == str(tmp_path / "secret")
    assert "hunter2hunter2" not in " ".join(words)
    (tmp_path / "secret").chmod(0o644)
    code, _, errors = run(
        *(capsys, "schedule", PLAYBOOK, "--print", "cron", "-i", "a.ini", "--sudo-password-file", "secret")
    )
    assert code == 3
    assert "others may read it" in errors


# ---- several


def test_the_faults_of_all_sources_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("all: {vars: 5}\n")
    (tmp_path / "good.yaml").write_text("all: {hosts: {a: }}\n")
    (tmp_path / "bad.ini").write_text("[g\n")
    sources = "\n".join(str(tmp_path / name) for name in ("bad.yaml", "good.yaml", "bad.ini", "missing"))
    with pytest.raises(InputError) as caught:
        inventory.read(sources)
    told = [fault.removeprefix(f"{tmp_path}/").split(":")[0] for fault in str(caught.value).splitlines()]
    assert told == ["bad.yaml", "bad.ini", "missing"]


def test_the_cluster_goes_with_no_other_inventory(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("all: {hosts: {a: }}\n")
    for sources in (f"{tmp_path}/good.yaml\nk8s:gpu", f"k8s:gpu\n{tmp_path}/good.yaml"):
        with pytest.raises(InputError, match="k8s:gpu: the cluster's Nodes go with no other inventory"):
            inventory.read(sources)


def test_two_hosts_that_claim_one_node_are_found_across_sources(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("all: {hosts: {a: {node_name: g1}}}\n")
    (tmp_path / "b.yaml").write_text("all: {hosts: {b: {node_name: g1}}}\n")
    with pytest.raises(InputError, match="a and b both claim Node g1"):
        inventory.read(f"{tmp_path}/a.yaml\n{tmp_path}/b.yaml")


# ---- faults with their line


def faults(source: str) -> str:
    read = inventory.read(source)
    with pytest.raises(InputError) as caught:
        demand_ways(read.hosts.values(), str(read.path))
    return str(caught.value)


def test_a_fault_of_a_variable_names_the_line_that_says_it(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/gpu.yml").write_text("---\nx: 1\nansible_user: a b\n")
    hosts = tmp_path / "hosts.yaml"
    hosts.write_text(
        "gpu:\n  hosts:\n    n1:\n      ansible_port: high\n    n2:\n      ansible_user: ok\n"
        "      ansible_ssh_common_args: --bogus\n    n3:\n      ansible_host: a;b\n    n4:\n"
    )
    told = faults(str(hosts)).splitlines()
    assert told[0].startswith(f"{tmp_path}/group_vars/gpu.yml:3: n1: ansible_user 'a b'")
    assert told[1].startswith(f"{hosts}:7: n2: ansible_ssh_common_args: ")
    assert told[2].startswith(f"{hosts}:9: n3: ansible_host 'a;b'")
    assert told[3].startswith(f"{tmp_path}/group_vars/gpu.yml:3: n4: ")
    ini = tmp_path / "hosts"
    ini.write_text("[web]\nw1\nw2 ansible_port=0\n[web:vars]\n# so\nansible_port=high\n")
    assert faults(str(ini)).splitlines() == [
        f"{ini}:6: w1: port 'high' is not a number from 1 to 65535",
        f"{ini}:3: w2: port '0' is not a number from 1 to 65535",
    ]


def test_a_later_source_takes_the_place_too(tmp_path: Path) -> None:
    first, script = tmp_path / "a.ini", tmp_path / "b.sh"
    first.write_text("n1 ansible_port=high\n")
    meta: dict[str, Any] = {"_meta": {"hostvars": {"n1": {"ansible_port": "low"}}}, "gpu": {"hosts": ["n1"]}}
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(meta)}\nEND\n")
    script.chmod(0o755)
    assert faults(f"{script}\n{first}").startswith(f"{first}:1: n1: port 'high'")
    assert faults(f"{first}\n{script}") == f"{first}, {script}: n1: port 'low' is not a number from 1 to 65535"


@pytest.mark.parametrize("key", ["ansible_host", "ansible_user", "ansible_port", "ansible_ssh_private_key_file"])
def test_what_ansible_vault_encrypted_is_refused_where_it_is_needed(tmp_path: Path, key: str) -> None:
    path = tmp_path / "hosts.yaml"
    sealed = "!vault |\n        $ANSIBLE_VAULT;1.1;AES256\n        6162\n"
    path.write_text(f"all:\n  vars:\n    ansible_password: {sealed}  hosts:\n    n1:\n      {key}: {sealed}")
    assert faults(str(path)) == (
        f"{path}:8: n1: {key} is encrypted by ansible-vault, which is not opened here: write it in the clear"
    )


def test_a_node_name_that_cannot_be_read_is_no_name(tmp_path: Path) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text("all:\n  hosts:\n    n1:\n      node_name: !vault |\n        $ANSIBLE_VAULT;1.1;AES256\n")
    with pytest.raises(InputError, match=r"hosts\.yaml:4: n1: node_name: must be text in the clear"):
        inventory.read(path)


def test_a_practice_fleet_has_nodes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for number in ("0", "-1"):
        code, _, errors = run(capsys, "lab", "up", f"--nodes={number}", "--folder", str(tmp_path / "lab"))
        assert (code, errors) == (3, f"fleetdrv: --nodes {number}: a practice fleet has at least one\n")
    assert not (tmp_path / "lab").exists()
