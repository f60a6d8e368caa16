"""What can go wrong with a node under a rollout: power, boot, disk, clock, compiler, headers, network, sshd.

Each says how it ends, in which words, and with which next command; where a person can mend it by the command that
is named, that is done and works. What is not here is elsewhere, seen on the same machines:

- dpkg's lock held by a process that calls itself unattended-upgrade, for a while and for ever; a package on hold;
  dpkg interrupted by others; a full disk under a download; an expired Release file: test_apt.py;
- the module held open, by whom ever: test_holders.py;
- init of the new module fails; a modprobe that lies; a cable unplugged in build and outage: test_story.py;
- SIGKILL of the controller: test_crash.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

from fleetdrv import names
from fleetdrv.lab import lab
from tests.apt.repository import Package
from tests.rollout.sim_fleet import Ended
from tests.vm.mirror import Mirror
from tests.vm.vm_fleet import CODE, VmFleet

pytestmark = pytest.mark.long

NODE = "node-1"
JOBS = "/var/lib/fleetdrv/jobs"
TOOLS = "site-tools"
BOOT_SECONDS = 1200.0
LATER = "6.1.0-999-cloud-amd64"
"""A kernel that is installed and newer than the one that runs."""


@contextmanager
def applying(fleet: VmFleet, book: Path) -> Iterator[Popen[bytes]]:
    """Have a rollout on the node under way; it is not outlived by its test."""
    with fleet.start("apply", str(book), "-i", str(fleet.inventory), "--yes", "-l", NODE) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def end(process: Popen[bytes]) -> Ended:
    out, errors = process.communicate(timeout=3000)
    return Ended(process.returncode, out.decode(), errors.decode())


def wait_for(fleet: VmFleet, condition: str) -> None:
    """Return when a condition holds on the node, which looks itself."""
    loop = f"until {condition}; do sleep 0.1; done"
    done = lab.ssh(fleet.folder, NODE, f"timeout 1500 bash -c '{loop}'", timeout_seconds=1600)
    assert done.returncode == 0, (condition, done)


def jobs(fleet: VmFleet) -> list[str]:
    """Name the jobs of the last run, without its id: PHASE.NUMBER."""
    listed = fleet.ssh(NODE, f"cd {JOBS} && ls -d {fleet.run}.*").split()
    return sorted(name.split(".", 1)[1] for name in listed)


def assert_whole(fleet: VmFleet) -> None:
    """What was shown of the jobs is what they said, byte for byte and in order."""
    said = fleet.ssh(NODE, f"cd {JOBS} && cat $(ls -tr -d {fleet.run}.*/digest | sed s,digest,log,)")
    assert "\n".join(fleet.journal()) + "\n" == said


def assert_serves(fleet: VmFleet) -> None:
    """Back in service, without a mark of ours, and nothing half done."""
    body = fleet.node(NODE)
    assert not body["spec"].get("unschedulable")
    assert not body["spec"].get("taints")
    assert names.CORDON not in body["metadata"].get("annotations", {})
    assert fleet.ssh(NODE, "dpkg --audit") == ""


def other(fleet: VmFleet) -> str:
    """Have the driver at some version, and name the one to go to."""
    if fleet.ssh(NODE, f"{CODE} 2>/dev/null || :").strip() not in ("1.0", "1.1"):
        fleet.apply("1.0", "-l", NODE)
    return "1.1" if fleet.ssh(NODE, CODE).strip() == "1.0" else "1.0"


# -- the machine goes away


@pytest.mark.usefixtures("fresh_cache")
def test_a_node_that_reboots_in_a_trial_build_comes_back_and_builds_again(fleet: VmFleet) -> None:
    version = other(fleet)
    with applying(fleet, fleet.playbook(version)) as process:
        wait_for(fleet, "pgrep -x cc1 >/dev/null")
        fleet.ssh(NODE, "systemctl reboot --no-block; exit 0")
        ended = end(process)
    assert ended.code == 0, ended
    assert jobs(fleet) == ["keep.1", "outage.1", "stage.1", "stage.2"]
    assert len(fleet.journal("cordon")) == 1
    assert fleet.ssh(NODE, CODE).strip() == version
    assert fleet.loaded(NODE) == fleet.on_disk(NODE)
    assert_serves(fleet)


BIG = "usr/share/site-tools/big"
_BLOCK = """#!/bin/sh
[ ! -e /run/block-configure ] || { touch /run/blocked; sleep 100000; }
"""
_RESTART_SSH = """#!/bin/sh
[ "$1" = configure ] || exit 0
systemctl restart ssh.service
pkill -9 -f '^sshd: root' || :
date >/var/tmp/sshd-restarted
"""


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    made = Mirror(tmp_path_factory.mktemp("faults"))
    big = {BIG: os.urandom(25_000_000)}
    made.repository.add(
        Package(name=TOOLS, version="1.0"),
        Package(name=TOOLS, version="1.1", files=big),
        Package(name=TOOLS, version="1.2", scripts={"postinst": _BLOCK}),
        Package(name=TOOLS, version="1.3", scripts={"postinst": _RESTART_SSH}),
        Package(name=TOOLS, version="1.4"),
        Package(name="old-kernel", version="1", files={"boot/vmlinuz-5.10.0-1-amd64": os.urandom(30_000_000)}),
        Package(name=f"linux-headers-{LATER}", version="1", scripts={"postinst": _headers()}),
    )
    yield made
    made.close()


def _headers() -> str:
    """Make the running kernel's headers those of another: what a package of them holds, without its size."""
    return f"""#!/bin/sh
set -e
running=$(uname -r)
cp -a /usr/src/linux-headers-$running /usr/src/linux-headers-{LATER}
cd /usr/src/linux-headers-{LATER}
echo '#define UTS_RELEASE "{LATER}"' >include/generated/utsrelease.h
sed -i "s/$running/{LATER}/g" .config include/config/auto.conf
ln -sfn /usr/src/linux-headers-{LATER} /lib/modules/{LATER}/build
"""


@pytest.fixture
def offered(fleet: VmFleet, mirror: Mirror) -> Iterator[None]:
    """The node's own apt knows the mirror, asked alone: once one of a host is dead, apt asks no other of it."""
    site = "/etc/apt/sources.list.d/site.list"
    line = f"deb [trusted=yes] {mirror.source['uri']} stable main\n"
    fleet.put(NODE, site, line.encode())
    alone = f"-o Dir::Etc::SourceList={site} -o Dir::Etc::SourceParts=/dev/null -o APT::Get::List-Cleanup=0"
    fleet.ssh(NODE, f"apt-get -q -o APT::Update::Error-Mode=any {alone} update")
    yield
    fleet.ssh(NODE, f"rm {site}")


def tools(fleet: VmFleet, mirror: Mirror, version: str) -> Path:
    """Write a playbook of the tools, with a module of the kernel's own."""
    source = {"packages": {TOOLS: version}, "repository": mirror.source, "hold": False}
    driver = {"name": TOOLS, "apt": source, "modules": ["dummy"]}
    return fleet.write_playbook(f"tools-{version}", {"name": TOOLS, "hosts": "gpu", "drivers": [driver]})


def installed(fleet: VmFleet) -> str:
    return fleet.ssh(NODE, f"dpkg-query -W -f '${{Version}} ${{db:Status-Status}}' {TOOLS}")


POWER = {
    "unpack": ("1.1", f"test -e /{BIG}.dpkg-new && pkill -STOP dpkg"),
    "configure": ("1.2", "test -e /run/blocked"),
}


@pytest.mark.parametrize("moment", POWER)
def test_a_power_cut_in_the_middle_of_dpkg_is_finished_by_the_same_run(
    fleet: VmFleet, mirror: Mirror, moment: str
) -> None:
    version, begun = POWER[moment]
    fleet.ssh(NODE, f"dpkg --purge --force-all {TOOLS} >/dev/null 2>&1; touch /run/block-configure")
    with applying(fleet, tools(fleet, mirror, version)) as process:
        wait_for(fleet, begun)
        machine = lab.machine(fleet.folder, NODE)
        boots = machine.boots()
        machine.power_cut()
        machine.start().wait_for_boot(boots + 1, BOOT_SECONDS)
        ended = end(process)
    assert ended.code == 0, ended
    assert installed(fleet) == f"{version} installed"
    assert jobs(fleet)[:3] == ["keep.1", "outage.1", "outage.2"]
    assert "finishing what a killed run of ours began" in fleet.journal()
    assert fleet.ssh(NODE, "cat /sys/module/dummy/initstate").strip() == "live"
    assert_serves(fleet)


def test_an_interface_that_is_gone_for_a_minute_in_the_outage_costs_nothing_but_the_minute(fleet: VmFleet) -> None:
    version = other(fleet)
    begun = f"find {JOBS} -path '*.outage.*/started' -newer /run/watch"
    down = "ip link set eth0 down; sleep 60; systemctl restart fleetdrv-lab-network; date >/run/was-down"
    watch = f'touch /run/watch; until [ -n "$({begun})" ]; do sleep 0.1; done; {down}'
    fleet.put(NODE, "/run/watch.sh", watch.encode())
    fleet.ssh(NODE, "rm -f /run/was-down; setsid sh /run/watch.sh </dev/null >/dev/null 2>&1 &")
    fleet.apply(version, "-l", NODE)
    assert fleet.ssh(NODE, "cat /run/was-down")
    assert [job for job in jobs(fleet) if not job.startswith("stage")] == ["keep.1", "outage.1"]
    assert_whole(fleet)
    assert fleet.ssh(NODE, CODE).strip() == version
    assert_serves(fleet)


def test_sshd_that_is_restarted_by_a_package_of_the_outage_takes_no_job_along(
    fleet: VmFleet, mirror: Mirror
) -> None:
    fleet.ssh(NODE, "rm -f /var/tmp/sshd-restarted")
    fleet.apply_book(tools(fleet, mirror, "1.3"), "-l", NODE)
    assert fleet.ssh(NODE, "cat /var/tmp/sshd-restarted")
    assert installed(fleet) == "1.3 installed"
    assert [job for job in jobs(fleet) if job.startswith("outage")] == ["outage.1"]
    assert_whole(fleet)
    assert_serves(fleet)


# -- the machine is not as it should be


@pytest.mark.usefixtures("fresh_cache")
def test_a_compiler_that_is_killed_is_named_and_the_same_command_tries_again(fleet: VmFleet) -> None:
    version = other(fleet)
    # Not any compiler: the kernel's Makefile asks one for the options that it has, and goes on without an answer.
    kill = "until pkill -9 -f '/cc1 .*[f]leetdrv_toy.c'; do sleep 0.05; done"
    fleet.ssh(NODE, f'setsid sh -c "{kill}" </dev/null >/dev/null 2>&1 &')
    ended = fleet.apply(version, "-l", NODE, code=4)
    assert "the compiler was killed" in ended.out
    assert "the same command tries again" in ended.out
    assert not fleet.journal("cordon")
    assert_serves(fleet)
    fleet.apply(version, "-l", NODE)
    assert fleet.ssh(NODE, CODE).strip() == version


@pytest.mark.usefixtures("offered")
def test_a_full_boot_is_found_before_the_cordon_and_the_command_that_is_named_makes_room(fleet: VmFleet) -> None:
    version = other(fleet)
    fleet.ssh(NODE, "cp -a /etc/initramfs-tools /root/; echo MODULES=list >/etc/initramfs-tools/conf.d/short; "
                    "echo fleetdrv_toy >>/etc/initramfs-tools/modules; cp -a /boot /root/boot")
    try:
        fleet.ssh(NODE, "mount -t tmpfs -o size=200m none /boot && cp -a /root/boot/. /boot && "
                        "update-initramfs -u && apt-get -q -y install old-kernel >/dev/null && "
                        "apt-mark auto old-kernel >/dev/null && used=$(df --output=used -B1 /boot | tail -n1) && "
                        "mount -o remount,size=$((used + 1000000)) /boot")
        ended = fleet.apply(version, "-l", NODE, code=4)
        assert "/boot: " in ended.out
        assert "carries fleetdrv_toy" in ended.out
        assert "/boot is full: the initramfs of a kernel cannot be written" in ended.out
        assert "apt-get autoremove --purge" in ended.out
        assert not fleet.journal("cordon")
        assert_serves(fleet)
        fleet.ssh(NODE, "apt-get -q -y autoremove --purge")
        fleet.apply(version, "-l", NODE)
        assert any("is written anew: it carries fleetdrv_toy" in line for line in fleet.journal())
        assert fleet.ssh(NODE, CODE).strip() == version
        assert_serves(fleet)
    finally:
        fleet.ssh(NODE, "umount /boot; rm -r /etc/initramfs-tools; mv /root/initramfs-tools /etc/; "
                        "rm -r /root/boot; dpkg --purge old-kernel >/dev/null 2>&1; exit 0")


@pytest.mark.usefixtures("fresh_cache")
def test_a_full_var_is_found_before_the_cordon(fleet: VmFleet) -> None:
    version = other(fleet)
    free = "$(df --output=avail -B1 /var/lib | tail -n1)"
    fleet.ssh(NODE, f"fallocate -l $(({free} - 20000000)) /var/full")
    try:
        ended = fleet.apply(version, "-l", NODE, code=4)
        assert "/var/lib/fleetdrv: " in ended.out
        assert "KiB free, too few to build" in ended.out
        assert not fleet.journal("cordon")
        assert_serves(fleet)
    finally:
        fleet.ssh(NODE, "rm /var/full")
    fleet.apply(version, "-l", NODE)
    assert fleet.ssh(NODE, CODE).strip() == version


def test_a_clock_that_is_behind_is_named(fleet: VmFleet, mirror: Mirror) -> None:
    book = tools(fleet, mirror, "1.4")
    fleet.ssh(NODE, "rm -f /var/lib/fleetdrv/apt/refreshed.*")
    mirror.repository.publish()
    fleet.ssh(NODE, "date -s '-8 hours'")
    try:
        ended = fleet.apply_book(book, "-l", NODE, code=4)
        assert "is not valid yet" in ended.out
        assert "the clock of this node says" in ended.out
        assert not fleet.journal("cordon")
        assert_serves(fleet)
    finally:
        fleet.ssh(NODE, f"date -s @{time.time():.0f}")
    fleet.apply_book(book, "-l", NODE)
    assert installed(fleet) == "1.4 installed"


@pytest.mark.usefixtures("fresh_cache", "offered")
def test_headers_that_are_missing_for_the_newest_kernel_and_a_boot_without_a_build(fleet: VmFleet) -> None:
    version = other(fleet)
    running = fleet.ssh(NODE, "uname -r").strip()
    fleet.ssh(NODE, f"mkdir -p /lib/modules/{LATER}/kernel; cd /lib/modules; cp {running}/modules.[ob]* {LATER}; "
                    f"touch /boot/vmlinuz-{LATER}")
    try:
        written = len(fleet.audit())
        ended = fleet.apply(version, "-l", NODE, code=4)
        remedy = f"apt-get install linux-headers-{LATER}"
        assert f"no headers for kernel {LATER}, which can boot next; on the node: {remedy}" in ended.out
        assert "unschedulable" not in str(fleet.audit()[written:])
        assert_serves(fleet)
        fleet.ssh(NODE, f"{remedy} -q -y")
        fleet.apply(version, "-l", NODE)
        status = fleet.ssh(NODE, "dkms status")
        for kernel in (running, LATER):
            assert f"toy/{version}, {kernel}, x86_64: installed" in status
        _comes_up_without_a_build(fleet, version, running)
    finally:
        fleet.ssh(NODE, f"dkms uninstall -m toy -v {version} -k {LATER}; dpkg --purge linux-headers-{LATER}; "
                        f"rm -rf /usr/src/linux-headers-{LATER} /lib/modules/{LATER} /boot/vmlinuz-{LATER} "
                        f"/var/lib/dkms/toy/*/{LATER}; exit 0")


def _comes_up_without_a_build(fleet: VmFleet, version: str, running: str) -> None:
    """The node boots the older kernel, for which somebody has taken the driver away."""
    fleet.ssh(NODE, f"dkms remove -m toy -v {version} -k {running}; sync")
    machine = lab.machine(fleet.folder, NODE)
    boots = machine.boots()
    machine.reset()
    machine.wait_for_boot(boots + 1, BOOT_SECONDS)
    fleet.await_boot(NODE)
    assert fleet.ssh(NODE, f"{CODE} 2>/dev/null || echo none").strip() == "none"
    planned = fleet.plan(version, "-l", NODE, code=2)
    assert f"found nothing for {running}" in planned.out
    fleet.apply(version, "-l", NODE)
    assert not fleet.journal("drain"), "nothing was loaded that a pod could use"
    assert fleet.ssh(NODE, CODE).strip() == version
    assert fleet.loaded(NODE) == fleet.on_disk(NODE)
    assert_serves(fleet)
