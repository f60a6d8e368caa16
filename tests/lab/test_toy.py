"""The practice driver: archives that a playbook can pin, and versions that behave as they promise."""

import hashlib
import subprocess
import tarfile
from pathlib import Path

import pytest

from fleetdrv.lab import LabError, toy

HEADERS = sorted(Path("/usr/src").glob("linux-headers-*-amd64"))

PINS = {
    "1.0": "ff47039f0d0bc005bd4c6f1581a29d11f28e43f78c6436fa39975d8b2042ee30",
    "1.1": "22d66491b68559b1d927eab75561a5e6b4570640379a456544391d68520605dd",
    "1.2": "1fe5d0905c011237938c8a97981b4361817522d64313f15fa5302ee6061a9ed5",
    "1.3": "d5a62dbc4f40841a48c22dc2c33b26ed8045f54cc3758766724e6956d747c73e",
}


@pytest.mark.parametrize("version", toy.VERSIONS)
def test_an_archive_is_the_same_bytes_each_time(version: str, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    for folder in (first, again):
        folder.mkdir()
        toy.archive(version, folder)
    content = toy.archive(version, first).read_bytes()
    assert content == (again / f"toy-{version}.tar").read_bytes()
    assert hashlib.sha256(content).hexdigest() == toy.sha256(version)
    assert [path.name for path in first.iterdir()] == [f"toy-{version}.tar"]


def test_the_archives_are_those_that_committed_playbooks_pin() -> None:
    """A template that changes changes every pin: this fails first, and says what the new pins are."""
    assert {version: toy.sha256(version) for version in toy.VERSIONS} == PINS


def test_an_archive_holds_one_folder_with_the_names_dkms_expects(tmp_path: Path) -> None:
    with tarfile.open(toy.archive("1.1", tmp_path)) as tar:
        names = ["toy-1.1", "toy-1.1/Makefile", "toy-1.1/dkms.conf", "toy-1.1/fleetdrv_toy.c"]
        assert tar.getnames() == names
        conf = tar.extractfile("toy-1.1/dkms.conf")
        assert conf is not None
        text = conf.read().decode()
    assert 'PACKAGE_NAME="toy"' in text
    assert 'PACKAGE_VERSION="1.1"' in text
    assert 'BUILT_MODULE_NAME[0]="fleetdrv_toy"' in text
    assert "@" not in text


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(LabError, match=r"toy 2\.0: no such version"):
        toy.sha256("2.0")


@pytest.mark.skipif(not HEADERS, reason="no Debian kernel headers on this machine")
@pytest.mark.parametrize("version", toy.VERSIONS)
def test_only_1_2_does_not_compile(version: str, tmp_path: Path) -> None:
    with tarfile.open(toy.archive(version, tmp_path)) as tar:
        tar.extractall(tmp_path, filter="data")
    source = tmp_path / f"toy-{version}"
    argv = ["make", "-C", str(source), f"KERNEL_SOURCE_DIR={HEADERS[-1]}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    module = source / "fleetdrv_toy.ko"
    if version == "1.2":
        assert done.returncode == 2
        assert "implicit declaration of function" in done.stderr
        assert not module.exists()
    else:
        assert done.returncode == 0, done.stderr
        assert f"version={version}\0".encode() in module.read_bytes()
