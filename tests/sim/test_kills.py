"""A swap killed at any call of a tool that changes something: the same swap again ends where one run ends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sim.job import launch_command
from tests.sim.node import SimNode
from tests.sim.toy import Toy

pytestmark = pytest.mark.timeout(180)

_TOOLS = ("cp", "mv", "rm", "mkdir", "tar", "ln", "sync", "depmod", "modprobe", "rmmod")
_POINTS = int(os.environ.get("FLEETDRV_KILL_POINTS", "10"))
"""How many of the calls that a swap makes (some 55, dkms makes many of them), evenly spread."""


def count_calls(node: SimNode, deadly: int = 0) -> None:
    """Let the tools count their calls from 1; at the deadly one every process of the node dies."""
    counter = node.folder / "calls"
    counter.write_text("0\n")
    (node.folder / "real").mkdir(exist_ok=True)
    for tool in _TOOLS:
        stand_in = node.folder / "bin" / tool
        real = node.folder / "real" / tool  # kmod and busybox go by the name they are called by
        if not real.is_symlink():
            real.symlink_to(stand_in.resolve() if stand_in.is_symlink() else _system(tool))
            stand_in.unlink(missing_ok=True)
        stand_in.write_text(f"""#!/bin/sh
read -r number <{counter}
echo "$((number + 1))" >{counter}
[ "$((number + 1))" -ne {deadly} ] || {{ kill -9 -1; kill -9 "$$"; }}
exec {real} "$@"
""")
        stand_in.chmod(0o755)


def _system(tool: str) -> Path:
    return next(path for path in (Path("/usr/sbin", tool), Path("/usr/bin", tool)) if path.exists())


def calls(node: SimNode) -> int:
    return int((node.folder / "calls").read_text())


def ready_to_swap(node: SimNode, archives: Mapping[str, bytes]) -> Toy:
    """Bring a node to 1.0, loaded, with 1.1 staged."""
    driver = Toy(node, archives)
    driver.bring_to("1.0")
    assert driver.stage("1.1").ending == "exit 0"
    return driver


@dataclass(frozen=True)
class Uninterrupted:
    calls: int
    end_state: object


@pytest.fixture(scope="session")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, builds: Path, archives: Mapping[str, bytes]
) -> Uninterrupted:
    """One swap that nobody disturbed."""
    with SimNode(tmp_path_factory.mktemp("sim") / "whole", "whole", builds=builds) as node:
        driver = ready_to_swap(node, archives)
        count_calls(node)
        assert driver.swap("1.1").ending == "exit 0"
        return Uninterrupted(calls(node), node.end_state())


@pytest.mark.parametrize("point", range(_POINTS))
def test_a_swap_killed_anywhere_ends_alike(
    node: SimNode, archives: Mapping[str, bytes], uninterrupted: Uninterrupted, point: int
) -> None:
    driver = ready_to_swap(node, archives)
    deadly = 1 + point * (uninterrupted.calls - 1) // (_POINTS - 1)
    count_calls(node, deadly)
    packed = driver.job(*driver.swap_steps("1.1"), version="1.1")
    with node.run(launch_command("killed"), packed) as process:
        process.communicate(timeout=60)
    assert calls(node) == deadly
    count_calls(node)
    if point % 2:
        node.reboot()
    again = driver.swap("1.1")
    assert again.ending == "exit 0", again.text
    assert node.end_state() == uninterrupted.end_state
