"""Who may start now: a pure function of the pool's phases and the policy, fit for 10,000 nodes.

Two widths: staging costs nobody anything and has `max_parallel`; an outage needs a slot of
`max_unavailable`, counted over the whole pool with everybody else's outages. The canaries go first, alone;
the rest starts when all of them came through and had their soak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from fleetdrv.playbook import Rollout, Share


class Stand(StrEnum):
    """Where a node stands in the rollout. Each name says what the rollout may do with it."""

    WAITING = "waiting"
    """Owes a change, not staged yet."""
    STAGING = "staging"
    STAGED = "staged"
    """Ready for its outage, waits for a slot."""
    IN_OUTAGE = "in outage"
    DONE = "done"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    SETTLED = "settled"
    """Nothing to do, or nothing that may be done: converged, skipped, blocked, incompatible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One selected node."""

    stand: Stand
    out: bool = False
    """Out of service now, whoever did it (unschedulable or not Ready)."""
    ours: bool = False
    """Out by an earlier hand of ours: it goes first, and costs nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The numbers that come from the whole pool, never from the selection."""

    size: int
    foreign_out: int = 0
    """Nodes out of service that this rollout does not drive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the run record remembers for a controller that comes after."""

    canary_passed: bool = False
    failures: int = 0
    unreachable: int = 0


@dataclass(frozen=True, slots=True)
class Admission:
    """Who starts now, and why nobody else does."""

    stage: tuple[str, ...] = ()
    outage: tuple[str, ...] = ()
    stopped: str = ""
    """A spent budget: no new node starts any more."""
    waiting_for: str = ""
    limits: Mapping[str, int] = field(default_factory=dict)


def resolve(share: Share, size: int, *, least: int) -> int:
    """Turn a number or percentage into a number of nodes: rounded down, at least `least`.

    >>> resolve("25%", 7, least=1), resolve("2%", 10, least=1), resolve(3, 2, least=1)
    (1, 1, 3)
    """
    if isinstance(share, int):
        return max(share, least)
    return max(size * int(share.removesuffix("%")) // 100, least)


def limits(policy: Rollout, pool: Pool) -> Mapping[str, int]:
    """Return the policy in whole nodes, as it is shown before anything starts."""
    unreachable = resolve(
        policy.max_unreachable, pool.size, least=0 if policy.max_unreachable in (0, "0%") else 1
    )
    return {
        "max_unavailable": resolve(policy.max_unavailable, pool.size, least=1),
        "max_parallel": policy.max_parallel,
        "max_failures": policy.max_failures,
        "max_unreachable": unreachable,
        "canary": policy.canary,
    }


def admit(members: Mapping[str, Member], pool: Pool, policy: Rollout, progress: Progress) -> Admission:
    """Decide which nodes start staging and which go out of service now.

    Promises: never more out than `max_unavailable`, foreign outages counted unless the policy ignores
    them; no start past a budget; a node that is out already goes first and needs no slot; as long as a
    node waits and nothing is under way, either somebody starts or `stopped` or `waiting_for` says why not.
    """
    bounds = limits(policy, pool)
    stopped = _spent(bounds, progress)
    if stopped:
        return _finish_what_is_out(members, stopped, bounds)
    eligible, waiting_for = _eligible(members, bounds["canary"], progress)
    staging = sum(member.stand is Stand.STAGING for member in members.values())
    to_stage = [n for n in eligible if members[n].stand is Stand.WAITING]
    ready = [n for n in eligible if members[n].stand is Stand.STAGED]
    outage, why = _slots(members, ready, pool, policy, bounds)
    return Admission(
        stage=tuple(to_stage[: max(0, bounds["max_parallel"] - staging)]),
        outage=outage,
        waiting_for=waiting_for or why,
        limits=bounds,
    )


def _finish_what_is_out(members: Mapping[str, Member], stopped: str, bounds: Mapping[str, int]) -> Admission:
    """No new node starts, but one that an earlier controller left out half-way is brought to its end."""
    halfway = [n for n, m in members.items() if m.ours and m.stand in (Stand.WAITING, Stand.STAGED)]
    return Admission(
        stage=tuple(n for n in halfway if members[n].stand is Stand.WAITING),
        outage=tuple(n for n in halfway if members[n].stand is Stand.STAGED),
        stopped=stopped,
        limits=bounds,
    )


def _spent(bounds: Mapping[str, int], progress: Progress) -> str:
    if progress.failures > bounds["max_failures"]:
        return f"{progress.failures} failed, max_failures is {bounds['max_failures']}"
    if progress.unreachable > bounds["max_unreachable"]:
        return f"{progress.unreachable} unreachable, max_unreachable is {bounds['max_unreachable']}"
    return ""


def _eligible(members: Mapping[str, Member], canary: int, progress: Progress) -> tuple[list[str], str]:
    """Everybody once the canaries are through; before that our left-overs and the first canaries."""
    open_ = [n for n, m in members.items() if m.stand in (Stand.WAITING, Stand.STAGED)]
    ordered = sorted(
        open_, key=lambda n: (not members[n].ours, members[n].stand is not Stand.STAGED, not members[n].out)
    )
    if progress.canary_passed or canary == 0:
        return ordered, ""
    begun = [m for m in members.values() if m.stand in (Stand.STAGING, Stand.IN_OUTAGE, Stand.DONE)]
    chosen = ordered[: max(0, canary - len(begun))]
    left_over = [n for n in ordered if members[n].ours and n not in chosen]
    held_back = len(ordered) > len(chosen) + len(left_over)
    return chosen + left_over, "the canaries to pass" if held_back and not chosen else ""


def _slots(
    members: Mapping[str, Member],
    ready: Sequence[str],
    pool: Pool,
    policy: Rollout,
    bounds: Mapping[str, int],
) -> tuple[tuple[str, ...], str]:
    """Fill free slots; a node that is out of service already takes none that it does not hold."""
    going = {n for n, m in members.items() if m.stand is Stand.IN_OUTAGE}
    out = {n for n, m in members.items() if m.out and (m.ours or policy.foreign_outages == "count")} | going
    foreign = pool.foreign_out if policy.foreign_outages == "count" else 0
    free = bounds["max_unavailable"] - len(out) - foreign
    places = bounds["max_parallel"] - len(going)
    started: list[str] = []
    for name in ready:
        if len(started) >= places:
            return tuple(started), "max_parallel"
        if members[name].out:
            started.append(name)
        elif free > 0:
            started.append(name)
            free -= 1
        else:
            return tuple(
                started
            ), f"a slot: {len(out) + foreign} of {bounds['max_unavailable']} out of service"
    return tuple(started), ""
