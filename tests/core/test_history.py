"""What former runs tell of a node's outage, from this machine's journals."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fleetdrv.history import expected_seconds, outages


def said(at: float, node: str, phase: str) -> str:
    return json.dumps({"at": at, "node": node, "phase": phase, "level": "progress", "text": "x"})


def test_an_outage_lasts_from_its_first_cordon_to_its_uncordon() -> None:
    lines = [said(10, "a", "cordon"), said(11, "b", "cordon"), said(12, "a", "job"), said(15, "a", "cordon")]
    lines += [said(40.5, "a", "uncordon"), said(50, "c", "uncordon"), '{"at": 60, "node": "b", "phase": "unco']
    assert outages(lines) == {"a": 30.5}


@given(st.lists(st.text() | st.just('{"at": "x", "node": 1, "phase": "cordon"}') | st.just('["cordon"]')))
def test_no_line_is_too_broken(lines: list[str]) -> None:
    assert outages(lines) == {}


def test_the_newest_journal_counts(tmp_path: Path) -> None:
    assert expected_seconds(tmp_path / "none") == {}
    for run, seconds in (("20260101T000000-aa", 100), ("20260301T000000-bb", 30)):
        lines = [said(0, "a", "cordon"), said(seconds, "a", "uncordon")]
        (tmp_path / f"{run}.jsonl").write_text("\n".join(lines))
    with (tmp_path / "20260101T000000-aa.jsonl").open("a") as older:
        older.write("\n" + said(200, "b", "cordon") + "\n" + said(207, "b", "uncordon"))
    (tmp_path / "20260401T000000-cc.jsonl").write_bytes(b'\xff\xfe"cordon"')
    assert expected_seconds(tmp_path) == {"a": 30, "b": 7}
