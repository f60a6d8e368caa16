"""How nodes ended, as text: equal endings share a line, failures come last with all that is needed to go on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fleetdrv.ending import Ending
from fleetdrv.lines import alike, clean, plural
from fleetdrv.nodeset import fold
from fleetdrv.secret import hide
from fleetdrv.turn import Verdict

SHOWN_IN_FULL = 10
"""So many kinds of failure are told with evidence; of the others the first line is."""


def summary_text(
    endings: Iterable[Ending], stopped: str, left_out: Iterable[str], effects: str, run: str = "", also: str = ""
) -> str:
    """Return the recap: failures last, with cause, evidence and the next command to type.

    `also`: what is to be said of those left out.
    """
    groups = _groups(endings)
    lines = [group_line(group) for group in groups if group[0].verdict not in BAD]
    lines.append(effects)
    if stopped:
        lines.append(f"stopped: {stopped}")
    if out := list(left_out):
        lines += [f"left out of service by fleetdrv: {fold(out)}", *([f"  {also}"] if also else [])]
    for number, group in enumerate(group for group in groups if group[0].verdict in BAD):
        lines += _failure(group, run, full=number < SHOWN_IN_FULL)
    return hide(clean("\n".join(lines)))


def _groups(endings: Iterable[Ending]) -> list[list[Ending]]:
    by_name = {ending.node: ending for ending in sorted(endings, key=lambda ending: ending.node)}
    kinds = alike({name: (ending.verdict, ending.why) for name, ending in by_name.items()})
    return [[by_name[name] for name in names] for _, names in kinds]


def _failure(group: Sequence[Ending], run: str, *, full: bool) -> list[str]:
    first, others = group[0], len(group) > 1
    lines = ["", group_line(group)]
    if full and first.evidence:
        lines += [f"  of {first.node}:"] if others else []
        lines += [f"  | {text}" for text in first.evidence.splitlines()[-20:]]
        lines += [f"  log: fleetdrv logs {run} {first.node}"] if run else []
    if full and first.found:
        finding, shown_by = first.found.finding, " / ".join(first.found.evidence.splitlines()[:3])
        lines += [f"  cause: {finding.name}: {finding.cause}", f"  shown by: {shown_by} ({first.found.where})"]
        lines += [f"  remedy: {finding.remedy}"]
    return [*lines, f"  next: {first.remedy}"] if first.remedy else lines


def group_line(group: Sequence[Ending]) -> str:
    """Say in one line how the turns of nodes ended that ended alike."""
    first, seconds = group[0], sorted(e.seconds_out for e in group if e.seconds_out is not None)
    said = [plural(len(group), "node")] if len(group) > 1 else []
    if seconds:
        low, high = (f"{seconds[place]:.1f}" for place in (0, -1))
        said.append(f"{low if low == high else f'{low} to {high}'} s out of service")
    about = f" ({', '.join(said)})" if said else ""
    why = f": {first.why}" if first.why else ""
    return f"{fold(e.node for e in group)}: {first.verdict}{about}{why}"


BAD = frozenset(
    {
        Verdict.FAILED,
        Verdict.ROLLED_BACK,
        Verdict.LEFT_OUT,
        Verdict.LOST,
        Verdict.GONE,
        Verdict.UNREACHABLE,
        Verdict.UNSEEN,
        Verdict.INCOMPATIBLE,
        Verdict.NOT_MENDABLE,
        Verdict.BLOCKED,
        Verdict.DEFERRED,
        Verdict.GIVEN_UP,
        Verdict.REFUSED,
    }
)
