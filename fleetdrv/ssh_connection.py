"""Fabric's Connection, opened by our own dialling."""

from __future__ import annotations

from collections.abc import Callable

from fabric import Connection

from fleetdrv.ssh_transport import FleetTransport


class FleetConnection(Connection):  # type: ignore[misc]  # Fabric has no types
    """Fabric's handle on a node, opened by our dialling. Its `run` and `put` work, for use by hand."""

    # Declared, because Invoke writes what is not into the configuration, which all connections share: it is
    # emptied and merged anew, and other threads' look-ups fail meanwhile. Fabric forgets the second one.
    dial: Callable[[], FleetTransport] | None = None
    inline_ssh_env: bool = True
    # Invoke's own lists all names of the object at each assignment: a twentieth of the CPU of a look.
    __setattr__ = object.__setattr__

    def open(self) -> None:
        """Connect unless connected. A failed attempt leaves neither thread nor socket."""
        if not self.is_connected:
            assert self.dial is not None
            self.transport = self.dial()
            self.client._transport = self.transport  # so that Fabric's close() closes it
