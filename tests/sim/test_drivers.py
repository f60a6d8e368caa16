"""The DKMS programs with the real dkms: what they leave behind, mend and refuse."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping

import pytest

from fleetdrv.holders import holders
from fleetdrv.parse import facts
from tests.sim.job import Step, probe, text
from tests.sim.node import SimNode
from tests.sim.toy import CONFIGURE, LOAD, RESTORE, UNLOAD, Toy, install_step, keep_step, stage_step, tarball

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def driver(node: SimNode, archives: Mapping[str, bytes]) -> Toy:
    return Toy(node, archives)


def test_the_whole_story(driver: Toy) -> None:
    node = driver.node
    driver.bring_to("1.0")
    first = node.loaded()["fleetdrv_toy"]
    driver.bring_to("1.1")
    state = node.end_state()
    assert state["dkms"] == [f"toy/1.1, {node.kernel}, x86_64: installed"]
    assert state["sources"] == ["toy-1.1"]
    assert state["loaded"] == state["files"] or state["files"] == {
        "fleetdrv_toy.ko": node.loaded()["fleetdrv_toy"]
    }
    assert node.loaded()["fleetdrv_toy"] != first
    assert node.call("cat /sys/class/misc/fleetdrv_toy/code") == "1.1\n"
    assert node.call("cat /sys/module/fleetdrv_toy/parameters/greeting") == "from-1.1\n"

    refused = driver.stage("1.2")
    assert refused.ending == "exit 68 stage"
    assert "implicit declaration of function" in refused.text
    assert node.end_state() == state

    assert driver.stage("1.3").ending == "exit 0"
    failed = driver.swap("1.3")
    assert failed.ending == "exit 78 load"
    reason = failed.text.splitlines()[-1]
    assert reason.startswith("fleetdrv_toy: fleetdrv_toy is not loaded; modprobe: ERROR: could not insert")
    assert "fleetdrv_toy: version 1.3 finds no device it can drive\n" in failed.text
    assert node.loaded() == {}

    back = driver.do(UNLOAD, (*RESTORE, "1.3"), LOAD)
    assert back.ending == "exit 0", back.text
    assert node.end_state() == state


def test_each_program_is_a_no_op_when_already_true(driver: Toy) -> None:
    node = driver.node
    driver.stage("1.0")
    assert "1.0 is staged already\n" in driver.stage("1.0").text
    driver.swap("1.0")
    before = node.end_state()
    inodes = node.call(
        "find /lib/modules/*/updates /var/lib/dkms /usr/src/toy-1.0 /etc/modprobe.d -ls | sort"
    )
    again = driver.do(install_step(node, "1.0"), CONFIGURE, LOAD, version="1.0")
    assert again.text == (
        f"== install\ntoy 1.0 is installed already for kernel {node.kernel}\n"
        "== configure\n/etc/modprobe.d/fleetdrv-toy.conf is as wanted\n"
        f"== load\nfleetdrv_toy is loaded already, from {file_on(node)}\n"
    )
    assert (
        node.call("find /lib/modules/*/updates /var/lib/dkms /usr/src/toy-1.0 /etc/modprobe.d -ls | sort")
        == inodes
    )
    assert node.end_state() == before
    driver.keep("1.0")
    kept = node.call("ls -i /var/lib/fleetdrv/good/toy")
    assert driver.keep("1.0").text == "== keep\ntoy: kept already\n"
    assert node.call("ls -i /var/lib/fleetdrv/good/toy") == kept
    restored = driver.do(RESTORE, LOAD)
    assert f"toy 1.0 is installed already for kernel {node.kernel}\n" in restored.text
    assert driver.do(UNLOAD).text.endswith("fleetdrv_toy is unloaded\n")
    assert driver.do(UNLOAD).text == "== unload\nfleetdrv_toy is not loaded\n"


def file_on(node: SimNode) -> str:
    return f"/lib/modules/{node.kernel}/updates/dkms/fleetdrv_toy.ko"


_DAMAGE = {
    "file replaced": "echo junk >{file}",
    "file deleted": "rm {file}",
    "depmod not run": "rm /lib/modules/*/modules.*; touch /lib/modules/{kernel}/modules.order",
    "dkms link lost": "rm /var/lib/dkms/toy/kernel-*",
    "sources lost": "rm -rf /usr/src/toy-1.0",
    "sources changed": "echo >>/usr/src/toy-1.0/Makefile",
    "tree lost": "rm -rf /var/lib/dkms/toy/1.0",
    "built module lost": "rm -rf /var/lib/dkms/toy/1.0/{kernel}/x86_64/module/*",
    "all lost": "rm -rf /var/lib/dkms/toy /usr/src/toy-1.0 {file}",
    "another version is broken": "cd /var/lib/dkms/toy; mkdir 0.9; ln -s /usr/src/toy-0.9 0.9/source",
}


@pytest.mark.parametrize("damage", _DAMAGE)
def test_damage_is_mended(driver: Toy, damage: str) -> None:
    node = driver.node
    driver.bring_to("1.0")
    wanted = node.end_state()
    node.call(_DAMAGE[damage].format(file=file_on(node), kernel=node.kernel))
    followed = driver.do(RESTORE)
    assert followed.ending == "exit 0", followed.text
    assert node.end_state() == wanted


def test_a_module_in_use_is_named_and_left(driver: Toy) -> None:
    node = driver.node
    driver.bring_to("1.0")
    before = node.end_state()
    (node.folder / "busy/fleetdrv_toy").touch()
    followed = driver.do(UNLOAD)
    assert followed.ending == "exit 75 unload"
    assert followed.text.splitlines()[-1].startswith("fleetdrv_toy is in use (count 1): ")
    assert node.end_state() == before
    node.call("mkdir /sys/module/fleetdrv_toy/holders/other_module")
    assert "in use (count 1): module other_module" in driver.do(UNLOAD).text
    node.call("echo going >/sys/module/fleetdrv_toy/initstate")
    assert driver.do(UNLOAD).ending == "exit 76 unload"


_POD = "0f6a1c52-3b7e-4c1d-9a35-7d2f8e4b6a10"


def test_a_process_in_a_pod_is_named_with_pid_command_and_pod(driver: Toy) -> None:
    node = driver.node
    driver.bring_to("1.0")
    pid = node.hold_device("fleetdrv_toy", f"0::/kubepods/burstable/pod{_POD}/{'8c1d' * 16}")
    followed = driver.do(UNLOAD)
    assert followed.ending == "exit 75 unload"
    named = f"process {pid} (sleep) of pod {_POD} container {'8c1d' * 16} has /dev/shm/fleetdrv_toy open"
    assert named in followed.text.splitlines()[-1]
    (said,) = holders(node.call("/bin/sh -s -- fleetdrv_toy", text("job.sh", "users.sh", "holders.sh")))
    assert (said.pid, said.command, said.pod) == (int(pid), "sleep", _POD)
    node.call(f"kill {pid}")
    assert holders(node.call("/bin/sh -s -- fleetdrv_toy", text("job.sh", "users.sh", "holders.sh"))) == ()


def test_what_a_refused_job_had_unloaded_is_loaded_again(driver: Toy) -> None:
    node = driver.node
    driver.bring_to("1.0")
    before = node.end_state()
    node.call("cp -a /sys/module/fleetdrv_toy /sys/module/other")
    (node.folder / "busy/other").touch()
    also: Step = ("unload other", "unload.sh", "other")
    followed = driver.do(UNLOAD, also, version="1.0")
    assert followed.ending == "exit 75 unload other"
    assert "fleetdrv_toy is loaded again" in followed.text
    assert followed.text.splitlines()[-1].startswith("other is in use"), "the reason comes last"
    node.call("rm -r /sys/module/other")
    assert node.end_state() == before


def test_a_modprobe_that_lies_is_found_out(driver: Toy) -> None:
    driver.bring_to("1.0")
    driver.stage("1.1")
    (driver.node.folder / "modprobe-lies").touch()
    followed = driver.swap("1.1")
    assert followed.ending == "exit 78 load"
    assert followed.text.splitlines()[-1] == "fleetdrv_toy: fleetdrv_toy is not loaded"


def test_loaded_code_that_is_not_the_files_is_found_out(driver: Toy) -> None:
    driver.bring_to("1.0")
    driver.stage("1.1")
    followed = driver.do(install_step(driver.node, "1.1"), LOAD)
    assert followed.ending == "exit 78 load"
    assert followed.text.splitlines()[-1].startswith("fleetdrv_toy: loaded is build id ")


def test_staging_refuses_before_it_compiles(driver: Toy) -> None:
    node = driver.node
    assert driver.do(stage_step(node, "1.0", "0" * 64), version="1.0").ending == "exit 65 stage"
    no_headers = (*stage_step(node, "1.0")[:-1], "9.9.9-none")
    assert driver.do(no_headers, version="1.0").ending == "exit 66 stage"
    assert driver.do(stage_step(node, "1.0"), version="1.1").ending == "exit 65 stage"
    assert node.call("ls -A /var/lib/fleetdrv/stage 2>/dev/null || :").split() == []
    state = node.end_state()
    assert (state["dkms"], state["sources"]) == ([], [])


def test_an_excluded_kernel_is_told_from_a_failed_build(driver: Toy) -> None:
    node = driver.node
    driver.archives["1.0"] = with_line_in_conf(driver.archives["1.0"], b'BUILD_EXCLUSIVE_KERNEL="^9"\n')
    sha256 = hashlib.sha256(driver.archives["1.0"]).hexdigest()
    assert driver.do(stage_step(node, "1.0", sha256), version="1.0").ending == "exit 67 stage"


def with_line_in_conf(archive: bytes, line: bytes) -> bytes:
    """Return a source archive whose dkms.conf has one more line."""
    changed = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=changed, mode="w") as new:
        for member in old:
            source = old.extractfile(member)
            content = source.read() if source else b""
            content += line if member.name.endswith("dkms.conf") else b""
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return changed.getvalue()


def test_staging_leaves_the_system_alone(driver: Toy) -> None:
    node = driver.node
    before = node.end_state()
    assert driver.stage("1.0").ending == "exit 0"
    assert {**node.end_state(), "staged": []} == before
    assert node.call("ls -A /var/lib/fleetdrv/stage /usr/src/ /var/lib/dkms").count("toy") == 0
    listed = node.call(f"tar -tzf {tarball('1.0')}").split()
    assert f"dkms_main_tree/{node.kernel}/x86_64/module/fleetdrv_toy.ko" in listed
    assert "dkms_source_tree/dkms.conf" in listed


def test_each_kernel_that_can_boot_gets_its_module(driver: Toy) -> None:
    """dkms mktarball and ldtarball forget all kernels but the first, and exit 0."""
    node, other = driver.node, "9.9.9-other"
    node.call(
        f"mkdir -p /lib/modules/{other}/kernel && cd /lib/modules/{other} &&"
        f"touch modules.order modules.builtin &&"
        f"ln -s $(readlink -f ../{node.kernel}/build) build && touch /boot/vmlinuz-{other}"
    )
    for version in ("1.0", "1.1"):
        assert driver.do((*stage_step(node, version), other), version=version).ending == "exit 0"
        steps = ((*install_step(node, version), other), (*keep_step(node, version), other))
        followed = driver.do(*steps, version=version)
        assert followed.ending == "exit 0", followed.text
        assert node.call("dkms status").splitlines() == [
            f"toy/{version}, {kernel}, x86_64: installed" for kernel in sorted((node.kernel, other))
        ]
    files = {
        file.kernel: file.identity.version for file in facts(probe(node, "module", "fleetdrv_toy")).files
    }
    assert files == {node.kernel: "1.1", other: "1.1"}
    node.call(f"rm -r /lib/modules/{other}/updates; rm -r /var/lib/dkms/toy")
    assert driver.do(RESTORE).ending == "exit 0"
    assert {file.kernel for file in facts(probe(node, "module", "fleetdrv_toy")).files} == {
        node.kernel,
        other,
    }


def test_dkms_itself_reads_our_tarball(driver: Toy) -> None:
    driver.stage("1.0")
    driver.node.call(f"dkms ldtarball {tarball('1.0')} && dkms install toy/1.0 -k {driver.node.kernel}")
    assert driver.do(install_step(driver.node, "1.0")).text.startswith(
        "== install\ntoy 1.0 is installed already"
    )


def test_keeping_follows_the_configuration(driver: Toy) -> None:
    node = driver.node
    driver.bring_to("1.0")
    assert driver.do(("configure", "configure.sh", "toy")).text.endswith("fleetdrv-toy.conf is removed\n")
    assert "kept as last known good" in driver.keep("1.0").text
    assert driver.do(CONFIGURE, RESTORE, version="x").ending == "exit 0"
    assert node.call("ls /etc/modprobe.d | grep -c fleetdrv || :") == "0\n"
    assert driver.do(("restore", "dkms_restore.sh", "other")).ending == "exit 72 restore"
    assert driver.do(keep_step(node, "9.9"), version="9.9").ending == "exit 70 keep"


def test_configuration_of_others_is_out_of_reach(driver: Toy) -> None:
    for target in ("/etc/passwd", "/etc/modprobe.d/other.conf", "/etc/modprobe.d/fleetdrv-toy2.conf"):
        step = ("configure", "configure.sh", "toy", "payload/toy.conf", target)
        assert driver.do(step).ending == "exit 64 configure"


def test_a_module_whose_file_is_called_otherwise(driver: Toy) -> None:
    """As NVIDIA's in Debian: built as one name, installed as another, loaded by the one it was built under."""
    node, names = driver.node, "fleetdrv_toy:toy-current:toy-current"
    driver.archives["1.0"] = with_line_in_conf(driver.archives["1.0"], b'DEST_MODULE_NAME[0]="toy-current"\n')
    sha256 = hashlib.sha256(driver.archives["1.0"]).hexdigest()
    assert driver.do(stage_step(node, "1.0", sha256), version="1.0").ending == "exit 0"
    load: Step = ("load", "load.sh", names)
    followed = driver.do(install_step(node, "1.0"), load, version="1.0")
    assert followed.ending == "exit 0", followed.text
    looked = facts(probe(node, "module", "fleetdrv_toy:toy-current"))
    file = looked.file("fleetdrv_toy", node.kernel)
    assert file is not None
    assert file.path.endswith("/toy-current.ko")
    assert looked.loaded["fleetdrv_toy"].identity == file.identity
    assert driver.do(load).text.endswith(f"fleetdrv_toy is loaded already, from {file.path}\n")

    node.call("cp -a /sys/module/fleetdrv_toy /sys/module/other")
    (node.folder / "busy/other").touch()
    refused = driver.do(("unload", "unload.sh", names, "other"))
    assert "toy-current is loaded again" in refused.text, "by the name that modprobe knows"
    assert set(node.loaded()) == {"fleetdrv_toy", "other"}
