"""What TAB offers, asked as the shells ask it: by their own completion, with the script that fleetdrv prints."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fleetdrv.completing import SHELLS
from tests.screens.tmux import Terminal

INVENTORY = """\
all:
  children:
    gpu:
      hosts:
        gpu-[01:12]: {}
    login: {hosts: {front: {}}}
"""
BIN = Path(sys.executable).parent


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder to stand in, with an inventory, playbooks, and nothing remembered."""
    (tmp_path / "hosts.yaml").write_text(INVENTORY)
    (tmp_path / "books").mkdir()
    for name in ("books/nvidia.yaml", "books/roce.yml", "books/notes.txt", "top.yaml"):
        (tmp_path / name).touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offered(*words: str) -> list[str]:
    """Ask the program as a completion script does."""
    asked = ["fleetdrv", "--complete", "--", "fleetdrv", *words]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def journal(place: Path, run: str, *nodes: str) -> None:
    path = place / "state/fleetdrv/runs" / f"{run}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"node": node, "phase": "job", "text": ""}) + "\n" for node in nodes))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["app"], ["apply"]),
        (["re"], ["release", "remediate", "repair", "report", "resume"]),
        (["--ver"], ["--version"]),
        (["apply", "top.yaml", "--st"], ["--stop-after"]),
        (["apply", "top.yaml", "--stop-after", ""], ["canary"]),
        (["apply", "top.yaml", "--stop-after=c"], ["--stop-after=canary"]),
        (["apply", ""], ["books/", "top.yaml", "hosts.yaml", "cache/", "state/"]),
        (["plan", "books/"], ["books/nvidia.yaml", "books/roce.yml"]),
        (["plan", "-i", "hosts.yaml", "books/n"], ["books/nvidia.yaml"]),
        (["plan", "top.yaml", "-i", "ho"], ["hosts.yaml"]),
        (["attach", "-i", "hosts.yaml", "gpu-1"], ["gpu-10", "gpu-11", "gpu-12"]),
        (["attach", "--inventory=hosts.yaml", "fr"], ["front"]),
        (["plan", "top.yaml", "-i", "hosts.yaml", "-l", "gpu-01,!gpu-12"], ["gpu-01,!gpu-12"]),
        (["plan", "top.yaml", "-i", "hosts.yaml", "--limit=l"], ["--limit=login"]),
        (["plan", "top.yaml", "-i", "hosts.yaml", "--limit", "=", "l"], ["login"]),
        (["plan", "top.yaml", "more"], []),
        (["nonsense", ""], []),
        (["lab", ""], ["up", "down", "status"]),
        (["--print-completion-script", "z"], ["zsh"]),
    ],
)
def test_each_place_of_the_line_has_its_own_words(place: Path, line: list[str], expected: list[str]) -> None:
    journal(place, "r1")
    (place / "cache").mkdir()
    assert sorted(offered(*line)) == sorted(expected)


def test_without_an_inventory_the_one_used_last_counts_then_the_last_run(place: Path) -> None:
    assert offered("hold", "") == []
    journal(place, "20260101T000000-aaaaaa", "n1", "n2", "")
    assert offered("hold", "") == ["n1", "n2"]
    assert offered("logs", "2") == ["20260101T000000-aaaaaa"]
    assert offered("logs", "last", "n") == ["n1", "n2"]
    book = str(Path(__file__).parents[2] / "playbooks/toy-1.0.yaml")
    refused = subprocess.run(["fleetdrv", "plan", book, "-i", "hosts.yaml", "--context", "x"], check=False)
    assert refused.returncode == 3
    assert offered("hold", "f") == ["front"]
    assert offered("pause", "") == ["gpu"]
    assert offered("status", "g") == ["gpu"]


def test_an_inventory_that_changed_is_read_anew_and_one_that_is_a_program_is_not_run(place: Path) -> None:
    assert offered("attach", "-i", "hosts.yaml", "fr") == ["front"]
    (place / "hosts.yaml").write_text(INVENTORY.replace("front", "frontier"))
    assert offered("attach", "-i", "hosts.yaml", "fr") == ["frontier"]
    program = place / "hosts.sh"
    program.write_text(f"#!/bin/sh\ntouch {place}/was-run\n")
    program.chmod(0o755)
    assert offered("attach", "-i", "hosts.sh", "fr") == ["frontier"]
    assert not (place / "was-run").exists()
    (place / "hosts.yaml").write_text("all: [broken")
    assert offered("attach", "-i", "hosts.yaml", "fr") == ["frontier"]
    (place / "cache/fleetdrv/names.json").write_text('{"nodes": 7}')
    assert offered("attach", "fr") == []


# ---- the shells themselves

START = {
    "bash": "PS1='$ '; eval \"$(fleetdrv --print-completion-script bash)\"",
    "zsh": "PS1='$ '; autoload -Uz compinit; compinit -u -d .zcompdump; "
    "eval \"$(fleetdrv --print-completion-script zsh)\"",
    "fish": "function fish_prompt; echo -n '$ '; end; fleetdrv --print-completion-script fish | source",
}
SHELL = {"bash": "bash --norc --noprofile -i", "zsh": "zsh -f -i", "fish": "fish --no-config -i"}


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_in_a_real_shell(place: Path, shell: str) -> None:
    assert shutil.which(shell), "tests/run installs it"
    with Terminal(place, f"cd {shlex.quote(str(place))}; exec {SHELL[shell]}", 120, 20) as terminal:
        terminal.until(lambda seen: seen.rstrip().endswith(("$", "#", "%", ">")), 20)
        terminal.type(START[shell], "Enter")
        terminal.type("clear", "Enter")
        for typed, wanted in (
            ("fleetdrv att", "fleetdrv attach"),
            ("-i hosts.yaml fr", "fleetdrv attach -i hosts.yaml front"),
            ("--inv", "front --inventory"),
        ):
            terminal.type("-l", "--", typed)
            terminal.type("Tab")
            terminal.until(wanted, 20)
        terminal.type("C-u")
        terminal.type("-l", "fleetdrv plan bo")
        terminal.type("Tab")
        terminal.until("fleetdrv plan books/", 20)
        terminal.type("-l", "n")
        terminal.type("Tab")
        terminal.until("fleetdrv plan books/nvidia.yaml", 20)
