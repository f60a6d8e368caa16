"""How many nodes at once, where, when, when to stop, and how pods leave: this much of the playbook's schema."""

from __future__ import annotations

from datetime import UTC, tzinfo
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from fleetdrv import selectors
from fleetdrv.sources import Contradiction, Model

Percent = Annotated[str, StringConstraints(pattern=r"^(100|[1-9]?[0-9])%$")]
Share = Annotated[int, Field(ge=0)] | Percent
LabelKey = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9.-]{0,252}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")
]
Selector = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(selectors.checked)]
NamespaceName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$")]
LabelValue = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ClockTime = Annotated[str, StringConstraints(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]


def _positive(share: int | str) -> int | str:
    if share in (0, "0%"):
        raise ValueError("0 would never let a node start")
    return share


_AS_SCHEMA = [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^(100|[1-9][0-9]?)%$"}]
PositiveShare = Annotated[Share, AfterValidator(_positive), WithJsonSchema({"anyOf": _AS_SCHEMA})]


class PerTopology(Model):
    """A limit inside each failure domain: the nodes that share a value of a Node label, such as a zone.

    It holds in addition to the rollout's own `max_unavailable`. Nodes without the label form one domain.
    """

    label: LabelKey
    max_unavailable: PositiveShare = 1
    """Percentages are of the domain's nodes in the pool, rounded down, at least 1."""


class MaintenanceWindow(Model):
    """Hours in which nodes may be out of service. It bounds the end of an outage, not only its start.

    Wall-clock times of its time zone, whatever daylight saving time does; a clock time that comes twice means
    its first. A window that ends at or before its start ends on the next day.
    """

    days: Annotated[tuple[Day, ...], Field(min_length=1, max_length=7, strict=False)] = DAYS
    """Days on which it starts."""
    start: Annotated[ClockTime, Field(json_schema_extra={"not": {"const": "24:00"}})]
    end: ClockTime
    """`24:00` is the end of the day."""
    timezone: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9/_+-]{0,63}$")] = "UTC"
    """A name of the IANA database, as in `Europe/Berlin`."""

    @field_validator("timezone")
    @classmethod
    def _known(cls, timezone: str) -> str:
        zone(timezone)
        return timezone

    @model_validator(mode="after")
    def _has_a_length(self) -> MaintenanceWindow:
        if self.start == "24:00":
            raise Contradiction([(("start",), "start 24:00 is 00:00 of the next day; write it so")])
        if self.start == self.end:
            text = f"starts and ends at {self.start}; the whole day is 00:00 to 24:00"
            raise Contradiction([(("end",), text)])
        return self

    @property
    def seconds(self) -> int:
        """Return how long it is on a day on which no clock is changed."""
        return (_minutes(self.end) - _minutes(self.start)) % (24 * 60) * 60 or 86400


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


def zone(timezone: str) -> tzinfo:
    """Return a time zone by its IANA name. Raises ValueError.

    UTC needs no database: a slim container has none.
    """
    if timezone == "UTC":
        return UTC
    try:
        return ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"{timezone!r} is no time zone that this machine knows, as Europe/Berlin is (package tzdata)"
        ) from None


def _one_or_many(value: Any) -> str:
    return "tag-many" if isinstance(value, list | tuple) else "tag-one"


Windows = Annotated[
    Annotated[MaintenanceWindow, Tag("tag-one")]
    | Annotated[
        tuple[MaintenanceWindow, ...], Field(min_length=1, max_length=16, strict=False), Tag("tag-many")
    ],
    Discriminator(_one_or_many),
]


class Rollout(Model):
    """How many nodes at once, and when to stop. Percentages are of the pool, rounded down, at least 1."""

    canary: Annotated[int, Field(ge=0)] = 1
    soak_seconds: Annotated[int, Field(ge=0, le=86400)] = 0
    """How long a canary serves before a last look at it lets the others start."""
    max_unavailable: PositiveShare = 1
    max_unavailable_per: PerTopology | None = None
    max_parallel: Annotated[int, Field(ge=1)] = 10
    """Nodes in outage at once, however many may be out."""
    staging: Annotated[int, Field(ge=1)] | None = None
    """Nodes that stage (download, trial build) at once, while they serve; by default as many as `max_parallel`."""
    max_failures: Annotated[int, Field(ge=0)] = 0
    """Failures that the rollout survives: one more, and no further node starts."""
    max_unreachable: Share = "2%"
    foreign_outages: Literal["count", "ignore"] = "count"
    maintenance_window: Windows | None = None
    """One window or a list of them; without it, nodes may go out at any time.

    An outage starts only if it is expected to end before the window does. What is out already is brought to its
    end, and staging, which nobody notices, goes on. A run that has to wait for the next window ends with exit 5
    and says when that opens: an operator gets his answer, and cron comes again. It is gone on with then.
    """
    expected_seconds: Annotated[int, Field(ge=1, le=86400)] = 900
    """How long an outage is taken to last, for `maintenance_window`; where one of this run took longer, as long as
    that. At least `drain.timeout_seconds`, the longest `drain.wait_for` and five minutes for the driver, whatever
    is said here: 900 with a drain of ten minutes."""

    @model_validator(mode="after")
    def _an_outage_fits_a_window(self) -> Rollout:
        if self.windows and sum(window.seconds for window in self.windows) < self.expected_seconds:
            text = f"no maintenance window is as long as expected_seconds, {self.expected_seconds}"
            raise Contradiction([(("maintenance_window",), text)])
        return self

    def for_one_node(self) -> Rollout:
        """Return what of it holds for a node that somebody named: how many may be out, and where.

        Canaries, soaks, windows and budgets are for what nobody watches.
        """
        budgets = {"max_failures": 1, "max_unreachable": 1}
        return self.model_copy(update={"canary": 0, "soak_seconds": 0, "maintenance_window": None, **budgets})

    @property
    def windows(self) -> tuple[MaintenanceWindow, ...]:
        """Return the maintenance windows; none means any time."""
        window = self.maintenance_window
        return (window,) if isinstance(window, MaintenanceWindow) else window or ()


DRIVER_SECONDS = 300
"""What an outage takes beside its drain: the driver, and DaemonSets that come back."""


class PodFilter(Model):
    """Some of a node's pods."""

    selector: Selector
    """Label selector as the API reads it: `app=batch`, `tier in (a, b)`, `!gpu`."""
    namespace: NamespaceName = ""
    """Empty: every namespace."""


class WaitFor(PodFilter):
    """Pods that end by themselves, and how long that may take after the cordon."""

    timeout_seconds: Annotated[int, Field(ge=1, le=604800)] = 3600


class Operand(Model):
    """A Node label by which an operator keeps one of its DaemonSets, whatever it tolerates, off a node.

    NVIDIA's GPU operator has `nvidia.com/gpu.deploy.device-plugin` and its like, and its k8s-driver-manager
    writes `paused-for-driver-upgrade` there for the same purpose.
    """

    label: LabelKey
    off: LabelValue
    """Value while the node is out; the one before is put back ahead of the uncordon."""


class Drain(Model):
    """How pods leave a node before its driver is reloaded.

    The node is cordoned first, so that nothing new comes; then `wait_for` is waited for with everything else
    left running; only then are pods evicted. Waiting costs node-seconds of a node that takes no new pods, but
    a node that goes on taking jobs may never be without one. A wait that ends in its timeout puts the node back
    as it was found: nothing was evicted.
    """

    timeout_seconds: Annotated[int, Field(ge=1, le=86400)] = 600
    delete_emptydir_data: bool = False
    force: bool = False
    """Evict pods that no controller would create again."""
    grace_period_seconds: Annotated[int, Field(ge=0)] | None = None
    wait_for: Annotated[tuple[WaitFor, ...], Field(max_length=16, strict=False)] = ()
    skip: Annotated[tuple[PodFilter, ...], Field(max_length=16, strict=False)] = ()
    """Pods that the drain leaves alone. One that turns out to hold the driver's device stops the outage.

    To evict only some: skip the others, as in `selector: "uses-gpu!=true"`.
    """
    operands: Annotated[tuple[Operand, ...], Field(max_length=32, strict=False)] = ()
    """Labels that switch an operator's DaemonSets off this node while its driver is changed."""

    @property
    def longest_seconds(self) -> int:
        """Return how long a node may be cordoned before it is empty, or given up."""
        return self.timeout_seconds + max((pods.timeout_seconds for pods in self.wait_for), default=0)
