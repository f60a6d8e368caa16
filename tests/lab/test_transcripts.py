"""What dkms 3.0.10 and 3.2.2 said in practice nodes (make's progress dots cut to three), against the parser."""

import re
from pathlib import Path

import pytest

from fleetdrv import parse

GOLDEN = Path(__file__).parent.parent / "golden"
STATES = {"added", "built", "installed", "broken"}


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_every_line_that_dkms_status_printed_is_read(release: str) -> None:
    text = (GOLDEN / f"dkms_status_{release}.txt").read_text()
    entries = [parse.dkms_status(line) for line in re.findall(r"^  out\| (.+)$", text, re.MULTILINE)]
    assert len(entries) > 20
    assert {entry.name for entry in entries} == {"toy"}
    assert {entry.state for entry in entries} <= STATES
    assert {entry.version for entry in entries} == {"1.0", "1.1", "1.2", "1.3"}


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_what_the_practice_drivers_promise_was_seen(release: str) -> None:
    failures = (GOLDEN / f"dkms_failures_{release}.txt").read_text()
    for words in (
        "modprobe: FATAL: Module fleetdrv_toy is in use.",
        "modprobe: ERROR: could not insert 'fleetdrv_toy': Invalid argument",
        "Error! Bad return status for module build on kernel: ",
    ):
        assert words in failures
    log = (GOLDEN / f"make_log_1.2_{release}.txt").read_text()
    assert "error: implicit declaration of function 'do_gettimeofday'" in log
