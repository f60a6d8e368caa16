"""A rollout as an operator has it: on a real terminal, with Ctrl-C, signals, and somebody else who looks on."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.rollout.points import Moment
from tests.rollout.sim_fleet import SimFleet
from tests.rollout.test_hooks import with_hooks
from tests.screens.tmux import Terminal
from tests.sim.job import bundle, launch_command
from tests.sim.node import SimNode

WAITS = "echo before; while [ ! -e /var/lib/fleetdrv/go ]; do sleep 0.05; done; echo after; exit 7"
GO = "touch /var/lib/fleetdrv/go"


def on_terminal(fleet: SimFleet, *words: str) -> Terminal:
    """Run fleetdrv in a window, and tell there how it ended."""
    environment = {
        "KUBECONFIG": str(fleet.api.kubeconfig),
        "XDG_STATE_HOME": str(fleet.folder),
        "XDG_CACHE_HOME": str(fleet.folder / "cache"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = f"{shlex.join(['fleetdrv', *words])}; echo EXIT $?; exec sleep 300"
    return Terminal(fleet.folder, command, 100, 30, environment)


def apply(fleet: SimFleet, version: str = "1.0") -> list[str]:
    """Return the words that apply a version, asking first."""
    return ["apply", str(fleet.playbook(version)), "-i", str(fleet.inventory)]


@pytest.mark.parametrize("answer", ["n", "", "yess"])
def test_whoever_does_not_say_yes_has_touched_nothing(fleet: SimFleet, answer: str) -> None:
    with on_terminal(fleet, *apply(fleet)) as terminal:
        terminal.until("Apply this plan? [y/N]")
        terminal.type(*([answer] if answer else []), "Enter")
        seen = terminal.until("EXIT")
    assert "not confirmed; nothing was touched" in seen
    assert "EXIT 3" in seen
    assert fleet.writes() == []
    assert fleet.lease() is None


def test_a_rollout_on_a_terminal_ends_with_the_recap_and_a_whole_terminal(fleet: SimFleet) -> None:
    with on_terminal(fleet, *apply(fleet)) as terminal:
        terminal.until("Apply this plan? [y/N]")
        terminal.type("y", "Enter")
        terminal.until("of at most 1 out of service")
        terminal.until("EXIT")
        seen = terminal.settled(scrolled=True)
        assert terminal.cursor()[:2] == ("1", "0")
    assert "EXIT 0" in seen
    assert ": changed (2 nodes, " in seen.replace("\n", "")
    assert "out of service ·" not in seen, "the view is gone"
    assert "stage     toy" not in seen, "lines are for who has no terminal"


def test_ctrl_c_on_a_terminal_finishes_the_node_in_hand_and_leaves_the_terminal_whole(fleet: SimFleet) -> None:
    with on_terminal(fleet, *apply(fleet), "--yes") as terminal:
        terminal.until("1 of at most 1 out of service")
        terminal.type("C-c")
        seen = terminal.until("EXIT")
        assert terminal.cursor()[:2] == ("1", "0")
    assert "EXIT 130" in seen
    assert "stopped: interrupted" in seen
    out = [name for name in fleet.nodes if fleet.node(name)["spec"].get("unschedulable")]
    assert out == []


def test_a_second_ctrl_c_leaves_the_terminal_whole_too(fleet: SimFleet) -> None:
    book = with_hooks(fleet, "1.0", before_node="sleep 10")
    with on_terminal(fleet, "apply", str(book), "-i", str(fleet.inventory), "--yes") as terminal:
        terminal.until("in outage")
        terminal.type("C-c")
        terminal.until("no more nodes start, those in hand are finished: interrupted")
        terminal.type("C-c")
        seen = terminal.until("EXIT")
        assert terminal.cursor()[:2] == ("1", "0")
    assert "EXIT 130" in seen
    assert "left: jobs on nodes run on" in seen
    assert fleet.apply("1.0").code == 0


def test_without_a_terminal_nobody_is_asked_and_a_signal_is_answered(fleet: SimFleet) -> None:
    with fleet.start("apply", str(fleet.playbook("1.0")), "-i", str(fleet.inventory)) as process:
        assert process.stderr
        told = [process.stderr.readline().decode()]
        while "cordon" not in told[-1]:
            told.append(process.stderr.readline().decode())
        os.kill(process.pid, signal.SIGUSR1)
        out, rest = process.communicate(timeout=120)
    assert "; 1 of at most 1 out of service; " in rest.decode()
    assert process.returncode == 0, rest
    assert ": changed (2 nodes, " in out.decode()
    assert "\x1b" not in rest.decode()


# ---- looking on


def a_job(node: SimNode, program: str = WAITS) -> None:
    """Start a job on a node, and leave."""
    command = launch_command("r1.outage.1")
    with node.run(command, bundle([("wait", "wait.sh")], programs={"wait.sh": program})) as process:
        assert process.stdout
        while b"before" not in process.stdout.readline():
            pass
        process.kill()


def everything(node: SimNode) -> dict[str, tuple[int, int]]:
    """Return what lies on the node, with time of change and size."""
    found = {}
    for path in sorted(node.state.rglob("*")):
        about = path.lstat()
        found[str(path)] = (about.st_mtime_ns, about.st_size)
    return found


def test_somebody_who_looks_on_sees_the_job_live_and_writes_nothing(fleet: SimFleet) -> None:
    name, node = next(iter(fleet.nodes.items()))
    a_job(node)
    before = everything(node)
    fleet.points.arm(-1, Moment.BEFORE)
    with fleet.start("attach", name, "-i", str(fleet.inventory)) as process:
        assert process.stdout
        assert [process.stdout.readline() for _ in range(2)] == [b"== wait\n", b"before\n"]
        assert everything(node) == before
        node.call(GO)
        out, errors = process.communicate(timeout=60)
    assert out == b"after\n"
    assert f"{name}: job r1.outage.1 ended: exit 7 in wait" in errors.decode()
    assert process.returncode == 4
    assert fleet.writes() == []
    ended = fleet.fleetdrv("attach", name, "-i", str(fleet.inventory), code=0)
    assert ended.out.startswith(f"{name}: no job runs there now; the last was r1.outage.1: done, exit 7 in wait")


@contextmanager
def attached(fleet: SimFleet, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody who looks on, and has seen the job's first line."""
    with fleet.start("attach", name, "-i", str(fleet.inventory)) as process:
        assert process.stdout
        while process.stdout.readline() != b"before\n":
            pass
        yield process


def test_ctrl_c_leaves_the_job_running(fleet: SimFleet) -> None:
    name, node = next(iter(fleet.nodes.items()))
    a_job(node)
    with attached(fleet, name) as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"{name}: left; job r1.outage.1 runs on" in errors.decode()
    assert not (node.state / "jobs/r1.outage.1/rc").exists()
    node.call(GO)
    wait_for(node.state / "jobs/r1.outage.1/rc")


def test_a_link_that_dies_is_taken_up_at_the_same_byte(fleet: SimFleet) -> None:
    name, node = next(iter(fleet.nodes.items()))
    a_job(node)
    with attached(fleet, name) as process:
        fleet.fronts[name].cut()
        node.call(GO)
        out, _ = process.communicate(timeout=90)
    assert (out, process.returncode) == (b"after\n", 4)


def test_a_job_that_was_never_started_is_not_started_by_who_looks_on(fleet: SimFleet) -> None:
    name, node = next(iter(fleet.nodes.items()))
    a_job(node)
    node.call(GO)
    job = node.state / "jobs/r1.outage.1"
    wait_for(job / "rc")
    node.call("cd /var/lib/fleetdrv/jobs/r1.outage.1 && rm started rc step && : >log")
    ended = fleet.fleetdrv("attach", name, "-i", str(fleet.inventory), code=0)
    assert "no job runs there now; the last was r1.outage.1: claimed" in ended.out
    time.sleep(0.5)
    assert not (job / "started").exists()


def test_logs_come_from_the_journal_and_from_the_node(fleet: SimFleet) -> None:
    fleet.apply("1.0")
    name = next(iter(fleet.nodes))
    run = json.loads(fleet.fleetdrv("status", fleet.tag, "--json").out)["pools"][0]["run"]
    here = fleet.fleetdrv("logs", run, name, "--json", code=0).json
    assert (here["schema"], here["run"], here["source"]) == ("fleetdrv/1", run, "journal")
    assert here["lines"][0] == "== toy: trial build of toy/1.0"
    for short in ("last", run[:-2]):
        assert fleet.fleetdrv("logs", short, name, code=0).out.splitlines() == here["lines"]
    (fleet.folder / "fleetdrv" / "runs" / f"{run}.jsonl").unlink()
    inventory = ("-i", str(fleet.inventory))
    there = fleet.fleetdrv("logs", run[:-2], name, *inventory, "--json", code=0).json
    assert (there["run"], there["source"]) == (run, "node")
    assert there["lines"][0] == f"# {run}.stage.1: done, exit 0"
    assert [line for line in there["lines"] if not line.startswith("# ")] == here["lines"]
    for words, why in (
        ((run, name), f"from the node itself: fleetdrv logs {run} {name} -i INVENTORY"),
        (("2001", name, *inventory), f"run 2001: none is kept on {name}; there: {run}"),
        ((run, "nobody", *inventory), "no host nobody; near: none is named like it, of 2"),
    ):
        assert why in fleet.fleetdrv("logs", *words, code=3).errors


def wait_for(path: Path) -> None:
    """Wait for a file."""
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} never came")
