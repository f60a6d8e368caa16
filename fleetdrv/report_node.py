"""One node's part in a run, as the journal tells it: which phase from when to when, and how it ended. Pure.

Times are seconds since 1970. A journal that was written before the values of entries.py were kept tells less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fleetdrv import report_values as values
from fleetdrv.phases import Phase
from fleetdrv.report_values import Drivers
from fleetdrv.slots import Stand
from fleetdrv.turn import Verdict

MOST_NOTES = 12
"""What is kept of what a phase said: steps and waits, the first ones and the last."""

FINE = frozenset(map(str, (Verdict.CONVERGED, Verdict.CHANGED, Verdict.SKIPPED)))
"""Verdicts that nobody has to do anything about."""


class Kind(StrEnum):
    """A phase of a node's turn, in the words of the page."""

    STAGE = "stage"
    WAIT = "wait for a slot"
    LOOK = "look"
    CORDON = "cordon"
    DRAIN = "drain"
    CHANGE = "change"
    ROLLBACK = "roll back"
    VERIFY = "verify"
    KEEP = "keep"
    RETURN = "uncordon"
    SOAK = "soak"
    LEFT = "left out"
    UNATTENDED = "nobody at work"
    """The controller was gone: a job may have run on."""
    GROUP = "group"
    """No phase: what many nodes' bars are drawn as together."""


@dataclass(slots=True, kw_only=True)
class Note:
    """Something a phase said."""

    at: float
    text: str


@dataclass(slots=True, kw_only=True)
class Span:
    """One phase."""

    kind: Kind
    began: float
    out: bool
    """Out of service meanwhile."""
    ended: float | None = None
    """None: it goes on."""
    text: str = ""
    notes: list[Note] = field(default_factory=list)
    left_unsaid: int = 0
    """So many notes between the first and the last ones are not kept."""

    def note(self, at: float, text: str) -> None:
        """Take what was said; of very many the middle is dropped."""
        if text in ("", self.text) or (self.notes and self.notes[-1].text == text):
            return
        if len(self.notes) >= MOST_NOTES:
            del self.notes[MOST_NOTES // 2]
            self.left_unsaid += 1
        self.notes.append(Note(at=at, text=text))

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "phase": str(self.kind),
            "began": self.began,
            "ended": self.ended,
            "out_of_service": self.out,
            "text": self.text,
            "notes": [{"at": note.at, "text": note.text} for note in self.notes],
        }

    @property
    def seconds(self) -> float:
        """How long it took; of one that goes on, nothing."""
        return max(0.0, (self.began if self.ended is None else self.ended) - self.began)


@dataclass(slots=True, kw_only=True)
class NodeStory:
    """A node, told one journal line after the other."""

    name: str
    spans: list[Span] = field(default_factory=list)
    verdict: str = ""
    """How its turn ended; empty while it has not."""
    why: str = ""
    evidence: str = ""
    next: str = ""
    finding: Mapping[str, str] = field(default_factory=dict)
    """The named cause: name, cause, remedy, evidence and where that stands; empty where the run named none."""
    before: Drivers | None = None
    after: Drivers | None = None
    """None: nobody saw them since they were changed."""
    seconds_out: float = 0.0
    """Of outages that ended, by the journal's clock."""
    told_seconds_out: float | None = None
    """The same as the run measured it: also what passed before this machine's journal began."""
    out_since: float | None = None
    _changed: bool = False

    @property
    def failed(self) -> bool:
        """Whether somebody has to do something about it."""
        return bool(self.verdict) and self.verdict not in FINE

    @property
    def at_work(self) -> str:
        """What it is doing now, if its turn goes on."""
        last = self.spans[-1] if self.spans else None
        return str(last.kind) if last is not None and last.ended is None else ""

    @property
    def was_out(self) -> bool:
        """Whether it was taken out of service in this run, or was found so by it."""
        return self.out_since is not None or self.seconds_out > 0 or self.told_seconds_out is not None

    def out_of_service(self, now: float) -> float:
        """Return its seconds out of service until now."""
        since = 0.0 if self.out_since is None else max(0.0, now - self.out_since)
        return since + (self.seconds_out if self.told_seconds_out is None else self.told_seconds_out)

    def plain(self, now: float) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "verdict": self.verdict,
            "failed": self.failed,
            "why": self.why,
            "evidence": self.evidence,
            "next": self.next,
            "finding": dict(self.finding) or None,
            "seconds_out_of_service": self.out_of_service(now) if self.was_out else None,
            "still_out_of_service": self.out_since is not None,
            "before": self.before,
            "after": self.after,
            "phases": [span.plain() for span in self.spans],
        }

    def take(self, at: float, phase: str, text: str, *, detail: bool, data: Mapping[str, Any]) -> None:
        """Take one line of the journal."""
        kind = _kind_of_job(text) if phase == "follow" else _OPENS.get(phase)
        if kind is not None:
            self._open(at, kind, text)
            return
        match phase:
            case "found":
                self.before = self.before or values.drivers(data.get("drivers"))
            case "stand":
                self._stands(at, text)
            case "look":
                self._looks(at)
            case "seen" | "soaked" if self._is(Kind.LOOK, Kind.SOAK):
                self._close(at)
            case "cordon":
                self._cordoned(at, text)
            case "uncordon":
                self._back(at)
            case "end":
                self._ends(at, text, data)
            case "job" if detail:
                pass  # the whole log: fleetdrv logs
            case _:
                self._note(at, text.removeprefix("== "))

    def abandoned(self, at: float) -> None:
        """The controller ended without a word; another one came, or nobody."""
        if self.spans and self.spans[-1].ended is None:
            self._close(at)
            if not self.verdict:
                self._open(at, Kind.UNATTENDED, "")

    def _is(self, *kinds: Kind) -> bool:
        return bool(self.spans) and self.spans[-1].ended is None and self.spans[-1].kind in kinds

    def _open(self, at: float, kind: Kind, text: str) -> None:
        if kind in (Kind.CHANGE, Kind.ROLLBACK):
            self._changed = True
        if self._is(kind):
            self._note(at, text)
            return
        self._close(at)
        self.spans.append(Span(kind=kind, began=at, out=self.out_since is not None, text=text))

    def _close(self, at: float) -> None:
        if self.spans and self.spans[-1].ended is None:
            span = self.spans[-1]
            span.ended = at
            if span.kind in (Kind.LOOK, Kind.WAIT) and span.seconds < _SHORT and not span.out:
                self.spans.pop()

    def _note(self, at: float, text: str) -> None:
        if self.spans and self.spans[-1].ended is None:
            self.spans[-1].note(at, text)

    def _stands(self, at: float, stand: str) -> None:
        self.verdict = ""  # a canary that did not last its soak, say, has another turn
        if stand == Stand.STAGED:
            self._open(at, Kind.WAIT, "ready; waits for its turn")
        elif self._is(Kind.WAIT):
            self._close(at)

    def _looks(self, at: float) -> None:
        if self._is(Kind.SOAK, Kind.LEFT):
            return
        after_change = self._changed and self.out_since is not None
        self._open(at, Kind.VERIFY if after_change else Kind.LOOK, "")

    def _cordoned(self, at: float, text: str) -> None:
        if self.out_since is None:
            self._open(at, Kind.CORDON, text)
            self.out_since, self._changed = at, False
            self.spans[-1].out = True
        else:
            self._note(at, text)

    def _back(self, at: float) -> None:
        self._close(at)
        if self.out_since is not None:
            self.seconds_out += max(0.0, at - self.out_since)
            self.out_since = None

    def _ends(self, at: float, text: str, data: Mapping[str, Any]) -> None:
        verdict, _, why = text.partition(": ")
        self.verdict = values.text(data.get("verdict")) or verdict or "ended"
        self.why = values.text(data.get("why", why))
        self.evidence, self.next = values.text(data.get("evidence")), values.text(data.get("next"))
        self.finding = values.words(data.get("finding"))
        self.after = values.drivers(data.get("drivers"))
        self.told_seconds_out = values.number(data.get("seconds_out_of_service"))
        if self.out_since is None:
            self._close(at)
        else:
            self._open(at, Kind.LEFT, self.why)


_SHORT = 1.0
"""A look, or a wait, that takes less while the node serves is no phase worth a line."""

_OPENS = {
    "stage": Kind.STAGE,
    "drain": Kind.DRAIN,
    "hold off": Kind.DRAIN,
    "outage": Kind.CHANGE,
    "rollback": Kind.ROLLBACK,
    "keep": Kind.KEEP,
    "return": Kind.RETURN,
    "leave out": Kind.LEFT,
    "soak": Kind.SOAK,
}
_JOBS = {
    Phase.STAGE: Kind.STAGE,
    Phase.OUTAGE: Kind.CHANGE,
    Phase.ROLLBACK: Kind.ROLLBACK,
    Phase.KEEP: Kind.KEEP,
}


def _kind_of_job(text: str) -> Kind:
    """Return the phase that a job belongs to, from a text that names it: RUN.PHASE.NUMBER."""
    return next((kind for phase, kind in _JOBS.items() if f".{phase}." in text), Kind.CHANGE)
