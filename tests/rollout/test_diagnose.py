"""Why it failed, by name: of a failed step of a rollout, and of a node that somebody asks about; apt is real."""

from __future__ import annotations

import json
import stat
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from fleetdrv.api import Api
from tests.apt.repository import Key, Repository, dkms_package
from tests.fixtures_cluster import admin_api, control_plane, eventually, least_privilege  # noqa: F401  # fixtures
from tests.rollout.points import Moment
from tests.rollout.sim_fleet import Ended
from tests.rollout.test_packages import AptFleet
from tests.sim.debian import DebianNode

MARKER = "marker-s3cret-0815"


@pytest.fixture
def fleet(tmp_path: Path, least_privilege: Path, admin_api: Api, builds: Path) -> Iterator[AptFleet]:  # noqa: F811
    """One node, and a repository: 1.0 of the practice driver runs, 1.2 does not compile."""
    served = tmp_path / "srv"
    served.mkdir()
    with Key() as key:
        repository = Repository(served / "repository", key)
        repository.add(dkms_package("1.0"), dkms_package("1.2"))
        made = AptFleet(
            tmp_path, least_privilege, admin_api, builds, size=1, make=partial(DebianNode, served=served)
        )
        made.repository = repository
        yield made
        made.close()


def diagnose(fleet: AptFleet, *options: str, code: int) -> Ended:
    (name,) = fleet.nodes
    return fleet.fleetdrv("diagnose", name, "-i", str(fleet.inventory), *options, code=code)


def files_in(path: Path) -> dict[str, str]:
    with tarfile.open(path) as tar:
        members = [member for member in tar.getmembers() if member.isfile()]
        assert all(member.mode == 0o600 for member in members)
        return {
            member.name.partition("/")[2]: stream.read().decode()
            for member in members
            if (stream := tar.extractfile(member)) is not None
        }


def test_a_failed_step_has_its_cause_everywhere_and_cron_does_not_repeat_it(fleet: AptFleet) -> None:
    (name,), (node,) = fleet.nodes, fleet.nodes.values()
    ended = fleet.bring("1.2", code=4)
    assert f"{name}: failed: kernel-api-changed: The driver's source does not fit" in ended.out
    assert "cause: kernel-api-changed: " in ended.out
    assert "error: implicit declaration of function" in ended.out or "error: storage size of" in ended.out
    assert "remedy: Name a version of the driver in the playbook that supports this kernel." in ended.out
    last = json.loads(fleet.node(name)["metadata"]["annotations"]["fleetdrv.io/last-result"])
    assert last["finding"].startswith("kernel-api-changed: ")

    def told() -> bool:
        events = fleet.admin.get("/api/v1/events")["items"]
        return any(e["involvedObject"]["name"] == name and "kernel-api-changed" in e["message"] for e in events)

    eventually(told, "the Event that names the cause")
    jobs = node.started("stage")
    metrics = fleet.folder / "fleet.prom"
    book = str(fleet.folder / "packages.yaml")
    words = ("remediate", book, "-i", str(fleet.inventory), "--json", "--metrics-file", str(metrics))
    again = fleet.fleetdrv(*words, code=4).json["nodes"][name]
    assert again["verdict"] == "given up"
    assert "kernel-api-changed" in again["why"]
    assert node.started("stage") == jobs, "what cannot help is not tried"
    assert 'finding="kernel-api-changed"' in metrics.read_text()
    found = diagnose(fleet, "--json", code=4).json["findings"]
    assert found[0]["name"] == "kernel-api-changed"


def test_a_bundle_holds_the_evidence_and_no_secret_and_the_node_stays_as_it_was(fleet: AptFleet) -> None:
    (name,), (node,) = fleet.nodes, fleet.nodes.values()
    fleet.bring("1.0")
    node.call(
        "touch /var/lib/dpkg/updates/0001;"
        f"echo 'deb https://me:{MARKER}@repo.example/apt stable main' >/etc/apt/sources.list.d/theirs.list;"
        f"mkdir -p /var/log/apt; echo 'export NGC_API_KEY={MARKER}; token: {MARKER}' >>/var/log/apt/term.log;"
        f"cd /var/lib/fleetdrv/jobs; for log in */log; do echo 'curl --password {MARKER} x' >>$log; done;"
        f"printf '%s\\n' '-----BEGIN PRIVATE KEY-----' {MARKER} >>/var/log/apt/history.log;"
        f"mkdir -p /var/lib/dkms/toy/1.0/build;"
        f"echo 'said the-{MARKER}-variable' >/var/lib/dkms/toy/1.0/build/make.log;"
        "apt-cache stats >/dev/null"  # apt's own cache is renewed by whoever asks it first after that
    )
    inventory = yaml.safe_load(fleet.inventory.read_text())
    inventory["all"]["children"]["gpu"]["vars"]["registry_token"] = f"the-{MARKER}-variable"
    fleet.inventory.write_text(yaml.safe_dump(inventory))
    before, state = set(node.call(_ALL_FILES).splitlines()), fleet.end_state()
    fleet.points.arm(-1, Moment.BEFORE)
    path = fleet.folder / "evidence.tar.gz"
    ended = diagnose(fleet, "--output", str(path), code=4)
    assert set(node.call(_ALL_FILES).splitlines()) ^ before == set(), "it only reads"
    assert fleet.end_state() == state
    assert fleet.writes() == []
    assert f"{name}: " in ended.out.splitlines()[0]
    assert ended.out.splitlines()[1].startswith("1. dpkg-interrupted: ")
    assert f"fleetdrv repair {name}" in ended.out
    assert ended.out.splitlines()[-1].endswith(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    files = files_in(path)
    assert MARKER not in json.dumps(files)
    assert MARKER not in ended.raw + ended.errors
    told = {name.removeprefix("evidence/").removesuffix(".txt") for name in files}
    assert told >= {
        "kernel",
        "disks",
        "clock",
        "dkms-status",
        "loaded",
        "jobs",
        "apt-term",
        "probe",
        "findings.json",
    }
    assert "toy/1.0" in files["evidence/dkms-status.txt"]
    assert "repo.example" in files["evidence/sources/etc/apt/sources.list.d/theirs.list.txt"]
    assert json.loads(files["node.json"])["name"] == name
    assert json.loads(files["findings.json"])["findings"][0]["name"] == "dpkg-interrupted"
    again = diagnose(fleet, "--output", str(path), code=3)
    assert "is there already" in again.errors


_ALL_FILES = (
    "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /tmp \\) -prune -o -type f "
    "-printf '%p %s %T@ %m\\n'; find /var/lib /etc /usr/lib/modules -type f -printf '%p %s %T@ %m\\n'"
)


def test_of_a_node_that_does_not_answer_its_node_object_is_told(fleet: AptFleet) -> None:
    (name,) = fleet.nodes
    fleet.write_inventory({name: 1})
    document = diagnose(fleet, "--json", code=4).json
    assert document["findings"][0]["name"] == "node-unreachable"
    bundle = Path(document["bundle"])
    assert bundle.parent == fleet.folder / "fleetdrv/diagnoses"
    assert set(files_in(bundle)) == {"findings.json", "node.json"}


def test_nothing_is_found_wrong_where_all_is_well(fleet: AptFleet) -> None:
    fleet.bring("1.0")
    ended = diagnose(fleet, "--no-cluster", code=0)
    assert "nothing found wrong" in ended.out
