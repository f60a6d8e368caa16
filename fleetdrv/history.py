"""How long nodes were out of service in former runs, by this machine's journals. For the order only.

A machine without journals starts nodes in the inventory's order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

_RUNS = 10
_LINES = 1_000_000
"""What is read at most, so that years of journals do not delay a rollout."""


def expected_seconds(folder: Path) -> dict[str, float]:
    """Return how long each node's last outage took, in seconds, by the newest journals of a folder."""
    found: dict[str, float] = {}
    with suppress(OSError):
        journals = sorted(folder.glob("*.jsonl"), key=lambda path: path.name, reverse=True)
        for path in journals[:_RUNS]:
            with suppress(OSError, UnicodeError), path.open(encoding="utf-8") as lines:
                found = outages(islice(lines, _LINES)) | found
    return found


def outages(lines: Iterable[str]) -> dict[str, float]:
    """Return the seconds from cordon to uncordon of each node that a journal tells of; torn lines are none."""
    since: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for line in lines:
        if '"cordon"' not in line and '"uncordon"' not in line:
            continue  # most lines are a job's log
        try:
            event = json.loads(line)
            node, phase, at = str(event["node"]), event["phase"], float(event["at"])
        except (ValueError, KeyError, TypeError):
            continue
        if phase == "cordon":
            since.setdefault(node, at)
        elif phase == "uncordon" and node in since:
            seconds[node] = max(0.0, at - since.pop(node))
    return seconds
