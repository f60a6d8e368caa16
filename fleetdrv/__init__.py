"""fleetdrv: kernel drivers for fleets of Kubernetes nodes, over SSH."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Give `inv -c fleetdrv` the tasks, and import them only then (PEP 562)."""
    if name in ("ns", "namespace"):
        from fleetdrv.tasks import namespace

        return namespace
    raise AttributeError(name)
