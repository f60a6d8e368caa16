"""Text that fits: spans of time, what machines say without control characters, cutting to a width. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar
from unicodedata import combining, east_asian_width

Key = TypeVar("Key", bound=Hashable)


class Tone(StrEnum):
    """How a line is meant, as a style of rich; the terminal says what it can do."""

    PLAIN = ""
    HEAD = "bold"
    FAINT = "dim"
    WARNING = "yellow"
    BAD = "red"


@dataclass(frozen=True, slots=True)
class Row:
    """One line on a terminal."""

    text: str
    tone: Tone = Tone.PLAIN


def span(seconds: float) -> str:
    """Say how long something takes.

    >>> span(59.6), span(754), span(7500)
    ('60 s', '12 min 34 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def plural(number: int, word: str) -> str:
    """Count something.

    >>> plural(1, "node"), plural(3, "node")
    ('1 node', '3 nodes')
    """
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def shown(text: str) -> str:
    """Return a text on one line without anything that moves a cursor or changes a colour.

    >>> shown("a\\x1b[31mred\\n  b")
    'a?[31mred b'
    """
    return clean(" ".join(text.split()))


def clean(text: str) -> str:
    """Return a text without anything that moves a cursor or changes a colour, but for the ends of its lines.

    >>> clean("a\\tb\\r\\n\\x1b]0;title")
    'a    b\\n?]0;title'
    """
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    return "".join(c if c == "\n" or (c.isprintable() and not combining(c)) else "?" for c in text)


def cells(text: str) -> int:
    """Return how many columns a terminal gives to what `shown` returned."""
    return sum(1 + (east_asian_width(c) in "WF") for c in text)


def cut(text: str, width: int) -> str:
    """Return a text that fits a width, with a mark where something is missing.

    >>> cut("waits for a slot", 9)
    'waits fo…'
    """
    if cells(text) <= width:
        return text
    taken = 0
    for place, character in enumerate(text):
        taken += cells(character)
        if taken > width - 1:
            return f"{text[:place]}…"
    return text


def middle(text: str, width: int) -> str:
    """Return a name that fits a width; names differ at their ends, so the middle goes.

    >>> middle("ip-10-0-0-17.eu-central-1", 12)
    'ip-10…tral-1'
    """
    if cells(text) <= width:
        return text
    tail = text[len(text) - width // 2 :]
    return cut(text, max(1, width - cells(tail))) + tail if width > 2 else cut(text, width)


def flow(parts: Iterable[str], width: int) -> list[str]:
    """Set parts into as few lines as hold them; a part is cut only where it alone is too wide.

    >>> flow(["8 out", "2 failed", "9 to go"], 18)
    ['8 out · 2 failed', '9 to go']
    """
    lines: list[str] = []
    for part in parts:
        if lines and cells(lines[-1]) + 3 + cells(part) <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(cut(part, width))
    return lines


def alike(results: Mapping[str, Key]) -> list[tuple[Key, list[str]]]:
    """Return each result with the names of all that have it, in the order of their first.

    >>> alike({"n1": "fine", "n2": "late", "n3": "fine"})
    [('fine', ['n1', 'n3']), ('late', ['n2'])]
    """
    groups: dict[Key, list[str]] = {}
    for name, result in results.items():
        groups.setdefault(result, []).append(name)
    return list(groups.items())
