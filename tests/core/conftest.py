"""Hypothesis for the core: the same draws each time, so that a red run is red for everybody.

FLEETDRV_EXPLORE=50 draws anew, and 50 times as much.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_EXPLORE = int(os.environ.get("FLEETDRV_EXPLORE", "0"))

settings.register_profile(
    "core",
    max_examples=200 * max(1, _EXPLORE),
    derandomize=not _EXPLORE,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("core")
