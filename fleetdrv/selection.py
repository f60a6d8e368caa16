"""Whom a command is for: the pool, and the part of it that `--limit` selects.

What files can tell is told before anything is opened. The cluster is asked for `-i k8s:`, and for `@failed`, which
stands in the run record on the pool's Lease; with --no-cluster, in this machine's journals.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fleetdrv import inventory_k8s, journals, names, nodeset, patterns
from fleetdrv import lease as leases
from fleetdrv.cluster import Cluster
from fleetdrv.errors import InputError, NodeRefused
from fleetdrv.events import Event, Level, Say
from fleetdrv.inventory import Inventory
from fleetdrv.model import Host
from fleetdrv.records import RunRecord

RECORD = "record"
"""Phase of the journal's line that holds the run record."""

_JOURNALS = 500
"""How many journals are looked at, the newest first."""
_TAIL_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was asked for."""

    everything: Inventory
    group: str
    limit: str
    pool: str
    """Name of the pool; empty where there is none, and so no last run."""
    no_cluster: bool
    say: Say

    def now(self) -> tuple[tuple[Host, ...], tuple[Host, ...]] | None:
        """Return pool and selected hosts, or None where only `ask` can tell. Raises InputError."""
        if self.everything.asks_cluster:
            if self.no_cluster:
                raise InputError(f"--inventory {self.everything.path}: asks the cluster; leave out --no-cluster")
            return None
        asks = self.pool and not self.no_cluster and f"@{patterns.FAILED}" in self.limit
        return None if asks else self._chosen(self.everything.group(self.group), None)

    def ask(self, cluster: Cluster) -> tuple[tuple[Host, ...], tuple[Host, ...]]:
        """Return pool and selected hosts. Raises InputError, or ClusterError."""
        if not self.everything.asks_cluster:
            return self._chosen(self.everything.group(self.group), cluster)
        source = str(self.everything.path)
        nodes = cluster.nodes(inventory_k8s.selector(source))
        return self._chosen(tuple(inventory_k8s.hosts(source, nodes, self.group).values()), cluster)

    def _chosen(
        self, pool: tuple[Host, ...], cluster: Cluster | None
    ) -> tuple[tuple[Host, ...], tuple[Host, ...]]:
        if not self.limit:
            return pool, pool
        return pool, patterns.limit(
            pool, self.limit, lambda name: self._named(name, cluster), self.everything.members
        )

    def _named(self, name: str, cluster: Cluster | None) -> Collection[str]:
        if name != patterns.FAILED:
            return _parts_in(Path(name))
        if not self.pool:
            raise InputError("--limit @failed: only a command with a playbook has a pool and a last run")
        record = _journalled(self.pool) if cluster is None else _leased(self.pool, cluster)
        failed = (*record.failed, *record.unreachable)
        if not failed:
            raise InputError(f"--limit @failed: nothing failed in run {record.id}, the last of pool {self.pool}")
        text = f"@failed: run {record.id}: {nodeset.fold(failed)}"
        self.say(Event(node="", phase="limit", text=text))
        return failed


def note(record: RunRecord, say: Say) -> None:
    """Put a run record into the journal, for who asks later without a cluster."""
    say(Event(node="", phase=RECORD, text=record.to_json(), level=Level.DETAIL))


def _parts_in(path: Path) -> list[str]:
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"--limit @{path}: cannot be read: {error}") from error
    parts = [part for line in lines for part in nodeset.split(line.partition("#")[0])]
    if not parts:
        raise InputError(f"{path}: names no host")
    return parts


def _leased(pool: str, cluster: Cluster) -> RunRecord:
    record = leases.run_record(cluster.lease(names.lease_name(pool)))
    if record is None:
        raise InputError(f"--limit @failed: pool {pool} has no run on record in this cluster")
    return record


def _journalled(pool: str) -> RunRecord:
    folder = journals.folder()
    for path in sorted(folder.glob("*.jsonl"), reverse=True)[:_JOURNALS]:  # names begin with the time
        record = _record_in(path)
        if record is not None and record.pool == pool:
            return record
    raise InputError(f"--limit @failed: no journal in {folder} tells of a run of pool {pool}")


def _record_in(path: Path) -> RunRecord | None:
    """Return the last run record of a journal; a line that was cut off is passed over."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            entry = json.loads(line)
            if entry["phase"] == RECORD:
                return RunRecord.from_json(entry["text"], str(path))
        except (ValueError, KeyError, TypeError, NodeRefused):
            continue
    return None
