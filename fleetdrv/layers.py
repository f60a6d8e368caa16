"""The layers in which a node may differ from what is wanted. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Layer(StrEnum):
    """Where a node may differ from what is wanted."""

    HARDWARE = "hardware"
    PACKAGE = "package"
    HOLD = "hold"
    REPOSITORY = "repository"
    BUILT = "built"
    FILE = "file"
    LOADED = "loaded"
    PARAMETERS = "parameters"
    CONFIGURATION = "configuration"
    CONFLICTS = "conflicts"
    INITRAMFS = "initramfs"
    SERVICES = "services"
    CHECKS = "checks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One layer of one driver that is not as wanted."""

    driver: str
    layer: Layer
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.driver}: {self.layer}: found {self.found}, want {self.wanted}"
