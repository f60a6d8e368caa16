"""A look through a bad link."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

import pytest

from fleetdrv.errors import LinkLost, NodeRefused, Refused
from fleetdrv.follow import Line
from fleetdrv.jobs import whole
from fleetdrv.look import MAX_LINKS, _prove_identity, ask
from fleetdrv.standing import Standing
from fleetdrv.turn import Grip
from tests.core.factories import some_facts


@dataclass
class LosingLine:
    """A line whose link dies under the first commands."""

    losses: int
    node: str = "n1"
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def run(self, argv: tuple[str, ...], **_: object) -> tuple[int, bytes, bytes]:
        """Lose the link, or answer."""
        self.asked.append(argv)
        if len(self.asked) <= self.losses:
            raise LinkLost("n1", "holders", "the host hung up")
        return 0, b"said", b""

    def redial(self, deadline_seconds: float) -> None:
        """Nothing asks for it: a line dials at need."""
        raise AssertionError(deadline_seconds)


def _ask(line: Line) -> tuple[int, bytes, bytes]:
    return ask(line, "holders.sh", ("toy",), step="holders", deadline_seconds=60)


@pytest.mark.parametrize("losses", range(MAX_LINKS))
def test_a_look_is_repeated_when_the_link_dies_under_it(losses: int) -> None:
    line = LosingLine(losses)
    assert _ask(line) == (0, b"said", b"")
    assert line.asked == [("/bin/sh", "-c", whole("holders.sh"), "holders.sh", "toy")] * (losses + 1)


@pytest.mark.parametrize("program", ["probe.sh", "holders.sh"])
def test_a_program_that_looks_fits_into_an_exec_request_with_room_for_its_questions(program: str) -> None:
    """Linux takes 128 KiB for one argument (MAX_ARG_STRLEN), and the whole command is one of the login shell's."""
    assert len(shlex.quote(whole(program)).encode()) < 64 * 1024


def test_a_link_that_dies_every_time_is_told_and_not_tried_for_ever() -> None:
    line = LosingLine(MAX_LINKS)
    with pytest.raises(LinkLost, match="hung up"):
        _ask(line)
    assert len(line.asked) == MAX_LINKS


def _proven(machine_id: str, boot_id: str) -> None:
    facts = some_facts()
    said = {"machine_id": machine_id or facts.machine_id, "boot_id": boot_id or facts.boot_id}
    _prove_identity("n1", facts, Standing(grip=Grip.FREE, **said))


def test_another_machine_stops_all_but_a_boot_that_the_kubelet_did_not_report_only_its_node() -> None:
    """In a large fleet some node is always just booting, or has a dead kubelet; a swapped address is worse."""
    _proven("", "")
    for boot_id in ("", "another"):
        with pytest.raises(Refused) as swapped:
            _proven("another", boot_id)
        assert not isinstance(swapped.value, NodeRefused)
    with pytest.raises(NodeRefused, match="kubelet has reported"):
        _proven("", "another")
