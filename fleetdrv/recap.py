"""How a rollout ended: the recap on stdout, and the exit code."""

from __future__ import annotations

from fleetdrv import report
from fleetdrv.crew import Crew, Options
from fleetdrv.errors import ExitCode, FleetdrvError, worst
from fleetdrv.events import Event, Level
from fleetdrv.fleet import Result
from fleetdrv.turn import Verdict

_CODES = {
    Verdict.CONVERGED: ExitCode.DONE,
    Verdict.CHANGED: ExitCode.DONE,
    Verdict.SKIPPED: ExitCode.DONE,
    Verdict.BLOCKED: ExitCode.STOPPED,
}


def conclude(command: str, options: Options, crew: Crew, result: Result) -> ExitCode:
    """Print the recap and say how it ended."""
    codes = [_CODES.get(ending.verdict, ExitCode.FAILED) for ending in result.endings]
    if result.stopped:
        codes.append(ExitCode.INTERRUPTED if result.stopped == "interrupted" else ExitCode.STOPPED)
    code = worst(ExitCode.DONE, *codes)
    left = left_out(crew)
    if options.json:
        nodes = {ending.node: report.ending_json(ending) for ending in result.endings}
        print(
            report.document(
                command,
                code,
                nodes=nodes,
                stopped=result.stopped,
                waiting=list(result.waiting),
                left_out=left,
                effects=effects(crew),
            )
        )
    elif options.quiet and code is ExitCode.DONE:
        for ending in result.endings:
            if ending.verdict is Verdict.SKIPPED:  # not as wanted for all we know, though nothing failed
                print(report.ending_line(ending))
    else:
        counts = effects(crew)
        words = f"{counts['execs']} commands over SSH, {counts['api_writes']} writes to the cluster"
        print(report.summary_text(result.endings, result.stopped, left, words))
    return code


def counts(result: Result) -> dict[str, int]:
    """Count, for who sums runs up, the nodes that were changed and those that were to be and are not."""
    verdicts = [ending.verdict for ending in result.endings]
    failed = [verdict for verdict in verdicts if _CODES.get(verdict, ExitCode.FAILED) is ExitCode.FAILED]
    return {"changed": verdicts.count(Verdict.CHANGED), "failed": len(failed)}


def left_out(crew: Crew) -> list[str]:
    """Name the nodes that are out by our hand; a cluster that cannot be asked must not cost the recap."""
    try:
        return crew.left_out()
    except FleetdrvError as error:
        held = [name for name, driver in crew.drivers.items() if driver.view and driver.view.standing.run]
        text = f"cannot tell who is out of service: {error}; see: fleetdrv status {crew.pool_name}"
        crew.say(Event(node="", phase="end", text=text, level=Level.WARNING))
        return sorted(held)


def effects(crew: Crew) -> dict[str, int]:
    """Return the command's outward effects, counted."""
    return {"execs": crew.effects.execs, "api_writes": crew.effects.api_writes}
