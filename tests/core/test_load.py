"""A playbook that is wrong is refused with file, line and key, all of it at once."""

from __future__ import annotations

import hashlib
import io
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv import load
from fleetdrv.errors import InputError
from fleetdrv.modules import file_name

CONF = 'PACKAGE_NAME="toy"\nPACKAGE_VERSION="1.0"\nBUILT_MODULE_NAME[0]="toy"\n'
GOOD = """\
name: toy
hosts: gpu
drivers:
  - name: toy
    dkms:
      source: toy.tar
      sha256: {sha256}
    modules: [toy]
"""


def an_archive(conf: str = CONF, name: str = "toy-1.0/dkms.conf", mode: str = "w") -> bytes:
    """Return a source archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]  # mode is any of tarfile's
        for path, content in (("toy-1.0/toy.c", b"int x;\n" * 500), (name, conf.encode())):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def written(folder: Path, text: str = GOOD, archive: bytes | None = None) -> Path:
    """Write a playbook and its archive; `{sha256}` in the text is the archive's."""
    data = an_archive() if archive is None else archive
    (folder / "toy.tar").write_bytes(data)
    path = folder / "playbook.yaml"
    path.write_text(text.replace("{sha256}", hashlib.sha256(data).hexdigest()))
    return path


def faults(path: Path) -> list[str]:
    """Return what is wrong with a playbook, a line each, without the path."""
    with pytest.raises(InputError) as caught:
        load.playbook(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}:") for line in lines)
    return [line.removeprefix(f"{path}:") for line in lines]


def test_dkms_name_and_version_come_from_the_archive(tmp_path: Path) -> None:
    loaded = load.playbook(written(tmp_path))
    (driver,) = loaded.playbook.drivers
    assert (driver.dkms.package, driver.dkms.version) == ("toy", "1.0")
    assert loaded.archives == {"toy": an_archive()}
    assert loaded.path == tmp_path / "playbook.yaml"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("package: other", ("other", "1.0")),
        ('version: "9"', ("toy", "9")),
        ('package: other\n      version: "9"', ("other", "9")),
    ],
)
def test_what_the_playbook_says_goes_before_the_archive(
    tmp_path: Path, said: str, expected: tuple[str, str]
) -> None:
    text = GOOD.replace("      source:", f"      {said}\n      source:")
    source = load.playbook(written(tmp_path, text)).playbook.drivers[0].dkms
    assert (source.package, source.version) == expected


def test_a_file_that_dkms_names_otherwise_is_known_from_the_archive(tmp_path: Path) -> None:
    conf = CONF + 'BUILT_MODULE_NAME[0]="toy"\nDEST_MODULE_NAME[0]="toy-current"\n'
    (driver,) = load.playbook(written(tmp_path, archive=an_archive(conf))).playbook.drivers
    assert (driver.modules, file_name(driver.modules[0])) == (("toy",), "toy_current")
    said = GOOD.replace("[toy]", "[{name: toy, file: toy-legacy}]")
    (driver,) = load.playbook(written(tmp_path, said, an_archive(conf))).playbook.drivers
    assert file_name(driver.modules[0]) == "toy-legacy", "the playbook goes before the archive"


def test_an_archive_whose_names_are_said_need_not_tell_them(tmp_path: Path) -> None:
    text = GOOD.replace("      source:", '      package: toy\n      version: "1"\n      source:')
    assert load.playbook(written(tmp_path, text, b"no tar at all")).archives == {"toy": b"no tar at all"}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
@pytest.mark.parametrize("name", ["toy-1.0/dkms.conf", "./toy-1.0/dkms.conf", "dkms.conf", "./dkms.conf"])
def test_archives_are_read_as_people_make_them(tmp_path: Path, mode: str, name: str) -> None:
    archive = an_archive(name=name, mode=mode)
    assert load.playbook(written(tmp_path, archive=archive)).playbook.drivers[0].dkms.package == "toy"


@pytest.mark.parametrize(
    ("archive", "fault"),
    [
        (an_archive(name="a/b/dkms.conf"), "the archive holds no dkms.conf at its top or in its top folder"),
        (
            an_archive(name="toy-1.0/my-dkms.conf"),
            "the archive holds no dkms.conf at its top or in its top folder",
        ),
        (b"no tar at all", "the archive is not a tar file: file could not be opened successfully"),
        (an_archive(mode="w:xz")[:60], "the archive is not a tar file"),
        (an_archive('PACKAGE_NAME="toy"\n'), "dkms.conf: PACKAGE_NAME or PACKAGE_VERSION is missing"),
        (an_archive("PACKAGE_NAME=$(date)\nPACKAGE_VERSION=1\n"), "dkms.conf: "),
        (
            an_archive('PACKAGE_NAME="toy"\nPACKAGE_VERSION="1 beta"\n'),
            "the archive's dkms.conf: version '1 beta' cannot be used; name it in the playbook",
        ),
    ],
)
def test_an_archive_that_cannot_be_used_is_refused_at_its_line(tmp_path: Path, archive: bytes, fault: str) -> None:
    (said,) = faults(written(tmp_path, archive=archive))
    assert said.startswith(f"6: drivers[0].dkms: {fault}")


@given(st.integers(0, 2000), st.sampled_from(("w", "w:gz", "w:xz", "w:bz2")), st.booleans())
def test_a_damaged_archive_is_read_or_refused_and_never_a_bug(at: int, mode: str, cut: bool) -> None:
    data = bytearray(an_archive(mode=mode))
    at %= len(data)
    if cut:
        del data[at:]
    else:
        data[at] ^= 0xFF
    with suppress(InputError):
        load._dkms_conf(bytes(data))


def test_an_archive_must_be_the_one_that_was_meant(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "toy.tar").write_bytes(b"swapped")
    found, wanted = hashlib.sha256(b"swapped").hexdigest(), hashlib.sha256(an_archive()).hexdigest()
    assert faults(path) == [
        f"6: drivers[0].dkms: {tmp_path}/toy.tar has SHA-256 {found}, the playbook wants {wanted}"
    ]


def test_an_archive_beyond_all_measure_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path)
    with (tmp_path / "toy.tar").open("r+b") as file:
        file.truncate(load.MAX_ARCHIVE_BYTES + 1)
    assert faults(path) == [f"6: drivers[0].dkms: {tmp_path}/toy.tar is larger than 536870912 bytes"]


def test_every_missing_archive_is_told(tmp_path: Path) -> None:
    second = GOOD[GOOD.index("  - name") :].replace("toy", "net")
    path = written(tmp_path, GOOD.replace("toy.tar", "gone.tar") + second)
    assert faults(path) == [
        f"6: drivers[0].dkms: {tmp_path}/gone.tar cannot be read: No such file or directory",
        f"11: drivers[1].dkms: {tmp_path}/net.tar cannot be read: No such file or directory",
    ]


def test_all_faults_of_a_playbook_are_told_at_once(tmp_path: Path) -> None:
    text = """\
name: Toy
drviers: []
drivers:
  - name: toy
    dkms: {source: a.tar, sha256: abc, version: 1.1}
    modules: []
    parameters:
      toy: {mode: 1}
    checks: [nvidia-smi]
    requires_pci: ["10DE:*"]
    modulse: [a]
  - name: net
    modules: [net]
rollout:
  max_parallel: "3"
  canary: -1
  foreign_outages: maybe
  max_unavialable: 3
drain:
  timeout: 5
reboot: 7
11: x
"""
    assert {said[: said.index(": ", 4)] for said in faults(written(tmp_path, text))} == {
        "1: name",
        "2: drviers",
        "5: drivers[0].dkms.sha256",
        "5: drivers[0].dkms.version",
        "6: drivers[0].modules",
        "8: drivers[0].parameters.toy.mode",
        "9: drivers[0].checks[0]",
        "10: drivers[0].requires_pci[0]",
        "11: drivers[0].modulse",
        "15: rollout.max_parallel",
        "16: rollout.canary",
        "17: rollout.foreign_outages",
        "18: rollout.max_unavialable",
        "20: drain.timeout",
        "21: reboot",
        "22: [11]",
        "1: hosts",
    }


DRIVER = "drivers[0]"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("name: toy\nhosts", "name: 5\nhosts", "1: name: 5 was read as a number; write it in quotes"),
        ("hosts: gpu\n", "", "1: hosts: Field required"),
        (
            "hosts: gpu",
            "hosts: gpu\nhost: x",
            "3: host: unknown key; did you mean hosts? known: cluster, drain",
        ),
        ("hosts: gpu", "hosts: gpu\nxyz: 1", "3: xyz: unknown key known: cluster"),
        (
            "[toy]",
            "[toy]\n    module: [a]",
            f"9: {DRIVER}.module: unknown key; did you mean modules? known: apt, checks",
        ),
        ("source:", "soruce:", f"6: {DRIVER}.dkms.soruce: unknown key; did you mean source? known: package"),
        ("hosts: gpu", "hosts: gpu\ndrain: {grace: 1}", "3: drain.grace: unknown key"),
        (
            "hosts: gpu",
            "hosts: gpu\nreboot: {mod: 1}",
            "3: reboot.mod: unknown key; did you mean mode? known: mode",
        ),
        (
            "hosts: gpu",
            "hosts: gpu\nrollout: {cnary: 1}",
            "3: rollout.cnary: unknown key; did you mean canary?",
        ),
        ("[toy]", "[1.5]", f"8: {DRIVER}.modules[0]: 1.5 was read as a number; write it in quotes"),
        ("[toy]", "[toy; rm]", f"8: {DRIVER}.modules[0]: String should match pattern"),
        (
            "[toy]",
            "[toy]\n    parameters: {net: {a: b}}",
            f"4: {DRIVER}: parameters for net, which modules does",
        ),
        (
            "[toy]",
            '[toy]\n    parameters: {toy: {a: "b\\"c"}}',
            f"9: {DRIVER}.parameters.toy.a: String should",
        ),
        ("[toy]", "[toy, toy]", "1: the file: module toy stands there twice"),
        (
            "[toy]",
            "[{name: toy, flie: x}]",
            f"8: {DRIVER}.modules[0].flie: unknown key; did you mean file? known: file, load_as, name",
        ),
        ("[toy]", "[{file: x}]", f"8: {DRIVER}.modules[0].name: Field required"),
        ("[toy]", "[{name: toy, file: a.ko}]", f"8: {DRIVER}.modules[0].file: String should match pattern"),
        ("[toy]", "[toy]\n    services: [a, a.service]", "1: the file: service a.service stands there twice"),
        (
            "[toy]",
            "[toy]\n    services: [dcgm, kubelet, sshd.socket]",
            f"9: {DRIVER}.services[1]: kubelet.service is what a node is reached and served by",
        ),
        ("[toy]", "[toy]\n    services: ['a; b']", f"9: {DRIVER}.services[0]: String should match pattern"),
        (
            "hosts: gpu",
            'hosts: gpu\nrollout: {max_unavailable: "0%"}',
            "3: rollout.max_unavailable: 0 would never",
        ),
        ("hosts: gpu", 'hosts: gpu\nrollout: {max_unavailable: "101%"}', "3: rollout.max_unavailable: "),
        (
            "hosts: gpu",
            "hosts: gpu\nrollout: {max_failures: true}",
            "3: rollout.max_failures: Input should be",
        ),
    ],
)
def test_a_fault_is_told_with_line_key_what_was_found_and_what_is_known(
    tmp_path: Path, old: str, new: str, fault: str
) -> None:
    assert GOOD.count(old) == 1
    said = faults(written(tmp_path, GOOD.replace(old, new)))
    assert any(line.startswith(fault) for line in said), said


def test_a_value_that_is_not_allowed_is_shown(tmp_path: Path) -> None:
    text = GOOD.replace("hosts: gpu", f"hosts: '{'?' * 300}'")
    (said,) = faults(written(tmp_path, text))
    assert said.startswith("2: hosts: String should match pattern")
    assert "found '???" in said
    assert len(said) < 300


@pytest.mark.parametrize("text", ["", "null\n", "[1, 2]\n", "words\n"])
def test_a_file_that_is_no_playbook_at_all_is_refused(tmp_path: Path, text: str) -> None:
    (said,) = faults(written(tmp_path, text))
    assert said.startswith("1: the file: Input should be a valid dictionary")


def test_archives_are_looked_for_beside_the_playbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    path = written(tmp_path / "deep")
    monkeypatch.chdir(tmp_path)
    assert load.playbook(path.relative_to(tmp_path)).playbook.name == "toy"


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "playbooks").glob("*.yaml")), ids=lambda p: p.name
)
def test_the_playbooks_that_we_ship_can_be_loaded(path: Path) -> None:
    assert load.playbook(path).playbook.drivers


@pytest.mark.parametrize("hosts", ["gpu.", "_gpu", "gpu_", "gpu..a", "gpu.-a"])
def test_a_group_whose_name_cannot_name_a_lease_asks_for_a_pool(tmp_path: Path, hosts: str) -> None:
    text = GOOD.replace("hosts: gpu", f"hosts: {hosts}")
    (said,) = faults(written(tmp_path, text))
    assert said.startswith("2: hosts: ")
    assert "say another with pool:" in said
    named = text.replace("name: toy\nhosts", "name: toy\npool: gpu\nhosts")
    assert load.playbook(written(tmp_path, named)).playbook.pool_name == "gpu"


@pytest.mark.parametrize("pool", ["a..b", "a.", "-a", "A", "a.-b"])
def test_a_pool_must_name_a_lease(tmp_path: Path, pool: str) -> None:
    text = GOOD.replace("hosts: gpu", f"hosts: gpu\npool: {pool}")
    (said,) = faults(written(tmp_path, text))
    assert said.startswith("3: pool: ")


# ---- where a driver comes from

HEAD = "name: x\nhosts: gpu\ndrivers:\n  - name: x\n    modules: [rdma-rxe]\n"
APT = """    apt:
      packages: {acpi-call-dkms: "1.2.2-*"}
      repository:
        uri: https://example.test/debian
        suites: [bookworm]
        components: [main]
        key: keys/vendor.asc
        fingerprint: 0123456789ABCDEF0123456789ABCDEF01234567
"""


def test_a_driver_without_a_source_is_the_kernels_own(tmp_path: Path) -> None:
    loaded = load.playbook(written(tmp_path, HEAD))
    (driver,) = loaded.playbook.drivers
    assert (driver.dkms, driver.apt, driver.version, driver.modules) == (None, None, "in-tree", ("rdma_rxe",))
    assert loaded.archives == {}


def test_the_key_of_a_repository_is_read_beside_the_playbook(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + APT)
    (said,) = faults(path)
    assert said.startswith("12: drivers[0].apt.repository.key: ")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "vendor.asc").write_bytes(b"key")
    files = load.playbook(path).stage_files()
    assert files["x.key"] == b"key"
    assert files["x.sources"].decode().splitlines() == [
        "Types: deb",
        "URIs: https://example.test/debian",
        "Suites: bookworm",
        "Components: main",
    ]


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("https://", "ftp://", "9: drivers[0].apt.repository.uri: "),
        ("example.test/debian", "example.test/a b", "9: drivers[0].apt.repository.uri: "),
        ("[bookworm]", '["a b"]', "10: drivers[0].apt.repository.suites[0]: "),
        ("[bookworm]", "[./]", "10: drivers[0].apt.repository.suites[0]: "),
        ("[bookworm]", "[flat/]", "8: drivers[0].apt.repository: suite flat/ ends in a slash"),
        ("components: [main]", "components: []", "8: drivers[0].apt.repository: components are missing"),
        ("[main]", '["$(x)"]', "11: drivers[0].apt.repository.components[0]: "),
        ("0123456789ABCDEF0123", "0123456789abcdef0123", "13: drivers[0].apt.repository.fingerprint: "),
        ("ABCDEF01234567\n", "ABCDEF0123456\n", "13: drivers[0].apt.repository.fingerprint: "),
        ("acpi-call-dkms:", "Acpi:", "7: drivers[0].apt.packages.Acpi"),
        ('"1.2.2-*"', '"1.2.2;x"', "7: drivers[0].apt.packages.acpi-call-dkms: "),
        ('"1.2.2-*"', "1.2", "7: drivers[0].apt.packages.acpi-call-dkms: 1.2 was read as a number"),
        ("suites:", "suite:", "10: drivers[0].apt.repository.suite: unknown key; did you mean suites?"),
    ],
)
def test_what_an_apt_source_may_hold(tmp_path: Path, before: str, after: str, fault: str) -> None:
    text = HEAD + APT
    assert before in text
    said = faults(written(tmp_path, text.replace(before, after)))
    assert any(line.startswith(fault) for line in said), said


def test_a_driver_has_one_source(tmp_path: Path) -> None:
    text = GOOD.replace("    modules:", '    apt: {packages: {toy-dkms: "*"}}\n    modules:')
    (said,) = faults(written(tmp_path, text))
    assert said == "4: drivers[0]: dkms and apt are both there; a driver has one source, or none (in-tree)"


def test_a_module_cannot_conflict_with_what_the_playbook_loads(tmp_path: Path) -> None:
    (said,) = faults(written(tmp_path, HEAD + "    conflicts: [rdma-rxe]\n"))
    assert said == "4: drivers[0]: rdma_rxe stands in modules and in conflicts"
    other = HEAD + "  - name: y\n    modules: [siw]\n    conflicts: [rdma_rxe]\n"
    (said,) = faults(written(tmp_path, other))
    assert said.endswith("rdma_rxe is a module of one driver and in conflicts of another")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('wait_for: [{selector: "app in"}]', "'app in' is no label selector"),
        ('skip: [{selektor: "app=x", selector: a}]', "did you mean selector?"),
        ('operands: [{label: "a/b/c", off: paused}]', "drain.operands"),
        ('operands: [{label: "a/b", off: ""}]', "drain.operands"),
        ('wait_for: [{selector: "app=x", timeout_seconds: 0}]', "drain.wait_for"),
    ],
)
def test_pod_filters_and_operands_are_read_at_the_border(tmp_path: Path, line: str, said: str) -> None:
    (fault,) = faults(written(tmp_path, f"{GOOD}drain:\n  {line}\n"))
    assert fault.startswith("10:")
    assert said in fault


def test_a_drain_with_filters_and_operands_is_read(tmp_path: Path) -> None:
    text = """drain:
  wait_for: [{selector: "app in (batch, train)", namespace: jobs, timeout_seconds: 7200}]
  skip: [{selector: "uses-gpu!=true"}]
  operands: [{label: nvidia.com/gpu.deploy.device-plugin, off: paused-for-driver-upgrade}]
"""
    drain = load.playbook(written(tmp_path, GOOD + text)).playbook.drain
    assert drain.wait_for[0].timeout_seconds == 7200
    assert drain.skip[0].selector == "uses-gpu!=true"
    assert drain.operands[0].off == "paused-for-driver-upgrade"


# ---- the rollout's policy


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (
            "maintenance_window:\n    start: '25:00'\n    end: '04:00'",
            "11: rollout.maintenance_window.start: String",
        ),
        (
            "maintenance_window:\n    - start: '22:00'\n      end: '04:00'\n      days: [sat, sunday]",
            "13: rollout.maintenance_window[0].days[1]: Input should be 'mon', 'tue'",
        ),
        (
            "maintenance_window:\n    start: '22:00'\n    end: '04:00'\n    timezone: Europe/Berlim",
            "13: rollout.maintenance_window.timezone: 'Europe/Berlim' is no time zone that this machine knows",
        ),
        (
            "maintenance_window: {start: '22:00', end: '04:00', timezone: Europe}",
            "10: rollout.maintenance_window.timezone: 'Europe' is no time zone",
        ),
        (
            "maintenance_window: {start: '22:00', end: '22:00'}",
            "10: rollout.maintenance_window: starts and ends at",
        ),
        ("maintenance_window: {start: '24:00', end: '04:00'}", "10: rollout.maintenance_window: start 24:00 is"),
        ("maintenance_window: {start: '22:00', end: '04:00', days: []}", "10: rollout.maintenance_window.days: "),
        ("maintenance_window: []", "10: rollout.maintenance_window: "),
        ("maintenance_window: weekends", "10: rollout.maintenance_window: "),
        (
            "maintenance_window:\n    - {start: '22:00', end: '04:00'}\n    - {start: '22:00', ende: '04:00'}",
            "12: rollout.maintenance_window[1].ende: unknown key; did you mean end? known: days, end, start",
        ),
        (
            "max_unavailable_per: {label: zone, max_unavailable: 0}",
            "10: rollout.max_unavailable_per.max_unavailable: 0",
        ),
        ("max_unavailable_per: {label: 'a b'}", "10: rollout.max_unavailable_per.label: String should match"),
        (
            "max_unavailable_per: {lable: zone}",
            "10: rollout.max_unavailable_per.lable: unknown key; did you mean label?",
        ),
        (
            "maintenance_window: {start: '22:00', end: '22:10'}",
            "9: rollout: no maintenance window is as long as expected_seconds, 900",
        ),
        (
            "maintenance_window: {start: '22:00', end: '23:00'}\ndrain: {timeout_seconds: 3600}",
            "1: the file: no maintenance window is as long as the 3900 s that an outage may take, by drain",
        ),
        ("staging: 0", "10: rollout.staging: "),
        ("expected_seconds: 0", "10: rollout.expected_seconds: "),
    ],
)
def test_a_fault_of_the_policy_is_told_with_line_and_key(tmp_path: Path, lines: str, fault: str) -> None:
    said = faults(written(tmp_path, f"{GOOD}rollout:\n  {lines}\n"))
    assert any(line.startswith(fault) for line in said), said


def test_a_policy_is_read(tmp_path: Path) -> None:
    text = """rollout:
  staging: 25
  max_unavailable_per: {label: topology.kubernetes.io/zone, max_unavailable: "10%"}
  maintenance_window: {days: [sat, sun], start: "22:00", end: "04:00", timezone: "Europe/Berlin"}
"""
    policy = load.playbook(written(tmp_path, GOOD + text)).playbook.rollout
    assert (policy.staging, policy.max_unavailable_per.label) == (25, "topology.kubernetes.io/zone")
    assert [window.days for window in policy.windows] == [("sat", "sun")]
    several = text.replace("{days", "[{days").replace('Berlin"}', 'Berlin"}, {start: "12:00", end: "13:00"}]')
    policy = load.playbook(written(tmp_path, GOOD + several)).playbook.rollout
    assert [window.timezone for window in policy.windows] == ["Europe/Berlin", "UTC"]
    assert load.playbook(written(tmp_path)).playbook.rollout.windows == ()
