"""Run the virtual machine tier, or some of its files, and write what came of it into docs/vm-results.md.

The whole tier writes the page anew. Named files replace the rows of the tests that ran: each row says itself at
which commit and when it was seen.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "vm-results.md"
USAGE = "usage: python -m tests.vm --full | FILE... [pytest's arguments]"
_HEAD = "# The virtual machine tier\n\nWritten by `python -m tests.vm`, never by hand.\n"
_ROWS = "| file | promise | result | seconds | commit | seen |\n|---|---|---|---|---|---|\n"
_NOTES = "\n## Measured\n\n| file | promise | what | measured |\n|---|---|---|---|\n"
Test = tuple[str, str]
"""File and promise, as the page names them."""


@dataclass(frozen=True)
class Seen:
    """What came of a test when it ran last, and what it measured."""

    result: str
    seconds: str
    commit: str
    when: str
    notes: tuple[tuple[str, str], ...] = ()


def main(arguments: list[str]) -> int:
    """Run pytest over tests/vm, write docs/vm-results.md, and print what was measured."""
    whole = arguments[:1] == ["--full"]
    if not whole and not any(Path(word.partition("::")[0]).suffix == ".py" for word in arguments):
        print(USAGE, file=sys.stderr)
        return 64
    chosen = ["tests/vm", *arguments[1:]] if whole else arguments
    at = commit(RESULTS)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        argv = [sys.executable, "-m", "pytest", "-q", "-o", "junit_family=xunit1", f"--junitxml={report}"]
        environment = {**os.environ, "VM_TIER": "full" if whole else "named"}
        code = subprocess.run([*argv, *chosen], cwd=ROOT, env=environment, check=False).returncode
        if not report.exists():
            return code
        ran = dict(read_report(report, at, time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())))
    before = {} if whole else read_page(RESULTS.read_text())
    RESULTS.write_text(page({**{test: seen for test, seen in before.items() if _exists(test)}, **ran}))
    print("".join(f"{what}: {value}\n" for seen in ran.values() for what, value in seen.notes), end="")
    print(f"written: {RESULTS}")
    return code


def read_report(report: Path, commit: str, when: str) -> Iterable[tuple[Test, Seen]]:
    """Read pytest's report; a test that was skipped was not seen, nor one that was interrupted: it has no name."""
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is not None or not case.get("name"):
            continue
        failed = case.find("failure") is not None or case.find("error") is not None
        file = str(case.get("classname")).rpartition(".")[2] + ".py"
        notes = tuple((str(said.get("name")), str(said.get("value"))) for said in case.iter("property"))
        seconds = f"{float(case.get('time', 0)):.0f}"
        yield ((file, promise_of(str(case.get("name")))),
               Seen("FAILED" if failed else "passed", seconds, commit, when, notes))


def read_page(text: str) -> dict[Test, Seen]:
    """Read what `page` wrote."""
    above, _, below = text.partition(_NOTES)
    notes: dict[Test, tuple[tuple[str, str], ...]] = {}
    for file, promise, what, value in _cells(below):
        notes[file, promise] = (*notes.get((file, promise), ()), (what, value))
    rows = _cells(above.partition(_ROWS)[2])
    return {(file, promise): Seen(*rest, notes=notes.get((file, promise), ())) for file, promise, *rest in rows}


def page(seen: Mapping[Test, Seen], head: str = _HEAD) -> str:
    """Write the page, sorted by file."""
    tests = sorted(seen.items(), key=lambda item: item[0][0])
    rows = [(*test, it.result, it.seconds, it.commit, it.when) for test, it in tests]
    notes = [(*test, *note) for test, it in tests for note in it.notes]
    return head + "\n" + _ROWS + _table(rows) + _NOTES + _table(notes)


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]


def promise_of(name: str) -> str:
    """Return what a test's name promises."""
    return name.removeprefix("test_").replace("_", " ")


def _exists(test: Test) -> bool:
    """Whether the file still has the test: a row of one that was renamed goes."""
    file, promise = test
    path = Path(__file__).with_name(file)
    return path.exists() and f"def test_{promise.partition('[')[0].replace(' ', '_')}(" in path.read_text()


def commit(written: Path) -> str:
    """Name what is run; changes that are in no commit are told, but for the page that is written."""
    describe = ["git", "describe", "--always", "--abbrev=12"]
    name = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    changed = ["git", "diff", "--quiet", "HEAD", "--", ".", f":!{written.relative_to(ROOT)}"]
    return name + ("-dirty" if subprocess.run(changed, cwd=ROOT, check=False).returncode else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
