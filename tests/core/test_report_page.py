"""The page of a run as a text: what it shows, what it can never hold, when it is written anew, how large it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fleetdrv import journals, reporting
from fleetdrv.errors import InputError
from fleetdrv.lease import Holder
from fleetdrv.main import program
from fleetdrv.options import Options
from fleetdrv.proc import _stat, this_process
from fleetdrv.report_page import page
from fleetdrv.report_run import RunLog
from tests.report import journals as recorded
from tests.screens import rollout

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{0}%s\x1b[31m</pre></title></style>"
EMPTY = {"meta", "br", "polygon", "line"}
ALLOWED = EMPTY | {
    *("html", "head", "title", "style", "body", "header", "main", "footer", "section", "article", "figure"),
    *("figcaption", "svg", "h1", "h2", "h3", "p", "ul", "ol", "li", "dl", "dt", "dd", "div", "span", "i", "small"),
    *("strong", "code", "pre", "time", "details", "summary"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Journals go into a folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


class Read(HTMLParser):
    """Reads a page and refuses what is not well formed, or could ask for anything."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.metas: list[dict[str, str | None]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED, tag
        for name, _ in attributes:
            assert not name.startswith("on"), name
            assert name not in ("src", "href", "action", "srcset", "data"), name
        if tag == "meta":
            self.metas.append(dict(attributes))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All that is read, on one line."""
        return " ".join(" ".join(self.texts).split())


def made(run: str = rollout.RUN, alive: bool | None = None, now: float = 0.0) -> str:
    """Return the page of a journal."""
    log = RunLog(run=run)
    for entry in journals.entries(run):
        log.take(entry)
    return page(log.report(now, alive), "i { color: red }", UTC, 0.0)


def test_no_word_of_a_node_or_a_file_becomes_markup() -> None:
    path = recorded.write(2)
    entries = [json.loads(line) for line in path.read_text().splitlines()]

    def spoilt(value: Any) -> Any:
        """Return a value with every text in it, and every name that a file or a node chose, hostile."""
        if isinstance(value, str):
            return value + HOSTILE
        if isinstance(value, list):
            return [spoilt(one) for one in value]
        if isinstance(value, dict):
            keys = {name: name + HOSTILE if name in ("nvidia", "max_unavailable") else name for name in value}
            return {keys[name]: spoilt(told) for name, told in value.items()}
        return value

    for one in entries:
        words = one["phase"] not in ("stand",)
        one |= {"text": one["text"] + HOSTILE if words else one["text"], "data": spoilt(one.get("data"))}
        one["node"] = one["node"] and one["node"] + HOSTILE
    hooks = {"at": entries[0]["at"], "node": "", "phase": "hook", "text": HOSTILE, "level": "progress"}
    path.write_text("".join(json.dumps(one) + "\n" for one in [*entries, hooks]))
    html = made()
    read = Read(html)
    assert "alert(1)" in read.text
    assert "<script" not in html
    assert "onerror=alert(2)&gt;" in html
    assert "\x1b" not in html
    assert read.text.count("gpu-2<script>alert(1)</script>") >= 3


def test_a_page_asks_nobody_and_runs_nothing() -> None:
    recorded.write(2)
    html = made()
    policy = {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"}
    assert policy in Read(html).metas
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html


def test_failures_come_with_cause_evidence_and_the_next_command() -> None:
    recorded.write(2)
    text = Read(made()).text
    start, end = text.index("Faults"), text.index("Timeline")
    faults = text[start:end]
    for words in (
        "gpu-2", "failed, rolled back", rollout.IN_USE, "nvidia_uvm is in use by process 4711",
        "fleetdrv plan nvidia-535.yaml -i hosts.yaml --limit gpu-2", f"fleetdrv logs {rollout.RUN} gpu-2",
    ):  # fmt: skip
        assert words in faults, words
    assert "gpu-1" not in faults
    assert "535.288.01-1 535.309.01-1 gpu-1" in text
    assert "535.288.01-1 as before gpu-2" in text
    assert "At most 1 node out of service at once; the limit was 1." in text
    assert "By ada@laptop (pid 1)" in text
    assert "Limits max_unavailable 1, max_parallel 100" in text


def test_a_cause_with_a_name_is_told_with_what_shows_it_and_its_remedy() -> None:
    path = recorded.write(2)
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    for one in entries:
        if (one["node"], one["phase"]) == ("gpu-2", "end"):
            one["data"]["finding"] = {
                "name": "module-in-use", "cause": "Process 4711 has it open.", "remedy": "End it.", "repair": None,
                "evidence": "rmmod: ERROR: Module nvidia_uvm is in use", "where": "log:3",
            }  # fmt: skip
    path.write_text("".join(json.dumps(one) + "\n" for one in entries))
    text = Read(made()).text
    assert "Cause: module-in-use: Process 4711 has it open. Shown by: rmmod: ERROR" in text
    assert "is in use (log:3) Remedy: End it." in text


def test_a_thousand_nodes_are_a_page_of_few_megabytes_and_equal_faults_stand_together() -> None:
    recorded.write(1000)
    html = made()
    assert len(html) < 3_000_000
    text = Read(html).text
    assert "Of 1,000 nodes: 15 failed, 985 changed." in text
    assert "gpu-[0002,0097,0194,0291,0388,0485,0582,0679,0776,0873,0970]" in text
    assert "gpu-[0241,0482,0723,0964] ✗ unreachable, 4 nodes" in text
    assert html.count("<summary class=\"row\">") >= 996, "every node that was worked on can be opened"
    assert "14.1 node-hours of 996 nodes" in text


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run `fleetdrv report` in this process."""
    with pytest.raises(SystemExit) as ended:
        program.run(["fleetdrv", "report", *words])
    out, errors = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, errors


def test_the_page_stands_beside_the_journal_or_where_one_wants_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = recorded.write(2)
    code, out, errors = command(capsys, "last")
    beside = journal.with_suffix(".html")
    assert (code, out, errors) == (0, f"{beside}\n", "")
    assert beside.stat().st_mode & 0o777 == 0o600, "it holds what nodes said, as the journal does"
    assert "i { color: red }" not in beside.read_text()
    assert "prefers-color-scheme: dark" in beside.read_text()
    code, out, _ = command(capsys, rollout.RUN[:10], "--output", str(place / "page.html"))
    assert (code, out) == (0, f"{place}/page.html\n")
    assert Read((place / "page.html").read_text()).text.startswith("nvidia-535: Done, with faults")
    assert sorted(path.name for path in place.iterdir()) == ["page.html", "state"]


def test_the_document_tells_what_the_page_does(capsys: pytest.CaptureFixture[str]) -> None:
    recorded.write(2)
    code, out, _ = command(capsys, "last", "--json")
    document = json.loads(out)
    run = document["run"]
    assert (code, document["schema"], document["command"], document["exit_code"]) == (0, "fleetdrv/1", "report", 0)
    assert Path(document["page"]).exists()
    assert (run["state"], run["exit_code"], run["counts"]) == ("over", 4, {"changed": 1, "failed": 1})
    assert (run["about"]["pool"], run["seconds_out_of_service"]) == ("gpu", 90.0)
    node = run["nodes"]["gpu-2"]
    assert (node["verdict"], node["next"][:13]) == ("failed, rolled back", "fleetdrv plan")
    assert [phase["phase"] for phase in node["phases"]] == [
        *("stage", "wait for a slot", "cordon", "drain", "change", "roll back")
    ]
    assert node["before"]["nvidia"]["found"] == node["after"]["nvidia"]["found"] == recorded.OLD


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "run nope: none has a journal on this machine; there: 2026"),
        (["last", "--output", "/no/such/folder/x.html"], "/x.html: cannot be written: No such"),
        (["20261125T07475"], "2 runs begin so"),
        (["20261125T074755"], "its journal tells nothing"),
    ],
)
def test_what_cannot_be_is_refused(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    journal = recorded.write(2)
    (journal.parent / "20261125T074755-ffffff.jsonl").write_text('{"at": 1, "node": "n", "pha')
    os.utime(journal.parent / "20261125T074755-ffffff.jsonl", (1, 1))
    code, out, errors = command(capsys, *words)
    assert (code, out) == (3, "")
    assert said in errors


@contextmanager
def controller() -> Iterator[tuple[Holder, subprocess.Popen[bytes]]]:
    """A process that drives a run, as far as anybody can see from outside."""
    waits = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE) as process:
        here = this_process()
        yield (
            Holder(user="ada", host=here.host, boot=here.boot, pid_namespace=here.pid_namespace, pid=process.pid,
                   started=_stat(process.pid)[1]),
            process,
        )  # fmt: skip


def watched(acts: list[Any]) -> tuple[list[str], Path]:
    """Watch the last run; each time the watcher rests, the page is read and the next act done."""
    pages: list[str] = []
    path = journals.folder() / f"{rollout.RUN}.html"

    def rest(seconds: float) -> None:
        assert seconds >= 5
        pages.append(path.read_text())
        acts.pop(0)()

    assert reporting.write(Options(), "last", "", watch=True, sleep=rest) == 0
    return [*pages, path.read_text()], path


def refreshes(html: str) -> bool:
    return any(meta.get("http-equiv") == "refresh" for meta in Read(html).metas)


def test_a_watched_page_follows_the_run_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    with controller() as (who, process):
        journal = recorded.write(2, who=who)
        lines = journal.read_text().splitlines(keepends=True)
        place, half = len(lines) * 2 // 3, len(lines[-1]) // 2
        journal.write_text("".join(lines[:place]))

        def goes_on() -> None:
            with journal.open("a") as file:
                file.write("".join(lines[place:-1]) + lines[-1][:half])

        def ends() -> None:
            with journal.open("a") as file:
                file.write(lines[-1][half:])

        pages, path = watched([goes_on, ends])
        process.communicate(b"\n")
    assert [refreshes(html) for html in pages] == [True, True, False]
    assert "at work: " in pages[0]
    assert "Goes on" in pages[1]
    assert "Done, with faults" in pages[2]
    assert capsys.readouterr().out == f"{path}\n", "told once, at once"
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".html", ".jsonl"], "nothing is left beside it"


def test_a_watched_run_whose_controller_is_killed_is_broken_off() -> None:
    with controller() as (who, process):
        recorded.write(2, until=80, who=who)

        def dies() -> None:
            process.kill()
            process.wait()

        pages, _ = watched([dies])
    assert [refreshes(html) for html in pages] == [True, False]
    assert "Broken off: its controller ended without a last word" in pages[1]
    assert "fleetdrv apply nvidia-535.yaml -i hosts.yaml" in pages[1], "the same command finishes it"


def test_what_is_written_is_seen_whole_or_not_at_all(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.write(2)
    former = place / "page.html"
    former.write_text("former")

    def full(*_: object) -> None:
        raise OSError(28, "No space left")

    monkeypatch.setattr("fleetdrv.atomic.os.replace", full)
    with pytest.raises(InputError, match="No space left"):
        reporting.write(Options(), "last", str(former), watch=False)
    assert former.read_text() == "former"
    assert sorted(path.name for path in place.iterdir()) == ["page.html", "state"]
