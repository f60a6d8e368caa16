"""`python -m tests.bench outage [--rounds N]`: node-seconds out of service, fleetdrv beside two Ansible playbooks.

On two virtual machines of the practice fleet (or the one that is up in the folder $VM_LAB): the practice driver
from 1.0 to 1.1. What is counted is what the cluster's users see, from outside: how long each Node is
unschedulable. All go over one node after the other; before each the driver is 1.0 again, with nothing of 1.1 left.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
import yaml

from fleetdrv.lab.cluster import kubectl_path
from tests.bench.tools import ANSIBLE, TOOLS, install, place
from tests.rollout.api_proxy import client
from tests.vm.vm_fleet import CODE, PLAYBOOKS, VmFleet

BOOKS = Path(__file__).parent / "ansible"
FLEETDRV, USUAL, BEST = "fleetdrv apply", "Ansible, usual order", "Ansible, staged before the cordon"
MOST = {USUAL: 1 / 4, BEST: 2 / 3}
"""What fleetdrv may cost of each."""
PARAMETERS = "rm -f /etc/modprobe.d/toy.conf"
"""What the playbooks write and fleetdrv does not: of two files that say otherwise the later one would win."""
LEFT_OVERS = (
    "dkms status toy/1.1 | grep -q . && dkms remove toy/1.1 --all; "
    "rm -rf /usr/src/toy-1.1 /var/lib/dkms/toy/1.1 /var/lib/fleetdrv/stage"
)
_POLL_SECONDS = 0.1


class Watch:
    """Adds up how long Nodes are unschedulable, as seen ten times a second; for use from one thread."""

    def __init__(self) -> None:
        self.node_seconds, self.polls = 0.0, 0
        self._at: float | None = None
        self._out = 0

    def see(self, now: float, out: int) -> None:
        """Take in how many are out at this moment; since the last moment so many were as were seen then."""
        if self._at is not None:
            self.node_seconds += self._out * (now - self._at)
        self._at, self._out, self.polls = now, out, self.polls + 1


@contextmanager
def watched(api: httpx.Client) -> Iterator[Watch]:
    """Watch all Nodes until the end of the block."""
    watch, over, trouble = Watch(), threading.Event(), list[Exception]()

    def poll() -> None:
        try:
            while not over.is_set():
                nodes = api.get("/api/v1/nodes").raise_for_status().json()["items"]
                watch.see(time.monotonic(), sum(bool(node["spec"].get("unschedulable")) for node in nodes))
                over.wait(_POLL_SECONDS)
        except (httpx.HTTPError, KeyError, ValueError) as error:
            trouble.append(error)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join(60)
    if trouble or watch.polls == 0:
        raise RuntimeError(f"the Nodes were not watched to the end: {trouble}")


def ansible_argv(book: str, inventory: Path, kubeconfig: Path) -> tuple[str, ...]:
    """Return the command line of one playbook."""
    given = {
        "version": "1.1",
        "archive": PLAYBOOKS / "archives" / "toy-1.1.tar",
        "kubeconfig": kubeconfig,
        "kubectl": kubectl_path(),
    }
    words = [word for name, value in given.items() for word in ("-e", f"{name}={value}")]
    return (str(place(ANSIBLE) / "bin/ansible-playbook"), "-i", str(inventory), *words, str(BOOKS / book))


def ansible_env(folder: Path) -> Mapping[str, str]:
    """Return Ansible's environment: tuned as in the race, the interpreter known."""
    config = folder / "ansible.cfg"
    config.write_text(
        "[defaults]\ninterpreter_python = /usr/bin/python3\nhost_key_checking = True\n[ssh_connection]\n"
        "pipelining = True\nssh_args = -o ControlMaster=auto -o ControlPersist=60s\n"
    )
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(config),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_NOCOLOR": "1",
    }


def _ansible(fleet: VmFleet, book: str) -> None:
    argv = ansible_argv(book, fleet.inventory, fleet.kubeconfig)
    done = subprocess.run(
        argv, env=ansible_env(fleet.scratch), capture_output=True, text=True, timeout=1800, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{book} failed, so nothing is compared:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")


WAYS: Mapping[str, Callable[[VmFleet], object]] = {
    FLEETDRV: lambda fleet: fleet.apply("1.1"),
    USUAL: lambda fleet: _ansible(fleet, "usual.yaml"),
    BEST: lambda fleet: _ansible(fleet, "best.yaml"),
}


def main(rounds: int) -> int:
    """Run all ways in turns, print each round and the medians; 1 where a limit is missed."""
    trouble = next((why for tool in TOOLS if tool.requires == ANSIBLE and (why := install(tool))), "")
    if trouble:
        print(f"Ansible cannot be installed here: {trouble}", file=sys.stderr)
        return 1
    kept = os.environ.get("VM_LAB")
    with tempfile.TemporaryDirectory(prefix="fleetdrv-bench-") as scratch:
        fleet = VmFleet(Path(kept) if kept else None, Path(scratch))
        try:
            found = _race(fleet, rounds)
        finally:
            fleet.close()
    return _tell(found)


def _race(fleet: VmFleet, rounds: int) -> Mapping[str, list[float]]:
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    with client(yaml.safe_load(fleet.kubeconfig.read_text()), fleet.scratch) as api:
        for turn in range(rounds):
            for way in random.sample(list(WAYS), len(WAYS)):
                _begin(fleet)
                with watched(api) as watch:
                    WAYS[way](fleet)
                wrong = [node for node in fleet.names if fleet.ssh(node, CODE).strip() != "1.1"]
                if wrong:
                    raise RuntimeError(f"{way}: {', '.join(wrong)} not at 1.1")
                found[way].append(watch.node_seconds)
                print(f"round {turn + 1}: {way}: {watch.node_seconds:.1f} node-seconds", flush=True)
    return found


def _begin(fleet: VmFleet) -> None:
    """Bring all nodes to 1.0, with nothing of 1.1 left."""
    for node in fleet.names:
        fleet.ssh(node, PARAMETERS)
    fleet.apply("1.0")
    for node in fleet.names:
        fleet.ssh(node, f"{LEFT_OVERS}; true")


def _tell(found: Mapping[str, list[float]]) -> int:
    missed = 0
    print("\n| way | node-seconds out of service, two nodes | fleetdrv's share | at most |\n|---|---|---|---|")
    for way, seconds in found.items():
        share = median(ours / its for ours, its in zip(found[FLEETDRV], seconds, strict=True))
        most = MOST.get(way)
        missed += most is not None and share > most
        print(f"| {way} | {median(seconds):.1f} | {share:.2f} | {'-' if most is None else f'{most:.2f}'} |")
    return int(missed > 0)
