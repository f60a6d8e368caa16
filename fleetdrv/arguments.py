"""The words of a command line, held against what the command takes, before Invoke reads them. Pure.

Invoke reads on after what cannot be meant: a second command's words, what stands behind `--`, an option's value
that is another option. What it refuses, it names in its own words, without the usage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext, to_flag


def usage(binary: str, command: ParserContext, *, may_be_missing: bool = False) -> str:
    """Return how a command is called."""
    names = [f"[{name}]" if may_be_missing else name for name in map(_called, command.positional_args)]
    return " ".join(["Usage:", binary, str(command.name), *names, "[options]"])


def _called(positional: Argument) -> str:
    return str(positional.name).upper()


def _flag(argument: Argument) -> str:
    return to_flag(str(argument.name))


_NO_OPTION = "no option "


@dataclass(slots=True)
class Words:
    """The words behind a command, taken apart."""

    positional: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    """Options that were given, by their long names."""
    faults: list[str] = field(default_factory=list)
    """Everything that is wrong with them."""


def read(words: Sequence[str], command: ParserContext, *, may_be_missing: bool = False) -> Words:
    """Take the words behind a command apart. `may_be_missing`: the positional argument, too."""
    found, rest = Words(), list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            found.faults.append("-- means nothing here")
        elif word.startswith("-") and word != "-":
            found.faults += _option(word, rest, command, found.flags)
        else:
            found.positional.append(word)
    names = [_called(each) for each in command.positional_args if _flag(each) not in found.flags]
    given = dict(zip(names, found.positional, strict=False))
    found.faults += [f"{name} is empty" for name, word in given.items() if not word.strip()]
    if not may_be_missing:
        found.faults += [f"{name} is missing" for name in names[len(given) :]]
    if not any(fault.startswith(_NO_OPTION) for fault in found.faults):  # whose value it may be
        found.faults += [f"{word!r} is one word too many" for word in found.positional[len(given) :]]
    return found


def _option(word: str, rest: list[str], command: ParserContext, given: list[str]) -> Iterator[str]:
    """Yield what is wrong with one option; takes its value from the rest, and puts joined letters back."""
    flag, joint, value = _split(word, command)
    if flag not in command.flags:  # its `get` does not know short names
        yield _unknown(flag, command)
        return
    argument = command.flags[flag]
    name = _flag(argument)
    if name in given and argument.kind is not list:
        yield f"{name} is given twice"
    given.append(name)
    if argument.takes_value:
        yield from _value(name, argument, value if joint else _next(rest))
    elif joint == "=":
        yield f"{name} takes no value, found {value!r}"
    elif value:
        rest.insert(0, f"-{value}")


def _split(word: str, command: ParserContext) -> tuple[str, str, str]:
    """Take `--flag=value`, `-f=value`, `-fvalue` and `-fgh` apart: flag, what joins it to the rest, rest."""
    flag, equals, value = word.partition("=")
    if word.startswith("--") or len(flag) == 2:
        return flag, equals, value
    return (word[:2], "joined", word[2:]) if word[:2] in command.flags else (word, "", "")


def _next(rest: list[str]) -> str | None:
    """Take an option's value from the words behind it, unless they begin with another option."""
    return rest.pop(0) if rest and (rest[0] == "-" or not rest[0].startswith("-")) else None


def _value(name: str, argument: Argument, value: str | None) -> Iterator[str]:
    if value is None:
        yield f"{name} needs a value; one that begins with a minus is written {name}=-…"
    elif not value.strip():
        yield f"{name} is empty"
    elif argument.kind is int and not (value.removeprefix("-").isascii() and value.removeprefix("-").isdigit()):
        yield f"{name} takes a whole number, found {value!r}"
    elif argument.kind is int and len(value) > 9:
        yield f"{name} takes a number of at most nine digits, found {value!r:.40}"


def _unknown(flag: str, command: ParserContext) -> str:
    long = [name for name in command.flags if name.startswith("--")]
    close = get_close_matches(flag.replace("_", "-"), [*long, "--help"], 1, 0.7)
    return f"{_NO_OPTION}{flag!r}" + (f"; did you mean {close[0]}?" if close else "")
