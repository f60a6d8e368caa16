"""What went wrong, by name: texts of apt, dpkg, dkms, make, modprobe and the kernel, and facts of a node. Pure.

The first real error of a log wins: what comes after it is mostly its consequence, or another matter. A line that
only passes a failure on (dpkg's `Sub-process … returned an error code`, run-parts) never wins over one that does
not; a symptom (`Bad return status`, `could not insert`) yields to what explains it: an exit code of 0 that hid a
notice before it, make.log or the kernel's lines right after it, the kernel's log, a fact. An error that nobody
knows is an error all the same, and what is known of later lines does not become its name.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fleetdrv.finding import UNKNOWN, Finding, Found, Repair, Retry, Rule, Weight, pattern
from fleetdrv.findings_apt import APT
from fleetdrv.findings_dkms import DKMS
from fleetdrv.findings_gpu import GPU
from fleetdrv.findings_load import LOAD
from fleetdrv.findings_node import of_facts
from fleetdrv.findings_repository import REPOSITORY
from fleetdrv.findings_words import in_words
from fleetdrv.model import NodeFacts

__all__ = ["TABLE", "UNKNOWN", "Finding", "Found", "Repair", "Retry", "classify", "named"]

TABLE: tuple[Rule, ...] = (*APT, *REPOSITORY, *DKMS, *GPU, *LOAD)
"""All that is known. Where one line fits two, the earlier one here is meant."""

_MOST = 1 << 20
"""Characters of either end of a log that are read: the rest of one that is longer repeats itself."""

_LAST_LINES = 5


def named(name: str) -> Finding | None:
    """Return the finding of that name, as the table has it."""
    if name == UNKNOWN.name:
        return UNKNOWN
    return next((rule.finding for rule in TABLE if rule.finding.name == name), None)


def classify(log: str, *, kernel: str = "", facts: NodeFacts | None = None) -> tuple[Found, ...]:
    """Return what is wrong, the likeliest cause first; never empty where `log` has a line.

    `log`: of what failed, whole. `kernel`: lines of the kernel's log, oldest first. What is not known is
    `UNKNOWN`, with the line that says so, or the last meaningful lines, as its evidence.
    """
    told = _Text(log)
    said = _hits(told, "log")
    by_kernel = [hit for hit in _hits(_Text(kernel), "kernel") if hit.weight in (Weight.CAUSE, Weight.SYMPTOM)]
    by_facts = list(of_facts(facts)) if facts else []
    behind = [hit.found() for hit in by_kernel if hit.weight is Weight.CAUSE] + by_facts
    ranked: list[Found] = []
    for weights in ((Weight.CAUSE, Weight.SYMPTOM), (Weight.WRAPPER,)):
        for hit in said:
            if hit.weight in weights:
                ranked += _why(hit, said, told, behind)
                ranked.append(hit.found())
    notices = [hit.found() for hit in said if hit.weight is Weight.NOTICE]
    hardware = [found for found in behind if found.finding.quarantine]
    if not ranked and told.lines and (not notices or told.complains(said)):
        ranked = [*hardware, _unknown(told)]
    rest = [hit.found() for hit in by_kernel]
    ordered = (*ranked, *notices, *rest, *by_facts) if log.strip() else (*hardware, *by_facts, *rest)
    return _once(ordered)


@dataclass(frozen=True, slots=True)
class _Hit:
    """A text of the table, or of an error that is not in it, at its place."""

    rule: Rule
    weight: Weight
    source: str
    line: int
    text: str
    words: dict[str, str]

    def found(self) -> Found:
        """Name what it shows."""
        finding = in_words(self.rule.finding, self.words)
        return Found(finding=finding, evidence=self.text, where=f"{self.source}:{self.line}")


class _Text:
    """A log without time stamps, terminal colours and repeated prefixes, so that wrapped lines can be read on."""

    def __init__(self, text: str) -> None:
        if len(text) > 2 * _MOST:
            head, cut, tail = text[:_MOST], text[_MOST:-_MOST].count("\n"), text[-_MOST:]
            text = head + "\n" * cut + tail
        self.lines = [_JUNK.sub("", line).replace("\r", " ").rstrip() for line in text.split("\n")]
        self.kernel = [_STAMP.match(line) is not None for line in self.lines]
        bare, before = [], ""
        for line in self.lines:
            line = _STAMP.sub("", line, count=1).lstrip()
            prefix = match[0] if (match := _PREFIX.match(line)) else ""
            bare.append(line.removeprefix(prefix) if prefix and prefix == before else line)
            before = prefix
        self.text = "\n".join(bare)
        self._starts = [0]
        for line in bare:
            self._starts.append(self._starts[-1] + len(line) + 1)
        while self.lines and not self.lines[-1]:
            self.lines.pop()

    def line_of(self, position: int) -> int:
        """Number the line, from 1."""
        return bisect_right(self._starts, position)

    def shown(self, first: int, last: int) -> str:
        """Return lines as they stand in the log."""
        return "\n".join(line.strip() for line in self.lines[max(0, first - 1) : last])[:_EVIDENCE]

    def follows(self, symptom: int, line: int) -> bool:
        """Whether a line belongs to what a symptom prints as its reason: the kernel's lines, or a make.log."""
        between = range(symptom, min(line, len(self.lines)))
        if all(self.kernel[n] or _MORE.search(self.lines[n]) for n in between):
            return True
        heads = [n for n in between if _MAKE_LOG.search(self.lines[n])]
        return bool(heads) and not any(_MAKE_ENDS.search(self.lines[n]) for n in range(heads[0], line - 1))

    def complains(self, said: Sequence[_Hit]) -> bool:
        """Whether any line but those that were understood speaks of a failure."""
        known = {hit.line for hit in said}
        rest = (line for n, line in enumerate(self.lines, 1) if n not in known)
        return any(_FAILURE.search(line) and not _ASIDE.match(line) for line in rest)


_EVIDENCE = 600
_JUNK = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b\x0c\x0e-\x1f]")
_STAMP = re.compile(
    r"^(?:<\d+>)?\[ *\d+\.\d+\](?:\[[^\]]*\])? |^\w{3} [ \d]\d [\d:]{8} \S+ kernel: (?:\[ *[\d.]+\] )?"
)
_PREFIX = re.compile(r"^[A-Za-z][\w.-]*: (?!Xid)")
_MAKE_LOG = re.compile(r"^(?:DKMS \S* ?make\.log for|make\.log of) ")
_MAKE_ENDS = re.compile(r"^(?:make: \*\*\*|# exit code:|-{20,})")
_MORE = re.compile(r"^\s*$|exit status|^(?:modprobe|insmod): ERROR")
_FAILURE = re.compile(r"\b(?:error|failed|failure|fatal|cannot|can't|killed|aborted|denied)\b", re.IGNORECASE)

_ERRORS = re.compile(
    r"^(?:E: |Error! |dpkg: error: |(?:\S*/)?(?:modprobe|insmod|rmmod|depmod): (?:ERROR|FATAL): |fatal: |FATAL: )"
    r"(?!Can not write log|Installation aborted)",
    re.MULTILINE,
)
"""How apt, dpkg, dkms and kmod begin what they give up with."""

_ASIDE = re.compile(r"^(?:W|N|I): |^dpkg: warning: ")
"""What is said by the way: nobody gave up by it."""


def _hits(told: _Text, source: str) -> list[_Hit]:
    """Return the first place of each finding, at each weight, in the order of the log."""
    found: dict[tuple[str, Weight], _Hit] = {}
    covered: set[int] = set()
    for order in TABLE:
        for weight, text in order.texts:
            for match in pattern(text).finditer(told.text):
                first, last = told.line_of(match.start()), told.line_of(match.end() - 1)
                line = told.text[told.text.rfind("\n", 0, match.start()) + 1 : match.end()]
                weighs = Weight.NOTICE if _ASIDE.match(line) else weight
                covered |= set(range(first, last + 1))
                words = {name: word for name, word in match.groupdict().items() if word}
                hit = _Hit(order, weighs, source, first, told.shown(first - order.before, last), words)
                key = (order.finding.name, weighs)
                if key not in found or first < found[key].line:
                    found[key] = hit
    hits = sorted(found.values(), key=lambda hit: (hit.line, hit.weight))  # stable: the table's order in a line
    best = [hit for n, hit in enumerate(hits) if not n or hits[n - 1].line != hit.line]
    stranger = _stranger(told, covered, source)
    return sorted((*best, *stranger), key=lambda hit: hit.line)


def _stranger(told: _Text, covered: set[int], source: str) -> Iterator[_Hit]:
    """Yield the first error that the table does not know, if the log is not the kernel's."""
    for match in _ERRORS.finditer(told.text) if source == "log" else ():
        line = told.line_of(match.start())
        if line not in covered:
            yield _Hit(Rule(finding=UNKNOWN), Weight.CAUSE, source, line, told.shown(line, line + 2), {})
            return


def _why(hit: _Hit, said: Iterable[_Hit], told: _Text, behind: Iterable[Found]) -> Iterator[Found]:
    """Yield what explains a symptom."""
    reasons = hit.rule.explained_by if hit.weight is not Weight.CAUSE else frozenset()
    for other in said:
        if other.rule.finding.name in reasons:
            hidden = other.weight is Weight.NOTICE and other.line < hit.line
            if hidden or (other.line > hit.line and told.follows(hit.line, other.line)):
                yield other.found()
    yield from (found for found in behind if found.finding.name in reasons)


def _unknown(told: _Text) -> Found:
    last = [n for n, line in enumerate(told.lines, 1) if line.strip()][-_LAST_LINES:]
    evidence = "\n".join(told.lines[n - 1].strip() for n in last)[-_EVIDENCE:]
    return Found(finding=UNKNOWN, evidence=evidence, where=f"log:{last[0]}")


def _once(founds: Iterable[Found]) -> tuple[Found, ...]:
    """Keep the first of each finding."""
    first: dict[str, Found] = {}
    for found in founds:
        first.setdefault(found.finding.name, found)
    return tuple(first.values())
