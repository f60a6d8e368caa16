"""Which pods go, stay or block, and what the API's answers to an eviction mean."""

from __future__ import annotations

from typing import Any

import pytest

from fleetdrv import pods
from fleetdrv.pods import Eviction, Fate, Verdict
from fleetdrv.policy import Drain
from tests.fixtures_cluster import pod_object

OWNER = {"kind": "ReplicaSet", "name": "r", "uid": "1", "controller": True}
EMPTY_DIR = [{"name": "scratch", "emptyDir": {}}]
STRICT = Drain()
MIRROR = {"kubernetes.io/config.mirror": "hash"}


def a_pod(annotations: dict[str, str] | None = None, deleted: bool = False, **more: Any) -> dict[str, Any]:
    pod = dict(pod_object("default", "p", "n", **{"owner": OWNER, **more}))
    pod["metadata"] = {**pod["metadata"], "annotations": annotations or {}, "uid": "u"}
    if deleted:
        pod["metadata"]["deletionTimestamp"] = "2026-11-23T05:00:00Z"
    return pod


@pytest.mark.parametrize(
    ("pod", "policy", "fate", "reason"),
    [
        (a_pod(), STRICT, Fate.EVICT, ""),
        (a_pod(owner={**OWNER, "kind": "DaemonSet"}), STRICT, Fate.STAYS, "DaemonSet"),
        (
            a_pod(owner={**OWNER, "kind": "DaemonSet"}, deleted=True, volumes=EMPTY_DIR),
            STRICT,
            Fate.STAYS,
            "DaemonSet",
        ),
        (a_pod(annotations=MIRROR, owner={**OWNER, "kind": "Node"}), STRICT, Fate.STAYS, "static pod"),
        (a_pod(phase="Succeeded", owner=None), STRICT, Fate.STAYS, "finished"),
        (a_pod(phase="Failed", volumes=EMPTY_DIR), STRICT, Fate.STAYS, "finished"),
        (a_pod(deleted=True, owner=None, volumes=EMPTY_DIR), STRICT, Fate.LEAVES, "is being deleted"),
        (a_pod(owner=None), STRICT, Fate.BLOCKS, "drain.force"),
        (a_pod(owner={**OWNER, "controller": False}), STRICT, Fate.BLOCKS, "drain.force"),
        (a_pod(owner=None), Drain(force=True), Fate.EVICT, ""),
        (a_pod(volumes=EMPTY_DIR), STRICT, Fate.BLOCKS, "emptyDir scratch"),
        (a_pod(volumes=EMPTY_DIR), Drain(delete_emptydir_data=True), Fate.EVICT, ""),
        (a_pod(owner=None, volumes=EMPTY_DIR), Drain(force=True), Fate.BLOCKS, "emptyDir"),
        (a_pod(volumes=[{"name": "c", "configMap": {}}]), STRICT, Fate.EVICT, ""),
        (a_pod(phase="Pending"), STRICT, Fate.EVICT, ""),
        (a_pod(phase="Unknown"), STRICT, Fate.EVICT, ""),
    ],
)
def test_fate(pod: dict[str, Any], policy: Drain, fate: Fate, reason: str) -> None:
    (sentence,) = pods.judge([pod], policy)
    assert sentence.fate is fate
    assert reason in sentence.reason
    assert bool(reason) == bool(sentence.reason)


def test_a_new_pod_of_an_old_name_is_not_waited_for() -> None:
    before = [{"metadata": {"name": "web-0", "uid": "1"}}, {"metadata": {"name": "web-1", "uid": "2"}}]
    now = [{"metadata": {"name": "web-0", "uid": "3"}}, {"metadata": {"name": "web-1", "uid": "2"}}]
    assert pods.waiting(before, now) == (now[1],)


def test_an_eviction_names_one_uid() -> None:
    body = pods.eviction_body(a_pod(), "policy/v1", dry_run=True, grace=5)
    assert body == {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "p", "namespace": "default"},
        "deleteOptions": {"preconditions": {"uid": "u"}, "gracePeriodSeconds": 5, "dryRun": ["All"]},
    }
    plain = pods.eviction_body(a_pod(), "policy/v1beta1", dry_run=False, grace=None)
    assert plain["deleteOptions"] == {"preconditions": {"uid": "u"}}


def budget(message: str) -> dict[str, Any]:
    return {
        "message": "Cannot evict pod as it would violate the pod's disruption budget.",
        "details": {"causes": [{"reason": "DisruptionBudget", "message": message}]},
    }


MORE_THAN_ONE = (
    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
)
NEEDS = "The disruption budget web needs 2 healthy pods and has 2 currently"


@pytest.mark.parametrize(
    ("code", "status", "eviction"),
    [
        (201, {}, Eviction(verdict=Verdict.ACCEPTED)),
        (404, {"message": "gone"}, Eviction(verdict=Verdict.GONE, message="gone")),
        (429, budget(NEEDS), Eviction(verdict=Verdict.BLOCKED, budgets=("web",), message=NEEDS)),
        (
            429,
            {
                **budget("The disruption budget web is still being processed by the server."),
                "details": {
                    "retryAfterSeconds": 10,
                    "causes": budget("The disruption budget web is still being processed")["details"]["causes"],
                },
            },
            Eviction(
                verdict=Verdict.THROTTLED,
                budgets=("web",),
                message="The disruption budget web is still being processed",
                retry_after_seconds=10,
            ),
        ),
        (
            429,
            {"message": "Cannot evict pod as it would violate the pod's disruption budget."},
            Eviction(
                verdict=Verdict.BLOCKED,
                message="Cannot evict pod as it would violate the pod's disruption budget.",
            ),
        ),
        (
            429,
            {"message": "too many requests", "details": {"retryAfterSeconds": 3}},
            Eviction(verdict=Verdict.THROTTLED, message="too many requests", retry_after_seconds=3),
        ),
        (403, {"message": "no"}, Eviction(verdict=Verdict.FORBIDDEN, message="no")),
        (
            403,
            {"message": "ending", "details": {"causes": [{"reason": "NamespaceTerminating"}]}},
            Eviction(verdict=Verdict.THROTTLED, message="ending"),
        ),
        (
            400,
            {"message": "admission webhook"},
            Eviction(verdict=Verdict.REFUSED, message="admission webhook"),
        ),
        (
            500,
            {"message": MORE_THAN_ONE},
            Eviction(
                verdict=Verdict.REFUSED,
                message=MORE_THAN_ONE,
            ),
        ),
        (500, {"message": "etcd is down"}, None),
        (503, {}, None),
        (409, {}, None),
        (401, {}, None),
    ],
)
def test_answers(code: int, status: dict[str, Any], eviction: Eviction | None) -> None:
    assert pods.read_eviction(code, status) == eviction
