"""Runs on a practice node: ends its SSH sessions at random moments, and writes down what dpkg was at each time.

It ends the sessions of everybody, so it refuses to run on anything but a practice node.

Usage: cutter.py SEED FILE      until FILE.stop is there; a line of JSON in FILE for each cut
"""

import contextlib
import glob
import json
import os
import random
import signal
import sys
import time

MOST_IDLE = 3
"""So many cuts in a row while no job runs: a look that loses five links in a row says that the node is not fit."""
LONGEST_SECONDS = 3.0
KINDS = ("unpack", "configure")
PRACTICE = "/etc/fleetdrv-lab.json"
"""Comes with a practice node's seed."""


def words(pid: str) -> list[str]:
    """Read the command line of a process, an empty word where it has just ended."""
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().split("\0")
    except OSError:
        return [""]


def processes() -> dict[str, list[str]]:
    """List all that run."""
    return {path.rsplit("/", 1)[1]: words(path.rsplit("/", 1)[1]) for path in glob.glob("/proc/[0-9]*")}


def dpkg(running: dict[str, list[str]]) -> str:
    """Say what dpkg does, if it does anything."""
    for line in running.values():
        if line[0].rsplit("/", 1)[-1] == "dpkg":
            for kind in KINDS:
                if f"--{kind}" in line:
                    return kind
    return ""


def job_runs() -> bool:
    """Tell whether a job is at work: not one that an earlier power cut ended, which has no end written either."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        now = file.read().strip()
    for path in glob.glob("/var/lib/fleetdrv/jobs/*/started"):
        with open(path) as file:
            boot, pid, _ = file.read().split()
        if boot == now and words(pid)[0] and not os.path.exists(os.path.join(os.path.dirname(path), "rc")):
            return True
    return False


def main() -> None:
    """Cut again and again."""
    if not os.path.exists(PRACTICE):
        sys.exit(f"not a practice node: there is no {PRACTICE}")
    chance, path, idle = random.Random(sys.argv[1]), sys.argv[2], 0
    while not os.path.exists(f"{path}.stop"):
        time.sleep(chance.uniform(0, LONGEST_SECONDS))
        running = processes()
        sessions = [pid for pid, line in running.items() if line[0].startswith("sshd: root@")]
        if not sessions:
            continue
        idle = 0 if job_runs() else idle + 1
        if idle > MOST_IDLE:
            continue
        doing = dpkg(running)
        for pid in sessions:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        with open(path, "a") as file:
            file.write(json.dumps({"dpkg": doing, "at": time.time()}) + "\n")


if __name__ == "__main__":
    main()
