"""fleetdrv with a Lease that lasts some seconds, so that a round of rivals does; nothing else is changed.

Usage: python -m tests.rollout.short_lease SECONDS API [fleetdrv's arguments]
  API  seconds that an answer of the API is waited for
"""

from __future__ import annotations

import sys
from functools import partial

import httpx

from fleetdrv import api, holding
from fleetdrv.main import program
from fleetdrv.timing import Timing

if __name__ == "__main__":
    setattr(holding, "Timing", partial(Timing, duration_seconds=int(sys.argv[1])))  # noqa: B010
    setattr(api, "_TIMEOUT", httpx.Timeout(float(sys.argv[2])))  # noqa: B010
    program.run(["fleetdrv", *sys.argv[3:]])
