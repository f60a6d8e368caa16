"""Root on nodes where one does not log in as root: sudo, with a password or without.

There is no pty, so that output stays as it was written and nothing is echoed. One exec per command:

    env LC_ALL=C sudo -S -p PROMPT -- /bin/sh -c 'say READY; exec "$@"' sh COMMAND...

PROMPT and READY hold a nonce of this exec. The password is sent only after sudo has shown PROMPT, once; the
command's own input only after READY, which the shell under sudo says. So the password never reaches anything
but sudo, and nothing meant for the command is ever taken for a password. (`sh -s` in its place, with the script
behind the password, would not do: Debian's sh reads its script in blocks and swallows the input behind it.)
For the same reason a program stands in the exec request, and so in sudo's log, whole: on stdin, behind READY, it
would cost one more round trip per command (Session.run), and what would put it there without one is the login
shell's to do, which need not be a POSIX shell.
A node that needs no password costs the same round trips as one reached as root.
"""

from __future__ import annotations

import os
import re
import shlex
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fleetdrv.errors import Permanent, Stopped, Transient
from fleetdrv.secret import Secret, hide
from fleetdrv.ssh_session import Completed, Session

SUDO_SECONDS = 120.0
"""For sudo to let us in: it may ask a directory service that is slow under load. No link is lost meanwhile."""

MOST_REJECTIONS = 2
"""Nodes that may reject the password. One account for the whole fleet is locked after three to five failures."""


class Lockout:
    """Hands the password out, and stops when it proves wrong: a wrong one, sent to a fleet, locks an account.

    Until one node has taken it, at most `MOST_REJECTIONS` nodes have it at a time, and no more are brought to
    ask for it, unless some node needs none: pam_faillock counts a question without an answer as a failure, too
    (on that node alone). For many threads.
    """

    def __init__(self, password: Secret) -> None:
        self._password = password
        self._changed = threading.Condition()
        self._trying: set[str] = set()
        self._accepted: set[str] = set()
        self._rejected: dict[str, None] = {}
        self._free = False

    def check(self, node: str, step: str) -> None:
        """Raise what stands against sending the password to that node."""
        if node in self._rejected:
            raise rejection(node, step)
        if len(self._rejected) >= MOST_REJECTIONS and node not in self._accepted:
            raise Stopped(
                f"sudo rejected the password on {' and '.join(self._rejected)}: it is sent to no further node, "
                "lest the account be locked. Type the right one; nodes with another one: --limit"
            )

    def enter(self, node: str, step: str, end: float) -> None:
        """Wait until that node's sudo may be called. Raises as `check`, or Transient at the end."""
        self._wait(node, step, end, lambda: self._free)

    def claim(self, node: str, step: str, end: float) -> bytes:
        """Return the line to send; waits for its proof on other nodes. Raises as `enter`."""
        self._wait(node, step, end, lambda: False)
        return self._password.reveal().encode() + b"\n"

    def _wait(self, node: str, step: str, end: float, enough: Callable[[], bool]) -> None:
        def settled() -> bool:
            self.check(node, step)
            room = node in self._trying or len(self._trying) + len(self._rejected) < MOST_REJECTIONS
            return bool(self._accepted) or enough() or room

        with self._changed:
            if not self._changed.wait_for(settled, max(0.0, end - time.monotonic())):
                cause = "sudo's password was not sent: no other node has proved it right yet"
                raise Transient(node, step, cause)
            if not (self._accepted or enough()):
                self._trying.add(node)

    def settle(
        self, node: str, *, accepted: bool = False, rejected: bool = False, free: bool = False
    ) -> None:
        """Note how it went, `free`: without a password; none of them: nobody knows, the link died."""
        with self._changed:
            self._trying.discard(node)
            self._free = self._free or free
            if accepted:
                self._accepted.add(node)
            if rejected:
                self._rejected[node] = None
            self._changed.notify_all()


def rejection(node: str, step: str, evidence: str = "") -> Permanent:
    """Return the error of a node whose sudo does not take the password."""
    cause = "sudo rejects the password"
    return Permanent(node, step, cause, evidence=evidence, remedy="try it there by hand: ssh, then `sudo -v`")


@dataclass(slots=True)
class Gate:
    """One exec's way through sudo: what it says is heard, and its input held back until it is through."""

    node: str
    step: str
    lockout: Lockout | None
    end: float
    """time.monotonic() of the command's deadline."""
    open: bool = False
    nonce: str = field(default_factory=lambda: os.urandom(12).hex())
    sent: bool = False
    _until: float = field(default_factory=lambda: time.monotonic() + SUDO_SECONDS)

    @property
    def _prompt(self) -> str:
        return f"fleetdrv-{self.nonce}-password"

    @property
    def _ready(self) -> bytes:
        return f"fleetdrv-{self.nonce}-ready\n".encode()

    def command(self, argv: tuple[str, ...]) -> str:
        """Return the command line. READY is put together on the node: a shell that traces what it runs has the
        command line on standard error, and that must not be taken for the answer."""
        say = f"printf '%s-ready\\n' fleetdrv-{self.nonce} >&2; exec \"$@\""
        how = ("-S", "-p", self._prompt) if self.lockout else ("-n",)
        return shlex.join(("env", "LC_ALL=C", "sudo", *how, "--", "/bin/sh", "-c", say, "sh", *argv))

    def hear(self, stderr: bytearray) -> bytes:
        """Take all of standard error so far; return what is to be written now, mostly nothing.

        Once the command is root's, what sudo said before is taken away. Raises Permanent when sudo asks again.
        """
        before, ready, _ = stderr.partition(self._ready)
        if ready:
            del stderr[: len(before) + len(ready)]
            self.open = True
            self._settle(accepted=self.sent, free=not self.sent)
            return b""
        prompts = self._prompts(stderr)
        if self.lockout is None or not prompts:
            return b""
        if not self.sent:
            line = self.lockout.claim(self.node, self.step, self.end)
            self.sent, self._until = True, time.monotonic() + SUDO_SECONDS
            return line
        if prompts > 1:
            self._settle(rejected=True)
            raise rejection(self.node, self.step, self.cleaned(stderr))
        return b""

    def _prompts(self, stderr: bytearray) -> int:
        """Count how often sudo asked; a tracing shell tells the command line, with the same words after `-p`."""
        return len(re.findall(rb"(?<!-p )(?<!['\"])" + self._prompt.encode(), stderr))

    def patience(self) -> float:
        """Return for how many seconds sudo is still waited for. Raises Transient when the time is over."""
        left = self._until - time.monotonic()
        if left <= 0:
            cause = f"sudo did not let us in within {SUDO_SECONDS:g} s"
            remedy = "see whether it is slow by hand: ssh, then `time sudo -v`; it may wait for a name service"
            raise Transient(self.node, self.step, cause, remedy=remedy)
        return left

    def conclude(self, done: Completed, user: str) -> Completed:
        """Return how the command ended. Raises Permanent where sudo ended before the command was root's."""
        if self.open:
            return done
        said = self.cleaned(done.stderr)
        if self.sent and not any(words in said for words in _NO_RIGHT):
            self._settle(rejected=True)
            raise rejection(self.node, self.step, said)
        cause, remedy = _explain(said, done.exit_code, user, self.lockout is not None)
        raise Permanent(self.node, self.step, cause, evidence=said, remedy=remedy)

    def give_up(self) -> None:
        """The exec is over, however it ended; the next node may have the password."""
        self._settle()

    def cleaned(self, stderr: bytes | bytearray) -> str:
        """Return what sudo said, without our prompts."""
        text = stderr.decode("utf-8", "replace").replace(self._prompt, "")
        return hide("\n".join(line for line in text.splitlines() if line.strip())[-2000:])

    def _settle(self, **how: bool) -> None:
        if self.lockout is not None:
            self.lockout.settle(self.node, **how)


_NO_RIGHT = ("not in the sudoers file", "not allowed to", "may not run sudo", "I'm sorry")


def _explain(said: str, code: int, user: str, has_password: bool) -> tuple[str, str]:
    """Return cause and remedy of a sudo that ended by itself. LC_ALL=C makes it speak English."""
    if any(words in said for words in _NO_RIGHT):
        return f"{user} may not become root by sudo", f"a rule for {user} in /etc/sudoers.d (visudo -f)"
    if "must have a tty" in said:
        why = "sudo there wants a terminal (requiretty), and there is none: its output could not be trusted"
        return why, f"on the node, by visudo: Defaults:{user} !requiretty"
    if code == 127 or "not found" in said:
        return "there is no sudo", "install sudo there, or log in as root (ansible_user: root)"
    if not has_password:
        return (
            f"sudo wants {user}'s password",
            "--ask-sudo-password or --sudo-password-file FILE; or on the node a rule with NOPASSWD",
        )
    return f"sudo failed with exit {code}", "try it there by hand: ssh, then `sudo -v`"


class Sudo:
    """How the commands of one run become root's. For many threads."""

    def __init__(self, password: Secret | None = None) -> None:
        self._lockout = Lockout(password) if password else None

    def check(self, node: str, step: str) -> None:
        """Raise what stands against that node before anybody dials it."""
        if self._lockout is not None:
            self._lockout.check(node, step)

    def run(
        self, session: Session, argv: tuple[str, ...], *, step: str, deadline_seconds: float, **more: Any
    ) -> Completed:
        """Run argv as root, as `Session.run` does; quoted here and nowhere else.

        Raises Permanent where sudo does not let us in, Stopped where the password was wrong too often.
        """
        if session.user == "root":
            return session.run(shlex.join(argv), step=step, deadline_seconds=deadline_seconds, **more)
        gate = Gate(session.node, step, self._lockout, time.monotonic() + deadline_seconds)
        command = gate.command(argv)
        if self._lockout is not None:
            self._lockout.enter(session.node, step, gate.end)
        try:
            done = session.run(command, step=step, deadline_seconds=deadline_seconds, gate=gate, **more)
            return gate.conclude(done, session.user)
        finally:
            gate.give_up()
