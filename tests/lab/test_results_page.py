"""The page of the virtual machine tier: rows are replaced, not lost, and say themselves when they were seen."""

from __future__ import annotations

from pathlib import Path

from tests.vm.__main__ import Seen, page, read_page, read_report

OLD = {
    ("test_apt.py", "a driver"): Seen("passed", "60", "c0ffee", "monday", (("outage", "9 s"), ("mails", "3"))),
    ("test_story.py", "a link[stage]"): Seen("FAILED", "7", "c0ffee", "monday"),
}
REPORT = """<testsuites><testsuite>
<testcase classname="tests.vm.test_story" name="test_a_link[stage]" time="80.4"/>
<testcase classname="tests.vm.test_story" name="test_broken" time="1"><error/></testcase>
<testcase classname="tests.vm.test_story" name="test_not_here" time="0"><skipped/></testcase>
<testcase time="0.5"/>
<testcase classname="tests.vm.test_cron" name="test_cron" time="700">
<properties><property name="mails" value="3"/></properties></testcase>
</testsuite></testsuites>"""


def test_what_ran_again_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    assert read_page(page(OLD)) == OLD
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    now = read_page(page({**OLD, **dict(read_report(report, "bead", "tuesday"))}))
    assert now == {
        ("test_apt.py", "a driver"): OLD["test_apt.py", "a driver"],
        ("test_cron.py", "cron"): Seen("passed", "700", "bead", "tuesday", (("mails", "3"),)),
        ("test_story.py", "a link[stage]"): Seen("passed", "80", "bead", "tuesday"),
        ("test_story.py", "broken"): Seen("FAILED", "1", "bead", "tuesday"),
    }
