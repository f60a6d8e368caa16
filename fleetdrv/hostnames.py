"""A host as an inventory writes it: `gpu-[01:32].example:2222`, `node[001-128]`, `[fe80::1]:22`. Pure.

Ansible's ranges and ports are read as Ansible reads them (parsing/utils/addresses.py, plugins/inventory). A range
that it would refuse, without a colon, is read as ClusterShell and Slurm do.
"""

from __future__ import annotations

import re
from string import ascii_letters

from fleetdrv import nodeset

_BRACKETED = re.compile(r"\[(.+)\]:([0-9]{1,9})")
_WITH_PORT = re.compile(r"((?:[^:\[\]]|\[[^\]]*\])+):([0-9]{1,9})")
_UNFIT = re.compile(r"[\s,\x00-\x1f\x7f\u200b-\u200f\u2028-\u202e\ufeff]")
_RANGES = re.compile(r"\[[^\[\]]*\]")
_NUMBER = re.compile("[0-9]{1,9}")


def expand(text: str) -> tuple[list[str], int | None]:
    """Return the hosts that are meant, and the port that is written behind them.

    Raises ValueError for brackets that are no range, and for what can be no host.

    >>> expand("n[08:10]:2222"), expand("gpu[1-2]"), expand("[::1]:22"), expand("fe80::1")
    ((['n08', 'n09', 'n10'], 2222), (['gpu1', 'gpu2'], None), (['::1'], 22), (['fe80::1'], None))
    """
    found = _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text)
    name, port = (found[1], int(found[2])) if found else (text, None)
    hosts = nodeset.expand_name(name, _words)
    if not name or _UNFIT.search(_RANGES.sub("", name)) or name.startswith("-") or name == "---":
        raise ValueError(f"{name!r:.60} is no name of a host")
    if name.endswith(":") and not name.endswith("::"):
        raise ValueError("a port must follow the colon")
    return hosts, port


def _words(inside: str) -> list[str]:
    return ansible_range(inside) if ":" in inside else nodeset.words(inside)


def ansible_range(text: str) -> list[str]:
    """Spell out one of Ansible's ranges, without its brackets; raises ValueError for what is none.

    The end counts; leading zeros set the width.

    >>> ansible_range("08:10"), ansible_range("a:e:2")
    (['08', '09', '10'], ['a', 'c', 'e'])
    """
    begin, end, step, *more = [*text.split(":"), "1"] if text.count(":") == 1 else [*text.split(":"), "", ""]
    begin = begin or "0"
    if any(more) or not re.fullmatch("[1-9][0-9]{0,5}", step):
        raise ValueError(f"[{text[:40]}] is no range; a range is [BEGIN:END] or [BEGIN:END:STEP]")
    if _NUMBER.fullmatch(begin) and _NUMBER.fullmatch(end):
        width = len(begin) if len(begin) > 1 and begin.startswith("0") else 0
        if width and len(end) != width:
            raise ValueError(f"[{text}]: both ends must have the same width")
        numbers = range(int(begin), int(end) + 1, int(step))
        if len(numbers) > nodeset.MOST:
            raise ValueError(f"[{text}] means more than {nodeset.MOST} names")
        words = [f"{number:0{width}d}" for number in numbers]
    elif re.fullmatch("[a-zA-Z]", begin) and re.fullmatch("[a-zA-Z]", end):
        first, last = ascii_letters.index(begin), ascii_letters.index(end)
        words = list(ascii_letters[first : last + 1 : int(step)])
    else:
        raise ValueError(f"[{text[:40]}] is no range; a range is [BEGIN:END] or [BEGIN:END:STEP]")
    if not words:
        raise ValueError(f"[{text}] is empty")
    return words
