"""Names of files in ssh_config(5): `~`, percent tokens and environment variables put in, as ssh(1) does."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

AGENT_VARIABLE = "SSH_AUTH_SOCK"


def agent_socket(text: str, tokens: Mapping[str, str]) -> str:
    """Return the agent's socket by what IdentityAgent says: a file, `none`, or a variable that names it.

    >>> agent_socket("none", {}), agent_socket("/run/%%/%h", {"h": "n1"}), agent_socket("$NOT_SET_ANYWHERE", {})
    ('', '/run/%/n1', '')
    """
    text = text.strip('"')
    if text == AGENT_VARIABLE:
        return os.environ.get(AGENT_VARIABLE, "")
    if text.startswith("$") and not text.startswith("${"):
        return os.environ.get(text[1:], "")
    return "".join(map(str, files([text], tokens)))


def paths(text: str | None, tokens: Mapping[str, str]) -> tuple[Path, ...] | None:
    """Read a list of files with the tokens of ssh_config(5), as in `~/.ssh/known_hosts.d/%k`."""
    return None if text is None else files(shlex.split(text), tokens)


def files(names: Iterable[str], tokens: Mapping[str, str]) -> tuple[Path, ...]:
    """Return files by their names; `none` is no file."""
    found = [re.sub("%(.)", lambda found: _token(found[1], tokens), _variables(name)) for name in names]
    return tuple(Path(name).expanduser() for name in found if name.lower() != "none")


def _variables(name: str) -> str:
    """Put in environment variables, as in `${HOME}/key`; one that is not set stays, and is named in complaints."""
    return re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], found[0]), name)


def _token(letter: str, tokens: Mapping[str, str]) -> str:
    """Return what stands for `%LETTER`; one that is not known stays as it is."""
    if letter in tokens:
        return tokens[letter]
    here = {
        "%": lambda: "%",
        "d": lambda: str(Path.home()),
        "i": lambda: str(os.getuid()),
        "L": lambda: socket.gethostname().partition(".")[0],
        "l": socket.gethostname,
        "u": getpass.getuser,
    }
    return here[letter]() if letter in here else f"%{letter}"
