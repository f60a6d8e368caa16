"""Whatever a node or a screen does, telling about a job costs nobody his turn."""

from __future__ import annotations

import io

from fleetdrv.daemons import _count
from fleetdrv.events import Event
from fleetdrv.look import questions
from fleetdrv.teller import Teller
from tests.core.factories import a_driver, a_playbook


class Gone(io.StringIO):
    """A pipe whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(text)


def test_a_closed_pipe_or_a_full_disk_ends_no_turn() -> None:
    Teller(stream=Gone())(Event(node="n1", phase="job", text="== toy: load"))


def test_devices_are_counted_as_the_api_writes_them() -> None:
    said = {"8": 8, "1k": 1000, "2Ki": 2048, "3M": 3_000_000, "1Gi": 1024**3, "": 0, "many": 0}
    assert {text: _count(text) for text in said} == said


def test_what_the_last_known_good_was_called_is_asked_too_and_nothing_twice() -> None:
    book, former = a_playbook(a_driver()), a_driver(modules=("toy", "toy_old"))
    assert questions(book, (a_driver(),)) == questions(book)
    words = questions(book, (former,))
    assert words == (*questions(book), "module", "toy_old")
