"""Two Debian releases in one pool, in one run: each node gets what is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rollout.sim_fleet import PLAYBOOKS
from tests.vm.vm_fleet import CODE, VmFleet

pytestmark = pytest.mark.long  # machines of its own
ACPI_CALL = PLAYBOOKS / "acpi-call.yaml"


def test_a_driver_from_source_on_two_releases_in_one_run(mixed: VmFleet) -> None:
    kernels = {node: mixed.ssh(node, "uname -r").strip() for node in mixed.names}
    assert len(set(kernels.values())) == 2
    mixed.apply("1.0")
    before = {node: mixed.loaded(node) for node in mixed.names}
    mixed.apply("1.1")
    for node, kernel in kernels.items():
        assert before[node] != mixed.loaded(node) == mixed.on_disk(node)
        assert mixed.ssh(node, CODE).strip() == "1.1"
        assert f"toy/1.1, {kernel}, x86_64: installed" in mixed.ssh(node, "dkms status")


def test_a_packaged_driver_on_two_releases_in_one_run(mixed: VmFleet) -> None:
    _apply_and_again(mixed, ACPI_CALL)
    for node in mixed.names:
        assert mixed.loaded(node, "acpi_call") == mixed.on_disk(node, "acpi_call")
        assert mixed.ssh(node, "dpkg --audit") == ""


def _apply_and_again(fleet: VmFleet, book: Path) -> None:
    first = fleet.apply_book(book, "--json").json
    assert {node["verdict"] for node in first["nodes"].values()} == {"changed"}, first
    again = fleet.apply_book(book, "--json").json
    assert {node["verdict"] for node in again["nodes"].values()} == {"converged"}, again
    assert again["effects"]["api_writes"] == 0
