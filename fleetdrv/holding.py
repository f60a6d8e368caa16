"""Hold a pool: take its Lease, keep it, know when it is lost, keep the run's record on it.

Expiry is judged by the observer's own clock: a Lease has expired once this process has seen no renewal
for as long as the Lease lasts. The holder stops acting a third earlier, counted from before its last good
renewal was sent. What remains (a holder that was frozen between look and act) is the token's part.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from fleetdrv import lease as leases
from fleetdrv import names
from fleetdrv.cluster import Cluster
from fleetdrv.errors import ClusterAway, ClusterError, Conflict, NotFound, Refused, Stopped, Taken
from fleetdrv.lease import Claim, Holder, Orders
from fleetdrv.ownership import Object
from fleetdrv.proc import alive
from fleetdrv.records import Course, Order, RunRecord
from fleetdrv.timing import Timing

_TRIES = 6
_PAUSE_SECONDS = 0.1
"""Between two tries of a write; times the number of the try."""

_STOP_SECONDS = 10.0
"""How long `release` waits for a renewal that is under way."""

_LOOK_SECONDS = 1.0
"""Between two looks at a Lease that somebody else holds."""


def acquire(
    cluster: Cluster, pool: str, holder: Holder, *, floor_token: int = 0, timing: Timing | None = None
) -> Held:
    """Take the pool's Lease, or raise Taken naming who has it.

    At once where it is free or its holder is known to be dead. Otherwise it is watched: a renewal proves a
    live holder (Taken, within a third of the Lease's duration), none for its whole duration frees it.
    `floor_token` is the highest token that any node has seen. A run record of a newer schema raises
    Refused before anything is written. Bounded.
    """
    return _Claimant(cluster, pool, holder, timing or Timing(), floor_token).acquire()


@dataclass(slots=True)
class _Claimant:
    """Somebody who wants a Lease, and what he has seen of it so far."""

    cluster: Cluster
    pool: str
    holder: Holder
    timing: Timing
    floor_token: int
    seen: tuple[object, ...] | None = None
    since: float = 0.0
    moved: bool = False

    def acquire(self) -> Held:
        failed = 0
        while True:
            lease = self.cluster.lease(names.lease_name(self.pool))
            leases.run_record(lease)  # refuses a newer schema
            claim = self._claim(lease)
            if claim is Claim.TAKEN:
                if self.moved:
                    raise Taken(
                        f"pool {self.pool}: is driven by {leases.holder_name(lease)}; "
                        f"see: fleetdrv status {self.pool}"
                    )
                self.timing.sleep(_LOOK_SECONDS)
                continue
            sent = self.timing.monotonic()
            try:
                return Held(self.cluster, self.pool, self._take(lease, claim), sent, self.timing)
            except (Conflict, NotFound, ClusterAway):  # a rival was faster, or the answer was lost: look
                failed += 1
                if failed == _TRIES:
                    raise
                self.timing.sleep(_PAUSE_SECONDS * failed)

    def _claim(self, lease: Object | None) -> Claim:
        now, beat = self.timing.monotonic(), leases.heartbeat(lease)
        if beat != self.seen:
            self.moved = self.seen is not None
            self.seen, self.since = beat, now
        other = Holder.parse(leases.holder_identity(lease))
        return leases.takeover(
            lease,
            self.holder,
            alive=alive(other, self.holder) if other else None,
            unchanged_seconds=now - self.since,
            duration_seconds=self.timing.duration_seconds,
            floor_token=self.floor_token,
        )

    def _take(self, lease: Object | None, claim: Claim) -> Object:
        wanted = leases.taken(
            lease or leases.unheld(self.pool),
            self.holder,
            claim,
            self.floor_token,
            leases.Stamp(self.timing.duration_seconds, self.timing.now()),
        )
        return self.cluster.create_lease(wanted) if lease is None else self.cluster.replace_lease(wanted)


class Held:
    """The pool is ours until `may_act` says otherwise.

    As a context manager it renews in a thread and gives the Lease back at the end. All methods may be
    called from any thread.
    """

    def __init__(self, cluster: Cluster, pool: str, lease: Object, sent: float, timing: Timing) -> None:
        """`lease` as taken; `sent`: when that write was sent, by `timing.monotonic`."""
        self.pool = pool
        self.token = leases.token(lease)
        self._cluster, self._timing, self._lease = cluster, timing, lease
        self._identity = leases.holder_identity(lease)
        self._good_since = sent
        self._lost = self._trouble = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._keep, name=f"lease {self.pool}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def may_act(self) -> bool:
        """Tell whether a destructive step may begin now."""
        return not self.why_not()

    def why_not(self) -> str:
        """Say why nothing destructive may begin; empty when it may."""
        age = self._timing.monotonic() - self._good_since
        if not self._lost and age >= self._timing.duration_seconds * 2 / 3:
            return f"pool {self.pool}: the lock could not be renewed for {age:.0f} s: {self._trouble}"
        return self._lost

    def check(self) -> None:
        """Raise Stopped where nothing destructive may begin. A machine that slept renews first."""
        if self.why_not() and not self._lost:
            self.renew()
        why = self.why_not()
        if why:
            raise Stopped(why)

    @property
    def record(self) -> RunRecord | None:
        """The run's record, as last read or written."""
        return leases.run_record(self._lease)

    @property
    def orders(self) -> Orders:
        """Pause and abort, as of the last renewal or look."""
        return leases.orders(self._lease)

    def look(self) -> Orders:
        """Read the Lease now: raises Stopped where it is not ours any more, ClusterAway without an answer."""
        with self._lock:
            self._read()
        return self.orders

    def update_record(self, record: RunRecord, course: Course | None = None) -> None:
        """Write the run's record, as a renewal. Raises Stopped where the Lease is lost, or ClusterAway."""
        also = {names.COURSE: course.to_json()} if course else {}
        with self._lock:
            self._write({names.RUN_RECORD: record.to_json(), **also})

    def fence_off(self, fence: Callable[[int], None]) -> None:
        """Have the controller fenced off that lost this Lease by its expiry, if that is still to be done."""
        if leases.annotation(self._lease, names.UNFENCED):
            fence(self.token)
            with self._lock:
                self._write({names.UNFENCED: None})

    def renew(self) -> bool:
        """Renew once; False where that did not work, for whatever reason (see `why_not` for how bad)."""
        try:
            with self._lock:
                self._write({})
        except (ClusterError, Stopped) as error:
            self._trouble = str(error)
            return False
        return True

    def release(self) -> None:
        """Give the Lease back; the record stays on it. One that cannot be given back expires by itself."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)
            if self._thread.is_alive():  # it waits for an API that does not answer
                self._lost = f"pool {self.pool}: the lock was left to expire"
                return
        with self._lock:
            if not self._lost:
                self._give_back()
                self._lost = f"pool {self.pool}: the lock was given back"

    def _give_back(self) -> None:
        for _ in range(_TRIES):
            try:
                self._cluster.replace_lease(leases.released(self._lease, self._timing.now()))
                return
            except Conflict:
                pass
            except ClusterError:
                return
            try:
                self._read()
            except (ClusterError, Stopped):
                return

    def _keep(self) -> None:
        third = self._timing.duration_seconds / 3
        pause = third
        while not self._stop.wait(pause):
            pause = third if self.renew() else third / 4
            if self._lost:
                return

    def _write(self, annotations: Mapping[str, str | None]) -> None:
        """Renew, compare-and-swap. What others write beside us (pause, abort) is read and kept."""
        for attempt in range(1, _TRIES + 1):
            if self._lost:
                raise Stopped(self._lost)
            sent = self._timing.monotonic()
            try:
                wanted = leases.renewed(self._lease, self._timing.now(), annotations)
                self._lease = self._cluster.replace_lease(wanted)
            except (Conflict, NotFound, ClusterAway):
                if attempt == _TRIES:
                    raise
                self._timing.sleep(_PAUSE_SECONDS * attempt)
                self._read()
            else:
                self._good_since = sent
                return

    def _read(self) -> None:
        lease = self._cluster.lease(names.lease_name(self.pool))
        if (leases.holder_identity(lease), leases.token(lease)) != (self._identity, self.token):
            self._lost = f"pool {self.pool}: {leases.lost_to(lease)}"
        if self._lost or lease is None:
            raise Stopped(self._lost)
        self._lease = lease


def pause(cluster: Cluster, pool: str, who: str, why: str, timing: Timing | None = None) -> None:
    """Ask every run of the pool, this one and later ones, to start no more nodes until `resume`."""
    timing = timing or Timing()
    order = Order(who=who, why=why, since=timing.now().isoformat())
    _annotate(cluster, pool, lambda _: {names.PAUSED: order.to_json()}, timing)


def resume(cluster: Cluster, pool: str, timing: Timing | None = None) -> None:
    """Lift a pause. An abort is final for its run."""
    _annotate(cluster, pool, lambda _: {names.PAUSED: None}, timing or Timing())


def abort(cluster: Cluster, pool: str, who: str, why: str, timing: Timing | None = None) -> None:
    """Ask the run that is under way to start no more nodes, for good; raises Refused where there is none."""
    timing = timing or Timing()

    def decide(lease: Object) -> Mapping[str, str | None]:
        record = leases.run_record(lease)
        if record is None or record.finished:
            raise Refused(f"pool {pool}: no run is under way; see: fleetdrv status {pool}")
        order = Order(who=who, why=why, since=timing.now().isoformat(), run=record.id)
        return {names.ABORT: order.to_json()}

    _annotate(cluster, pool, decide, timing)


def _annotate(
    cluster: Cluster, pool: str, decide: Callable[[Object], Mapping[str, str | None]], timing: Timing
) -> None:
    for attempt in range(1, _TRIES + 1):
        lease = cluster.lease(names.lease_name(pool))
        changes = decide(lease or {})
        if all(leases.annotation(lease, key) == value for key, value in changes.items()):
            return
        wanted = leases.annotated(lease or leases.unheld(pool), changes)
        try:
            _ = cluster.create_lease(wanted) if lease is None else cluster.replace_lease(wanted)
            return
        except (Conflict, NotFound, ClusterAway):
            if attempt == _TRIES:
                raise
            timing.sleep(_PAUSE_SECONDS * attempt)
