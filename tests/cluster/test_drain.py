"""Preflight and drain on both clusters: who blocks is named, before and during; nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fleetdrv.drain import Hands, drain, preflight, wait_for
from fleetdrv.errors import Permanent, Stopped, Transient
from fleetdrv.policy import Drain
from tests.fixtures_cluster import FakeWorld, World

APP = {"app": "x"}
EMPTY_DIR = [{"name": "scratch", "emptyDir": {}}]


class Bystander:
    """The clock of a drain, and what others do while it waits."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.seconds, self.meanwhile, self.said = 0.0, meanwhile, list[str]()
        self.still_ours: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.seconds += seconds
        self.meanwhile()

    @property
    def hands(self) -> Hands:
        return Hands(
            say=self.said.append,
            still_ours=lambda: self.still_ours(),
            monotonic=lambda: self.seconds,
            sleep=self.sleep,
        )


def test_an_empty_node_is_drained_at_once(world: World) -> None:
    bystander = Bystander()
    drain(world.cluster, world.node(), Drain(), bystander.hands)
    assert (bystander.seconds, world.effects.api_writes) == (0, 0)


def test_pods_are_evicted_and_waited_for(world: World) -> None:
    node, other = world.node("one"), world.node("two")
    world.pod("quick", node)
    world.pod("slow", node, grace=30)
    world.pod("finished", node, phase="Succeeded")
    world.pod("elsewhere", other)
    bystander = Bystander()
    bystander.meanwhile = lambda: bystander.seconds > 3 and world.kubelet(node)
    drain(world.cluster, node, Drain(), bystander.hands)
    assert [p["metadata"]["name"] for p in world.cluster.pods_on(node)] == ["finished"]
    assert len(world.cluster.pods_on(other)) == 1
    assert 3 < bystander.seconds < 6
    assert world.effects.api_writes == 2


def test_preflight_names_what_policy_and_budgets_forbid(world: World) -> None:
    node = world.node()
    world.pod("bare", node, owner=None)
    world.pod("data", node, volumes=EMPTY_DIR)
    world.pod("web", node, labels=APP)
    world.budget("all-of-them", APP, at_least=1)
    world.settled("all-of-them", healthy=1)
    found = {o.pod: o for o in preflight(world.cluster, node, Drain())}
    assert set(found) == {f"{world.namespace}/{name}" for name in ("bare", "data", "web")}
    web = found[f"{world.namespace}/web"]
    assert web.passing
    assert "blocked by PodDisruptionBudget all-of-them" in str(web)
    assert not found[f"{world.namespace}/bare"].passing
    assert world.effects.api_writes == 0
    allowed = preflight(world.cluster, node, Drain(force=True, delete_emptydir_data=True))
    assert [o.pod for o in allowed] == [f"{world.namespace}/web"]


def test_a_budget_is_waited_for_and_named(world: World) -> None:
    node, other = world.node("one"), world.node("two")
    world.pod("web-0", node, labels=APP)
    world.budget("keep-one", APP, at_least=1)
    world.settled("keep-one", healthy=1)
    bystander = Bystander()

    def replacement() -> None:
        if bystander.seconds > 20 and not world.cluster.pods_on(other):
            world.pod("web-1", other, labels=APP)
            world.settled("keep-one", healthy=2)

    bystander.meanwhile = replacement
    drain(world.cluster, node, Drain(), bystander.hands)
    assert 20 < bystander.seconds < 30
    assert len(bystander.said) == 1
    named = f"{world.namespace}/web-0 (ConfigMap controller): blocked by PodDisruptionBudget keep-one"
    assert named in bystander.said[0]
    assert world.effects.api_writes <= 6  # every five seconds, not every round


def test_at_the_deadline_pod_and_budget_are_named(world: World) -> None:
    node = world.node()
    world.pod("web-0", node, labels=APP)
    world.budget("keep-one", APP, at_least=1)
    world.settled("keep-one", healthy=1)
    bystander = Bystander()
    with pytest.raises(
        Transient, match=r"not empty after 60 s: .*/web-0 \(.*\): blocked by PodDisruptionBudget keep-one"
    ) as caught:
        drain(world.cluster, node, Drain(timeout_seconds=60), bystander.hands)
    assert caught.value.remedy == f"kubectl describe pdb -n {world.namespace} keep-one"
    assert bystander.seconds == 60
    assert [line.split(" for ")[0] for line in bystander.said[:2]] == ["waiting 0 s", "waiting 30 s"]
    assert len(world.cluster.pods_on(node)) == 1


def test_a_pod_that_its_kubelet_does_not_end_is_named(world: World) -> None:
    node = world.node()
    world.pod("stuck", node, grace=30)
    with pytest.raises(Transient, match=r"stuck \(.*\): is being deleted, its kubelet has not") as caught:
        drain(world.cluster, node, Drain(timeout_seconds=5), Bystander().hands)
    assert caught.value.remedy == f"kubectl describe pod -n {world.namespace} stuck"
    assert world.effects.api_writes == 1


def test_a_pod_of_the_same_name_on_another_node_is_left_alone(world: World) -> None:
    node, other = world.node("one"), world.node("two")
    world.pod("web-0", node, labels=APP)
    world.budget("none-may-go", APP, at_least=1)
    world.settled("none-may-go", healthy=1)
    bystander = Bystander()

    def moves() -> None:
        if bystander.seconds > 7 and world.cluster.pods_on(node):
            world.delete_pod("web-0")
            world.pod("web-0", other, labels=APP)

    bystander.meanwhile = moves
    drain(world.cluster, node, Drain(), bystander.hands)
    assert len(world.cluster.pods_on(other)) == 1


def test_a_forbidden_pod_that_comes_late_ends_the_drain(world: World) -> None:
    node = world.node()
    world.pod("slow", node, grace=30)
    bystander = Bystander()

    def bare() -> None:
        if not any(p["metadata"]["name"] == "bare" for p in world.cluster.pods_on(node)):
            world.pod("bare", node, owner=None)

    bystander.meanwhile = bare
    with pytest.raises(Permanent, match="bare: no controller would make it again") as caught:
        drain(world.cluster, node, Drain(), bystander.hands)
    assert "after the cordon" in caught.value.remedy


def test_two_budgets_end_the_drain_at_once(world: World) -> None:
    node = world.node()
    world.pod("web-0", node, labels=APP)
    for name in ("first", "second"):
        world.budget(name, APP, at_least=0)
        world.settled(name, healthy=1)
    bystander = Bystander()
    with pytest.raises(Permanent, match="more than one PodDisruptionBudget"):
        drain(world.cluster, node, Drain(), bystander.hands)
    assert bystander.seconds == 0


def test_a_node_that_is_lost_under_way_sees_no_more_evictions(world: World) -> None:
    node = world.node()
    world.pod("first", node, grace=30)
    bystander = Bystander()

    def lost() -> None:
        world.pod("second", node)

        def stop() -> None:
            raise Stopped("the lock was lost")

        bystander.still_ours = stop

    bystander.meanwhile = lost
    with pytest.raises(Stopped):
        drain(world.cluster, node, Drain(), bystander.hands)
    assert len(world.cluster.pods_on(node)) == 2
    assert world.effects.api_writes == 1


@pytest.mark.parametrize("fate", ["before", "after"])
def test_a_lost_answer_is_looked_into(fake_world: FakeWorld, fate: str) -> None:
    node = fake_world.node()
    fake_world.pod("a", node)
    fates = [fate]
    fake_world.fake.fault = lambda _target, _what: fates.pop() if fates else ""
    bystander = Bystander()
    drain(fake_world.cluster, node, Drain(), bystander.hands)
    assert fake_world.cluster.pods_on(node) == ()
    assert fake_world.effects.api_writes == (2 if fate == "before" else 1)
    assert "waiting 0 s for the cluster's API" in bystander.said[0]


def test_with_one_disruption_allowed_two_pods_go_one_after_the_other(world: World) -> None:
    node, other = world.node("one"), world.node("two")
    for name in ("web-0", "web-1"):
        world.pod(name, node, labels=APP)
    world.budget("all-but-one", APP, at_least=1)
    world.settled("all-but-one", healthy=2)
    assert preflight(world.cluster, node, Drain()) == ()  # each may go, asked one by one
    bystander, seen = Bystander(), list[int]()

    def replacement() -> None:
        seen.append(len(world.cluster.pods_on(node)))
        if bystander.seconds > 8 and not world.cluster.pods_on(other):
            world.pod("web-2", other, labels=APP)
            world.settled("all-but-one", healthy=2)

    bystander.meanwhile = replacement
    drain(world.cluster, node, Drain(), bystander.hands)
    assert seen[0] == 1
    assert sorted(seen, reverse=True) == seen
    assert 8 < bystander.seconds < 20


def test_a_finalizer_that_never_ends_is_named(world: World) -> None:
    node = world.node()
    world.pod("stuck", node, finalizers=["example.com/never"])
    bystander = Bystander(lambda: world.kubelet(node))
    with pytest.raises(Transient, match=r"stuck \(.*taken off its finalizer example.com/never") as caught:
        drain(world.cluster, node, Drain(timeout_seconds=45), bystander.hands)
    assert caught.value.remedy == f"kubectl describe pod -n {world.namespace} stuck"
    assert "waiting 30 s for pod" in bystander.said[0] or "waiting 31 s for pod" in bystander.said[0]
    assert world.effects.api_writes == 1


def test_an_api_that_is_too_busy_is_asked_again(world: World) -> None:
    node = world.node()
    world.pod("a", node)
    world.throttle(2)
    bystander = Bystander()
    assert preflight(world.cluster, node, Drain(), bystander.sleep) == ()
    assert bystander.seconds == 2  # as Retry-After says
    world.throttle(2)
    drain(world.cluster, node, Drain(), bystander.hands)
    assert world.cluster.pods_on(node) == ()
    assert "the API asks to wait" in bystander.said[0]


def test_an_api_that_never_answers_the_question_is_an_obstacle_that_may_pass(world: World) -> None:
    node = world.node()
    world.pod("a", node)
    world.throttle(99)
    (obstacle,) = preflight(world.cluster, node, Drain(), Bystander().sleep)
    assert obstacle.passing
    assert "the API asks to wait" in str(obstacle)
    world.throttle(0)


def test_two_budgets_are_known_before_the_cordon(world: World) -> None:
    node = world.node()
    world.pod("web-0", node, labels=APP)
    for name in ("first", "second"):
        world.budget(name, APP, at_least=0)
        world.settled(name, healthy=1)
    (obstacle,) = preflight(world.cluster, node, Drain())
    assert not obstacle.passing
    assert "more than one PodDisruptionBudget" in str(obstacle)


BATCH = {"selector": "app=batch", "timeout_seconds": 100}
WAITS = Drain.model_validate({"wait_for": [BATCH], "timeout_seconds": 9})


def test_jobs_are_waited_for_and_nothing_is_evicted_meanwhile(world: World) -> None:
    node = world.node()
    world.pod("job", node, owner=None, labels={"app": "batch"}, volumes=EMPTY_DIR)
    world.pod("web", node)
    assert preflight(world.cluster, node, WAITS) == ()  # no controller, emptyDir: it ends by itself
    bystander = Bystander()
    bystander.meanwhile = lambda: bystander.seconds > 50 and world.finish("job")
    wait_for(world.cluster, node, WAITS, bystander.hands)
    assert 50 < bystander.seconds <= 60
    assert world.effects.api_writes == 0
    assert len(bystander.said) == 2
    assert f"waiting 0 s for pod {world.namespace}/job: to end by itself" in bystander.said[0]
    drain(world.cluster, node, WAITS, bystander.hands)
    assert [pod["metadata"]["name"] for pod in world.cluster.pods_on(node)] == ["job"]


def test_a_job_that_does_not_end_in_time_is_named_and_nothing_was_evicted(world: World) -> None:
    node = world.node()
    world.pod("job", node, labels={"app": "batch"})
    world.pod("web", node)
    bystander = Bystander()
    with pytest.raises(Transient, match=r"/job \(ConfigMap controller\) has not ended after 100 s") as caught:
        wait_for(world.cluster, node, WAITS, bystander.hands)
    assert caught.value.remedy == f"kubectl describe pod -n {world.namespace} job"
    assert bystander.seconds == 100
    assert world.effects.api_writes == 0


def test_jobs_of_another_namespace_are_not_waited_for(world: World) -> None:
    node = world.node()
    world.pod("job", node, labels={"app": "batch"})
    policy = Drain.model_validate({"wait_for": [{"selector": "app=batch", "namespace": "elsewhere"}]})
    bystander = Bystander()
    wait_for(world.cluster, node, policy, bystander.hands)
    assert bystander.seconds == 0


def test_skipped_pods_are_no_obstacle_and_stay(world: World) -> None:
    node = world.node()
    world.pod("agent", node, owner=None, labels={"app": "agent"})
    world.pod("web", node)
    policy = Drain.model_validate({"skip": [{"selector": "app=agent", "namespace": world.namespace}]})
    assert preflight(world.cluster, node, policy) == ()
    drain(world.cluster, node, policy, Bystander().hands)
    assert [pod["metadata"]["name"] for pod in world.cluster.pods_on(node)] == ["agent"]


def test_pods_that_tolerate_the_cordon_and_come_again_for_ever_are_named(world: World) -> None:
    node = world.node()
    world.pod("come-0", node, grace=30, tolerations=[{"operator": "Exists"}])
    bystander, made = Bystander(), [0]

    def again() -> None:
        world.kubelet(node)
        made.append(made[-1] + 1)
        world.pod(f"come-{made[-1]}", node, grace=30, tolerations=[{"operator": "Exists"}])

    bystander.meanwhile = again
    with pytest.raises(Transient, match=r"came \d+ s after the cordon, which it tolerates"):
        drain(world.cluster, node, Drain(timeout_seconds=9), bystander.hands)
