"""The program: Invoke's, with fleetdrv's exit codes and without Invoke's flags for running local commands."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from typing import Any

from invoke.exceptions import Exit, ParseError
from invoke.program import Program

from fleetdrv import __version__
from fleetdrv.errors import ExitCode, FleetdrvError
from fleetdrv.secret import hide
from fleetdrv.tasks import namespace

_KEPT = {
    "complete",
    "debug",
    "help",
    "list",
    "list-depth",
    "list-format",
    "print-completion-script",
    "version",
    "write-pyc",
}


class FleetProgram(Program):
    """Invoke's Program; wrong arguments end with 3, Ctrl-C with 130, and nothing is shown as a traceback
    but a bug."""

    def core_args(self) -> list[Any]:
        """Return the core flags that mean something here."""
        kept = [argument for argument in super().core_args() if argument.name in _KEPT]
        for argument in kept:
            if argument.name in ("list", "list-depth", "list-format"):
                argument.names = (argument.name,)  # their short names are --limit's and others'
            if argument.name == "write-pyc":
                argument.default = argument._value = True  # byte code is what makes start-up quick
        return kept

    def update_config(self, merge: bool = True) -> None:
        """Load nothing: fleetdrv takes no settings from Invoke's configuration tree."""

    def print_help(self) -> None:
        """Print the commands, and how to learn more of one."""
        print(f"Usage: {self.binary} COMMAND [options]\n\n{_ABOUT}\n\nCommands:\n")
        names = [name for name in _ORDER if name in namespace.tasks]
        self.print_columns([(n, (namespace.tasks[n].__doc__ or "").strip().splitlines()[0]) for n in names])
        print(_EPILOGUE.format(binary=self.binary))

    def print_task_help(self, name: str) -> None:
        """Print one command's promise and options."""
        positional = " ".join(arg.name.upper() for arg in self.parser.contexts[name].positional_args)
        print(f"Usage: {self.binary} {name} {positional} [options]".replace("  ", " ") + "\n")
        print(
            "\n".join(line.strip() for line in (self.collection[name].__doc__ or "").strip().splitlines())
            + "\n"
        )
        print("Options:\n")
        self.print_columns(self.parser.contexts[name].help_tuples())

    def normalize_argv(self, argv: list[str] | None) -> None:
        """Make two things work for which Invoke knows no way.

        `COMMAND --help` (Invoke takes --help for the missing positional), and POOL of `status` left out.
        """
        super().normalize_argv(argv)
        binary, *words = self.argv
        command, *rest = words or [""]
        if command in namespace.tasks and {"--help", "-h"} & set(rest):
            self.argv = [binary, "--help", command]
        elif command == "status" and (not rest or rest[0].startswith("-")):
            self.argv = [binary, command, "", *rest]

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:
        """Run one command line; `exit=False` returns instead of leaving (tests)."""
        code = self._code(argv)
        if exit:
            sys.stdout.flush()
            sys.exit(int(code))

    def _code(self, argv: list[str] | None) -> int:
        try:
            self.create_config()
            self.parse_core(argv)
            self.parse_collection()
            self.parse_tasks()
            self.parse_cleanup()
            self.update_config()
            self.execute()
        except ParseError as error:
            return self._failed(ExitCode.REFUSED, f"{error}{self._hint(str(error))}")
        except Exit as error:
            if error.message:
                print(error.message, file=sys.stderr)
            return int(error.code)
        except FleetdrvError as error:
            return self._failed(error.exit_code, str(error))
        except KeyboardInterrupt:
            return self._failed(ExitCode.INTERRUPTED, "interrupted")
        except BrokenPipeError:  # nobody reads the result, and what was not told was not done
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.STOPPED
        except Exception as error:
            self._failed(ExitCode.BUG, f"a bug: {type(error).__name__}: {error}")
            raise
        return ExitCode.DONE

    def _failed(self, code: ExitCode, text: str) -> int:
        """Say why on stderr, and in the one document that `--json` promises, whatever the ending."""
        text = hide(text)
        print(f"fleetdrv: {text}", file=sys.stderr)
        if "--json" in self.argv:
            from fleetdrv.report import document

            command = next((word for word in self.argv[1:] if word in namespace.tasks), "")
            print(document(command, code, errors=text.splitlines()))
        return int(code)

    def _hint(self, text: str) -> str:
        """Guess what a misspelt word was to be."""
        known = list(namespace.tasks)
        word = text.partition("No idea what '")[2].partition("'")[0]
        if word.startswith("-"):
            given = next((w for w in self.argv[1:] if w in known), "")
            known = list(self.parser.contexts[given].flags) if given else ["--help", "--version"]
        close = get_close_matches(word, known, 1)
        return (f" Did you mean {close[0]}?" if close else "") + f"\nSee: {self.binary} --help"


_ABOUT = (
    "Brings every node of a pool to the kernel drivers that a playbook names, a few nodes at a time, over SSH."
)
_EPILOGUE = """\
{binary} COMMAND --help tells the options of a command; --version and --print-completion-script bash|zsh|fish
are there, too. Exit codes: 0 done, 2 changes pending, 3 refused before anything was touched, 4 some node
failed, 5 stopped before the end, 130 interrupted, 1 a bug."""
_ORDER = [
    *("plan", "apply", "drift", "remediate", "rollback"),
    *("status", "pause", "resume", "abort", "hold", "release", "trust", "schedule", "lab"),
]

program = FleetProgram(
    name="fleetdrv",
    binary="fleetdrv",
    binary_names=["fleetdrv"],
    version=__version__,
    namespace=namespace,
)
