"""What a node's jobs say: of a run that is over, and of one that runs there now. Reads only, from any machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches

from fleetdrv import everyone, journals, report
from fleetdrv.effects import Effects
from fleetdrv.errors import ExitCode, InputError, Permanent
from fleetdrv.follow import Follower, Line, Lines
from fleetdrv.line import Lines as NodeLines
from fleetdrv.line import NodeLine
from fleetdrv.lines import clean
from fleetdrv.look import ask
from fleetdrv.model import Host
from fleetdrv.options import Options, inventory_words, typed
from fleetdrv.passwords import sudo_password
from fleetdrv.proc import interruptible
from fleetdrv.secret import hide

_SECONDS = 60.0
_WATCH_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A job that a node keeps."""

    id: str
    state: str
    code: str
    step: str

    @property
    def run(self) -> str:
        """The run that it is of."""
        return self.id.partition(".")[0]

    def __str__(self) -> str:
        """Say how it stands."""
        failed = f" in {self.step}" if self.step else ""
        return f"{self.id}: {self.state}" + (f", exit {self.code}{failed}" if self.code else "")


def logs(options: Options, run: str, node: str) -> ExitCode:
    """Print what a node's jobs said in a run: from this machine's journal, else from the node."""
    lines: list[str] = []
    source = "journal"
    if journals.means(run, here := journals.runs()):
        run = journals.choose(run, here, "is on this machine")
        lines = journals.log(run, node)
    if not lines and options.inventory:
        source = "node"
        with _line(options, node) as line:
            run, lines = _from_node(line, run)
    if not lines:
        where = f"in the journal of run {run}" if run in here else "on this machine"
        again = f"fleetdrv logs {run} {node} -i INVENTORY"
        raise InputError(f"no log of a job of {node} {where}; from the node itself: {again}")
    if options.json:
        print(report.document("logs", ExitCode.DONE, run=run, node=node, source=source, lines=lines))
    else:
        print(hide(clean("\n".join(lines))))
    return ExitCode.DONE


def _from_node(line: Line, run: str) -> tuple[str, list[str]]:
    kept = _list(line)
    known = list(dict.fromkeys(job.run for job in reversed(kept)))
    run = journals.choose(run, known, f"is kept on {line.node}")
    lines: list[str] = []
    for job in kept:
        if job.run == run:
            text = _ask(line, "log", job.id).decode("utf-8", "replace")
            lines += [f"# {job}", *text.splitlines()]
    return run, lines


def attach(options: Options, node: str) -> ExitCode:
    """Print what the job says that runs on a node now, from its first line on, until it ends or Ctrl-C."""
    with _line(options, node) as line:
        kept = _list(line)
        running = [job for job in kept if job.state == "running"]
        if not running:
            again = typed(options, "logs", kept[-1].run, node) if kept else ""
            last = f"; the last was {kept[-1]}: {again}" if kept else ""
            print(f"{node}: no job runs there now{last}")
            return ExitCode.DONE
        job = running[-1].id
        _tell(f"{node}: job {job}; Ctrl-C leaves it running")
        lines = Lines(lambda text: print(hide(clean(text)), flush=True))
        follower = Follower(line=line, now=time.monotonic, on_log=lines.feed, deadline_seconds=_WATCH_SECONDS)
        try:
            with interruptible():
                end = follower.watch(job)
        except KeyboardInterrupt:
            _tell(f"\n{node}: left; job {job} runs on")
            return ExitCode.INTERRUPTED
    lines.end()
    how = "cut off, nobody knows how it ended" if end.exit_code is None else f"exit {end.exit_code}"
    _tell(f"{node}: job {job} ended: {how}{f' in {end.failed_step}' if end.failed_step else ''}")
    return ExitCode.DONE if end.exit_code == 0 else ExitCode.FAILED


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _line(options: Options, node: str) -> AbstractContextManager[NodeLine]:
    return line_to(options, host_named(options, node))


@contextmanager
def line_to(options: Options, host: Host) -> Iterator[NodeLine]:
    """Return one host's line, for a command about it alone."""
    password = sudo_password(ask=options.ask_sudo_password, file=options.sudo_password_file)
    with NodeLines(Effects(), password, _tell) as lines:
        yield lines.to(host)


def host_named(options: Options, node: str) -> Host:
    """Return the host of a name, its own or its Node's. Raises InputError, with those that are named like it."""
    hosts = everyone.read(options)
    found = [host for host in hosts if node in (host.name, host.node_name)]
    if not found:
        close = get_close_matches(node, [host.name for host in hosts], 3)
        near = ", ".join(close) or f"none is named like it, of {len(hosts)}"
        raise InputError(f"{', '.join(inventory_words(options.inventory)[1::2])}: no host {node}; near: {near}")
    return found[0]


def _list(line: Line) -> list[Kept]:
    kept = []
    for row in _ask(line, "list").decode("utf-8", "replace").splitlines():
        job, state, code, step = [*row.split("\t"), "", "", ""][:4]
        kept.append(Kept(id=job, state=state, code=code, step=step))
    return kept


def _ask(line: Line, *words: str) -> bytes:
    code, out, errors = ask(line, "joblogs.sh", words, step="logs", deadline_seconds=_SECONDS)
    if code != 0:
        said = errors.decode("utf-8", "replace").strip()
        raise Permanent(line.node, "logs", f"exit {code}: {said.splitlines()[-1] if said else 'no reason given'}")
    return out
