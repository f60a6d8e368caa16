"""Old code in an initramfs: the real programs, an initramfs that is its own list."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fleetdrv.model import NodeFacts
from fleetdrv.parse import ProbeError, facts
from tests.sim.job import Step, probe
from tests.sim.node import SimNode
from tests.sim.toy import CONFIGURE, LOAD, UNLOAD, Toy, install_step

pytestmark = pytest.mark.timeout(120)

TOY, FOE = "fleetdrv_toy", "nouveau"


def renew(node: SimNode, *modules: str) -> Step:
    return ("renew", "initramfs.sh", node.kernel, *(modules or (TOY, FOE)))


def look(node: SimNode) -> NodeFacts:
    return facts(probe(node, "driver", "toy", "dkms", "toy", "module", TOY, "module", FOE))


def inside(node: SimNode) -> set[str]:
    """Return what the probe says is in the initramfs and may be old."""
    return {module for kernel, module in look(node).initramfs if kernel == node.kernel}


def write(node: SimNode, *names: str, updated: bool = True) -> None:
    """Have the initramfs carry files of these names, from now on and each time it is written."""
    (node.folder / "carries").write_text("".join(f"{name}\n" for name in names))
    if updated:
        node.call(f"update-initramfs -u -k {node.kernel}")


def listed(node: SimNode) -> int:
    path = node.folder / "listed"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def driver(node: SimNode, archives: Mapping[str, bytes]) -> Toy:
    """Version 1.0 is at work, and an initramfs was written before it came."""
    write(node, "ext4.ko.xz")
    driver = Toy(node, archives)
    driver.bring_to("1.0")
    return driver


def test_what_was_written_after_the_module_is_not_even_listed(driver: Toy) -> None:
    write(driver.node, "fleetdrv-toy.ko")
    before = listed(driver.node)
    assert look(driver.node).initrds == {driver.node.kernel}
    assert inside(driver.node) == set()
    assert listed(driver.node) == before


def test_an_initramfs_without_the_driver_is_listed_once_and_left_alone(driver: Toy) -> None:
    node = driver.node
    assert listed(node) == 1, "by the stage job"
    initrd = (node.folder / "boot" / f"initrd.img-{node.kernel}").stat()
    followed = driver.do(renew(node))
    assert followed.text.endswith(f"carries none of {TOY} {FOE}\n")
    assert inside(node) == set()
    assert (node.folder / "boot" / f"initrd.img-{node.kernel}").stat() == initrd
    assert listed(node) == 1


@pytest.mark.parametrize("name", ["fleetdrv_toy.ko", "fleetdrv-toy.ko.xz", "nouveau.ko.zst", "fleetdrv_toy.ko.gz"])
def test_old_code_and_old_blacklists_are_found_and_taken_out(driver: Toy, name: str) -> None:
    node = driver.node
    write(node, name)
    driver.stage("1.1")
    swap = (UNLOAD, install_step(node, "1.1"), CONFIGURE, LOAD)
    assert driver.do(*swap, version="1.1").ending == "exit 0"
    found = FOE if name.startswith(FOE) else TOY
    assert inside(node) == {found}
    followed = driver.do(renew(node))
    assert followed.ending == "exit 0", followed.text
    assert followed.text.endswith(f"is written anew: it carries {found}\n")
    assert inside(node) == set()


def test_one_job_swaps_the_code_and_the_initramfs(driver: Toy) -> None:
    node = driver.node
    write(node, "fleetdrv_toy.ko")
    driver.stage("1.1")
    followed = driver.do(*driver.swap_steps("1.1"), renew(node), version="1.1")
    assert followed.ending == "exit 0", followed.text
    assert f"/boot/initrd.img-{node.kernel} is written anew" in followed.text
    assert inside(node) == set()


def test_an_initramfs_that_another_package_wrote_is_listed_anew(driver: Toy) -> None:
    node = driver.node
    assert inside(node) == set()
    write(node, "fleetdrv_toy.ko", "much-longer-than-before.ko")
    node.call(f"touch /lib/modules/{node.kernel}/updates/dkms/fleetdrv_toy.ko")
    assert inside(node) == {TOY}


def test_a_package_that_came_later_makes_its_modules_doubtful(driver: Toy) -> None:
    """Prebuilt modules have the time of their package's build."""
    node = driver.node
    write(node, "fleetdrv_toy.ko")
    node.call("mkdir -p /var/lib/dpkg/info; touch /var/lib/dpkg/info/toy-modules.list")
    asked = ("driver", "toy", "package", "toy-modules", "module", TOY)
    assert facts(probe(node, *asked)).initramfs == {(node.kernel, TOY)}
    of_another = ("driver", "net", "package", "toy-modules", "driver", "toy", "module", TOY)
    assert facts(probe(node, *of_another)).initramfs == frozenset()


@pytest.mark.parametrize(
    ("trouble", "ending", "last"),
    [
        ("boot-full", "exit 73 renew", "no space left for a new one"),
        ("switched-off", "exit 85 renew", "was not written anew (exit 0)"),
    ],
)
def test_an_initramfs_that_cannot_be_written_is_a_named_failure(
    driver: Toy, trouble: str, ending: str, last: str
) -> None:
    node = driver.node
    write(node, "fleetdrv_toy.ko")
    node.call(f"touch /lib/modules/{node.kernel}/updates/dkms/fleetdrv_toy.ko")
    (node.folder / trouble).touch()
    followed = driver.do(renew(node))
    assert followed.ending == ending
    assert followed.text.splitlines()[-1].endswith(last)


def small_boot(node: SimNode) -> None:
    """Give /boot a file system of its own, which has no room for a second initramfs by the rule."""
    node.call("cp -a /boot /var/lib/boot; mount -t tmpfs -o size=1m none /boot; cp -a /var/lib/boot/. /boot")


@pytest.mark.parametrize("carried", ["fleetdrv_toy.ko", "fleetdrv-toy.ko.xz"])
def test_a_full_boot_is_found_while_the_node_serves(driver: Toy, carried: str) -> None:
    node = driver.node
    write(node, carried)
    small_boot(node)
    node.call("head -c 500000 /dev/zero >/boot/old-kernel")
    followed = driver.stage("1.1")
    assert followed.ending == "exit 73 stage", followed.text
    last = followed.text.splitlines()[-1]
    assert last.startswith("/boot: ")
    assert f"carries {TOY}" in last
    assert last.endswith("apt-get autoremove --purge")
    assert not (node.state / "stage" / "1.1").exists()
    node.call("mount -o remount,size=3m /boot")
    assert driver.stage("1.1").ending == "exit 0"


def test_a_full_boot_is_no_matter_where_the_initramfs_carries_nothing_of_the_driver(driver: Toy) -> None:
    small_boot(driver.node)
    assert driver.stage("1.1").ending == "exit 0"


def test_no_initramfs_is_nothing_to_see_to(node: SimNode, archives: Mapping[str, bytes]) -> None:
    assert Toy(node, archives).do(renew(node)).text == f"== renew\n{node.kernel} has no initramfs\n"
    assert look(node).initrds == frozenset()


def test_a_list_that_cannot_be_had_is_an_error_only_where_it_is_needed(driver: Toy) -> None:
    node = driver.node
    (node.folder / "bin/lsinitramfs").unlink()
    (node.folder / "bin/lsinitramfs").write_text("#!/bin/sh\nexit 1\n")
    (node.folder / "bin/lsinitramfs").chmod(0o755)
    write(node, "ext4.ko")
    assert inside(node) == set()
    node.call(f"touch /lib/modules/{node.kernel}/updates/dkms/fleetdrv_toy.ko")
    with pytest.raises(ProbeError, match="cannot be listed"):
        look(node)
