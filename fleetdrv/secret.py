"""Texts that must be shown nowhere, and the one function through which every sink passes what it shows.

A secret goes to nobody but the program that asked for it, so that no text should ever hold one. `hide` is for
the day on which a node's own words do: a wrapper that echoes what it reads, a trace that somebody switched on.
"""

from __future__ import annotations

import json

from fleetdrv.errors import InputError

MASK = "********"
SHORTEST_HIDDEN = 4
"""A shorter one would stand in every other word, and its masks would tell more than they hide."""

_hidden: set[str] = set()


class Secret:
    """A password or passphrase, in memory only; every text of this process is cleaned of it from now on."""

    __slots__ = ("_text",)

    def __init__(self, text: str, source: str) -> None:
        """Raises InputError, naming the source, for what no password prompt could have read."""
        if not text or any(mark in text for mark in "\0\r\n"):
            raise InputError(f"{source}: holds no password: one line, not empty")
        self._text = text
        if len(text) >= SHORTEST_HIDDEN:
            _hidden.update({text, json.dumps(text)[1:-1]})

    def __repr__(self) -> str:
        return "Secret()"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not to be written down")

    def reveal(self) -> str:
        """Return it, for whoever hands it to the program that asked."""
        return self._text


def hide(text: str) -> str:
    """Return a text without any secret in it.

    >>> hide("nothing to hide")
    'nothing to hide'
    """
    for secret in sorted(_hidden, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
