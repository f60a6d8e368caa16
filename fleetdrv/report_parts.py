"""Parts of a run's page: faults, how to go on, versions, who was left alone, what was waited for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from fleetdrv.lines import alike, plural
from fleetdrv.nodeset import fold
from fleetdrv.report_node import NodeStory
from fleetdrv.report_run import Report, State
from fleetdrv.report_times import Clock, took
from fleetdrv.report_values import Drivers

FAULTS_IN_FULL = 10
"""So many kinds of fault stand there with their evidence unfolded."""
MOST_WAITS = 20


def faults(report: Report) -> Markup:
    """Who failed, why, by which evidence, and what to type next; nodes that failed alike stand together."""
    bad = {node.name: node for node in report.nodes if node.failed}
    groups = alike({name: (node.verdict, node.why) for name, node in bad.items()})
    groups.sort(key=lambda group: -len(group[1]))
    items = (
        _fault(report, [bad[name] for name in names], full=place < FAULTS_IN_FULL)
        for place, (_, names) in enumerate(groups)
    )
    return Markup("").join(items)


def _fault(report: Report, nodes: Sequence[NodeStory], *, full: bool) -> Markup:
    first, many = nodes[0], len(nodes) > 1
    of = f" of {first.name}" if many else ""
    evidence = "\n".join(first.evidence.splitlines()[-20:])
    parts = [Markup("<p>{}</p>\n").format(first.why)]
    parts += _named(first.finding)
    if evidence:
        parts.append(_EVIDENCE.format(Markup(" open") if full else "", of, evidence))
    log = f"fleetdrv logs {report.run} {first.name}" if evidence or not first.next else ""
    commands = [(label, text) for label, text in (("Next", first.next), ("The whole log", log)) if text]
    parts += [_command(f"{label}{of}", text) for label, text in commands]
    return Markup('<article class="fault"><h3>{}</h3>\n<p class="bad">✗ {}{}</p>\n{}</article>\n').format(
        fold(node.name for node in nodes),
        first.verdict,
        f", {plural(len(nodes), 'node')}" if many else "",
        Markup("").join(parts),
    )


def _named(finding: Mapping[str, str]) -> list[Markup]:
    """The cause by name, what shows it, and the remedy; nothing where the run named none."""
    shown_by = " / ".join(finding.get("evidence", "").splitlines()[:3])
    where = f" ({finding['where']})" if "where" in finding else ""
    rows = {
        "Cause": ": ".join(finding[part] for part in ("name", "cause") if part in finding),
        "Shown by": f"{shown_by}{where}" if shown_by else "",
        "Remedy": finding.get("remedy", ""),
    }
    row = Markup("<p><strong>{}:</strong> {}</p>\n")
    return [row.format(name, text) for name, text in rows.items() if text]


_EVIDENCE = Markup(
    "<details{}><summary>Evidence{}: the last lines of its log</summary><pre>{}</pre></details>\n"
)


def _command(label: str, text: str) -> Markup:
    return Markup('<p class="next">{}: <code>{}</code></p>\n').format(label, text)


def to_go_on(report: Report) -> Markup:
    """The same command finishes whatever is not finished."""
    unfinished = report.stopped or report.state in (State.BROKEN, State.UNKNOWN)
    if not unfinished or not report.about.again:
        return Markup("")
    words = Markup("<p>The same command again does what is left.</p>\n")
    return words + _command("Type", report.about.again) + _command(
        "How it stands", f"fleetdrv status {report.about.pool}"
    )


def versions(report: Report) -> Markup:
    """Per driver, which nodes went from what to what."""
    known = [node for node in report.nodes if node.before or node.after]
    drivers = dict.fromkeys(name for node in known for name in {**(node.before or {}), **(node.after or {})})
    return Markup("").join(_versions_of(driver, known) for driver in drivers)


def _versions_of(driver: str, nodes: Iterable[NodeStory]) -> Markup:
    changes = {
        node.name: (_version(node.before, driver), _version(_now(node), driver), _wanted(node, driver))
        for node in nodes
    }
    every = {wanted for _, _, wanted in changes.values()}
    rows = Markup("").join(
        Markup('<tr><td>{}</td><td>{}{}</td><th scope="row">{}{}</th></tr>').format(
            before,
            "as before" if before == after else after,
            Markup(" <small>wanted {}</small>").format(wanted) if len(every) > 1 else "",
            fold(names),
            _count(names),
        )
        for (before, after, wanted), names in alike(changes)
    )
    return Markup(
        '<table class="versions"><caption>{}{}</caption><thead><tr><th scope="col">Before</th>'
        '<th scope="col">After</th><th scope="col">Nodes</th></tr></thead><tbody>{}</tbody></table>\n'
    ).format(driver, f": {every.pop()} wanted" if len(every) == 1 else "", rows)


def _now(node: NodeStory) -> Drivers | None:
    """A node that was never begun, or has not ended, is as it was found as far as anybody can tell."""
    return node.after if node.verdict else None if node.was_out else node.before


def _version(drivers: Drivers | None, driver: str) -> str:
    if drivers is None:
        return "not known"
    told = drivers.get(driver) or {}
    found, loaded = told.get("found", ""), told.get("loaded", "")
    if loaded and loaded != found:
        return f"{found or 'none'} on disk, {loaded} loaded"
    return found or "none"


def _wanted(node: NodeStory, driver: str) -> str:
    told = (node.after or node.before or {}).get(driver) or {}
    return told.get("wanted", "")


def _count(names: Sequence[str]) -> Markup:
    return Markup(" <small>{}</small>").format(plural(len(names), "node")) if len(names) > 1 else Markup("")


def left_alone(report: Report) -> Markup:
    """Nodes that nobody worked on, and why."""
    alone = {n.name: (n.verdict or "not begun", n.why) for n in report.nodes if not n.failed and not n.spans}
    item = Markup("<div><dt>{}{}</dt><dd>{}{}</dd></div>")
    rows = (
        item.format(verdict, f": {why}" if why else "", fold(names), _count(names))
        for (verdict, why), names in alike(alone)
    )
    return Markup('<dl class="sets">{}</dl>\n').format(Markup("").join(rows)) if alone else Markup("")


def waits(report: Report, clock: Clock) -> Markup:
    """What kept the next node from starting, each cause summed up, and what the run said as a whole."""
    totals: dict[str, float] = {}
    for wait in report.waits:
        seconds = (report.until if wait.ended is None else wait.ended) - wait.began
        totals[wait.text] = totals.get(wait.text, 0.0) + seconds
    longest = sorted(totals.items(), key=lambda item: -item[1])[:MOST_WAITS]
    row = Markup("<tr><td>{}</td><td>{}</td></tr>")
    rows = Markup("").join(row.format(text, took(seconds)) for text, seconds in longest)
    item = Markup('<li><time datetime="{}">{}</time> {}</li>')
    items = Markup("").join(
        item.format(clock.iso(said.at), clock.at(said.at), said.text) for said in report.messages
    )
    table = Markup(
        '<table><caption>The next node waited for</caption><thead><tr><th scope="col">What</th>'
        '<th scope="col">In sum</th></tr></thead><tbody>{}</tbody></table>\n'
    )
    return (table.format(rows) if rows else Markup("")) + (
        Markup('<ol class="said">{}</ol>\n').format(items) if items else Markup("")
    )
