"""The program: Invoke's, with fleetdrv's exit codes and without Invoke's flags for running local commands."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from importlib import resources
from typing import Any

from invoke.exceptions import Exit, ParseError
from invoke.parser.context import ParserContext
from invoke.program import Program

from fleetdrv import __version__, arguments, completing
from fleetdrv.errors import MEANINGS, ExitCode, FleetdrvError, InputError
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
_POSITIONAL_MAY_BE_MISSING = ("status",)


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

    def parse_core(self, argv: list[str] | None) -> None:
        """Parse what stands before the command; print a shell's completion script where that is asked."""
        self.normalize_argv(argv)
        flag, _, shell = " ".join(self.argv[1:3]).replace("=", " ").partition(" ")
        if flag == "--print-completion-script" and shell in completing.SHELLS:
            print(resources.files("fleetdrv").joinpath("completion", shell).read_text(encoding="utf-8"), end="")
            raise Exit
        super().parse_core(argv)

    def parse_cleanup(self) -> None:
        """Offer words for the shell's TAB, or do what Invoke does before a command begins."""
        if self.args.complete.value:
            contexts = {str(context.name): context for context in self.collection.to_contexts()}
            words = self.argv[self.argv.index("--") + 1 :] if "--" in self.argv else [""]
            core = [f"--{argument.name}" for argument in self.core_args()]
            print("\n".join(completing.candidates(words, contexts, core)))
            raise Exit
        super().parse_cleanup()

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
        print(self._usage(self.parser.contexts[name]) + "\n")
        print(
            "\n".join(line.strip() for line in (self.collection[name].__doc__ or "").strip().splitlines())
            + "\n"
        )
        print("Options:\n")
        self.print_columns(self.parser.contexts[name].help_tuples())

    def normalize_argv(self, argv: list[str] | None) -> None:
        """Refuse words that cannot be meant, and make two things work for which Invoke knows no way.

        `COMMAND --help` (Invoke takes --help for the missing positional), and POOL of `status` left out.
        """
        super().normalize_argv(argv)
        binary, *words = self.argv
        command, *rest = words or [""]
        if command in namespace.tasks and {"--help", "-h"} & set(rest):
            self.argv = [binary, "--help", command]
        elif command in namespace.tasks:
            words = self._checked(command, rest).positional
            if command in _POSITIONAL_MAY_BE_MISSING and not words:
                self.argv = [binary, command, "", *rest]
        elif command and not command.startswith("-"):
            close = get_close_matches(command, [*namespace.tasks, "--help"], 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(f"no command {command!r}{hint}\nUsage: {self.binary} COMMAND [options]{self._see()}")

    def _checked(self, command: str, words: list[str]) -> arguments.Words:
        """Take a command's words apart. Raises InputError with all that is wrong and how it is called."""
        context = next(each for each in namespace.to_contexts() if each.name == command)
        found = arguments.read(words, context, may_be_missing=command in _POSITIONAL_MAY_BE_MISSING)
        if found.faults:
            told = "\n".join(f"{command}: {fault}" for fault in found.faults)
            raise InputError(f"{told}\n{self._usage(context)}{self._see(command)}")
        return found

    def _usage(self, context: ParserContext) -> str:
        return arguments.usage(self.binary, context, may_be_missing=context.name in _POSITIONAL_MAY_BE_MISSING)

    def _see(self, *command: str) -> str:
        return f"\nSee: {' '.join((self.binary, *command))} --help"

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
        text = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in hide(text))  # for terminals
        print(f"fleetdrv: {text}", file=sys.stderr)
        if "--json" in self.argv:
            from fleetdrv.report import document

            command = next((word for word in self.argv[1:] if word in namespace.tasks), "")
            print(document(command, code, errors=text.splitlines()))
        return int(code)

    def _hint(self, text: str) -> str:
        """Guess what a misspelt word before the command was to be."""
        word = text.partition("No idea what '")[2].partition("'")[0]
        if any(word in command.flags for command in namespace.to_contexts()):
            hint = f" {word} stands behind the command."
        else:
            close = get_close_matches(word, ["--help", "--version", "--print-completion-script"], 1)
            hint = f" Did you mean {close[0]}?" if close else ""
        return f"{hint}\nUsage: {self.binary} COMMAND [options]{self._see()}"


_ABOUT = (
    "Brings every node of a pool to the kernel drivers that a playbook names, a few nodes at a time, over SSH."
)
"""What the program is for, in one sentence."""
_EPILOGUE = (
    "{binary} COMMAND --help tells the options of a command; --version and\n"
    "--print-completion-script bash|zsh|fish are there, too. Exit codes:\n"
) + "\n".join(f"  {int(code):>3}  {text}" for code, text in MEANINGS.items())
_ORDER = [
    *("plan", "apply", "drift", "remediate", "repair", "rollback"),
    *("inventory", "trust", "status", "pause", "resume", "abort", "hold", "release"),
    *("diagnose", "logs", "report", "attach", "schedule", "lab"),
]
"""Commands as the help and the manual list them."""

program = FleetProgram(
    name="fleetdrv",
    binary="fleetdrv",
    binary_names=["fleetdrv"],
    version=__version__,
    namespace=namespace,
)
