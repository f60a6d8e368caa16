"""Sets of names as clusters write them: `node[001-128]`, `gpu[1-9/2]`, `n[1-5,9]`; spelt out, and folded. Pure.

The syntax is ClusterShell's and Slurm's. ClusterShell itself is left out: its NodeSet folds in every dimension
(slow, see its issue 559), reads `@group` files and `*` of its own, and would be its own words for a wrong range;
what is needed here is less than its adapter would be.

Folding is by one number of a name, O(n log n): the last one before the first dot, so that
`ip-10-0-1-17.ec2.internal` folds by 17, and of `10.0.0.7` the last. Zero padding is kept: 9 and 09 are
different names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

MOST = 100_000
"""How many names one text may mean; more is a slip of the hand, and would be an hour of memory."""

_ITEM = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18})(?:/([1-9][0-9]{0,8}))?)?")
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_LAST_NUMBER = re.compile(r"(.*?)([0-9]{1,18})([^0-9]*)", re.DOTALL)


def fold(names: Iterable[str]) -> str:
    """Return the names as one short text, each once, in natural order; `expand` gives them back.

    A name that holds a comma, a bracket or a space stands as it is, and is not given back.

    >>> fold(["node021", "node003", "node017", "node018", "node019", "node020"])
    'node[003,017-021]'
    >>> fold(["n1", "n2", "n10", "n09", "login"])
    'login,n[1-2,09-10]'
    """
    shelves: dict[tuple[str, str], set[str]] = {}
    plain: set[str] = set()
    for name in names:
        parts = None if _needs_care(name) else _parts(name)
        if parts is None:
            plain.add(name)
        else:
            head, number, tail = parts
            shelves.setdefault((head, tail), set()).add(number)
    folded = [(natural(name), name) for name in plain]
    for (head, tail), numbers in shelves.items():
        runs = list(_runs(numbers))
        inside = ",".join(first if first == last else f"{first}-{last}" for first, last in runs)
        inside = inside if len(numbers) == 1 else f"[{inside}]"
        folded.append((natural(head + runs[0][0] + tail), head + inside + tail))
    return ",".join(text for _, text in sorted(folded))


def expand(text: str) -> list[str]:
    """Spell out a comma-separated set of names, in the order written, each once.

    Raises ValueError for brackets that are no range, for an empty one, and for more than `MOST` names.

    >>> expand("node[003,017-018],gpu[1-9/4]-ib")
    ['node003', 'node017', 'node018', 'gpu1-ib', 'gpu5-ib', 'gpu9-ib']
    >>> expand("r[1-2]n[01-02]")
    ['r1n01', 'r1n02', 'r2n01', 'r2n02']
    """
    found: dict[str, None] = {}
    for part in split(text):
        for name in expand_name(part):
            found[name] = None
            if len(found) > MOST:
                raise ValueError(f"{text[:60]}: means more than {MOST} names")
    return list(found)


def expand_name(text: str) -> list[str]:
    """Spell out one name with any number of `[…]` in it; raises ValueError as `expand` does."""
    names, place = [""], 0
    for found in _BRACKETS.finditer(text):
        words = _words(found[1], text)
        if len(names) * len(words) > MOST:
            raise ValueError(f"{text[:60]}: means more than {MOST} names")
        between = text[place : found.start()]
        _no_bracket(between, text)
        names = [name + between + word for name in names for word in words]
        place = found.end()
    _no_bracket(text[place:], text)
    return [name + text[place:] for name in names]


def split(text: str, separators: str = ",") -> list[str]:
    """Split at separators outside brackets; white space around a part, and empty parts, are dropped.

    >>> split("n[1,3], a ,,b"), split("gpu:&rack1,n[1:3]", ",:")
    (['n[1,3]', 'a', 'b'], ['gpu', '&rack1', 'n[1:3]'])
    """
    parts, depth = [""], 0
    for letter in text:
        depth = max(0, depth + (letter == "[") - (letter == "]"))
        if letter in separators and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def is_set(text: str) -> bool:
    """Tell whether each bracket of a name holds a NodeSet range, as against Ansible's `[1:3]` or a glob's `[ab]`.

    >>> is_set("n[1-3]"), is_set("n[1:3]"), is_set("n[ab]"), is_set("n1")
    (True, False, False, False)
    """
    inside = _BRACKETS.findall(text)
    return bool(inside) and all(_ITEM.fullmatch(item.strip()) for found in inside for item in found.split(","))


def natural(name: str) -> tuple[tuple[str, int, str], ...]:
    """Return a key that sorts names as people do: n2 before n10.

    >>> sorted(["n10", "n2", "m"], key=natural)
    ['m', 'n2', 'n10']
    """
    words = re.split(r"([0-9]+)", name)
    numbers = [(int(number) if len(number) <= 18 else 0, number) for number in words[1::2]] + [(-1, "")]
    return tuple((word, *number) for word, number in zip(words[::2], numbers, strict=True))


def _needs_care(name: str) -> bool:
    return any(letter in "[]," or letter.isspace() for letter in name)


def _parts(name: str) -> tuple[str, str, str] | None:
    """Return what stands before the number by which a name is folded, the number, and what stands after it."""
    label, dot, rest = name.partition(".")
    if not label.isdecimal() and (found := _LAST_NUMBER.fullmatch(label)):
        return found[1], found[2], found[3] + dot + rest
    found = _LAST_NUMBER.fullmatch(name)
    return (found[1], found[2], found[3]) if found else None


def _runs(numbers: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield first and last of what counts up by one. 10 belongs to 09 where there is one, else to 9."""
    padded = {len(number) for number in numbers if _is_padded(number)}
    ordered = sorted(numbers, key=lambda n: (len(n) if len(n) in padded else 0, int(n)))
    first = last = ordered[0]
    for number in ordered[1:]:
        if number != str(int(last) + 1).zfill(len(last)):
            yield first, last
            first = number
        last = number
    yield first, last


def _is_padded(number: str) -> bool:
    return len(number) > 1 and number.startswith("0")


def _words(text: str, whole: str) -> list[str]:
    words: list[str] = []
    for item in text.split(","):
        found = _ITEM.fullmatch(item.strip())
        if found is None:
            raise ValueError(f"{whole[:60]}: [{text[:40]}] is no range; write [1-9], [001-128], [1-9/2], [1-5,9]")
        first, last, step = found[1], found[2] or found[1], int(found[3] or 1)
        if int(first) > int(last):
            raise ValueError(f"{whole[:60]}: [{text[:40]}] counts down")
        if len(first) != len(last) and (_is_padded(first) or _is_padded(last)):
            raise ValueError(f"{whole[:60]}: [{text[:40]}]: both ends must have the same width")
        if (int(last) - int(first)) // step + len(words) >= MOST:
            raise ValueError(f"{whole[:60]}: means more than {MOST} names")
        words += [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1, step)]
    return words


def _no_bracket(text: str, whole: str) -> None:
    if "[" in text or "]" in text:
        raise ValueError(f"{whole[:60]}: a bracket stands alone")
