"""The recap: nobody is missing, equal endings share a line, failures come last with what is needed to go on."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from fleetdrv.ending import Ending
from fleetdrv.nodeset import expand
from fleetdrv.summary import BAD, SHOWN_IN_FULL, group_line, summary_text
from fleetdrv.turn import Verdict

EFFECTS = "1 commands over SSH, 2 writes to the cluster"
VERDICTS = "|".join(sorted(Verdict, key=len, reverse=True))


def an_ending(node: str, verdict: Verdict = Verdict.CHANGED, **more: object) -> Ending:
    """Return how a node ended."""
    return Ending(**{"node": node, "verdict": verdict, **more})  # type: ignore[arg-type]


@given(st.dictionaries(st.builds("{}-{}".format, st.sampled_from("abc"), st.integers(0, 30)), st.tuples(
    st.sampled_from(list(Verdict)), st.sampled_from(["", "why", "why: more"])), max_size=12))
def test_every_node_is_named_once_with_its_verdict_and_the_bad_come_last(
    nodes: dict[str, tuple[Verdict, str]],
) -> None:
    endings = [an_ending(node, verdict, why=why) for node, (verdict, why) in nodes.items()]
    text = summary_text(endings, "", [], EFFECTS)
    seen: list[tuple[str, str]] = []
    for line in text.splitlines():
        found = re.fullmatch(rf"(\S+): ({VERDICTS})(?: \(.*?\))?(?:: .*)?", line)
        seen += [(node, found[2]) for node in expand(found[1])] if found else []
    assert sorted(seen) == sorted((node, str(verdict)) for node, (verdict, _) in nodes.items())
    bad = [verdict in BAD for _, verdict in seen]
    assert bad == sorted(bad)
    before, _, after = text.partition(EFFECTS)
    assert not any(f": {verdict}" in before for verdict in BAD if verdict is not Verdict.BLOCKED)
    assert f": {Verdict.CHANGED}" not in after


def test_a_failure_has_its_cause_its_log_and_the_command_to_type_and_nothing_follows() -> None:
    evidence = "\n".join(f"line {number}" for number in range(30)) + "\n\x1b[2Jlast"
    failed = [
        an_ending(node, Verdict.FAILED, why="no", evidence=evidence, remedy=f"fleetdrv plan -l {node}")
        for node in ("n7", "n9")
    ]
    lines = summary_text([*failed, an_ending("n1")], "2 failed", ["n7", "n8"], EFFECTS, "r1").splitlines()
    assert lines[:3] == ["n1: changed", EFFECTS, "stopped: 2 failed"]
    assert lines[3:5] == ["left out of service by fleetdrv: n[7-8]", ""]
    assert lines[5:7] == ["n[7,9]: failed (2 nodes): no", "  of n7:"]
    assert lines[7:27] == [*(f"  | line {number}" for number in range(11, 30)), "  | ?[2Jlast"]
    assert lines[27:] == ["  log: fleetdrv logs r1 n7", "  next: fleetdrv plan -l n7"]


def test_what_is_to_be_said_of_who_is_left_out_follows_their_names() -> None:
    said = ("left out of service by fleetdrv: n7", "  not in the inventory any more: n7")
    assert tuple(summary_text([], "", ["n7"], EFFECTS, also=said[1].strip()).splitlines()[1:]) == said
    assert summary_text([], "", [], EFFECTS, also="nobody") == EFFECTS


def test_a_thousand_failures_of_their_own_kind_do_not_bury_the_screen_in_logs() -> None:
    failed = [an_ending(f"n{n}", Verdict.FAILED, why=f"no {n}", evidence="line\n" * 20) for n in range(1000)]
    lines = summary_text(failed, "", [], EFFECTS).splitlines()
    assert lines.count("  | line") == 20 * SHOWN_IN_FULL
    assert sum(": failed: no " in line for line in lines) == 1000


def test_seconds_out_of_service_are_a_range_where_they_differ() -> None:
    assert group_line([an_ending("n1", seconds_out=2.0)]) == "n1: changed (2.0 s out of service)"
    both = [an_ending("n1", seconds_out=30.25), an_ending("n2", seconds_out=2.0), an_ending("n3")]
    assert group_line(both) == "n[1-3]: changed (3 nodes, 2.0 to 30.2 s out of service)"
