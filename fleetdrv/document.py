"""The one JSON document that a command prints with `--json`."""

from __future__ import annotations

import json
from typing import Any

SCHEMA = "fleetdrv/1"


def document(command: str, exit_code: int, **parts: Any) -> str:
    """Return the one JSON document of a command."""
    return json.dumps({"schema": SCHEMA, "command": command, "exit_code": exit_code, **parts}, indent=2)
