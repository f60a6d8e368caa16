"""Call the operator's hooks: children of this process, bounded in time, heard, and never through a shell."""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fleetdrv.errors import FleetdrvError
from fleetdrv.events import Event, Level, Say
from fleetdrv.hooks import Hook, Hooks, When, environment

_GRACE_SECONDS = 5.0
"""Between TERM and KILL for a hook that is out of time."""

_LONGEST_LINE = 4096
_READ_BYTES = 65536


class Veto(FleetdrvError):
    """A `before` hook said no, or could not be asked; the text says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The hooks of one playbook, as this run calls them."""

    hooks: Hooks = field(default_factory=Hooks)
    folder: Path = Path()
    """The playbook's."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What all hooks are told: pool and playbook."""
    say: Say = lambda _: None

    def before(self, when: When, host: str = "", /, **values: object) -> bool:
        """Call the hooks of an occasion; return whether there were any. Raises Veto."""
        hooks = self.hooks.of(when)
        for hook in hooks:
            if why := self._call(hook, when, host, values):
                raise Veto(f"vetoed by the {when} hook: {why}")
        return bool(hooks)

    def after(self, when: When, host: str = "", /, **values: object) -> None:
        """Call the hooks of an occasion; what fails is a warning, and the others are called all the same."""
        for hook in self.hooks.of(when):
            if why := self._call(hook, when, host, values):
                self.say(Event(node=host, phase="hook", text=f"{when} failed: {why}", level=Level.WARNING))

    def _call(self, hook: Hook, when: When, host: str, values: Mapping[str, object]) -> str:
        shown = shlex.join(hook.command)
        self.say(Event(node=host, phase="hook", text=f"{when}: {shown}"))
        heard: list[str] = []

        def hear(line: str) -> None:
            heard[:] = [line] if line.strip() else heard
            self.say(Event(node=host, phase="hook", text=f"{when}: {line}"))

        why = call(hook, self.folder, environment(when, **self.about, **values), hear)
        last = f": {heard[0].strip()}" if heard else ""
        return f"{shown}: {why}{last}" if why else ""


@dataclass(slots=True, kw_only=True)
class NodeHooks:
    """The hooks around one node's outage; each list is called at most once in a turn."""

    caller: Caller = field(default_factory=Caller)
    host: str = ""
    node: str = ""
    began: bool = False
    """All `before_node` hooks agreed, so that `after_node` is due."""
    _ended: bool = False

    def before(self, run: str, why: str) -> bool:
        """Return whether hooks were called just now, which may have taken long. Raises Veto."""
        if self.began:
            return False
        called = self.caller.before("before_node", self.host, **self._about(run), reason=why)
        self.began = True
        return called

    def after(self, run: str, verdict: str, why: str, seconds_out: float | None) -> None:
        """Tell how the turn ended, where it began at all."""
        if self.began and not self._ended:
            self._ended = True
            out = "" if seconds_out is None else f"{seconds_out:.1f}"
            told = {**self._about(run), "reason": why, "verdict": verdict, "seconds_out": out}
            self.caller.after("after_node", self.host, **told)

    def _about(self, run: str) -> dict[str, str]:
        return {"run": run, "node": self.node, "host": self.host}


def call(hook: Hook, folder: Path, variables: Mapping[str, str], hear: Callable[[str], None]) -> str:
    """Run one hook to its end; return why it failed, or nothing.

    Whatever it started goes with it when its time is over. A process that it left behind on purpose after it
    ended well is neither waited for nor heard. In a session of its own, so that Ctrl-C is fleetdrv's to read.
    """
    try:
        process = subprocess.Popen(
            hook.command,
            cwd=folder,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        return f"cannot be started: {error.strerror or error}"
    until = time.monotonic() + hook.timeout_seconds
    try:
        _listen(process, until, hear)
        code = process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return f"killed, it took longer than {hook.timeout_seconds} s"
    finally:
        _end(process)
        if process.stdout:
            process.stdout.close()
    if code < 0:
        return f"ended by signal {-code}"
    return f"exit {code}" if code else ""


def _listen(process: subprocess.Popen[bytes], until: float, hear: Callable[[str], None]) -> None:
    """Tell line by line until the hook ends or closes its output. Raises TimeoutExpired."""
    assert process.stdout is not None
    rest, pipe = b"", process.stdout.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            ended = process.poll() is not None
            ready = selector.select(0.0 if ended else 0.1)
            data = os.read(pipe, _READ_BYTES) if ready else b""
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                hear(line[:_LONGEST_LINE].decode("utf-8", "replace"))
            if ended or (ready and not data):  # one read takes all that a pipe holds
                break
            if time.monotonic() >= until:
                raise subprocess.TimeoutExpired(process.args, 0)
    if rest:
        hear(rest.decode("utf-8", "replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a hook that still runs, with its whole process group."""
    if process.poll() is not None:
        return
    until = time.monotonic() + _GRACE_SECONDS
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # also whoever of the group did not mind TERM
    process.wait()
