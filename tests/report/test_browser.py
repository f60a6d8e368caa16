"""The page as people get it: in a real browser, light and dark, wide and on a telephone.

Debian's headless Chromium, driven by Playwright, which downloads no browser of its own; axe-core comes with
axe-playwright-python.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from fleetdrv import journals, report_page, report_timeline, reporting
from fleetdrv.options import Options
from tests.core.test_report_page import HOSTILE, controller
from tests.report import journals as recorded

LOOKS = [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]
MINUTES = 240_000.0
"""A machine that is busy with ten other things is no fault of the page."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Journals go into a folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all."""
    program = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    assert program, "no Chromium; install Debian's chromium-headless-shell"
    with sync_playwright() as playwright:
        # Its own sandbox wants a user other than root, or namespaces that a container may not have.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=MINUTES)
        yield started
        started.close()


def opened(browser: Browser, path: Path, width: int, scheme: Any) -> tuple[Page, list[str]]:
    """Open a page; return it, and every address that was asked for."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page, asked = context.new_page(), list[str]()
    page.set_default_timeout(MINUTES)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri(), timeout=MINUTES)
    return page, asked


def unfold(page: Page) -> None:
    """Open all that is folded."""
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def faults(page: Page) -> list[str]:
    """Return what axe-core finds, each with its first place."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in found]


def everything() -> Path:
    """Return the page of a run that has one of everything: groups, faults, a gap, long and hostile words."""
    journal = recorded.write(4)
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    start, last = entries[0]["at"], entries.pop()
    long = "ip-10-0-0-17.eu-central-1.compute.internal.example-of-a-very-long-domain.cloud" + "x" * 80
    for at, node, phase, text in (
        (40, long, "stage", f"trial build {'y' * 200}"),
        (60, long, "cordon", HOSTILE),
        (61, long, "outage", "3 steps"),
        (70, long, "rollback", "exit 74"),
        (80, long, "return", ""),
        (81, long, "leave out", f"exit 74 {'z' * 200}"),
        (81, long, "end", f"failed, left out of service: exit 74 {'z' * 200}"),
        (90, "held-1", "end", "skipped: held (ada: disk on order)"),
        (91, "gpu-4", "soak", "serves until a look"),
        (92, "", "hook", f"after_run failed: {HOSTILE}"),
    ):
        level = "warning" if phase in ("end", "hook") else "progress"
        entries.append({"at": start + at, "node": node, "phase": phase, "text": text, "level": level})
    killed = {**entries[0], "at": entries[-11]["at"] + 5}
    told = (*entries, killed, {**last, "at": killed["at"] + 9})
    journal.write_text("".join(json.dumps(one) + "\n" for one in told))
    return written()


def written() -> Path:
    """Write the page of the last run."""
    assert reporting.write(Options(quiet=True), "last", "", watch=False) == 0
    return next(journals.folder().glob("*.html"))


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_nothing_keeps_anybody_from_reading_it(
    browser: Browser, width: int, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_timeline, "SINGLY", 2)  # a few nodes are a large pool: axe-core is slow
    monkeypatch.setattr(report_timeline, "GROUP", 2)
    page, asked = opened(browser, everything(), width, scheme)
    assert overflow(page) <= 0
    unfold(page)
    assert overflow(page) <= 0, "nor with all that it holds unfolded"
    assert faults(page) == []
    assert len(asked) == 1, "the file itself, and nothing else"
    page.context.close()


def test_a_page_that_is_written_anew_has_one_fault_and_says_so(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it reads itself anew is what it is for; it ends with the run, and the last page stands still."""
    monkeypatch.setattr(report_page, "RELOAD_SECONDS", 3600)  # not under axe-core's hands
    with controller() as (who, process):
        recorded.write(2, until=80, who=who)
        page, _ = opened(browser, written(), 390, "light")
        assert "reads itself anew, every 3600 s" in page.inner_text("header")
        assert [one.partition(":")[0] for one in faults(page)] == ["meta-refresh"]
        page.context.close()
        process.communicate(b"\n")


def test_it_is_read_with_the_keyboard(browser: Browser) -> None:
    recorded.write(2)
    page, _ = opened(browser, written(), 390, "light")
    row = page.locator("summary.row").last
    row.focus()
    assert page.locator("table.phases").last.is_visible() is False
    page.keyboard.press("Enter")
    assert page.locator("table.phases").last.is_visible()
    assert page.locator("main h2").all_inner_texts()[1:] == [
        *("Faults", "Timeline", "Versions before and after", "What the rollout waited for, and what it said")
    ]
    assert page.locator("h1").count() == page.locator("main").count() == 1
    page.context.close()


def test_the_page_of_a_thousand_nodes_opens_and_fits(browser: Browser) -> None:
    recorded.write(1000)
    page, asked = opened(browser, written(), 390, "dark")
    assert overflow(page) <= 0
    assert page.locator("summary.row").count() >= 996
    assert len(asked) == 1
    page.context.close()
