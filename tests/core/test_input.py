"""A playbook or inventory that is wrong is refused at its line and key, and nothing was touched for it.

The cases come from the published schema: each rule of each field is broken once.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleetdrv.main import program
from tests.core import schemas
from tests.core.guard import listening
from tests.core.schemas import Spot, cases, key, spots, written

ROOT = Path(__file__).parents[2]
INVENTORY = "all:\n  children:\n    gpu:\n      hosts:\n        n1: {ansible_host: 127.0.0.1, ansible_port: 1}\n"
IN_TREE = "name: x\nhosts: gpu\ndrivers:\n  - name: x\n    modules: [loop]\n"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `plan` over two texts in this process; return exit code, what it touched, and its complaints."""
    book, hosts = tmp_path / "book.yaml", tmp_path / "hosts.yaml"

    def plan(playbook: str, inventory: str = INVENTORY, *words: str) -> tuple[int, list[str], list[str]]:
        book.write_text(playbook, encoding="utf-8")
        hosts.write_text(inventory, encoding="utf-8")
        with listening() as touched, pytest.raises(SystemExit) as ended:
            program.run(["fleetdrv", "plan", str(book), "-i", str(hosts), *words])
        out, errors = capsys.readouterr()
        assert out == ""
        told = errors.removeprefix("fleetdrv: ").replace(f"{tmp_path}/", "")
        return int(str(ended.value.code)), touched, told.splitlines()

    return plan


def test_the_guard_hears_what_good_files_lead_to(run: Any) -> None:
    code, touched, _ = run(IN_TREE, INVENTORY, "--context", "no-such-context")
    assert code != 0
    assert "subprocess.Popen" in touched, "kubectl was asked for the cluster"
    with listening() as touched, socket.socket() as free:
        free.connect_ex(("127.0.0.1", 1))
    assert "socket.connect" in touched
    with listening() as touched:
        subprocess.run(["true"], check=True)
    assert "subprocess.Popen" in touched


def test_the_whole_playbook_says_everything_that_the_schema_knows() -> None:
    said: dict[str, set[str]] = {}
    known: dict[str, set[str]] = {}
    for spot in spots():
        form = next(form for form in spot.forms if form.get("type") == schemas.kind(spot.value))
        if "properties" in form:
            said.setdefault(form["title"], set()).update(spot.value)
            known[form["title"]] = set(form["properties"])
    assert said == known
    assert len(known) == len([one for one in schemas.SCHEMA["$defs"].values() if "properties" in one]) + 1


SPOTS: tuple[Spot, ...] = tuple(spots())


@pytest.mark.parametrize("spot", SPOTS, ids=lambda spot: key(spot.place))
def test_every_rule_of_every_field_is_told_at_its_line_and_key(run: Any, spot: Spot) -> None:
    broken = list(cases(spot))
    assert broken, "the schema has no rule for this field"
    for case in broken:
        text, lines = written(case.document)
        code, touched, told = run(text)
        place = case.at
        while place not in lines:
            place = place[:-1]
        what = f"{key(case.at)}: " if key(case.at).isprintable() else "a key must be plain text"
        wanted = f"book.yaml:{lines[place]}: {what}"
        assert told, case
        assert [line for line in told if not line.startswith(wanted)] == [], f"{case}: {wanted}\n{text}"
        assert (code, touched) == (3, []), case


def test_there_are_as_many_cases_as_the_schema_has_rules() -> None:
    assert sum(len(list(cases(spot))) for spot in SPOTS) > 1000


# ---- a corpus by hand: what a schema cannot say, and what people write

HEAD = IN_TREE.removesuffix("    modules: [loop]\n")


def corpus() -> list[tuple[str, str]]:
    """Return the cases of corpus.txt: text of a playbook, and how the fault is told."""
    before = {"tree": IN_TREE, "driver": HEAD, "all": ""}
    found = []
    for line in Path(__file__).with_name("corpus.txt").read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            text, _, fault = line.encode().decode("unicode_escape").partition(" ==> ")
            kind, _, text = text.partition(" ")
            found.append((before[kind] + text, fault))
    return found


CORPUS = corpus()


@pytest.mark.parametrize(("text", "fault"), CORPUS, ids=range(len(CORPUS)))
def test_what_people_write_is_told_at_its_line(run: Any, text: str, fault: str) -> None:
    code, touched, told = run(text)
    assert any(line.startswith(f"book.yaml:{fault}") for line in told), told
    assert all(line.startswith("book.yaml:") for line in told)
    assert (code, touched) == (3, [])


INVENTORIES: list[tuple[str, int, str]] = [
    ("all:\n  hosts:\n    n1:\n  host:\n    n2:\n", 4, "host"),
    ("all:\n  children:\n    gpu:\n      hosts:\n        n1: 7\n", 5, "n1"),
    ("all:\n  children:\n    gpu:\n      hosts:\n        n1: {}\n        n1: {}\n", 6, "n1"),
    ("all:\n  children:\n    gpu: [n1]\n", 3, "gpu"),
    ("all:\n  children:\n    gpu:\n      vars: [a]\n", 4, "vars"),
    ("all:\n  hosts:\n    n[1:: {}\n", 3, "n[1:"),
    ("all:\n  hosts:\n    'n[9:1]': {}\n", 3, "n[9:1]"),
    ("all:\n  hosts:\n\tn1: {}\n", 3, "not YAML"),
    ("all:\n  hosts: {n1: {}}\n---\nall: {}\n", 3, "document"),
]


@pytest.mark.parametrize(("text", "line", "named"), INVENTORIES, ids=range(len(INVENTORIES)))
def test_an_inventory_is_told_at_its_line_beside_the_playbook(run: Any, text: str, line: int, named: str) -> None:
    code, touched, told = run(IN_TREE, text)
    assert (code, touched) == (3, [])
    assert any(said.startswith(f"hosts.yaml:{line}: ") and named in said for said in told), told
    code, touched, both = run(IN_TREE + "drian: {}\n", text)
    assert (code, touched) == (3, [])
    assert both == ["book.yaml:6: drian: unknown key; did you mean drain? known: " + _KEYS, *told]


_KEYS = "cluster, drain, drivers, hooks, hosts, name, pool, reboot, remediate, rollout"


def test_all_hosts_that_cannot_be_reached_as_they_are_written_are_told(run: Any) -> None:
    text = """\
all:
  children:
    gpu:
      hosts:
        n1: {ansible_port: ssh}
        n2: {ansible_port: 70000}
        n3: {ansible_ssh_common_args: "-o 'x"}
        n4: {ansible_user: -oProxyCommand=touch pwned}
        n5: {ansible_host: "$(touch pwned)"}
        n6: {ansible_host: 127.0.0.1}
"""
    code, touched, told = run(IN_TREE, text)
    assert (code, touched) == (3, [])
    assert [line.partition(": ")[2].partition(":")[0] for line in told] == ["n1", "n2", "n3", "n4", "n5"]


@pytest.mark.parametrize("words", [["--json"], []])
def test_the_installed_program_refuses_before_it_touches_anything(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "bad.yaml").write_text(IN_TREE + "drian: {}\nname: 5\n")
    (tmp_path / "inv").write_text("all:\n  host: {}\n")
    argv = [sys.executable, "-m", "tests.core.guard", "plan", f"{tmp_path}/bad.yaml", "-i", f"{tmp_path}/inv"]
    done = subprocess.run([*argv, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3, done.stderr
    assert "touched" not in done.stderr
    for said in ("bad.yaml:7: name: this key stands there twice", "inv:2: "):
        assert said in done.stderr
        assert not words or said in json.loads(done.stdout)["errors"][0] + json.loads(done.stdout)["errors"][1]


def test_a_name_of_a_file_that_is_no_text_is_refused_without_a_traceback(tmp_path: Path) -> None:
    program = b"from fleetdrv.main import program; program.run()"
    argv = [os.fsencode(sys.executable), b"-c", program, b"plan", b"\xff.yaml", b"-i", b"\xfe"]
    for words in ([], [b"--json"]):
        done = subprocess.run([*argv, *words], cwd=tmp_path, capture_output=True, check=False, timeout=60)
        assert (done.returncode, b"Traceback" in done.stderr) == (3, False), done.stderr
