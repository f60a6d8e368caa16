"""Whose options modprobe takes, and what mends a contradiction."""

from __future__ import annotations

import doctest
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from fleetdrv import modprobe
from fleetdrv.model import NodeFacts
from fleetdrv.modprobe import COMMAND_LINE, OptionLine, settings
from fleetdrv.modules import Module
from fleetdrv.plan import NodePlan, Outcome, plan
from fleetdrv.playbook import Driver
from tests.core.factories import KERNEL, a_driver, a_loaded, a_playbook, some_facts

GREETS = a_driver(parameters={"toy": {"greeting": "hello all", "level": "1"}})
AFTER = "/etc/modprobe.d/toy.conf"


def line(text: str, path: str = AFTER, first: int = 3, last: int = 0) -> OptionLine:
    """Return a line as the probe tells it."""
    return OptionLine(path=path, first=first, last=last or first, text=text)


def facts(*lines: OptionLine, driver: Driver = GREETS, loaded: str = "hello") -> NodeFacts:
    """Return a node whose loaded module has another greeting than is wanted."""
    parameters = {"greeting": loaded, "level": "1"}
    return replace(some_facts(driver), loaded={"toy": a_loaded(parameters=parameters)}, options=lines)


def planned(*lines: OptionLine, driver: Driver = GREETS) -> NodePlan:
    """Plan for such a node."""
    return plan(a_playbook(driver), facts(*lines, driver=driver))


@pytest.mark.parametrize(
    "text",
    [
        "options toy greeting=theirs",
        'options toy greeting="theirs"',
        'options toy "greeting=theirs"',
        "  options\ttoy\tlevel=1  greeting=theirs",
        "options toy greeting=hello\\ all greeting=theirs",
    ],
)
def test_who_is_read_after_us_and_says_otherwise_blocks_with_file_line_and_both_values(text: str) -> None:
    found = planned(line(text))
    assert (found.outcome, found.outage) == (Outcome.BLOCKED, ())
    assert f"{AFTER}:3 says toy.greeting=theirs" in found.reason
    assert "the playbook's hello all; have both say the same, or on the node: sed -i " in found.reason


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('options toy greeting="hello all"', AFTER),
        ("options toy level=0x1", AFTER),
        ("options toy level", AFTER),
        ("options toy other=1", AFTER),
        ("options toys greeting=theirs", AFTER),
        ("options toy greeting=theirs", "/etc/modprobe.d/ansible.conf"),
        ("options toy greeting=theirs", "/usr/lib/modprobe.d/fleetdrv-toy.conf"),
        ("options toy greeting=theirs", "/etc/modprobe.d/fleetdrv-toy.conf"),
        ("quiet nottoy.greeting=theirs toy.greetings=theirs", COMMAND_LINE),
    ],
)
def test_who_says_the_same_or_nothing_of_it_or_is_read_before_us_blocks_nothing(text: str, path: str) -> None:
    found = planned(line(text, path))
    assert (found.outcome, found.notes) == (Outcome.CHANGEABLE, ())


def test_only_the_last_word_counts_and_all_who_would_have_it_otherwise_are_named() -> None:
    wrong = line("options toy greeting=theirs")
    right = line('options toy greeting="hello all"', "/run/modprobe.d/z.conf")
    assert planned(right, wrong).outcome is Outcome.CHANGEABLE
    other = line("options toy greeting=last", "/etc/modprobe.d/zz.conf", first=9)
    said = planned(other, wrong).reason
    assert f"{AFTER}:3 says" in said
    assert "/etc/modprobe.d/zz.conf:9 says" in said


def test_the_kernels_command_line_wins_over_every_file() -> None:
    right = line('options toy greeting="hello all"', "/etc/modprobe.d/zz.conf")
    found = planned(line('ro "toy.greeting=their own" quiet', COMMAND_LINE, first=1), right)
    assert found.outcome is Outcome.BLOCKED
    assert "/proc/cmdline says toy.greeting=their own" in found.reason
    assert "/etc/default/grub" in found.reason


def test_options_go_by_the_name_of_the_file_or_of_the_alias_that_modprobe_is_told() -> None:
    driver = a_driver(modules=(Module("toy", "toy-current"),), parameters={"toy": {"greeting": "ours"}})
    for name in ("toy-current", "toy_current"):
        found = planned(line(f"options {name} greeting=theirs"), driver=driver)
        assert "toy.greeting=theirs" in found.reason


def test_what_is_well_stays_in_service_and_says_what_the_next_load_would_take() -> None:
    driver = a_driver(parameters={"toy": {"greeting": "ours"}})
    seen = facts(line("options toy greeting=theirs"), driver=driver, loaded="ours")
    found = plan(a_playbook(driver), seen)
    assert (found.outcome, found.differences) == (Outcome.CONVERGED, ())
    assert f"{AFTER}:3 says toy.greeting=theirs" in found.notes[0]
    stale = replace(seen, initramfs=frozenset({(KERNEL, "toy")}))
    found = plan(a_playbook(driver), stale)
    assert (found.outcome, len(found.notes)) == (Outcome.CHANGEABLE, 1), "a change that loads nothing goes on"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("options toy greeting=theirs", "#options toy greeting=theirs\n"),
        ("options toy a=1 greeting=t.*/$[h] b=2", "options toy a=1  b=2\n"),
        ('options toy a=1 "greeting=it is theirs"', "options toy a=1 \n"),
        ("options toy greeting='x' a=1", "options toy  a=1\n"),
        ("options toy \\\ngreeting=theirs", "#options toy \\\n#greeting=theirs\n"),
    ],
)
def test_the_command_takes_it_out_and_nothing_else(text: str, left: str, tmp_path: Path) -> None:
    path = tmp_path / "their own.conf"
    path.write_text(f"# toy greeting=1\n\n{text}\n# greeting=2\n")
    told = OptionLine(path=AFTER, first=3, last=3 + text.count("\n"), text=text.replace("\\\n", ""))
    (setting,) = [one for one in settings([told]) if one.name == "greeting"]
    command = setting.remedy.replace(AFTER, f"'{path}'")
    subprocess.run(["sh", "-c", command], check=True, timeout=30)
    assert path.read_text() == f"# toy greeting=1\n\n{left}# greeting=2\n"


def test_a_packages_file_is_hidden_by_a_copy_and_not_changed() -> None:
    (setting,) = settings([line("options toy greeting=theirs", "/usr/lib/modprobe.d/toy.conf")])
    copy = "cp /usr/lib/modprobe.d/toy.conf /etc/modprobe.d/toy.conf"
    assert setting.remedy == f"{copy} && sed -i '3s/^/#/' /etc/modprobe.d/toy.conf"


def test_what_the_docstring_shows() -> None:
    assert doctest.testmod(modprobe).failed == 0
