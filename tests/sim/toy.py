"""The practice driver's jobs on a simulated node, by the scripts alone."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from fleetdrv.lab import toy
from tests.sim.job import Followed, Step, bundle, launch
from tests.sim.node import SimNode

_CONF = "/etc/modprobe.d/fleetdrv-toy.conf"
_numbers = count()


def tarball(version: str) -> str:
    """Return where the staged build of a version lies; its key is its version."""
    return f"/var/lib/fleetdrv/stage/{version}/toy-{version}.dkms.tar.gz"


def stage_step(node: SimNode, version: str, sha256: str = "") -> Step:
    digest = sha256 or toy.sha256(version)
    return ("stage", "dkms_stage.sh", "toy", version, digest, "payload/toy.tar", version, node.kernel)


def install_step(node: SimNode, version: str) -> Step:
    return ("install", "dkms_install.sh", "toy", version, tarball(version), node.kernel)


def keep_step(node: SimNode, version: str) -> Step:
    return (
        "keep",
        "keep.sh",
        "toy",
        f"digest-{version}",
        "payload/wanted",
        "toy",
        version,
        version,
        node.kernel,
    )


UNLOAD: Step = ("unload", "unload.sh", "fleetdrv_toy")
LOAD: Step = ("load", "load.sh", "fleetdrv_toy")
CONFIGURE: Step = ("configure", "configure.sh", "toy", "payload/toy.conf", _CONF)
RESTORE: Step = ("restore", "dkms_restore.sh", "toy")


class Toy:
    """The practice driver on one node."""

    def __init__(self, node: SimNode, archives: Mapping[str, bytes]) -> None:
        self.node, self.archives = node, dict(archives)

    def job(self, *steps: Step, version: str) -> bytes:
        """Pack steps; the payload is that of a version."""
        payload = {
            "toy.conf": f"options fleetdrv_toy greeting=from-{version}\n".encode(),
            "wanted": f'{{"version": "{version}"}}'.encode(),
            "toy.tar": self.archives.get(version, b""),
        }
        return bundle(steps, payload=payload)

    def do(self, *steps: Step, version: str = "", kind: str = "outage") -> Followed:
        """Run steps as one job to its end."""
        return launch(self.node, f"job-{next(_numbers)}", self.job(*steps, version=version), kind=kind)

    def stage(self, version: str) -> Followed:
        return self.do(stage_step(self.node, version), version=version, kind="background")

    def swap(self, version: str) -> Followed:
        """Do what the outage holds."""
        return self.do(*self.swap_steps(version), version=version)

    def swap_steps(self, version: str) -> tuple[Step, ...]:
        return UNLOAD, install_step(self.node, version), CONFIGURE, LOAD

    def keep(self, version: str) -> Followed:
        return self.do(keep_step(self.node, version), version=version)

    def bring_to(self, version: str) -> None:
        """Stage, swap and keep; each has to succeed."""
        for act in (self.stage, self.swap, self.keep):
            followed = act(version)
            assert followed.ending == "exit 0", followed.text
