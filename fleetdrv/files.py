"""The files of one command, read before a socket is opened or a child started, with all faults at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fleetdrv import inventory, load
from fleetdrv.errors import InputError
from fleetdrv.inventory import Inventory, Note
from fleetdrv.load import Loaded
from fleetdrv.model import Host
from fleetdrv.ssh_settings import read_variables


def read(playbook: str, inventory_file: str, note: Note = lambda _: None) -> tuple[Loaded, Inventory]:
    """Read playbook and inventory. Raises InputError with every fault of both, each with file, line and key."""
    try:
        loaded = load.playbook(Path(playbook))
    except InputError as error:
        try:
            inventory.read(inventory_file, note)
        except InputError as other:
            raise InputError(f"{error}\n{other}") from None
        raise
    return loaded, inventory.read(inventory_file, note)


def demand_ways(hosts: Iterable[Host], file: str) -> None:
    """Raise InputError for all hosts whose variables cannot tell how they are reached over SSH."""
    faults = []
    for host in hosts:
        try:
            read_variables(host)
        except InputError as error:
            placed = str(error).startswith(tuple(filter(None, host.places.values())))
            faults.append(str(error) if placed else f"{file}: {error}")
    if faults:
        raise InputError("\n".join(faults))
