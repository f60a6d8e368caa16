"""~/.ssh/config for Fabric, read once per run: with Include, and fast with thousands of Host blocks."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fabric import Config
from paramiko import SSHConfig
from paramiko.config import SSHConfigDict
from paramiko.ssh_exception import ConfigParseError

from fleetdrv.errors import InputError

MOST_INCLUDES = 16
"""Depth at which OpenSSH gives up, too."""


class IndexedSSHConfig(SSHConfig):
    """An SSHConfig whose lookup looks only at blocks that can apply.

    Stock goes through every block: 58 ms per host with 2000 of them, a minute for 1000 nodes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._by_name: dict[str, SSHConfig] | None = None

    def lookup(self, hostname: str) -> SSHConfigDict:
        """Return the options for one host name; safe from many threads."""
        if self._by_name is None:
            self._by_name = self._index()
        reduced = self._by_name.get(hostname) or self._by_name.get("")
        return super().lookup(hostname) if reduced is None else reduced.lookup(hostname)

    def _index(self) -> dict[str, SSHConfig]:
        """Map each literally named host, and "" for all others, to its blocks in file order."""
        blocks: list[dict[str, Any]] = self._config  # type: ignore[attr-defined]  # Fabric sets it, too
        if any("canonicalizehostname" in block["config"] for block in blocks):
            return {}  # names change during the lookup
        everywhere = [_names(block) is None for block in blocks]
        numbers: dict[str, list[int]] = {"": []}
        for number, block in enumerate(blocks):
            for name in _names(block) or ():
                numbers.setdefault(name, []).append(number)
        general = [number for number, always in enumerate(everywhere) if always]
        return {name: _reduced(blocks, sorted({*own, *general})) for name, own in numbers.items()}


def _reduced(blocks: list[dict[str, Any]], numbers: list[int]) -> SSHConfig:
    reduced = SSHConfig()
    reduced._config = [blocks[number] for number in numbers]  # type: ignore[attr-defined]
    return reduced


def _names(block: dict[str, Any]) -> list[str] | None:
    """Return a Host block's literal names; None for patterns and Match blocks, which may apply to any."""
    names: list[str] | None = block.get("host")
    if names is None or any(mark in name for name in names for mark in "*?!"):
        return None
    return names


def read_config(path: Path | None) -> Config:
    """Return Fabric's Config over one file, or over ~/.ssh/config and the system's file where None is given.

    Only SSH's files are read: Fabric's and Invoke's own (~/.fabric.py and the like) could run code and change
    what a run does from laptop to laptop.
    """
    named = path is not None
    paths = [path] if path is not None else [Path("~/.ssh/config").expanduser(), Path("/etc/ssh/ssh_config")]
    config = IndexedSSHConfig()
    for each in paths:
        if not named and not each.is_file():
            continue
        try:
            config.parse(_lines(each, each.parent, 0))
        except OSError as error:
            raise InputError(f"{each}: {error.strerror}") from None
        except (ConfigParseError, UnicodeDecodeError, ValueError) as error:
            raise InputError(f"{each}: {error}") from None
    return Config(lazy=True, ssh_config=config)


def _lines(path: Path, folder: Path, depth: int) -> Iterator[str]:
    """Yield the lines with included files in place; Paramiko ignores `Include` without a word.

    A file's first lines belong to every host again, whatever block the file before ended with.
    """
    if depth > MOST_INCLUDES:
        raise ValueError("too many nested Include lines")
    yield "Host *"
    in_block = False
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        in_block = in_block or word.lower() in ("host", "match")
        if word.lower() != "include":
            yield line
            continue
        if in_block:
            raise ValueError("Include inside a Host or Match block is not supported: move it to the top")
        for pattern in rest.split():
            expanded = os.path.expanduser(pattern.strip('"'))
            for name in sorted(glob.glob(os.path.join(folder, expanded))):
                yield from _lines(Path(name), folder, depth + 1)
        yield "Host *"
