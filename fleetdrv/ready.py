"""May apt install now? Asked while the node serves, right before its cordon.

Another apt may be at work for minutes. To wait for it in the outage would be minutes out of service for nothing;
so it is waited for here, and in the outage only a moment (scripts/apt_ready.sh).
"""

from __future__ import annotations

from collections.abc import Callable

from fleetdrv.follow import Line
from fleetdrv.look import ask
from fleetdrv.plan import NodePlan
from fleetdrv.turn import OTHER_APT, Debt, Owed, Verdict

MAX_ASKED = 12
"""So often the program is asked, which waits ten seconds itself: two minutes, in which the node has a slot that
others could use. An unattended upgrade that takes longer is for the next command."""

_SECONDS = 60.0


def wait(
    line: Line, plan: NodePlan, check: Callable[[], None], tell: Callable[[str], None]
) -> tuple[bool, Owed | None]:
    """Ask for each driver of packages; return whether somebody was waited for, and why the node is not to go out.

    Who was waited for may have changed the packages: look again. `check` is called before each question and may
    raise. Raises LinkLost or Unreachable as `look.ask` does.
    """
    waited = False
    for step in (step for step in plan.outage if step.program == "apt_ready.sh"):
        for left in reversed(range(MAX_ASKED)):
            check()
            code, _, errors = ask(line, step.program, step.argv, step="apt", deadline_seconds=_SECONDS)
            if code == 0:
                break
            said = (errors.decode("utf-8", "replace").strip().splitlines() or [f"exit {code}"])[-1]
            if code != OTHER_APT or not left:
                why = f"apt cannot install now: {said}; once that is over, the same command again"
                return waited, Owed(debt=Debt.NOTHING, verdict=Verdict.BLOCKED, why=why)
            waited = True
            tell(f"waiting while the node serves: {said.partition(', after ')[0]}")
    return waited, None
