"""Hooks: the operator's own programs around a run and around each node's outage. What a playbook may say of them.

They run on the machine where fleetdrv runs, never on a node, in the playbook's folder, without a shell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints

from fleetdrv.sources import Model

Argument = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,1024}$")]
When: TypeAlias = Literal["before_run", "after_run", "before_node", "after_node"]

_LONGEST_VALUE = 2000
"""Of an environment variable: a kernel takes 128 KiB for one, an operator reads a line."""


class Hook(Model):
    """One program. Its stdin is empty, its output is told as the run's events, its last line is the reason.

    Variables in its environment, beside fleetdrv's own: FLEETDRV_HOOK (before_run, …), FLEETDRV_RUN,
    FLEETDRV_POOL, FLEETDRV_PLAYBOOK (its name). Around a node: FLEETDRV_NODE (of the cluster), FLEETDRV_HOST
    (of the inventory), FLEETDRV_REASON. After a node: FLEETDRV_VERDICT, FLEETDRV_SECONDS_OUT. After a run:
    FLEETDRV_CHANGED and FLEETDRV_FAILED (numbers of nodes), FLEETDRV_STOPPED (why it ended early, or empty).
    """

    command: Annotated[tuple[Argument, ...], Field(min_length=1, max_length=64, strict=False)]
    """Program and arguments; a path with a slash is seen from the playbook's folder."""
    timeout_seconds: Annotated[int, Field(ge=1, le=86400)] = 300
    """After that it is killed with all that it started, which counts as a failure."""


HookList = Annotated[tuple[Hook, ...], Field(max_length=16, strict=False)]


class Hooks(Model):
    """What is called, in order, and when. The first of a `before` list that fails is a veto, and ends it.

    `before_run`: once the pool is locked, before any node starts; a veto ends the run with exit code 5 and
    nothing touched. `before_node`: after staging and admission, before the cordon; a veto leaves this node as
    it is, *blocked*. It may take minutes, so everything is looked at again after it.
    `after_node`: when the node's turn has ended in this process; its slot is given away after that.
    `after_run`: when the run has ended or stopped in this process. These two cannot veto, and are called only
    where all hooks of the `before` list agreed.

    A controller that takes over from one that was killed calls `before_run` again, and `before_node` for nodes
    that were not cordoned yet. What was killed never gets its `after_…`, unless a later controller brings the
    node to its end: `after_node` is called then. So hooks must bear to be called twice.
    """

    before_run: HookList = ()
    after_run: HookList = ()
    before_node: HookList = ()
    after_node: HookList = ()

    def of(self, when: When) -> tuple[Hook, ...]:
        """Return the hooks of one occasion."""
        hooks: tuple[Hook, ...] = getattr(self, when)
        return hooks


def environment(when: When, **values: object) -> Mapping[str, str]:
    """Return a hook's own variables; a value is one line of bounded length.

    >>> environment("after_node", node="n1", verdict="changed")
    {'FLEETDRV_HOOK': 'after_node', 'FLEETDRV_NODE': 'n1', 'FLEETDRV_VERDICT': 'changed'}
    """
    said = {"hook": when, **values}
    return {f"FLEETDRV_{name.upper()}": _one_line(str(value)) for name, value in said.items()}


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:_LONGEST_VALUE]
