"""The job protocol, run by the real launch.sh and run.sh on a simulated node."""

from __future__ import annotations

import io
import os
import re
import tarfile
from pathlib import Path

import pytest

from tests.sim.job import (
    SCRIPTS,
    attach,
    attach_command,
    bundle,
    launch,
    launch_command,
    probe,
    read_frames,
    rest,
)
from tests.sim.node import SimNode

pytestmark = pytest.mark.timeout(120)

_SAYS_BYTES = r"printf 'a\000b\377c'; echo >>/var/lib/fleetdrv/ran"
_WAITS = """
echo before
while [ ! -e /var/lib/fleetdrv/go ]; do sleep 0.05; done
printf 'after, without a newline'
"""
_GO = "touch /var/lib/fleetdrv/go"
_IMPATIENT = (SCRIPTS / "run.sh").read_text().replace("lock_seconds=30", "lock_seconds=1")


def ran(node: SimNode) -> int:
    """Tell how often the program _SAYS_BYTES ran."""
    path = node.state / "ran"
    return len(path.read_text().splitlines()) if path.exists() else 0


def refused(node: SimNode, command: str, stdin: bytes = b"") -> tuple[int, str]:
    """Run a command that has to fail; return its exit code and the reason, its last line on stderr."""
    with node.run(command, stdin) as process:
        said, complaint = process.communicate(timeout=30)
    assert said == b""
    return process.returncode, complaint.decode().splitlines()[-1]


def test_log_is_byte_exact_and_the_end_names_the_step(node: SimNode) -> None:
    steps = [("say bytes", "say.sh"), ("then fail", "fail.sh"), ("never", "say.sh")]
    programs = {"say.sh": _SAYS_BYTES, "fail.sh": "echo 'the reason' >&2; exit 7"}
    followed = launch(node, "job-1", bundle(steps, programs=programs))
    assert followed.log == b"== say bytes\na\0b\xffc== then fail\nthe reason\n"
    assert followed.ending == "exit 7 then fail"
    assert ran(node) == 1
    assert (node.state / "jobs/job-1/rc").read_text() == "7 then fail\n"


def test_success_names_no_step(node: SimNode) -> None:
    packed = bundle([("say bytes", "say.sh")], programs={"say.sh": _SAYS_BYTES})
    assert launch(node, "job-1", packed, kind="background").ending == "exit 0"


def test_steps_get_their_arguments_and_no_stdin(node: SimNode) -> None:
    programs = {"args.sh": 'printf "<%s>" "$@"; cat; pwd'}
    followed = launch(node, "job-1", bundle([("args", "args.sh", "a b", "c'd", "$e")], programs=programs))
    assert followed.text == "== args\n<a b><c'd><$e>/var/lib/fleetdrv/jobs/job-1\n"


def test_launching_twice_runs_once_and_both_see_all(node: SimNode) -> None:
    packed = bundle([("say bytes", "say.sh")], programs={"say.sh": _SAYS_BYTES})
    with node.run(launch_command("job-1"), packed) as one, node.run(launch_command("job-1"), packed) as two:
        outputs = [process.communicate(timeout=30)[0] for process in (one, two)]
    first, second = map(read_frames, outputs)
    assert first.log == second.log == b"== say bytes\na\0b\xffc"
    assert (first.ending, second.ending, ran(node)) == ("exit 0", "exit 0", 1)
    assert launch(node, "job-1", packed).log == first.log
    assert ran(node) == 1


def test_same_id_with_another_digest_is_refused(node: SimNode) -> None:
    packed = bundle([("say bytes", "say.sh")], programs={"say.sh": _SAYS_BYTES})
    launch(node, "job-1", packed, digest="aaa")
    code, reason = refused(node, launch_command("job-1", "bbb"), packed)
    assert (code, reason) == (65, "job-1: taken by another job, digest aaa, not bbb")
    assert ran(node) == 1


def test_lower_token_is_refused_by_the_job_itself(node: SimNode) -> None:
    steps, programs = [("say bytes", "say.sh")], {"say.sh": _SAYS_BYTES}
    launch(node, "new", bundle(steps, programs=programs, token=7))
    followed = launch(node, "old", bundle(steps, programs=programs, token=6))
    assert followed.ending == "exit 77 token"
    assert followed.text == "token 6 is older than 7: another controller took over\n"
    assert ran(node) == 1
    assert launch(node, "equal", bundle(steps, programs=programs, token=7)).ending == "exit 0"
    assert "token\t7\n" in probe(node, "pool", "gpu")


def test_torn_token_line_does_not_hide_the_highest(node: SimNode) -> None:
    torn = b"5 run-1 2026-01-01\n6 run-2 2026\n\0\0\0"
    node.call("mkdir -p /var/lib/fleetdrv/tokens; cat >/var/lib/fleetdrv/tokens/gpu", torn)
    steps, programs = [("say bytes", "say.sh")], {"say.sh": _SAYS_BYTES}
    assert launch(node, "old", bundle(steps, programs=programs, token=5)).ending == "exit 77 token"
    assert launch(node, "new", bundle(steps, programs=programs, token=8)).ending == "exit 0"
    assert launch(node, "older", bundle(steps, programs=programs, token=7)).ending == "exit 77 token"


def test_busy_node_names_who_holds_it(node: SimNode) -> None:
    waits = bundle([("wait", "wait.sh")], programs={"wait.sh": _WAITS}, run="run-a")
    with node.run(launch_command("first"), waits) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().startswith(b"log 0 ")
        own = {"run.sh": _IMPATIENT, "say.sh": _SAYS_BYTES}
        followed = launch(node, "second", bundle([("say", "say.sh")], programs=own))
        assert followed.ending == "exit 75 lock"
        assert followed.text.startswith("another job holds the node: first run run-a token 1 pid ")
        node.call(_GO)
        holder.communicate(timeout=30)
    assert ran(node) == 0


def test_job_outlives_its_follower_and_is_followed_from_the_same_byte(node: SimNode) -> None:
    packed = bundle([("wait", "wait.sh")], programs={"wait.sh": _WAITS})
    with node.run(launch_command("job-1"), packed) as follower:
        assert follower.stdout is not None
        said = b""
        while b"before" not in said:
            said += os.read(follower.stdout.fileno(), 65536)
        follower.kill()  # and both pipes close: the link is gone
    seen = read_frames(said)
    assert seen.log == b"== wait\nbefore\n"
    assert "\nrunning\n" not in probe(node)
    node.call(_GO)
    rest = attach(node, "job-1", seen.offset)
    assert seen.log + rest.log == b"== wait\nbefore\nafter, without a newline"
    assert rest.ending == "exit 0"


def test_killed_runner_is_interrupted_and_its_child_keeps_the_lock(node: SimNode) -> None:
    packed = bundle([("wait", "wait.sh")], programs={"wait.sh": _WAITS})
    with node.run(launch_command("job-1"), packed) as follower:
        assert follower.stdout is not None
        said = follower.stdout.readline()
        node.call("read -r _ pid _ </var/lib/fleetdrv/jobs/job-1/started && kill -9 $pid")
        said += rest(follower)
    assert read_frames(said).ending == "interrupted"
    own = {"run.sh": _IMPATIENT, "say.sh": _SAYS_BYTES}
    assert launch(node, "second", bundle([("say", "say.sh")], programs=own)).ending == "exit 75 lock"
    assert "job\tjob-1\tinterrupted\t\t\n" in probe(node)
    node.call(_GO)
    packed = bundle([("say", "say.sh")], programs={"say.sh": _SAYS_BYTES})
    assert launch(node, "third", packed).ending == "exit 0"


def test_a_polite_end_is_not_for_a_job(node: SimNode) -> None:
    """A shutdown tells the runner to end; the unit's TimeoutStopSec gives it the time to finish instead."""
    packed = bundle(
        [("wait", "wait.sh"), ("say", "say.sh")], programs={"wait.sh": _WAITS, "say.sh": _SAYS_BYTES}
    )
    with node.run(launch_command("job-1"), packed) as follower:
        assert follower.stdout is not None
        said = follower.stdout.readline()
        node.call(
            "read -r _ pid _ </var/lib/fleetdrv/jobs/job-1/started && kill -TERM $pid && kill -HUP $pid"
        )
        node.call(_GO)
        said += rest(follower)
    assert (read_frames(said).ending, ran(node)) == ("exit 0", 1)


def test_reboot_interrupts(node: SimNode) -> None:
    packed = bundle([("wait", "wait.sh")], programs={"wait.sh": _WAITS})
    with node.run(launch_command("job-1"), packed) as follower:
        assert follower.stdout is not None
        follower.stdout.readline()
        node.reboot()
        rest(follower)
    followed = attach(node, "job-1")
    assert (followed.ending, followed.text) == ("interrupted", "== wait\nbefore\n")


def test_attach_to_nothing_says_missing(node: SimNode) -> None:
    assert attach(node, "job-1").ending == "missing"


@pytest.mark.parametrize("kept_bytes", [3000, "all but meta"])
def test_a_cut_upload_leaves_no_job(node: SimNode, kept_bytes: int | str) -> None:
    packed = bundle([("say bytes", "say.sh")], programs={"say.sh": _SAYS_BYTES})
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        length = tar.getmember("meta").offset if isinstance(kept_bytes, str) else kept_bytes
    code, reason = refused(node, launch_command("job-1"), packed[:length])
    assert (code, reason) == (74, "job-1: the bundle did not arrive whole")
    assert [path.name for path in (node.state / "jobs").iterdir()] == []
    assert launch(node, "job-1", packed).ending == "exit 0"


def test_claimed_and_never_started_is_started_by_attach(node: SimNode) -> None:
    packed = bundle([("say bytes", "say.sh")], programs={"say.sh": _SAYS_BYTES})
    folder = "/var/lib/fleetdrv/jobs/job-1"
    node.call(f"mkdir -p {folder}; cd {folder}; tar -xf -; echo d1 >digest; : >log", packed)
    assert "job\tjob-1\tclaimed\t\t\n" in probe(node)
    assert attach(node, "job-1").ending == "exit 0"
    node.call("/bin/sh /var/lib/fleetdrv/jobs/job-1/run.sh job-1")
    assert ran(node) == 1


def test_claimed_for_another_plan_and_never_started_is_superseded(node: SimNode) -> None:
    packed = bundle([("say bytes", "say.sh")], programs={"say.sh": _SAYS_BYTES})
    folder = "/var/lib/fleetdrv/jobs/job-1"
    node.call(f"mkdir -p {folder}; cd {folder}; tar -xf -; echo d0 >digest; : >log", packed)
    for _ in range(2):
        assert launch(node, "job-1", packed).ending == "exit 65 superseded"
    node.call("/bin/sh /var/lib/fleetdrv/jobs/job-1/run.sh job-1")
    assert ran(node) == 0, "no runner begins what was superseded"
    assert "job\tjob-1\tdone\t65\tsuperseded\n" in probe(node)
    assert launch(node, "job-2", packed).ending == "exit 0"


def test_a_slow_unpacking_is_no_silence(node: SimNode) -> None:
    packed = bundle([("say bytes", "say.sh")], programs={"say.sh": _SAYS_BYTES})
    quick = launch_command("job-1").replace("sleep 5", "sleep 0.1")
    slow = quick.replace("    new=$fleetdrv", "    sleep 1; new=$fleetdrv")
    with node.run(slow, packed) as process:
        said, _ = process.communicate(timeout=30)
    followed = read_frames(said)
    assert "beat 0 claimed" in followed.beats
    assert (followed.ending, ran(node)) == ("exit 0", 1)


@pytest.mark.parametrize("plan", ["if", "no-such-word x", "step 'not there' none.sh"])
def test_a_bad_plan_ends_in_an_exit_status(node: SimNode, plan: str, tmp_path: Path) -> None:
    packed = bundle([("say bytes", "say.sh")], programs={"say.sh": _SAYS_BYTES})
    (tmp_path / "x").mkdir()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(tmp_path / "x", filter="data")
    (tmp_path / "x/plan.sh").write_text(f"{plan}\nstep 'say bytes' say.sh\n")
    again = io.BytesIO()
    with tarfile.open(fileobj=again, mode="w") as tar:
        for name in ("run.sh", "job.sh", "say.sh", "plan.sh", "meta"):
            tar.add(tmp_path / "x" / name, name)
    followed = launch(node, "job-1", again.getvalue())
    assert re.fullmatch("exit (2|127) (plan|not there)", followed.ending)
    assert ran(node) == 0


def test_only_the_newest_jobs_are_kept(node: SimNode) -> None:
    packed = bundle([("nothing", "true.sh")], programs={"true.sh": "exit 0"})
    for number in range(22):
        launch(node, f"job-{number}", packed)
    launch(node, "last", packed)
    jobs = {line.split("\t")[1] for line in probe(node).splitlines() if line.startswith("job\t")}
    assert {"last", "job-21", "job-4"} <= jobs
    assert "job-0" not in jobs
    assert len(jobs) <= 21


def test_silence_is_broken_by_beats(node: SimNode) -> None:
    packed = bundle([("wait", "wait.sh")], programs={"wait.sh": _WAITS})
    quick = launch_command("job-1").replace("-ge 20", "-ge 1")
    with node.run(quick, packed) as follower:
        assert follower.stdout is not None
        said = b""
        while b"beat " not in said:
            said += follower.stdout.readline()
        node.call(_GO)
        said += rest(follower)
    followed = read_frames(said)
    assert followed.beats[-1].split()[::2] == ["beat", "running"]
    assert followed.ending == "exit 0"


@pytest.mark.parametrize(
    "command",
    [
        launch_command("../x"),
        launch_command("a/b"),
        launch_command(".x"),
        launch_command(""),
        launch_command("x", kind="foreground"),
        attach_command("x", -1),
        attach_command("x").replace("attach x", "detach x"),
    ],
)
def test_what_is_no_id_class_or_offset_is_refused(node: SimNode, command: str) -> None:
    assert refused(node, command)[0] == 64
    assert not node.state.exists()
