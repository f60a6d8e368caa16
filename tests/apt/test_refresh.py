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


def test_a_clock_that_is_behind_is_named(node: AptNode, repository: Repository) -> None:
    repository.publish(ahead=timedelta(hours=8))
    node.offer()
    refused = node.refresh()
    assert refused.code == 80
    assert "is not valid yet" in refused.reason
    assert "the clock of this node says 2" in refused.reason


def test_lists_of_the_future_have_no_age(node: AptNode) -> None:
    """A clock that was set back must not make the node unreadable: lists are asked for anew."""
    node.offer()
    assert node.refresh().code == 0
    seen = node.probe("driver", "toy", "package", "toy-lib")
    assert {"refreshed", "lists"} <= {row[0] for row in seen}
    node.call("touch -d '+8 hours' /var/lib/fleetdrv/apt/refreshed.toy /var/lib/fleetdrv/apt/lists/partial")
    seen = node.probe("driver", "toy", "package", "toy-lib")
    assert not {"refreshed", "lists"} & {row[0] for row in seen}
    assert ["end"] in seen


def test_a_repository_that_is_not_there(node: AptNode) -> None:
    node.call("rm -r /srv/repository/dists")
    refused = node.refresh()
    assert (refused.code, "apt-get update: E: " in refused.reason) == (80, True)


def test_a_mirror_in_the_middle_of_its_sync(node: AptNode) -> None:
    node.call("echo >>/srv/repository/dists/stable/main/binary-amd64/Packages")
    refused = node.refresh()
    assert refused.code == 80
    assert "Hash Sum mismatch" in refused.reason


def test_two_drivers_may_have_the_same_repository(node: AptNode) -> None:
    """apt reads no sources at all where two name one repository with different keys, by the path of the key."""
    node.bring_to("toy-tools=1.0")
    own = ("payload/toy.sources", "payload/toy.asc", node.repository.key.fingerprint)
    for _ in range(2):
        refreshed = node.run("apt_refresh.sh", "other", *own)
        assert refreshed.code == 0, refreshed.err
        seen = node.probe("driver", "other", "package", "toy-lib")
        assert ["package", "toy-lib", "", "not-installed", "no"] in seen
    words = ("other", "second", "keep", "toy_tools", *node.pins("toy-tools=1.0", "toy-lib=1.0"), "--", node.kernel)
    staged = node.run("apt_stage.sh", *words)
    assert staged.code == 0, staged.err
    pins = ("toy-tools=1.0", "toy-lib=1.0")
    installed = node.run("apt_install.sh", "other", "second", "yes", "keep", *pins, "--", node.kernel)
    assert installed.code == 0, installed.err
    node.call("apt-get -qq update && apt-cache policy toy-lib | grep -q 'Installed: 1.0'")
    assert node.refresh().code == 0
    assert node.run("apt_refresh.sh", "other").code == 0
    node.call("rm -r /var/lib/fleetdrv/stage/second")
    assert node.run("apt_install.sh", "other", "gone", "yes", "keep", *pins, "--", node.kernel).code == 0
    node.call("apt-get -qq update")
    assert node.call("ls /etc/apt/sources.list.d | grep fleetdrv") == "fleetdrv-toy.sources\n"


def test_a_node_tells_the_repository_it_got_lists_from_as_it_will_stand_in_the_system(node: AptNode) -> None:
    """With its key: steps.lists_are_new compares it with what the playbook says."""
    node.bring_to("toy-tools=1.0")
    records = node.probe("driver", "toy")
    asked = next(record[3] for record in records if record[:2] == ["refreshed", "toy"])
    settled = ["conf", "/etc/apt/sources.list.d/fleetdrv-toy.sources", asked]
    assert settled in records
