"""Who may start now: a pure function of the pool's phases and the policy, fit for 10,000 nodes.

Staging costs nobody anything and has a width of its own; an outage needs a slot of `max_unavailable`, counted
over the whole pool with everybody else's outages, one inside its failure domain where the policy says so, and
time until the maintenance window shuts. The canaries go first, alone; the rest starts when all of them came
through and had their soak.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import islice

from fleetdrv.policy import Rollout
from fleetdrv.roster import Place, Roster
from fleetdrv.slots import Member, Pool, Slots, Stand, limits
from fleetdrv.windows import Room


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the run record remembers for a controller that comes after."""

    canary_passed: bool = False
    passed: tuple[str, ...] = ()
    """Canaries that came through, also before this controller came: to it they are merely as wanted."""
    failures: int = 0
    unreachable: int = 0
    outage_seconds: int = 0
    """The longest outage of this run so far; 0 before the first."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Who starts now, and why nobody else does."""

    stage: tuple[str, ...] = ()
    outage: tuple[str, ...] = ()
    stopped: str = ""
    """No new node starts any more: a spent budget, or canaries that came through and were all that was asked."""
    waiting_for: str = ""
    limits: Mapping[str, int] = field(default_factory=dict)
    later: bool = False
    """What starts no more now is to be gone on with by the same run, at another time."""


def admit(
    members: Mapping[str, Member],
    pool: Pool,
    policy: Rollout,
    progress: Progress,
    *,
    room: Room | None = None,
    stop_after_canary: bool = False,
) -> Admission:
    """Decide which nodes start staging and which go out of service now.

    Promises: never more out than `max_unavailable`, in the pool and in each failure domain, foreign outages
    counted unless the policy ignores them; no start past a budget; no outage that `room` has no time for; a
    node that is out already goes first and needs no slot; as long as a node waits and nothing is under way,
    either somebody starts or `stopped` or `waiting_for` says why not. What is out by our own hand needs neither
    budget nor time: to bring it to its end makes nothing worse.
    """
    roster = members if isinstance(members, Roster) else Roster(members)
    bounds = limits(policy, pool)
    stopped = _spent(bounds, progress)
    if stopped:
        return _finish_what_is_out(roster, stopped, bounds)
    if stop_after_canary and progress.canary_passed:
        why = "the canaries came through; to go on: the same command without --stop-after"
        return _finish_what_is_out(roster, why, bounds, later=True)
    slots = Slots({m: len(places) for m, places in roster.groups.items()}, pool, policy, bounds["max_unavailable"])
    candidates, waiting_for = _candidates(roster, bounds["canary"], progress, slots)
    staging = sum(len(places) for m, places in roster.groups.items() if m.stand is Stand.STAGING)
    to_stage = (name for name, _ in _Queue(candidates, Stand.WAITING, slots))
    stage = tuple(islice(to_stage, max(0, bounds["staging"] - staging)))
    outage, why, later = _fill(candidates, slots, bounds["max_parallel"], _too_late(room, policy, progress))
    return Admission(
        stage=stage,
        outage=outage,
        waiting_for=waiting_for or why,
        limits=bounds,
        later=later,
    )


def _finish_what_is_out(
    roster: Roster, stopped: str, bounds: Mapping[str, int], *, later: bool = False
) -> Admission:
    """No new node starts, but one that an earlier controller left out half-way is brought to its end."""

    def halfway(stand: Stand) -> tuple[str, ...]:
        groups = (places for m, places in roster.groups.items() if m.ours and m.stand is stand)
        return tuple(name for places in groups for *_, name in places)

    return Admission(
        stage=halfway(Stand.WAITING),
        outage=halfway(Stand.STAGED),
        stopped=stopped,
        limits=bounds,
        later=later,
    )


def _spent(bounds: Mapping[str, int], progress: Progress) -> str:
    if progress.failures > bounds["max_failures"]:
        return f"{progress.failures} failed, max_failures is {bounds['max_failures']}"
    if progress.unreachable > bounds["max_unreachable"]:
        return f"{progress.unreachable} unreachable, max_unreachable is {bounds['max_unreachable']}"
    return ""


def _too_late(room: Room | None, policy: Rollout, progress: Progress) -> str:
    """Say why an outage would not end before the maintenance window does.

    What was measured only ever adds: an empty canary is back in a minute, the next node may be drained for long.
    """
    expected = max(progress.outage_seconds, policy.expected_seconds)
    if room is None or room.seconds_left >= expected:
        return ""
    if expected > room.longest_seconds:
        return (
            f"a longer maintenance window: none is as long as the {expected} s that an outage may take; "
            "change the playbook, or end this run with `fleetdrv abort`: the next one measures afresh"
        )
    if not room.closes:
        return f"the maintenance window, which opens {room.opens}"
    return (
        f"the next maintenance window, which opens {room.opens}: this one shuts {room.closes}, "
        f"an outage is expected to take {expected} s"
    )


_Rank = tuple[bool, ...]


def _rank(member: Member, slots: Slots) -> _Rank:
    """Our left-overs first, then who is out already: they cost nothing more."""
    # A domain that is full must not keep the canaries, who are few, from being chosen elsewhere.
    full = bool(not member.out and slots.full_domain(member.domain))
    return (not member.ours, full, member.stand is not Stand.STAGED, not member.out)


def _candidates(roster: Roster, canary: int, progress: Progress, slots: Slots) -> tuple[Roster, str]:
    """Everybody once the canaries are through; before that our left-overs and the first canaries.

    The canaries are the first in the inventory, not the longest: they are to tell early.
    """
    if progress.canary_passed or canary == 0:
        return roster, ""
    ranks = {m: _rank(m, slots) for m in roster.groups if m.stand in (Stand.WAITING, Stand.STAGED)}
    ordered = sorted((n for n, m in roster.items() if m in ranks), key=lambda name: ranks[roster[name]])
    begun = {n for n, m in roster.items() if m.stand in (Stand.STAGING, Stand.IN_OUTAGE, Stand.DONE)}
    chosen = ordered[: max(0, canary - len(begun.union(progress.passed)))]
    left_over = [n for n in ordered[len(chosen) :] if roster[n].ours]
    held_back = len(ordered) > len(chosen) + len(left_over)
    subset = Roster({name: roster[name] for name in chosen + left_over})
    return subset, "the canaries to pass" if held_back and not chosen else ""


class _Queue:
    """The nodes that stand in one way, in the order in which they start; all that are alike can be left out."""

    def __init__(self, roster: Roster, stand: Stand, slots: Slots) -> None:
        groups = [(m, places) for m, places in roster.groups.items() if m.stand is stand]
        self._groups = groups
        self._heads = [(_rank(m, slots), places[0], at, 0) for at, (m, places) in enumerate(groups)]
        heapify(self._heads)
        self._next: tuple[_Rank, Place, int, int] | None = None

    def __iter__(self) -> Iterator[tuple[str, Member]]:
        while self._heads:
            rank, place, at, index = self._next = heappop(self._heads)
            member, places = self._groups[at]
            yield place[-1], member
            if self._next and index + 1 < len(places):
                heappush(self._heads, (rank, places[index + 1], at, index + 1))

    def leave_out(self) -> None:
        """Pass by all that stand exactly as the node that came last."""
        self._next = None


def _fill(roster: Roster, slots: Slots, places: int, too_late: str) -> tuple[tuple[str, ...], str, bool]:
    """Fill free slots; a node that is out of service already takes none that it does not hold."""
    started: list[str] = []
    waiting_for = ""
    queue = _Queue(roster, Stand.STAGED, slots)
    for name, member in queue:
        if len(started) >= places - slots.going:
            return tuple(started), "max_parallel", False
        if too_late and not member.ours:
            return tuple(started), too_late, True  # ours come first
        full = "" if member.out else slots.full(member)
        if full:
            waiting_for = waiting_for or full
            queue.leave_out()
            continue
        started.append(name)
        if not member.out:
            slots.take(member)
    return tuple(started), waiting_for, False
