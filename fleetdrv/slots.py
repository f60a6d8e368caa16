"""Places out of service: how many the pool has, how many each failure domain has, and which are taken. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from fleetdrv.policy import PerTopology, Rollout, Share


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
    """Nothing to do, or nothing that may be done: converged, skipped, blocked, incompatible, refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Out:
    """Whether a node of the pool is out of service now, and by our hand."""

    out: bool
    ours: bool
    domain: str = ""
    """Value of the label of `max_unavailable_per`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One selected node."""

    stand: Stand
    out: bool = False
    """Out of service now, whoever did it (unschedulable or not Ready)."""
    ours: bool = False
    """Out by an earlier hand of ours: it goes first, and costs nothing more."""
    domain: str = ""
    """Value of the label of `max_unavailable_per`; empty where it has none."""

    def at(self, now: Out) -> Member:
        """Return it as it stands in the cluster now."""
        return replace(self, out=now.out, ours=now.ours, domain=now.domain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """The numbers of one failure domain."""

    size: int = 0
    foreign_out: int = 0
    ours_out: int = 0
    """As the pool's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The numbers that come from the whole pool, never from the selection."""

    size: int
    foreign_out: int = 0
    """Nodes out of service by others' doing that this rollout does not drive."""
    ours_out: int = 0
    """Nodes out by an earlier hand of ours that this rollout does not drive (`--limit`): they always count."""
    domains: Mapping[str, Domain] = field(default_factory=dict)
    """By the value of the label of `max_unavailable_per`; none where the policy asks for none."""


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
        **dict(_domain_limits(policy.max_unavailable_per, pool)),
        "max_parallel": policy.max_parallel,
        "staging": policy.staging or policy.max_parallel,
        "max_failures": policy.max_failures,
        "max_unreachable": unreachable,
        "canary": policy.canary,
    }


def _domain_limits(per: PerTopology | None, pool: Pool) -> Iterator[tuple[str, int]]:
    """Return one limit for all domains where it is the same in each, else one a domain."""
    if per is None:
        return
    bounds = {name: _in_domain(per, pool, name) for name in sorted(pool.domains or {""})}
    if len(set(bounds.values())) == 1:
        yield f"max_unavailable per {per.label}", min(bounds.values())
    else:
        for name, bound in bounds.items():
            yield f"max_unavailable of {_domain(per, name)}", bound


def _in_domain(per: PerTopology, pool: Pool, domain: str) -> int:
    return resolve(per.max_unavailable, pool.domains.get(domain, Domain()).size, least=1)


def _domain(per: PerTopology, domain: str) -> str:
    return f"{per.label}={domain}" if domain else f"nodes without {per.label}"


class Slots:
    """The free places of the pool and of each failure domain; outages of others count where the policy says so.

    `members` says how many of the selected nodes stand in each way.
    """

    def __init__(self, members: Mapping[Member, int], pool: Pool, policy: Rollout, bound: int) -> None:
        self._pool, self._per, self._bound = pool, policy.max_unavailable_per, bound
        self._counted = counted = policy.foreign_outages == "count"
        self.going = 0
        """Nodes in outage now."""
        self._out = pool.ours_out + (pool.foreign_out if counted else 0)
        self._out_of: dict[str, int] = {}
        for member, many in members.items():
            going = member.stand is Stand.IN_OUTAGE
            self.going += many if going else 0
            if going or (member.out and (member.ours or counted)):
                self.take(member, many)

    def take(self, member: Member, many: int = 1) -> None:
        """Give places away."""
        self._out += many
        if self._per:
            self._out_of[member.domain] = self._out_of.get(member.domain, 0) + many

    def full(self, member: Member) -> str:
        """Say why there is no place for a node that serves."""
        if self._out >= self._bound:
            return f"a slot: {self._out} of {self._bound} out of service"
        return self.full_domain(member.domain)

    def full_domain(self, domain: str) -> str:
        """Say why the node's domain has no place."""
        if self._per is None:
            return ""
        numbers = self._pool.domains.get(domain, Domain())
        others = numbers.ours_out + (numbers.foreign_out if self._counted else 0)
        out, bound = self._out_of.get(domain, 0) + others, _in_domain(self._per, self._pool, domain)
        where = _domain(self._per, domain)
        return f"a slot in {where}: {out} of {bound} out of service" if out >= bound else ""
