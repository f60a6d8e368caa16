"""What becomes of each pod when its node goes out, and what the API's answer to an eviction means. Pure.

The rules are `kubectl drain`'s (kubectl pkg/drain/filters.go), with two differences: a refusal is known
before the cordon, and a pod is known by its UID, so that a StatefulSet's next pod of the same name on
another node is never evicted (kubernetes#138229).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from fleetdrv import selectors
from fleetdrv.ownership import Object

if TYPE_CHECKING:  # these are handed in; importing pydantic's models would be a tenth of the CPU of `status`
    from fleetdrv.policy import Drain, Operand, PodFilter


class Fate(StrEnum):
    """What the drain does about a pod."""

    EVICT = "evict"
    LEAVES = "leaves"
    """Goes without us, as `reason` says: waited for, not evicted again."""
    STAYS = "stays"
    BLOCKS = "blocks"
    """The policy does not allow its eviction: known before the cordon."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One pod's fate, and why."""

    pod: Object
    fate: Fate
    reason: str = ""

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{title(self.pod)}: {self.reason}" if self.reason else title(self.pod)


class Verdict(StrEnum):
    """The API's answer to one eviction."""

    ACCEPTED = "accepted"
    """The pod is being deleted; gone once its UID is."""
    GONE = "gone"
    BLOCKED = "blocked"
    """By a PodDisruptionBudget; it may pass later."""
    THROTTLED = "throttled"
    """Not decided: too many requests, a budget still being computed, a race. Ask again."""
    FORBIDDEN = "forbidden"
    REFUSED = "refused"
    """Never by asking again: an admission webhook, two budgets over one pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """A verdict, with what the API said."""

    verdict: Verdict
    budgets: tuple[str, ...] = ()
    """Names of the PodDisruptionBudgets that block, in the pod's namespace."""
    message: str = ""
    retry_after_seconds: float = 0.0


def judge(pods: Iterable[Object], policy: Drain) -> tuple[Sentence, ...]:
    """Pass sentence on every pod of a node."""
    return tuple(_sentence(pod, policy) for pod in pods)


def awaited(pods: Iterable[Object], policy: Drain) -> tuple[tuple[Object, float], ...]:
    """Return the pods that are to end by themselves, each with the seconds it may take."""
    found = []
    for pod in pods:
        limits = [float(w.timeout_seconds) for w in policy.wait_for if _chosen(pod, w)]
        if limits and not _why_it_stays(pod, policy):
            found.append((pod, max(limits)))
    return tuple(found)


def judge_holders(
    pods: Iterable[Object], policy: Drain, holders: Collection[str], taint: Mapping[str, str]
) -> tuple[Sentence, ...]:
    """Pass sentence on the pods (by UID) that hold the device after the drain, and on switched-off operands.

    A DaemonSet's pod that does not tolerate our taint is not made again while the taint stands: it is evicted,
    emptyDirs and all, as no drain would ask about them either. One that tolerates it would be back at once.
    """
    return tuple(_holder(pod, policy, uid(pod) in holders, taint) for pod in pods)


def _sentence(pod: Object, policy: Drain) -> Sentence:
    stays = _why_it_stays(pod, policy)
    if stays:
        return Sentence(pod, Fate.STAYS, stays)
    if pod.get("metadata", {}).get("deletionTimestamp"):
        return Sentence(pod, Fate.LEAVES, _why_it_lingers(pod))
    if not owner(pod) and not policy.force:
        return Sentence(pod, Fate.BLOCKS, "no controller would make it again (drain.force allows it)")
    volumes = ", ".join(_empty_dirs(pod))
    if volumes and not policy.delete_emptydir_data:
        return Sentence(
            pod, Fate.BLOCKS, f"its emptyDir {volumes} would be lost (drain.delete_emptydir_data allows it)"
        )
    return Sentence(pod, Fate.EVICT)


def _holder(pod: Object, policy: Drain, holds: bool, taint: Mapping[str, str]) -> Sentence:
    stays = _why_it_stays(pod, policy)
    if operand := operand_of(pod, policy):
        return Sentence(pod, Fate.LEAVES, f"its DaemonSet is to remove it ({operand.label}={operand.off})")
    if not holds:
        return Sentence(pod, Fate.STAYS, stays)
    if pod.get("metadata", {}).get("deletionTimestamp"):
        return Sentence(pod, Fate.LEAVES, _why_it_lingers(pod))
    if not stays:
        return _sentence(pod, policy)
    if not daemon_set(pod) or _mirrored(pod):
        return Sentence(pod, Fate.BLOCKS, f"holds the device and stays: {stays}")
    if tolerates(pod, taint):
        why = "tolerates our taint, so its DaemonSet would make it again (drain.operands: a label that ends it)"
        return Sentence(pod, Fate.BLOCKS, f"holds the device and {why}")
    return Sentence(pod, Fate.EVICT)


def operand_of(pod: Object, policy: Drain) -> Operand | None:
    """Return the operator's label that keeps this DaemonSet's pod on its node, where the playbook names one."""
    wanted = pod.get("spec", {}).get("nodeSelector") or {}
    chosen = (o for o in policy.operands if wanted.get(o.label, o.off) != o.off)
    return next(chosen, None) if daemon_set(pod) else None


def daemon_set(pod: Object) -> str:
    """Return NAMESPACE/NAME of the DaemonSet that made the pod; empty for any other pod."""
    kind, _, name = owner(pod).partition(" ")
    return f"{pod['metadata'].get('namespace', '')}/{name}" if kind == "DaemonSet" else ""


def serves(pod: Object) -> bool:
    """Tell whether a pod is Ready and not on its way out."""
    conditions = pod.get("status", {}).get("conditions") or ()
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return ready and not pod["metadata"].get("deletionTimestamp")


def tolerates(pod: Object, taint: Mapping[str, str]) -> bool:
    """Tell whether a pod tolerates a taint, by the API's rules (core/v1 Toleration.ToleratesTaint).

    >>> tolerates({"spec": {"tolerations": [{"operator": "Exists"}]}}, {"key": "k", "effect": "NoSchedule"})
    True
    """
    return any(_tolerates(t, taint) for t in pod.get("spec", {}).get("tolerations") or ())


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, str]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def _why_it_stays(pod: Object, policy: Drain) -> str:
    if _mirrored(pod):
        return "static pod of the kubelet"
    if daemon_set(pod):
        return "DaemonSet pod"
    if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return "finished"
    skipped = next((f.selector for f in policy.skip if _chosen(pod, f)), "")
    return f"drain.skip leaves {skipped} alone" if skipped else ""


def _why_it_lingers(pod: Object) -> str:
    finalizers = ", ".join(pod["metadata"].get("finalizers") or ())
    if finalizers:
        return f"is being deleted, but nobody has taken off its finalizer {finalizers}"
    return "is being deleted, its kubelet has not confirmed"


def _mirrored(pod: Object) -> bool:
    return "kubernetes.io/config.mirror" in (pod.get("metadata", {}).get("annotations") or {})


def _chosen(pod: Object, wanted: PodFilter) -> bool:
    metadata = pod.get("metadata", {})
    here = wanted.namespace in ("", metadata.get("namespace", ""))
    return here and selectors.fits(wanted.selector, metadata.get("labels") or {})


def waiting(before: Iterable[Object], now: Iterable[Object]) -> tuple[Object, ...]:
    """Return the pods of `before` that are still there, as they are now.

    A new pod of an old name is another pod.
    """
    uids = {uid(pod) for pod in before}
    return tuple(pod for pod in now if uid(pod) in uids)


def uid(pod: Object) -> str:
    """Return the pod's UID: what tells it from its successor."""
    return str(pod.get("metadata", {}).get("uid", ""))


def title(pod: Object) -> str:
    """Return NAMESPACE/NAME."""
    metadata = pod.get("metadata", {})
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"


def eviction_body(pod: Object, version: str, *, dry_run: bool, grace: int | None) -> dict[str, Any]:
    """Return the Eviction object: this very pod (UID), its own grace period unless one is given."""
    metadata = pod["metadata"]
    options: dict[str, Any] = {"preconditions": {"uid": metadata["uid"]}}
    if grace is not None:
        options["gracePeriodSeconds"] = grace
    if dry_run:
        options["dryRun"] = ["All"]
    meta = {"name": metadata["name"], "namespace": metadata["namespace"]}
    return {"apiVersion": version, "kind": "Eviction", "metadata": meta, "deleteOptions": options}


def read_eviction(code: int, status: Mapping[str, Any], retry_after_seconds: float = 0.0) -> Eviction | None:
    """Read the API's answer (HTTP code and Status); None where it decides nothing: 401, 409, 5xx.

    429 has two meanings: a budget (a cause of type DisruptionBudget that names it in its message, see
    kubernetes pkg/registry/core/pod/storage/eviction.go) or plain throttling.
    """
    message = str(status.get("message", ""))
    details = status.get("details") or {}
    causes = details.get("causes") or ()
    after = float(retry_after_seconds or details.get("retryAfterSeconds") or 0)
    if code in (200, 201):
        return Eviction(verdict=Verdict.ACCEPTED)
    if code == 404:
        return Eviction(verdict=Verdict.GONE, message=message)
    if code == 429:
        return _too_many(message, causes, after)
    if code == 403:
        ending = any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
        return Eviction(verdict=Verdict.THROTTLED if ending else Verdict.FORBIDDEN, message=message)
    if code in (400, 422) or "more than one PodDisruptionBudget" in message:
        return Eviction(verdict=Verdict.REFUSED, message=message)
    return None


def _too_many(message: str, causes: Iterable[Mapping[str, Any]], after: float) -> Eviction:
    said = [str(cause.get("message", "")) for cause in causes if cause.get("reason") == "DisruptionBudget"]
    if not said and "disruption budget" not in message:
        return Eviction(verdict=Verdict.THROTTLED, message=message, retry_after_seconds=after)
    named = [re.search(r"disruption budget (\S+)", text) for text in said]
    lagging = "still being processed" in (said[0] if said else message)  # observedGeneration lags behind
    return Eviction(
        verdict=Verdict.THROTTLED if lagging else Verdict.BLOCKED,
        budgets=tuple(m[1] for m in named if m),
        message="; ".join(filter(None, said)) or message,
        retry_after_seconds=after,
    )


def owner(pod: Object) -> str:
    """Return KIND NAME of the pod's controller; empty when it has none."""
    owners = pod.get("metadata", {}).get("ownerReferences") or ()
    return next((f"{o.get('kind', '')} {o.get('name', '')}" for o in owners if o.get("controller")), "")


def full_title(pod: Object) -> str:
    """Return NAMESPACE/NAME of KIND OWNER; a ReplicaSet's pods name the Deployment that made it.

    A Deployment names its ReplicaSets NAME-HASH and labels their pods with that hash.
    """
    kind, _, name = owner(pod).partition(" ")
    made_by = (pod.get("metadata", {}).get("labels") or {}).get("pod-template-hash", "")
    if kind == "ReplicaSet" and made_by and name.endswith(f"-{made_by}"):
        kind, name = "Deployment", name.removesuffix(f"-{made_by}")
    return f"{title(pod)} of {kind} {name}" if kind else title(pod)


def _empty_dirs(pod: Object) -> list[str]:
    volumes = pod.get("spec", {}).get("volumes") or ()
    return [str(volume.get("name", "")) for volume in volumes if "emptyDir" in volume]
