"""fleetdrv with a Lease that lasts some seconds, so that a round of rivals does; nothing else is changed.

Usage: python -m tests.rollout.short_lease SECONDS [fleetdrv's arguments]
"""

from __future__ import annotations

import sys
from functools import partial

from fleetdrv import holding
from fleetdrv.main import program
from fleetdrv.timing import Timing

if __name__ == "__main__":
    setattr(holding, "Timing", partial(Timing, duration_seconds=int(sys.argv[1])))  # noqa: B010
    program.run(["fleetdrv", *sys.argv[2:]])
