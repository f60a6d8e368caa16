"""What holds for every node program, by reading it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPTS = Path(__file__).parents[2] / "fleetdrv" / "scripts"
_PROGRAMS = sorted(_SCRIPTS.glob("*.sh"))
_STAND_INS = sorted(path for path in (_SCRIPTS.parents[1] / "tests/sim").glob("b*/*") if path.is_file())
_SHELLCHECK = Path(sys.executable).with_name("shellcheck")
_LIBRARIES = {
    *("job.sh", "module.sh", "users.sh", "dkms.sh", "look.sh", "machine.sh", "packages.sh", "trial.sh", "apt.sh"),
    *("settle.sh", "begun.sh", "lifelines.sh", "disks.sh", "initrd.sh", "lists.sh", "brings.sh"),
}


def test_there_are_programs() -> None:
    assert {"launch.sh", "run.sh", "probe.sh"} | _LIBRARIES <= {path.name for path in _PROGRAMS}


def test_shellcheck_finds_nothing() -> None:
    boot = _SCRIPTS.parents[1] / "tests/sim/boot.sh"
    checked: list[str | Path] = [_SHELLCHECK, "-x", "--source-path=SCRIPTDIR", *_PROGRAMS, boot, *_STAND_INS]
    result = subprocess.run(checked, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", _PROGRAMS, ids=lambda path: path.name)
def test_the_header_says_how_to_use_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    comment = "\n".join(line for line in lines[: lines.index("")] if line.startswith("#"))
    if path.name in _LIBRARIES:
        assert lines[0].startswith("# shellcheck shell=sh")
    else:
        assert lines[0] == "#!/bin/sh"
        assert "\n# Usage: " in comment
        assert "\n# Exit: 0" in comment or "\n# Exit and rc: " in comment
        assert re.search(r"^set -(eu|u)$", path.read_text(), re.MULTILINE)
        assert lines[-1].startswith('main "$@"'), "a text that was cut must not run half"


@pytest.mark.parametrize("path", _PROGRAMS, ids=lambda path: path.name)
def test_what_it_sources_and_runs_is_named_as_needed(path: Path) -> None:
    text = path.read_text()
    header = re.search(r"^# Needs: (.*)$", text, re.MULTILINE)
    needed = set(header[1].split()) if header else set()
    used = set(re.findall(r"(?:\./|/)(\w+\.sh)\b", text)) - {"plan.sh", "run.sh"}
    assert used <= needed
    assert all((_SCRIPTS / name).exists() for name in needed)


@pytest.mark.parametrize("path", _PROGRAMS, ids=lambda path: path.name)
def test_it_stays_readable(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 170
    assert max(map(len, lines)) <= 112
