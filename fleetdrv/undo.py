"""Back to last known good: what a node is to have again, so that a playbook is undone. Pure.

A node keeps two states of each driver: the one that was verified last, and the last one of another wanted state.
Back means the newest of them that is not the playbook's own. So a playbook that never came to a node undoes
nothing there, undoing it twice is undoing it once, and undoing two playbooks takes the names of both.
"""

from __future__ import annotations

import json

from fleetdrv.model import Good, NodeFacts
from fleetdrv.modules import among, called, file_name
from fleetdrv.packages import matches
from fleetdrv.plan import NodePlan, Outcome, plan
from fleetdrv.playbook import Driver, Playbook
from fleetdrv.steps import Kept

NOTHING_KEPT = "no last known good other than this playbook is kept on this node"


def plan_back(playbook: Playbook, wanted: Playbook, facts: NodeFacts) -> tuple[Playbook, NodePlan]:
    """Return the playbook with the drivers that the node is to have again, and the plan for them.

    `wanted` is the playbook with exact versions for this node. Which state is the playbook's own is judged by its
    patterns all the same: what is installed half-way back must not change where the way leads.

    A driver of which no other state is kept stays as it is: it can't be undone, and others may need it. A node
    that keeps no other state of any driver is *incompatible*: there is nothing to bring it back to.
    """
    back = {driver.name: state for driver in playbook.drivers if (state := _target(driver, facts))}
    if not back:
        return wanted, NodePlan(outcome=Outcome.INCOMPATIBLE, reason=NOTHING_KEPT)
    then = {name: wanted_then(state) for name, state in back.items()}
    target = wanted.model_copy(update={"drivers": tuple(then.get(d.name, d) for d in wanted.drivers)})
    kept = {
        driver.name: Kept(
            digest=back[driver.name].digest, leaving=driver.modules, services=driver.services
        )
        for driver in playbook.drivers
        if driver.name in back
    }
    return target, plan(target, facts, kept=kept)


def wanted_then(state: Good) -> Driver:
    """Return the driver as it was wanted when a state was kept. Raises ValueError where that cannot be read."""
    return Driver.model_validate(json.loads(state.wanted))


def _target(driver: Driver, facts: NodeFacts) -> Good | None:
    """Nothing of the kernel's own modules is kept."""
    states = (facts.good.get(driver.name), facts.former.get(driver.name)) if driver.brought else ()
    return next((state for state in states if state and not _same(driver, wanted_then(state))), None)


def _same(driver: Driver, then: Driver) -> bool:
    """Tell whether a state is the playbook's own.

    Patterns mean whatever version they were resolved to, and files have the names that they had then.
    """
    apt, apt_then = driver.apt, then.apt
    if apt and apt_then and apt.packages.keys() == apt_then.packages.keys():
        if not all(matches(pattern, apt_then.packages[name]) for name, pattern in apt.packages.items()):
            return False
        packages = apt.model_copy(update={"packages": apt_then.packages})
        modules = tuple(called(m, file_name(among(then.modules, m))) for m in driver.modules)
        driver = driver.model_copy(update={"apt": packages, "modules": modules})
    return driver.digest == then.digest
