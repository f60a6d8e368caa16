"""Run the whole virtual machine tier and write its results: `python -m tests.vm --full`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "vm-results.md"


def main() -> int:
    """Run pytest over tests/vm and write docs/vm-results.md."""
    if sys.argv[1:2] != ["--full"]:
        print("usage: python -m tests.vm --full [pytest's arguments]", file=sys.stderr)
        return 64
    report = Path(f"/tmp/fleetdrv-vm-{os.getpid()}.xml")
    argv = [sys.executable, "-m", "pytest", "tests/vm", "-q", "-o", "junit_family=xunit1",
            f"--junitxml={report}", *sys.argv[2:]]
    began = time.monotonic()
    code = subprocess.run(argv, cwd=ROOT, env={**os.environ, "VM_TIER": "full"}, check=False).returncode
    if report.exists():
        RESULTS.write_text(_page(report, time.monotonic() - began))
        report.unlink()
        print(RESULTS.read_text().rpartition("Measured:")[2].strip())
        print(f"written: {RESULTS}")
    return code


def _page(report: Path, seconds: float) -> str:
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    rows, notes = [], []
    for case in ElementTree.parse(report).iter("testcase"):
        failed = case.find("failure") is not None or case.find("error") is not None
        name = str(case.get("name")).removeprefix("test_").replace("_", " ")
        rows.append(f"| {name} | {'FAILED' if failed else 'passed'} | {float(case.get('time', 0)):.0f} |")
        said = case.find("properties")
        notes += [f"- {p.get('name')}: {p.get('value')}" for p in said] if said is not None else []
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    head = f"# The virtual machine tier\n\nCommit {commit}, {when}, {seconds / 60:.0f} minutes.\n"
    table = "| promise | result | seconds |\n|---|---|---|\n" + "\n".join(rows)
    measured = "\n\nMeasured:\n\n" + "\n".join(notes) if notes else ""
    return f"{head}\n{table}{measured}\n"


if __name__ == "__main__":
    sys.exit(main())
