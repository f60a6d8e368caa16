"""Giving orders to pools and nodes, from any machine: the cluster alone is asked, no node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches

from fleetdrv import holding, holds, names, ownership
from fleetdrv.cluster import Cluster
from fleetdrv.document import document
from fleetdrv.effects import Effects
from fleetdrv.errors import Conflict, ExitCode, InputError, NotFound, Refused
from fleetdrv.options import Options
from fleetdrv.ownership import Object, Patch
from fleetdrv.proc import this_process
from fleetdrv.reach import open_cluster
from fleetdrv.records import Hold
from fleetdrv.swap import swap_node
from fleetdrv.timing import stamp

_WHY = "no reason given"


def pause(options: Options, pool: str) -> ExitCode:
    """Pause a pool."""
    with _cluster(options) as cluster:
        holding.pause(cluster, _known(cluster, pool), str(this_process()), options.reason or _WHY)
    text = f"{pool}: paused; nodes in hand are finished, no further one starts until: fleetdrv resume {pool}"
    return _told(options, "pause", text)


def resume(options: Options, pool: str) -> ExitCode:
    """Lift a pause."""
    with _cluster(options) as cluster:
        holding.resume(cluster, _known(cluster, pool))
    text = f"{pool}: resumed; a run that ended meanwhile goes on with the same apply command"
    return _told(options, "resume", text)


def abort(options: Options, pool: str) -> ExitCode:
    """End a run."""
    with _cluster(options) as cluster:
        holding.abort(cluster, _known(cluster, pool), str(this_process()), options.reason or _WHY)
    by = "by its controller or, where that is gone, by the next apply, which is a new run"
    return _told(options, "abort", f"{pool}: its run is aborted; nodes in hand are finished {by}")


def hold(options: Options, node: str) -> ExitCode:
    """Have everybody's fleetdrv leave a node alone."""
    if not options.reason.strip():
        raise InputError("hold: say why with --reason TEXT: a hold may well outlast the memory of it")
    mine = Hold(who=str(this_process()), reason=options.reason.strip()[:500], since=stamp())
    with _cluster(options) as cluster:
        held = _swap(cluster, node, lambda seen: holds.hold_patch(seen, mine))
    owner = ownership.state(held)
    text = f"{node}: held ({owner.held}) until: fleetdrv release {node}"
    if owner.record is not None:
        text += f"; {owner.kind} for run {owner.record.run}: " + (
            "the step under way ends, no other begins" if owner.record.touched else "it goes back as it was found"
        )
    return _told(options, "hold", text)


def release(options: Options, node: str) -> ExitCode:
    """Take a hold off; a node that nobody holds is as wanted."""
    with _cluster(options) as cluster:
        left = ownership.state(_swap(cluster, node, holds.release_patch)).record
    again = "; it is still out of service: the same apply command again brings it to its end" if left else ""
    return _told(options, "release", f"{node}: not held{again}")


def _swap(cluster: Cluster, node: str, decide: Callable[[Object], Patch | None]) -> Object:
    """Change one Node; raises InputError with names like it where there is none of that name."""
    try:
        return swap_node(cluster, node, decide)
    except NotFound:
        known = [ownership.name(other) for other in cluster.nodes()]
        close = ", ".join(get_close_matches(node, known, 3)) or f"none is named like it, of {len(known)}"
        raise InputError(f"no node {node} in this cluster; near: {close}") from None
    except Conflict as error:
        raise Refused(f"{node}: the Node could not be written, others change it all the time: {error}") from error


def _told(options: Options, command: str, text: str) -> ExitCode:
    print(document(command, ExitCode.DONE, done=text) if options.json else text)
    return ExitCode.DONE


@contextmanager
def _cluster(options: Options) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield open_cluster(stack, options, Effects())


def _known(cluster: Cluster, pool: str) -> str:
    """A misspelt pool must not be paused in silence while the real one goes on."""
    if cluster.lease(names.lease_name(pool)) is None:
        known = ", ".join(_pool(lease) for lease in cluster.leases()) or "none"
        raise InputError(f"no pool {pool} in this cluster; pools: {known}")
    return pool


def _pool(lease: Object) -> str:
    return str(lease["metadata"]["name"]).removeprefix(names.LEASE_PREFIX)
