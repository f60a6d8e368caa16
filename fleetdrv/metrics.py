"""What a command saw and did, as Prometheus metrics. Pure: values in, families of samples out.

How many series. Those with a `node` label are of nodes that the command looked at (those that are out by
fleetdrv's hand: of the pool), so never more than the inventory has; each write takes the place of the one
before, so a node that is gone goes with it. A driver has a series for each layer that it can differ in, six for
a plain DKMS driver: 1,000 nodes are 6,000 of `fleetdrv_drift`, 1,000 of `fleetdrv_driver_info`, and one for each
phase of a node that this run changed. Findings are cut to a step and its exit code, and to the twenty most
frequent. Nothing here holds a run's id: it would be a new series with each run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fleetdrv.findings import named
from fleetdrv.layers import Difference, Layer
from fleetdrv.model import NodeFacts
from fleetdrv.playbook import Driver
from fleetdrv.turn import Verdict

DRIFTED = "drifted"
"""Verdict of a node that is not as wanted, where the command was only to look, or did not come to it."""

_MOST_FINDINGS = 20
_OTHER = "other"
_NO_FAILURE = frozenset(
    {Verdict.CONVERGED, Verdict.CHANGED, Verdict.SKIPPED, Verdict.BLOCKED, Verdict.DEFERRED, DRIFTED}
)
_FINDING = re.compile(r"[a-z][^;()\n]{0,79}?: exit \d{1,3}\b|[a-z][a-z0-9 _.-]{0,39}(?=:| \()")

_NAME = re.compile(r"(?:^|: )([a-z][a-z0-9-]+)(?=: )")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSeen:
    """One driver as it was found on one node."""

    name: str
    wanted: str
    found: str
    """Version on disk; empty where there is none."""
    loaded: str
    """Version that the loaded module tells; empty where none is loaded, or it tells none."""
    drift: Mapping[Layer, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSeen:
    """One node that the command looked at, or could not."""

    node: str
    """Name of the Node object, as other exporters say it."""
    verdict: str
    why: str = ""
    readable: bool = True
    drivers: tuple[DriverSeen, ...] = ()
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds by phase of its turn in this run."""
    seconds_out: float | None = None
    """From its cordon to its uncordon, if that was in this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A command that ended."""

    command: str
    pool: str
    exit_code: int
    ended: float
    """Seconds since 1970."""
    seconds: float
    version: str
    nodes: tuple[NodeSeen, ...] = ()
    out_since: Mapping[str, float] = field(default_factory=dict)
    """Nodes that are out of service by fleetdrv's hand, and since when (seconds since 1970)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric, a gauge, and its samples: label values in the order of the labels, and the value."""

    name: str
    help: str
    labels: tuple[str, ...]
    samples: tuple[tuple[tuple[str, ...], float], ...]


def driver_seen(driver: Driver, facts: NodeFacts, differences: Iterable[Difference]) -> DriverSeen:
    """Return what a look found of one driver."""
    differ = {difference.layer for difference in differences if difference.driver == driver.name}
    module = facts.loaded.get(next(iter(driver.modules), ""))
    judged = dict.fromkeys((*layers_of(driver), *sorted(differ)))
    return DriverSeen(
        name=driver.name,
        wanted=driver.version,
        found=found_version(driver, facts),
        loaded=module.identity.version if module else "",
        drift={layer: layer in differ for layer in judged},
    )


def layers_of(driver: Driver) -> tuple[Layer, ...]:
    """Return the layers in which this driver can differ: those of which its playbook says something."""
    asked = {
        Layer.HARDWARE: bool(driver.requires_pci),
        Layer.PACKAGE: driver.apt is not None,
        Layer.HOLD: driver.apt is not None,
        Layer.REPOSITORY: driver.apt is not None,
        Layer.BUILT: driver.brought,
        Layer.PARAMETERS: bool(driver.parameters),
        Layer.CONFLICTS: bool(driver.conflicts),
        Layer.SERVICES: bool(driver.services),
        Layer.CHECKS: bool(driver.checks),
    }
    return tuple(layer for layer in Layer if asked.get(layer, True))


def found_version(driver: Driver, facts: NodeFacts) -> str:
    """Return the version that is on the node's disk, in the words of `Driver.version`."""
    if driver.apt is not None:
        package = facts.packages.get(next(iter(driver.apt.packages)))
        return package.version if package and package.status == "installed" else ""
    if driver.dkms is not None:
        built = (e for e in facts.dkms if e.name == driver.dkms.package and e.kernel == facts.kernels.running)
        return ",".join(sorted({entry.version for entry in built if entry.state == "installed"}))
    there = any(facts.file(module, facts.kernels.running) for module in driver.modules)
    return driver.version if there else ""


def finding(node: NodeSeen) -> str:
    """Return why a node failed in so few words that there are few of them: the finding's name, else step and code.

    >>> finding(NodeSeen(node="n", verdict="given up", why="failed: disk-full: No space is left on /var; toy: x"))
    'disk-full'
    >>> finding(NodeSeen(node="n", verdict="failed", why="toy: install toy/1.1: exit 74 (job r1.outage.1); back"))
    'toy: install toy/1.1: exit 74'
    >>> finding(NodeSeen(node="n", verdict="unreachable", why="connect: no route to 10.0.0.7"))
    'connect'
    >>> finding(NodeSeen(node="n", verdict="given up", why="Whatever 17 said"))
    'given up'
    """
    known = (name for name in _NAME.findall(node.why) if named(name))
    if name := next(known, ""):
        return name
    match = _FINDING.match(node.why.removeprefix(f"{node.node}: ")) if node.verdict != Verdict.REFUSED else None
    return match[0] if match else node.verdict


def families(run: Run) -> tuple[Family, ...]:
    """Return all that is told of a command."""
    pool, command = run.pool, (run.pool, run.command)
    return (
        Family(
            name="fleetdrv_build_info",
            help="Version of the fleetdrv that wrote these metrics; always 1.",
            labels=("version",),
            samples=(((run.version,), 1),),
        ),
        _of_run("timestamp_seconds", "When the last command ended, in seconds since 1970.", command, run.ended),
        _of_run("duration_seconds", "How long the last command took.", command, run.seconds),
        _of_run(
            "exit_code",
            "How the last command ended: 0 done, 1 a bug, 2 drift, 3 refused, 4 some node failed, "
            "5 stopped before the end, 130 interrupted.",
            command,
            run.exit_code,
        ),
        _counted("fleetdrv_nodes", "Nodes by how their turn ended.", "verdict", pool, _verdicts(run.nodes)),
        _counted("fleetdrv_failed_nodes", "Nodes that failed, by finding.", "finding", pool, _findings(run.nodes)),
        *_of_nodes(run),
        *_of_drivers(run),
    )


def _of_run(what: str, text: str, command: tuple[str, str], value: float) -> Family:
    labels = ("pool", "command")
    return Family(name=f"fleetdrv_last_run_{what}", help=text, labels=labels, samples=((command, value),))


def _counted(name: str, text: str, label: str, pool: str, counts: Mapping[str, int]) -> Family:
    samples = tuple(((pool, key), number) for key, number in counts.items())
    return Family(name=name, help=text, labels=("pool", label), samples=samples)


def _verdicts(nodes: Iterable[NodeSeen]) -> Mapping[str, int]:
    """Also those that no node has: an alert on a series that is not there never fires."""
    shown = [str(verdict) for verdict in Verdict if verdict is not Verdict.UNDER_WAY]
    return {**dict.fromkeys((*shown, DRIFTED), 0), **Counter(node.verdict for node in nodes)}


def _findings(nodes: Iterable[NodeSeen]) -> Mapping[str, int]:
    every = Counter(finding(node) for node in nodes if node.verdict not in _NO_FAILURE)
    most = dict(sorted(every.items(), key=lambda item: (-item[1], item[0]))[:_MOST_FINDINGS])
    rest = every.total() - sum(most.values())
    return {**most, _OTHER: most.get(_OTHER, 0) + rest} if rest else most


def _of_nodes(run: Run) -> Iterator[Family]:
    of_node = ("pool", "node")
    yield Family(
        name="fleetdrv_node_readable",
        help="Whether the node could be looked at: 0, and nothing else is known of it.",
        labels=of_node,
        samples=tuple(((run.pool, node.node), float(node.readable)) for node in run.nodes),
    )
    yield Family(
        name="fleetdrv_out_of_service_seconds",
        help="From the cordon to the uncordon of the outage that ended in the last run.",
        labels=of_node,
        samples=tuple(
            ((run.pool, node.node), node.seconds_out) for node in run.nodes if node.seconds_out is not None
        ),
    )
    yield Family(
        name="fleetdrv_out_of_service_since_timestamp_seconds",
        help="When the cordon was set of a node that is still out of service by fleetdrv's hand.",
        labels=of_node,
        samples=tuple(((run.pool, node), since) for node, since in sorted(run.out_since.items())),
    )
    yield Family(
        name="fleetdrv_phase_duration_seconds",
        help="How long each phase of the node's turn in the last run took.",
        labels=(*of_node, "phase"),
        samples=tuple(
            ((run.pool, node.node, phase), seconds)
            for node in run.nodes
            for phase, seconds in node.phases.items()
        ),
    )


def _of_drivers(run: Run) -> Iterator[Family]:
    every = [(node, driver) for node in run.nodes for driver in node.drivers]
    yield Family(
        name="fleetdrv_drift",
        help="Whether a layer of a driver on a node is not as wanted.",
        labels=("pool", "node", "driver", "layer"),
        samples=tuple(
            ((run.pool, node.node, driver.name, str(layer)), float(differs))
            for node, driver in every
            for layer, differs in driver.drift.items()
        ),
    )
    yield Family(
        name="fleetdrv_driver_info",
        help="Versions of a driver on a node: wanted, found on disk, loaded; always 1.",
        labels=("pool", "node", "driver", "wanted", "found", "loaded"),
        samples=tuple(
            ((run.pool, node.node, driver.name, driver.wanted, driver.found, driver.loaded), 1)
            for node, driver in every
        ),
    )
