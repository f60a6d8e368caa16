"""Packaged drivers, whole rollouts: real apt, dpkg and DKMS on simulated nodes, under a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleetdrv.api import Api
from tests.apt.conftest import _packages
from tests.apt.repository import Key, Repository, dkms_package
from tests.fixtures_cluster import admin_api, control_plane, least_privilege  # noqa: F401  # fixtures
from tests.rollout.kills import kill_at
from tests.rollout.points import Moment
from tests.rollout.sim_fleet import Ended, SimFleet
from tests.rollout.test_story import Watcher
from tests.sim.debian import DebianNode
from tests.sim.node import build_id


class AptFleet(SimFleet):
    """Two nodes whose packages come from a repository that the tests publish."""

    repository: Repository
    more: Mapping[str, Any] = {}
    """What else the driver says."""

    def book(self, version: str, **apt: Any) -> Path:
        """Write a playbook that wants the packaged practice driver at a version or pattern."""
        (self.folder / "key.asc").write_bytes(self.repository.key.armoured)
        repository = {
            "uri": "file:/srv/repository",
            "suites": ["stable"],
            "components": ["main"],
            "key": "key.asc",
            "fingerprint": self.repository.key.fingerprint,
        }
        driver = {
            "name": "toy",
            "apt": {"packages": {"toy-dkms": version}, "repository": repository, **apt},
            "modules": ["fleetdrv_toy"],
            "checks": [["cat", "/sys/class/misc/fleetdrv_toy/code"]],
            **self.more,
        }
        path = self.folder / "packages.yaml"
        book = {"name": "toy", "hosts": "gpu", "pool": self.tag, "drivers": [driver]}
        path.write_text(yaml.safe_dump({**book, "rollout": {"canary": 1, "max_failures": 2}}))
        return path

    def command(self, version: str, **apt: Any) -> tuple[str, ...]:
        """Return the command line that applies it."""
        return ("apply", str(self.book(version, **apt)), "-i", str(self.inventory), "--yes")

    def bring(self, version: str, *options: str, code: int | None = 0, **apt: Any) -> Ended:
        """Apply it."""
        return self.fleetdrv(*self.command(version, **apt), *options, code=code)

    def look(self, version: str, *options: str, code: int | None = None, **apt: Any) -> Ended:
        """Plan it."""
        words = ("plan", str(self.book(version, **apt)), "-i", str(self.inventory), *options)
        return self.fleetdrv(*words, code=code)

    def packages(self) -> set[str]:
        """Return what the nodes have of the driver's package, each answer once."""
        ask = "dpkg-query -W -f '${db:Status-Abbrev}${Version}' toy-dkms 2>/dev/null || echo none"
        return {node.call(ask).strip() for node in self.nodes.values()}

    def recorded(self) -> dict[str, str]:
        """Return the versions in the run record."""
        lease = self.lease()
        assert lease is not None
        return dict(json.loads(lease["metadata"]["annotations"]["fleetdrv.io/run"])["versions"])

    def is_sound(self) -> bool:
        """Whether dpkg finds nothing half done, and every node serves."""
        sound = all(node.call("dpkg --audit") == "" for node in self.nodes.values())
        return sound and not any(self.node(name)["spec"].get("unschedulable") for name in self.nodes)


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    with Key() as made:
        yield made


@pytest.fixture
def size() -> int:
    """How many nodes."""
    return 2


@pytest.fixture
def fleet(
    tmp_path: Path,
    least_privilege: Path,  # noqa: F811
    admin_api: Api,  # noqa: F811
    builds: Path,
    key: Key,
    size: int,
) -> Iterator[AptFleet]:
    """Some nodes, and a repository with version 1.0 of the practice driver."""
    served = tmp_path / "srv"
    served.mkdir()
    repository = Repository(served / "repository", key)
    repository.add(*(package for package in _packages() if package.name != "toy-dkms"), dkms_package("1.0"))
    make = partial(DebianNode, served=served)
    made = AptFleet(tmp_path, least_privilege, admin_api, builds, size=size, make=make)
    made.repository = repository
    yield made
    made.close()


def test_from_nothing_then_nothing_to_do(fleet: AptFleet) -> None:
    ended = fleet.bring("1.0")
    assert fleet.packages() == {"hi 1.0"}
    assert sorted(map(len, fleet.compiled().values())) == [0, 1], "compiled on one node, brought to the other"
    for name, node in fleet.nodes.items():
        assert f"{name}: changed" in ended.out
        module = node.folder / "modules/up" / node.kernel / "updates/dkms/fleetdrv_toy.ko"
        assert node.loaded()["fleetdrv_toy"] == build_id(module)
        assert fleet.node(name)["metadata"]["labels"]["fleetdrv.io/driver.toy"] == "1.0"
    digest = fleet.repository.sha256["toy-dkms=1.0"]
    assert fleet.recorded() == {"debian 12/amd64/toy-dkms": f"1.0 {digest}"}
    fleet.points.arm(-1, Moment.BEFORE)
    again = fleet.bring("1.0", "--json")
    assert (fleet.writes(), again.json["effects"]) == ([], {"execs": 2, "api_writes": 0})
    assert {node["verdict"] for node in again.json["nodes"].values()} == {"converged"}


def test_a_pattern_means_one_version_until_an_upgrade_is_asked_for(fleet: AptFleet) -> None:
    first, second = fleet.nodes
    fleet.bring("1.*", "--limit", first)
    fleet.repository.add(dkms_package("1.1", Depends="dkms, toy-lib"))
    ended = fleet.bring("1.*")
    assert f"{second}: changed" in ended.out
    assert fleet.packages() == {"hi 1.0"}, "the second node gets what the run record says, not what is newest"
    assert fleet.bring("1.*").code == 0
    planned = fleet.look("1.*", "--upgrade", "--json", code=2).json
    assert {node["outcome"] for node in planned["nodes"].values()} == {"changeable"}
    fleet.bring("1.*", "--upgrade")
    assert fleet.packages() == {"hi 1.1"}
    assert fleet.recorded()["debian 12/amd64/toy-dkms"].startswith("1.1 ")
    assert fleet.look("1.*", "--upgrade").code == 0
    assert "toy-dkms for debian 12/amd64: 1.1" in fleet.look("1.*").out


def test_an_upgrade_is_undone_from_what_the_nodes_keep(fleet: AptFleet) -> None:
    fleet.bring("1.0")
    fleet.repository.add(dkms_package("1.1", Depends="dkms, toy-lib"))
    fleet.bring("1.1")
    assert fleet.packages() == {"hi 1.1"}
    for path in fleet.repository.folder.rglob("*.deb"):
        path.unlink()
    book, compiled = str(fleet.book("1.1")), fleet.compiled()
    ended = fleet.fleetdrv("rollback", book, "-i", str(fleet.inventory), "--yes", code=0)
    assert fleet.packages() == {"hi 1.0"}, ended
    assert fleet.compiled() == compiled
    assert fleet.is_sound()
    for node in fleet.nodes.values():
        assert node.loaded()["fleetdrv_toy"]
        assert node.call("cat /sys/class/misc/fleetdrv_toy/code").strip() == "1.0"
    again = fleet.fleetdrv("rollback", book, "-i", str(fleet.inventory), "--yes", "--json", code=0)
    assert {node["verdict"] for node in again.json["nodes"].values()} == {"converged"}


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("size", [1])
def test_a_module_whose_file_is_called_otherwise_needs_no_word_in_the_playbook(fleet: AptFleet) -> None:
    """As NVIDIA's in Debian, and the next version calls it otherwise again: each step has the right name."""
    for version, of, file in (("2.5", "1.0", "toy-current"), ("2.6", "1.1", "toy-next")):
        conf = f'DEST_MODULE_NAME[0]="{file}"\n'
        fleet.repository.add(dkms_package(version, of=of, conf=conf))
    (node,) = fleet.nodes.values()
    fleet.more = {"parameters": {"fleetdrv_toy": {"greeting": "hi"}}}

    def stands_at(file: str, code: str) -> None:
        """Loaded from that file, with its options; the boot would do the same, and nothing is left to do."""
        folder = node.folder / "modules/up" / node.kernel / "updates/dkms"
        assert [path.name for path in folder.iterdir()] == [f"{file}.ko"]
        assert node.loaded() == {"fleetdrv_toy": build_id(folder / f"{file}.ko")}
        assert node.call("cat /sys/module/fleetdrv_toy/version /sys/module/fleetdrv_toy/parameters/greeting") == (
            f"{code}\nhi\n"
        )
        own = node.call("cat /etc/modprobe.d/fleetdrv-toy.conf /etc/modules-load.d/fleetdrv-toy.conf")
        assert [line for line in own.splitlines() if line[0] != "#"] == [f"options {file} greeting=hi", file]

    fleet.bring("2.5")
    stands_at("toy-current", "1.0")
    fleet.points.arm(-1, Moment.BEFORE)
    again = fleet.bring("2.5", "--json")
    assert (fleet.writes(), again.json["effects"]) == ([], {"execs": 1, "api_writes": 0})
    fleet.bring("2.6")
    stands_at("toy-next", "1.1")
    node.call("rmmod fleetdrv_toy; rm /etc/modprobe.d/fleetdrv-toy.conf")
    drifted = fleet.fleetdrv("drift", str(fleet.book("2.6")), "-i", str(fleet.inventory), "--json", code=2)
    layers = [found["layer"] for found in drifted.json["nodes"][node.name]["drivers"]["toy"]]
    assert sorted(layers) == ["configuration", "loaded"]
    fleet.bring("2.6")
    stands_at("toy-next", "1.1")
    fleet.fleetdrv("rollback", str(fleet.book("2.6")), "-i", str(fleet.inventory), "--yes", code=0)
    stands_at("toy-current", "1.0")
    assert fleet.look("2.5").code == 0
    fleet.repository.add(dkms_package("2.7", of="1.3", conf='DEST_MODULE_NAME[0]="toy-broken"\n'))
    fleet.bring("2.7", code=4)
    stands_at("toy-current", "1.0")
    assert fleet.is_sound()


def test_a_version_whose_init_fails_is_rolled_back(fleet: AptFleet) -> None:
    fleet.bring("1.0")
    fleet.repository.add(dkms_package("1.3"))
    ended = fleet.bring("1.3", code=4)
    assert "back at its last known good, verified" in ended.out
    assert fleet.packages() == {"hi 1.0"}
    assert fleet.is_sound()
    assert fleet.look("1.0").code == 0


def test_a_package_that_cannot_be_configured_leaves_the_node_as_it_was(fleet: AptFleet) -> None:
    broken = replace(dkms_package("1.1"), scripts={"postinst": "#!/bin/sh\nexit 1\n"})
    fleet.repository.add(broken)
    ended = fleet.bring("1.1", code=4)
    assert "all is as it was" in ended.out
    assert fleet.packages() == {"none"}
    assert fleet.is_sound()


_REFUSED = {
    "it does not compile": ("1.2", 4, "toy 1.2 does not compile"),
    "it excludes the kernel": ("1.5", 4, "BUILD_EXCLUSIVE"),
    "a dependency that nobody has": ("2.0", 4, "nonesuch"),
    "it removes another package": ("2.2", 4, "would remove toy-tools"),
    "a version that nobody has": ("9", 4, "its lists offer 1.0, 1.2, 1.3, 1.5, 2.0, 2.1, 2.2, 2.3"),
}


@pytest.mark.parametrize("case", _REFUSED)
def test_what_does_not_fit_is_named_and_no_node_goes_out(fleet: AptFleet, case: str) -> None:
    version, code, words = _REFUSED[case]
    for node in fleet.nodes.values():
        node.call("dpkg -i /srv/repository/pool/toy-tools_1.0_all.deb")
    faulty = (p for p in _packages() if p.name == "toy-dkms" and p.version not in ("1.0", "1.1"))
    fleet.repository.add(*faulty)
    watcher = Watcher(fleet)
    ended = fleet.bring(version, code=None)
    watcher.stop()
    assert (ended.code, words in ended.out) == (code, True), ended
    assert (watcher.ever, fleet.packages()) == (set(), {"none"})
    assert fleet.is_sound()


def test_others_are_named_and_nothing_is_touched(fleet: AptFleet) -> None:
    held, interrupted = fleet.nodes.values()
    interrupted.call("dpkg --unpack /srv/repository/pool/toy-lib_1.0_all.deb")
    held.call("dpkg -i /srv/repository/pool/toy-dkms_1.0_all.deb && apt-mark hold toy-dkms")
    fleet.repository.add(dkms_package("1.1"))
    ended = fleet.bring("1.1", "--json", code=5)
    said = {name: (node["verdict"], node["why"] + node["evidence"]) for name, node in ended.json["nodes"].items()}
    assert said[interrupted.name][0] == "blocked"
    assert "dpkg --configure -a" in said[interrupted.name][1]
    assert said[held.name][0] == "blocked"
    assert "toy-dkms is held at 1.0 by somebody else" in said[held.name][1]
    assert held.call("apt-mark showhold") == "toy-dkms\n"


def test_lists_that_have_expired_are_not_believed(fleet: AptFleet) -> None:
    fleet.repository.publish(valid_until=-timedelta(days=1))
    ended = fleet.bring("1.0", code=4)
    assert "is expired" in ended.out
    assert (fleet.packages(), fleet.is_sound()) == ({"none"}, True)
    fleet.repository.publish()
    assert fleet.bring("1.0").code == 0


_LOCKS = (
    "use Fcntl; open F, q(>>), q(/var/lib/dpkg/lock-frontend) or die;"
    " my $whole = pack(q(s s x4 q q i x4), F_WRLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $whole) or die; sleep 400"
)
_TAKE_LOCK = f"perl -e '{_LOCKS}' </dev/null >/dev/null 2>&1 9>&- &"


def test_another_apt_is_waited_for_while_the_node_serves_then_named(fleet: AptFleet) -> None:
    """Between the stage and the outage somebody took dpkg's lock: the node is never cordoned."""
    first = next(iter(fleet.nodes.values()))
    hook = first.folder / "bin/apt-get"
    # Once the packages were downloaded the lock is taken, for longer than anybody waits.
    hook.write_text(f'#!/bin/sh\n/usr/bin/apt-get "$@" || exit\ncase "$*" in *download*) {_TAKE_LOCK} ;; esac\n')
    hook.chmod(0o755)
    ended = fleet.bring("1.0", "--limit", first.name, code=5)
    assert "blocked: apt cannot install now: dpkg's lock is held by process" in ended.out
    assert "waiting while the node serves: dpkg's lock is held by process" in ended.errors
    assert " cordon " not in ended.errors
    assert fleet.packages() == {"none"}
    assert fleet.is_sound()


def test_an_apt_that_came_in_the_drain_costs_the_node_only_a_moment(fleet: AptFleet) -> None:
    """Whoever took dpkg's lock after the cordon is no failure of the node: nothing is changed, it goes back."""
    first = next(iter(fleet.nodes.values()))
    ask = first.folder / "bin/df"  # apt_ready.sh alone asks for /usr, once it has seen no lock
    ask.write_text(f'#!/bin/sh\ncase "$*" in *" /usr") {_TAKE_LOCK} ;; esac\nexec /bin/df "$@"\n')
    ask.chmod(0o755)
    ended = fleet.bring("1.0", "--limit", first.name, code=5)
    assert f"{first.name}: blocked" in ended.out
    assert "may apt install now?: exit 86" in ended.out
    assert "after 10 s; nothing was changed" in ended.out
    assert fleet.packages() == {"none"}
    assert fleet.is_sound()


@pytest.mark.parametrize("size", [1])
def test_a_node_that_an_earlier_run_left_out_stays_out_though_nothing_more_was_done(fleet: AptFleet) -> None:
    """ "All is as it was" is said of one job; as it was, the node was broken."""
    (name,) = fleet.nodes
    node = fleet.nodes[name]
    fleet.repository.add(dkms_package("1.3"))
    fleet.bring("1.3", code=4)
    assert fleet.node(name)["spec"]["unschedulable"], "its init fails, and nothing was known good"
    full = node.folder / "bin/df"  # apt_ready.sh alone asks for /usr: the disk filled up since the stage
    says = 'case "$*" in *" /usr") printf "x\\nx 9 9 0 100%% /usr\\n" ;; *) exec /bin/df "$@" ;; esac'
    full.write_text(f"#!/bin/sh\n{says}\n")
    full.chmod(0o755)
    ended = fleet.bring("1.0", code=4)
    assert "may apt install now?: exit 83" in ended.out, ended
    assert "left out of service" in ended.out
    assert fleet.node(name)["spec"]["unschedulable"]
    full.unlink()
    fleet.bring("1.0")
    assert (fleet.packages(), fleet.is_sound()) == ({"hi 1.0"}, True)


@pytest.mark.parametrize("size", [1])
def test_killed_in_the_middle_of_dpkg_the_same_run_finishes(fleet: AptFleet) -> None:
    """Everything on the node is killed, as by a power cut, while the package is half configured.

    What follows the job dies with it, which is a lost link: the run looks again, and finds what it owes.
    """
    fleet.bring("1.0")
    package = dkms_package("1.1", Depends="dkms, toy-lib")
    once = "#!/bin/sh\n[ -e /var/lib/fleetdrv/cut ] || { : >/var/lib/fleetdrv/cut; kill -9 -1; }\n"
    scripts = {**package.scripts, "postinst": once + package.scripts["postinst"]}
    fleet.repository.add(replace(package, scripts=scripts))
    (node,) = fleet.nodes.values()
    before = len(node.started("outage"))
    fleet.bring("1.1")
    assert len(node.started("outage")) - before == 2, "the one that was killed, and the one that finished"
    assert (fleet.packages(), fleet.is_sound()) == ({"hi 1.1"}, True)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("size", [1])
@pytest.mark.parametrize("moment", Moment)
def test_killed_at_any_command_to_a_node_the_same_command_finishes(fleet: AptFleet, moment: Moment) -> None:
    """Writes to the cluster are those of test_crash.py; here it is the node's side that is another."""
    fleet.bring("1.0")
    fleet.repository.add(dkms_package("1.1", Depends="dkms, toy-lib"))
    fleet.snapshot()
    fleet.restore()
    fleet.points.arm(-1, Moment.BEFORE)
    fleet.bring("1.1")
    wanted = fleet.end_state()
    execs = [at for at, point in enumerate(fleet.points.seen) if point.kind == "exec"]
    assert len(execs) >= 6, fleet.points.seen
    for at in execs:
        fleet.restore()
        point = kill_at(fleet, fleet.command("1.1"), at, moment)
        ended = fleet.bring("1.1", code=None)
        told = f"killed at {at}, {moment}: {point}\n{ended}"
        assert ended.code == 0, told
        assert fleet.end_state() == wanted, told
