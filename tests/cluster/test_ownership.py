"""Whatever the node looked like and whatever others do meanwhile, our cordon goes as it came."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv import names, ownership
from fleetdrv.errors import Conflict, Refused
from fleetdrv.ownership import Kind, Object, Patch
from fleetdrv.records import Cordon
from fleetdrv.standing import standing_of
from fleetdrv.turn import Grip
from tests.cluster.examples import a_cordon
from tests.fakes.cluster import merge

OPT_OUTS = list(names.AUTOSCALER_OPT_OUTS)
words = st.text("abcxyz019.-_~", min_size=1, max_size=8)
foreign_keys = st.sampled_from(
    ["team", "zone", "example.com/a", "nvidia.com/gpu.present", "fleetdrv.io.example/x"]
)
taints = st.builds(
    lambda key, value, effect: {"key": key, "value": value, "effect": effect},
    foreign_keys | st.just(names.MAINTENANCE_TAINT),
    words,
    st.sampled_from(["NoExecute"]),
) | st.builds(
    lambda key, effect: {"key": key, "effect": effect},
    foreign_keys,
    st.sampled_from(["NoSchedule", "PreferNoSchedule", "NoExecute"]),
)


@st.composite
def nodes(draw: st.DrawFn, *, in_service: bool = False) -> dict[str, Any]:
    """Any node that fleetdrv does not hold, as the API gives it: empty maps and lists left out."""
    metadata: dict[str, Any] = {"name": "n", "resourceVersion": "1"}
    spec: dict[str, Any] = {"podCIDR": "10.0.0.0/24"}
    labels = draw(st.dictionaries(foreign_keys, words, max_size=3))
    annotations = draw(
        st.dictionaries(foreign_keys | st.sampled_from(OPT_OUTS), st.just("true") | words, max_size=4)
    )
    found = draw(st.lists(taints, max_size=3))
    metadata |= {k: v for k, v in {"labels": labels, "annotations": annotations}.items() if v}
    spec |= {"taints": found} if found else {}
    spec |= {"unschedulable": True} if not in_service and draw(st.booleans()) else {}
    return {
        "metadata": metadata,
        "spec": spec,
        "status": {"allocatable": {"cpu": "1", "nvidia.com/gpu": "8"}},
    }


def tidy(node: Any) -> Any:
    """Leave out what the API leaves out, and the version."""
    metadata = {
        k: v for k, v in node["metadata"].items() if v and k not in ("resourceVersion", "managedFields")
    }
    return {**node, "metadata": metadata, "spec": {k: v for k, v in node["spec"].items() if v}}


def apply(node: Object, patch: Patch) -> Any:
    """Patch as the API does."""
    return tidy(merge(node, patch))


def cordoned(node: Object) -> tuple[Any, Cordon]:
    record = ownership.cordon_record(node, a_cordon())
    return apply(node, ownership.cordon_patch(node, record)), record


def owned_by(node: Object, *managers: str) -> Any:
    entry = {
        "operation": "Update",
        "time": "2026-11-23T05:00:00Z",
        "fieldsV1": {"f:spec": {"f:unschedulable": {}}},
    }
    return merge(node, {"metadata": {"managedFields": [{**entry, "manager": m} for m in managers]}})


@given(nodes())
def test_cordon_then_uncordon_gives_back_the_node_as_found(node: dict[str, Any]) -> None:
    out, record = cordoned(node)
    assert ownership.state(out).kind is Kind.OURS
    assert ownership.state(out).record == record
    assert ownership.unschedulable(out)
    assert apply(out, ownership.uncordon_patch(out, record)) == tidy(node)


@given(nodes())
def test_every_way_back_gives_the_node_as_found(node: dict[str, Any]) -> None:
    out, record = cordoned(node)
    touched = apply(out, ownership.touched_patch(out, record, "install"))
    record = ownership.state(touched).record or record
    failed = apply(touched, ownership.failed_patch(touched, record, "no such device", "{}"))
    record = ownership.state(failed).record or record
    assert (record.touched, record.step, record.failed) == (True, "install", "no such device")
    adopted = apply(failed, ownership.adopt_patch(failed, record, run="r2", holder="else@where"))
    record = ownership.state(adopted).record or record
    assert (record.run, record.holder, record.failed, record.touched) == ("r2", "else@where", "", True)
    adopted = apply(adopted, ownership.touched_patch(adopted, record, "again"))
    record = ownership.state(adopted).record or record
    assert (record.step, record.began) == ("again", "install"), "what was done first is not forgotten"
    open_ = apply(adopted, ownership.readmit_patch(adopted, ownership.state(adopted).record or a_cordon()))
    assert ownership.state(open_).kind is Kind.OURS
    back = apply(open_, ownership.uncordon_patch(open_, record))
    assert back["metadata"]["annotations"].pop(names.LAST_RESULT) == "{}"
    assert tidy(back) == tidy(node)


@given(nodes(), nodes())
def test_what_others_change_meanwhile_stays(node: dict[str, Any], other: dict[str, Any]) -> None:
    """Labels, annotations that are not the opt-outs, and taints, in whatever order they come and go."""
    theirs = {
        "labels": other["metadata"].get("labels", {}),
        "annotations": {
            k: v for k, v in other["metadata"].get("annotations", {}).items() if k not in OPT_OUTS
        },
    }
    out, record = cordoned(node)
    mine = [
        t
        for t in out["spec"]["taints"]
        if t["key"] == names.MAINTENANCE_TAINT and t["effect"] == "NoSchedule"
    ]
    meanwhile = apply(
        out, {"metadata": theirs, "spec": {"taints": [*mine, *other["spec"].get("taints", [])]}}
    )
    back = apply(meanwhile, ownership.uncordon_patch(meanwhile, record))
    wanted = apply(node, {"metadata": theirs, "spec": {"taints": other["spec"].get("taints", [])}})
    assert back == tidy(wanted)


@given(nodes(in_service=True), st.booleans())
def test_release_takes_only_our_marks(node: dict[str, Any], lifted: bool) -> None:
    out, record = cordoned(node)
    theirs = apply(out, {"spec": {"unschedulable": None if lifted else True}})
    theirs = theirs if lifted else owned_by(theirs, "kubectl-cordon")
    assert ownership.state(theirs).kind is (Kind.OURS_LIFTED if lifted else Kind.OURS_TAKEN)
    back = apply(theirs, ownership.release_patch(theirs, record))
    assert tidy(back) == tidy(node | {"spec": node["spec"] | ({} if lifted else {"unschedulable": True})})
    assert ownership.state(back).kind is (Kind.FREE if lifted else Kind.FOREIGN)


@given(nodes(in_service=True), st.booleans())
def test_nothing_of_ours_is_written_on_a_node_that_changed_hands(node: dict[str, Any], lifted: bool) -> None:
    out, record = cordoned(node)
    theirs = apply(out, {"spec": {"unschedulable": None}}) if lifted else owned_by(out, "someone")
    builders: list[Callable[[], Patch]] = [
        lambda: ownership.uncordon_patch(theirs, record),
        lambda: ownership.touched_patch(theirs, record, ""),
        lambda: ownership.failed_patch(theirs, record, "", ""),
        lambda: ownership.adopt_patch(theirs, record, run="r2", holder="me"),
    ]
    for build in builders:
        with pytest.raises(Conflict, match="not held by run r1"):
            build()


def test_an_opt_out_that_somebody_changed_meanwhile_is_theirs() -> None:
    out, record = cordoned({"metadata": {"name": "n"}, "spec": {}})
    theirs = apply(out, {"metadata": {"annotations": {OPT_OUTS[0]: "false", OPT_OUTS[1]: None}}})
    back = apply(theirs, ownership.uncordon_patch(theirs, record))
    assert back["metadata"]["annotations"] == {OPT_OUTS[0]: "false"}


def test_the_uncordon_is_refused_to_another_run() -> None:
    out, record = cordoned({"metadata": {"name": "n"}, "spec": {}})
    with pytest.raises(Conflict, match="run r2"):
        ownership.uncordon_patch(out, replace(record, run="r2"))


def test_a_node_is_cordoned_once_and_as_it_was_seen() -> None:
    node = {"metadata": {"name": "n"}, "spec": {}}
    out, record = cordoned(node)
    with pytest.raises(Conflict, match="adopt"):
        ownership.cordon_patch(out, record)
    with pytest.raises(Conflict, match="since its record"):
        ownership.cordon_patch({**node, "spec": {"unschedulable": True}}, record)


def test_the_uncordon_leaves_result_and_driver_labels() -> None:
    out, record = cordoned({"metadata": {"name": "n"}, "spec": {}})
    patch = ownership.uncordon_patch(
        out, record, '{"verdict": "changed"}', {"nvidia": "535.309.01-1~deb12u1"}
    )
    back = apply(out, patch)
    assert back["metadata"]["labels"] == {"fleetdrv.io/driver.nvidia": "535.309.01-1_deb12u1"}
    assert back["metadata"]["annotations"] == {names.LAST_RESULT: '{"verdict": "changed"}'}


@pytest.mark.parametrize(
    ("managers", "kind"),
    [
        ((), Kind.OURS),
        (("fleetdrv",), Kind.OURS),
        (("kubectl",), Kind.OURS_TAKEN),
        (("fleetdrv", "argocd"), Kind.OURS_TAKEN),
    ],
)
def test_the_cordon_belongs_to_whoever_set_it_last(managers: tuple[str, ...], kind: Kind) -> None:
    out, _ = cordoned({"metadata": {"name": "n"}, "spec": {}})
    assert ownership.state(owned_by(out, *managers)).kind is kind


def test_a_foreign_cordon_is_named() -> None:
    node = owned_by({"metadata": {"name": "n"}, "spec": {"unschedulable": True}}, "kubectl-cordon")
    found = ownership.state(node)
    assert (found.kind, found.manager) == (Kind.FOREIGN, "kubectl-cordon")
    assert found.reason == "cordoned by somebody else (by kubectl-cordon, 2026-11-23T05:00:00Z)"


def test_a_hold_is_seen_on_any_node() -> None:
    node = {"metadata": {"name": "n", "labels": {names.HOLD_LABEL: "rma"}}, "spec": {}}
    assert ownership.state(node).kind is Kind.HELD
    out, _ = cordoned(node)
    assert (ownership.state(out).kind, ownership.state(out).held) == (Kind.OURS, "fleetdrv.io/hold=rma")
    assert ownership.state(out).reason.endswith("; held (fleetdrv.io/hold=rma)")


def test_a_standing_says_that_a_node_of_ours_is_to_be_held() -> None:
    info = {"nodeInfo": {"machineID": "m", "bootID": "b"}}
    node = {"metadata": {"name": "n", "labels": {names.HOLD_LABEL: ""}}, "spec": {}, "status": info}
    out, _ = cordoned(node)
    standing = standing_of(out, "gpu")
    assert (standing.grip, standing.held) == (Grip.OURS, "fleetdrv.io/hold=")
    assert not standing_of(cordoned({**node, "metadata": {"name": "n"}})[0], "gpu").held


def test_a_record_of_an_older_fleetdrv_is_read_and_written_anew() -> None:
    older = json.loads(a_cordon().to_json())
    for field in ("operands", "operands_off", "daemon_sets"):
        del older[field]
    read = Cordon.from_json(json.dumps({**older, "schema": 1}), "n")
    assert read == a_cordon()
    assert json.loads(read.to_json())["schema"] == names.SCHEMA


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '"x"',
        '{"schema": 1}',
        '{"schema": "one"}',
        json.dumps({**json.loads(a_cordon().to_json()), "touched": "yes"}),
        json.dumps({**json.loads(a_cordon().to_json()), "more": 1}),
        json.dumps({**json.loads(a_cordon().to_json()), "schema": names.SCHEMA + 1}),
    ],
)
def test_a_record_that_cannot_be_trusted_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"n: fleetdrv.io/cordon: "):
        ownership.state({"metadata": {"name": "n", "annotations": {names.CORDON: text}}, "spec": {}})


def test_a_newer_record_says_what_to_do() -> None:
    text = json.dumps({"schema": names.SCHEMA + 1, "whatever": 1})
    with pytest.raises(Refused, match="upgrade fleetdrv"):
        Cordon.from_json(text, "n")


@given(
    st.builds(
        a_cordon, reason=st.text(), touched=st.booleans(), found=st.dictionaries(words, st.none() | words)
    )
)
def test_records_round_trip(record: Cordon) -> None:
    assert Cordon.from_json(record.to_json(), "here") == record


@given(st.text(max_size=200))
def test_any_text_becomes_a_label_value(text: str) -> None:
    value = names.label_value(text)
    assert len(value) <= 63
    assert value == "" or (value[0].isalnum() and value[-1].isalnum() and value.isascii())
    assert set(value) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def test_long_versions_that_differ_keep_different_labels() -> None:
    one, two = (names.label_value("nvidia-535.309.01-1~deb12u1+" + "x" * 60 + end) for end in "12")
    assert one != two
    assert len(one) == 63


@pytest.mark.parametrize("info", [{}, {"machineID": "m"}, {"bootID": "b"}, {"machineID": "", "bootID": "b"}])
def test_a_node_that_does_not_say_who_it_is_proves_nothing(info: dict[str, str]) -> None:
    with pytest.raises(Refused, match="kubelet"):
        ownership.identity({"metadata": {"name": "n"}, "status": {"nodeInfo": info}})


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        ([], False),
        ([{"type": "Ready", "status": "Unknown"}], False),
        ([{"type": "Ready", "status": "True"}], True),
        ([{"type": "DiskPressure", "status": "True"}], False),
    ],
)
def test_unknown_is_not_ready(conditions: list[dict[str, str]], ready: bool) -> None:
    assert ownership.ready({"status": {"conditions": conditions}}) is ready
