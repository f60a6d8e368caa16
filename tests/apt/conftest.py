"""Fixtures for apt nodes. They need root, and the network once, for the root file system."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apt.node import AptNode
from tests.apt.repository import Key, Package, Repository, dkms_package
from tests.apt.root import kernel, root


@pytest.fixture(scope="session")
def key() -> Iterator[Key]:
    with Key() as made:
        yield made


def _packages() -> list[Package]:
    # As the packages of prebuilt modules are: a file for one kernel, and nothing for DKMS.
    prebuilt = {f"usr/lib/modules/{kernel(root())}/extra/toy-tools.ko": b"not read by anybody here"}
    trixie = {"usr/lib/modules/6.12.118+deb13-cloud-amd64/extra/toy-tools.ko": b"for another kernel"}
    named = Package(name="toy-tools", version="1.0", files=prebuilt)
    return [
        dkms_package("1.0"),
        dkms_package("1.1", Depends="dkms, toy-lib"),
        dkms_package("1.2"),
        dkms_package("1.3", of="1.1", conf='DEST_MODULE_NAME[0]="toy_renamed"\n'),
        dkms_package("1.5", of="1.1", conf='BUILD_EXCLUSIVE_KERNEL="^2\\.6"\n'),
        dkms_package("2.0", of="1.1", Depends="dkms, nonesuch (>= 3)"),
        dkms_package("2.1", of="1.1", Depends="dkms, linux-image-9.9.9"),
        dkms_package("2.2", of="1.1", Conflicts="toy-tools"),
        dkms_package("2.3", of="1.1", Depends="dkms, toy-tools (>= 1.1)"),
        Package(name="toy-lib", version="1.0"),
        named,
        Package(name="toy-tools", version="1.1", files=prebuilt),
        Package(name="toy-trixie", version="1.0", files=trixie),
        Package(name="linux-image-9.9.9", version="9.9.9-1"),
    ]


@pytest.fixture(scope="session")
def _built(tmp_path_factory: pytest.TempPathFactory, key: Key) -> Repository:
    repository = Repository(tmp_path_factory.mktemp("repository"), key)
    repository.add(*_packages())
    return repository


@pytest.fixture
def repository(_built: Repository) -> Iterator[Repository]:
    """All test packages; a test may publish it anew."""
    yield _built
    _built.publish()


@pytest.fixture
def node(tmp_path: Path, repository: Repository) -> Iterator[AptNode]:
    made = AptNode(tmp_path / "node", repository)
    yield made
    made.close()
