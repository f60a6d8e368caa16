"""Another apt at work is waited for while the node serves, for a while."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from fleetdrv.errors import Stopped
from fleetdrv.plan import NodePlan, Outcome, Step
from fleetdrv.ready import MAX_ASKED, wait
from fleetdrv.turn import OTHER_APT, Verdict

READY = Step(program="apt_ready.sh", argv=("toy", "key", "toy-dkms=1.1"), why="toy: may apt install now?")
LOAD = Step(program="load.sh", argv=("toy",), why="toy: load")
HELD = b"dpkg's lock is held by process 7 (apt-get upgrade), after 10 s; nothing was changed\n"


@dataclass
class Node:
    """A node whose dpkg is taken for so many questions."""

    taken: int = 0
    code: int = 0
    node: str = "n1"
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def run(self, argv: tuple[str, ...], **_: object) -> tuple[int, bytes, bytes]:
        """Answer as apt_ready.sh does."""
        self.asked.append(argv[4:])  # after: sh -c TEXT NAME
        if len(self.asked) <= self.taken:
            return OTHER_APT, b"waiting for process 7\n", HELD
        return self.code, b"", b"toy-dkms is held\n" if self.code else b""

    def redial(self, deadline_seconds: float) -> None:
        """Nothing asks for it."""
        raise AssertionError(deadline_seconds)


def asked(node: Node, *steps: Step) -> tuple[bool, str, list[str]]:
    told: list[str] = []
    waited, due = wait(node, NodePlan(outcome=Outcome.CHANGEABLE, outage=steps), lambda: None, told.append)
    assert due is None or due.verdict is Verdict.BLOCKED
    return waited, due.why if due else "", told


def test_nobody_is_asked_where_apt_has_nothing_to_do() -> None:
    node = Node(taken=99)
    assert asked(node, LOAD) == (False, "", [])
    assert node.asked == []


def test_apt_that_could_is_asked_once_for_each_driver() -> None:
    node = Node()
    assert asked(node, READY, READY, LOAD) == (False, "", [])
    assert node.asked == [READY.argv] * 2


def test_who_lets_go_in_time_is_named_and_the_node_is_looked_at_again() -> None:
    node = Node(taken=MAX_ASKED - 1)
    waited, why, told = asked(node, READY)
    assert (waited, why) == (True, "")
    assert set(told) == {"waiting while the node serves: dpkg's lock is held by process 7 (apt-get upgrade)"}


def test_who_never_lets_go_blocks_the_node_and_is_named() -> None:
    node = Node(taken=99)
    _, why, told = asked(node, READY)
    assert len(node.asked) == MAX_ASKED
    assert len(told) == MAX_ASKED - 1
    assert "held by process 7 (apt-get upgrade)" in why
    assert "the same command again" in why


def test_what_waiting_does_not_help_is_not_waited_for() -> None:
    node = Node(code=83)
    assert asked(node, READY)[1].startswith("apt cannot install now: toy-dkms is held;")
    assert len(node.asked) == 1


def test_a_lost_lease_ends_the_wait() -> None:
    def lost() -> None:
        raise Stopped("lost")

    node = Node(taken=99)
    with pytest.raises(Stopped):
        wait(node, NodePlan(outcome=Outcome.CHANGEABLE, outage=(READY,)), lost, print)
    assert node.asked == []
