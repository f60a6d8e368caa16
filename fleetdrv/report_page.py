"""The page of a run: one HTML file that asks nobody for anything. Pure.

Every word that a node, a file or a person said goes through Markup.format, which escapes it; a policy in the page
itself forbids scripts and requests, should that ever fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, tzinfo

from markupsafe import Markup

from fleetdrv.lease import Holder
from fleetdrv.lines import plural, span
from fleetdrv.nodeset import fold
from fleetdrv.report_parts import faults, left_alone, to_go_on, versions, waits
from fleetdrv.report_run import Report, State
from fleetdrv.report_timeline import Drawing, chart, timeline
from fleetdrv.report_times import Clock, axis, took

RELOAD_SECONDS = 10
"""How often a page that is still written reads itself anew."""

_PAGE = Markup("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
{refresh}<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<p class="kicker">fleetdrv {command} <span aria-hidden="true">·</span> pool {pool}</p>
<h1>{name}</h1>
<p class="outcome {tone}">{outcome}</p>
<p>{tally}.</p>
{live}{facts}</header>
<main>
{figures}{sections}</main>
<footer><p>Run {run}, told by its journal on this machine. Times are {place}. Written {written}.</p></footer>
</body>
</html>
""")

_LIVE = Markup('<p class="note">This page is written and reads itself anew, every {} s, until the run ends.</p>\n')


def page(report: Report, style: str, zone: tzinfo, written: float) -> str:
    """Return the page of a report; `style` is its CSS, `zone` where its times are read."""
    day = f"{datetime.fromtimestamp(report.began, zone):%Y-%m-%d}"
    clock = Clock(zone, day)
    drawing = Drawing(report, axis(report.began, report.until, zone), clock)
    name = report.about.playbook or f"run {report.run}"
    refresh = Markup('<meta http-equiv="refresh" content="{}">\n').format(RELOAD_SECONDS) if report.live else ""
    return _PAGE.format(
        refresh=refresh,
        title=f"{name}: {headline(report)}. {told(report)}",
        style=Markup(style),  # our own file, from the package
        command=report.about.command or "run",
        pool=report.about.pool or "unknown",
        name=name,
        tone=_tone(report),
        outcome=f"{_SIGNS[_tone(report)]} {headline(report)}",
        tally=told(report),
        live=_LIVE.format(RELOAD_SECONDS) if report.live else "",
        facts=_facts(report, clock),
        figures=_figures(report),
        sections=Markup("").join(_sections(drawing)),
        run=report.run,
        place=clock.place(report.began),
        written=clock.full(written),
    )


# ---- how it went, in words


def tally(report: Report) -> Counter[str]:
    """Count the nodes by what became of them."""
    counts: Counter[str] = Counter()
    for node in report.nodes:
        if node.failed:
            counts["failed"] += 1
        elif node.verdict == "changed":
            counts["changed"] += 1
        elif node.verdict:
            counts["left as they were"] += 1
        elif node.spans:
            counts["at work" if report.live else "not finished"] += 1
        else:
            counts["not begun"] += 1
    return counts


def headline(report: Report) -> str:
    """Return how the run went."""
    match report.state:
        case State.LIVE:
            return "Goes on"
        case State.BROKEN:
            return "Broken off: its controller ended without a last word"
        case State.UNKNOWN:
            return "No end on record: this machine cannot know whether it still runs"
    if report.stopped:
        return f"Stopped before the end: {report.stopped}"
    return "Done, with faults" if tally(report)["failed"] else "Done"


def told(report: Report) -> str:
    """Return how many nodes fared how."""
    counts, total = tally(report), max(report.about.nodes, len(report.nodes))
    words = [f"{counts[word]:,} {word}" for word in _ORDER if counts[word]]
    return f"Of {total:,} {'node' if total == 1 else 'nodes'}: {', '.join(words) or 'none begun'}"


_ORDER = ("failed", "changed", "left as they were", "at work", "not finished", "not begun")
_SIGNS = {"bad": "✗", "good": "✓", "open": "●"}


def _tone(report: Report) -> str:
    if report.live:
        return "open"
    failed = any(node.failed for node in report.nodes)
    return "good" if report.state is State.OVER and not failed and not report.stopped else "bad"


# ---- parts


def _facts(report: Report, clock: Clock) -> Markup:
    """What the run was: who, when, what, within which limits."""
    about, holder = report.about, Holder.parse(report.about.who)
    ended = "" if report.live else f" to {clock.at(report.until)}"
    rows = {
        "When": f"{clock.full(report.began)}{ended} {clock.place(report.began)}",
        "Took": span(report.until - report.began),
        "Commands": f"{report.commands}, one after the other" if report.commands > 1 else "",
        "By": str(holder) if holder else about.who,
        "Reason": about.reason,
        "Playbook": about.path,
        "Wanted": f"state {about.digest}" if about.digest else "",
        "Run": report.run,
        "Exit code": "" if report.exit_code is None else str(report.exit_code),
        "Limits": ", ".join(f"{name} {value}" for name, value in about.limits.items()),
        "Versions": "; ".join(f"{name} {value}" for name, value in report.versions.items()),
        "Cluster": "" if about.cluster else "none: nothing was cordoned or drained",
        "Sent": ", ".join(f"{number} {_EFFECTS.get(name, name)}" for name, number in report.effects.items()),
    }
    row = Markup("<div><dt>{}</dt><dd>{}</dd></div>")
    return Markup("<dl class='facts'>{}</dl>\n").format(
        Markup("").join(row.format(name, value) for name, value in rows.items() if value)
    )


_EFFECTS = {"execs": "commands over SSH", "api_writes": "writes to the cluster"}


def _figures(report: Report) -> Markup:
    out = [node for node in report.nodes if node.was_out]
    longest = max(out, key=lambda node: node.out_of_service(report.until), default=None)
    still = [node for node in report.nodes if node.out_since is not None]
    counts = tally(report)
    rows = [("Changed", str(counts["changed"]), ""), ("Failed", str(counts["failed"]), "")]
    rows.append(("Out of service, in sum", _sum(report.seconds_out), f"of {plural(len(out), 'node')}"))
    if longest is not None:
        rows.append(("Longest outage", took(longest.out_of_service(report.until)), longest.name))
    rows.append(("Still out of service", str(len(still)), fold(node.name for node in still)))
    row = Markup("<div><dt>{}</dt><dd><strong>{}</strong> <small>{}</small></dd></div>")
    return Markup('<section aria-labelledby="figures"><h2 id="figures" class="unseen">In figures</h2>'
                  '<dl class="figures">{}</dl></section>\n').format(Markup("").join(row.format(*r) for r in rows))


def _sum(seconds: float) -> str:
    return took(seconds) if seconds < 7200 else f"{seconds / 3600:.1f} node-hours"


def _sections(drawing: Drawing) -> Iterator[Markup]:
    report = drawing.report
    if bad := faults(report):
        yield _section("faults", "Faults", bad)
    if on := to_go_on(report):
        yield _section("on", "To go on", on)
    yield _section("timeline", "Timeline", chart(drawing) + timeline(drawing), *_grid(drawing))
    if table := versions(report):
        yield _section("versions", "Versions before and after", table)
    if left := left_alone(report):
        yield _section("left", "Left as they were", left)
    if said := waits(report, drawing.clock):
        yield _section("waits", "What the rollout waited for, and what it said", said)


def _section(name: str, title: str, body: Markup, style: str = "") -> Markup:
    return Markup('<section aria-labelledby="{0}"{3}>\n<h2 id="{0}">{1}</h2>\n{2}</section>\n').format(
        name, title, body, Markup(' style="{}"').format(style) if style else ""
    )


def _grid(drawing: Drawing) -> tuple[str, ...]:
    """Where the vertical lines stand. A background's position in percent counts what is left of the width."""
    line = drawing.axis
    step, first = 100 * line.step / (line.ended - line.began), line.percent(line.first)
    if step >= 99:
        return ()
    return (f"--step:{step:.3f}%;--first:{100 * first / (100 - step):.3f}%",)
