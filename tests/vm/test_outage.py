"""What an outage costs, and that it holds nothing that could be done before: no download, no compile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.vm.vm_fleet import CODE, VmFleet, eventually

NODE = "node-1"
THIEF = Path(__file__).with_name("thief.py")
MOST_SECONDS = 300
"""Emulated on a busy machine; the measured number is in docs/vm-results.md."""


class Thief:
    """Takes compiler and network away from the node as soon as it is cordoned, and gives them back."""

    def __init__(self, fleet: VmFleet, node: str = NODE) -> None:
        self.fleet, self.node = fleet, node

    def __enter__(self) -> Thief:
        self.fleet.put(self.node, "/run/thief.py", THIEF.read_bytes())
        self.fleet.ssh(self.node, "rm -f /run/thief.json; setsid python3 -I -S /run/thief.py take "
                                  "</dev/null >/run/thief.log 2>&1 &")
        eventually(lambda: "waiting" in self.fleet.ssh(self.node, "cat /run/thief.log"), "the thief", 60)
        return self

    def __exit__(self, *_: object) -> None:
        self.fleet.ssh(self.node, "python3 -I -S /run/thief.py give-back >>/run/thief.log 2>&1")

    def loot(self) -> dict[str, Any]:
        """Say what was taken and when, by the node's clock."""
        return dict(json.loads(self.fleet.ssh(self.node, "cat /run/thief.json")))

    def assert_in_time(self) -> None:
        """It all was gone before the job of the outage began: else the test would prove nothing."""
        loot = self.loot()
        assert any(path.endswith("/cc1") for path in loot["taken"]), loot
        before, after = loot["neighbour"]
        assert before != after == "Permission denied", "not even the machine beside it, where a mirror may be"
        jobs = "/var/lib/fleetdrv/jobs/*.outage.*/started"
        began = float(self.fleet.ssh(self.node, f"stat -c %.9Y $(ls -t {jobs} | head -n1)"))
        assert loot["at"] < began, (loot, began)


def told(name: str, node: dict[str, Any]) -> str:
    """Put what an outage cost into a line for the results."""
    cost = node["effects_out_of_service"]
    return (f"{node['seconds_out_of_service']:.1f} s out of service, {cost['execs']} commands over SSH, "
            f"{cost['api_writes']} writes to the cluster ({name})")


def test_an_outage_needs_neither_network_nor_compiler(
    fleet: VmFleet, record_property: Callable[[str, object], None]
) -> None:
    fleet.apply("1.0", "-l", NODE)
    with Thief(fleet) as thief:
        ended = fleet.apply("1.1", "-l", NODE, "--json").json["nodes"][NODE]
        thief.assert_in_time()
    assert ended["verdict"] == "changed"
    assert fleet.ssh(NODE, CODE).strip() == "1.1"
    assert 0 < ended["seconds_out_of_service"] < MOST_SECONDS
    # Look for holders, outage, look, keep.
    assert ended["effects_out_of_service"]["execs"] <= 5, ended
    record_property("outage of a DKMS driver, compiler and network taken away", told("emulated", ended))
