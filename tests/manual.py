"""fleetdrv(1), written from the tasks' own docstrings and options and from the table of exit codes.

`python -m tests.manual` writes docs/fleetdrv.1 anew.
"""

from __future__ import annotations

import re
import textwrap
from itertools import chain
from pathlib import Path

from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext

from fleetdrv import __version__
from fleetdrv.errors import MEANINGS
from fleetdrv.main import _ABOUT, _ORDER
from fleetdrv.tasks import namespace

PAGE = Path(__file__).parents[1] / "docs" / "fleetdrv.1"

_DATE = "2026-11-25"
"""Of the last change that a reader would notice."""
_FILES = {
    "~/.local/state/fleetdrv/runs/RUN.jsonl": "A run's journal: every event and every line of the nodes' jobs.",
    "~/.cache/fleetdrv": "Finished builds, and the names of nodes for the shell's completion.",
    "/var/lib/fleetdrv": "On a node: its jobs and their logs, what it keeps as last known good, its lock.",
}
_ENVIRONMENT = {
    "KUBECONFIG": "Read by kubectl, through which all talking to the cluster goes.",
    "NO_COLOR": "No colours on a terminal.",
    "TERM, CI": "With TERM=dumb, or where CI is set, plain lines and a heartbeat, as without a terminal.",
}
_SIGNALS = {
    "SIGINT, SIGTERM": "Once: start no more nodes, finish those in hand. "
    "Twice: leave now; jobs on nodes run on, and the same command finds them.",
    "SIGUSR1": "Print who waits for what since when, on stderr; the run goes on. "
    "SIGINFO (Ctrl-T), where there is one, does the same.",
}
_COMPLETION = (
    "Completion of commands, options, nodes, pools, runs and playbooks; each goes into the shell's start-up file:"
)
_SHELLS = (
    'eval "$(fleetdrv --print-completion-script bash)"',
    'eval "$(fleetdrv --print-completion-script zsh)"',
    "fleetdrv --print-completion-script fish | source",
)


def page() -> str:
    """Return the manual page."""
    contexts = {str(context.name): context for context in namespace.to_contexts()}
    lines = [
        '.\\" Written by python -m tests.manual from the commands themselves.',
        f'.TH FLEETDRV 1 "{_DATE}" "fleetdrv {__version__}" "User Commands"',
        *(".SH NAME", "fleetdrv \\- bring fleets of Kubernetes nodes to kernel driver versions over SSH"),
        *(".SH SYNOPSIS", ".B fleetdrv", ".I COMMAND", "[options]"),
        *(".SH DESCRIPTION", *_text(_ABOUT)),
        *_text("Results go to stdout, progress to stderr. On a terminal a change is asked for before it is made."),
        *_text("Without a terminal nobody is asked: to call it was the answer."),
        ".SH COMMANDS",
    ]
    for name in _ORDER:
        lines += _command(contexts[name], str(namespace.tasks[name].__doc__))
    lines += [".SH EXIT STATUS", *_listed({str(int(code)): text for code, text in MEANINGS.items()})]
    lines += [".SH SIGNALS", *_listed(_SIGNALS), ".SH ENVIRONMENT", *_listed(_ENVIRONMENT)]
    lines += [".SH FILES", *_listed(_FILES)]
    lines += [".SH COMPLETION", *_text(_COMPLETION), ".PP", ".nf", *map(_quoted, _SHELLS), ".fi"]
    lines += [".SH SEE ALSO", ".BR kubectl (1),", ".BR ssh_config (5),", ".BR dkms (8)"]
    return "\n".join(lines) + "\n"


def _command(context: ParserContext, docstring: str) -> list[str]:
    words = " ".join(argument.name.upper() for argument in context.positional_args)
    paragraphs = re.split(r"\n\s*\n", docstring.strip())
    lines = [f".SS {_quoted(f'{context.name} {words}'.strip())}"]
    for number, paragraph in enumerate(paragraphs):
        lines += [".PP"] if number else []
        lines += _text(paragraph)
    positional = [argument.name for argument in context.positional_args]
    for argument in context.args.values():
        if argument.name not in positional:
            lines += [".TP", f".B {_quoted(_option(argument))}", *_text(argument.help or "")]
    return lines


def _option(argument: Argument) -> str:
    names = sorted(argument.names, key=len)
    dashed = [f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}" for name in names]
    return ", ".join(dashed) + (f" {names[-1].upper().replace('_', '-')}" if argument.takes_value else "")


def _listed(entries: dict[str, str]) -> list[str]:
    lines: list[str] = []
    for term, text in entries.items():
        lines += [".TP", f".B {_quoted(term)}", *_text(text)]
    return lines


def _text(text: str) -> list[str]:
    """Return a paragraph, each sentence on lines of its own, none too long: troff fills them."""
    sentences = re.split(r"(?<=[.;:])\s+", " ".join(text.split()))
    wrapped = (textwrap.wrap(sentence, 70, break_on_hyphens=False) for sentence in sentences)
    return [_quoted(line) for line in chain.from_iterable(wrapped)]


def _quoted(text: str) -> str:
    """Keep troff from reading backslashes, leading dots and dashes as its own."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "'").replace("~", "\\(ti")
    return f"\\&{text}" if text[:1] in (".", "'") else text


if __name__ == "__main__":
    PAGE.write_text(page())
