"""The manual page is what the commands say of themselves, and troff has nothing against it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from fleetdrv.errors import MEANINGS, ExitCode
from fleetdrv.tasks import namespace
from tests import manual

LINTERS = (
    ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"],
    ["groff", "-ww", "-man", "-Tutf8", "-z"],
    ["mandoc", "-Tlint", "-W", "style"],
)


def test_the_published_page_is_what_the_commands_say() -> None:
    assert manual.PAGE.read_text() == manual.page(), "write it anew: python -m tests.manual"


@pytest.mark.parametrize("linter", LINTERS, ids=lambda linter: linter[0])
def test_troff_finds_nothing(linter: list[str]) -> None:
    assert shutil.which(linter[0]), "tests/run installs it"
    # Minimal images divert `man` to a note that manuals are not installed; the real one stands beside it.
    done = subprocess.run([*linter, str(manual.PAGE)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    assert "mandoc:" not in done.stdout


def test_a_reader_finds_every_command_option_and_exit_code() -> None:
    shown = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-cbou", str(manual.PAGE)], capture_output=True, text=True, check=True,
        env={**os.environ, "GROFF_NO_SGR": "1"},
    ).stdout
    for name, task in namespace.tasks.items():
        section = re.search(rf"^   {name}\b.*?(?=^   \S|^\S)", shown, re.MULTILINE | re.DOTALL)
        assert section, name
        first = " ".join((task.__doc__ or "").split())[:40].replace("`", "'")
        assert first in " ".join(section[0].replace("-\n", "-").split())
        for argument in task.get_arguments():
            if not argument.positional:
                assert f"--{argument.name.replace('_', '-')}" in section[0], (name, argument.name)
    assert set(MEANINGS) == set(ExitCode)
    for code in ExitCode:
        assert re.search(rf"^ +{int(code)} +\S", shown, re.MULTILINE)
