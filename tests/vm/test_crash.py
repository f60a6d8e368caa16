"""SIGKILL at outward effects on a virtual machine, then the same command again.

Real systemd units, real dkms and a real kernel under the jobs that outlive the controller; every moment of
every kind of run is covered on simulated nodes (tests/rollout/test_crash.py). Here two kinds that a node can be
brought to again and again are killed at each of their effects, at one moment of it.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from fleetdrv.lab import lab
from tests.rollout.api_proxy import ApiProxy
from tests.rollout.points import Moment, Points
from tests.rollout.ssh_front import Backend, Loop, SshFront
from tests.vm.vm_fleet import CODE, VmFleet

NODE = "node-1"
_MOST = 60
"""Effects of a run, far more than any has."""


def _upgraded(fleet: VmFleet) -> str:
    """To and fro between two versions."""
    return "1.1" if fleet.ssh(NODE, CODE).strip() == "1.0" else "1.0"


def _drifted(fleet: VmFleet) -> str:
    """Somebody has unloaded the driver."""
    version = fleet.ssh(NODE, CODE).strip()
    fleet.ssh(NODE, "rmmod fleetdrv_toy")
    return version


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """`prepare` brings the node to where `verb` is typed, and returns the version that it is typed for."""

    prepare: Callable[[VmFleet], str]
    verb: tuple[str, ...]
    at_least: int
    """So many effects; together 24."""


KINDS = {
    "upgrade": Kind(prepare=_upgraded, verb=("apply", "--yes"), at_least=13),
    "remediate": Kind(prepare=_drifted, verb=("remediate",), at_least=11),
}


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

    def type(self, kind: Kind, version: str) -> tuple[int, str]:
        """Run a command for one node; it may be killed."""
        verb, *options = kind.verb
        book = str(self.fleet.playbook(version))
        arguments = (verb, book, "-i", str(self.inventory), *options, "-l", NODE)
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
    """The nodes at 1.0, the first one behind the proxies."""
    fleet.apply("1.0")
    with ExitStack() as stack:
        yield Fronted(fleet, stack)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", KINDS)
def test_killed_at_an_effect_on_a_virtual_machine_the_same_command_finishes(
    fronted: Fronted, name: str, record_property: Callable[[str, object], None]
) -> None:
    fleet, points, kind, wanted = fronted.fleet, fronted.points, KINDS[name], {}
    for _ in range(2):
        version = kind.prepare(fleet)
        points.arm(-1, Moment.BEFORE)
        code, said = fronted.type(kind, version)
        assert code == 0, said
        wanted[version] = fleet.end_state(NODE)
    moments = list(Moment)
    # How many pods are evicted is not up to us: it is killed at one effect after the other until it ends before.
    for at in range(_MOST):
        version = kind.prepare(fleet)
        points.arm(at, moments[at % len(moments)])
        code, said = fronted.type(kind, version)
        if points.killed is None:
            break
        assert code == -signal.SIGKILL, (at, said)
        told = f"killed at {at}, {moments[at % len(moments)]}: {points.killed}\n{said}"
        points.arm(-1, Moment.BEFORE)
        code, said = fronted.type(kind, version)
        assert code == 0, told + said
        assert fleet.end_state(NODE) == wanted[version], told + said
    recorded = len(points.seen)
    assert code == 0, said
    assert fleet.end_state(NODE) == wanted[version], said
    assert kind.at_least <= recorded <= at, points.seen
    record_property(f"SIGKILLs of {name} on a virtual machine, recorded and killed", f"{recorded} and {at}")
