"""What a run looks like at one moment: a state fed with Events. Pure.

Terminal, heartbeat and SIGUSR1 all show this one state (board_view.py). Times are seconds of one steady clock,
handed in.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fleetdrv.events import Event, Level
from fleetdrv.lines import shown, span
from fleetdrv.slots import Stand


@dataclass(slots=True)
class Turn:
    """One node at work."""

    phase: str
    since: float
    """When this phase began."""
    text: str = ""
    """What it does or waits for."""


@dataclass(slots=True, kw_only=True)
class Board:
    """All nodes of a run, as its Events tell them.

    Bounded by the pool: a node has one entry in at most one of `at_work`, `staged` and `soaking`.
    """

    title: str = ""
    total: int = 0
    limit: int | None = None
    """`max_unavailable` in nodes; unknown while the pool is looked at."""
    began: float = 0.0
    at_work: dict[str, Turn] = field(default_factory=dict)
    staged: dict[str, float] = field(default_factory=dict)
    """Ready for their outage, since when."""
    soaking: dict[str, Turn] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    """How each turn ended."""
    failed: dict[str, str] = field(default_factory=dict)
    out: dict[str, float] = field(default_factory=dict)
    """Out of service by our hand, since when."""
    seen: set[str] = field(default_factory=set)
    """Looked at, before the rollout began."""
    rolling: bool = False
    """The look at the pool is over, nodes have their turns."""
    waits: Turn = field(default_factory=lambda: Turn("", 0.0))
    """What the rollout as a whole waits for, and since when."""

    def take(self, event: Event, now: float) -> None:
        """Take what happened."""
        if event.node:
            self._of_node(event.node, event, now)
        elif event.phase == "rollout":
            self._roll()
            self.waits = Turn("rollout", now, shown(event.text))

    def _of_node(self, node: str, event: Event, now: float) -> None:
        match event.phase:
            case "stand":
                self._stands(node, event.text, now)
            case "seen":
                self.seen.add(node)
                if not self.rolling:
                    self.at_work.pop(node, None)
            case "soak":
                self.soaking[node] = Turn("soak", now, shown(event.text))
            case "soaked":
                self.soaking.pop(node, None)
            case "end":
                self._ends(node, event)
            case "job":
                if event.level is not Level.DETAIL and node in self.at_work:
                    self.at_work[node].text = shown(event.text.removeprefix("== "))
            case _:
                self._works(node, event, now)

    def _roll(self) -> None:
        if not self.rolling:
            self.rolling = True
            self.at_work.clear()

    def _stands(self, node: str, stand: str, now: float) -> None:
        self._roll()
        for kept in (self.staged, self.ended, self.failed):
            kept.pop(node, None)
        if stand == Stand.STAGED:
            self.at_work.pop(node, None)
            self.staged[node] = now
        else:
            self.at_work[node] = Turn(stand, now)

    def _works(self, node: str, event: Event, now: float) -> None:
        if event.phase == "cordon":
            self.out.setdefault(node, now)
        elif event.phase == "uncordon":
            self.out.pop(node, None)
        idle = node in self.ended or node in self.staged or (self.rolling and node not in self.at_work)
        if idle or event.phase == "note":
            return  # left out since before, or a word after its end: nobody works there now
        turn = self.at_work.get(node)
        since = turn.since if turn and turn.phase == event.phase else now
        self.at_work[node] = Turn(event.phase, since, shown(event.text))

    def _ends(self, node: str, event: Event) -> None:
        self._roll()
        for kept in (self.at_work, self.staged, self.soaking, self.failed):
            kept.pop(node, None)
        self.ended[node] = shown(event.text)
        if event.level is Level.WARNING:
            self.failed[node] = shown(event.text)

    # ---- numbers

    def counts(self) -> list[str]:
        """Return how many stand where, endings by their verdict."""
        to_go = self.total - len(self.ended) - len(self.at_work) - len(self.staged)
        staging = sum(node not in self.out for node in self.at_work)
        open_ = {"preparing": staging, "staged": len(self.staged), "soaking": len(self.soaking)}
        verdicts = Counter(text.partition(": ")[0] for text in self.ended.values())
        parts = [*open_.items(), *verdicts.most_common(), ("to go", max(0, to_go))]
        return [f"{number} {word}" for word, number in parts if number]

    def head(self, now: float) -> list[str]:
        """Return how far it is."""
        name = f"{self.title}: " if self.title else ""
        if not self.rolling:
            return [f"{name}looked at {len(self.seen)} of {self.total} nodes", span(now - self.began)]
        bound = "" if self.limit is None else f" of at most {self.limit}"
        out = f"{len(self.out)}{bound} out of service"
        return [f"{name}{len(self.ended)} of {self.total} nodes done", out, span(now - self.began)]

    def slowest(self) -> list[str]:
        """Name the nodes at work: those out of service first, each kind the longest first."""
        return sorted(self.at_work, key=lambda n: (n not in self.out, self._since(n), n))

    def _since(self, node: str) -> float:
        return self.out.get(node, self.at_work[node].since)

    def idle(self) -> bool:
        """Whether there is nothing to be told of: nobody works, nobody soaks."""
        return not (self.at_work or self.soaking or self.staged)
