"""The wanted state of a node that nobody brought a playbook for: what it keeps as verified last."""

from __future__ import annotations

import base64
import json

from fleetdrv.effects import Effects
from fleetdrv.errors import NodeRefused, Permanent
from fleetdrv.events import Event, Level
from fleetdrv.files import demand_ways
from fleetdrv.line import Lines, NodeLine
from fleetdrv.look import ask
from fleetdrv.model import Host
from fleetdrv.options import Options
from fleetdrv.passwords import sudo_password
from fleetdrv.playbook import Driver, Playbook
from fleetdrv.records import Cordon
from fleetdrv.teller import Teller

_SECONDS = 60.0


def playbook(options: Options, host: Host, record: Cordon | None, teller: Teller) -> Playbook:
    """Return a playbook of what the node keeps, with the default policy: it drains nothing that needs a word.

    Several drivers stand in the order of their names; where one's modules need the other's first, the plan says
    so, and a playbook has to tell the order. Raises NodeRefused where the node keeps nothing, or was driven for
    several pools and its cordon does not tell for which.
    """
    demand_ways([host], options.inventory)
    password = sudo_password(ask=options.ask_sudo_password, file=options.sudo_password_file)

    def warn(text: str) -> None:
        teller(Event(node=host.name, phase="ssh", text=text, level=Level.WARNING))

    with Lines(Effects(), password, warn) as lines:
        pools, drivers = _ask(lines.to(host))
    hint = f"say what is wanted: fleetdrv repair {host.name} --playbook FILE"
    if not drivers:
        raise NodeRefused(f"{host.name}: keeps no state of any driver that was verified; {hint}")
    pool = [record.pool] if record else pools
    if len(pool) != 1:
        raise NodeRefused(f"{host.name}: was driven for pools {', '.join(pools) or 'none'}; {hint}")
    group = min(host.groups, default="all")
    return Playbook(name="last-known-good", pool=pool[0], hosts=group, drivers=tuple(drivers))


def _ask(line: NodeLine) -> tuple[list[str], list[Driver]]:
    code, out, errors = ask(line, "kept.sh", (), step="probe", deadline_seconds=_SECONDS)
    lines = out.decode("utf-8", "replace").splitlines()
    if code != 0 or lines[-1:] != ["end"]:
        evidence = errors.decode("utf-8", "replace")[-2000:]
        raise Permanent(line.node, "probe", f"exit {code}: what it keeps cannot be read", evidence=evidence)
    rows = [said.split("\t") for said in lines]
    try:
        drivers = [_driver(row[3]) for row in rows if row[0] == "good"]
    except (ValueError, IndexError) as error:
        where = "/var/lib/fleetdrv/good"
        raise Permanent(line.node, "probe", f"what {where} keeps cannot be read: {error}") from error
    return [row[1] for row in rows if row[0] == "pool"], drivers


def _driver(text: str) -> Driver:
    return Driver.model_validate(json.loads(base64.b64decode(text, validate=True)))

