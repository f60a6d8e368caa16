"""A Node that somebody named on purpose, for `fleetdrv repair`: also one that a rollout passes by.

A cordon that was there before ours is worked under and left as it is found (`Cordon.was_unschedulable`). A Node
that is not Ready is repaired as it is, and given back only once it is Ready; nobody would confirm there that a
pod has gone, so none is evicted, and whoever still has the device open stops the outage, by name.

Identity: a machine whose kubelet is dead has a Node that tells of the boot before. There its machine id alone
counts, as long as no other Node of the cluster has the same one: a clone must not be taken for its original.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from fleetdrv import ownership
from fleetdrv.announce import AnnouncedNode
from fleetdrv.errors import NodeRefused, Permanent, Transient
from fleetdrv.ownership import Kind, Object
from fleetdrv.records import Result
from fleetdrv.service import Check, Tell
from fleetdrv.standing import Standing
from fleetdrv.turn import Grip

READY_SECONDS = 300.0
"""How long a repaired node may take to be Ready: a kubelet reports each 10 s, and may just have been started."""

_POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class NamedNode(AnnouncedNode):
    """One Node, whoever has cordoned it, Ready or not."""

    takes: Collection[Kind] = (Kind.FREE, Kind.FOREIGN)
    _proven: set[str] = field(default_factory=set)
    """Machine ids that no other Node has."""

    def standing(self) -> Standing:
        """As KubernetesNode; a cordon of somebody else's is no reason to pass the node by."""
        seen = super().standing()
        if seen.grip is Grip.FOREIGN and not seen.run:  # with a run, it is out for another pool
            seen = replace(seen, grip=Grip.FREE)
        if seen.ready:
            return seen
        self._demand_no_clone(seen.machine_id)
        return replace(seen, boot_id="")

    def _demand_no_clone(self, machine_id: str) -> None:
        if machine_id in self._proven:
            return
        clones = [
            ownership.name(node)
            for node in self.cluster.nodes()
            if _machine_id(node) == machine_id and ownership.name(node) != self.node
        ]
        if clones:
            raise NodeRefused(
                f"{self.node}: is not Ready, so its machine id alone would prove which machine it is, and Node "
                f"{', '.join(clones)} has the same one; start its kubelet first"
            )
        self._proven.add(machine_id)

    def obstacles(self) -> tuple[str, ...]:
        """Nobody is evicted from a node that is not Ready, so nothing is in the way."""
        return super().obstacles() if self.standing().ready else ()

    def empty(self, still_allowed: Check, say: Tell) -> None:
        """As KubernetesNode, where the kubelet is there to confirm it."""
        if self.standing().ready:
            super().empty(still_allowed, say)
            return
        say("not Ready: no kubelet would confirm that a pod is gone, so none is evicted")
        still_allowed()

    def hold_off(self, run: str, holders: Collection[str], still_allowed: Check, say: Tell) -> None:
        """As KubernetesNode; on a node that is not Ready nobody sends a pod off that holds the device."""
        if self.standing().ready:
            super().hold_off(run, holders, still_allowed, say)
            return
        still_allowed()
        if holders:
            why = "the node is not Ready, so nobody would end the pods that have the device open"
            raise Permanent(self.node, "hold off", why, remedy="end them on the node, or start its kubelet")

    def give_back(self, run: str, result: Result, drivers: Mapping[str, str]) -> None:
        """As KubernetesNode; what was changed goes back only once it is Ready. Raises Transient."""
        record = ownership.state(self.cluster.node(self.node)).record
        if record is not None and record.touched and not record.was_unschedulable:
            self._wait_until_ready()
        super().give_back(run, result, drivers)

    def _wait_until_ready(self) -> None:
        until = self.monotonic() + READY_SECONDS
        while not ownership.ready(node := self.cluster.node(self.node)):
            if self.monotonic() >= until:
                why = f"its drivers are in order, but the Node is not Ready: {_why_not_ready(node)}"
                remedy = "mend its kubelet (on the node: journalctl -u kubelet), then the same command again"
                raise Transient(self.node, "uncordon", why, remedy=remedy)
            self.sleep(_POLL_SECONDS)


def _machine_id(node: Object) -> str:
    return str(node.get("status", {}).get("nodeInfo", {}).get("machineID", ""))


def _why_not_ready(node: Object) -> str:
    """Return the kubelet's own words, or the node controller's of its silence."""
    conditions = node.get("status", {}).get("conditions", ())
    told = [c for c in conditions if c.get("type") == "Ready"]
    return str(told[0].get("message") or told[0].get("reason") or "no reason given") if told else "it never was"
