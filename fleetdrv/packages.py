"""Versions of Debian packages: which is newer, which a playbook's pattern means, which to take. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cmp_to_key

from fleetdrv.model import Candidate

_PARTS = re.compile(r"(\D*)(\d*)", re.ASCII)


def matches(pattern: str, version: str) -> bool:
    """Tell whether a pattern means a version: an exact one, or with `*` for any text.

    >>> matches("535.309.*", "535.309.01-1~deb12u1"), matches("1.2.2-2", "1.2.2-20")
    (True, False)
    """
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), version) is not None


def compare_versions(one: str, other: str) -> int:
    """Return -1, 0 or 1 as `one` is older than, equal to or newer than `other`, by dpkg's rules.

    Debian Policy 5.6.12: epoch as a number, then upstream version, then revision (absent is like 0).

    >>> compare_versions("1.0~rc1-1", "1.0-1"), compare_versions("1:0.9", "2.0"), compare_versions("1.0", "1.0-0")
    (-1, 1, 0)
    """
    mine, theirs = _split(one), _split(other)
    if mine[0] != theirs[0]:
        return _sign(mine[0] - theirs[0])
    return _compare_part(mine[1], theirs[1]) or _compare_part(mine[2], theirs[2])


newest_last = cmp_to_key(compare_versions)
"""Key for sorting versions, oldest first."""


def resolve(pattern: str, candidates: Iterable[Candidate]) -> Candidate | None:
    """Return the newest candidate that a pattern means; None where none does."""
    fitting = [candidate for candidate in candidates if matches(pattern, candidate.version)]
    return max(fitting, key=lambda candidate: newest_last(candidate.version), default=None)


def _split(version: str) -> tuple[int, str, str]:
    epoch, colon, rest = version.partition(":")
    upstream, dash, revision = (rest if colon else version).rpartition("-")
    return int(epoch) if colon else 0, upstream if dash else revision, revision if dash else ""


def _compare_part(one: str, other: str) -> int:
    """Compare text and number in turn; text ends before everything but a tilde."""
    mine, theirs = _PARTS.findall(one), _PARTS.findall(other)
    for index in range(max(len(mine), len(theirs))):
        text, number = mine[index] if index < len(mine) else ("", "")
        their_text, their_number = theirs[index] if index < len(theirs) else ("", "")
        order = _compare_text(text, their_text) or _sign(int(number or 0) - int(their_number or 0))
        if order:
            return order
    return 0


def _compare_text(one: str, other: str) -> int:
    for index in range(max(len(one), len(other))):
        order = _sign(_weight(one[index : index + 1]) - _weight(other[index : index + 1]))
        if order:
            return order
    return 0


def _weight(character: str) -> int:
    """A tilde comes before the end, the end before letters, letters before everything else."""
    if not character:
        return 0
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
