"""Who may take a Lease, as a pure decision, and the document that taking it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv import lease as leases
from fleetdrv import names
from fleetdrv.errors import Refused
from fleetdrv.lease import Claim, Holder, Stamp
from fleetdrv.records import Order, RunRecord

ME = Holder(user="op", host="laptop", boot="b1", pid_namespace=4026531836, pid=100, started=5000)
YOU = replace(ME, host="other", boot="b2", pid=200)
NOW = datetime(2026, 11, 23, 5, 0, tzinfo=UTC)


def held_by(holder: Holder | None, **spec: Any) -> dict[str, Any]:
    said = {"holderIdentity": holder.identity} if holder else {}
    return {"metadata": {"name": "fleetdrv-gpu"}, "spec": {"leaseDurationSeconds": 60, **said, **spec}}


@pytest.mark.parametrize(
    ("lease", "alive", "unchanged", "claim"),
    [
        (None, None, 0, Claim.FREE),
        ({"spec": {}}, None, 0, Claim.FREE),
        (held_by(None), None, 0, Claim.FREE),
        (held_by(None, holderIdentity=""), None, 0, Claim.FREE),
        (held_by(ME), True, 0, Claim.OURS),
        (held_by(YOU), False, 0, Claim.DEAD),
        (held_by(YOU), None, 59.9, Claim.TAKEN),
        (held_by(YOU), None, 60, Claim.EXPIRED),
        (held_by(YOU), True, 59.9, Claim.TAKEN),
        (held_by(YOU), True, 60, Claim.EXPIRED),  # it lives, but it hangs: the token makes it safe
        (held_by(YOU, leaseDurationSeconds=300), None, 299, Claim.TAKEN),
        (held_by(YOU, leaseDurationSeconds=None), None, 14, Claim.TAKEN),
        (held_by(YOU, leaseDurationSeconds=None), None, 15, Claim.EXPIRED),
    ],
)
def test_takeover(lease: dict[str, Any] | None, alive: bool | None, unchanged: float, claim: Claim) -> None:
    assert leases.takeover(lease, ME, alive=alive, unchanged_seconds=unchanged, duration_seconds=15) is claim


@pytest.mark.parametrize(
    ("lease", "silent"),
    [
        (None, False),
        (held_by(YOU), False),  # it does not say when it was renewed
        (held_by(YOU, renewTime="2026-11-23T04:59:00.000000Z"), False),
        (held_by(YOU, renewTime="2026-11-23T04:58:59.999999Z"), True),
        (held_by(YOU, renewTime="2026-11-23T06:00:00.000000Z"), False),  # a clock was set back
    ],
)
def test_a_holder_that_hangs_is_told_by_its_own_machines_clock(lease: dict[str, Any] | None, silent: bool) -> None:
    assert leases.silent(lease, NOW) is silent


@pytest.mark.parametrize("claim", Claim)
def test_only_whoever_may_wake_again_is_to_be_fenced_off(claim: Claim) -> None:
    taken = leases.taken(held_by(YOU), ME, claim, 0, Stamp(60, NOW))
    assert (leases.annotation(taken, names.UNFENCED) is not None) == (claim in (Claim.EXPIRED, Claim.DELETED))
    again = leases.taken(taken, ME, Claim.FREE, 0, Stamp(60, NOW))
    assert leases.annotation(again, names.UNFENCED) == leases.annotation(taken, names.UNFENCED), "until it is done"


def test_a_stranger_of_another_program_is_only_ever_waited_for() -> None:
    lease = held_by(None, holderIdentity="kube-controller-manager_1234")
    assert Holder.parse(leases.holder_identity(lease)) is None
    assert leases.takeover(lease, ME, alive=None, unchanged_seconds=1, duration_seconds=15) is Claim.TAKEN
    assert leases.holder_name(lease) == "kube-controller-manager_1234"


@given(
    st.builds(
        Holder,
        user=st.text("ab c@.", max_size=5),
        host=st.text("xy.-", max_size=5),
        boot=st.text("0a-", max_size=5),
        pid_namespace=st.integers(0),
        pid=st.integers(1),
        started=st.integers(0),
    )
)
def test_a_holder_is_read_as_it_was_written(holder: Holder) -> None:
    assert Holder.parse(holder.identity) == holder


@given(st.sampled_from(list(Claim)), st.integers(0, 9), st.integers(0, 9))
def test_the_token_grows_with_every_change_of_holder(claim: Claim, transitions: int, floor: int) -> None:
    before = held_by(YOU if claim is not Claim.OURS else ME, leaseTransitions=transitions)
    after = leases.taken(before, ME, claim, floor, Stamp(30, NOW))
    assert leases.holder_identity(after) == ME.identity
    assert leases.token(after) >= max(transitions, floor)
    if claim is not Claim.OURS or floor > transitions:
        assert leases.token(after) == max(transitions, floor) + 1
    else:
        assert leases.token(after) == transitions


def test_what_is_written_keeps_what_others_wrote() -> None:
    lease = held_by(ME, leaseTransitions=3, strategy="x")
    lease["metadata"]["annotations"] = {"theirs": "1"}
    renewed = leases.renewed(lease, NOW, {names.RUN_RECORD: "r"})
    assert renewed["metadata"] == {
        "name": "fleetdrv-gpu",
        "annotations": {"theirs": "1", names.RUN_RECORD: "r"},
    }
    assert renewed["spec"] == {**lease["spec"], "renewTime": "2026-11-23T05:00:00.000000Z"}
    released = leases.released(renewed, NOW + timedelta(seconds=1))
    assert leases.takeover(released, YOU, alive=None, unchanged_seconds=0, duration_seconds=1) is Claim.FREE
    assert leases.token(released) == 3
    assert released["metadata"] == renewed["metadata"]


def test_a_pause_is_no_heartbeat_and_a_renewal_is() -> None:
    lease = held_by(YOU, renewTime="a")
    assert leases.heartbeat(leases.annotated(lease, {names.PAUSED: "x"})) == leases.heartbeat(lease)
    assert leases.heartbeat(leases.renewed(lease, NOW, {})) != leases.heartbeat(lease)


def test_an_abort_means_one_run() -> None:
    order = Order(who="op", why="smoke", since="now", run="r1")
    record = RunRecord(id="r1", pool="gpu", playbook="p", digest="d")
    lease = leases.annotated(held_by(ME), {names.ABORT: order.to_json(), names.RUN_RECORD: record.to_json()})
    assert leases.orders(lease).aborted == order
    later = leases.annotated(lease, {names.RUN_RECORD: replace(record, id="r2").to_json()})
    assert leases.orders(later).aborted is None
    assert leases.orders(leases.annotated(lease, {names.RUN_RECORD: None})).aborted is None


records = st.builds(
    RunRecord,
    id=st.text(),
    pool=st.text(),
    playbook=st.text(),
    digest=st.text(),
    versions=st.dictionaries(st.text(), st.text()),
    finished=st.booleans(),
    **{name: st.lists(st.text()).map(tuple) for name in ("canary_passed", "failed", "unreachable")},
)


@given(records)
def test_run_records_round_trip(record: RunRecord) -> None:
    assert RunRecord.from_json(record.to_json(), "here") == record


@pytest.mark.parametrize(
    "change", [{"schema": names.SCHEMA + 1}, {"failed": "gpu-01"}, {"finished": 1.5}, {"surprise": 1}]
)
def test_a_run_record_that_cannot_be_trusted_is_refused(change: dict[str, Any]) -> None:
    good = json.loads(RunRecord(id="r1", pool="gpu", playbook="p", digest="d").to_json())
    lease = leases.annotated(held_by(ME), {names.RUN_RECORD: json.dumps({**good, **change})})
    with pytest.raises(Refused, match=r"lease fleetdrv-gpu: fleetdrv\.io/run"):
        leases.run_record(lease)
