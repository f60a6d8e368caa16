"""What `ansible-inventory --list` says of many inventories: one import, a fork for each.

Usage: python ansible_list.py SOURCE…      prints a JSON list: for each its document, or null where it refused
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path


def ask(source: str) -> object:
    """Return the document of one source, asked in a child of our own: Ansible keeps its state in globals."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "w") as answer:
            answer.write(_list(source))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return json.loads(said) if said.strip() else None


def _list(source: str) -> str:
    from ansible.cli.inventory import InventoryCLI

    shown, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(errors), contextlib.suppress(SystemExit):
        lines = source.split("\n")  # several sources, and a --limit
        words = [word for line in lines for word in ((line,) if line.startswith("--limit=") else ("-i", line))]
        InventoryCLI(["ansible-inventory", *words, "--list"]).run()
    return shown.getvalue()


def main(home: str, sources: list[str]) -> None:
    """Print what Ansible reads in every source, under a home of its own."""
    config = Path(home) / "ansible.cfg"
    config.touch()  # nobody's own settings
    os.environ |= {"ANSIBLE_HOME": home, "ANSIBLE_CONFIG": str(config), "ANSIBLE_LOCAL_TEMP": f"{home}/tmp"}
    os.environ |= {"ANSIBLE_DEPRECATION_WARNINGS": "0", "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1"}
    import ansible.cli.inventory  # noqa: F401  # once, before the forks

    print(json.dumps([ask(source) for source in sources]))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ansible-home-", ignore_cleanup_errors=True) as home:
        main(home, sys.argv[1:])
