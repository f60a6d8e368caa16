"""A run as its journal tells it: fed with the journal's lines, asked for a report at any moment. Pure.

The journal may be of a run that goes on, of one that was killed, of several commands that went on with one run,
or of an older fleetdrv: whatever it does not tell is left out, and no line is too broken.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from fleetdrv import report_values as values
from fleetdrv.events import OVER
from fleetdrv.report_node import Kind, NodeStory, Note, Span
from fleetdrv.resolve import shown

MOST_MESSAGES = 200
"""Words of the run as a whole that are kept; the first ones and the last."""


class State(StrEnum):
    """How far a run is."""

    LIVE = "goes on"
    OVER = "over"
    BROKEN = "broken off"
    """Its controller is gone and said no last word: killed, or a power cut."""
    UNKNOWN = "no end on record"
    """It said no last word, and this machine cannot know whether it still runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the run is."""

    command: str = ""
    again: str = ""
    """The same command, to be typed."""
    playbook: str = ""
    path: str = ""
    digest: str = ""
    pool: str = ""
    nodes: int = 0
    cluster: bool = True
    who: str = ""
    """holderIdentity of the process that drives it, or drove it last."""
    reason: str = ""
    limits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that the page shows."""

    run: str
    about: About
    state: State
    began: float
    until: float
    """The run's end; of one that goes on, now."""
    exit_code: int | None
    stopped: str
    """Why it ended before all nodes were done."""
    effects: Mapping[str, int]
    versions: Mapping[str, str]
    """What version patterns were resolved to."""
    nodes: Sequence[NodeStory]
    waits: Sequence[Span]
    """What the rollout as a whole waited for."""
    messages: Sequence[Note]
    commands: int
    """How many commands worked on it, one after the other."""

    @property
    def live(self) -> bool:
        """Whether the page is to be written again."""
        return self.state is State.LIVE

    @property
    def seconds_out(self) -> float:
        """Node-seconds out of service, of all nodes."""
        return sum(node.out_of_service(self.until) for node in self.nodes)

    def outs(self) -> list[tuple[float, int]]:
        """Return how many nodes were out of service from which time on."""
        spans = [span for node in self.nodes for span in node.spans if span.out]
        return _counted((span.began, self.until if span.ended is None else span.ended) for span in spans)


@dataclass(slots=True, kw_only=True)
class RunLog:
    """A run, told one journal line after the other."""

    run: str
    about: About = field(default_factory=About)
    nodes: dict[str, NodeStory] = field(default_factory=dict)
    waits: list[Span] = field(default_factory=list)
    messages: list[Note] = field(default_factory=list)
    commands: int = 0
    _began: float | None = None
    _last: float = 0.0
    _over: Mapping[str, Any] | None = None
    _versions: dict[str, str] = field(default_factory=dict)

    def take(self, entry: Mapping[str, Any]) -> None:
        """Take one line of the journal; what is no such line is passed over."""
        at, phase = values.number(entry.get("at")), values.text(entry.get("phase"))
        if at is None or not 0 <= at < _END_OF_TIME:
            return
        text, node, data = values.text(entry.get("text")), values.text(entry.get("node")), entry.get("data")
        data = data if isinstance(data, dict) else {}
        self._began = at if self._began is None else min(self._began, at)
        if node:
            story = self.nodes.setdefault(node, NodeStory(name=node))
            story.take(at, phase, text, detail=entry.get("level") == "detail", data=data)
        else:
            self._of_run(at, phase, text, data)
        self._last = max(self._last, at)

    @property
    def empty(self) -> bool:
        """Nothing was told yet."""
        return self._began is None

    def report(self, now: float, alive: bool | None) -> Report:
        """Return how things stand; `alive`: whether the process that drives it runs, None where nobody knows."""
        over, code = self._over, values.number((self._over or {}).get("exit_code"))
        state = State.OVER if over is not None else _STATES[alive]
        until = max(now, self._last) if state is State.LIVE else self._last
        return Report(
            run=self.run,
            about=self.about,
            state=state,
            began=self._last if self._began is None else self._began,
            until=until,
            exit_code=None if code is None else int(code),
            stopped=values.text((over or {}).get("stopped")),
            effects=values.counts((over or {}).get("effects")),
            versions=self._versions,
            nodes=tuple(self.nodes.values()),
            waits=tuple(self.waits),
            messages=tuple(self.messages),
            commands=self.commands,
        )

    def _of_run(self, at: float, phase: str, text: str, data: Mapping[str, Any]) -> None:
        match phase:
            case "run":
                self._begins(data)
            case "rollout":
                self._waits(at, text)
            case "record":
                self._record(text)
            case "waiting":
                pass  # a sign of life for who looks on
            case _ if phase == OVER:
                self._waits(at, "")
                self._over = data
            case _:
                self._say(at, f"{phase}: {text}")

    def _begins(self, data: Mapping[str, Any]) -> None:
        if self.commands and self._over is None:
            for story in self.nodes.values():
                story.abandoned(self._last)
        self.commands, self._over = self.commands + 1, None
        book = values.words(data.get("playbook"))
        said = {name: values.text(data.get(name)) for name in _SAID}
        self.about = About(
            **said,
            playbook=book.get("name", ""),
            path=book.get("path", ""),
            digest=book.get("digest", ""),
            nodes=int(values.number(data.get("nodes")) or 0),
            cluster=data.get("cluster") is not False,
            limits=values.words(data.get("limits")),
        )
        self._versions.update(values.words(data.get("versions")))

    def _waits(self, at: float, text: str) -> None:
        if self.waits and self.waits[-1].ended is None:
            self.waits[-1].ended = at
        if text.startswith(_WAITS):
            self.waits.append(Span(kind=Kind.WAIT, began=at, out=False, text=text.removeprefix(_WAITS)))
        elif text:
            self._say(at, text)

    def _record(self, text: str) -> None:
        try:
            record = json.loads(text)
            self._versions.update(shown(values.words(record["versions"])))
            self.about = replace(self.about, pool=str(record["pool"]), playbook=str(record["playbook"]))
            if record["finished"] and self._over is None:  # all that an older fleetdrv says of a run's end
                self._over = {"stopped": str(record["reason"])}
        except (ValueError, KeyError, TypeError, AttributeError):
            return

    def _say(self, at: float, text: str) -> None:
        if len(self.messages) >= MOST_MESSAGES:
            del self.messages[MOST_MESSAGES // 2]
        self.messages.append(Note(at=at, text=text))


_WAITS = "next node waits for "
_SAID = ("command", "again", "pool", "who", "reason")
_END_OF_TIME = 32_503_680_000.0
"""The year 3000: what a clock that is so wrong tells is no time."""
_STATES = {True: State.LIVE, False: State.BROKEN, None: State.UNKNOWN}


def _counted(spans: Iterable[tuple[float, float]]) -> list[tuple[float, int]]:
    """Return how many of the spans there were at once, from which time on."""
    steps: dict[float, int] = {}
    for began, ended in spans:
        steps[began] = steps.get(began, 0) + 1
        steps[ended] = steps.get(ended, 0) - 1
    count, counts = 0, []
    for at, step in sorted(steps.items()):
        if step:
            count += step
            counts.append((at, count))
    return counts
