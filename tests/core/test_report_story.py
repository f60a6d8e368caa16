"""What a report makes of a journal: phases, seconds out of service, how the run stands."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetdrv.report_node import Kind, NodeStory
from fleetdrv.report_page import page
from fleetdrv.report_run import Report, RunLog, State
from fleetdrv.report_times import MOST_TICKS, axis

DRIVERS = {"toy": {"wanted": "1.1", "found": "1.0", "loaded": "1.0"}}


def entry(
    at: float, node: str, phase: str, text: str = "", data: Any = None, level: str = "progress"
) -> dict[str, Any]:
    """Return a line as the teller writes it."""
    return {"at": at, "node": node, "phase": phase, "level": level, "text": text, "data": data}


TURN = [
    entry(0, "", "run", "r1", {"pool": "gpu", "nodes": 1, "who": "", "playbook": {"name": "toy"}}),
    entry(0, "n1", "found", data={"drivers": DRIVERS}),
    entry(1, "n1", "stand", "staging"),
    entry(1, "n1", "stage", "toy: trial build"),
    entry(2, "n1", "job", "== toy: trial build"),
    entry(3, "n1", "job", "cc -O2", level="detail"),
    entry(11, "n1", "look"),
    entry(11.2, "n1", "seen"),
    entry(11.3, "n1", "stand", "staged"),
    entry(31, "n1", "stand", "in outage"),
    entry(32, "n1", "cordon", "toy: loaded not as wanted"),
    entry(33, "n1", "drain", "pods leave"),
    entry(35, "n1", "drain", "waiting 5 s for pod ml/train"),
    entry(40, "n1", "outage", "3 steps"),
    entry(41, "n1", "job", "== toy: install"),
    entry(50, "n1", "look"),
    entry(51, "n1", "seen"),
    entry(51, "n1", "keep", "verified"),
    entry(53, "n1", "return"),
    entry(54, "n1", "uncordon", "back in service"),
    entry(54, "n1", "end", "changed: verified", {"verdict": "changed", "why": "verified",
                                                 "seconds_out_of_service": 22.0, "drivers": DRIVERS}),
    entry(55, "n1", "soak", "serves until a look"),
    entry(70, "n1", "look"),
    entry(71, "n1", "soaked", "came through"),
    entry(72, "", "over", "", {"exit_code": 0, "stopped": "", "waiting": [], "effects": {"execs": 3}}),
]  # fmt: skip


def log(entries: list[dict[str, Any]]) -> RunLog:
    """Return a run that was told so much."""
    told = RunLog(run="r1")
    for one in entries:
        told.take(one)
    return told


def phases(node: NodeStory) -> list[tuple[str, float, float | None, bool]]:
    """Return a node's phases in short."""
    return [(str(span.kind), span.began, span.ended, span.out) for span in node.spans]


def test_a_turn_is_told_as_its_phases() -> None:
    report = log(TURN).report(1000.0, None)
    node = report.nodes[0]
    assert phases(node) == [
        ("stage", 1, 11, False),
        ("wait for a slot", 11.3, 31, False),
        ("cordon", 32, 33, True),
        ("drain", 33, 40, True),
        ("change", 40, 50, True),
        ("verify", 50, 51, True),
        ("keep", 51, 53, True),
        ("uncordon", 53, 54, True),
        ("soak", 55, 71, False),
    ]
    assert [note.text for note in node.spans[0].notes] == [], "a step that is named as its phase is said once"
    assert [(note.at, note.text) for note in node.spans[3].notes] == [(35, "waiting 5 s for pod ml/train")]
    assert [(note.at, note.text) for note in node.spans[4].notes] == [(41, "toy: install")]
    assert (node.verdict, node.failed, node.before, node.after) == ("changed", False, DRIVERS, DRIVERS)
    assert (report.state, report.exit_code, report.until, report.seconds_out) == (State.OVER, 0, 72, 22.0)
    assert report.outs() == [(32, 1), (54, 0)]


def test_a_run_that_was_killed_and_gone_on_with_shows_the_gap() -> None:
    killed = [one for one in TURN if one["at"] <= 41]
    broken = log(killed).report(1000.0, False)
    assert (broken.state, broken.until, broken.exit_code) == (State.BROKEN, 41, None)
    assert broken.nodes[0].out_of_service(broken.until) == 9, "it is out since its cordon, as far as anybody knows"
    again = [entry(100, "", "run", "r1", {"nodes": 1}), entry(100, "n1", "cordon", "out since an earlier command"),
             entry(101, "n1", "follow", "job r1.outage.1 runs on the node"), entry(110, "n1", "look"),
             entry(111, "n1", "return"), entry(112, "n1", "uncordon")]  # fmt: skip
    report = log([*killed, *again]).report(1000.0, None)
    assert phases(report.nodes[0])[-5:] == [
        ("change", 40, 41, True),
        ("nobody at work", 41, 101, True),
        ("change", 101, 110, True),
        ("verify", 110, 111, True),
        ("uncordon", 111, 112, True),
    ]
    assert (report.commands, report.seconds_out, report.outs()) == (2, 80, [(32, 1), (112, 0)])


def test_a_run_that_goes_on_ends_now_and_one_without_a_last_word_is_no_success() -> None:
    begun = log([one for one in TURN if one["at"] <= 41])
    live, unknown = begun.report(90.0, True), begun.report(90.0, None)
    assert (live.state, live.until, live.nodes[0].at_work) == (State.LIVE, 90, "change")
    assert live.seconds_out == 58
    assert unknown.state is State.UNKNOWN
    assert "No end on record" in page(unknown, "", UTC, 0.0)


def test_a_node_that_stays_out_is_out_until_the_end() -> None:
    told = [*TURN[:15], entry(50, "n1", "leave out", "exit 74"),
            entry(51, "n1", "end", "failed, left out of service: exit 74"), entry(99, "n2", "stage"),
            entry(100, "", "over", "", {"exit_code": 4})]  # fmt: skip
    report = log(told).report(1000.0, None)
    assert phases(report.nodes[0])[-1] == ("left out", 50, None, True)
    assert (report.nodes[0].failed, report.seconds_out, report.outs()) == (True, 68, [(32, 1), (100, 0)])


def test_a_turn_that_an_error_broke_off_after_the_cordon_stays_out() -> None:
    report = log([*TURN[:15], entry(60, "n1", "end", "failed: outage: link lost")]).report(1000.0, None)
    assert phases(report.nodes[0])[-1] == ("left out", 60, None, True)


def test_the_journal_of_an_older_fleetdrv_tells_less() -> None:
    record = {"id": "r1", "pool": "gpu", "playbook": "toy-1.1", "versions": {"toy": "1.1"}, "finished": True,
              "reason": "1 failed, max_failures is 0"}  # fmt: skip
    old = [{**one, "data": None} for one in TURN[:-1]] + [entry(72, "", "record", json.dumps(record))]
    report = log(old).report(1000.0, None)
    assert (report.about.pool, report.about.playbook, report.versions) == ("gpu", "toy-1.1", {"toy": "1.1"})
    assert (report.state, report.stopped, report.exit_code) == (State.OVER, record["reason"], None)
    node = report.nodes[0]
    assert (node.verdict, node.why, node.before, node.out_of_service(72)) == ("changed", "verified", None, 22)


PHASES = ("found", "stand", "stage", "job", "look", "seen", "cordon", "drain", "hold off", "outage", "rollback",
          "keep", "return", "uncordon", "leave out", "end", "soak", "soaked", "follow", "note", "run", "rollout",
          "record", "over", "waiting", "hook")  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=3,
)
KEYS = ("drivers", "verdict", "why", "evidence", "next", "seconds_out_of_service", "playbook", "versions",
        "exit_code", "stopped", "waiting", "effects", "limits", "who", "nodes", "cluster", "again")  # fmt: skip
DATA = st.none() | st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=3)
STANDS = st.sampled_from(
    ("staging", "staged", "in outage", "", "changed: fine", "failed: x", "next node waits for x")
)
ENTRIES = st.fixed_dictionaries(
    {
        "at": st.floats(0, 5000) | ANYTHING,
        "node": st.sampled_from(("", "n1", "n2")) | ANYTHING,
        "phase": st.sampled_from(PHASES),
        "text": STANDS | ANYTHING,
        "level": st.sampled_from(("detail", "progress", "warning")),
        "data": DATA,
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ENTRIES, max_size=20), st.sampled_from((True, False, None)))
def test_no_line_is_too_broken_for_a_page(entries: list[dict[str, Any]], alive: bool | None) -> None:
    told = log(entries)
    report = told.report(6000.0, alive)
    page(report, "", UTC, 0.0)
    for node in report.nodes:
        ends = [span.ended for span in node.spans[:-1]]
        assert None not in ends, "only the last phase can go on"
        assert node.out_of_service(report.until) >= 0


STEPS = st.tuples(st.sampled_from(("cordon", "uncordon", "look", "end")), st.sampled_from("abc"))


@given(st.lists(STEPS, min_size=1, max_size=40))
def test_who_is_out_is_counted_as_the_cordons_say(steps: list[tuple[str, str]]) -> None:
    told, out, expected = RunLog(run="r"), set[str](), Counter[float]()
    for at, (phase, node) in enumerate(steps):
        told.take(entry(float(at), node, phase, "changed: x"))
        out = out | {node} if phase == "cordon" else out - {node} if phase == "uncordon" else out
        expected[float(at)] = len(out)
    report = told.report(0.0, None)
    counts = dict(report.outs())
    now, last = 0, float(len(steps) - 1)
    for at in sorted(expected):
        now = counts.get(at, now)
        assert now == expected[at] or at == last, "of who is still out in the end, the end is the end of the page"


@given(st.floats(0, 4e9), st.floats(0, 1e8))
def test_an_axis_has_few_lines_at_round_times(began: float, length: float) -> None:
    line = axis(began, began + length, UTC)
    ticks = line.ticks()
    assert len(ticks) <= 1001 if length > 86_400 * 28 * MOST_TICKS else len(ticks) <= MOST_TICKS + 1
    assert all(0 <= line.percent(at) <= 100 and round(at) % line.step == 0 for at in ticks)


def test_the_kinds_that_are_drawn_are_all_known() -> None:
    from fleetdrv.report_timeline import _CLASSES, _LEGEND

    assert set(_CLASSES) == set(Kind)
    assert set(_CLASSES.values()) == {sign for sign, _ in _LEGEND}
    assert isinstance(log(TURN).report(0.0, None), Report)
