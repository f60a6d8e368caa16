"""Empty a node of its pods, in small steps that each may be refused.

Never `kubectl drain`: it cordons again, so its cordon could not be told from ours, and it takes its list
of pods once, by name (research/k8s-rollout-facts.md). Here the list is read anew each round, an eviction
names a UID, and before each round the caller may say that the node is not ours any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from fleetdrv import ownership, pods
from fleetdrv.cluster import Cluster
from fleetdrv.errors import ClusterAway, Permanent, Transient
from fleetdrv.ownership import Object
from fleetdrv.pods import Eviction, Fate, Verdict
from fleetdrv.policy import Drain

_FIRST_ROUND_SECONDS, _ROUND_SECONDS = 0.1, 1.0
"""Between two looks at the node's pods: soon at first, as each second here is one out of service."""

_RETRY_SECONDS = 5.0
"""Between two tries for one pod that was refused: kubectl drain's own pace."""

_PREFLIGHT_TRIES = 3

_AWAITED_SECONDS = 5.0
"""Between two looks at pods that end by themselves, maybe in hours."""

_NOTICE_SECONDS = 30.0
"""The same obstacle is told again after this long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What varies: the clock, how to wait, whom to tell, and who may call it off."""

    say: Callable[[str], None]
    still_ours: Callable[[], None]
    """Raises when node or lock are not ours any more; called before each round of evictions."""
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """One reason not to cordon now."""

    pod: str
    cause: str
    passing: bool
    """It may go by itself (a budget with no disruption left); otherwise policy or pod must change."""

    def __str__(self) -> str:
        """Say it in a line."""
        return f"pod {self.pod}: {self.cause}"


def preflight(
    cluster: Cluster, node: str, policy: Drain, sleep: Callable[[float], None] = time.sleep
) -> tuple[Obstacle, ...]:
    """Look for what would block the drain, before anything is cordoned; evicts nothing.

    Asks the API itself, by server-side dry run, so budgets and admission webhooks answer as they would.
    Pods under one budget are asked one by one: that each may go does not promise that all may at once. Who
    is throttled, or whose budget is just being counted anew, is asked again, three times in all.
    """
    found = []
    there = cluster.pods_on(node)
    ending = {pods.uid(pod) for pod, _ in pods.awaited(there, policy)}
    for sentence in pods.judge([pod for pod in there if pods.uid(pod) not in ending], policy):
        if sentence.fate is Fate.BLOCKS:
            found.append(Obstacle(pod=pods.title(sentence.pod), cause=sentence.reason, passing=False))
        elif sentence.fate is Fate.EVICT:
            answer = _ask(cluster, sentence.pod, policy, sleep)
            if answer.verdict not in (Verdict.ACCEPTED, Verdict.GONE):
                passing = answer.verdict in (Verdict.BLOCKED, Verdict.THROTTLED)
                found.append(Obstacle(pod=pods.title(sentence.pod), cause=_cause(answer), passing=passing))
    return tuple(found)


def _ask(cluster: Cluster, pod: Object, policy: Drain, sleep: Callable[[float], None]) -> Eviction:
    for attempt in range(_PREFLIGHT_TRIES):
        answer = cluster.evict(pod, dry_run=True, grace=policy.grace_period_seconds)
        if answer.verdict is not Verdict.THROTTLED:
            break
        if attempt + 1 < _PREFLIGHT_TRIES:
            sleep(min(answer.retry_after_seconds or 1.0, _RETRY_SECONDS))
    return answer


Judge: TypeAlias = Callable[[Sequence[Object]], Sequence[pods.Sentence]]
"""Says what is to become of each of a node's pods."""


def wait_for(cluster: Cluster, node: str, policy: Drain, hands: Hands) -> None:
    """Wait until the pods that the policy names have ended by themselves; nothing is evicted meanwhile.

    Raises Transient when one has not within its time; whatever `hands.still_ours` raises.
    """
    if policy.wait_for:
        _Drain(cluster, node, policy, hands).wait_for()


def drain(cluster: Cluster, node: str, policy: Drain, hands: Hands, judge: Judge | None = None) -> None:
    """Evict what must go and wait until it is gone; `judge` is the policy's own unless given.

    Raises Transient at the deadline (`policy.timeout_seconds`), naming each pod that is left and what
    keeps it; Permanent where waiting cannot help; whatever `hands.still_ours` raises. An API that gives no
    answer counts as waiting: the next round looks again.
    """
    _Drain(cluster, node, policy, hands, judge or (lambda found: pods.judge(found, policy))).run()


@dataclass(slots=True)
class _Drain:
    """One drain under way."""

    cluster: Cluster
    node: str
    policy: Drain
    hands: Hands
    judge: Judge = lambda _: ()
    began: float = 0.0
    due: dict[str, float] = field(default_factory=dict)
    """Pod UID to when it may be tried again."""
    why: dict[str, str] = field(default_factory=dict)
    """Pod UID to what keeps the pod."""
    told: dict[tuple[str, str], float] = field(default_factory=dict)
    remedies: dict[str, str] = field(default_factory=dict)
    """Pod UID to the command that shows the budget that keeps it."""

    def __post_init__(self) -> None:
        self.began = self.hands.monotonic()

    def wait_for(self) -> None:
        longest = max(wanted.timeout_seconds for wanted in self.policy.wait_for)
        while True:
            waited, left = self.hands.monotonic() - self.began, self._awaited()
            if left is not None and not left:
                return
            rest = [(pod, limit - waited) for pod, limit in left or ()]
            late = [pod for pod, seconds in rest if seconds <= 0]
            if late or waited >= longest:
                raise self._unended(late, waited)
            for pod, seconds in rest:
                self._tell(pod, f"to end by itself, as drain.wait_for says; {seconds:.0f} s more at most")
            self.hands.sleep(min([_AWAITED_SECONDS, longest - waited, *(seconds for _, seconds in rest)]))

    def _awaited(self) -> tuple[tuple[Object, float], ...] | None:
        """List who has not ended yet; None while the API gives no answer."""
        try:
            self.hands.still_ours()
            return pods.awaited(self.cluster.pods_on(self.node), self.policy)
        except ClusterAway as error:
            self._tell(None, f"for the cluster's API: {error}")
            return None

    def _unended(self, late: Sequence[Object], waited: float) -> Transient:
        named = ", ".join(map(_who, late)) or "the cluster's API"
        return Transient(
            self.node,
            "wait for pods",
            f"{named} has not ended after {waited:.0f} s (drain.wait_for)",
            remedy=_describe(late[0]) if late else "",
        )

    def run(self) -> None:
        deadline = self.began + self.policy.timeout_seconds
        pause = _FIRST_ROUND_SECONDS
        while True:
            left = self._round()
            if not left:
                return
            now = self.hands.monotonic()
            if now >= deadline:
                raise self._late(left)
            self.hands.sleep(min(pause, deadline - now))
            pause = min(2 * pause, _ROUND_SECONDS)

    def _round(self) -> dict[str, str]:
        """Try each pod that is due; return a line for each that is still there, and the command that shows why."""
        try:
            self.hands.still_ours()
            return self._look_and_evict()
        except ClusterAway as error:
            self._tell(None, f"for the cluster's API: {error}")
            return {f"the cluster's API: {error}": ""}

    def _look_and_evict(self) -> dict[str, str]:
        left = {}
        for sentence in self.judge(self.cluster.pods_on(self.node)):
            if sentence.fate is Fate.BLOCKS:
                raise Permanent(
                    self.node,
                    "drain",
                    str(sentence),
                    remedy="it came after the cordon; move it, then run the same command again",
                )
            if sentence.fate is Fate.EVICT:
                self._evict(sentence.pod)
            if sentence.fate in (Fate.EVICT, Fate.LEAVES):
                line = f"{_who(sentence.pod)}: {self._keeps(sentence)}"
                left[line] = self.remedies.get(pods.uid(sentence.pod), _describe(sentence.pod))
        return left

    def _keeps(self, sentence: pods.Sentence) -> str:
        """Say what keeps a pod; once it is on its way out, an old refusal counts no more."""
        if sentence.fate is Fate.LEAVES:
            self.remedies.pop(pods.uid(sentence.pod), None)
            self._tell(sentence.pod, sentence.reason, after=_NOTICE_SECONDS)
            return sentence.reason
        return self.why.get(pods.uid(sentence.pod), "evicted")

    def _evict(self, pod: Object) -> None:
        uid, now = pods.uid(pod), self.hands.monotonic()
        if self.due.get(uid, now) > now:
            return
        answer = self.cluster.evict(pod, dry_run=False, grace=self.policy.grace_period_seconds)
        if answer.verdict in (Verdict.ACCEPTED, Verdict.GONE):
            self.why[uid] = self._came_late(pod)
            self.due[uid] = now  # the next list shows it leaving, or gone
            return
        if answer.verdict in (Verdict.FORBIDDEN, Verdict.REFUSED):
            raise Permanent(self.node, "drain", f"pod {pods.title(pod)}: {_cause(answer)}")
        self.due[uid] = now + (answer.retry_after_seconds or _RETRY_SECONDS)
        self.why[uid] = _cause(answer)
        if answer.budgets:
            budget = f"kubectl describe pdb -n {pod['metadata']['namespace']} {answer.budgets[0]}"
            self.remedies[uid] = budget
        self._tell(pod, self.why[uid])

    def _came_late(self, pod: Object) -> str:
        """A pod that tolerates our cordon may be made again on the same node for ever."""
        seconds = self.hands.monotonic() - self.began
        if not seconds or not pods.tolerates(pod, ownership.maintenance_taint("")):
            return "evicted"
        return f"evicted, but it came {seconds:.0f} s after the cordon, which it tolerates: so may the next one"

    def _tell(self, pod: Object | None, why: str, after: float = 0.0) -> None:
        """Say whom or what is waited for, and how long by now: at first after a while, then now and again."""
        now = self.hands.monotonic()
        waited = now - self.began
        last = self.told.get((pods.uid(pod or {}), why.partition(";")[0]))
        if waited < after or (last is not None and now - last < _NOTICE_SECONDS):
            return
        self.told[pods.uid(pod or {}), why.partition(";")[0]] = now
        for_whom = f"for pod {_who(pod)}: " if pod else ""
        self.hands.say(f"waiting {waited:.0f} s {for_whom}{why}")

    def _late(self, left: Mapping[str, str]) -> Transient:
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        return Transient(
            self.node,
            "drain",
            f"not empty after {self.policy.timeout_seconds} s: {'; '.join([*left][:5])}{more}",
            evidence="\n".join(left),
            remedy=next(iter(left.values())),
        )


def _who(pod: Object) -> str:
    """Name pod and owner."""
    by = pods.owner(pod)
    return f"{pods.title(pod)} ({by})" if by else pods.title(pod)


def _describe(pod: Object) -> str:
    return f"kubectl describe pod -n {pod['metadata'].get('namespace', '')} {pod['metadata'].get('name', '')}"


def _cause(answer: Eviction) -> str:
    match answer.verdict:
        case Verdict.BLOCKED:
            budgets = ", ".join(answer.budgets) or "of unknown name"
            return f"blocked by PodDisruptionBudget {budgets} ({answer.message})"
        case Verdict.THROTTLED:
            return f"the API asks to wait ({answer.message})"
        case _:
            return f"eviction {answer.verdict.value}: {answer.message}"
