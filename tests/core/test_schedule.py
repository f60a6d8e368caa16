"""Schedules, read back by the programs that they are for: systemd, cron; kubectl is in tests/cluster."""

from __future__ import annotations

import doctest
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fleetdrv import schedule
from fleetdrv.errors import InputError
from fleetdrv.schedule import PERIODS, Schedule
from tests.fixtures_cluster import eventually

ROOT = Path(__file__).parents[2]
FLEETDRV = str(Path(sys.executable).parent / "fleetdrv")
NASTY = (
    "plain", "two words", "50%", "%h %% %i", "$HOME ${HOME} $$", "it's", 'the "best"', "a;b|c&d>e", "*?[x]",
    "~root", "#no-comment", "größe", "", "-x", "`id`", "$(id)", "!x", "trailing ", "  leading", "=", "a=b", "{x}",
)  # fmt: skip
BACKSLASHES = ("\\", "a\\nb", "C:\\x\\", '\\"')


def a_schedule(*words: str, every: int = 15, **more: object) -> Schedule:
    """Return one that starts a program with these words."""
    values = {"pool": "gpu", "every_minutes": every, "argv": ("/bin/true", *words), **more}
    return Schedule(**values)  # type: ignore[arg-type]


def verify(folder: Path, due: Schedule) -> str:
    """Have systemd read the units; return its own account of them, and fail where it has any complaint."""
    for name, text in schedule.systemd(due).items():
        (folder / name).write_text(text)
    units = [str(folder / name) for name in schedule.systemd(due)]
    checked = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    debug = {**os.environ, "SYSTEMD_LOG_LEVEL": "debug"}
    read = subprocess.run(["systemd-analyze", "verify", units[0]], capture_output=True, env=debug, timeout=60)
    return read.stdout.decode()


def told(account: str, key: str) -> list[str]:
    """Return the values that systemd tells for a key."""
    return [line.partition(": ")[2] for line in account.splitlines() if line.strip().startswith(f"{key}: ")]


def words(text: str) -> list[str]:
    """Read words as systemd shows them: quoted as for a shell, but a word with a tilde is not."""
    return [word.replace("\\$", "$").replace("\\`", "`") for word in shlex.split(text)]


def test_systemd_reads_every_word_as_it_was_meant(tmp_path: Path) -> None:
    due = a_schedule(*NASTY, *BACKSLASHES, environment={"PATH": "/a b/50%:/bin", "K": 'x"$y\\'},
                     writes=("/srv/a b/50% $x",))  # fmt: skip
    account = verify(tmp_path, due)
    (line,) = told(account, "Command Line")
    assert words(line) == list(due.argv)
    assert {"PATH=/a b/50%:/bin", 'K=x"$y\\'} <= set(told(account, "Environment"))
    assert told(account, "ReadWritePaths") == ["-/srv/a b/50% $x"]


def test_systemd_takes_no_dollar_for_a_variable_and_finds_a_program_with_a_space(tmp_path: Path) -> None:
    program = tmp_path / "a $b 50%" / "fleetdrv"
    program.parent.mkdir()
    shutil.copy("/bin/true", program)
    due = Schedule(pool="gpu", every_minutes=15, argv=(str(program), "$HOME"))
    (line,) = told(verify(tmp_path, due), "Command Line")
    assert words(line) == [str(program), "$HOME"]
    assert 'ExecStart=":/' in schedule.systemd(due)["fleetdrv-gpu.service"], "the colon switches variables off"


@pytest.mark.parametrize("every", PERIODS)
def test_systemd_and_cron_start_at_the_same_minutes_all_through_the_hour(every: int) -> None:
    due = a_schedule(every=every, pool="rack-7")
    timer = schedule.systemd(due)["fleetdrv-rack-7.timer"]
    (calendar,) = (line.partition("=")[2] for line in timer.splitlines() if line.startswith("OnCalendar="))
    argv = ["systemd-analyze", "calendar", "--iterations=13", "--base-time=2026-11-25 08:00:00 UTC", calendar]
    zone = {**os.environ, "TZ": "UTC"}
    shown = subprocess.run(argv, capture_output=True, text=True, check=True, env=zone).stdout
    starts = [line.split()[-2] for line in shown.splitlines() if " 2026-11-25 " in line and "UTC" in line]
    minutes = {int(time.split(":")[1]) for time in starts}
    assert minutes == set(map(int, due.cron_times.split()[0].split(",")))
    assert len(minutes) == 60 // every


def test_cron_runs_every_word_as_it_was_meant(tmp_path: Path) -> None:
    """Debian's cron itself, in a mount namespace with a spool of its own; it looks once a minute."""
    folder = tmp_path / "50% of it's"
    folder.mkdir()
    program = folder / "keep"
    program.write_text('#!/bin/sh\nprintf "%s\\0" "$0" "$@" "$K" >"$(dirname "$0")/new"\nmv "$(dirname "$0")"/new '
                       '"$(dirname "$0")"/got\n')  # fmt: skip
    program.chmod(0o755)
    due = Schedule(pool="gpu", every_minutes=15, argv=(str(program), *NASTY), environment={"K": "a b 5%"})
    line = schedule.cron(due)
    table = tmp_path / "crontab"
    table.write_text(f"{line}\n")
    checked = subprocess.run(["crontab", "-n", str(table)], capture_output=True, text=True, timeout=10)
    assert checked.returncode == 0, checked.stderr
    assert line.startswith(due.cron_times)
    table.write_text(f"* * * * *{line.removeprefix(due.cron_times)}\n")
    spool = ("set -e; for d in /var/spool/cron /etc/cron.d /run; do mount -t tmpfs none $d; done; "
             "mkdir -m 1730 /var/spool/cron/crontabs; install -m 600 \"$0\" /var/spool/cron/crontabs/root; "
             "exec cron -f")  # fmt: skip
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    cron = subprocess.Popen([*alone, "sh", "-c", spool, str(table)], stdin=subprocess.DEVNULL)
    try:
        eventually((folder / "got").exists, "cron's next minute", 150)
    finally:
        cron.send_signal(signal.SIGKILL)
        cron.wait(10)
    assert (folder / "got").read_text().split("\0")[:-1] == [*due.argv, "a b 5%"]


@pytest.mark.parametrize("word", BACKSLASHES)
def test_cron_gets_no_backslash(word: str) -> None:
    with pytest.raises(InputError, match="backslash"):
        schedule.cron(a_schedule(word))


def test_a_line_that_cron_would_cut_or_refuse_is_refused(tmp_path: Path) -> None:
    longest = a_schedule("x" * (998 - len("/bin/true ")))
    table = tmp_path / "crontab"
    table.write_text(f"{schedule.cron(longest)}\n")
    assert subprocess.run(["crontab", "-n", str(table)], capture_output=True, timeout=10).returncode == 0
    with pytest.raises(InputError, match="998 bytes"):
        schedule.cron(a_schedule("x" * (999 - len("/bin/true "))))


@pytest.mark.parametrize("sign", ["\n", "\r", "\0", "\x1b", "\u2028"])
def test_a_sign_that_no_schedule_can_hold_is_refused(sign: str) -> None:
    with pytest.raises(InputError, match="cannot hold"):
        schedule.demand_words(a_schedule(f"a{sign}b"))
    schedule.demand_words(a_schedule(*NASTY, *BACKSLASHES))


def run(*arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `fleetdrv schedule`."""
    argv, variables = [FLEETDRV, "schedule", *arguments], {**os.environ, **environment}
    done = subprocess.run(argv, capture_output=True, text=True, env=variables, timeout=60, cwd=ROOT)
    assert done.returncode == code, done
    return done


BOOK = ("playbooks/toy-1.1.yaml", "-i", "inventories/example.yaml")


def test_what_is_printed_starts_remediate_with_absolute_paths() -> None:
    printed = run(*BOOK, "--print", "cron", "--context", "lab", "--every", "30", KUBECONFIG="kube/a:b").stdout
    line = printed.splitlines()[-1]
    fields = shlex.split(line)
    assert len(fields[0].split(",")) == 2
    path, kubeconfig, *argv = fields[5:]
    assert path.startswith("PATH=/")
    assert kubeconfig == f"KUBECONFIG={ROOT}/kube/a:{ROOT}/b"
    words = [FLEETDRV, "remediate", f"{ROOT}/{BOOK[0]}", "--inventory", f"{ROOT}/{BOOK[2]}", "--quiet"]
    assert argv == [*words, "--context", "lab"]


def test_the_printed_units_are_the_two_files_that_systemd_takes(tmp_path: Path) -> None:
    metrics = str(tmp_path / "gpu.prom")
    printed = run(*BOOK, "--print", "systemd", "--metrics-file", metrics).stdout
    head, *parts = printed.split("# ---- /etc/systemd/system/")
    assert "systemctl enable --now fleetdrv-gpu.timer" in head
    for part in parts:
        name, _, text = part.partition("\n")
        (tmp_path / name).write_text(text)
    files = sorted(map(str, tmp_path.glob("fleetdrv-gpu.*")))
    assert [Path(name).suffix for name in files] == [".service", ".timer"]
    checked = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert f'ReadWritePaths="-{tmp_path}"' in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "say one of systemd, cron, cronjob"),
        (("--print", "at"), "say one of systemd, cron, cronjob"),
        (("--print", "cron", "--every", "7"), "one of 5, 10, 15, 20, 30, 60"),
        (("--print", "cronjob"), "--image"),
        (("--print", "cron", "--image", "x"), "--image"),
        (("--print", "cronjob", "--image", "x", "--context", "lab"), "mean nothing in a pod"),
        (("--print", "cron", "--pushgateway", "http://a:b@c"), "no user or password"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(arguments: tuple[str, ...], says: str) -> None:
    assert says in run(*BOOK, *arguments, code=3).stderr


def test_a_cronjob_keeps_off_the_pool_that_it_drains_and_mounts_what_the_playbook_names() -> None:
    printed = run(*BOOK, "--print", "cronjob", "--image", "registry/fleetdrv:1").stdout
    job = list(yaml.safe_load_all(printed))[-1]["spec"]
    spec = job["jobTemplate"]["spec"]["template"]["spec"]
    affinity = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (outside,) = affinity["nodeSelectorTerms"][0]["matchExpressions"]
    assert (outside["operator"], outside["values"]) == ("NotIn", ["gpu-01", "ip-192-0-2-12.example.net"])
    files = {item["path"] for item in spec["volumes"][0]["configMap"]["items"]}
    assert files == {"playbook.yaml", "inventory.yaml", "archives/toy-1.1.tar"}
    assert "--from-file=file-0=playbooks/archives/toy-1.1.tar" in printed
    assert job["concurrencyPolicy"] == "Forbid"


def test_a_long_pools_cronjob_has_a_name_that_the_api_takes() -> None:
    longest, other = ("p" * 62 + end for end in "ab")
    name = schedule.cronjob_name(longest)
    assert len(name) == 52
    assert name != schedule.cronjob_name(other)
    assert schedule.cronjob_name("gpu") == "fleetdrv-gpu"


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(schedule).failed == 0
