"""Bring a command's metrics to Prometheus: a file for node_exporter, or a Pushgateway.

What cannot be written or pushed is a warning and never changes how a command ends. Each write takes the place of
the one before: what stands there is what the last command saw. One that saw no node (refused, pool taken) tells
only how it ended.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from fleetdrv import load, metrics, names, ownership
from fleetdrv.atomic import put
from fleetdrv.crew import Crew
from fleetdrv.drive import NodeDriver
from fleetdrv.ending import Ending
from fleetdrv.errors import ExitCode, FleetdrvError, InputError
from fleetdrv.events import Event, Level, Say
from fleetdrv.metrics import NodeSeen, Run
from fleetdrv.options import Options
from fleetdrv.records import moment

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

PUSH_SECONDS = 10.0
"""How long each step of a push may take; a gateway that hangs must not hold up the next run."""

_JOB = "fleetdrv"
_MODE = 0o644  # node_exporter is another user


@dataclass(slots=True, kw_only=True)
class Told:
    """What a command has to tell when it ends."""

    wanted: bool
    pool: str = ""
    code: ExitCode = ExitCode.DONE
    endings: Sequence[Ending] = ()
    nodes: tuple[NodeSeen, ...] = ()
    out_since: Mapping[str, float] = field(default_factory=dict)

    def ended(self, code: ExitCode, endings: Sequence[Ending] = ()) -> ExitCode:
        """Take how the command ended; return its exit code."""
        self.code, self.endings = code, endings
        return code

    @contextmanager
    def watching(self, crew: Crew) -> Iterator[None]:
        """Take what the crew knows in the end, whatever the ending, while it still has its cluster."""
        self.pool = crew.pool_name
        try:
            yield
        finally:
            if self.wanted:
                ended = {ending.node: ending for ending in self.endings}
                every = ((driver, ended.get(name)) for name, driver in crew.drivers.items())
                self.nodes = tuple(_seen(driver, ending) for driver, ending in every if driver.view or ending)
                with suppress(FleetdrvError):
                    self.out_since = _out_since(crew)


@contextmanager
def reported(command: str, options: Options, playbook: str, say: Say) -> Iterator[Told]:
    """Tell how a command ended, also where it ends in an error. Raises InputError for a wrong option."""
    check(options)
    told = Told(wanted=bool(options.metrics_file or options.pushgateway))
    started = time.monotonic()
    try:
        yield told
    except BaseException as error:
        told.code = _code_of(error)
        raise
    finally:
        if told.wanted:
            if not told.pool:
                with suppress(FleetdrvError):
                    told.pool = load.playbook(Path(playbook)).playbook.pool_name
            run = Run(
                command=command,
                pool=told.pool,
                exit_code=int(told.code),
                ended=time.time(),
                seconds=time.monotonic() - started,
                version=_version(),
                nodes=told.nodes,
                out_since=told.out_since,
            )
            _send(run, options, say)


def _version() -> str:
    try:
        return version("fleetdrv")
    except PackageNotFoundError:  # a source tree that nobody installed
        return "unknown"


def check(options: Options) -> None:
    """Refuse what would be in vain each time, before anything is touched."""
    path = options.metrics_file
    try:
        url = urlsplit(options.pushgateway)
    except ValueError as error:
        raise InputError(f"--pushgateway: {error}") from error
    if path and not path.endswith(".prom"):
        raise InputError(f"--metrics-file {path}: must end in .prom; node_exporter reads no other file")
    if options.pushgateway and (url.scheme not in ("http", "https") or not url.hostname):
        raise InputError(f"--pushgateway {options.pushgateway}: not a URL such as http://HOST:9091")
    if url.username is not None or url.password is not None:
        raise InputError("--pushgateway: no user or password in the URL: every user of this machine could see it")


def _code_of(error: BaseException) -> ExitCode:
    """As main.py ends the program."""
    if isinstance(error, FleetdrvError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return ExitCode.STOPPED if isinstance(error, BrokenPipeError) else ExitCode.BUG


def _seen(driver: NodeDriver, ending: Ending | None) -> NodeSeen:
    view = driver.view
    if view is None:
        assert ending is not None
        verdict, why = str(ending.verdict), ending.why
        return NodeSeen(node=driver.service.node, verdict=verdict, why=why, readable=False)
    found = metrics.DRIFTED if view.plan.differences else "converged"
    differences = view.plan.differences
    return NodeSeen(
        node=driver.service.node,
        verdict=str(ending.verdict) if ending else found,
        why=ending.why if ending else "",
        drivers=tuple(metrics.driver_seen(wanted, view.facts, differences) for wanted in view.wanted),
        phases=driver.stopwatch.seconds if ending else {},
        seconds_out=ending.seconds_out if ending else None,
    )


def _out_since(crew: Crew) -> dict[str, float]:
    if crew.cluster is None:
        return {}
    members, found = crew.members, {}
    for node in crew.cluster.nodes(names.RUN_LABEL):
        with suppress(FleetdrvError):
            record = ownership.state(node).record
            since = moment(record.since) if record is not None else None
            if since is not None and ownership.name(node) in members:
                found[ownership.name(node)] = since.timestamp()
    return found


def _send(run: Run, options: Options, say: Say) -> None:
    """Write and push. Best effort: a command's work is done, whatever becomes of its numbers."""
    registry = _registry(run)
    if options.metrics_file:
        try:
            _write(Path(options.metrics_file), registry)
        except OSError as error:
            _warn(say, f"--metrics-file {options.metrics_file}: not written: {error.strerror or error}")
    if options.pushgateway:
        from prometheus_client import push_to_gateway

        group = {"pool": run.pool} if run.pool else {}
        try:
            push_to_gateway(options.pushgateway, _JOB, registry, group, PUSH_SECONDS)
        except (OSError, HTTPException, ValueError) as error:
            _warn(say, f"--pushgateway {options.pushgateway}: not pushed: {error}")


def _registry(run: Run) -> CollectorRegistry:
    """Return the run's families as the client library knows them; it is imported by who wants metrics only."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily

    class Collected:
        def collect(self) -> Iterator[Metric]:
            for family in metrics.families(run):
                made = GaugeMetricFamily(family.name, family.help, labels=family.labels)
                for labels, value in family.samples:
                    made.add_metric(labels, value)
                yield cast("Metric", made)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected())
    return registry


def _write(path: Path, registry: CollectorRegistry) -> None:
    """Put the file there as a whole: node_exporter reads at any time, only names that end in .prom."""
    from prometheus_client import generate_latest

    put(path, generate_latest(registry), _MODE)


def _warn(say: Say, text: str) -> None:
    say(Event(node="", phase="metrics", text=text, level=Level.WARNING))
