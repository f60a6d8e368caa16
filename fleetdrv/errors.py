"""What may go wrong, sorted by "what next?". Every message says who, doing what, why, and what to type.

The classes answer one question: may the same act be tried again? `Transient` yes, `Permanent` no.
An error that reaches the command line carries its exit code, so one `except` there is enough.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The command line's contract (design page); `worst` applies its precedence."""

    DONE = 0
    BUG = 1
    CHANGES = 2
    REFUSED = 3
    FAILED = 4
    STOPPED = 5
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.DONE: "converged or done; nodes that others cordoned were skipped and listed",
    ExitCode.CHANGES: "changes pending (plan), drift (drift)",
    ExitCode.REFUSED: "refused before anything was touched, arguments included",
    ExitCode.FAILED: "some node failed, was incompatible or unreachable",
    ExitCode.STOPPED: "stopped before the end: budget, window, lock, blocker, pause, --stop-after canary",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.BUG: "a bug",
}
"""What each exit code says, as the manual lists them. Where several are due, see `worst`."""

_PRECEDENCE = (130, 1, 3, 5, 4, 2, 0)


def worst(*codes: ExitCode) -> ExitCode:
    """Return the code that wins when several endings meet.

    >>> worst(ExitCode.DONE, ExitCode.FAILED, ExitCode.STOPPED)
    <ExitCode.STOPPED: 5>
    """
    return min(codes, key=lambda code: _PRECEDENCE.index(code), default=ExitCode.DONE)


class FleetdrvError(Exception):
    """Base of everything that fleetdrv raises on purpose; shown without a traceback."""

    exit_code = ExitCode.FAILED


class InputError(FleetdrvError):
    """A file, an argument or the environment is wrong; nothing was touched."""

    exit_code = ExitCode.REFUSED


class Refused(FleetdrvError):
    """The world is not as it must be before the first write; nothing was touched."""

    exit_code = ExitCode.REFUSED


class NodeRefused(Refused):
    """So for one node alone: nothing was touched there, and the others may go on."""


class Gone(NodeRefused):
    """The cluster has no such Node, or has it no more."""


class Stopped(FleetdrvError):
    """Ended before the end on purpose: paused, aborted, lock lost, budget spent."""

    exit_code = ExitCode.STOPPED


class WayGone(Stopped):
    """The way to the nodes is gone, for longer than it is waited for; the same run goes on another time."""


class Taken(Stopped):
    """The pool is another controller's for now."""


class NodeError(FleetdrvError):
    """One node, one step, one cause.

    `remedy` is the next command to type or the thing to mend; it is printed on a line of its own.
    """

    def __init__(self, node: str, step: str, cause: str, *, evidence: str = "", remedy: str = "") -> None:
        super().__init__(f"{node}: {step}: {cause}")
        self.node, self.step, self.cause = node, step, cause
        self.evidence, self.remedy = evidence, remedy


class Transient(NodeError):
    """The same act may well succeed later."""


class Permanent(NodeError):
    """Trying the same act again cannot help until something is changed."""


class HandsOff(Permanent):
    """No further step may be taken on the node. The next look says what becomes of it."""


class NotOurs(HandsOff):
    """The node changed hands under way; nothing more may be done to it."""


class OnHold(HandsOff):
    """Somebody put a hold on the node under way."""


class Unreachable(Transient):
    """No SSH session could be had: refused, timed out, dropped before log-in."""


class WayLost(Unreachable):
    """Not the node: the jump host that nodes were reached through does not answer any more."""


class LinkLost(Transient):
    """The link died after a command was sent: its fate is unknown, never "failed"."""


class ClusterError(FleetdrvError):
    """The cluster's API gave no usable answer."""


class ClusterAway(ClusterError):
    """No answer at all: timed out, refused, throttled beyond patience. Worth another try."""


class NotFound(ClusterError):
    """The object is not there."""


class Forbidden(ClusterError):
    """Credentials are missing, expired or too weak; the message names the verb and resource."""


class Conflict(ClusterError):
    """Somebody changed the object since it was read (409): read again and decide again."""
