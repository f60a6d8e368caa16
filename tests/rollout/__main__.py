"""Try the whole of what CI tries a part of, and write what came of it into docs/reliability.md.

Each test writes its row as it ends, so a run that is broken off has told what it saw. Rows of tests that did not
run stay: each says itself at which commit and when it was seen.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tests.vm.__main__ import Seen, commit, page, promise_of, read_page

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reliability.md"
HEAD = """# Reliability, counted

Written by `python -m tests.rollout`, never by hand; CI tries a fixed part of it.
"""
FILES = ("test_crash.py", "test_rounds.py", "test_cluster_faults.py")


class Recorder:
    """A pytest plugin that writes the page, a row at a time."""

    def __init__(self) -> None:
        self._commit = commit(PAGE)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write the row of a test that has ended, or could not begin."""
        if report.when != "call" and not report.failed:
            return
        result, seconds = "FAILED" if report.failed else "passed", f"{report.duration:.0f}"
        notes = tuple((str(what), str(value)) for what, value in report.user_properties)
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        file, _, name = report.nodeid.partition("::")
        rows = read_page(PAGE.read_text()) if PAGE.exists() else {}
        rows[Path(file).name, promise_of(name)] = Seen(result, seconds, self._commit, when, notes)
        PAGE.write_text(page(rows, HEAD))


def main(arguments: list[str]) -> int:
    """Run pytest over the files, or over what its arguments choose of them."""
    os.environ["FLEETDRV_RELIABILITY"] = "whole"
    named = any(".py" in word for word in arguments)
    files = () if named else (str(HERE / file) for file in FILES)
    return int(pytest.main(["-q", *files, *arguments], plugins=[Recorder()]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
