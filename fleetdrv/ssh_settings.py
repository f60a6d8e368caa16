"""How to reach a host: inventory first, then ~/.ssh/config, then OpenSSH's defaults.

Fabric's Connection does the resolving of ~/.ssh/config, over one Config for the whole run. Variable names are
Ansible's, so that an inventory made for Ansible works as it is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from getopt import GetoptError, getopt
from pathlib import Path
from typing import Any

from fabric import Connection

from fleetdrv.errors import InputError
from fleetdrv.known_hosts import DEFAULT_PORT
from fleetdrv.model import Host
from fleetdrv.ssh_config_file import LISTS
from fleetdrv.ssh_tokens import AGENT_VARIABLE, agent_socket, files, paths

DEFAULT_GLOBAL_FILES = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))

_SSH_FLAGS = "1246ab:c:e:fgi:kl:m:no:p:qstvxAB:CD:E:F:GI:J:KL:MNO:P:Q:R:S:TVw:W:XYy"  # OpenSSH 9.2, ssh.c
_PLAIN_IN_A_SHELL = re.compile(r"[A-Za-z0-9_.:+@][A-Za-z0-9_.:+@%-]*")
_SHORT = {"-J": "proxyjump", "-i": "identityfile", "-p": "port", "-l": "user"}
_UNDERSTOOD = frozenset(
    {
        "hostname",
        "port",
        "user",
        "proxyjump",
        "proxycommand",
        "identitiesonly",
        "identityagent",
        "certificatefile",
        "userknownhostsfile",
        "globalknownhostsfile",
        "hostkeyalias",
        "hashknownhosts",
        "connecttimeout",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the inventory says of one host; empty where it is silent."""

    name: str
    user: str = ""
    port: int | None = None
    identity_files: tuple[Path, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    """Options of ssh(1) by lower-case name, out of ansible_ssh_common_args; of lists, a value a line."""
    notes: tuple[str, ...] = ()
    """What is not followed; without the host's name, so that a thousand hosts say it once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Everything needed to reach and to recognise one host."""

    address: str
    port: int
    user: str
    key_name: str
    key_port: int
    """Name and port under which its key stands in known_hosts; an alias stands there without a port."""
    identity_files: tuple[Path, ...] = ()
    certificate_files: tuple[Path, ...] = ()
    agent: str = ""
    """Socket of the agent; empty for none."""
    identities_only: bool = False
    """No key of the agent but those whose files count."""
    user_known_hosts: tuple[Path, ...] | None = None
    """Files that this host names for itself; None: the run's."""
    global_known_hosts: tuple[Path, ...] = DEFAULT_GLOBAL_FILES
    hash_known_hosts: bool = False
    """Names that are added to known_hosts are not to be readable there."""
    connect_seconds: float = 10.0
    jump: Target | None = None
    proxy_command: str = ""
    """A command that stands in for the connection to it, all tokens put in."""

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.user}@{address}:{self.port}"


def read_variables(host: Host) -> Asked:
    """Take what concerns SSH out of a host's variables; raises InputError on values that cannot be meant."""
    variables = host.variables

    def text(*names: str) -> str:
        key, value = next(((name, variables[name]) for name in names if variables.get(name) is not None), ("", ""))
        if isinstance(value, dict | list):
            sealed = "__ansible_vault" in value
            why = "is encrypted by ansible-vault, which is not opened here: write it in the clear"
            raise InputError(f"{_at(host, key)}: {key} {why if sealed else f'must be text, found {value!r:.60}'}")
        return str(value)

    def plain(*names: str) -> str:
        value = text(*names)
        _demand_plain(_at(host, *names), names[0], value)
        return value

    name, user = plain("ansible_host", "ansible_ssh_host"), plain("ansible_user", "ansible_ssh_user")
    _demand_plain(host.name, "the name", name or host.name)
    options, notes = _options(host, text("ansible_ssh_common_args"), text("ansible_ssh_extra_args"))
    if variables.get("ansible_password") or variables.get("ansible_ssh_pass"):
        notes.append("ansible_password is not used: log-in is by key only")
    key_file = text("ansible_ssh_private_key_file", "ansible_private_key_file")
    key_files = [key_file] if key_file else []
    key_files += options.pop("identityfile", "").splitlines()
    port = text("ansible_port", "ansible_ssh_port") or options.pop("port", "")
    return Asked(
        name=name or options.pop("hostname", "") or host.name,
        user=user or options.pop("user", ""),
        port=_port(_at(host, "ansible_port", "ansible_ssh_port"), port) if port else None,
        identity_files=tuple(Path(name).expanduser() for name in key_files),
        options=options,
        notes=tuple(notes),
    )


def _at(host: Host, *keys: str) -> str:
    """Say of which host a variable is, and where that says it."""
    place = next((host.places[key] for key in keys if host.places.get(key)), "")
    return f"{place}: {host.name}" if place else host.name


def _demand_plain(host: str, key: str, value: str) -> None:
    """Refuse what ssh(1) refuses as a host or user (ssh.c, valid_hostname): remedies put it on a command line."""
    if value.startswith("-") or not value.isprintable() or set(value) & set(" '`\"$\\;&<>|(){}"):
        raise InputError(f"{host}: {key} {value!r} is no name or address")


def _options(host: Host, *arguments: str) -> tuple[dict[str, str], list[str]]:
    """Read arguments meant for ssh(1); the first value of an option wins, as there."""
    try:
        words = [word for text in arguments for word in shlex.split(text)]
        flags, _ = getopt(words, _SSH_FLAGS)
    except (GetoptError, ValueError) as error:
        where = _at(host, "ansible_ssh_common_args", "ansible_ssh_extra_args")
        raise InputError(f"{where}: ansible_ssh_common_args: {error}") from None
    options: dict[str, str] = {}
    notes: list[str] = []
    for flag, value in flags:
        name, text = _one_option(flag, value)
        if name in LISTS:
            options[name] = f"{options[name]}\n{text}" if name in options else text
        elif name in _UNDERSTOOD:
            options.setdefault(name, text)
        elif name != "stricthostkeychecking":
            notes.append(f"ansible_ssh_common_args: {flag} {value}".rstrip() + " is ignored")
        elif text.lower() != "yes":
            notes.append(f"StrictHostKeyChecking={text} is not followed: host keys are always verified")
    return options, notes


def _one_option(flag: str, value: str) -> tuple[str, str]:
    """Split `-o Name=value` or `-o "Name value"`; short flags stand for the option they set.

    >>> _one_option("-o", "ProxyJump = bastion"), _one_option("-J", "bastion")
    (('proxyjump', 'bastion'), ('proxyjump', 'bastion'))
    """
    if flag != "-o":
        return _SHORT.get(flag, ""), value
    name, _, text = value.strip().replace("=", " ", 1).partition(" ")
    name, text = name.lower(), text.strip()
    return name, text if name.endswith("hostsfile") else text.strip('"')  # lists keep their inner quotes


def jump_hosts(asked: Asked, found: Mapping[str, Any]) -> tuple[Asked, ...]:
    """Return the hosts to jump through, nearest first; `found` is what ~/.ssh/config says."""
    kind, value = _proxy(asked, found)
    names = [name.strip().removeprefix("ssh://") for name in value.split(",") if name.strip()]
    if kind != "proxyjump":
        return ()
    return tuple(_jump_host(asked.name, name) for name in names)


def _proxy(asked: Asked, found: Mapping[str, Any]) -> tuple[str, str]:
    """Return ProxyJump or ProxyCommand, whichever is said first: the other one counts no more.

    `ProxyJump none` ends the jumps only; a command behind it counts (`ssh -G` of OpenSSH 9.2 says so).
    """
    no_jump = False
    for options in (asked.options, found):
        for name, value in options.items():
            if name == "proxycommand" and value != "":
                return name, "none" if value is None else str(value)
            if name == "proxyjump" and value and not no_jump:
                no_jump = str(value).lower() == "none"
                if not no_jump:
                    return name, str(value)
    return "", ""


def proxy_command(connection: Connection, asked: Asked) -> str:
    """Return the command by which a host is reached, tokens put in; empty where there is none.

    Raises InputError for names that a shell would read as more than names.
    """
    kind, text = _proxy(asked, connection.ssh_config)
    if kind != "proxycommand" or text.lower() == "none":
        return ""
    address, user = str(connection.host), str(connection.user)
    for key, value in (("HostName", address), ("User", user), ("the host's name", asked.name)):
        if not _PLAIN_IN_A_SHELL.fullmatch(value):
            raise InputError(f"{asked.name}: ProxyCommand: {key} {value!r:.60} is more than a name to a shell")
    tokens = {"%": "%", "h": address, "n": asked.name, "p": str(connection.port), "r": user}

    def put_in(token: re.Match[str]) -> str:
        if token[1] not in tokens:
            raise InputError(f"{asked.name}: ProxyCommand: %{token[1]} is none of %%, %h, %n, %p, %r")
        return tokens[token[1]]

    return re.sub("%(.?)", put_in, text)


def _jump_host(where: str, text: str) -> Asked:
    """Read `[user@]host[:port]`, with IPv6 addresses in brackets when a port follows."""
    user, _, place = text.rpartition("@")
    host, _, port = place.rpartition(":")
    if not host or (":" in host and not host.endswith("]")):
        host, port = place, ""
    return Asked(name=host.strip("[]"), user=user, port=_port(where, port) if port else None)


def make_target(connection: Connection, asked: Asked, jump: Target | None, command: str = "") -> Target:
    """Put together what Fabric has resolved and what the inventory says; the inventory wins."""
    found = connection.ssh_config
    options = {**{name: str(value) for name, value in found.items() if name in _UNDERSTOOD}, **asked.options}
    address = str(connection.host)
    port = _port(asked.name, str(connection.port))
    alias = options.get("hostkeyalias", "")
    tokens = {"h": address, "p": str(port), "k": alias or asked.name, "r": str(connection.user), "n": asked.name}
    certificates = asked.options.get("certificatefile", "").splitlines() or found.get("certificatefile", ())
    global_files = paths(options.get("globalknownhostsfile"), tokens)
    connect_seconds = options.get("connecttimeout", "")
    return Target(
        address=address,
        port=port,
        user=str(connection.user),
        key_name=alias or address,
        key_port=DEFAULT_PORT if alias else port,
        identity_files=files(map(str, asked.identity_files or found.get("identityfile", ())), tokens),
        certificate_files=files(certificates, tokens),
        agent=agent_socket(options.get("identityagent", AGENT_VARIABLE), tokens),
        identities_only=options.get("identitiesonly", "").lower() == "yes",
        user_known_hosts=paths(options.get("userknownhostsfile"), tokens),
        global_known_hosts=DEFAULT_GLOBAL_FILES if global_files is None else global_files,
        hash_known_hosts=options.get("hashknownhosts", "").lower() == "yes",
        connect_seconds=float(connect_seconds) if connect_seconds.isdecimal() and int(connect_seconds) else 10.0,
        jump=jump,
        proxy_command=command,
    )


def _port(where: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and 0 < int(value) < 65536):
        raise InputError(f"{where}: port {value!r} is not a number from 1 to 65535")
    return int(value)
