"""`python -m tests.bench [--quick] [--only NAME,…]`: print, write docs/bench-results.md and README's table.

What fleetdrv must reach by itself is measured first (limits.py), then it runs against its peers (compare.py).

Runs as root (or under sudo): the hosts are one sshd in a network namespace of their own, so that nothing but this
benchmark can reach it. Peers are installed once, into the user's cache folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench import outage, tools
from tests.bench.compare import race
from tests.bench.hosts import hosts
from tests.bench.limits import Limit, limits
from tests.bench.results import write

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Prepare with the network there, measure without."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("what", nargs="?", choices=("peers", "outage"), default="peers")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--hosts", default="100,500", help="how many, comma-separated; fewer take less time")
    parser.add_argument("--quick", action="store_true", help="within two minutes: few hosts, two rounds")
    parser.add_argument("--only", default="", help="contenders, comma-separated, by their names' beginnings")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--missing", default="", help=argparse.SUPPRESS)
    parser.add_argument("--print", action="store_true", help="write no file")
    given = parser.parse_args()
    if given.what == "outage":
        return outage.main(given.rounds)
    if given.inside:
        return _measure(given)
    names = [name.strip() for name in given.only.split(",") if name.strip()]
    missing = {}
    for tool in tools.TOOLS:
        if not names or any(tool.name.startswith(name) for name in names):
            if why := tools.install(tool):
                missing[tool.name] = why
                print(f"{tool.name}: cannot be installed here: {why}", file=sys.stderr)
        else:
            missing[tool.name] = "not asked for"
    again = (sys.executable, "-m", "tests.bench", "--inside", "--missing", "\n".join(missing), *sys.argv[1:])
    script = 'ip link set lo up && exec "$@"'
    return subprocess.run(
        ("unshare", "--net", "--", "sh", "-c", script, "sh", *again), cwd=ROOT, check=False
    ).returncode


def _measure(given: argparse.Namespace) -> int:
    missing = given.missing.split("\n")
    contenders = [tool for tool in tools.TOOLS if tool.name not in missing]
    asked = tuple(int(word) for word in given.hosts.split(","))
    counts, rounds, many = ((10,), 2, 50) if given.quick else (asked, given.rounds, 1000)
    reached: list[Limit] = []
    if not (given.only and given.print):
        with tempfile.TemporaryDirectory(prefix="fleetdrv-bench-") as folder:
            reached = list(limits(Path(folder), many=many, rounds=rounds))
    with (
        tempfile.TemporaryDirectory(prefix="fleetdrv-bench-") as folder,
        hosts(Path(folder), max(counts)) as fleet,
    ):
        rows = list(race(fleet, contenders, counts, rounds))
    text = write(rows, counts, rounds, reached, to_files=not (given.print or given.quick))
    print(text)
    return 0 if not any(measured.trouble for measured in (*rows, *reached)) else 1


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
