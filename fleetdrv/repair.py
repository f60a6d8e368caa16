"""`fleetdrv repair NODE`: bring one node back that somebody named, also NotReady or out of service.

It is `apply` to one node with three things let go, because a human named the node: a cordon of somebody else's
does not keep it from being mended (it stays, though), the rollout's canaries, windows and budgets do not ask it
to wait, and what a rollout refuses to touch is mended first (remedies.py). What protects others holds as ever:
Lease and token, identity, hold, neighbours, drain, and `max_unavailable` for a node that still serves.

The run is recorded on the Node alone: the record on the Lease is the rollout's, which goes on with it later.
"""

from __future__ import annotations

import re
from dataclasses import replace

from fleetdrv import commands, locked, recap, report, resolve, survey
from fleetdrv.crew import Crew, Options, assemble
from fleetdrv.endings import Result
from fleetdrv.errors import ExitCode, InputError
from fleetdrv.events import Event
from fleetdrv.named import NamedNode
from fleetdrv.teller import Teller

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")


def repair(options: Options, node: str, playbook: str) -> ExitCode:
    """Mend one node; NODE is a host of the inventory or the name of its Node."""
    if not _NAME.fullmatch(node):
        raise InputError(f"repair {node}: name one node, as the inventory or the cluster has it")
    options = replace(options, limit=node)
    with (
        commands.telling_as(options) as teller,
        assemble(options, playbook, teller, repair=NamedNode) as crew,
    ):
        _demand_one(crew, node)
        result, run = _mend(options, crew, teller)
        return recap.conclude("repair", options, crew, result, run)


def _demand_one(crew: Crew, node: str) -> None:
    """A group of one host is no node: tomorrow it may have two."""
    ((name, driver),) = crew.drivers.items() if len(crew.drivers) == 1 else ((node, None),)
    if driver is None or node not in (name, driver.service.node):
        raise InputError(f"repair {node}: is not one node; it selects {', '.join(crew.drivers)}")


def _mend(options: Options, crew: Crew, teller: Teller) -> tuple[Result, str]:
    crew.recall(crew.record())
    run = survey.run_id(crew, None)
    with commands.watching(teller, crew):
        seen = crew.survey(run)
    if not survey.owes_something(seen):
        return survey.nothing_to_do(crew, seen), run
    views, limits = survey.views_of(crew, seen), commands.limits_of(crew)
    if not options.json and not options.quiet:
        print(report.plan_text(views, limits, resolve.shown(crew.versions.pins)), flush=True)
    commands.confirm(options)
    with locked.locked_for_one(crew, views, run) as lock:
        teller(Event(node="", phase="run", text=f"{run}, journal {teller.keep(run)}"))
        with commands.watching(teller, crew, limits):
            return commands.roll(crew, seen, lock), run
