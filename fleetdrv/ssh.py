"""SSH to nodes: connect once, use the session for a node's whole turn, never a traceback.

Fabric resolves ~/.ssh/config and owns each connection; dialling, host keys and commands are done here,
because Fabric accepts any host key, leaks failed connections and polls every running command 100 times a
second. The classes of fleetdrv.errors say whether another try can help.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

from paramiko.ssh_exception import IncompatiblePeer

from fleetdrv import dial
from fleetdrv.effects import Effects
from fleetdrv.errors import InputError, NodeError, Permanent, Unreachable, WayGone, WayLost
from fleetdrv.known_hosts import KnownHosts
from fleetdrv.model import Host
from fleetdrv.passwords import passphrase
from fleetdrv.ssh_bastion import Bastions
from fleetdrv.ssh_config import read_config
from fleetdrv.ssh_connection import FleetConnection
from fleetdrv.ssh_handshake import STEP, Handshake, KeysRefused, Shown, by_hand
from fleetdrv.ssh_keys import Ask, Keyring
from fleetdrv.ssh_proxy import ProxyWire
from fleetdrv.ssh_session import Completed, Session
from fleetdrv.ssh_settings import Asked, Target, jump_hosts, make_target, proxy_command, read_variables
from fleetdrv.ssh_transport import DISABLED, DISABLED_FOR_OLD_PEERS, FleetTransport

__all__ = ["Completed", "Dialler", "FleetConnection", "Session"]

HANDSHAKES_AT_ONCE = 16
"""More only makes each slower: 300 at once took 1.6 s each, 16 at a time 0.17 s, the whole the same time."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
SHORTEST_LAST_PAUSE_SECONDS = 2.0
WAY_SECONDS = 900.0
"""For a jump host that was there to come back: a reboot of it, a VPN that is down."""
MOST_JUMPS = 8
USER_KNOWN_HOSTS = (Path("~/.ssh/known_hosts"), Path("~/.ssh/known_hosts2"))


T = TypeVar("T")
Act = Callable[[Handshake, dial.Wire, Mapping[str, Sequence[str]]], T]
"""What is done on an open wire."""


class Dialler:
    """All SSH of one run. Files and keys are read once; for many threads. Close it to let go of bastions.

    `ssh_config` None means the user's and the system's file, `known_hosts` empty the user's own files; the
    global known_hosts files count always. `note` is told once of every setting that is not followed. `ask` is
    for the passphrase of an encrypted key; by default it is the terminal.
    """

    def __init__(
        self,
        effects: Effects,
        *,
        ssh_config: Path | None = None,
        known_hosts: Sequence[Path] = (),
        note: Callable[[str], None] = lambda _: None,
        ask: Ask = passphrase,
    ) -> None:
        self._effects = effects
        self._config = read_config(ssh_config)
        self._known_hosts_files = tuple(path.expanduser() for path in known_hosts or USER_KNOWN_HOSTS)
        self._known: dict[tuple[Path, ...], KnownHosts] = {}
        self._keyring = Keyring(ask=ask)
        self._bastions = Bastions(self._log_in)
        self._turns = threading.BoundedSemaphore(HANDSHAKES_AT_ONCE)
        self._old_peers: set[Target] = set()
        self._note, self._noted = note, set[str]()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        dial.raise_descriptor_limit()

    def connect(self, host: Host, deadline_seconds: float) -> Session:
        """Return a session on that host.

        Raises Unreachable when none was to be had in time, though tried again and again; Permanent at once
        when trying again cannot help; InputError when the host's variables make no sense. While a jump host is
        away that was there before, the deadline stands still; WayGone when that takes too long.
        """
        connection, target = self._resolve(host)
        self._have_keys(_way(target))

        def open_(end: float) -> None:
            connection.dial = partial(self._log_in, target, host.name, end)
            connection.open()

        self._keep_trying(open_, host.name, deadline_seconds)
        return Session(host.name, connection, self._effects)

    def targets(self, host: Host) -> tuple[Target, ...]:
        """Return the jump hosts on the way, nearest first, and the host itself at the end. Raises InputError."""
        return _way(self._resolve(host)[1])

    def host_key(self, target: Target, name: str, deadline_seconds: float) -> tuple[Shown, NodeError]:
        """Return the key that a host shows, what is known of it, and how it would be refused for it.

        Nobody logs in, but jump hosts on the way. Raises as `connect`.
        """
        self._have_keys(_way(target)[:-1])
        shown = self._keep_trying(
            lambda end: self._dial(target, name, end, Handshake.show), name, deadline_seconds
        )
        return shown, self._handshake(target, name, 0.0).refusal(shown)

    def known_hosts_file(self, target: Target) -> Path | None:
        """Return the file to which the operator adds that host's key."""
        return self._known_hosts(target)[1]

    def read_known_hosts_again(self) -> None:
        """Keys were added."""
        with self._lock:
            self._known.clear()

    def _keep_trying(self, act: Callable[[float], T], name: str, seconds: float) -> T:
        """Try until the deadline, which is handed to each attempt and moves while a jump host is away."""
        began = time.monotonic()
        end = began + seconds
        for attempt in count(1):
            tried_at = time.monotonic()
            try:
                return act(end)
            except WayLost as error:
                away = time.monotonic() - began
                if away > WAY_SECONDS or self._closing.wait(min(random.uniform(0.5, 2.0) * attempt, 5.0)):
                    why = f"{error.cause}, for {away:.0f} s now; jobs on nodes run on: the same command again"
                    raise WayGone(why) from error
                end += time.monotonic() - tried_at
            except Unreachable as error:
                pause = _pause(attempt, end - time.monotonic())
                if not pause or self._closing.wait(pause):
                    spent = time.monotonic() - began
                    cause = f"{error.cause} (attempt {attempt}, given up after {spent:.0f} s)"
                    raise Unreachable(name, STEP, cause, evidence=error.evidence, remedy=error.remedy) from error
        raise AssertionError  # count() does not end

    def away(self) -> str:
        """Name the jump hosts that were there before and are not now."""
        return self._bastions.away()

    def suspect(self) -> None:
        """The machine slept: jump hosts are dialled again."""
        self._bastions.suspect()

    def close(self) -> None:
        """Let go of bastions and agent; waits between attempts end. Sessions are closed by their owners."""
        self._closing.set()
        self._bastions.close()
        self._keyring.close()

    def __enter__(self) -> Dialler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resolve(self, host: Host) -> tuple[FleetConnection, Target]:
        asked = read_variables(host)
        self._tell(asked.notes)
        return self._resolve_chain(asked, None, MOST_JUMPS)

    def _resolve_chain(self, asked: Asked, jump: Target | None, depth: int) -> tuple[FleetConnection, Target]:
        """`jump` given: this host's own jumps do not count, as with `ssh -J`."""
        if depth == 0:
            raise InputError(f"{asked.name}: more than {MOST_JUMPS} jumps, or jumps in a circle")
        try:
            with self._config.base_ssh_config.given(asked.user):
                connection = FleetConnection(
                    asked.name,
                    user=asked.user or None,
                    port=asked.port,
                    config=self._config,
                    gateway=False,  # Fabric would log in to the bastion once per node
                    forward_agent=False,
                    connect_kwargs={"allow_agent": False},  # its own: Fabric adds keys to a shared one
                )
        except ValueError as error:
            raise InputError(f"{asked.name}: {error}") from None
        command = "" if jump else proxy_command(connection, asked)
        if jump is None:
            for hop in jump_hosts(asked, connection.ssh_config):
                if hop.name == asked.name and (hop.port is None or asked.port in (None, hop.port)):
                    break  # `Host *` with ProxyJump covers the bastion itself, too
                _, jump = self._resolve_chain(hop, jump, depth - 1)
        return connection, make_target(connection, asked, jump, command)

    def _have_keys(self, targets: Iterable[Target]) -> None:
        """Ask for passphrases before a deadline runs, and only where there is no other key to offer."""
        for target in targets:
            if not self._handshake(target, "", 0.0).offers()[0]:
                self._keyring.unlock(target.identity_files)

    def _log_in(self, target: Target, node: str, end: float) -> FleetTransport:
        handshake, began = self._handshake(target, node, end), time.monotonic()
        offered, _ = handshake.offers()
        try:
            return self._dial(target, node, end, Handshake.perform)
        except KeysRefused:
            self._keyring.unlock(target.identity_files)
            if len(handshake.offers()[0]) == len(offered):
                raise
        return self._dial(target, node, end + time.monotonic() - began, Handshake.perform)

    def _dial(self, target: Target, node: str, end: float, act: Act[T]) -> T:
        """Make one attempt; a second one only for peers so old that they share no algorithm with us."""
        handshake = self._handshake(target, node, end)
        if target not in self._old_peers:
            try:
                return self._shake_hands(handshake, act, DISABLED)
            except IncompatiblePeer:
                self._old_peers.add(target)
        try:
            return self._shake_hands(handshake, act, DISABLED_FOR_OLD_PEERS)
        except IncompatiblePeer as error:
            raise Permanent(
                node, STEP, f"{target}: no common algorithms: {error}", remedy=by_hand(target)
            ) from error

    def _handshake(self, target: Target, node: str, end: float) -> Handshake:
        known, user_file = self._known_hosts(target)
        return Handshake(
            node=node, target=target, known=known, user_file=user_file, keyring=self._keyring, end=end
        )

    def _shake_hands(self, handshake: Handshake, act: Act[T], disabled: Mapping[str, Sequence[str]]) -> T:
        """Wait for a turn only when the wire is there: hosts that are switched off would take all turns."""
        target, node, end = handshake.target, handshake.node, handshake.end
        wire = self._wire(target, node, end)
        if not self._turns.acquire(timeout=max(0.0, end - time.monotonic())):
            wire.close()
            raise Unreachable(node, STEP, f"{target}: too many others are being connected: no turn came")
        try:
            return act(handshake, wire, disabled)
        finally:
            self._turns.release()

    def _wire(self, target: Target, node: str, end: float) -> dial.Wire:
        if target.jump is not None:
            return self._bastions.wire(target.jump, target.address, target.port, node=node, end=end)
        left = max(0.0, min(target.connect_seconds, end - time.monotonic()))
        try:
            if target.proxy_command:
                return ProxyWire(target.proxy_command)
            return dial.connect(target.address, target.port, within_seconds=left)
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise Unreachable(node, STEP, f"{target}: {error.strerror}") from error
            raise Permanent(
                node, STEP, f"{target}: {error.strerror}", remedy="set ansible_host in the inventory"
            ) from error
        except OSError as error:
            raise Unreachable(
                node, STEP, f"{target}: {error.strerror or error}", remedy=by_hand(target)
            ) from error

    def _known_hosts(self, target: Target) -> tuple[KnownHosts, Path | None]:
        """Return what is known, and the file to which the operator would add."""
        users = self._known_hosts_files if target.user_known_hosts is None else target.user_known_hosts
        files = (*users, *target.global_known_hosts)
        with self._lock:
            if files not in self._known:
                self._known[files] = KnownHosts.load(files)
            return self._known[files], next(iter(users), None)

    def _tell(self, notes: Iterable[str]) -> None:
        with self._lock:
            new = [text for text in notes if text not in self._noted]
            self._noted.update(new)
        for text in new:
            self._note(text)


def _way(target: Target) -> tuple[Target, ...]:
    """Return the jump hosts on the way, nearest first, and the host itself at the end."""
    return (*(_way(target.jump) if target.jump else ()), target)


def _pause(attempt: int, left: float) -> float:
    """Return the seconds to wait before the next attempt; 0 when there is no time for one.

    Doubling, with jitter so that a fleet does not come back in step; shorter towards the end, so that a host
    that comes up late is still found.
    """
    if left < SHORTEST_LAST_PAUSE_SECONDS and attempt > 1:
        return 0.0
    pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
    pause = min(pause, max(SHORTEST_LAST_PAUSE_SECONDS, left / 2))
    return pause if pause < left else 0.0
