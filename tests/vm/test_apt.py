"""Packaged drivers on virtual machines: real apt, dpkg, DKMS and modprobe."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleetdrv import names
from tests.apt.repository import Package, build
from tests.rollout.sim_fleet import PLAYBOOKS
from tests.vm.mirror import Mirror, revised
from tests.vm.test_outage import Thief, told
from tests.vm.vm_fleet import VmFleet, eventually

NODE = "node-1"
ACPI_CALL = PLAYBOOKS / "acpi-call.yaml"
ACPI_CALL_VERSION = "1.2.2-2.1"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    made = Mirror(tmp_path_factory.mktemp("mirror"))
    yield made
    made.close()


def packages(fleet: VmFleet) -> str:
    """What dpkg, its holds and DKMS say of the node."""
    return fleet.ssh(NODE, "dpkg -l; apt-mark showhold; dkms status; dpkg --audit")


@pytest.mark.story
def test_a_packaged_driver_from_nothing_then_nothing_to_do(fleet: VmFleet) -> None:
    ended = fleet.apply_book(ACPI_CALL, "-l", NODE)
    print(ended)
    version = fleet.ssh(NODE, "dpkg-query -W -f '${Version} ${db:Status-Want}' acpi-call-dkms")
    assert version == f"{ACPI_CALL_VERSION} hold"
    assert fleet.loaded(NODE, "acpi_call") == fleet.on_disk(NODE, "acpi_call")
    label = fleet.node(NODE)["metadata"]["labels"]["fleetdrv.io/driver.acpi-call"]
    assert label == ACPI_CALL_VERSION
    written = len(fleet.audit())
    again = fleet.apply_book(ACPI_CALL, "-l", NODE, "--json").json
    assert again["nodes"][NODE]["verdict"] == "converged"
    assert again["effects"] == {"execs": 1, "api_writes": 0}
    assert len(fleet.audit()) == written, "the API server itself saw no write"


def with_a_version(tree: Path) -> None:
    """Change the driver's code: it tells its version now."""
    (source,) = tree.glob("usr/src/acpi-call-*/acpi_call.c")
    source.write_text(source.read_text() + '\nMODULE_VERSION("fleetdrv1");\n')


def test_a_newer_package_is_for_those_who_ask_and_its_outage_downloads_and_compiles_nothing(
    fleet: VmFleet, mirror: Mirror, record_property: Callable[[str, object], None]
) -> None:
    fleet.apply_book(ACPI_CALL, "-l", NODE)
    name = f"acpi-call-dkms_{ACPI_CALL_VERSION}_all.deb"
    deb = fleet.scratch / name
    deb.write_bytes(base64.b64decode(fleet.ssh(NODE, f"base64 -w0 /srv/packages/{name}")))
    mirror.repository.add_files(deb, revised(deb, "+fleetdrv1", with_a_version))
    book = yaml.safe_load(ACPI_CALL.read_text())
    book["drivers"][0]["apt"] = {"packages": {"acpi-call-dkms": f"{ACPI_CALL_VERSION}*"},
                                 "repository": mirror.source}
    path = fleet.write_playbook("acpi-call-newer", book)
    fleet.apply_book(path, "-l", NODE)
    assert fleet.ssh(NODE, "dpkg-query -W -f '${Version}' acpi-call-dkms") == ACPI_CALL_VERSION
    before, asked = fleet.loaded(NODE, "acpi_call"), len(mirror.requests)
    with Thief(fleet) as thief:
        ended = fleet.apply_book(path, "-l", NODE, "--upgrade", "--json").json["nodes"][NODE]
        thief.assert_in_time()
    assert ended["verdict"] == "changed", ended
    assert fleet.ssh(NODE, "dpkg-query -W -f '${Version}' acpi-call-dkms") == f"{ACPI_CALL_VERSION}+fleetdrv1"
    assert before != fleet.loaded(NODE, "acpi_call") == fleet.on_disk(NODE, "acpi_call")
    assert fleet.ssh(NODE, "cat /sys/module/acpi_call/version").strip() == "fleetdrv1"
    assert any("fleetdrv1_all.deb" in line.replace("%2B", "+") for line in mirror.requests[asked:])
    assert fleet.ssh(NODE, "dpkg --audit") == ""
    record_property("outage of a packaged driver, compiler and network taken away", told("emulated", ended))


def test_a_driver_that_excludes_the_kernel_is_refused_in_stage(fleet: VmFleet) -> None:
    before = packages(fleet)
    ended = fleet.apply_book(PLAYBOOKS / "v4l2loopback.yaml", "-l", NODE, code=4)
    assert f"{NODE}: incompatible" in ended.out
    assert fleet.ssh(NODE, "uname -r").strip() in ended.out
    assert "BUILD_EXCLUSIVE" in ended.out
    assert packages(fleet) == before
    assert not re.search(rf"{NODE} +cordon ", ended.errors)
    assert fleet.ssh(NODE, "modinfo v4l2loopback >/dev/null 2>&1 || echo none").strip() == "none"


def marks(fleet: VmFleet) -> dict[str, Any]:
    """What a refused node must not have got: our cordon, taint or label."""
    body = fleet.node(NODE)
    notes = body["metadata"].get("annotations", {})
    return {"spec": {key: body["spec"].get(key) for key in ("unschedulable", "taints")},
            "cordon": notes.get(names.CORDON), "run": body["metadata"]["labels"].get(names.RUN_LABEL)}


# -- what can be wrong with packages. The driver's module is the kernel's own, so that nothing is compiled.

TOOLS = "site-tools"
_CONFFILE = {"etc/site-tools.conf": "# the package's own, {version}\n"}


def tools(version: str, **fields: str) -> Package:
    """A package that has a configuration file, and nothing to do with the kernel."""
    files = {path: text.format(version=version) for path, text in _CONFFILE.items()}
    return Package(name=TOOLS, version=version, files=files, scripts={"conffiles": "/etc/site-tools.conf\n"},
                   fields=fields)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong before the command, how it ends, and what it says."""

    version: str = "1.1"
    before: str = ":"
    """Makes it so, on the node."""
    after: str = ":"
    """Undoes it."""
    code: int = 4
    words: Sequence[str] = ()
    expired: bool = False
    finishes: bool = True
    """Whether the same command is well once the fault is undone."""
    cordons: bool = False


_LOCK = "/var/lib/dpkg/lock-frontend"
_HOLDER = f"import fcntl, time; f = open('{_LOCK}', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(100000)"
_START = f'setsid python3 -c "{_HOLDER}" unattended-upgrade </dev/null >/dev/null 2>&1'
_TAKE = f"{_START} & echo $! >/run/locker; sleep 2"
_LET_GO = "kill $(cat /run/locker); rm -f /run/locker"


FAULTS = {
    "another apt never ends": Fault(before=_TAKE, after=_LET_GO, code=5,
                                    words=["dpkg's lock is held by process", "python3 -c"]),
    "the package is held": Fault(before=f"apt-mark hold {TOOLS}", after=f"apt-mark unhold {TOOLS}", code=5,
                                 words=[f"{TOOLS} is held at 1.0 by somebody else", f"apt-mark unhold {TOOLS}"]),
    "a configuration file was changed by hand": Fault(before="echo by hand >>/etc/site-tools.conf", code=0,
                                                      cordons=True),
    "a dependency that nobody has": Fault(version="2.0", words=["Depends: nonesuch (>= 3)"], finishes=False),
    "it would remove another": Fault(version="2.1", words=["would remove psmisc"], finishes=False),
    "the release file has expired": Fault(expired=True, words=["is expired"]),
    "the disk is full": Fault(
        before="apt-get clean; fallocate -l $(($(df --output=avail -B1 / | tail -n1) - 300000)) /var/full",
        after="rm /var/full", words=["space"]),
    "dpkg was interrupted": Fault(
        before="dpkg --unpack /root/half.deb", after="dpkg --configure -a", code=5,
        words=["dpkg was interrupted", "dpkg --configure -a"]),
}


@pytest.fixture(scope="module")
def faulty(mirror: Mirror) -> Mirror:
    """The mirror, with packages that are no good."""
    mirror.repository.add(tools("1.0"), tools("1.1"), tools("2.0", Depends="nonesuch (>= 3)"),
                          tools("2.1", Conflicts="psmisc"))
    return mirror


def _book(fleet: VmFleet, mirror: Mirror, version: str, conffiles: str = "keep") -> Path:
    source = {"packages": {TOOLS: version}, "repository": mirror.source, "hold": False, "conffiles": conffiles}
    driver = {"name": TOOLS, "apt": source, "modules": ["dummy"]}
    return fleet.write_playbook(f"tools-{version}", {"name": TOOLS, "hosts": "gpu", "drivers": [driver]})


def _version(fleet: VmFleet) -> str:
    return fleet.ssh(NODE, f"dpkg-query -W -f '${{Version}} ${{db:Status-Status}}' {TOOLS}")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] if "another apt" in name else [])
                                  for name in FAULTS])
def test_what_is_wrong_with_packages_is_named_and_the_node_serves(
    fleet: VmFleet, faulty: Mirror, tmp_path: Path, name: str
) -> None:
    fault = FAULTS[name]
    fleet.put(NODE, "/root/half.deb", build(Package(name="half-done", version="1"), tmp_path).read_bytes())
    # From 1.0, whatever a test before has left.
    fleet.ssh(NODE, f"dpkg --purge --force-all {TOOLS} >/dev/null 2>&1 || :")
    fleet.apply_book(_book(fleet, faulty, "1.0"), "-l", NODE)
    fleet.ssh(NODE, "rm -f /var/lib/fleetdrv/apt/refreshed.*")  # lists that are asked for anew
    book = _book(fleet, faulty, fault.version)
    faulty.repository.publish(valid_until=timedelta(hours=-1) if fault.expired else timedelta(days=1))
    fleet.ssh(NODE, fault.before)
    before = packages(fleet)
    try:
        ended = fleet.apply_book(book, "-l", NODE, code=None)
        assert ended.code == fault.code, ended
        for words in fault.words:
            assert words in ended.out + ended.errors, ended
        assert bool(re.search(rf"{NODE} +cordon ", ended.errors)) == fault.cordons
        assert marks(fleet)["spec"] == {"unschedulable": None, "taints": None}
        assert marks(fleet)["cordon"] is None
        if fault.code:
            assert packages(fleet) == before
    finally:
        fleet.ssh(NODE, fault.after)
        faulty.repository.publish()
    if fault.code and fault.finishes:
        fleet.apply_book(book, "-l", NODE)
    if fault.finishes:
        assert _version(fleet) == f"{fault.version} installed"
    assert fleet.ssh(NODE, "dpkg --audit") == ""


@pytest.mark.long
def test_another_apt_that_is_at_work_for_a_while_is_waited_for_while_the_node_serves(
    fleet: VmFleet, faulty: Mirror
) -> None:
    fleet.ssh(NODE, f"dpkg --purge --force-all {TOOLS} >/dev/null 2>&1 || :")
    fleet.apply_book(_book(fleet, faulty, "1.0"), "-l", NODE)
    fleet.ssh(NODE, _TAKE)
    book = str(_book(fleet, faulty, "1.1"))
    with fleet.start("apply", book, "-i", str(fleet.inventory), "--yes", "-l", NODE) as process:
        try:
            eventually(lambda: bool(fleet.journal("apt") or process.poll() is not None), "a wait for apt", 1200)
            waited = "".join(fleet.journal("apt"))
            assert marks(fleet)["cordon"] is None
        finally:
            fleet.ssh(NODE, _LET_GO)
            out, errors = process.communicate(timeout=1800)
    assert process.returncode == 0, (out, errors)
    assert waited.startswith("waiting while the node serves: dpkg's lock is held by process")
    assert _version(fleet) == "1.1 installed"
    assert marks(fleet)["spec"] == {"unschedulable": None, "taints": None}


def test_a_configuration_file_that_was_changed_by_hand(fleet: VmFleet, faulty: Mirror) -> None:
    fleet.ssh(NODE, f"dpkg --purge --force-all {TOOLS} >/dev/null 2>&1 || :")
    fleet.apply_book(_book(fleet, faulty, "1.0"), "-l", NODE)
    fleet.ssh(NODE, "echo by hand >/etc/site-tools.conf")
    ended = fleet.apply_book(_book(fleet, faulty, "1.1"), "-l", NODE, "--log-json")
    assert fleet.ssh(NODE, "cat /etc/site-tools.conf") == "by hand\n"
    del ended
    fleet.ssh(NODE, f"dpkg --purge --force-all {TOOLS} >/dev/null 2>&1 || :")
    fleet.apply_book(_book(fleet, faulty, "1.0"), "-l", NODE)
    fleet.ssh(NODE, "echo by hand >/etc/site-tools.conf")
    fleet.apply_book(_book(fleet, faulty, "1.1", conffiles="replace"), "-l", NODE)
    assert fleet.ssh(NODE, "cat /etc/site-tools.conf") == "# the package's own, 1.1\n"
