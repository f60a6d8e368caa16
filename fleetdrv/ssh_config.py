"""What ~/.ssh/config says of one host, for Fabric: as ssh(1) understands it, and fast with thousands of blocks."""

from __future__ import annotations

import getpass
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fabric import Config
from paramiko import SSHConfig
from paramiko.config import SSHConfigDict
from paramiko.ssh_exception import CouldNotCanonicalize

from fleetdrv import ssh_config_file
from fleetdrv.errors import InputError
from fleetdrv.ssh_config_file import LISTS, Asking, Block


class FleetSSHConfig(SSHConfig):
    """Paramiko's SSHConfig with another reader and another look-up; what expands tokens is Paramiko's.

    The stock look-up goes through every block: 58 ms per host with 2000 of them, a minute for 1000 nodes. It also
    makes the second pass, in which `Match host` sees the final name, where no `Match final` asks for it.
    """

    # Files, commands and the like are expanded where port and user of the inventory are known.
    TOKENS_BY_CONFIG_KEY = {key: SSHConfig.TOKENS_BY_CONFIG_KEY[key] for key in ("hostname", "proxyjump")}

    def __init__(self, blocks: Sequence[Block] = ()) -> None:
        super().__init__()
        self._blocks = tuple(blocks)
        self._by_name = self._index()
        self._final = any(c.kind == "final" for block in blocks for c in block.conditions)
        self._given = threading.local()

    @contextmanager
    def given(self, user: str) -> Iterator[None]:
        """In this thread, look up for a log-in as that user: it is on the command line, so to speak."""
        self._given.user = user
        try:
            yield
        finally:
            self._given.user = ""

    def lookup(self, hostname: str) -> SSHConfigDict:
        """Return the options for one host name; safe from many threads. Raises InputError with file and line."""
        found: Any = SSHConfigDict()  # its stub knows texts only
        blocks = self._by_name.get(hostname) or self._by_name[""]
        self._take(found, blocks, hostname, final=False)
        name = self._canonical(hostname, found)
        found.setdefault("hostname", hostname)  # and no later one counts
        if name is not None:
            found["hostname"] = name
            self._take(found, self._blocks, name, final=True)
        elif self._final:
            self._take(found, self._blocks, hostname, final=True)
        return self._expand_variables(found, hostname)  # type: ignore[attr-defined,no-any-return]

    def _take(self, found: Any, blocks: Sequence[Block], hostname: str, *, final: bool) -> None:
        local = getpass.getuser()
        given = getattr(self._given, "user", "")
        met: dict[int, bool] = {}  # a line is judged once, where it stands, also for what its Include brings
        for block in blocks:
            host = str(found.get("hostname", "%h")).replace("%h", hostname)
            user = given or str(found.get("user", local))
            asking = Asking(original=hostname, host=host, user=user, local_user=local, final=final)
            for condition in block.conditions:
                if id(condition) not in met:
                    met[id(condition)] = condition.holds(asking)
                if not met[id(condition)]:
                    break
            else:
                self._put(found, block)

    def _put(self, found: Any, block: Block) -> None:
        """Take a block's options where none is known yet; of lists, all."""
        for key, value in block.options.items():
            if key in LISTS:
                kept = found.setdefault(key, [])
                kept.extend(each for each in value or () if each not in kept)
            else:
                found.setdefault(key, value)

    def _canonical(self, hostname: str, found: SSHConfigDict) -> str | None:
        """Return the name that CanonicalizeHostname makes of it, None where it is not asked for."""
        if found.get("canonicalizehostname") not in ("yes", "always"):
            return None
        if hostname.count(".") > int(found.get("canonicalizemaxdots", 1)):
            return hostname
        try:
            domains = str(found.get("canonicaldomains", "")).split()
            return str(self.canonicalize(hostname, found, domains))
        except CouldNotCanonicalize:
            raise InputError(f"{hostname}: CanonicalizeHostname finds it in none of CanonicalDomains") from None

    def _index(self) -> dict[str, tuple[Block, ...]]:
        """Map each literally named host, and "" for all others, to the blocks that can be for it, in order."""
        always: list[int] = []
        numbers: dict[str, list[int]] = {"": []}
        for number, block in enumerate(self._blocks):
            names = _names(block)
            if names is None:
                always.append(number)
            for name in names or ():
                numbers.setdefault(name, []).append(number)
        return {
            name: tuple(self._blocks[number] for number in sorted({*own, *always}))
            for name, own in numbers.items()
        }


def _names(block: Block) -> list[str] | None:
    """Return the literal names that a block is for; None where it may be for any."""
    if not block.conditions or block.conditions[0].kind != "Host":
        return None
    names = list(block.conditions[0].patterns)
    return None if any(mark in name for name in names for mark in "*?!") else names


def read_config(path: Path | None) -> Config:
    """Return Fabric's Config over one file, or over ~/.ssh/config and the system's file where None is given.

    Only SSH's files are read: Fabric's and Invoke's own (~/.fabric.py and the like) could run code and change
    what a run does from laptop to laptop. Raises InputError with file and line.
    """
    if path is not None:
        blocks = ssh_config_file.read(path)
    else:
        usual = (Path("~/.ssh/config").expanduser(), Path("/etc/ssh/ssh_config"))
        blocks = [block for each in usual if each.is_file() for block in ssh_config_file.read(each)]
    return Config(lazy=True, ssh_config=FleetSSHConfig(blocks))
