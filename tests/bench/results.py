"""Rows to text: docs/bench-results.md in full, README's table between its markers."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.bench.compare import Row, ratio
from tests.bench.limits import Limit
from tests.bench.tools import FLEETDRV

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- bench: written by `python -m tests.bench` -->", "<!-- /bench -->"


def write(
    rows: Sequence[Row], counts: Sequence[int], rounds: int, reached: Sequence[Limit], *, to_files: bool
) -> str:
    """Return the whole page; write it, and README's part of it, if `to_files`."""
    table = "\n".join([*_table(rows, counts), "", *_limits(reached)])
    parts = ("# fleetdrv and its peers", _head(rounds), table, _HOW, "Settings:", "\n".join(_settings(rows)))
    page = "\n\n".join(parts) + "\n"
    if to_files:
        (ROOT / "docs" / "bench-results.md").write_text(page)
        readme = ROOT / "README.md"
        text = readme.read_text()
        if BEGIN in text:
            before, rest = text.split(BEGIN, 1)
            after = rest.split(END, 1)[1]
            readme.write_text(f"{before}{BEGIN}\n{_head(rounds)}\n\n{table}\n{END}{after}")
    return page


def _head(rounds: int) -> str:
    describe = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    ssh = subprocess.run(("ssh", "-V"), capture_output=True, text=True, check=False).stderr.split(",")[0]
    return (
        f"Commit {commit}, {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}; {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, paramiko {version('paramiko')}, {ssh}; "
        f"medians of {rounds} interleaved rounds."
    )


def _table(rows: Sequence[Row], counts: Sequence[int]) -> Iterator[str]:
    heads = "".join(f" CPU ms/host, {count} | ratio | wall s, {count} |" for count in counts)
    yield f"| tool |{heads} lost |"
    yield "|---|" + "---|---|---|" * len(counts) + "---|"
    for name in dict.fromkeys(row.tool.name for row in rows):
        its = {row.count: row for row in rows if row.tool.name == name}
        cells = []
        for count in counts:
            row = its.get(count)
            if row is None or row.trouble:
                cells += ["did not run" if row else "-", "-", "-"]
                continue
            share = 1.0 if name == FLEETDRV else ratio(rows, name, count)
            cells += [f"{row.cpu_ms:.1f}", f"{share:.2f}" if share else "-", f"{row.wall:.1f}"]
        tool = next(iter(its.values())).tool
        note = "" if tool.verifies else " (verifies no host key)"
        note += " (other questions)" if tool.own_facts else ""
        yield f"| {name}{note} | " + " | ".join(cells) + f" | {sum(row.lost for row in its.values())} |"


def _limits(reached: Sequence[Limit]) -> Iterator[str]:
    if reached:
        yield "| fleetdrv alone | measured | at most |"
        yield "|---|---|---|"
    for limit in reached:
        found = "did not run" if limit.trouble else f"{limit.found:.3g} {limit.unit}".strip()
        missed = "" if limit.reached else " **(missed)**"
        yield f"| {limit.what} | {found}{missed} | {limit.most:g} {limit.unit} |".replace("  |", " |")
        if limit.trouble:
            yield f"| | {limit.trouble.replace('|', '/').splitlines()[-1]} | |"


def _settings(rows: Sequence[Row]) -> Iterator[str]:
    for name in dict.fromkeys(row.tool.name for row in rows):
        row = next(row for row in rows if row.tool.name == name)
        tool = row.tool
        what = tool.requires.removeprefix("apt:") or "this checkout's environment"
        yield f"- {name}: {what}; {tool.settings}" + (f"; did not run: {row.trouble}" if row.trouble else "")


_HOW = """\
The score is CPU of the whole client process tree per host, start-up included; `ratio` is fleetdrv's CPU divided by
the tool's, the median of the rounds' own ratios: below 1 fleetdrv is cheaper. All hosts are one sshd on loopback
that shares the cores with the client, so wall times are mostly the server's. All run fleetdrv's probe, but for
what is marked."""
