"""The real probe.sh on a simulated node: every state of a driver, read by `parse.facts`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from fleetdrv import parse
from fleetdrv.model import Identity, NodeFacts, Sameness
from fleetdrv.modprobe import OptionLine, settings
from tests.sim.job import PROBE, probe, text
from tests.sim.node import SimNode
from tests.sim.toy import Toy

pytestmark = pytest.mark.timeout(120)

_ALL = ("pool", "gpu", "module", "fleetdrv_toy", "dkms", "toy", "driver", "toy")


def look(node: SimNode) -> NodeFacts:
    return parse.facts(probe(node, *_ALL))


@pytest.fixture
def driver(node: SimNode, archives: Mapping[str, bytes]) -> Toy:
    return Toy(node, archives)


def test_a_fresh_node(node: SimNode) -> None:
    facts = look(node)
    assert (facts.machine_id, facts.boot_id) == (node.machine_id, node.boot_id)
    assert facts.kernels.bootable == (node.kernel,)
    assert node.kernel in facts.headers
    assert (facts.loaded, facts.files, facts.dkms, facts.good) == ({}, (), (), {})
    assert (facts.jobs, facts.staged, facts.highest_token) == ((), frozenset(), 0)
    assert facts.dkms_version
    assert facts.compiler.startswith("gcc")
    assert set(facts.free_kib) == {"/var", "/boot", "/lib/modules"}


def test_another_build_of_the_same_kernel_release_is_told_apart(node: SimNode) -> None:
    headers = Path(f"/lib/modules/{node.kernel}/build")
    digests = [hashlib.sha256((headers / name).read_bytes()).hexdigest() for name in ("Module.symvers", ".config")]
    assert parse.facts(probe(node, "module", "toy")).abi == {}, "read only where DKMS is asked about"
    asked = parse.facts(probe(node, "dkms", "toy", "dkms", "other"))
    assert asked.abi == {node.kernel: " ".join(digests)}
    node.call(f"cd $(readlink -f {headers}) && sed -i 's/^0x./0xf/' Module.symvers")
    rebuilt = parse.facts(probe(node, "dkms", "toy")).abi[node.kernel]
    assert rebuilt != asked.abi[node.kernel]
    assert rebuilt.split()[1] == digests[1]
    node.call(f"rm $(readlink -f {headers})/.config")
    assert parse.facts(probe(node, "dkms", "toy")).abi == {}


def test_a_driver_at_work(driver: Toy) -> None:
    driver.bring_to("1.0")
    facts = look(driver.node)
    module = facts.loaded["fleetdrv_toy"]
    file = facts.file("fleetdrv_toy", driver.node.kernel)
    assert file is not None
    assert module.identity == file.identity
    assert module.identity.build_id == driver.node.loaded()["fleetdrv_toy"]
    assert module.identity.compare(file.identity) is Sameness.SAME
    assert (module.identity.version, module.state, module.refcount) == ("1.0", "live", 0)
    assert module.parameters == {"greeting": "from-1.0"}
    assert [(entry.version, entry.state, entry.kernel) for entry in facts.dkms] == [
        ("1.0", "installed", driver.node.kernel)
    ]
    assert facts.good["toy"].digest == "digest-1.0"
    assert facts.good["toy"].wanted == '{"version": "1.0"}'
    assert set(facts.configuration) == {"/etc/modprobe.d/fleetdrv-toy.conf"}
    assert [job.exit_code for job in facts.jobs] == [0, 0, 0]
    assert facts.staged == frozenset()
    driver.stage("1.1")
    assert look(driver.node).staged == {"1.1"}


@pytest.mark.parametrize(("packer", "suffix"), [("xz", "xz"), ("zstd", "zst")])
def test_packed_modules_have_the_same_marks(driver: Toy, packer: str, suffix: str) -> None:
    driver.bring_to("1.0")
    node = driver.node
    before = look(node).file("fleetdrv_toy", node.kernel)
    folder = f"/lib/modules/{node.kernel}/updates/dkms"
    node.call(f"cd {folder} && {packer} -q fleetdrv_toy.ko && rm -f fleetdrv_toy.ko && depmod {node.kernel}")
    after = look(node).file("fleetdrv_toy", node.kernel)
    assert before is not None
    assert after is not None
    assert after.path.endswith(f".ko.{suffix}")
    assert after.identity == before.identity


def test_a_note_far_inside_a_file_is_found(node: SimNode) -> None:
    note = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0" + bytes(range(9, 29))
    source = text("module.sh") + b"cat >/tmp/$$.ko; file_build_id /tmp/$$.ko; rm /tmp/$$.ko; echo $build_id\n"
    command = "mount -t tmpfs tmpfs /tmp; . /dev/fd/3"
    for content in (b"\n\0" * 5000 + note + b"x" * 100, b"\0" * 300 + note):
        said = node.call(f"{command} 3<<'END'\n{source.decode()}END\n", content)
        assert said.strip() == bytes(range(9, 29)).hex()
    assert node.call(f"{command} 3<<'END'\n{source.decode()}END\n", b"no note").strip() == ""


@pytest.mark.parametrize(("packer", "suffix"), [("xz", "xz"), ("zstd", "zst"), ("gzip", "gz")])
def test_a_packed_file_has_the_build_id_of_the_file_in_it(driver: Toy, packer: str, suffix: str) -> None:
    """Also one of gzip's: Debian's kmod cannot read it (-ZLIB) and names none, that of others does."""
    driver.bring_to("1.0")
    packed = f"/tmp/toy.ko.{suffix}"
    source = text("module.sh").decode() + f"file_build_id {packed}; echo $build_id\n"
    pack = f"{packer} -qc /lib/modules/{driver.node.kernel}/updates/dkms/fleetdrv_toy.ko >{packed}"
    said = driver.node.call(f"mount -t tmpfs tmpfs /tmp; {pack}; . /dev/fd/3 3<<'END'\n{source}END\n")
    assert said.strip() == driver.node.loaded()["fleetdrv_toy"]


def test_a_damaged_file_is_there_without_marks(driver: Toy) -> None:
    driver.bring_to("1.0")
    node = driver.node
    node.call(f"echo junk >/lib/modules/{node.kernel}/updates/dkms/fleetdrv_toy.ko")
    facts = look(node)
    file = facts.file("fleetdrv_toy", node.kernel)
    assert file is not None
    assert file.identity == Identity()
    assert facts.loaded["fleetdrv_toy"].identity.compare(file.identity) is Sameness.DIFFERENT
    assert facts.dkms[0].remark == "Differences between built and installed modules"


_DKMS_STATES = {
    "installed": "true",
    "another version built": "mkdir 0.9; ln -s /usr/src/toy-1.0 0.9/source; cp -r 1.0/{kernel} 0.9/",
    "another version added": "mkdir 0.9; ln -s /usr/src/toy-1.0 0.9/source",
    "no built module": "rm 1.0/{kernel}/x86_64/module/*",
    "only built": "dkms uninstall toy/1.0 -k {kernel}",
    "file replaced": "echo junk >/lib/modules/{kernel}/updates/dkms/fleetdrv_toy.ko",
    "removed": "dkms remove toy/1.0 --all",
}


@pytest.mark.parametrize("change", _DKMS_STATES)
def test_dkms_is_read_as_dkms_itself_would(driver: Toy, change: str) -> None:
    driver.bring_to("1.0")
    node = driver.node
    node.call("cd /var/lib/dkms/toy && " + _DKMS_STATES[change].format(kernel=node.kernel))
    itself = [parse.dkms_status(line) for line in node.call("dkms status").splitlines()]
    ours = look(node).dkms
    assert [(e.version, e.kernel, e.arch, e.state) for e in ours] == [
        (e.version, e.kernel, e.arch, e.state) for e in itself
    ]
    assert [bool(entry.remark) for entry in ours] == [bool(entry.remark) for entry in itself]


def test_a_broken_version_does_not_hide_the_others(driver: Toy) -> None:
    driver.bring_to("1.0")
    driver.node.call("cd /var/lib/dkms/toy; mkdir 0.9; ln -s /usr/src/toy-0.9 0.9/source")
    assert [(entry.version, entry.state) for entry in look(driver.node).dkms] == [
        ("0.9", "broken"),
        ("1.0", "installed"),
    ]


def test_holders_are_followed(driver: Toy) -> None:
    driver.bring_to("1.0")
    driver.node.call(
        "cd /sys/module; cp -r fleetdrv_toy top; mkdir fleetdrv_toy/holders/middle;"
        "cp -r top middle; mkdir middle/holders/top; echo 3 >fleetdrv_toy/refcnt"
    )
    loaded = look(driver.node).loaded
    assert {name: set(module.holders) for name, module in loaded.items()} == {
        "fleetdrv_toy": {"middle"},
        "middle": {"top"},
        "top": set(),
    }
    assert loaded["fleetdrv_toy"].refcount == 3


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("rm /sys/module/fleetdrv_toy/refcnt", "loaded fleetdrv_toy: initstate or refcnt cannot be read"),
        ("echo junk >/sys/module/fleetdrv_toy/notes/.note.gnu.build-id", "its build id cannot be read"),
        ("rm /var/lib/fleetdrv/good/toy/current/digest", "good toy: cannot be read"),
        ("umount /etc/machine-id 2>/dev/null; : >/etc/machine-id", "machine-id: /etc/machine-id"),
    ],
)
def test_what_cannot_be_read_is_an_error(driver: Toy, damage: str, complaint: str) -> None:
    driver.bring_to("1.0")
    driver.node.call(damage)
    with pytest.raises(parse.ProbeError, match=complaint):
        look(driver.node)


def test_checks_say_all_they_said(node: SimNode) -> None:
    source = r"printf 'a\n\nb\n' >&2; printf '\377'; exit 3"
    facts = parse.facts(probe(node, "check", "3", "sh", "-c", source, "check", "1", "no-such-program"))
    first, second = facts.checks
    assert first.argv == ("sh", "-c", source)
    assert (first.exit_code, first.output) == (3, "a\n\nb\n\N{REPLACEMENT CHARACTER}")
    assert (second.argv, second.exit_code) == (("no-such-program",), 127)
    long = parse.facts(probe(node, "check", "3", "sh", "-c", "yes | head -c 100000"))
    assert long.checks[0].exit_code == 0
    assert len(long.checks[0].output) < 16384


def test_the_boot_loader_may_name_another_kernel(node: SimNode) -> None:
    newer, older = "9.9.0-1-amd64", node.kernel
    node.call(f"mkdir -p /lib/modules/{newer}/kernel; : >/boot/vmlinuz-{newer}; : >/etc/default/grub")
    kernels = look(node).kernels
    assert (kernels.running, kernels.newest, kernels.default) == (older, newer, newer)
    entry = f"Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux {older}"
    node.call(f"echo 'GRUB_DEFAULT=\"{entry}\"' >/etc/default/grub")
    assert look(node).kernels.default == older
    node.call("mkdir -p /boot/grub; echo GRUB_DEFAULT=saved >/etc/default/grub")
    node.call(f"printf 'saved_entry=gnulinux-{older}-advanced\\n####' >/boot/grub/grubenv")
    assert look(node).kernels.default == older
    node.call(f"rm /boot/vmlinuz-{newer}")
    assert look(node).kernels.newest == older


def test_it_writes_nothing(driver: Toy) -> None:
    driver.bring_to("1.0")
    inspect = (
        "find /etc /var/lib/fleetdrv /var/lib/dkms /usr/src/toy-1.0 /sys/module -printf '%p %T@ %s\\n' | sort"
    )
    before = driver.node.call(inspect)
    look(driver.node)
    assert driver.node.call(inspect) == before


def test_it_starts_few_processes(driver: Toy) -> None:
    """Pids of the node's own namespace count up by one a process; each is 10 to 20 ms on an emulated node."""
    driver.bring_to("1.0")
    ask = "sh -c 'echo $$'"
    first = int(driver.node.call(ask))
    look(driver.node)
    assert int(driver.node.call(ask)) - first < 40


@pytest.mark.parametrize(
    "words", ["module", "module ../x", "module -x", "check 0", "check 2 one", "else x", "pool a/b"]
)
def test_other_words_are_refused(node: SimNode, words: str) -> None:
    source = text(*PROBE)
    with node.run(f"/bin/sh -s -- {words}", source) as process:
        said, complaint = process.communicate(timeout=30)
    assert process.returncode == 64
    assert b"usage: " in complaint
    with pytest.raises(parse.ProbeError):
        parse.facts(said.decode())


def test_half_done_packages_count_as_interrupted_unless_dpkg_is_at_work(node: SimNode) -> None:
    """Unattended upgrades leave packages half done for minutes: nobody has to mend what is under way."""
    assert not look(node).dpkg_interrupted
    node.call(r"printf 'Package: half\nStatus: install ok half-configured\n\n' >>/var/lib/dpkg/status")
    assert look(node).dpkg_interrupted
    holds = (
        "import fcntl, os, time; f = open('/var/lib/dpkg/lock', 'w'); "
        "fcntl.lockf(f, fcntl.LOCK_EX); print(os.getpid(), flush=True); time.sleep(60)"
    )
    with node.run(f'exec python3 -c "{holds}"') as dpkg:
        assert dpkg.stdout is not None
        pid = int(dpkg.stdout.readline())
        assert not look(node).dpkg_interrupted
        node.call(f"kill -9 {pid}")
        dpkg.wait(timeout=30)
    assert look(node).dpkg_interrupted


_LOG = """\
<6>[    0.000000] Linux version 6.1.0
<3>[   10.000001] ata1: failed command: WRITE DMA
<3>[   11.5] fleetdrv_toy: cannot find its device
<4>[   12.000000][  T99] WARNING: CPU: 0 PID: 99 at /build/toy.c:10 toy_open+0x1/0x2 [fleetdrv_toy]
<4>[   13.000000] WARNING: CPU: 0 PID: 99 at fs/other.c:10 other+0x1/0x2 [other]
<6>[   14.000000] fleetdrv_toy: loaded
<1>[   15.000000] BUG: unable to handle page fault for address: 00000000000000a0
<1>[   16.000000] Oops: 0002 [#1] PREEMPT SMP\twith a tab
<3>[   17.000000] INFO: task kworker:7 blocked for more than 120 seconds.
<3>[   18.000000] NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.
<12>[   19.000000] a process says BUG: and Oops: here
<3>[   20.000000] fleetdrv-toy 0000:00:04.0: probe failed
<3>[   21.000000] fleetdrv_toys: another module
<4>[   22.000000] Firmware Bug: general remark
"""


def test_faults_of_the_kernel_and_of_the_drivers_modules_are_told_from_the_rest_of_its_log(node: SimNode) -> None:
    (node.folder / "kmsg").write_text(_LOG)
    assert look(node).faults == (), "not asked"
    faults = parse.facts(probe(node, "module", "fleetdrv_toy", "faults")).faults
    assert [fault.stamp for fault in faults] == [11.5, 12.0, 15.0, 16.0, 17.0, 18.0, 20.0]
    assert faults[3].text == "Oops: 0002 [#1] PREEMPT SMP\twith a tab"
    assert faults[1].text.startswith("WARNING: CPU: 0")
    (node.folder / "kmsg").write_text("<6>[    0.000000] Linux version 6.1.0\n")
    assert parse.facts(probe(node, "faults", "module", "fleetdrv_toy")).faults == ()


def test_only_the_newest_faults_are_told(node: SimNode) -> None:
    (node.folder / "kmsg").write_text("".join(f"<1>[   {n}.0] Oops: {n}\n" for n in range(30)))
    faults = parse.facts(probe(node, "module", "fleetdrv_toy", "faults")).faults
    assert [fault.stamp for fault in faults] == [float(n) for n in range(10, 30)]


def test_a_kernel_log_that_cannot_be_read_is_no_calm_kernel(node: SimNode) -> None:
    stand_in = node.folder / "bin/dmesg"
    stand_in.unlink()
    stand_in.write_text("#!/bin/sh\nexit 1\n")
    stand_in.chmod(0o755)
    with pytest.raises(parse.ProbeError, match="dmesg cannot be read"):
        parse.facts(probe(node, "module", "fleetdrv_toy", "faults"))


_THEIRS = r"""
for folder in /etc /run /usr/local/lib /lib; do
    mount -t tmpfs tmpfs $folder/modprobe.d 2>/dev/null || mount -t tmpfs tmpfs $folder
    mkdir -p $folder/modprobe.d
done
echo 'options a x=1' >/lib/modprobe.d/z.conf
echo 'options a x=2' >/usr/local/lib/modprobe.d/b.conf
echo 'options a hidden=1' | tee /run/modprobe.d/d.conf >/lib/modprobe.d/c.conf
ln -s /dev/null /etc/modprobe.d/c.conf
echo 'options a ignored=1' | tee /etc/modprobe.d/e.txt >/etc/modprobe.d/.e.conf
cat >/etc/modprobe.d/d.conf <<'END'
options a-b x="3 4" y=\
5
  options	a	z=1	y-y=2
#options n n=1
 options t t=\a3
END
: >/run/modprobe.d/empty.conf
"""


def test_what_modprobe_is_told_is_read_as_modprobe_itself_reads_it(node: SimNode) -> None:
    """Its own account has neither file nor line."""
    source = text("look.sh", "machine.sh").decode() + _THEIRS + "look_at_options; echo ---; /sbin/modprobe -c\n"
    ours, itself = node.call("unshare -m /bin/sh -s", source.encode()).split("---\n")
    rows = [row.split("\t", 4)[1:] for row in ours.splitlines()]
    lines = [OptionLine(path=path, first=int(a), last=int(b), text=told) for path, a, b, told in rows]
    assert [(line.place, line.last) for line in sorted(lines, key=lambda line: line.order)] == [
        ("/usr/local/lib/modprobe.d/b.conf:1", 1),
        ("/etc/modprobe.d/d.conf:1", 2),
        ("/etc/modprobe.d/d.conf:3", 3),
        ("/etc/modprobe.d/d.conf:5", 5),
        (lines[4].place, 1),
        ("/proc/cmdline", 1),
    ]
    assert lines[4].path in ("/usr/lib/modprobe.d/z.conf", "/lib/modprobe.d/z.conf")
    said = [row for row in itself.splitlines() if row.startswith("options ")]
    told = [OptionLine(path="-", first=1, last=1, text=row) for row in said]
    every = [[(one.module, one.name, one.value) for one in settings(rows)] for rows in (lines, told)]
    assert every[0][:7] == every[1][:7] == [
        ("a", "x", "2"),
        ("a_b", "x", "3 4"),
        ("a_b", "y", "5"),
        ("a", "z", "1"),
        ("a", "y_y", "2"),
        ("t", "t", "a3"),
        ("a", "x", "1"),
    ]
    assert set(every[1]) <= set(every[0]), "of the command line modprobe shows what it takes for options"


def test_options_are_told_where_they_are_asked_for_and_once(node: SimNode) -> None:
    node.call("mkdir -p /etc/modprobe.d; echo 'options toy greeting=theirs' >/etc/modprobe.d/toy.conf")
    assert look(node).options == ()
    lines = parse.facts(probe(node, "options", "toy", "options", "other")).options
    theirs = [line.text for line in lines if line.path == "/etc/modprobe.d/toy.conf"]
    assert theirs == ["options toy greeting=theirs"]
    assert sum(line.path == "/proc/cmdline" for line in lines) == 1
