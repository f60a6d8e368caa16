"""apt_refresh.sh: package lists beside the system's own, from a repository whose key is pinned."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.apt.node import AptNode
from tests.apt.repository import Key, Repository

_LISTS = "find /var/lib/apt /etc/apt /var/cache/apt -ls"


@pytest.mark.parametrize("armoured", [True, False])
def test_the_systems_lists_and_sources_stay(node: AptNode, key: Key, armoured: bool) -> None:
    node.offer(key=key.armoured if armoured else key.binary)
    before = node.call(_LISTS)
    for _ in range(2):
        refreshed = node.refresh()
        assert refreshed.code == 0, refreshed.err
    assert node.call(_LISTS) == before
    assert "toy-lib" in node.call("cat /var/lib/fleetdrv/apt/lists/*_Packages")


def test_another_key_is_refused_before_it_is_used(node: AptNode) -> None:
    with Key() as other:
        node.offer(key=other.armoured)
        refused = node.refresh()
        assert refused.code == 65
        assert other.fingerprint in refused.reason
        node.offer(key=node.repository.key.binary + other.binary)
        assert (node.refresh().code, node.call("ls /var/lib/fleetdrv/apt/lists")) == (65, "partial\n")
        node.offer(key=other.armoured)
        unsigned = node.refresh(other.fingerprint)
        assert unsigned.code == 80
        assert "is not signed" in unsigned.reason
        assert "NO_PUBKEY" in unsigned.out


def test_an_expired_release_is_refused_unless_allowed(node: AptNode, repository: Repository) -> None:
    repository.publish(valid_until=timedelta(hours=-1))
    node.offer()
    refused = node.refresh()
    assert refused.code == 80
    assert "is expired" in refused.reason
    node.offer("Check-Valid-Until: no\n")
    assert node.refresh().code == 0


def test_a_repository_that_is_not_there(node: AptNode) -> None:
    node.call("rm -r /srv/repository/dists")
    refused = node.refresh()
    assert (refused.code, "apt-get update: E: " in refused.reason) == (80, True)


def test_a_mirror_in_the_middle_of_its_sync(node: AptNode) -> None:
    node.call("echo >>/srv/repository/dists/stable/main/binary-amd64/Packages")
    refused = node.refresh()
    assert refused.code == 80
    assert "Hash Sum mismatch" in refused.reason
