"""The operator's hooks, as real processes: asked, heard, told what they must know, and ended in time."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv.calling import Caller, NodeHooks, Veto, call
from fleetdrv.events import Event, Level
from fleetdrv.hooks import Hook, Hooks, environment

SAY = "echo first; echo out of memory >&2; exit 3"


def sh(script: str, *arguments: str, seconds: int = 30) -> Hook:
    return Hook(command=("/bin/sh", "-c", script, "hook", *arguments), timeout_seconds=seconds)


def told(hook: Hook, folder: Path, variables: Mapping[str, str] | None = None) -> tuple[str, list[str]]:
    """Call one hook; return why it failed and what it said."""
    heard: list[str] = []
    return call(hook, folder, variables or {}, heard.append), heard


def a_caller(folder: Path, said: list[Event], **lists: Any) -> Caller:
    return Caller(hooks=Hooks(**lists), folder=folder, about={"pool": "gpu", "playbook": "toy"}, say=said.append)


def test_what_a_hook_says_and_how_it_ends_is_heard(tmp_path: Path) -> None:
    assert told(sh("echo one; printf two"), tmp_path) == ("", ["one", "two"])
    assert told(sh(SAY), tmp_path) == ("exit 3", ["first", "out of memory"])
    assert told(sh("kill -9 $$"), tmp_path) == ("ended by signal 9", [])
    assert told(sh("printf '\\377x\\n'"), tmp_path) == ("", ["\ufffdx"])


def test_no_shell_sees_the_arguments(tmp_path: Path) -> None:
    words = ("$(touch made)", "a b", "; exit 1", "*")
    assert told(sh('printf "%s\\n" "$@"', *words), tmp_path) == ("", list(words))
    assert not (tmp_path / "made").exists()


def test_a_hook_runs_in_the_playbooks_folder_without_input(tmp_path: Path) -> None:
    program = tmp_path / "ask.sh"
    program.write_text("#!/bin/sh\npwd; cat; echo $FLEETDRV_NODE $HOME\n")
    program.chmod(0o755)
    why, heard = told(Hook(command=("./ask.sh",)), tmp_path, {"FLEETDRV_NODE": "n1"})
    assert (why, heard) == ("", [str(tmp_path), f"n1 {os.environ['HOME']}"])


@pytest.mark.parametrize("command", ["./missing", "no-such-program-anywhere", "."])
def test_a_hook_that_cannot_be_started_has_failed(tmp_path: Path, command: str) -> None:
    assert told(Hook(command=(command,)), tmp_path)[0].startswith("cannot be started: ")


def test_a_hook_out_of_time_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    hook = sh("trap '' TERM; (trap '' TERM; sleep 300) & echo $! > child; echo asking; wait; sleep 300", seconds=3)
    why, heard = told(hook, tmp_path)
    assert why == "killed, it took longer than 3 s"
    assert heard == ["asking"]
    assert time.monotonic() - began < 20
    child = int((tmp_path / "child").read_text())
    for _ in range(100):  # it was killed; a busy machine may take its time to see it dead
        if not alive(child):
            return
        time.sleep(0.1)
    raise AssertionError("what it started is alive")


def test_time_is_counted_also_for_one_that_closed_its_output_or_talks_without_end(tmp_path: Path) -> None:
    for script in ("exec >&- 2>&-; sleep 300", "yes"):
        assert told(sh(script, seconds=1), tmp_path)[0] == "killed, it took longer than 1 s"


def test_what_a_hook_leaves_behind_on_purpose_is_not_waited_for(tmp_path: Path) -> None:
    began = time.monotonic()
    assert told(sh("sleep 20 & echo $! > child; echo done"), tmp_path) == ("", ["done"])
    assert time.monotonic() - began < 10
    os.kill(int((tmp_path / "child").read_text()), 9)


def test_a_line_without_end_is_told_in_pieces(tmp_path: Path) -> None:
    why, heard = told(sh("head -c 300000 /dev/zero | tr '\\0' x"), tmp_path)
    assert why == ""
    assert all(len(line) <= 4096 for line in heard)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---- lists


def test_the_first_no_is_a_veto_and_ends_the_list(tmp_path: Path) -> None:
    said: list[Event] = []
    caller = a_caller(tmp_path, said, before_run=(sh("touch one"), sh(SAY), sh("touch three")))
    with pytest.raises(Veto, match=r"vetoed by the before_run hook: /bin/sh .*: exit 3: out of memory"):
        caller.before("before_run", run="r1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]
    assert "before_run: out of memory" in [event.text for event in said]


def test_a_hook_after_the_fact_fails_as_a_warning_and_the_next_is_called(tmp_path: Path) -> None:
    said: list[Event] = []
    a_caller(tmp_path, said, after_run=(sh(SAY), sh("touch two"))).after("after_run", run="r1")
    assert (tmp_path / "two").exists()
    (warning,) = [event for event in said if event.level is Level.WARNING]
    assert warning.text.endswith("exit 3: out of memory")


def test_hooks_around_a_node_are_told_all_about_it(tmp_path: Path) -> None:
    show = sh("env | grep ^FLEETDRV_ | sort > $FLEETDRV_HOOK")
    caller = a_caller(tmp_path, [], before_node=(show,), after_node=(show,))
    hooks = NodeHooks(caller=caller, host="host-1", node="node-1")
    hooks.after("r1", "converged", "", None)
    assert not (tmp_path / "after_node").exists(), "its turn did not begin"
    assert hooks.before("r1", "toy: loaded not as wanted")
    assert not hooks.before("r1", "toy: loaded not as wanted"), "once in a turn"
    hooks.after("r1", "changed", "verified: nothing left to do", 21.26)
    common = ["FLEETDRV_HOST=host-1", "FLEETDRV_NODE=node-1", "FLEETDRV_PLAYBOOK=toy", "FLEETDRV_POOL=gpu"]
    lines = (tmp_path / "before_node").read_text().splitlines()
    assert [line for line in lines if line in common] == common
    why = "FLEETDRV_REASON=toy: loaded not as wanted"
    assert {"FLEETDRV_HOOK=before_node", "FLEETDRV_RUN=r1", why} <= {*lines}
    lines = (tmp_path / "after_node").read_text().splitlines()
    assert {"FLEETDRV_VERDICT=changed", "FLEETDRV_SECONDS_OUT=21.3", *common} <= {*lines}
    (tmp_path / "after_node").unlink()
    hooks.after("r1", "changed", "", None)
    assert not (tmp_path / "after_node").exists(), "once in a turn"


def test_a_node_whose_hook_said_no_has_no_end(tmp_path: Path) -> None:
    hooks = NodeHooks(caller=a_caller(tmp_path, [], before_node=(sh("exit 1"),), after_node=(sh("touch end"),)))
    with pytest.raises(Veto):
        hooks.before("r1", "why")
    hooks.after("r1", "blocked", "", None)
    assert not list(tmp_path.iterdir())


@given(st.text(max_size=5000))
def test_any_reason_is_one_line_of_the_environment(text: str) -> None:
    (value,) = {environment("before_node", reason=text)["FLEETDRV_REASON"]}
    assert len(value) <= 2000
    assert len(value.splitlines()) <= 1
    assert "\0" not in value
    os.fsencode(value)


CHATTY = "(while :; do echo still here; done) & echo $! > child; exit 0"


def test_a_hook_that_ended_well_is_not_held_by_a_child_that_talks_on(tmp_path: Path) -> None:
    began = time.monotonic()
    try:
        assert told(sh(CHATTY, seconds=5), tmp_path)[0] == ""
        assert time.monotonic() - began < 4
    finally:
        os.kill(int((tmp_path / "child").read_text()), 9)
