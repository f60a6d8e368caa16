"""`fleetdrv status`: who drives each pool, who is out, what each waits for, what blocks, and what to type next.

From any machine, and of the cluster alone: its Leases, the Nodes that carry our marks, those that a stopped run
named as being in its way, and the pods of nodes that are being drained. No node is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any

from fleetdrv import holds, names, ownership, pods, standstill
from fleetdrv import lease as leases
from fleetdrv.cluster import Cluster
from fleetdrv.document import document
from fleetdrv.effects import Effects
from fleetdrv.errors import ExitCode, InputError, NotFound
from fleetdrv.lease import Holder
from fleetdrv.lines import alike
from fleetdrv.nodeset import fold
from fleetdrv.options import Options
from fleetdrv.ownership import Kind, Object
from fleetdrv.proc import alive, this_process
from fleetdrv.reach import open_cluster
from fleetdrv.timing import utc_now

_BLOCKERS = 20
"""So many nodes that block are looked at; the rest is counted."""


def status(options: Options, pool: str) -> ExitCode:
    """Print every pool's run, every node that is out by our hand, and every node that is held.

    A hold is on a node, whatever its pool: those of other pools are shown, too.
    """
    with _cluster(options) as cluster:
        held = {name: lease for lease in cluster.leases() if (name := _pool(lease)) == pool or not pool}
        marked, kept = cluster.nodes(names.RUN_LABEL), cluster.nodes(names.HOLD_LABEL)
        marked = tuple(node for node in marked if not pool or _record_pool(node) == pool)
        if pool and not held and not marked:
            raise InputError(f"no pool {pool}: no rollout ever ran for it in this cluster")
        out = [_node(cluster, node, held.get(_record_pool(node))) for node in marked]
        pools = [_lease(lease, {_record_pool(node) for node in marked}, cluster.node) for lease in held.values()]
    held_nodes = {ownership.name(node): holds.said(node) or "" for node in kept}
    if options.json:
        print(document("status", ExitCode.DONE, pools=pools, nodes=out, held=held_nodes))
    else:
        print("\n".join(_lines(pools, out, held_nodes)))
    return ExitCode.DONE


@contextmanager
def _cluster(options: Options) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield open_cluster(stack, options, Effects())


def _lines(
    pools: Iterable[Mapping[str, Any]], out: list[dict[str, Any]], held_nodes: Mapping[str, str]
) -> Iterable[str]:
    for one in pools:
        yield _pool_line(one)
        for said, nodes in alike(one["blocked_by"]):
            yield f"  {one['rule'] or 'blocked'}: {fold(nodes)}: {said}"
        if one["next"]:
            away = [name for name, said in one["blocked_by"].items() if not said.startswith(standstill.SERVES)]
            once = f", once {fold(away)} serves again" if away and one["rule"] == "max_unavailable" else ""
            yield f"  to go on{once}: {one['next']}"
    # What to type names the node: nodes that stand alike share the line above it.
    for said, nodes in alike({node["node"]: _node_words(node) for node in out}):
        yield f"  {fold(nodes)}: {said}"
        for todo in (node["next"] for node in out if node["node"] in nodes and node["next"]):
            yield f"    to finish it: {todo}"
    if not out:
        yield "  no node is out of service by fleetdrv"
    for said, nodes in alike(held_nodes):
        yield f"  {fold(nodes)}: held ({said})"


def _pool(lease: Object) -> str:
    return str(lease["metadata"]["name"]).removeprefix(names.LEASE_PREFIX)


def _record_pool(node: Object) -> str:
    record = ownership.state(node).record
    return record.pool if record else ""


def _driver(lease: Object, now: datetime) -> str:
    holder = Holder.parse(leases.holder_identity(lease))
    return standstill.driver(lease, now, alive=alive(holder, this_process()) if holder else None)


def _driven(lease: Object | None) -> bool:
    return lease is not None and _driver(lease, utc_now()).startswith("driven")


def _lease(lease: Object, out: Iterable[str], look: Callable[[str], Object]) -> dict[str, Any]:
    record, orders, pool = leases.run_record(lease), leases.orders(lease), _pool(lease)
    driven = _driven(lease)
    blockers = () if driven else standstill.blocking(lease)
    return {
        "pool": pool,
        "driver": _driver(lease, utc_now()),
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
        "rule": standstill.rule(record) if record and blockers else "",
        "blocked_by": {name: standstill.stands(_seen(look, name)) for name in blockers[:_BLOCKERS]},
        "next": standstill.pool_next(lease, driven=driven, out=pool in out),
    }


def _seen(look: Callable[[str], Object], name: str) -> Object | None:
    try:
        return look(name)
    except NotFound:
        return None


def _pool_line(pool: Mapping[str, Any]) -> str:
    run = f"run {pool['run']} of {pool['playbook']}" if pool["run"] else "no run yet"
    ended = " (finished)" if pool["run"] and pool["finished"] else ""
    parts = [f"{pool['pool']}: {pool['driver']}; {run}{ended}"]
    parts += [f"{word} {pool[word]}" for word in ("paused", "aborted", "reason") if pool[word]]
    parts += [f"{word}: {fold(pool[word])}" for word in ("failed", "unreachable") if pool[word]]
    parts += [f"{fold(nodes)} soaks until {until}" for until, nodes in alike(pool["soaking"])]
    return "; ".join(parts)


def _node(cluster: Cluster, node: Object, lease: Object | None) -> dict[str, Any]:
    owner, driven = ownership.state(node), _driven(lease)
    record, name = owner.record, ownership.name(node)
    draining = driven and record is not None and not record.touched
    leaving = [p for p in cluster.pods_on(name) if p["metadata"].get("deletionTimestamp")] if draining else []
    return {
        "node": name,
        "owner": "out of service by fleetdrv" if owner.kind is Kind.OURS else owner.reason,
        "pool": record.pool if record else "",
        "run": record.run if record else "",
        "since": record.since if record else "",
        "reason": record.reason if record else "",
        "step": _phase(record.step or "drain") if record else "",
        "touched": bool(record and record.touched),
        "failed": record.failed if record else "",
        "driven": driven,
        "waits_for": standstill.waits_for(node, leaving, [pods.title(pod) for pod in leaving]) if driven else "",
        "next": standstill.node_next(name, node, leases.course(lease), driven=driven),
    }


def _node_words(node: Mapping[str, Any]) -> str:
    """Return a line of `status`; nodes that stand alike share it."""
    state = f"step {node['step']}{', touched' if node['touched'] else ''}"
    failed = f"; {node['failed']}" if node["failed"] else ""
    waits = "" if node["driven"] else "; nobody is at it"
    waits = f"; waits for {node['waits_for']}" if node["waits_for"] else waits
    return f"{node['owner']} since {node['since']}, run {node['run']}, {state}{failed}{waits}"


def _phase(step: str) -> str:
    """Return the phase of the job RUN.PHASE.NUMBER that a cordon names; other words stay."""
    return [*step.split("."), step][1]
