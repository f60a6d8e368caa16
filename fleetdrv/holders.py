"""Who keeps a module in use, as scripts/holders.sh tells it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleetdrv.parse import ProbeError

_BEGIN = "fleetdrv-holders\t1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """One process that has a device of a module open or mapped."""

    module: str
    pid: int
    command: str
    device: str
    pod: str = ""
    """UID of its pod; empty for a process of the host."""
    container: str = ""
    """The container runtime's id."""
    unit: str = ""
    """Its systemd service, where it has one."""


def holders(text: str) -> tuple[Holder, ...]:
    """Read the records of holders.sh; raise ProbeError when they are not whole: silence is not "nobody"."""
    lines = text.split("\n")
    if lines[0] != _BEGIN or lines[-2:] != ["end", ""]:
        raise ProbeError(f"the list of a module's users was cut short: {text[-80:]!r}")
    return tuple(filter(None, map(_holder, lines[1:-2])))


def _holder(line: str) -> Holder | None:
    match line.split("\t"):
        case ["dependent", _, _]:
            return None  # the plan unloads those first, or was refused
        case ["process", module, pid, command, device, pod, container, unit] if pid.isdecimal():
            return Holder(
                module=module,
                pid=int(pid),
                command=command,
                device=device,
                pod=pod,
                container=container,
                unit=unit,
            )
    raise ProbeError(f"the list of a module's users says {line[:120]!r}: no such record")


def told(users: Iterable[Holder], occupants: Mapping[str, str]) -> str:
    """Say who must let go; `occupants` names pods by UID.

    >>> told([Holder(module="toy", pid=7, command="cat", device="/dev/toy", pod="u1")], {"u1": "a/b of Job c"})
    'toy: process 7 (cat) has /dev/toy open, in pod a/b of Job c (u1)'
    """
    return "; ".join(_said(user, occupants) for user in users)


def with_owners(text: str, occupants: Mapping[str, str]) -> str:
    """Name the pods that a node program could only name by UID, where `occupants` knows them.

    >>> with_owners("process 7 (cat) of pod u1 container c9", {"u1": "a/b of Job c"})
    'process 7 (cat) of pod a/b of Job c (u1) container c9'
    """
    return re.sub(r"\bof pod ([\w-]+)", lambda found: f"of pod {_pod(found[1], occupants)}", text)


def _pod(uid: str, occupants: Mapping[str, str]) -> str:
    name = occupants.get(uid)
    return f"{name} ({uid})" if name else uid


def _said(user: Holder, occupants: Mapping[str, str]) -> str:
    place = ""
    if user.pod:
        place = f", in pod {_pod(user.pod, occupants)}"
        place += f" container {user.container[:12]}" if user.container else ""
    elif user.unit:
        place = f", in {user.unit}"
    return f"{user.module}: process {user.pid} ({user.command}) has {user.device} open{place}"
