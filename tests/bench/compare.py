"""Run the contenders in turns over the same hosts, and sum them up: medians, and ratios within each round."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.bench import measure
from tests.bench.hosts import Hosts
from tests.bench.measure import Cost
from tests.bench.tools import FLEETDRV, Tool


@dataclass(slots=True, kw_only=True)
class Row:
    """One contender at one number of hosts."""

    tool: Tool
    count: int
    runs: list[Cost] = field(default_factory=list)
    lost: int = 0
    """Hosts that were not served, over all runs, by its own word or by the server's log."""
    trouble: str = ""

    @property
    def cpu_ms(self) -> float:
        """Return the CPU per host in milliseconds."""
        return median(run.cpu_seconds for run in self.runs) / self.count * 1000

    @property
    def wall(self) -> float:
        """Return the whole run's wall time in seconds."""
        return median(run.wall_seconds for run in self.runs)


def race(hosts: Hosts, tools: Sequence[Tool], counts: Sequence[int], rounds: int) -> Iterator[Row]:
    """Yield a row for each contender and number of hosts once all rounds are over; tell each run as it ends."""
    for count in counts:
        rows = [Row(tool=tool, count=count) for tool in tools if count <= tool.most]
        for turn in range(rounds):
            for row in random.sample(rows, len(rows)):
                if not row.trouble:
                    _once(row, hosts)
                    last = row.runs[-1]
                    print(
                        f"  {count} hosts, round {turn + 1}: {row.tool.name}: {last.cpu_seconds:.2f} s CPU, "
                        f"{last.wall_seconds:.2f} s, {row.lost} lost {row.trouble}",
                        flush=True,
                    )
        yield from rows


def _once(row: Row, hosts: Hosts) -> None:
    before = hosts.served()
    cost = measure.run(row.tool.argv(hosts, row.count), env=row.tool.env(hosts))
    served = min(row.tool.served(cost), hosts.served() - before)
    row.runs.append(cost)
    row.lost += max(0, row.count - served)
    if served == 0:
        row.trouble = f"exit {cost.code}: {cost.out.strip()[-300:]}"


def ratio(rows: Sequence[Row], other: str, count: int, *, wall: bool = False) -> float | None:
    """Return fleetdrv's cost against another's, the median of the rounds' ratios; None where one is missing."""
    ours, its = (
        next((r for r in rows if r.tool.name == name and r.count == count), None) for name in (FLEETDRV, other)
    )
    if ours is None or its is None or ours.trouble or its.trouble:
        return None
    pairs = zip(ours.runs, its.runs, strict=False)
    if wall:
        return median(a.wall_seconds / b.wall_seconds for a, b in pairs)
    return median(a.cpu_seconds / b.cpu_seconds for a, b in pairs)
