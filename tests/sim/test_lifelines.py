"""What a node hangs on: the real probe on a simulated node whose /sys tells of other interfaces and disks."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping

import pytest

from fleetdrv import parse
from tests.sim.job import PROBE, probe, text
from tests.sim.node import SimNode

pytestmark = pytest.mark.timeout(60)

PEER = "192.0.2.7 50022 192.0.2.9 22"


def loaded(node: SimNode, *modules: str) -> None:
    """Have modules in the kernel that came from files."""
    for module in modules:
        node.call(f"mkdir -p /sys/module/{module}/holders; echo live >/sys/module/{module}/initstate")


def interfaces(node: SimNode, **lower: str) -> None:
    """Give the node interfaces instead of this machine's: name and what lies below, or =MODULE for a card."""
    node.call("mkdir -p /dev/shm; mount -t tmpfs none /dev/shm; mkdir /dev/shm/net /dev/shm/block /dev/shm/disks")
    for name, below in lower.items():
        place = f"/dev/shm/net/{name}"
        node.call(f"mkdir {place}; : >{place}/uevent")
        if below.startswith("="):
            node.call(
                f"mkdir -p {place}/device/driver; cd {place}/device/driver; ln -s /sys/module/{below[1:]} module"
            )
        for part in [] if below.startswith("=") else below.split():
            node.call(f"ln -s ../{part} {place}/lower_{part}")
    node.call("mount --bind /dev/shm/net /sys/class/net; mount --bind /dev/shm/block /sys/dev/block")


def routes(node: SimNode, device: str) -> None:
    """Have the kernel's routes lead to a device."""
    asked = "-o route get 192.0.2.7 from 192.0.2.9"
    ip = node.folder / "bin/ip"
    ip.write_text(f'#!/bin/sh\n[ "$*" = "{asked}" ] && echo "192.0.2.7 from 192.0.2.9 dev {device} uid 0"\n')
    ip.chmod(0o755)


def needed(node: SimNode, *, peer: str = "", sudo_strips_it: bool = False) -> Mapping[str, list[str]]:
    """Probe through a session with that peer; return what hangs on each module.

    In a network of its own: eth9 has an IPv4 address there, eth8 one of IPv6.
    """
    ip = shutil.which("ip")
    look = (
        f"for name in eth8 eth9; do {ip} link add $name type veth peer name p$name; {ip} link set $name up; done;"
    )
    look += f"{ip} addr add 198.51.100.1/24 dev eth9; {ip} addr add 2001:db8::1/64 nodad dev eth8;"
    look += f"exec env {'-u SSH_CONNECTION ' * sudo_strips_it}/bin/sh -s -- module fleetdrv_toy"
    session = (
        f"SSH_CONNECTION={shlex.quote(peer)} unshare --net sh -c {shlex.quote(f'sh -c {shlex.quote(look)}; :')}"
    )
    said = node.call(session, text(*PROBE))
    found: dict[str, list[str]] = {}
    for module, what in parse.facts(said).needed:
        found.setdefault(module, []).append(what)
    return found


def root_disk(node: SimNode) -> str:
    """Return the numbers of what lies under /."""
    return node.call("awk '$5 == \"/\" { print $3 }' /proc/self/mountinfo").split()[-1]


def disk(node: SimNode, numbers: str, under: str = "disks/sda") -> None:
    """Put a disk there whose controller is driven by hba."""
    place = f"/dev/shm/{under}"
    node.call(
        f"mkdir -p {place}/sda1 {place}/driver; : >{place}/sda1/partition;"
        f"ln -s /sys/module/hba {place}/driver/module;"
        f"[ -z '{numbers}' ] || ln -s {place}/sda1 /dev/shm/block/{numbers}"
    )


def test_the_interface_of_the_session_is_found_by_its_route(node: SimNode) -> None:
    loaded(node, "nic", "other_nic")
    interfaces(node, eth0="=nic", eth1="=other_nic")
    disk(node, root_disk(node))
    routes(node, "eth0")
    assert needed(node, peer=PEER) == {"nic": ["the SSH session's interface eth0"]}


def test_sudo_may_take_the_session_out_of_the_environment(node: SimNode) -> None:
    loaded(node, "nic", "other_nic")
    interfaces(node, eth0="=nic", eth9="=other_nic")
    disk(node, root_disk(node))
    routes(node, "eth0")
    assert needed(node, peer=PEER, sudo_strips_it=True) == {"nic": ["the SSH session's interface eth0"]}


def test_a_bond_of_vlans_is_followed_to_its_cards(node: SimNode) -> None:
    loaded(node, "bonding", "8021q", "nic", "nic2", "other")
    interfaces(node, bond0="v1 v2", v1="eth0", v2="eth1", eth0="=nic", eth1="=nic2", eth2="=other")
    for name, kind in (("bond0", "bond"), ("v1", "vlan"), ("v2", "vlan")):
        node.call(f"echo DEVTYPE={kind} >/dev/shm/net/{name}/uevent")
    disk(node, root_disk(node))
    routes(node, "bond0")
    found = needed(node, peer=PEER)
    assert found == {m: ["the SSH session's interface bond0"] for m in ("bonding", "8021q", "nic", "nic2")}


@pytest.mark.parametrize("device", ["", "lo", "tun0"])
def test_where_the_route_cannot_be_told_every_interface_with_an_address_counts(node: SimNode, device: str) -> None:
    loaded(node, "nic", "nic2", "other")
    interfaces(node, tun0="", eth9="=nic", eth8="=nic2", eth7="=other")
    disk(node, root_disk(node))
    routes(node, device)
    assert needed(node, peer=PEER if device else "") == {
        "nic": ["the interface eth9, which may carry the SSH session"],
        "nic2": ["the interface eth8, which may carry the SSH session"],
    }


def test_disks_are_followed_through_partitions_device_mapper_and_raid(node: SimNode) -> None:
    loaded(node, "hba", "dm_mod", "md_mod", "raid1", "raid456", "dm_crypt")
    interfaces(node)
    routes(node, "lo")
    disk(node, "")
    node.call(
        f"mkdir -p /dev/shm/block/{root_disk(node)}/dm /dev/shm/block/{root_disk(node)}/slaves /dev/shm/md0/md;"
        f"ln -s /dev/shm/md0 /dev/shm/block/{root_disk(node)}/slaves/md0; echo raid1 >/dev/shm/md0/md/level;"
        "mkdir /dev/shm/md0/slaves; ln -s /dev/shm/disks/sda/sda1 /dev/shm/md0/slaves/sda1"
    )
    found = needed(node, peer=PEER)
    assert found == {m: ["the disk under /"] for m in ("dm_mod", "dm_crypt", "md_mod", "raid1", "hba")}


def test_storage_over_rdma_hangs_on_every_rdma_driver(node: SimNode) -> None:
    loaded(node, "nvme_rdma", "ib_core", "mlx5_ib", "nic")
    node.call("mkdir /sys/module/ib_core/holders/mlx5_ib")
    interfaces(node, eth9="=nic")
    routes(node, "eth9")
    node.call(
        "mkdir -p /dev/shm/disks/nvme0/nvme0n1; echo rdma >/dev/shm/disks/nvme0/transport;"
        f"ln -s /dev/shm/disks/nvme0/nvme0n1 /dev/shm/block/{root_disk(node)}"
    )
    found = needed(node, peer=PEER)
    assert found == {
        "nic": ["the SSH session's interface eth9"],
        **{module: ["the disk under /"] for module in ("nvme_rdma", "ib_core", "mlx5_ib")},
    }


def test_a_disk_of_the_containers_and_a_file_system_count_too(node: SimNode) -> None:
    loaded(node, "hba", "tmpfs", "ext4")
    interfaces(node)
    disk(node, root_disk(node))
    routes(node, "lo")
    node.call("mkdir -p /var/lib/containerd; mount -t tmpfs none /var/lib/containerd")
    found = needed(node, peer=PEER)
    assert found["tmpfs"] == ["the file system of /var/lib/containerd"]
    assert found["hba"] == ["the disk under /"]


def test_a_disk_that_cannot_be_read_is_an_error(node: SimNode) -> None:
    interfaces(node)
    with pytest.raises(parse.ProbeError, match="lifelines: /sys/dev/block/"):
        parse.facts(probe(node))
