"""SIGKILL at outward effects on a virtual machine, then the same command again.

Real systemd units, real dkms and a real kernel under the jobs that outlive the controller; every point of
the rollout is covered on simulated nodes (tests/rollout/test_crash.py), here one moment of each.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from fleetdrv.lab import lab
from tests.rollout.api_proxy import ApiProxy
from tests.rollout.points import Moment, Point, Points
from tests.rollout.ssh_front import Backend, Loop, SshFront
from tests.vm.vm_fleet import CODE, VmFleet

NODE = "node-1"
AT_LEAST = 12


class Fronted:
    """The fleet, seen through proxies that count and kill."""

    def __init__(self, fleet: VmFleet, stack: ExitStack) -> None:
        self.fleet, self.points = fleet, Points()
        loop = Loop()
        stack.callback(loop.close)
        self.api = ApiProxy(fleet.kubeconfig, fleet.scratch, self.points)
        stack.callback(self.api.close)
        key = fleet.folder / "id_ed25519.pub"
        front = SshFront(NODE, _backend(fleet), key, self.points, loop)
        stack.callback(front.close)
        known = fleet.scratch / "front_known_hosts"
        known.write_text(front.known_hosts_line() + "\n")
        self.inventory = fleet.scratch / "front.yaml"
        port = str(lab.machine(fleet.folder, NODE).ssh_port)
        text = fleet.inventory.read_text().replace(port, str(front.port))
        self.inventory.write_text(text.replace(str(fleet.folder / "known_hosts"), str(known)))

    def apply(self, version: str) -> tuple[int, str]:
        """Run one upgrade of one node; it may be killed."""
        book = str(self.fleet.playbook(version))
        arguments = ("apply", book, "-i", str(self.inventory), "--yes", "-l", NODE)
        with self.fleet.start(*arguments, kubeconfig=self.api.kubeconfig) as process:
            self.points.victim = process.pid
            out, errors = process.communicate(timeout=1800)
        self.points.victim = 0
        return process.returncode, (out + errors).decode()


def _backend(fleet: VmFleet) -> Backend:
    port = lab.machine(fleet.folder, NODE).ssh_port
    options = ["-oBatchMode=yes", "-oIdentitiesOnly=yes", f"-oUserKnownHostsFile={fleet.folder / 'known_hosts'}"]
    key = str(fleet.folder / "id_ed25519")
    argv = ["ssh", "-F", "none", *options, "-i", key, "-p", str(port), "root@127.0.0.1"]

    def start(command: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen([*argv, command], stdin=pipe, stdout=pipe, stderr=pipe)

    return start


@pytest.fixture
def fronted(fleet: VmFleet) -> Iterator[Fronted]:
    """Both nodes at 1.0, the first one behind the proxies."""
    fleet.apply("1.0")
    with ExitStack() as stack:
        yield Fronted(fleet, stack)


@pytest.mark.long
def test_killed_on_a_virtual_machine_the_same_command_finishes(
    fronted: Fronted, record_property: Callable[[str, object], None]
) -> None:
    fleet, points, wanted = fronted.fleet, fronted.points, {}
    for version in ("1.1", "1.0"):
        points.arm(-1, Moment.BEFORE)
        code, said = fronted.apply(version)
        assert code == 0, said
        wanted[version] = fleet.end_state(NODE)
    recorded = len(points.seen)
    assert recorded >= AT_LEAST
    moments = list(Moment)
    killed: list[Point] = []
    for at in range(recorded):
        version = "1.1" if fleet.ssh(NODE, CODE).strip() == "1.0" else "1.0"
        points.arm(at, moments[at % len(moments)])
        code, said = fronted.apply(version)
        assert code == -signal.SIGKILL, (at, said)
        assert points.killed is not None
        killed.append(points.killed)
        points.arm(-1, Moment.BEFORE)
        code, said = fronted.apply(version)
        told = f"killed at {at}, {moments[at % len(moments)]}: {killed[-1]}\n{said}"
        assert code == 0, told
        assert fleet.end_state(NODE) == wanted[version], told
    record_property("SIGKILLs on a virtual machine, recorded and killed", f"{recorded} and {len(killed)}")

