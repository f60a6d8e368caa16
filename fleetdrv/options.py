"""The options that all commands share, and a command line with them as it is to be typed again. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

SEPARATOR = "\n"
"""Stands between several sources of an inventory; no name of a file that people use has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options that all commands share."""

    inventory: str = ""
    """What `-i` named; several, one a line, of which the later ones win."""
    limit: str = ""
    context: str = ""
    json: bool = False
    log_json: bool = False
    no_cluster: bool = False
    quiet: bool = False
    yes: bool = False
    reason: str = ""
    upgrade: bool = False
    metrics_file: str = ""
    pushgateway: str = ""
    ask_sudo_password: bool = False
    sudo_password_file: str = ""


def plan_command(options: Options, playbook: str, node: str, verb: str = "plan") -> str:
    """Return the command line that shows one node's plan as this command was told to see it.

    >>> plan_command(Options(inventory="my hosts.yaml", context="lab"), "gpu.yaml", "n1")
    "fleetdrv plan gpu.yaml -i 'my hosts.yaml' --context lab --limit n1"
    """
    return f"{typed(options, verb, playbook)} --limit {shlex.quote(node)}"


def same_again(options: Options, verb: str, playbook: str) -> str:
    """Return the command line that goes on with what this command does, for the same hosts.

    >>> same_again(Options(inventory="i", limit="gpu:!n1"), "apply", "gpu.yaml")
    "fleetdrv apply gpu.yaml -i i --limit 'gpu:!n1'"
    """
    limit = f" --limit {shlex.quote(options.limit)}" if options.limit else ""
    return typed(options, verb, playbook) + limit


def typed(options: Options, *command: str) -> str:
    """Return a command line with the options that say where everything is."""
    words = ["fleetdrv", *command, *inventory_words(options.inventory)]
    words += ["--context", options.context] if options.context else []
    words += ["--no-cluster"] if options.no_cluster else []
    words += ["--upgrade"] if options.upgrade else []
    words += ["--ask-sudo-password"] if options.ask_sudo_password else []
    words += ["--sudo-password-file", options.sudo_password_file] if options.sudo_password_file else []
    return shlex.join(words)


def inventory_words(source: str) -> tuple[str, ...]:
    """Return the words of a command line that name the same inventory.

    >>> inventory_words("a.yaml"), inventory_words("a.yaml\\nb.ini")
    (('-i', 'a.yaml'), ('-i', 'a.yaml', '-i', 'b.ini'))
    """
    return tuple(word for each in source.split(SEPARATOR) for word in ("-i", each))
