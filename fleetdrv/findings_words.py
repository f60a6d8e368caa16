"""A finding with the names that its evidence gives it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fleetdrv.finding import Finding

_UNNAMED = {
    "kernel": "KERNEL",
    "module": "MODULE",
    "package": "PACKAGE",
    "process": "who it is was not said",
    "path": "/var",
    "key": "that apt names",
    "tool": "a tool that is needed",
}
"""What stands where the evidence names nothing: a word that a reader fills in himself."""


def in_words(finding: Finding, words: Mapping[str, str]) -> Finding:
    """Return the finding with kernel, module, package in its cause and remedy."""
    known = {**_UNNAMED, **{name: word.rstrip(".,;") for name, word in words.items()}}
    return replace(finding, cause=finding.cause.format_map(known), remedy=finding.remedy.format_map(known))
