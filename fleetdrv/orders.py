"""Looking at pools and giving them orders, from any machine: the cluster alone is asked, no node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from typing import Any

from fleetdrv import holding, holds, names, ownership
from fleetdrv import lease as leases
from fleetdrv.cluster import Cluster
from fleetdrv.document import document
from fleetdrv.effects import Effects
from fleetdrv.errors import Conflict, ExitCode, InputError, NotFound, Refused
from fleetdrv.lines import alike
from fleetdrv.nodeset import fold
from fleetdrv.options import Options
from fleetdrv.ownership import Kind, Object, Patch
from fleetdrv.proc import this_process
from fleetdrv.reach import open_cluster
from fleetdrv.records import Hold
from fleetdrv.swap import swap_node
from fleetdrv.timing import stamp

_WHY = "no reason given"


def status(options: Options, pool: str) -> ExitCode:
    """Print every pool's run, every node that is out by our hand, and every node that is held.

    A hold is on a node, whatever its pool: those of other pools are shown, too.
    """
    with _cluster(options) as cluster:
        held = [lease for lease in cluster.leases() if not pool or _pool(lease) == pool]
        if pool and not held:
            raise InputError(f"no pool {pool}: no rollout ever ran for it in this cluster")
        marked, kept = cluster.nodes(names.RUN_LABEL), cluster.nodes(names.HOLD_LABEL)
    held_nodes = {ownership.name(node): holds.said(node) or "" for node in kept}
    out = [_node(node) for node in marked if not pool or _record_pool(node) == pool]
    pools = [_lease(lease) for lease in held]
    if options.json:
        print(document("status", ExitCode.DONE, pools=pools, nodes=out, held=held_nodes))
        return ExitCode.DONE
    for one in pools:
        print(_pool_line(one))
    for said, nodes in alike({node["node"]: _node_words(node) for node in out}):
        print(f"  {fold(nodes)}: {said}")
    if not out:
        print("  no node is out of service by fleetdrv")
    for said, nodes in alike(held_nodes):
        print(f"  {fold(nodes)}: held ({said})")
    return ExitCode.DONE


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
    return _told(options, "abort", f"{pool}: its run is aborted; nodes in hand are finished")


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


def _record_pool(node: Object) -> str:
    record = ownership.state(node).record
    return record.pool if record else ""


def _lease(lease: Object) -> dict[str, Any]:
    record, orders = leases.run_record(lease), leases.orders(lease)
    return {
        "pool": _pool(lease),
        "holder": leases.holder_name(lease) if leases.holder_identity(lease) else "",
        "token": leases.token(lease),
        "run": record.id if record else "",
        "playbook": record.playbook if record else "",
        "versions": dict(record.versions) if record else {},
        "finished": record.finished if record else True,
        "reason": record.reason if record else "",
        "canary_passed": list(record.canary_passed) if record else [],
        "soaking": dict(record.soaking) if record else {},
        "failed": list(record.failed) if record else [],
        "unreachable": list(record.unreachable) if record else [],
        "paused": f"{orders.paused.who}: {orders.paused.why}" if orders.paused else "",
        "aborted": f"{orders.aborted.who}: {orders.aborted.why}" if orders.aborted else "",
    }


def _pool_line(pool: Mapping[str, Any]) -> str:
    driven = f"driven by {pool['holder']}" if pool["holder"] else "nobody drives it"
    run = f"run {pool['run']} of {pool['playbook']}" if pool["run"] else "no run yet"
    ended = " (finished)" if pool["run"] and pool["finished"] else ""
    parts = [f"{pool['pool']}: {driven}; {run}{ended}"]
    parts += [f"{word} {pool[word]}" for word in ("paused", "aborted", "reason") if pool[word]]
    parts += [f"{word}: {fold(pool[word])}" for word in ("failed", "unreachable") if pool[word]]
    parts += [f"{fold(nodes)} soaks until {until}" for until, nodes in alike(pool["soaking"])]
    return "; ".join(parts)


def _node(node: Object) -> dict[str, Any]:
    owner = ownership.state(node)
    record = owner.record
    return {
        "node": ownership.name(node),
        "owner": "out of service by fleetdrv" if owner.kind is Kind.OURS else owner.reason,
        "pool": record.pool if record else "",
        "run": record.run if record else "",
        "since": record.since if record else "",
        "reason": record.reason if record else "",
        "step": _phase(record.step or "drain") if record else "",
        "touched": bool(record and record.touched),
        "failed": record.failed if record else "",
    }


def _node_words(node: Mapping[str, Any]) -> str:
    """Return a line of `status`; nodes that stand alike share it."""
    state = f"step {node['step']}{', touched' if node['touched'] else ''}"
    failed = f"; {node['failed']}" if node["failed"] else ""
    return f"{node['owner']} since {node['since']}, run {node['run']}, {state}{failed}"


def _phase(step: str) -> str:
    """Return the phase of the job RUN.PHASE.NUMBER that a cordon names; other words stay."""
    return [*step.split("."), step][1]
