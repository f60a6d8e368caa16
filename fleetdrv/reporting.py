"""`report RUN`: the page of a run, from its journal; with --watch again and again until the run ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from fleetdrv import journals, report
from fleetdrv.atomic import put
from fleetdrv.errors import ExitCode, InputError
from fleetdrv.lease import Holder
from fleetdrv.options import Options
from fleetdrv.proc import alive, interruptible, this_process
from fleetdrv.report_page import headline, page, tally
from fleetdrv.report_run import Report, RunLog

_MODE = 0o600  # as the journal: it holds what nodes said
_WATCH_SECONDS = 5.0
_SHARE = 10
"""Writing takes at most about one part in so many of the time: a page of 10,000 nodes takes seconds."""


def write(
    options: Options, run: str, output: str, watch: bool, sleep: Callable[[float], None] = time.sleep
) -> ExitCode:
    """Write a run's page and print where, or its content as a document. Raises InputError."""
    run = journals.choose(run, journals.runs(), "has a journal on this machine")
    path = Path(output).expanduser() if output else journals.folder() / f"{run}.html"
    log, tail = RunLog(run=run), journals.Tail(run)
    style = resources.files("fleetdrv").joinpath("report.css").read_text(encoding="utf-8")
    with interruptible():
        began = time.monotonic()
        made = _write(log, tail, path, style)
        if not options.json:
            print(path, flush=True)  # at once: somebody wants to open it
        with suppress(KeyboardInterrupt):  # the page stays as it was written last
            while watch and made.live:
                sleep(max(_WATCH_SECONDS, _SHARE * (time.monotonic() - began)))
                began = time.monotonic()
                made = _write(log, tail, path, style)
    if options.json:
        print(report.document("report", ExitCode.DONE, page=str(path), run=run_json(made)))
    return ExitCode.DONE


def _write(log: RunLog, tail: journals.Tail, path: Path, style: str) -> Report:
    """Take what is new, and write the page."""
    _feed(log, tail)
    runs = _alive(log.about.who)
    _feed(log, tail)  # the last words of one that ended just now
    if log.empty:
        raise InputError(f"run {log.run}: its journal tells nothing: {tail.path}")
    made = log.report(time.time(), runs)
    text = page(made, style, datetime.now().astimezone().tzinfo or UTC, time.time())
    try:
        put(path, text.encode("utf-8", "replace"), _MODE)
    except OSError as error:
        raise InputError(f"--output {path}: cannot be written: {error.strerror or error}") from error
    return made


def _feed(log: RunLog, tail: journals.Tail) -> None:
    for entry in tail.read():
        log.take(entry)


def _alive(who: str) -> bool | None:
    """Whether the process that drives the run lives; None where this machine cannot know."""
    holder, here = Holder.parse(who), this_process()
    if holder is None:
        return None
    rebooted = holder.host == here.host and "" not in (holder.boot, here.boot) and holder.boot != here.boot
    return False if rebooted else alive(holder, here)


def run_json(made: Report) -> dict[str, Any]:
    """Return a report as plain data: what the page shows, with times in seconds since 1970."""
    return {
        "id": made.run,
        "about": asdict(made.about),
        "state": str(made.state),
        "headline": headline(made),
        "began": made.began,
        "until": made.until,
        "exit_code": made.exit_code,
        "stopped": made.stopped,
        "commands": made.commands,
        "effects": dict(made.effects),
        "versions": dict(made.versions),
        "counts": dict(tally(made)),
        "seconds_out_of_service": made.seconds_out,
        "out_of_service_at_once": made.outs(),
        "nodes": {node.name: node.plain(made.until) for node in made.nodes},
        "waits": [wait.plain() for wait in made.waits],
        "messages": [asdict(message) for message in made.messages],
    }
