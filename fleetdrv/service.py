"""Take one node out of service and give it back, as ours and nobody else's.

Every write is a compare-and-swap on the Node that was just read: on a conflict, or when no answer came, it is
read and decided again. An act that is done already is not done twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias

from fleetdrv import daemons, names, neighbours, ownership, pods
from fleetdrv.attempts import Counting
from fleetdrv.cluster import Cluster
from fleetdrv.drain import Hands, drain, preflight, wait_for
from fleetdrv.errors import Conflict, Forbidden, Gone, NotFound, NotOurs, OnHold, Transient
from fleetdrv.ownership import Kind, Object, Patch
from fleetdrv.policy import Drain
from fleetdrv.records import Cordon, Result
from fleetdrv.standing import Standing, last_result, standing_of
from fleetdrv.swap import swap_node

Check: TypeAlias = Callable[[], None]
Tell: TypeAlias = Callable[[str], None]


class Service(Protocol):
    """One node's place in the cluster; `NoCluster` plays it for hosts outside Kubernetes."""

    @property
    def node(self) -> str:
        """Name of the Node object."""
        ...

    def standing(self) -> Standing:
        """Read how the node stands."""
        ...

    def obstacles(self) -> tuple[str, ...]:
        """Name what would keep the node from being drained; changes nothing."""
        ...

    def neighbours(self) -> tuple[str, ...]:
        """Name the other programs that are at work on the node, or about to be."""
        ...

    def occupants(self) -> Mapping[str, str]:
        """Name the pods on the node and their owners, by UID."""
        ...

    def take_out(self, run: str, why: str, still_allowed: Check = lambda: None) -> None:
        """Cordon the node as ours, or adopt what an earlier run left out; `still_allowed` before each try."""
        ...

    def adopt(self, run: str) -> None:
        """Go on with what an earlier run of the same pool left out. Raises NotOurs."""
        ...

    def empty(self, still_allowed: Check, say: Tell) -> None:
        """Drain it."""
        ...

    def hold_off(self, run: str, holders: Collection[str], still_allowed: Check, say: Tell) -> None:
        """Send the pods (UIDs) off that still hold the device after `empty`; `give_back` waits for them.

        With none it still switches the playbook's operands off. Other UIDs are ignored. May be called again.
        Raises Permanent naming a pod that cannot be kept off (nothing is evicted then), Transient at the
        drain's deadline, NotOurs.
        """
        ...

    def mark_touched(self, run: str, step: str) -> None:
        """Record, before it happens, that the node is about to be changed. Raises NotOurs, OnHold."""
        ...

    def give_back(self, run: str, result: Result, drivers: Mapping[str, str]) -> None:
        """Return the node to service as it was found. Raises NotOurs."""
        ...

    def leave_out(self, run: str, result: Result) -> None:
        """Keep the node out, tainted and explained. Raises NotOurs."""
        ...

    def let_go(self, result: Result) -> None:
        """Take our marks off and leave the cordon as somebody else set it."""
        ...

    def note(self, result: Result) -> None:
        """Record a result on a node that was not taken out."""
        ...

    def tell(self, result: Result) -> None:
        """Let people know of a result that is not recorded. Best effort."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesNode:
    """A Node object, and the pods on it."""

    cluster: Cluster
    node: str
    pool: str
    holder: str
    policy: Drain
    clock: Callable[[], str]
    """Wall clock as ISO 8601, for people who read the annotation."""
    counting: Counting = field(default_factory=Counting)
    reason: str = ""
    """The operator's words; else the cordon says what is not as wanted."""
    drivers: Collection[str] = ()
    """Names of the pool's drivers: their labels go when the node is touched, and come back verified."""
    takes: Collection[Kind] = (Kind.FREE,)
    """What may be taken out; a cordon that was there before ours is never lifted."""
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def standing(self) -> Standing:
        """Read how the node stands. Raises Gone, NodeRefused where nothing proves which machine it is."""
        try:
            return standing_of(self.cluster.node(self.node), self.pool)
        except NotFound as gone:
            raise Gone(f"{self.node}: no such Node in this cluster; check node_name in inventory") from gone

    def obstacles(self) -> tuple[str, ...]:
        """Name pods and budgets that would keep the node from being drained."""
        return tuple(str(obstacle) for obstacle in preflight(self.cluster, self.node, self.policy, self.sleep))

    def neighbours(self) -> tuple[str, ...]:
        """As `neighbours.at_work` judges. Fails closed: what must not be read may well be at work."""
        node = self.cluster.node(self.node)
        try:
            maintenances, kured = self.cluster.maintenances(), self._kured()
        except Forbidden as error:
            rule = "grant what docs/clusterrole.yaml says: kubectl apply -f docs/clusterrole.yaml"
            return (f"whether another program works on it cannot be seen: {error}; {rule}",)
        return neighbours.at_work(node, kured, maintenances, datetime.fromisoformat(self.clock()))

    def _kured(self) -> Object | None:
        try:
            return self.cluster.daemon_set(*neighbours.KURED)
        except NotFound:
            return None

    def occupants(self) -> Mapping[str, str]:
        """Name every pod on the node as NAMESPACE/NAME of KIND OWNER, by UID."""
        return {pods.uid(pod): pods.full_title(pod) for pod in self.cluster.pods_on(self.node)}

    def take_out(self, run: str, why: str, still_allowed: Check = lambda: None) -> None:
        """Cordon: one PATCH sets bit, taint, label, annotation and opt-outs, or nothing."""

        def decide(node: Object) -> Patch | None:
            still_allowed()  # after the Node was read: fence.py counts on that order
            owner = ownership.state(node)
            if owner.kind in self.takes:
                reason = (self.reason or why)[:500]
                cordon = Cordon(run=run, pool=self.pool, holder=self.holder, reason=reason, since=self.clock())
                patch = ownership.cordon_patch(node, ownership.cordon_record(node, cordon))
                return self._counted(node, run, patch)
            self._untroubled(node, "cordon")
            adopted = self._adopted(node, run, "cordon")
            return adopted and self._counted(node, run, adopted)

        self._swap("cordon", decide)

    def _counted(self, node: Object, run: str, patch: Patch) -> Patch:
        """Count the try in the very PATCH that begins it."""
        begun = self.counting.begin(last_result(node), run=run, at=self.clock())
        patch["metadata"]["annotations"][names.LAST_RESULT] = begun.to_json()
        return patch

    def _ended(self, node: Object, result: Result) -> str:
        return self.counting.end(last_result(node), result).to_json()

    def adopt(self, run: str) -> None:
        """One PATCH: from here on the cordon names this run, and the acts of an older one are refused."""
        self._swap("adopt", lambda node: self._adopted(node, run, "adopt"))

    def empty(self, still_allowed: Check, say: Tell) -> None:
        """Wait for what ends by itself, then evict what must go and wait until it is gone."""
        hands = self._hands("drain", still_allowed, say)
        wait_for(self.cluster, self.node, self.policy, hands)
        drain(self.cluster, self.node, self.policy, hands)

    def hold_off(self, run: str, holders: Collection[str], still_allowed: Check, say: Tell) -> None:
        """As `daemons.hold_off` promises; one PATCH switches operands off and notes how to undo it."""

        operands = {operand.label: operand.off for operand in self.policy.operands}

        def note(daemon_sets: Collection[str]) -> None:
            def decide(node: Object) -> Patch | None:
                record = self._untroubled(node, "hold off", run)
                return ownership.off_patch(node, record, operands, daemon_sets)

            self._swap("hold off", decide)

        def judge(found: Sequence[Object]) -> Sequence[pods.Sentence]:
            return pods.judge_holders(found, self.policy, holders, ownership.maintenance_taint(run))

        off = self._hands("hold off", still_allowed, say)
        daemons.hold_off(self.cluster, self.node, self.policy, judge, note, off)

    def _hands(self, step: str, still_allowed: Check, say: Tell) -> Hands:
        def still_ours() -> None:
            still_allowed()
            self._untroubled(self.cluster.node(self.node), step)

        return Hands(say=say, still_ours=still_ours, monotonic=self.monotonic, sleep=self.sleep)

    def mark_touched(self, run: str, step: str) -> None:
        """One PATCH on the node as it was just seen to be ours."""

        def decide(node: Object) -> Patch | None:
            record = self._untroubled(node, step, run)
            if record.touched and record.step == step:
                return None
            return ownership.touched_patch(node, record, step, self.drivers)

        self._swap(step, decide)

    def give_back(self, run: str, result: Result, drivers: Mapping[str, str]) -> None:
        """Uncordon; first the taint goes, and the DaemonSets and devices of before are waited for."""

        def readmit(node: Object) -> Patch | None:
            record = self._ours(node, "uncordon", run)
            ours = record.allocatable or record.daemon_sets or record.operands
            return ownership.readmit_patch(node, record) if ours else None

        def uncordon(node: Object) -> Patch | None:
            if ownership.state(node).record is None:
                return None  # an earlier try whose answer was lost
            record = self._ours(node, "uncordon", run)
            return ownership.uncordon_patch(node, record, self._ended(node, result), drivers)

        if ownership.state(self.cluster.node(self.node)).record is not None:
            record = self._ours(self._swap("uncordon", readmit), "uncordon", run)
            daemons.wait_back(self.cluster, self.node, record, self.monotonic, self.sleep)
        self._swap("uncordon", uncordon)

    def leave_out(self, run: str, result: Result) -> None:
        """One PATCH: the reason on the cordon, the result beside it."""

        def decide(node: Object) -> Patch | None:
            record = self._ours(node, "leave out", run)
            if record.failed == result.finding:
                return None
            return ownership.failed_patch(node, record, result.finding, self._ended(node, result))

        self._swap("leave out", decide)

    def let_go(self, result: Result) -> None:
        """One PATCH: our marks only."""

        def decide(node: Object) -> Patch | None:
            record = ownership.state(node).record
            return None if record is None else ownership.release_patch(node, record, self._ended(node, result))

        self._swap("let go", decide)

    def note(self, result: Result) -> None:
        """One PATCH: the result annotation; none where the Node says so already."""

        def decide(node: Object) -> Patch | None:
            noted = self.counting.note(last_result(node), result)
            text = noted.to_json() if noted else None
            return {"metadata": {"annotations": {names.LAST_RESULT: text}}} if text else None

        self._swap("note", decide)

    def tell(self, result: Result) -> None: ...  # to nobody

    def _ours(self, node: Object, step: str, run: str = "") -> Cordon:
        owner = ownership.state(node)
        record = owner.record
        if owner.kind is not Kind.OURS or record is None or (run and record.run != run):
            look = f"see who: kubectl get node {self.node} -o yaml --show-managed-fields"
            raise NotOurs(self.node, step, f"the node is not ours to change: {owner.reason}", remedy=look)
        if record.pool != self.pool:
            raise NotOurs(self.node, step, f"the node is out for pool {record.pool}, run {record.run}")
        return record

    def _untroubled(self, node: Object, step: str, run: str = "") -> Cordon:
        """Ours, and nobody asks for a stop: what every step that takes something away begins with."""
        record, held = self._ours(node, step, run), ownership.state(node).held
        if held is not None:
            raise OnHold(self.node, step, f"the node is held ({held})")
        return record

    def _adopted(self, node: Object, run: str, step: str) -> Patch | None:
        record = self._ours(node, step)
        return None if record.run == run else ownership.adopt_patch(node, record, run=run, holder=self.holder)

    def _swap(self, step: str, decide: Callable[[Object], Patch | None]) -> Object:
        try:
            return swap_node(self.cluster, self.node, decide, sleep=self.sleep)
        except Conflict as error:
            raise Transient(self.node, step, f"the Node could not be written: {error}") from error
