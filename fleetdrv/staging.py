"""The acts of a turn for which a node keeps serving: a job is followed, a trial build is made, a build is shared.

As those of outage.py they return None: the next look sees what came of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from fleetdrv.buildonce import Builds
from fleetdrv.follow import Line
from fleetdrv.load import Loaded
from fleetdrv.look import View
from fleetdrv.phases import Phase
from fleetdrv.send import Sender, Warrant
from fleetdrv.sharing import Build
from fleetdrv.sharing import builds as builds_of
from fleetdrv.timing import Stopwatch
from fleetdrv.turn import Owed


@dataclass(frozen=True, slots=True)
class Staging:
    """One node's stage, and its part in what many nodes compile once."""

    name: str
    loaded: Loaded
    jobs: Sender
    builds: Builds
    stopwatch: Stopwatch
    tell: Callable[..., None]
    """Takes phase, text and, where it is no progress, a level."""

    def follow(self, seen: View, due: Owed, warrant: Warrant) -> None:
        """Follow the job that is under way, whoever sent it, to its end."""
        del warrant
        self.stopwatch.enter(due.job.rpartition(".")[0].rpartition(".")[2])
        self.tell("follow", due.why)
        if f".{Phase.STAGE}." in due.job:
            self.builds.lead(self.name, _builds(seen, _words(seen)))
        self.jobs.follow(due.job)

    def stage(self, seen: View, due: Owed, warrant: Warrant) -> None:
        """Send the stage, with what others have compiled for it already."""
        steps, named, files = seen.plan.stage, _words(seen), self.loaded.stage_files()
        needed = {name: data for name, data in files.items() if f"payload/{name}" in named}
        self.stopwatch.enter(Phase.STAGE)  # also while another node compiles for both
        given = self.builds.claim(self.name, _builds(seen, named), warrant.check, self.tell)
        self.tell("stage", due.why)
        end = self.jobs.send(due.job, steps, warrant, needed, given)
        self.builds.failed(self.name, end.exit_code)

    def share(self, line: Line, seen: View) -> None:
        """Fetch finished builds that other nodes want, too."""
        self.builds.share(line, _builds(seen, seen.facts.staged), self.tell)


def _builds(seen: View, stages: Collection[str]) -> list[Build]:
    """Return the builds that trial builds with these keys make."""
    return [build for build in builds_of(seen.wanted, seen.facts) if build.stage in stages]


def _words(seen: View) -> set[str]:
    """Return every word of the stage's steps: payload files and keys of trial builds among them."""
    return {word for step in seen.plan.stage for word in step.argv}
