"""What the cluster port promises, shown on the real API through kubectl and on the fake alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetdrv import cluster as cluster_module
from fleetdrv import names, ownership, pods, selectors
from fleetdrv.api import Api
from fleetdrv.cluster import KubectlCluster
from fleetdrv.errors import ClusterError, Conflict, NotFound
from fleetdrv.lease import unheld
from fleetdrv.ownership import Kind, Object
from fleetdrv.pods import Verdict
from fleetdrv.swap import swap_node
from tests.cluster.examples import cordon, uncordon
from tests.cluster.front import NewPolicy
from tests.fixtures_cluster import RealWorld, World, eventually, node_object


def version(obj: Object) -> str:
    return str(obj["metadata"]["resourceVersion"])


def annotated(node: Object) -> dict[str, str]:
    """All but what the TTL controller adds to a new node when it gets round to it."""
    found = node["metadata"].get("annotations", {})
    return {key: value for key, value in found.items() if key != "node.alpha.kubernetes.io/ttl"}


def test_the_cluster_is_known_by_a_uid(world: World) -> None:
    assert len(world.cluster.uid()) == 36
    assert world.cluster.uid() == world.cluster.uid()


def test_nodes_are_listed_by_selector_without_their_images(world: World) -> None:
    one, two = world.node("one"), world.node("two")
    world.patch_node(two, {"metadata": {"labels": {"extra": "yes"}}}, "someone")
    assert [ownership.name(n) for n in world.cluster.nodes(f"test={world.tag}")] == sorted([one, two])
    assert [ownership.name(n) for n in world.cluster.nodes(f"test={world.tag},extra")] == [two]
    assert [ownership.name(n) for n in world.cluster.nodes(f"test={world.tag},!extra")] == [one]
    assert {one, two} <= {ownership.name(n) for n in world.cluster.nodes()}
    assert "images" not in world.cluster.nodes(f"test={world.tag}")[0]["status"]
    assert "images" not in world.cluster.node(one)["status"]


@pytest.mark.parametrize(
    "selector",
    [
        "a=1", "a==1", "a!=1", "a", "!a", "a in (1,2)", "a in ( 1 )", "a notin (1, 2)", "a,b", "a=1,b!=2",
        "! a , b", "a=", "a in (,1)", "x.io/c=3", "x.io/c notin (3)", "a=2, b=2", "in=1", "notin in (1)",
    ],
)  # fmt: skip
def test_a_selector_means_what_the_api_says(real_world: RealWorld, selector: str) -> None:
    every: list[dict[str, str]] = [{}, {"a": "1"}, {"a": "2", "b": "2"}, {"a": "", "x.io/c": "3"}]
    every += [{"in": "1"}, {"notin": "1"}]
    made = {f"n{i}-{real_world.tag}": labels for i, labels in enumerate(every)}
    for name, labels in made.items():
        real_world.create(node_object(name, {**labels, "test": real_world.tag}))
    listed = {ownership.name(node) for node in real_world.cluster.nodes(f"test={real_world.tag},{selector}")}
    assert selectors.checked(selector) == selector
    assert listed == {name for name, labels in made.items() if selectors.fits(selector, labels)}


@pytest.mark.parametrize(
    "selector", ["", " ", "a b", "a=1 2", "a in", "a in ()x", "=1", "a,", ",a", "a=b=c", "-a", "a=-", "a in (b"]
)
def test_a_selector_that_the_api_refuses_is_refused(real_world: RealWorld, selector: str) -> None:
    with pytest.raises(ValueError, match="is no label selector"):
        selectors.checked(selector)
    if selector.strip() and not selector.endswith(","):
        with pytest.raises(ClusterError):
            real_world.cluster.nodes(selector)


def test_a_long_list_comes_in_pages(real_world: RealWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sorted(real_world.node(f"n{i}") for i in range(5))
    monkeypatch.setattr(cluster_module, "_PAGE", 2)
    assert sorted(map(ownership.name, real_world.cluster.nodes(f"test={real_world.tag}"))) == made


def test_a_node_says_who_it_is(world: World) -> None:
    name = world.node()
    node = world.cluster.node(name)
    assert ownership.identity(node) == ownership.NodeIdentity(f"machine-{name}", f"boot-{name}")
    assert ownership.ready(node)
    assert ownership.devices(node) == {"example.com/device": "2"}


def test_a_missing_node_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        world.cluster.node("no-such-node")
    with pytest.raises(NotFound):
        world.cluster.patch_node("no-such-node", {"metadata": {"labels": {"a": "b"}}}, "1")


def test_a_patch_changes_the_node_that_was_looked_at_or_nothing(world: World) -> None:
    name = world.node()
    seen = world.cluster.node(name)
    world.patch_node(name, {"metadata": {"labels": {"other": "here"}}}, "someone")
    with pytest.raises(Conflict):
        world.cluster.patch_node(name, {"metadata": {"labels": {"ours": "x"}}}, version(seen))
    assert "ours" not in world.cluster.node(name)["metadata"]["labels"]


def test_a_patch_merges_and_returns_the_node(world: World) -> None:
    name = world.node()
    node = world.cluster.patch_node(
        name, {"metadata": {"labels": {"a": "1"}}}, version(world.cluster.node(name))
    )
    assert node["metadata"]["labels"] == {**node["metadata"]["labels"], "a": "1", "test": world.tag}
    gone = world.cluster.patch_node(name, {"metadata": {"labels": {"a": None}}}, version(node))
    assert "a" not in gone["metadata"]["labels"]
    assert version(gone) != version(node)


def test_a_patch_that_changes_nothing_makes_no_new_version(world: World) -> None:
    name = world.node()
    node = world.cluster.patch_node(
        name, {"metadata": {"labels": {"a": "1"}}}, version(world.cluster.node(name))
    )
    same = world.cluster.patch_node(name, {"metadata": {"labels": {"a": "1"}}}, version(node))
    assert version(same) == version(node)


def test_a_label_that_the_api_cannot_hold_is_refused(world: World) -> None:
    name = world.node()
    with pytest.raises(ClusterError):
        world.cluster.patch_node(
            name, {"metadata": {"labels": {"a": "~"}}}, version(world.cluster.node(name))
        )


def test_cordon_and_uncordon_leave_the_node_as_it_was_found(world: World) -> None:
    name = world.node()
    taint = {"key": "other", "value": "v", "effect": "PreferNoSchedule"}
    found = world.patch_node(name, {"spec": {"taints": [taint]}}, "someone")
    node = cordon(world.cluster, name)
    assert ownership.state(node).kind is Kind.OURS
    assert node["spec"]["unschedulable"] is True
    assert {names.MAINTENANCE_TAINT, "other"} <= {t["key"] for t in node["spec"]["taints"]}
    back = uncordon(world.cluster, name)
    assert ownership.state(back).kind is Kind.FREE
    assert back["metadata"]["labels"] == found["metadata"]["labels"]
    assert annotated(back) == annotated(found)
    eventually(lambda: world.cluster.node(name)["spec"]["taints"] == [taint], "the controllers' taint to go")


def test_a_cordon_by_kubectl_is_foreign(world: World) -> None:
    name = world.node()
    world.cordon(name)
    found = ownership.state(world.cluster.node(name))
    assert found.kind is Kind.FOREIGN
    assert found.manager.startswith("kubectl")
    assert found.since


def test_a_cordon_that_others_lift_and_set_again_is_theirs(world: World) -> None:
    name = world.node()
    cordon(world.cluster, name)
    world.cordon(name, lift=True)
    assert ownership.state(world.cluster.node(name)).kind is Kind.OURS_LIFTED
    world.cordon(name)
    taken = ownership.state(world.cluster.node(name))
    assert taken.kind is Kind.OURS_TAKEN
    assert taken.manager.startswith("kubectl")
    record = taken.record
    assert record is not None
    node = swap_node(world.cluster, name, lambda n: ownership.release_patch(n, record))
    assert ownership.state(node).kind is Kind.FOREIGN
    assert names.RUN_LABEL not in node["metadata"]["labels"]


def test_a_second_cordon_by_kubectl_changes_nothing_and_so_is_not_seen(world: World) -> None:
    name = world.node()
    cordon(world.cluster, name)
    world.cordon(name)
    assert ownership.state(world.cluster.node(name)).kind is Kind.OURS


def test_a_foreign_cordon_under_ours_survives_it(world: World) -> None:
    name = world.node()
    world.cordon(name)
    cordon(world.cluster, name)
    assert ownership.state(world.cluster.node(name)).kind is Kind.OURS
    assert ownership.state(uncordon(world.cluster, name)).kind is Kind.FOREIGN


def test_pods_are_found_by_their_node(world: World) -> None:
    one, two = world.node("one"), world.node("two")
    world.pod("a", one)
    world.pod("b", two)
    assert [pods.title(p) for p in world.cluster.pods_on(one)] == [f"{world.namespace}/a"]
    assert world.cluster.pod(world.namespace, "b")["spec"]["nodeName"] == two
    with pytest.raises(NotFound):
        world.cluster.pod(world.namespace, "c")


def test_an_eviction_without_grace_is_over_at_once(world: World) -> None:
    node = world.node()
    pod = world.pod("a", node, grace=0)
    assert world.cluster.evict(pod, dry_run=False).verdict is Verdict.ACCEPTED
    assert world.cluster.pods_on(node) == ()
    assert world.cluster.evict(pod, dry_run=False).verdict is Verdict.GONE


def test_an_eviction_waits_for_the_kubelet(world: World) -> None:
    node = world.node()
    pod = world.pod("a", node, grace=30)
    assert world.cluster.evict(pod, dry_run=False).verdict is Verdict.ACCEPTED
    left = world.cluster.pods_on(node)
    assert left[0]["metadata"]["deletionTimestamp"]
    assert pods.waiting([pod], left) == left
    assert world.kubelet(node) == 1
    assert world.cluster.pods_on(node) == ()


def test_a_given_grace_period_counts(world: World) -> None:
    node = world.node()
    pod = world.pod("a", node, grace=30)
    assert world.cluster.evict(pod, dry_run=False, grace=0).verdict is Verdict.ACCEPTED
    assert world.cluster.pods_on(node) == ()


def test_an_eviction_means_one_pod_not_its_name(world: World) -> None:
    node = world.node()
    old = world.pod("a", node)
    world.delete_pod("a")
    new = world.pod("a", node)
    assert world.cluster.evict(old, dry_run=False).verdict is Verdict.GONE
    assert pods.uid(world.cluster.pods_on(node)[0]) == pods.uid(new)
    assert "deletionTimestamp" not in world.cluster.pods_on(node)[0]["metadata"]


def test_a_dry_run_evicts_nothing(world: World) -> None:
    node = world.node()
    pod = world.pod("a", node)
    assert world.cluster.evict(pod, dry_run=True).verdict is Verdict.ACCEPTED
    assert version(world.cluster.pods_on(node)[0]) == version(pod)


def test_a_budget_blocks_and_is_named(world: World) -> None:
    node = world.node()
    pod, other = (world.pod(name, node, labels={"app": "x"}, grace=30) for name in ("a", "b"))
    world.budget("keep-one", {"app": "x"}, at_least=1)
    world.settled("keep-one", healthy=2)
    assert world.cluster.evict(pod, dry_run=True).verdict is Verdict.ACCEPTED
    assert world.cluster.evict(pod, dry_run=False).verdict is Verdict.ACCEPTED
    for dry_run in (True, False):
        blocked = world.cluster.evict(other, dry_run=dry_run)
        assert blocked.verdict is Verdict.BLOCKED
        assert blocked.budgets == ("keep-one",)
        assert "keep-one" in blocked.message


def test_a_dry_run_spends_no_budget(world: World) -> None:
    node = world.node()
    pod, other = (world.pod(name, node, labels={"app": "x"}) for name in ("a", "b"))
    world.budget("keep-one", {"app": "x"}, at_least=1)
    world.settled("keep-one", healthy=2)
    assert world.cluster.evict(pod, dry_run=True).verdict is Verdict.ACCEPTED
    assert world.cluster.evict(other, dry_run=False).verdict is Verdict.ACCEPTED


def test_two_budgets_over_one_pod_are_refused_for_good(world: World) -> None:
    pod = world.pod("a", world.node(), labels={"app": "x"})
    for name in ("first", "second"):
        world.budget(name, {"app": "x"}, at_least=0)
        world.settled(name, healthy=1)
    refused = world.cluster.evict(pod, dry_run=True)
    assert refused.verdict is Verdict.REFUSED
    assert "more than one PodDisruptionBudget" in refused.message


def test_an_api_that_is_too_busy_decides_nothing(world: World) -> None:
    pod = world.pod("a", world.node())
    world.throttle(1)
    busy = world.cluster.evict(pod, dry_run=False)
    assert (busy.verdict, busy.retry_after_seconds, busy.budgets) == (Verdict.THROTTLED, 1, ())
    assert world.cluster.evict(pod, dry_run=False).verdict is Verdict.ACCEPTED


def test_an_api_without_policy_v1beta1_is_spoken_to_in_v1(
    real_world: RealWorld, user_api: Api, tmp_path: Path
) -> None:
    node = real_world.node()
    pod = real_world.pod("a", node, labels={"app": "x"})
    real_world.budget("keep-one", {"app": "x"}, at_least=1)
    real_world.settled("keep-one", healthy=1)
    front = NewPolicy(user_api, tmp_path)
    try:
        new = KubectlCluster(front.api, real_world.effects)
        (budget,) = new.budgets(real_world.namespace)
        assert budget["status"]["desiredHealthy"] == 1
        assert new.evict(pod, dry_run=True).budgets == ("keep-one",)
        real_world.pod("b", node, labels={"app": "x"})
        real_world.settled("keep-one", healthy=2)
        assert new.evict(pod, dry_run=False).verdict is Verdict.ACCEPTED
    finally:
        front.close()
    assert not [path for path in front.paths if "v1beta1" in path]
    assert [path for path in front.paths if path.startswith("/apis/policy/v1/")]


def test_a_finished_pod_is_under_no_budget(world: World) -> None:
    pod = world.pod("a", world.node(), labels={"app": "x"}, phase="Succeeded")
    world.budget("all", {"app": "x"}, at_least=5)
    world.settled("all", healthy=0)
    assert world.cluster.evict(pod, dry_run=False).verdict is Verdict.ACCEPTED


def test_budgets_are_listed_with_what_they_allow(world: World) -> None:
    node = world.node()
    world.pod("a", node, labels={"app": "x"})
    world.pod("b", node, labels={"app": "x"})
    world.budget("keep-one", {"app": "x"}, at_least=1)
    world.settled("keep-one", healthy=2)
    (budget,) = world.cluster.budgets(world.namespace)
    assert (budget["status"]["disruptionsAllowed"], budget["status"]["desiredHealthy"]) == (1, 1)


def test_a_lease_is_created_once(world: World) -> None:
    assert world.cluster.lease(names.lease_name(world.pool)) is None
    made = world.cluster.create_lease(unheld(world.pool))
    assert world.cluster.lease(names.lease_name(world.pool)) == made
    with pytest.raises(Conflict):
        world.cluster.create_lease(unheld(world.pool))


def test_the_pools_are_listed_by_their_leases(world: World) -> None:
    others = {
        **unheld(world.pool),
        "metadata": {"name": f"other-{world.tag}", "namespace": names.LEASE_NAMESPACE},
    }
    made = [world.cluster.create_lease(unheld(f"{world.pool}-{end}")) for end in "ab"]
    world.cluster.create_lease(others)
    listed = [lease["metadata"]["name"] for lease in world.cluster.leases()]
    assert [name for name in listed if world.tag in name] == [lease["metadata"]["name"] for lease in made]


def test_a_lease_is_replaced_by_whoever_saw_its_last_version(world: World) -> None:
    seen = world.cluster.create_lease(unheld(world.pool))
    mine = world.cluster.replace_lease({**seen, "spec": {"holderIdentity": "me", "leaseTransitions": 1}})
    assert mine["spec"] == {"holderIdentity": "me", "leaseTransitions": 1}
    with pytest.raises(Conflict):
        world.cluster.replace_lease({**seen, "spec": {"holderIdentity": "you"}})
    free = world.cluster.replace_lease({**mine, "spec": {"leaseTransitions": 1}})
    assert free["spec"] == {"leaseTransitions": 1}


def test_a_lease_without_version_or_that_is_gone_is_not_replaced(world: World) -> None:
    seen = world.cluster.create_lease(unheld(world.pool))
    with pytest.raises(ClusterError):
        world.cluster.replace_lease(unheld(world.pool))
    world.delete_lease(names.lease_name(world.pool))
    with pytest.raises((NotFound, Conflict)):
        world.cluster.replace_lease(seen)


def test_an_event_stands_on_the_node(world: World) -> None:
    name = world.node()
    told = (name, "DriverCordoned", "run r1: nvidia 1.0 to 1.1")
    world.cluster.record_event(*told, key="r1")
    with pytest.raises(Conflict):
        world.cluster.record_event(*told, key="r1")
    # The real control plane tells of new nodes too, in its own time.
    (event,) = (e for e in world.events(name) if e["source"]["component"] == names.FIELD_MANAGER)
    assert (event["reason"], event["type"], event["involvedObject"]["kind"]) == (
        "DriverCordoned",
        "Normal",
        "Node",
    )
    assert event["message"] == "run r1: nvidia 1.0 to 1.1"
    world.cluster.record_event(*told, key="r2", warning=True)
    ours = [e for e in world.events(name) if e["source"]["component"] == names.FIELD_MANAGER]
    assert sorted(e["type"] for e in ours) == ["Normal", "Warning"]


def test_describe_shows_an_event_of_a_node_with_the_longest_name(real_world: RealWorld) -> None:
    """What kubectl's describe selects by is kubectl's secret; so it is asked."""
    name = ".".join(["n" * 59, *["n" * 60] * 2, f"{'n' * 30}-{real_world.tag}"])
    name = f"{'n' * (253 - len(name) - 1)}.{name}"
    real_world.create(node_object(name, {"test": real_world.tag}))
    assert len(name) == 253
    for each, reason in enumerate(("DriverCordoned", "DriverInstalled", "DriverUncordoned")):
        real_world.cluster.record_event(name, reason, f"message {each}", key="r1")
    shown = real_world.kubectl("describe", "node", name).partition("\nEvents:")[2]
    rows = sorted(line.split() for line in shown.splitlines() if " fleetdrv " in line)
    assert [(row[0], row[1], row[-2], row[-1]) for row in rows] == [
        ("Normal", "DriverCordoned", "message", "0"),
        ("Normal", "DriverInstalled", "message", "1"),
        ("Normal", "DriverUncordoned", "message", "2"),
    ]


def test_every_write_is_counted_once_and_nothing_else(world: World) -> None:
    name = world.node()
    pod = world.pod("a", name)
    node = world.cluster.node(name)
    world.cluster.nodes()
    world.cluster.pods_on(name)
    world.cluster.evict(pod, dry_run=True)
    assert world.effects.api_writes == 0
    world.cluster.patch_node(name, {"metadata": {"labels": {"a": "b"}}}, version(node))
    with pytest.raises(Conflict):
        world.cluster.patch_node(name, {"metadata": {"labels": {"a": "c"}}}, version(node))
    world.cluster.evict(pod, dry_run=False)
    lease = world.cluster.create_lease(unheld(world.pool))
    world.cluster.replace_lease(lease)
    world.cluster.record_event(name, "Test", "message", key="r1")
    assert world.effects.api_writes == 6
    assert set(world.effects.by_target) == {
        f"node/{name}",
        f"pod/{world.namespace}/a",
        f"lease/{names.lease_name(world.pool)}",
    }


def test_a_swap_decides_again_on_what_it_reads(world: World) -> None:
    name = world.node()
    seen: list[str] = []

    def decide(node: Object) -> ownership.Patch:
        if not seen:  # somebody is faster, once
            world.patch_node(name, {"metadata": {"labels": {"other": "1"}}}, "someone")
        seen.append(version(node))
        return {"metadata": {"labels": {"count": str(len(seen))}}}

    node = swap_node(world.cluster, name, decide)
    assert node["metadata"]["labels"]["count"] == "2"
    assert node["metadata"]["labels"]["other"] == "1"
