"""RoCE in software between two virtual machines: the kernel's own module, its userspace from packages."""

from __future__ import annotations

import pytest

from tests.rollout.sim_fleet import PLAYBOOKS
from tests.vm.vm_fleet import VmFleet

pytestmark = pytest.mark.long  # machines of its own
BOOK = PLAYBOOKS / "rdma-rxe.yaml"
CHECK = "/usr/local/bin/fleetdrv-lab-roce"


def test_soft_roce_is_brought_up_and_messages_pass_between_the_nodes(roce: VmFleet) -> None:
    assert "rdma_rxe" not in roce.ssh("node-1", "ls /sys/module")
    ended = roce.apply_book(BOOK)
    assert ended.out.count("changed") >= len(roce.names), ended
    for node, peer in (("node-1", "10.78.0.2"), ("node-2", "10.78.0.1")):
        assert roce.loaded(node, "rdma_rxe") == roce.on_disk(node, "rdma_rxe")
        assert "rxe0" in roce.ssh(node, "ibv_devices")
        assert f"messages to {peer} and back" in roce.ssh(node, CHECK)
        assert roce.ssh(node, "dpkg --audit") == ""
    again = roce.apply_book(BOOK, "--json").json
    assert {node["verdict"] for node in again["nodes"].values()} == {"converged"}, again
    assert again["effects"]["api_writes"] == 0


def test_a_wire_that_is_cut_is_found_by_the_check(roce: VmFleet) -> None:
    roce.ssh("node-1", "ip link set eth1 down")
    try:
        planned = roce.fleetdrv("plan", str(BOOK), "-i", str(roce.inventory), "--json", code=4).json["nodes"]
        assert planned["node-1"]["outcome"] == "not mendable here"
        assert [d["layer"] for d in planned["node-1"]["differences"]] == ["checks"]
    finally:
        roce.ssh("node-1", "ip link set eth1 up")
