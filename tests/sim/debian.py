"""A simulated node with a Debian of its own: also apt and dpkg are real, and may change what they like."""

from __future__ import annotations

from pathlib import Path

from tests.apt.root import kernel, root
from tests.sim.node import SimNode

_HERE = Path(__file__).parent


class DebianNode(SimNode):
    """`served` is /srv on the node: a repository lies there. The root file system is shared, changes are not."""

    kept = (*SimNode.kept, "root")

    def __init__(self, folder: Path, name: str, *, served: Path, builds: Path) -> None:
        self._served = served
        super().__init__(folder, name, builds=builds)

    def find_kernel(self) -> str:
        """The root file system has the headers of one kernel."""
        return kernel(root())

    def _init(self) -> list[str]:
        shared = (_HERE / "bin", self._builds)
        words = (root(), self._served, *shared)
        return [str(_HERE / "root_boot.sh"), str(self.folder), self.name, *map(str, words)]

    def argv(self, command: str) -> list[str]:
        """Return what has to be executed to run a command line on the node."""
        *enter, shell, flag, line = super().argv(command)
        return [*enter, "chroot", str(self.folder / "root/node"), shell, flag, line]

    def end_state(self) -> dict[str, object]:
        """Return also what dpkg says, and what apt is to know."""
        asked = {
            "packages": "dpkg -l 'toy*'; apt-mark showhold; dpkg --audit",
            "sources": "cat /etc/apt/sources.list.d/fleetdrv-*",
            "tarballs": "ls -A /usr/share/toy-dkms 2>/dev/null || echo gone",
            "under way": "ls -A /var/lib/fleetdrv/apt | grep -x installing || echo nothing",
        }
        return {**super().end_state(), **{what: self.call(command) for what, command in asked.items()}}
