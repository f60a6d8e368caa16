"""A service of the host that holds the device: stopped where the playbook lists it, else named and left."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.rollout.sim_fleet import SimFleet

UNIT = "toy-persistenced.service"


def with_services(book: Path) -> str:
    """Have the playbook's driver list the unit."""
    wanted = yaml.safe_load(book.read_text())
    wanted["drivers"][0]["services"] = [UNIT.removesuffix(".service")]
    book.write_text(yaml.safe_dump(wanted, sort_keys=False))
    return str(book)


def test_a_service_that_holds_the_device_is_stopped_by_name_only_where_it_is_listed(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    name = next(iter(fleet.nodes))
    node = fleet.nodes[name]
    pid = node.hold_device("fleetdrv_toy", f"0::/system.slice/{UNIT}")
    units = node.folder / "units"
    units.mkdir()
    (units / UNIT).write_text("active\n")
    (units / f"{UNIT}.on-stop").write_text(f"kill {pid}; rm {node.folder}/busy/fleetdrv_toy\n")
    before = node.loaded()

    unlisted = fleet.apply("1.1", "-l", name, code=None)
    assert unlisted.code in (4, 5), unlisted
    assert f"process {pid} (sleep) has /dev/shm/fleetdrv_toy open, in {UNIT}" in unlisted.out
    assert (node.loaded(), (units / UNIT).read_text()) == (before, "active\n")

    book = with_services(fleet.playbook("1.1"))
    fleet.fleetdrv("apply", book, "-i", str(fleet.inventory), "--yes", "-l", name, code=0)
    assert node.loaded() != before
    assert (units / UNIT).read_text() == "active\n"
    assert (units / "said").read_text() == f"stop {UNIT}\nstart {UNIT}\n"
    assert not (node.state / "services/toy").exists()
    fleet.fleetdrv("plan", book, "-i", str(fleet.inventory), "-l", name, code=0)
