"""What `--help` and shell completion cost: they import Invoke and our own names, and nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    *("paramiko", "fabric", "pydantic", "httpx", "rich", "cryptography", "prometheus_client"),
    *("fleetdrv.crew", "fleetdrv.lab"),
)


@pytest.mark.parametrize("words", [["--help"], ["plan", "--help"], ["--complete", "--", "fleetdrv pl"]])
def test_help_and_completion_import_nothing_heavy(words: list[str]) -> None:
    asked = (
        "import sys; from fleetdrv.main import program; "
        f"program.run(['fleetdrv', *{words!r}], exit=False); "
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.strip() == "[]"
    assert done.stdout.strip()


def test_metrics_cost_nothing_where_nobody_wants_them() -> None:
    asked = "import sys; import fleetdrv.commands; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_asking_only_the_cluster_imports_neither_ssh_nor_schemas() -> None:
    asked = (
        "import os, sys; os.environ['PATH'] = '/nowhere'; sys.executable = '/nowhere/python'; "
        "from fleetdrv.main import program; program.run(['fleetdrv', 'status'], exit=False); "
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False, timeout=60)
    said = done.stderr.strip().splitlines()
    assert "kubectl was not found" in said[0]
    assert said[-1] == "[]", "what `status` needs of crew.py and report.py is in options.py, reach.py, document.py"
