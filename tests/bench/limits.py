"""What fleetdrv must reach whatever its peers do: memory, round trips, start-up, a large cluster's status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from fleetdrv.effects import Effects
from fleetdrv.model import Host
from fleetdrv.ssh import Dialler
from tests.bench import measure
from tests.bench.api import api
from tests.bench.hosts import PLAYBOOK, Hosts, hosts
from tests.bench.measure import Cost
from tests.bench.round_trips import Relay
from tests.bench.tools import looked_at

STATUS_NODES = 1000
_PROGRAM = str(Path(sys.executable).with_name("fleetdrv"))
_DEFAULT_MAX_STARTUPS = "10:30:100"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One measure, what it came to and what it may come to."""

    what: str
    found: float
    most: float
    unit: str
    trouble: str = ""

    @property
    def reached(self) -> bool:
        """Whether it is within its limit."""
        return not self.trouble and self.found <= self.most


def limits(folder: Path, *, many: int, rounds: int) -> Iterator[Limit]:
    """Measure everything; `many` hosts are looked at at once."""
    yield from _start_up(rounds)
    yield from _status(folder, rounds)
    yield from _round_trips(folder)
    yield from _many(folder, many)


def _of(what: str, unit: str, most: float, costs: Sequence[Cost], number: Callable[[Cost], float]) -> Limit:
    bad = next((f"exit {cost.code}: {cost.out.strip()[-300:]}" for cost in costs if cost.code), "")
    return Limit(what=what, found=median(map(number, costs)), most=most, unit=unit, trouble=bad)


def _start_up(rounds: int) -> Iterator[Limit]:
    costs = [measure.run((_PROGRAM, "--help")) for _ in range(rounds)]
    yield _of("`fleetdrv --help`", "s", 0.3, costs, lambda cost: cost.wall_seconds)
    yield _of("`fleetdrv --help`, CPU", "s", 0.3, costs, lambda cost: cost.cpu_seconds)


def _status(folder: Path, rounds: int) -> Iterator[Limit]:
    names = [f"gpu-{number:04}" for number in range(STATUS_NODES)]
    with api(folder, names) as kubeconfig:
        costs = [measure.run((_PROGRAM, "status"), env=_env(kubeconfig, folder)) for _ in range(rounds)]
    what = f"`fleetdrv status` on {STATUS_NODES} Nodes, CPU with kubectl's"
    yield _of(what, "s", 0.8, costs, lambda cost: cost.cpu_seconds)


def _env(kubeconfig: Path, home: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # kubectl comes with the environment
    return {"KUBECONFIG": str(kubeconfig), "PATH": path, "HOME": str(home), "XDG_STATE_HOME": str(home / "state")}


def _round_trips(folder: Path) -> Iterator[Limit]:
    place = folder / "round-trips"
    place.mkdir()
    with hosts(place, 1) as fleet, Relay(fleet.port) as relay:
        known = place / "home/.ssh/known_hosts"
        known.write_text(f"[127.0.0.1]:{relay.port} {fleet.known_hosts.read_text().split(' ', 1)[1]}")
        (place / "home/.ssh/config").unlink()
        log_in = _logged_in(fleet, relay, known)
        inventory = place / "inventory.yaml"
        inventory.write_text(
            f"all:\n  vars:\n    ansible_user: {fleet.user}\n    ansible_port: {relay.port}\n"
            "    ansible_host: 127.0.0.1\n"
            f"    ansible_ssh_private_key_file: {fleet.key}\n  children: {{gpu: {{hosts: {{node: }}}}}}\n"
        )
        argv = (_PROGRAM, "plan", str(PLAYBOOK), "-i", str(inventory), "--no-cluster", "--json", "--quiet")
        cost = measure.run(argv, env={"HOME": str(place / "home"), "XDG_STATE_HOME": str(place / "state")})
        trouble = "" if '"execs": 1' in cost.out else f"exit {cost.code}: {cost.out.strip()[-300:]}"
        yield Limit(
            what="round trips of `plan` beyond the log-in",
            found=relay.round_trips() - log_in,
            most=2,
            unit="",
            trouble=trouble,
        )


def _logged_in(fleet: Hosts, relay: Relay, known: Path) -> int:
    """Log in by fleetdrv's own way and do nothing; return what it took."""
    variables = {
        "ansible_user": fleet.user,
        "ansible_port": relay.port,
        "ansible_host": "127.0.0.1",
        "ansible_ssh_private_key_file": str(fleet.key),
    }
    host = Host(name="node", node_name="node", variables=variables)
    with Dialler(Effects(), ssh_config=Path("/dev/null"), known_hosts=(known,)) as dialler:
        dialler.connect(host, 60).close()
    return relay.round_trips()


def _many(folder: Path, many: int) -> Iterator[Limit]:
    place = folder / "many"
    place.mkdir()
    with (
        hosts(place, many, max_startups=_DEFAULT_MAX_STARTUPS) as fleet,
        api(place, fleet.addresses) as kubeconfig,
    ):
        argv = (_PROGRAM, "drift", str(PLAYBOOK), "-i", str(fleet.inventory(many)), "--json", "--quiet")
        cost = measure.run(argv, env=_env(kubeconfig, place / "home"), seconds=1800, sample=True)
    lost = many - looked_at(cost)
    trouble = f"exit {cost.code}: {cost.out.strip()[-300:]}" if lost else ""
    yield Limit(
        what=f"{many} hosts and Nodes at once, sshd's own MaxStartups: lost",
        found=lost,
        most=0,
        unit="",
        trouble=trouble,
    )
    yield Limit(
        what=f"{many} hosts and Nodes at once: peak memory with kubectl's",
        found=cost.peak_rss_mb,
        most=200,
        unit="MB",
        trouble=trouble,
    )
