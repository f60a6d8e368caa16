"""What the probe says of packages, asked of a real dpkg and a real apt."""

from __future__ import annotations

import pytest

from tests.apt.node import AptNode
from tests.apt.repository import Repository

_NAMES = ("package", "candidate", "packaged", "lists", "error")


def look(node: AptNode, *names: str) -> list[list[str]]:
    asked = [word for name in names for word in ("package", name)]
    return [record for record in node.probe(*asked) if record[0] in _NAMES]


def test_a_package_nobody_knows(node: AptNode) -> None:
    assert look(node, "toy-dkms") == [["package", "toy-dkms", "", "not-installed", "no"]]
    assert not [record for record in node.probe() if record[0] in _NAMES]


def test_lists_of_our_own_are_seen_and_their_age(node: AptNode, repository: Repository) -> None:
    refreshed = node.refresh()
    assert refreshed.code == 0, refreshed.err
    seen = look(node, "toy-lib", "toy-dkms", "toy-tools")
    assert ["candidate", "toy-lib", "1.0", repository.sha256["toy-lib=1.0"]] in seen
    offered = {f"{record[1]}={record[2]}" for record in seen if record[0] == "candidate"}
    assert offered == {p for p in repository.sha256 if p.partition("=")[0] in ("toy-lib", "toy-dkms", "toy-tools")}
    ages = [int(record[1]) for record in seen if record[0] == "lists"]
    assert len(ages) == 1
    assert 0 <= ages[0] < 300
    node.call("touch -d '2 hours ago' /var/lib/fleetdrv/apt/lists/partial")
    again = look(node, "toy-lib")
    assert again[-1][0] == "lists"
    assert 7200 <= int(again[-1][1]) < 7500


def test_an_installed_package_its_hold_and_its_dkms_package(node: AptNode) -> None:
    node.call("dpkg -i /srv/repository/pool/toy-dkms_1.0_all.deb && apt-mark hold toy-dkms")
    assert look(node, "toy-dkms") == [
        ["package", "toy-dkms", "1.0", "installed", "yes"],
        ["packaged", "toy-dkms", "toy", "1.0"],
    ]
    node.call("mkdir -p /var/lib/fleetdrv/apt; echo toy-dkms >/var/lib/fleetdrv/apt/held")
    assert look(node, "toy-dkms")[0] == ["package", "toy-dkms", "1.0", "installed", "ours"]
    node.call("dpkg --remove --force-hold toy-dkms")
    assert look(node, "toy-dkms")[0][2:4] == ["1.0", "config-files"]


@pytest.mark.parametrize("damage", ["echo junk >/etc/apt/sources.list", "rm /usr/bin/apt-cache"])
def test_what_cannot_be_told_is_an_error(node: AptNode, damage: str) -> None:
    node.call(damage)
    assert [record[0] for record in look(node, "toy-dkms")][-1] == "error"
