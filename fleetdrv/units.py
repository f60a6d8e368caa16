"""Names of systemd units that a playbook may have stopped. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

_TYPES = (".service", ".socket", ".timer", ".path")
_NEVER_STOPPED = frozenset({"ssh", "sshd", "kubelet", "containerd", "crio", "docker", "dbus", "systemd-networkd"})


def unit(name: str) -> str:
    """Return a unit's full name. Raises ValueError for one that a node is reached or served by.

    >>> unit("nvidia-persistenced")
    'nvidia-persistenced.service'
    """
    full = name if name.endswith(_TYPES) else f"{name}.service"
    if full.partition(".")[0] in _NEVER_STOPPED:
        raise ValueError(f"{full} is what a node is reached and served by; it is never stopped")
    return full


UnitName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9:_.@-]{0,120}$"),
    AfterValidator(unit),
    Field(json_schema_extra={"not": {"pattern": rf"^({'|'.join(sorted(_NEVER_STOPPED))})(\.|$)"}}),
]
"""A unit of systemd; `.service` may be left out."""
