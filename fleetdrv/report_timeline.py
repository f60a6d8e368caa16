"""The part of a run's page that is drawn: how many nodes were out, and each node's phases on one axis. Pure.

A bar is for eyes that compare; all that it says stands as text in the table that it opens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fleetdrv.lines import plural
from fleetdrv.nodeset import fold, natural
from fleetdrv.report_node import Kind, NodeStory, Span
from fleetdrv.report_run import Report
from fleetdrv.report_times import Axis, Clock, took

SINGLY = 40
"""So many nodes stand in the timeline one below the other; of more, those without a fault are folded in groups."""
GROUP = 50
DETAILED = 3000
"""Of so many nodes the phases are told one by one, those with a fault first: the page must stay one to open."""

_LATE = 80.0
_TWO_LABELS = 30.0
"""In percent of the axis on a telephone."""

_CLASSES = {
    Kind.STAGE: "s", Kind.LOOK: "s", Kind.WAIT: "w", Kind.CORDON: "d", Kind.DRAIN: "d", Kind.CHANGE: "c",
    Kind.ROLLBACK: "r", Kind.VERIFY: "v", Kind.KEEP: "v", Kind.RETURN: "u", Kind.SOAK: "k", Kind.LEFT: "l",
    Kind.UNATTENDED: "n", Kind.GROUP: "g",
}  # fmt: skip
_LEGEND = (
    ("s", "stage: trial builds and downloads"),
    ("w", "ready, waits for a slot"),
    ("k", "soak"),
    ("d", "cordon and drain"),
    ("c", "change: unload, install, load"),
    ("v", "verify, keep"),
    ("u", "uncordon: devices back, taint off"),
    ("r", "roll back"),
    ("l", "left out of service"),
    ("n", "controller gone"),
    ("g", "a group, from its first cordon to its last uncordon"),
)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What all bars have in common."""

    report: Report
    axis: Axis
    clock: Clock

    def bar(self, spans: Iterable[Span]) -> Markup:
        """Draw phases; gaps stay empty."""
        pieces = Markup("").join(map(self._piece, spans))
        return Markup('<span class="bar" aria-hidden="true">{}</span>').format(pieces)

    def _piece(self, span: Span) -> Markup:
        left = self.axis.percent(span.began)
        width = self.axis.percent(self.end(span)) - left
        html = Markup('<i class="{} {}" style="left:{:.2f}%;width:{:.2f}%"></i>')
        return html.format(_CLASSES[span.kind], "x" if span.out else "y", left, width)

    def end(self, span: Span) -> float:
        """Return when a phase ended; one that goes on lasts until now."""
        return max(span.began, self.report.until if span.ended is None else span.ended)


def chart(drawing: Drawing) -> Markup:
    """Draw how many nodes were out of service at once."""
    report, axis = drawing.report, drawing.axis
    outs = report.outs()
    if not outs:
        return Markup("")
    most, limit = max(count for _, count in outs), report.about.limits.get("max_unavailable", "")
    bound = int(limit) if limit.isascii() and limit.isdecimal() and len(limit) < 10 else 0
    top = max(most, bound) * 1.15
    points, before = [f"0,{_y(0, top)}"], 0
    for at, count in outs:
        x = f"{10 * axis.percent(at):.1f}"
        points += [f"{x},{_y(before, top)}", f"{x},{_y(count, top)}"]
        before = count
    points += [f"{10 * axis.percent(report.until):.1f},{_y(before, top)}"]
    line = Markup('<line class="limit" x1="0" x2="1000" y1="{0}" y2="{0}"/>').format(_y(bound, top))
    words = f"At most {plural(most, 'node')} out of service at once"
    return Markup(
        '<figure><figcaption>{0}.</figcaption><svg class="chart grid" viewBox="0 0 1000 100" role="img" '
        'aria-label="{0}" preserveAspectRatio="none"><polygon points="{1} {2},100 0,100"/>{3}</svg></figure>\n'
    ).format(
        f"{words}; the limit was {bound}" if bound else words,
        " ".join(points),
        f"{10 * axis.percent(report.until):.1f}",
        line if bound else "",
    )


def _y(count: float, top: float) -> str:
    return f"{100 - 100 * count / top:.1f}"


def timeline(drawing: Drawing) -> Markup:
    """Draw every node that was worked on: those with a fault first, then in the order of their outages."""
    worked = [node for node in drawing.report.nodes if node.spans]
    bad = [node for node in worked if node.failed]
    others = sorted((node for node in worked if not node.failed), key=_order)
    shown_nodes = {node.name for node in [*bad, *others][:DETAILED]}
    if not worked:
        return Markup("<p>No node was worked on.</p>\n")
    parts = [_head(drawing, grouped=len(worked) > SINGLY, many=len(worked) > DETAILED)]
    if bad and len(worked) > SINGLY:
        parts.append(Markup("<h3>With a fault</h3>\n"))
    parts.append(_list(drawing, bad, shown_nodes))
    if len(worked) <= SINGLY:
        parts.append(_list(drawing, others, shown_nodes))
    elif others:
        parts.append(Markup("<h3>The others, in the order of their outages</h3>\n"))
        groups = [others[place : place + GROUP] for place in range(0, len(others), GROUP)]
        items = (_group(drawing, group, shown_nodes) for group in groups)
        parts.append(Markup('<ul class="rows">{}</ul>\n').format(Markup("").join(items)))
    return Markup("").join(parts)


def _order(node: NodeStory) -> tuple[float, object]:
    out = [span.began for span in node.spans if span.out]
    return (min(out, default=node.spans[0].began), natural(node.name))


def _head(drawing: Drawing, *, grouped: bool, many: bool) -> Markup:
    """The legend, and the axis that stays in sight."""
    used = {_CLASSES[span.kind] for node in drawing.report.nodes for span in node.spans}
    used |= {"g"} if grouped else set()
    item = Markup('<li><span class="bar"><i class="{} {}"></i></span> {}</li>')
    entries = [item.format(sign, "y" if sign in "swk" else "x", words) for sign, words in _LEGEND if sign in used]
    axis, zone = drawing.axis, drawing.clock.zone
    places = [(axis.percent(at), axis.label(at, zone)) for at in axis.ticks()]
    # One near the right edge is set to the left of its line, where the one before it may stand.
    close = len(places) > 1 and places[1][0] - places[0][0] < _TWO_LABELS
    ticks = Markup("").join(_tick(percent, label) for percent, label in places if percent <= _LATE or not close)
    some = f"; of so many, the first {DETAILED:,} can be opened" if many else ""
    return Markup(
        '<p class="note">Low bars: the node serves. Tall bars: it is out of service. Open a node for its phases '
        'in numbers{}.</p>\n<ul class="legend">{}</ul>\n<div class="axis" aria-hidden="true"><div>{}</div></div>\n'
    ).format(some, Markup("").join(entries), ticks)


def _tick(percent: float, label: str) -> Markup:
    """Set a time at its line; near the right edge on the line's other side."""
    return Markup('<span class="{}" style="left:{:.2f}%">{}</span>').format(
        "late" if percent > _LATE else "", percent, label
    )


def _list(drawing: Drawing, nodes: Sequence[NodeStory], detailed: set[str]) -> Markup:
    items = Markup("").join(_node(drawing, node, detailed) for node in nodes)
    return Markup('<ul class="rows">{}</ul>\n').format(items) if nodes else Markup("")


def _group(drawing: Drawing, nodes: Sequence[NodeStory], detailed: set[str]) -> Markup:
    if len(nodes) == 1:
        return _node(drawing, nodes[0], detailed)
    now = drawing.report.until
    seconds = sorted(node.out_of_service(now) for node in nodes)
    out = [span for node in nodes for span in node.spans if span.out]
    began = min((span.began for span in out), default=now)
    ended = max((drawing.end(span) for span in out), default=now)
    extent = Span(kind=Kind.GROUP, began=began, ended=ended, out=True)
    low, high = took(seconds[0]), took(seconds[-1])
    return Markup(
        '<li><details><summary class="row"><span class="name">{}</span><span class="how">{}</span>'
        '<span class="out">{}</span>{}</summary>{}</details></li>\n'
    ).format(
        fold(node.name for node in nodes),
        plural(len(nodes), "node"),
        low if low == high else f"{low} to {high}",
        drawing.bar([extent] if out else []),
        _list(drawing, nodes, detailed),
    )


def _node(drawing: Drawing, node: NodeStory, detailed: set[str]) -> Markup:
    seconds = took(node.out_of_service(drawing.report.until)) if node.was_out else "served"
    row = Markup('<span class="name">{}</span><span class="how">{}</span><span class="out">{}</span>{}').format(
        node.name, verdict(node, drawing.report), seconds, drawing.bar(node.spans)
    )
    if node.name not in detailed:
        return Markup('<li class="row">{}</li>\n').format(row)
    return Markup('<li><details><summary class="row">{}</summary>{}</details></li>\n').format(
        row, _phases(drawing, node)
    )


def verdict(node: NodeStory, report: Report) -> Markup:
    """Say how a node ended or stands, with a sign that needs no colour."""
    if node.failed:
        return Markup('<span class="bad">✗ {}</span>').format(node.verdict)
    if node.verdict:
        return Markup('<span class="good">✓ {}</span>').format(node.verdict)
    if not node.spans:
        return Markup("not begun")
    return Markup('<span class="open">● {}</span>').format(
        (f"at work: {node.at_work}" if node.at_work else "at work") if report.live else "not finished"
    )


def _phases(drawing: Drawing, node: NodeStory) -> Markup:
    rows = Markup("").join(_rows(drawing, node))
    why = Markup("<p>{}</p>").format(node.why) if node.why else ""
    return Markup(
        '{}<table class="phases"><caption class="unseen">Phases of {}</caption><thead><tr>'
        '<th scope="col">Phase</th><th scope="col">Began</th><th scope="col">Took</th></tr></thead>'
        '<tbody>{}</tbody></table>'
    ).format(why, node.name, rows)


def _rows(drawing: Drawing, node: NodeStory) -> Iterator[Markup]:
    row = Markup('<tr><th scope="row">{}{}</th><td>{}</td><td>{}</td></tr>')
    for span in node.spans:
        seconds = took(drawing.end(span) - span.began)
        if span.ended is None and drawing.report.live:
            seconds += ", goes on"
        yield row.format(span.kind, _said(span, node.why), drawing.clock.at(span.began), seconds)


def _said(span: Span, why: str) -> Markup:
    """What a phase told: its reason, then steps and waits with the seconds after its beginning."""
    texts = [span.text] if span.text and span.text != why else []
    texts += [f"{note.text} (after {took(note.at - span.began)})" for note in span.notes]
    if span.left_unsaid:
        texts.insert(-1, f"… {span.left_unsaid} more …")
    return Markup("").join(Markup("<small>{}</small>").format(text) for text in texts)
