"""What a command was told besides its arguments. Imports nothing: every command has them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options that all commands share."""

    inventory: str = ""
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
