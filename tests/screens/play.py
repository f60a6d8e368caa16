"""Show the recorded rollout on this terminal as `fleetdrv apply` would; stand still where a test looks.

Usage: python -m tests.screens.play MARK SIZE SECONDS…
Each time it stands still a byte is added to the file MARK; one line on stdin goes on.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from fleetdrv.board import Board
from fleetdrv.screen import Screen, fits
from fleetdrv.summary import summary_text
from fleetdrv.teller import Teller
from tests.screens import rollout

START = 1_795_592_874.0


def main(mark: Path, size: int, stops: list[float]) -> None:
    """Play."""
    clock = [0.0]
    assert fits(sys.stderr, {**os.environ, "CI": ""})
    teller = Teller(
        screen=Screen(sys.stderr), board=Board(), now=lambda: clock[0], wall=lambda: START + clock[0]
    )
    left = list(rollout.events(size))
    with teller.watching("nvidia-535", size, rollout.slots(size)):
        for stop in stops:
            while left and left[0][0] <= stop:
                clock[0], event = left.pop(0)
                teller(event)
                if int(clock[0]) % 10 == 0:
                    teller.tick()
            clock[0] = stop
            teller.tick()
            stand_still(mark)
        for clock[0], event in left:  # the clock is what the loop turns
            teller(event)
    failed = sum(rollout.fails(place, size) for place in range(size))
    effects = f"{11 * size} commands over SSH, {12 * size} writes to the cluster"
    print(summary_text(rollout.endings(size), "", [], effects, rollout.RUN))
    print(f"exit {4 if failed else 0}", flush=True)
    stand_still(mark)


def stand_still(mark: Path) -> None:
    """Let somebody look."""
    with mark.open("a") as stream:
        stream.write(".")
    sys.stdin.readline()


if __name__ == "__main__":
    os.environ["TZ"] = "UTC"
    time.tzset()
    main(Path(sys.argv[1]), int(sys.argv[2]), [float(word) for word in sys.argv[3:]])
