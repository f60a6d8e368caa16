"""`fleetdrv repair NODE` where packages are what is broken: real dpkg, apt and DKMS on a simulated node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.apt.repository import Package, build
from tests.rollout.sim_fleet import Ended
from tests.rollout.test_packages import AptFleet, fleet, key  # noqa: F401  # fixtures
from tests.rollout.test_repair import SERVES, marks
from tests.sim.debian import DebianNode

pytestmark = pytest.mark.timeout(1500)

_POSTINST = "#!/bin/sh\nset -e\n[ ! -e /var/lib/power-is-cut ] || kill -9 $PPID\n"


@pytest.fixture
def size() -> int:
    """One node is mended."""
    return 1


def repair(fleet: AptFleet, code: int | None = 0) -> Ended:  # noqa: F811
    (name,) = fleet.nodes
    book = str(fleet.book("1.0"))
    return fleet.fleetdrv("repair", name, "--playbook", book, "-i", str(fleet.inventory), "--yes", code=code)


def the_node(fleet: AptFleet) -> tuple[str, DebianNode]:  # noqa: F811
    ((name, node),) = fleet.nodes.items()
    assert isinstance(node, DebianNode)
    return name, node


def served(fleet: AptFleet) -> Path:  # noqa: F811
    return fleet.folder / "srv"


def test_each_remedy_on_one_node(fleet: AptFleet) -> None:  # noqa: F811
    """One after the other, as each needs the same node and no other."""
    name, node = the_node(fleet)
    version = node.call(f"dpkg-query -W -f '${{Version}}' linux-headers-{node.kernel}")
    headers = {f"usr/lib/modules/{node.kernel}/build/Makefile": "# of a test\n"}
    named, about = f"linux-headers-{node.kernel}", {"Architecture": "amd64"}
    fleet.repository.add(Package(name=named, version=version, fields=about, files=headers))
    fleet.bring("1.0")
    whole = fleet.end_state()

    # dpkg, whose power was cut in a package of somebody else's
    build(Package(name="odd", version="1.0", scripts={"postinst": _POSTINST}), served(fleet))
    node.call("touch /var/lib/power-is-cut; dpkg -i /srv/odd_1.0_all.deb || rm /var/lib/power-is-cut")
    node.call("rmmod fleetdrv_toy")
    assert "dpkg was interrupted" in fleet.bring("1.0", code=5).out
    ended = repair(fleet)
    assert f"{name}: changed" in ended.out
    assert node.call("dpkg --audit; dpkg-query -W -f '${db:Status-Abbrev}' odd").strip() == "ii"
    assert marks(fleet, name) == SERVES
    node.call("dpkg --purge odd")
    assert fleet.end_state() == whole

    # the hold
    node.call("apt-mark unhold toy-dkms")
    repair(fleet)
    assert node.call("apt-mark showhold").split() == ["toy-dkms"]

    # a build that DKMS calls broken, and its module's file gone
    node.call(f"rm /var/lib/dkms/toy/1.0/source /lib/modules/{node.kernel}/updates/dkms/fleetdrv_toy.ko*")
    repair(fleet)
    assert fleet.end_state() == whole
    assert marks(fleet, name) == SERVES

    # the headers of the running kernel, whose files are gone; last, as the test's own package has no more in it
    tree = f"/lib/modules/{node.kernel}/build"
    node.call(f"rm {tree}")
    assert f"headers of {node.kernel}" in repair(fleet).out
    assert node.call(f"cat {tree}/Makefile") == "# of a test\n"
    assert marks(fleet, name) == SERVES


def test_a_package_that_only_its_removal_would_mend_is_named_and_stays(fleet: AptFleet) -> None:  # noqa: F811
    name, node = the_node(fleet)
    fleet.bring("1.0")
    build(Package(name="odd", version="1.0", fields={"Depends": "nonesuch"}), served(fleet))
    node.call("dpkg -i /srv/odd_1.0_all.deb || :")
    before = node.call("dpkg -l odd toy-dkms")
    ended = repair(fleet, code=4)
    assert "would remove odd" in ended.out
    assert "the drivers are as wanted all the same" in ended.out
    assert node.call("dpkg -l odd toy-dkms") == before
    assert marks(fleet, name) == SERVES
