"""What the commands do. Each returns its exit code; results go to stdout, progress goes to `Teller`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from fleetdrv import journals, locked, news, recap, report, resolve, slots, survey, windows
from fleetdrv.calling import Veto
from fleetdrv.crew import Crew, assemble
from fleetdrv.endings import Result
from fleetdrv.errors import ExitCode, InputError, Refused, Stopped, Taken, worst
from fleetdrv.events import Event
from fleetdrv.exporter import Told, reported
from fleetdrv.fleet import Fleet
from fleetdrv.history import expected_seconds
from fleetdrv.look import View
from fleetdrv.options import Options, same_again
from fleetdrv.plan import Outcome
from fleetdrv.proc import interrupts, this_process
from fleetdrv.records import RunRecord
from fleetdrv.send import Lock
from fleetdrv.survey import Seen
from fleetdrv.teller import Teller, telling
from fleetdrv.timing import utc_now


def plan(options: Options, playbook: str) -> ExitCode:
    """Look, decide, print. Writes nothing anywhere."""
    with telling_as(options) as teller, assemble(options, playbook, teller, look=True) as crew:
        with watching(teller, crew):
            _, seen = survey.survey(crew, crew.record())
        views = survey.views_of(crew, seen)
        # A left-over of ours is owed its way back, though its driver may be as wanted.
        owes = ExitCode.CHANGES if survey.owes_something(seen) else ExitCode.DONE
        code = worst(owes, *(_plan_code(view) for view in views.values()))
        limits = limits_of(crew)
        if options.json:
            nodes = {name: report.view_json(view) for name, view in views.items()}
            versions = resolve.shown(crew.versions.pins)
            counted = recap.effects(crew)
            print(
                report.document(
                    "plan", code, nodes=nodes, limits=limits, versions=versions, effects=counted
                )
            )
        else:
            print(report.plan_text(views, limits, resolve.shown(crew.versions.pins)))
            print(_plan_words(views))
    return code


def drift(options: Options, playbook: str) -> ExitCode:
    """Say who differs from the playbook, and in which layer of which driver. Writes nothing anywhere."""
    with _at_work("drift", options, playbook, look=True) as (teller, told, crew):
        with watching(teller, crew):
            _, seen = survey.survey(crew, crew.record())
        views = survey.views_of(crew, seen)
        code = told.ended(worst(ExitCode.DONE, *map(_drift_code, views.values())), survey.unseen_endings(seen))
        if options.json:
            nodes = {name: report.drift_json(view) for name, view in views.items()}
            print(report.document("drift", code, nodes=nodes, effects=recap.effects(crew)))
        elif not (options.quiet and code is ExitCode.DONE):
            print(report.drift_text(views))
    return code


def _drift_code(view: View | str) -> ExitCode:
    if isinstance(view, str):
        return ExitCode.FAILED
    return ExitCode.CHANGES if view.plan.differences else ExitCode.DONE


def apply(options: Options, playbook: str, stop_after: str = "") -> ExitCode:
    """Bring the pool to the playbook's state, or finish what an earlier run began."""
    if stop_after not in ("", "canary"):
        raise InputError(f"--stop-after {stop_after}: canary is the only place to stop after")
    return _change("apply", options, playbook, back=False, stop_after=stop_after)


def rollback(options: Options, playbook: str) -> ExitCode:
    """Bring the pool back to what it had before the playbook, by the same rollout."""
    return _change("rollback", options, playbook, back=True)


def _change(command: str, options: Options, playbook: str, *, back: bool, stop_after: str = "") -> ExitCode:
    with _at_work(command, options, playbook, back=back) as (teller, told, crew):
        if stop_after and not crew.loaded.playbook.rollout.canary:
            raise InputError(f"--stop-after canary: {playbook} has no canary; set rollout.canary")
        record = crew.record()
        with watching(teller, crew):
            run, seen = survey.survey(crew, record)
        views = survey.views_of(crew, seen)
        limits = limits_of(crew)
        if not survey.owes_something(seen) and not survey.soaks(seen, record, run):
            result = survey.nothing_to_do(crew, seen)
            return told.ended(recap.conclude(command, options, crew, result), result.endings)
        if not options.json and not options.quiet:
            print(report.plan_text(views, limits, resolve.shown(crew.versions.pins)), flush=True)
        confirm(options)
        with locked.locked(crew, views, run, record) as lock:
            begin_journal(teller, command, options, crew, run, limits=limits)
            with watching(teller, crew, limits):
                result = roll(crew, seen, lock, stop_after_canary=stop_after == "canary")
            locked.close(crew, lock, result, teller)
            teller(recap.over(crew, result))
        return told.ended(recap.conclude(command, options, crew, result, run), result.endings)


def remediate(options: Options, playbook: str) -> ExitCode:
    """Mend what drifted, as cron: as often as the playbook allows, and silent where there is no news."""
    if options.no_cluster:
        raise InputError("remediate: how often a node was tried is kept on its Node object; without one: apply")
    with _at_work("remediate", options, playbook, cron=True) as (teller, told, crew):
        try:
            locked.demand_free(crew)
            record = crew.record()
            _demand_not_undone(crew, record)
            with watching(teller, crew):
                run, seen = survey.survey(crew, record)
            result = _mend(options, crew, run, record, seen, teller)
        except Taken as error:
            return told.ended(recap.left_alone(options, str(error), ExitCode.DONE))
        except Stopped as error:  # before any node was begun: the pool is paused, or was rolled back
            return told.ended(recap.left_alone(options, str(error), ExitCode.STOPPED))
        fresh = news.gather(crew, result, run, record)
        shown = fresh if options.quiet else news.open_matters(crew, result)
        code = recap.conclude_quietly(options, crew, result, shown.endings, shown.stopped, run)
        return told.ended(code, result.endings)


def _demand_not_undone(crew: Crew, record: RunRecord | None) -> None:
    """Who rolled a pool back does not want cron to bring the same state again an hour later."""
    back = replace(crew.loaded, back=True).digest
    if record is not None and record.digest.startswith(back):  # whether the way back was an upgrade or not
        pool, end = crew.pool_name, "was rolled back" if record.finished else "is being rolled back"
        raise Stopped(
            f"pool {pool}: {end} from this playbook by run {record.id}; left alone until the playbook changes, "
            "or somebody types: fleetdrv apply"
        )


def _mend(
    options: Options, crew: Crew, run: str, record: RunRecord | None, seen: Seen, teller: Teller
) -> Result:
    if not survey.owes_something(seen) and not survey.soaks(seen, record, run):
        return survey.nothing_to_do(crew, seen)
    limits = limits_of(crew)
    with locked.locked(crew, survey.views_of(crew, seen), run, record) as lock:
        begin_journal(teller, "remediate", options, crew, run, limits=limits)
        with watching(teller, crew, limits):
            result = roll(crew, seen, lock)
        locked.close(crew, lock, result, teller)
        teller(recap.over(crew, result))
    return result


def begin_journal(
    teller: Teller,
    command: str,
    options: Options,
    crew: Crew,
    run: str,
    *,
    limits: Mapping[str, int | str],
    again: str = "",
) -> None:
    """Open the journal of a run, or go on with it, and say what the run is.

    `again`: how the command is typed where it names more than a playbook, as `repair` does.
    """
    book, path = crew.loaded.playbook, str(crew.loaded.path)
    data = {
        "command": command,
        "again": again or same_again(options, command, path),
        "playbook": {"name": book.name, "path": path, "digest": crew.digest},
        "pool": crew.pool_name,
        "nodes": len(crew.drivers),
        "cluster": crew.cluster is not None,
        "who": this_process().identity,
        "reason": options.reason,
        "limits": dict(limits),
        "versions": resolve.shown(crew.versions.pins),
    }
    teller(Event(node="", phase="run", text=f"{run}, journal {teller.keep(run)}", data=data))


@contextmanager
def _at_work(
    command: str, options: Options, playbook: str, *, cron: bool = False, back: bool = False, look: bool = False
) -> Iterator[tuple[Teller, Told, Crew]]:
    """Have all that a command works with, and its metrics told however it ends."""
    with (
        telling_as(options) as teller,
        reported(command, options, playbook, teller) as told,
        assemble(options, playbook, teller, cron=cron, back=back, look=look) as crew,
        told.watching(crew),
    ):
        yield teller, told, crew


def telling_as(options: Options) -> AbstractContextManager[Teller]:
    return telling(quiet=options.quiet, log_json=options.log_json)


def watching(
    teller: Teller, crew: Crew, limits: Mapping[str, int | str] | None = None
) -> AbstractContextManager[None]:
    limit = (limits or {}).get("max_unavailable")
    return teller.watching(crew.loaded.playbook.name, len(crew.drivers), None if limit is None else int(limit))


def limits_of(crew: Crew) -> dict[str, int | str]:
    policy = crew.loaded.playbook.rollout
    bounds = slots.limits(policy, crew.pool()[0])
    room = windows.room(policy.windows, utc_now())
    return {**bounds, "maintenance_window": str(room)} if room else {**bounds}


def roll(crew: Crew, seen: Seen, lock: Lock, *, stop_after_canary: bool = False) -> Result:
    with interrupts() as interrupted:
        try:
            crew.hooks.before("before_run", run=lock.run)
        except Veto as veto:
            return Result(endings=(), stopped=str(veto), waiting=survey.owing(seen), goes_on=True)
        fleet = Fleet(
            drivers=crew.drivers,
            policy=crew.loaded.playbook.policy,
            lock=lock,
            pool=crew.pool,
            say=crew.say,
            stop_after_canary=stop_after_canary,
            interrupted=interrupted,
            away=crew.away,
            pins=lambda: crew.versions.pins,
            expected=expected_seconds(journals.folder()),
        )
        fleet.meet(seen)
        result = fleet.run()
        crew.hooks.after("after_run", run=lock.run, stopped=result.stopped, **recap.counts(result))
        return result


_PLAN_CODES = {
    Outcome.CONVERGED: ExitCode.DONE,
    Outcome.CHANGEABLE: ExitCode.CHANGES,
    Outcome.BLOCKED: ExitCode.STOPPED,
    Outcome.INCOMPATIBLE: ExitCode.FAILED,
    Outcome.NOT_MENDABLE: ExitCode.FAILED,
}


def _plan_code(view: View | str) -> ExitCode:
    return ExitCode.FAILED if isinstance(view, str) else _PLAN_CODES[view.plan.outcome]


def _plan_words(views: Mapping[str, View | str]) -> str:
    changes = sum(not isinstance(v, str) and v.plan.outcome is Outcome.CHANGEABLE for v in views.values())
    converged = sum(not isinstance(v, str) and v.plan.outcome is Outcome.CONVERGED for v in views.values())
    rest = len(views) - changes - converged
    others = f", {rest} that cannot be changed as they are" if rest else ""
    return f"{changes} to change, {converged} converged{others}"


def confirm(options: Options) -> None:
    """Ask on a terminal; cron has none, and asked by calling."""
    if options.yes or options.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    print("Apply this plan? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed; nothing was touched")
