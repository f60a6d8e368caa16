"""What TAB offers: commands, options, nodes, pools, runs, playbooks. Imports little: a shell waits for it.

Names of nodes come from the inventory that the line names with -i, else from the one that a command used last,
whose names are kept in the user's cache folder, else from the last run's journal. An inventory that is a program
is never run for a TAB, and no cluster is asked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from fleetdrv.errors import FleetdrvError

if TYPE_CHECKING:
    from invoke.parser.context import ParserContext

    from fleetdrv.model import Host

SHELLS = ("bash", "zsh", "fish")
_MOST_POOLS = 20


def candidates(words: Sequence[str], contexts: Mapping[str, ParserContext], core: Iterable[str]) -> list[str]:
    """Return what the last word, which may be empty, can become; the first word is the program."""
    if len(words) == 1:
        words = words[0].split(" ")  # as Invoke's own scripts hand the line in
    before, current = [word for word in words[1:-1] if word != "="], words[-1].removeprefix("=")
    place = next((i for i, word in enumerate(before) if not word.startswith("-")), None)
    if place is None:
        if before[-1:] == ["--print-completion-script"]:
            return _fitting(SHELLS, current)
        return _fitting(core if current.startswith("-") else contexts, current)
    context = contexts.get(before[place])
    return [] if context is None else _of_command(context, before[place + 1 :], current)


def _of_command(context: ParserContext, before: Sequence[str], current: str) -> list[str]:
    flag, equals, part = current.partition("=")
    if equals and flag in context.flags:
        return [f"{flag}={value}" for value in _values(str(context.flags[flag].name), part, before)]
    if before and _takes_value(context, before[-1]):
        return _values(str(context.flags[before[-1]].name), current, before)
    if current.startswith("-"):
        own = {f"--{argument.name}" for argument in context.positional_args}
        return _fitting(filter(lambda flag: flag.startswith("--"), set(context.flag_names()) - own), current)
    pairs = zip(["", *before], before, strict=False)
    given = [word for last, word in pairs if not word.startswith("-") and not _takes_value(context, last)]
    open_ = context.positional_args[len(given) :]
    return _values(str(open_[0].name), current, before) if open_ else []


def _takes_value(context: ParserContext, word: str) -> bool:
    return word in context.flags and bool(context.flags[word].takes_value)


def _values(name: str, current: str, before: Sequence[str]) -> list[str]:
    offers: dict[str, Callable[[], Iterable[str]]] = {
        "node": lambda: _names(before).nodes,
        "pool": lambda: _names(before).pools,
        "run": _runs,
        "action": lambda: ("up", "status", "down"),
        "stop-after": lambda: ("canary",),
        "inventory": lambda: _files(current, ""),
        "output": lambda: _files(current, ".html"),
        "playbook": lambda: _files(current, ".yaml.yml"),
    }
    if name == "limit":  # a list: its last part is what TAB is about
        listed, comma, part = current.rpartition(",")
        bang = "!" if part.startswith("!") else ""
        names = _names(before)
        every = (*names.nodes, *names.groups)
        return _fitting((f"{listed}{comma}{bang}{one}" for one in every), current)
    offer = offers.get(name.replace("_", "-"))
    return _fitting(offer(), current) if offer else []


def _fitting(offered: Iterable[str], current: str) -> list[str]:
    return sorted({word for word in offered if word.startswith(current)})


def _files(current: str, endings: str) -> list[str]:
    """Return folders, and files that end so; hidden ones only if they are asked for."""
    folder, slash, part = current.rpartition("/")
    found = []
    with suppress(OSError):
        for entry in os.scandir(Path(f"{folder}{slash}").expanduser()):
            if entry.name.startswith(".") and not part.startswith("."):
                continue
            if entry.is_dir():
                found.append(f"{folder}{slash}{entry.name}/")
            elif not endings or entry.name.endswith(tuple(f".{end}" for end in endings.split(".") if end)):
                found.append(f"{folder}{slash}{entry.name}")
    return found


def _runs() -> list[str]:
    from fleetdrv import journals

    return [journals.LAST, *journals.runs()]


# ---- names of nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What can be named on a command line."""

    inventory: str = ""
    stamp: tuple[int, int] = (0, 0)
    """The inventory's time of change and size, when these were read."""
    nodes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    """Of this inventory and others, the latest last."""


def remember(inventory: str, hosts: Iterable[Host], pool: str = "") -> None:
    """Keep the names of the inventory that a command used. Best effort: nobody needs them to be there."""
    before, groups = _recall(), {host.name: host.groups for host in hosts}
    pools = [name for name in (*before.pools, pool) if name and name != pool] + ([pool] if pool else [])
    names = Names(
        inventory=os.path.abspath(inventory),
        stamp=_stamp(inventory),
        nodes=tuple(groups),
        groups=tuple(sorted(set().union(*groups.values()))),
        pools=tuple(pools[-_MOST_POOLS:]),
    )
    if names == before:
        return
    with suppress(OSError):
        path = _kept()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(asdict(names)), encoding="utf-8")
        fresh.replace(path)


def _names(before: Sequence[str]) -> Names:
    """Return the names for a line that begins with these words."""
    named = [word for last, word in pairwise(before) if last in ("-i", "--inventory")]
    named += [word.partition("=")[2] for word in before if word.startswith("--inventory=")]
    kept = _recall()
    if not named:
        return kept if kept.nodes else Names(nodes=_of_last_run(), pools=kept.pools)
    path = os.path.expanduser(named[-1])
    if (kept.inventory, kept.stamp) != (os.path.abspath(path), _stamp(path)):
        with suppress(FleetdrvError):
            _read(path, kept)
            kept = _recall()
    return kept


def _read(path: str, kept: Names) -> None:
    """Read an inventory that is not the one used last, unless it would have to be run for that."""
    from fleetdrv import inventory

    if os.path.isfile(path) and not os.access(path, os.X_OK):
        hosts = inventory.read(Path(path)).hosts.values()
        remember(path, hosts, kept.pools[-1] if kept.pools else "")


def _stamp(path: str) -> tuple[int, int]:
    try:
        about = os.stat(path)
    except OSError:
        return (0, 0)
    return (about.st_mtime_ns, about.st_size)


def _recall() -> Names:
    try:
        kept = json.loads(_kept().read_text(encoding="utf-8"))
        listed = {name: tuple(map(str, kept[name])) for name in ("nodes", "groups", "pools")}
        changed, size = kept["stamp"]
        return Names(inventory=str(kept["inventory"]), stamp=(int(changed), int(size)), **listed)
    except (OSError, ValueError, TypeError, LookupError):
        return Names()


def _of_last_run() -> tuple[str, ...]:
    from fleetdrv import journals

    with suppress(FleetdrvError):
        for run in journals.runs()[:1]:
            return tuple(dict.fromkeys(str(e["node"]) for e in journals.entries(run) if e.get("node")))
    return ()


def _kept() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("fleetdrv")) / "names.json"
