"""How a rollout ended: the recap on stdout, and the exit code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fleetdrv import entries, report, summary
from fleetdrv.crew import Crew
from fleetdrv.ending import Ending
from fleetdrv.endings import Result
from fleetdrv.entries import ending_json
from fleetdrv.errors import ExitCode, FleetdrvError, worst
from fleetdrv.events import Event, Level
from fleetdrv.nodeset import fold
from fleetdrv.options import Options
from fleetdrv.turn import Verdict

_CODES = {
    Verdict.CONVERGED: ExitCode.DONE,
    Verdict.CHANGED: ExitCode.DONE,
    Verdict.SKIPPED: ExitCode.DONE,
    Verdict.BLOCKED: ExitCode.STOPPED,
}


def conclude(command: str, options: Options, crew: Crew, result: Result, run: str = "") -> ExitCode:
    """Print the recap and say how it ended."""
    code = _code(result)
    if options.json:
        _print_document(command, code, crew, result)
    elif options.quiet and code is ExitCode.DONE:
        for ending in result.endings:
            if ending.verdict is Verdict.SKIPPED:  # not as wanted for all we know, though nothing failed
                print(summary.group_line([ending]))
    else:
        _print_text(crew, result.endings, result.stopped, run)
    return code


def conclude_quietly(
    options: Options, crew: Crew, result: Result, endings: Sequence[Ending], stopped: str, run: str
) -> ExitCode:
    """Say how a remediation ended: the exit code tells how things stand, the text only what is handed in."""
    code = _code(result)
    if options.json:
        _print_document("remediate", code, crew, result)
    elif endings or stopped:
        _print_text(crew, endings, stopped, run)
    return code


def left_alone(options: Options, why: str, code: ExitCode) -> ExitCode:
    """Say why a remediation did not begin: nobody's fault, so with --quiet nothing."""
    if options.json:
        print(report.document("remediate", code, nodes={}, stopped=why, waiting=[], left_out=[]))
    elif not options.quiet:
        print(why)
    return code


def _code(result: Result) -> ExitCode:
    codes = [_CODES.get(ending.verdict, ExitCode.FAILED) for ending in result.endings]
    if result.interrupted:
        codes.append(ExitCode.INTERRUPTED)
    elif result.stopped:
        codes.append(ExitCode.STOPPED)
    return worst(ExitCode.DONE, *codes)


def over(crew: Crew, result: Result) -> Event:
    """Tell how a run ended, for its journal."""
    return entries.over(int(_code(result)), result.stopped, result.waiting, effects(crew))


def _print_document(command: str, code: ExitCode, crew: Crew, result: Result) -> None:
    nodes = {ending.node: ending_json(ending) for ending in result.endings}
    print(
        report.document(
            command,
            code,
            nodes=nodes,
            stopped=result.stopped,
            waiting=list(result.waiting),
            left_out=left_out(crew),
            effects=effects(crew),
        )
    )


def _print_text(crew: Crew, endings: Iterable[Ending], stopped: str, run: str) -> None:
    counts = effects(crew)
    words = f"{counts['execs']} commands over SSH, {counts['api_writes']} writes to the cluster"
    out = left_out(crew)
    print(summary.summary_text(endings, stopped, out, words, run, _unlisted(crew, out)))


def counts(result: Result) -> dict[str, int]:
    """Count, for who sums runs up, the nodes that were changed and those that were to be and are not."""
    verdicts = [ending.verdict for ending in result.endings]
    failed = [verdict for verdict in verdicts if _CODES.get(verdict, ExitCode.FAILED) is ExitCode.FAILED]
    return {"changed": verdicts.count(Verdict.CHANGED), "failed": len(failed)}


def _unlisted(crew: Crew, out: Iterable[str]) -> str:
    """Say who is out by an earlier run's hand and is no host of the pool any more, and what tells what to do."""
    listed = {*crew.members, *crew.drivers}
    unlisted = [name for name in out if name not in listed]
    see = f"; see: fleetdrv status {crew.pool_name}"
    return f"not in the inventory any more: {fold(unlisted)}{see}" if unlisted else ""


def left_out(crew: Crew) -> list[str]:
    """Name the nodes that are out by our hand; a cluster that cannot be asked must not cost the recap."""
    try:
        return crew.left_out()
    except FleetdrvError as error:
        held = [name for name, driver in crew.drivers.items() if driver.out]
        text = f"cannot tell who is out of service: {error}; see: fleetdrv status {crew.pool_name}"
        crew.say(Event(node="", phase="end", text=text, level=Level.WARNING))
        return sorted(held)


def effects(crew: Crew) -> dict[str, int]:
    """Return the command's outward effects, counted."""
    return {"execs": crew.effects.execs, "api_writes": crew.effects.api_writes}
