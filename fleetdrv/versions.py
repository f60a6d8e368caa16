"""A run's answers to "which version?", shared by the turns of all nodes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fleetdrv.model import NodeFacts
from fleetdrv.playbook import Playbook
from fleetdrv.resolve import exact, resolved


@dataclass(slots=True)
class Versions:
    """Exact versions and hashes of packages, as `resolve.pin_name` names them; the first answer stands.

    While `open` is False nothing is learnt: a survey looks at all nodes at once, and the newest version that any
    of their new lists offers is to count, not the version of the node that answered first.
    """

    upgrade: bool = False
    pins: Mapping[str, str] = field(default_factory=dict)
    open: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def learn(self, playbook: Playbook, nodes: Iterable[NodeFacts]) -> None:
        """Take in what the lists of these nodes say; later looks at any node learn by themselves."""
        with self._lock:
            self.pins = resolved(playbook, nodes, self.pins)
            self.open = True

    def exact(self, playbook: Playbook, facts: NodeFacts) -> Playbook:
        """Return the playbook with exact versions for a node."""
        if self.open:
            self.learn(playbook, (facts,))
        return exact(playbook, facts, self.pins, upgrade=self.upgrade)
