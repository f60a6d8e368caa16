"""A Node whose turns are told as Events on it, best effort: no act waits for one, none fails with one.

An Event is written right after its act, the result right before the uncordon. A controller that is killed in
between and goes on writes it then; where nothing is left to go on with (right after the uncordon) it is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from fleetdrv import notices
from fleetdrv.alone import LoneHost
from fleetdrv.attempts import Counting
from fleetdrv.cluster import Cluster
from fleetdrv.errors import ClusterError, Conflict, FleetdrvError, Forbidden
from fleetdrv.events import Event, Level, Say
from fleetdrv.load import Loaded
from fleetdrv.model import Host
from fleetdrv.notices import Notice
from fleetdrv.proc import this_process
from fleetdrv.records import Result
from fleetdrv.service import Check, KubernetesNode, Service
from fleetdrv.standing import Standing
from fleetdrv.timing import stamp


@dataclass(slots=True)
class Herald:
    """Writes Events for all nodes of a run. What goes wrong is told once; without the right to, it is given up."""

    cluster: Cluster
    say: Say
    _told: bool = False
    _off: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, node: str, notice: Notice) -> None:
        """Write one Event, unless it is there."""
        if self._off:
            return
        try:
            self.cluster.record_event(
                node, notice.reason, notice.message, key=notice.key, warning=notice.warning
            )
        except Conflict:
            return  # an earlier controller told it
        except ClusterError as error:
            self._amiss(error)

    def _amiss(self, error: ClusterError) -> None:
        rule = "; grant what docs/clusterrole.yaml says" if isinstance(error, Forbidden) else ""
        with self._lock:
            told, self._told = self._told, True
            self._off = self._off or isinstance(error, Forbidden)
        if not told:
            text = f"Events on Nodes are not written: {error}{rule}; all else goes on"
            self.say(Event(node="", phase="events", text=text, level=Level.WARNING))


@dataclass(frozen=True, kw_only=True)
class AnnouncedNode(KubernetesNode):
    """A KubernetesNode that tells what befalls it."""

    herald: Herald

    def take_out(self, run: str, why: str, still_allowed: Check = lambda: None) -> None:
        """As KubernetesNode."""
        super().take_out(run, why, still_allowed)
        self._tell(notices.cordoned(run, self.reason or why, self._since()))

    def give_back(self, run: str, result: Result, drivers: Mapping[str, str]) -> None:
        """As KubernetesNode."""
        since = self._since()
        if since:  # else it is back, or its Node cannot be read
            self._tell(notices.ended(result, since, drivers))
        super().give_back(run, result, drivers)
        if since:
            self._tell(notices.uncordoned(run, since, self.clock()))

    def leave_out(self, run: str, result: Result) -> None:
        """As KubernetesNode."""
        super().leave_out(run, result)
        self._tell(notices.ended(result, self._since()))

    def let_go(self, result: Result) -> None:
        """As KubernetesNode."""
        since = self._since()
        super().let_go(result)
        self._tell(notices.ended(result, since))

    def note(self, result: Result) -> None:
        """As KubernetesNode; told only where it is news to the Node, too: cron comes every few minutes."""
        seen = self._seen()
        super().note(result)
        if seen is not None and self.counting.note(seen.last, result) is not None:
            self._tell(notices.ended(result))

    def tell(self, result: Result) -> None:
        """As an Event."""
        self._tell(notices.ended(result))

    def _since(self) -> str:
        seen = self._seen()
        return seen.since if seen else ""

    def _seen(self) -> Standing | None:
        try:
            return self.standing()
        except FleetdrvError:  # the act itself tells
            return None

    def _tell(self, notice: Notice | None) -> None:
        if notice is not None:
            self.herald.tell(self.node, notice)


def service_of(
    host: Host,
    herald: Herald | None,
    loaded: Loaded,
    counting: Counting,
    reason: str,
    kind: type[AnnouncedNode] = AnnouncedNode,
) -> Service:
    """Return a host's place in the cluster, or what stands for it without one."""
    if herald is None:
        return LoneHost(host.node_name)
    return kind(
        herald=herald,
        cluster=herald.cluster,
        node=host.node_name,
        pool=loaded.playbook.pool_name,
        holder=str(this_process()),
        policy=loaded.playbook.drain,
        counting=counting,
        reason=reason,
        drivers=tuple(driver.name for driver in loaded.playbook.drivers),
        clock=stamp,
    )
