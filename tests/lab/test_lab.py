"""What of the practice fleet can be tested without a machine: identities, refusals, what `down` leaves alone."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fleetdrv.lab import LabError, images, lab, machines, seed
from fleetdrv.lab.machines import Machine


def _machine(folder: Path, number: int, release: str) -> Machine:
    node = folder / "nodes" / f"node-{number}"
    node.mkdir(parents=True)
    values = {"name": node.name, "release": release, "number": number, "uuid": "u", "ssh_port": 20000 + number}
    (node / "machine.json").write_text(json.dumps({**values, "kernel": "/k", "initrd": "/i"}))
    return Machine.load(node)


def test_a_seed_gives_the_node_its_keys_and_is_ours_alone(tmp_path: Path) -> None:
    key = tmp_path / "host_key"
    seed.make_key(key, "node-1")
    path = tmp_path / "seed.tar"
    seed.write(path, "node-1", seed.Network(3), key, "ssh-ed25519 AAAA me\n", [])
    assert path.stat().st_mode & 0o077 == 0
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar}
        config = tar.extractfile("etc/fleetdrv-lab.json")
        assert config is not None
        assert json.load(config)["api_host"] == "10.77.3.100"
    assert members["etc/ssh/ssh_host_ed25519_key"].mode == 0o600
    assert members["home/ops/.ssh/authorized_keys"].uid == 1000
    assert list(members)[-1] == "etc/fleetdrv-lab.json"  # its presence says that all the rest is there


def test_a_key_of_an_interrupted_run_is_made_anew(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("half a k")
    seed.make_key(key, "me")
    assert "PRIVATE KEY" in key.read_text()
    made = key.read_text()
    seed.make_key(key, "me")
    assert key.read_text() == made


def test_each_node_has_a_network_of_its_own() -> None:
    assert len({seed.Network(number).guest for number in range(1, 201)}) == 200


def test_the_nodes_of_a_fleet_share_a_wire_and_no_address_on_it(tmp_path: Path) -> None:
    fabric = machines.new_fabric()
    fleet = [replace(_machine(tmp_path, number, "bookworm"), fabric=fabric) for number in (1, 2)]
    cards = [[word for word in machine._argv() if "net1" in word] for machine in fleet]
    assert [words[0] for words in cards] == [f"socket,id=net1,mcast={fabric},localaddr=127.0.0.1"] * 2
    assert cards[0][1] != cards[1][1], "QEMU gives all guests the same address"
    assert fabric.startswith("239."), "no router forwards it"
    assert len({seed.Network(number).fabric for number in range(1, 201)}) == 200
    old = _machine(tmp_path, 3, "bookworm")
    assert not [word for word in old._argv() if "net1" in word], "a fleet of before there was one"


def test_an_image_with_the_usual_kernel_differs_in_its_kernel_only() -> None:
    cloud, generic = (images._included(release) for release in ("trixie", "trixie-generic"))
    assert set(cloud) - set(generic) == {"linux-image-cloud-amd64", "linux-headers-cloud-amd64"}
    assert set(generic) - set(cloud) == {"linux-image-amd64", "linux-headers-amd64"}
    assert len({images._digest(release) for release in images.RELEASES}) == len(images.RELEASES)


def test_an_image_offers_what_the_playbooks_install() -> None:
    books = [yaml.safe_load(path.read_text()) for path in (Path(__file__).parents[2] / "playbooks").glob("*.yaml")]
    sources = [driver["apt"] for book in books for driver in book["drivers"] if "apt" in driver]
    named = {name for source in sources if "repository" not in source for name in source["packages"]}
    assert {"acpi-call-dkms", "ibverbs-providers"} <= named <= set(images._OFFERED)


def test_boots_are_counted_by_what_the_console_says(tmp_path: Path) -> None:
    machine = _machine(tmp_path, 1, "bookworm")
    assert machine.boots() == 0
    machine.console_log.write_text("fleetdrv-lab: up\n[12.3] reboot: Restarting system\nfleetdrv-lab: up\n")
    assert machine.boots() == 2


def test_a_fleet_is_not_changed_into_another_one(tmp_path: Path) -> None:
    _machine(tmp_path, 1, "bookworm")
    with pytest.raises(LabError, match="node-1 is there and runs bookworm, wanted: trixie; type first"):
        lab.up(tmp_path, ["trixie"], None, lambda _: None)
    with pytest.raises(LabError, match="between 1 and 200"):
        lab.up(tmp_path, [], None, lambda _: None)


def test_down_removes_what_up_made_and_nothing_else(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet"
    _machine(fleet, 1, "bookworm")
    for name in ("lab.json", "known_hosts", "toy-1.0.tar", "mine.txt"):
        (fleet / name).write_text("{}")
    lab.down(fleet, lambda _: None)
    assert [path.name for path in fleet.iterdir()] == ["mine.txt"]
    (fleet / "mine.txt").unlink()
    lab.down(fleet, lambda _: None)
    assert not fleet.exists()
    lab.down(fleet, lambda _: None)


def test_the_status_of_no_fleet_is_empty(tmp_path: Path) -> None:
    status = lab.status(tmp_path)
    assert (status["control_plane"], status["nodes"]) == (False, [])


def test_an_unknown_node_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="node-7: no such node"):
        lab.machine(tmp_path, "node-7")
