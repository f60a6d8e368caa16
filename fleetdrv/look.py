"""Look at one node: one probe over SSH and one read of its Node object, held together and judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from fleetdrv import parse
from fleetdrv.errors import LinkLost, NodeRefused, Permanent, Refused
from fleetdrv.follow import Line
from fleetdrv.jobs import whole
from fleetdrv.model import Good, NodeFacts
from fleetdrv.modules import question
from fleetdrv.plan import NodePlan, Outcome, plan
from fleetdrv.playbook import Driver, Playbook
from fleetdrv.records import Result
from fleetdrv.remedies import Repair, from_kept, remedies_first
from fleetdrv.standing import Standing
from fleetdrv.turn import Sight, Verdict
from fleetdrv.undo import plan_back, wanted_then
from fleetdrv.versions import Versions

PROBE_SECONDS = 180.0
"""A probe takes well under a second on a real machine; checks may take 60 s each."""

MAX_LINKS = 5
"""So many links may die under one question; a node that loses more of them in a row is not fit for a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What was seen of a node, and the plan that follows."""

    facts: NodeFacts
    standing: Standing
    plan: NodePlan
    wanted: tuple[Driver, ...]
    """The playbook's drivers as this node is to have them: package versions exact, as far as they are known."""
    good: tuple[Driver, ...]
    """Last known good of the playbook's drivers, as they were wanted then."""
    sight: Sight

    def obeys_before(self, token: int) -> bool:
        """Whether the node would still take a job of an earlier controller that is late, and change something.

        Such a node must learn of the newer token before it serves again.
        """
        return self.standing.touched and self.facts.highest_token < token


class NotTheNode(Refused):
    """The machine that answered over SSH is not the one that the Node object stands for."""


class OtherBoot(NodeRefused):
    """It is that machine, in another boot than its Node says."""


def look(
    line: Line,
    playbook: Playbook,
    versions: Versions,
    standing: Standing,
    run: str,
    *,
    back: bool = False,
    repair: Repair = Repair.NO,
) -> View:
    """Probe the machine and plan; `back`: for what undoes the playbook; `repair`: remedies before the plan.

    Raises NotTheNode, OtherBoot, Permanent for a probe that cannot be read.
    """
    asked = partial(questions, playbook, faults=bool(repair))
    facts = _probe(line, asked())
    _prove_identity(line.node, facts, standing)
    good = tuple(_kept(line.node, playbook, facts.good))
    also = good if standing.touched or back else ()
    also += tuple(_kept(line.node, playbook, facts.former)) if back else ()
    if asked(also) != asked():
        # Whether the node stands at a state that it keeps is to be seen, though modules changed their names.
        facts = _probe(line, asked(also))
    return judge(playbook, versions, facts, good, standing, run, back=back, repair=repair)


def judge(
    playbook: Playbook,
    versions: Versions,
    facts: NodeFacts,
    good: tuple[Driver, ...],
    standing: Standing,
    run: str,
    *,
    back: bool = False,
    repair: Repair = Repair.NO,
) -> View:
    """Plan from what was seen, with the versions that are known by now."""
    wanted = versions.exact(playbook, facts)
    if back:
        wanted, node_plan = plan_back(playbook, wanted, facts)
    else:
        kept = from_kept(wanted.drivers, facts) if repair is Repair.KEPT else {}
        node_plan = plan(wanted, facts, upgrade=versions.upgrade, kept=kept)
    if repair:
        node_plan = remedies_first(node_plan, wanted, facts)
    # The kernel's own modules go back to nothing: alone, they leave a failed node as it is.
    complete = len(good) == len(playbook.drivers) and any(driver.brought for driver in good)
    sight = Sight(
        plan=node_plan,
        jobs=facts.jobs,
        grip=standing.grip,
        run=run,
        touched=standing.touched,
        about_to=standing.step,
        began=standing.began,
        has_good=complete,
        good_again=complete and _stands_at(playbook, good, facts),
        held=standing.held,
        spent=_spent(standing.last, run),
    )
    return View(
        facts=facts, standing=standing, plan=node_plan, wanted=wanted.drivers, good=good, sight=sight
    )


def questions(playbook: Playbook, also: Iterable[Driver] = (), *, faults: bool = False) -> tuple[str, ...]:
    """Return the probe's arguments: what this playbook needs to know of a node, each asked once.

    Packages and modules follow their driver: whose options they have is told by the driver named last.
    """
    every = (*playbook.drivers, *also)
    names = dict.fromkeys(driver.name for driver in every)
    drivers = tuple(driver for name in names for driver in every if driver.name == name)
    asked = [("pool", playbook.pool_name)]
    for driver in drivers:
        asked += [("driver", driver.name)]
        asked += [("options", driver.name)] if driver.parameters else []
        asked += [("dkms", driver.dkms.package)] if driver.dkms else []
        asked += [("package", package) for package in driver.apt.packages] if driver.apt else []
        asked += [("module", question(module)) for module in (*driver.modules, *driver.conflicts)]
    words = [word for question in dict.fromkeys(asked) for word in question]
    for check in dict.fromkeys(check for driver in drivers for check in driver.checks):
        words += ["check", str(len(check)), *check]
    if faults or (playbook.rollout.canary and playbook.rollout.soak_seconds):
        words.append("faults")
    return tuple(words)


def _probe(line: Line, asked: tuple[str, ...]) -> NodeFacts:
    code, out, errors = ask(line, "probe.sh", asked, step="probe", deadline_seconds=PROBE_SECONDS)
    said = errors.decode("utf-8", "replace").strip()
    if code != 0:
        last = said.splitlines()[-1] if said else "no reason given"
        raise Permanent(line.node, "probe", f"exit {code}: {last}", evidence=said[-2000:])
    try:
        return parse.facts(out.decode("utf-8", "replace"))
    except parse.ProbeError as error:
        raise Permanent(line.node, "probe", f"cannot be read: {error}", evidence=said[-2000:]) from error


def ask(
    line: Line, program: str, words: Iterable[str], *, step: str, deadline_seconds: float
) -> tuple[int, bytes, bytes]:
    """Run a program that only looks; return exit code, stdout and stderr.

    As a look changes nothing, a link that dies under it is dialled again and the program is asked again.
    Raises LinkLost when that happened MAX_LINKS times, Unreachable when the node cannot be dialled again.
    """
    # In the exec request: on stdin it would cost a round trip more, for OpenSSH opens the window for input only
    # after it has started the command.
    argv = ("/bin/sh", "-c", whole(program), program, *words)
    run = partial(line.run, argv, step=step, deadline_seconds=deadline_seconds)
    for _ in range(MAX_LINKS - 1):
        with suppress(LinkLost):
            return run()
    return run()


def _prove_identity(node: str, facts: NodeFacts, standing: Standing) -> None:
    """A swapped address or a cloned image must not make one node's outage another node's install.

    Another machine says nothing good of the other addresses either, so all is refused. The right machine in
    another boot than its Node says is mostly one whose kubelet is not up yet, or dead: this node alone is refused.
    """
    for what, over_ssh, of_node in (
        ("machine id", facts.machine_id, standing.machine_id),
        ("boot id", facts.boot_id, standing.boot_id),
    ):
        # Both are empty only outside Kubernetes; a Node that does not say them was refused before.
        if of_node and over_ssh != of_node:
            refusal = NotTheNode if what == "machine id" else OtherBoot
            raise refusal(
                f"{node}: the host reached over SSH is not this Node: its {what} is {over_ssh}, "
                f"the Node's is {of_node}. Check address and node_name in the inventory; "
                f"after a reboot wait until the kubelet has reported again."
            )


def _kept(node: str, playbook: Playbook, states: Mapping[str, Good]) -> Iterable[Driver]:
    for driver in playbook.drivers:
        good = states.get(driver.name)
        if good is None and not driver.brought:
            yield driver
        elif good is not None:
            try:
                yield wanted_then(good)
            except ValueError as error:
                where = f"/var/lib/fleetdrv/good/{driver.name}/wanted.json"
                raise Permanent(node, "probe", f"{where} cannot be read: {error}") from error


def _stands_at(playbook: Playbook, good: tuple[Driver, ...], facts: NodeFacts) -> bool:
    listed = {driver.name: driver.services for driver in playbook.drivers}
    drivers = tuple(driver.with_services(listed.get(driver.name, ())) for driver in good)
    return plan(playbook.model_copy(update={"drivers": drivers}), facts).outcome is Outcome.CONVERGED


def _spent(result: Result | None, run: str) -> Verdict | None:
    """Return how the node's turn in this run ended, if it ended badly."""
    # A node that was held was let be, not tried: released, it has its turn.
    calm = (Verdict.CHANGED, Verdict.CONVERGED, Verdict.SKIPPED, Verdict.UNDER_WAY, Verdict.UNREACHABLE)
    if result is None or result.run != run or result.verdict in calm:
        return None
    return Verdict(result.verdict) if result.verdict in set(Verdict) else Verdict.FAILED
