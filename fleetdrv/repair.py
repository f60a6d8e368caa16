"""`fleetdrv repair NODE`: bring one node back that somebody named, also NotReady or out of service.

It is `apply` to one node with three things let go, because a human named the node: a cordon of somebody else's
does not keep it from being mended (it stays, though), the rollout's canaries, windows and budgets do not ask it
to wait, and what a rollout refuses to touch is mended first (remedies.py). What protects others holds as ever:
Lease and token, identity, hold, neighbours, drain, and `max_unavailable` for a node that still serves.

A machine that is itself at fault (a device of `requires_pci` is not there, or the kernel has seen one fail: a GPU
off the bus, say) is quarantined: held, and tainted with the reason. Nothing is installed on it again.

The run is recorded on the Node alone: the record on the Lease is the rollout's, which goes on with it later.

Which state? The playbook's, where one is given. Without one, what the node keeps as verified last
(/var/lib/fleetdrv/good): who types `repair n7` at night wants the node back as it was, and may not have the file
at hand; a newer state is the next `apply`'s to bring. For whom it was cordoned says the cordon itself, also where
playbook and inventory have changed since; else the node knows which pool drove it.
"""

from __future__ import annotations

import re
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from fleetdrv import commands, files, inventory, kept, locked, ownership, recap, report, resolve, survey
from fleetdrv.crew import Crew, assemble
from fleetdrv.effects import Effects
from fleetdrv.ending import Ending
from fleetdrv.endings import Result
from fleetdrv.errors import ExitCode, FleetdrvError, InputError, NotFound
from fleetdrv.events import Event, Level
from fleetdrv.holds import quarantine_patch
from fleetdrv.inventory import Inventory
from fleetdrv.load import Loaded
from fleetdrv.model import Host
from fleetdrv.named import NamedNode
from fleetdrv.options import Options
from fleetdrv.proc import this_process
from fleetdrv.reach import open_cluster
from fleetdrv.records import Cordon, Hold
from fleetdrv.remedies import Repair, broken_hardware
from fleetdrv.swap import swap_node
from fleetdrv.teller import Teller
from fleetdrv.timing import stamp
from fleetdrv.turn import Debt, Owed, Verdict

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")


def repair(options: Options, node: str, playbook: str) -> ExitCode:
    """Mend one node; NODE is a host of the inventory or the name of its Node."""
    if not _NAME.fullmatch(node):
        raise InputError(f"repair {node}: name one node, as the inventory or the cluster has it")
    options = replace(options, limit=node)
    with commands.telling_as(options) as teller:
        read = _read(options, node, playbook, teller)
        with assemble(options, playbook, teller, repair=NamedNode, read=read) as crew:
            _demand_one(crew, node)
            result, run = _mend(options, crew, teller)
            return recap.conclude("repair", options, crew, result, run)


def _read(options: Options, node: str, playbook: str, teller: Teller) -> tuple[Loaded, Inventory]:
    """Read the files, and have them fit the node as it stands."""

    def note(text: str) -> None:
        teller(Event(node="", phase="inventory", text=text))

    if playbook:
        loaded, everything = files.read(playbook, options.inventory, note)
    else:
        loaded, everything = None, inventory.read(options.inventory, note)
    host = _host(everything, node) or _refuse(options, everything, node)
    record = None if options.no_cluster else _left_by(options, host.node_name)
    if loaded is None:
        if everything.asks_cluster:
            raise InputError(f"repair {node}: name the wanted state: --playbook FILE (with -i k8s: the pool, too)")
        loaded = Loaded(kept.playbook(options, host, record, teller), Path(), {}, repair=Repair.KEPT)
    group = loaded.playbook.hosts
    if record is not None and not everything.asks_cluster:
        if record.pool != loaded.playbook.pool_name:
            text = f"is out for pool {record.pool}, which nobody else may change it for; it is driven as that"
            teller(Event(node=node, phase="pool", text=text, level=Level.WARNING))
            loaded = replace(loaded, playbook=loaded.playbook.model_copy(update={"pool": record.pool}))
        hosts = {**everything.hosts, host.name: replace(host, groups=host.groups | {group})}
        everything = replace(everything, hosts=hosts)
    elif not everything.asks_cluster and group not in host.groups:
        raise InputError(f"repair {node}: is not in group {group} of the playbook; its groups: {_groups(host)}")
    return loaded, everything


def _host(everything: Inventory, node: str) -> Host | None:
    if everything.asks_cluster:
        return Host(name=node, node_name=node)
    found = [host for host in everything.hosts.values() if node in (host.name, host.node_name)]
    if len(found) > 1:
        raise InputError(f"repair {node}: {everything.path} has more than one such host")
    return found[0] if found else None


def _refuse(options: Options, everything: Inventory, node: str) -> NoReturn:
    """Say that the inventory has no such host; with what can be done where its Node is out by our hand."""
    record = None
    with suppress(FleetdrvError):  # the inventory is what is wrong, whatever the cluster says
        record = None if options.no_cluster else _left_by(options, node)
    left = "" if record is None else (
        f"; its Node is out of service since {record.since} by run {record.run} of pool {record.pool}: put the "
        f"host back into the inventory, then the same command again; gone for good: kubectl delete node {node}"
    )
    raise InputError(f"repair {node}: {everything.path} has no such host{left}")


def _groups(host: Host) -> str:
    return ", ".join(sorted(host.groups)) or "none"


def _left_by(options: Options, node: str) -> Cordon | None:
    """Return our cordon on the Node, if there is one."""
    with ExitStack() as stack:
        try:
            return ownership.state(open_cluster(stack, options, Effects()).node(node)).record
        except NotFound:
            return None  # the look at it refuses, with what to check


def _demand_one(crew: Crew, node: str) -> None:
    """A group of one host is no node: tomorrow it may have two."""
    names = [name for name, driver in crew.drivers.items() if node in (name, driver.service.node)]
    if len(names) != 1 or len(crew.drivers) != 1:
        raise InputError(f"repair {node}: is not one node; it selects {', '.join(crew.drivers)}")


def _mend(options: Options, crew: Crew, teller: Teller) -> tuple[Result, str]:
    crew.recall(crew.record())
    run = survey.run_id(crew, None)
    with commands.watching(teller, crew):
        seen = crew.survey(run)
    if broken := _quarantined(options, crew, run):
        return broken, run
    if not survey.owes_something(seen):
        return survey.nothing_to_do(crew, seen), run
    views, limits = survey.views_of(crew, seen), commands.limits_of(crew)
    if not options.json and not options.quiet:
        print(report.plan_text(views, limits, resolve.shown(crew.versions.pins)), flush=True)
    commands.confirm(options)
    (driver,) = crew.drivers.values()
    with locked.locked_for_one(crew, views, run) as lock:
        commands.begin_journal(teller, "repair", options, crew, run, limits=limits, again=driver.plan_again)
        with commands.watching(teller, crew, limits):
            result = commands.roll(crew, seen, lock)
        teller(recap.over(crew, result))
        return result, run


def _quarantined(options: Options, crew: Crew, run: str) -> Result | None:
    """Take a machine that is at fault out of use; nothing is installed on it again, so the turn ends here."""
    ((name, driver),) = crew.drivers.items()
    view = driver.view
    broken = broken_hardware(view.plan, view.facts) if view else None
    if view is None or broken is None or view.standing.held:
        return None
    why, remedy = broken.why, f"{broken.remedy}; then the same command again"
    if crew.cluster is not None:
        node = driver.service.node
        mine = Hold(who=str(this_process()), reason=f"{options.reason or 'hardware'}: {why}"[:500], since=stamp())
        swap_node(crew.cluster, node, lambda seen: quarantine_patch(seen, mine))
        driver.note(Owed(debt=Debt.NOTHING, verdict=Verdict.NOT_MENDABLE, why=why), run)
        remedy = f"{broken.remedy}; then: fleetdrv release {node}"
        why += "; held, and tainted so that no new pod comes"
    ending = Ending(node=name, verdict=Verdict.NOT_MENDABLE, why=why, evidence=broken.evidence, remedy=remedy)
    return Result(endings=(ending,))
