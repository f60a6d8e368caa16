"""Which private keys to offer, loaded once for all connections.

A node allows few attempts (MaxAuthTries 6) and newer servers punish failed ones, so the rule is narrow: where
the inventory or ~/.ssh/config names keys, only those are offered, as if `IdentitiesOnly yes` stood there;
otherwise the agent's keys, then the default files. The key that worked is offered first from then on.

An encrypted key that the agent does not hold is asked for when there is nothing else to offer, or all else was
rejected: once per run, whatever number of hosts it is for. What a key file is, ssh_key_file.py knows.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import paramiko
from paramiko.pkey import PublicBlob
from paramiko.util import asbytes

from fleetdrv import ssh_key_file as key_file
from fleetdrv.host_certificate import SUFFIX, certified_key
from fleetdrv.known_hosts import fingerprint
from fleetdrv.secret import Secret
from fleetdrv.ssh_key_file import Complaint, KeyFile

Ask = Callable[[Path], Secret | None]

DEFAULT_FILES = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")
MOST_OFFERS = 5
"""One below OpenSSH's MaxAuthTries."""
MOST_QUESTIONS = 3
"""For one passphrase, as with ssh(1)."""
_SIGN_REQUEST, _SIGN_RESPONSE = 13, 14  # draft-miller-ssh-agent, section 5


class AgentTrouble(paramiko.SSHException):
    """The agent did not sign: gone, locked, or the touch it waits for was not given."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One key to try."""

    key: paramiko.PKey
    source: str
    """Where it came from, for messages."""

    def __str__(self) -> str:
        return f"{self.source} ({fingerprint(self.key.asbytes())})"


class _Agent(paramiko.Agent):
    """An agent, safe for many threads: Paramiko's sends and reads unlocked on one socket, and knows one agent."""

    def __init__(self, path: str) -> None:
        """Raises OSError, or SSHException where what answers is no agent."""
        self._lock = threading.Lock()
        paramiko.agent.AgentSSH.__init__(self)
        conn = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            conn.connect(path)
            self._connect(conn)  # type: ignore[attr-defined]  # not in the stubs
        except BaseException:
            conn.close()
            raise

    def _send_message(self, msg: Any) -> tuple[int, paramiko.Message]:
        request = cast(bytes, asbytes(msg))
        with self._lock:
            try:
                kind, answer = super()._send_message(request)  # type: ignore[misc]  # not in the stubs
            except (OSError, paramiko.SSHException) as error:
                raise AgentTrouble(f"the ssh agent went away: {error}") from error
        if request[0] == _SIGN_REQUEST and kind != _SIGN_RESPONSE:
            raise AgentTrouble("the ssh agent refused to sign (locked, or the touch was not given)")
        return kind, answer


class Keyring:
    """All keys of a run; every file is read once and the agent asked once. For many threads."""

    def __init__(self, home: Path | None = None, ask: Ask = lambda _: None) -> None:
        """`ask`: for a passphrase; None where nobody is there, or where it is not to be had."""
        self._folder = (home or Path.home()) / ".ssh"
        self._lock = threading.Lock()
        self._files: dict[Path, KeyFile] = {}
        self._ask, self._asked, self._given = ask, set[Path](), list[Secret]()
        self._agents: dict[str, _Agent] = {}
        self._favourites: dict[tuple[str, tuple[Path, ...]], bytes] = {}

    def offers(
        self,
        user: str,
        named: Sequence[Path],
        certificates: Sequence[Path] = (),
        *,
        agent: str = "",
        only_files: bool = False,
    ) -> tuple[tuple[Offer, ...], tuple[Complaint, ...]]:
        """Return the keys to try, best first, and complaints on keys that could not be used.

        `agent`: its socket, empty for none. `only_files`: where no key is named, the default files, and no other
        key of the agent.
        """
        with self._lock:
            found, complaints = self._from_files(named or self._defaults, agent, needed=bool(named))
            if not named and not only_files:
                held, more = self._from_agent(agent)
                found, complaints = [*held, *found], [*complaints, *more]
            found = self._certified(found, certificates, complaints)
            favourite = self._favourites.get((user, tuple(named)))
        unique = list({_identity(offer.key): offer for offer in reversed(found)}.values())[::-1]
        unique.sort(key=lambda offer: _identity(offer.key) != favourite)
        if len(unique) > MOST_OFFERS:
            text = f"only {MOST_OFFERS} of {len(unique)} keys are tried: name the right one"
            complaints.append(Complaint(text))
        return tuple(unique[:MOST_OFFERS]), tuple(complaints)

    def unlock(self, named: Sequence[Path]) -> None:
        """Ask for the passphrases of those encrypted keys, or default files, that nobody was asked for yet.

        Whoever needs the same key meanwhile waits for the answer.
        """
        with self._lock:
            for path in named or self._defaults:
                if self._file(path).sealed and path not in self._asked:
                    self._asked.add(path)
                    self._open(path)

    def worked(self, user: str, named: Sequence[Path], offer: Offer) -> None:
        """Remember the key that a node accepted."""
        with self._lock:
            self._favourites[user, tuple(named)] = _identity(offer.key)

    def close(self) -> None:
        """Let go of the agents."""
        with self._lock:
            while self._agents:
                self._agents.popitem()[1].close()

    @property
    def _defaults(self) -> list[Path]:
        return [self._folder / name for name in DEFAULT_FILES]

    def _open(self, path: Path) -> None:
        """Try what was typed for other keys, too: people have one passphrase for several."""
        for secret in (*self._given, *(None,) * MOST_QUESTIONS):
            given = secret or self._ask(path)
            if given is None:
                return
            opened = key_file.read(path, given)
            if not opened.sealed:
                self._files[path] = opened
                self._given = [given, *(each for each in self._given if each is not given)]
                return

    def _from_agent(self, path: str) -> tuple[list[Offer], list[Complaint]]:
        if path not in self._agents:
            try:
                self._agents[path] = _Agent(path)
            except (OSError, paramiko.SSHException) as error:
                told = getattr(error, "strerror", "") or error
                return [], [Complaint(f"the ssh agent at {path} does not answer: {told}")] if path else []
        offers, complaints = [], []
        for key in self._agents[path].get_keys():
            source = f"ssh agent: {key.comment}"
            if key.get_name().startswith(key_file.FIDO):
                complaints.append(key_file.fido(f"{source} ({fingerprint(key.blob)})"))
                continue
            if key.get_name().endswith(SUFFIX):
                # Else Paramiko shows, and has signed by, the plain key of an RSA certificate.
                key.inner_key = None  # type: ignore[attr-defined]  # not in the stubs
            offers.append(Offer(key, source))
        return offers, complaints

    def _from_files(
        self, paths: Iterable[Path], agent: str, *, needed: bool
    ) -> tuple[list[Offer], list[Complaint]]:
        offers: list[Offer] = []
        complaints: list[Complaint] = []
        for path in paths:
            found = self._file(path)
            if found.keys:
                offers += [Offer(key, str(path)) for key in found.keys]
                continue
            # An encrypted one, or one with only its public half here, the agent may hold.
            agents = self._from_agent(agent)[0] if found.public is not None else []
            held = [offer for offer in agents if plain(offer.key) == found.public]
            offers += held
            if not held and found.complaint and (needed or path.exists()):
                complaints.append(found.complaint)
        return offers, complaints

    def _file(self, path: Path) -> KeyFile:
        if path not in self._files:
            self._files[path] = key_file.read(path)
        return self._files[path]

    def _certified(
        self, offers: list[Offer], certificates: Iterable[Path], complaints: list[Complaint]
    ) -> list[Offer]:
        """Put each certificate before the others, with the key that it is for (ssh_config(5), CertificateFile)."""
        found = []
        for path in certificates:
            try:
                blob = PublicBlob.from_file(os.fspath(path))
                mine = next((o for o in offers if plain(o.key) == certified_key(blob.key_blob)), None)
            except (OSError, ValueError) as error:
                complaints.append(Complaint(f"CertificateFile {path}: {getattr(error, 'strerror', '') or error}"))
                continue
            if mine is None:
                complaints.append(Complaint(f"CertificateFile {path}: none of the keys here is the one it is for"))
            else:
                found.append(Offer(key_file.certified(mine.key, blob), str(path)))
        return [*found, *offers]


def plain(key: paramiko.PKey) -> bytes:
    """Return a key's public half without a certificate."""
    return certified_key(key.asbytes())


def _identity(key: paramiko.PKey) -> bytes:
    return bytes(key.public_blob.key_blob) if key.public_blob else key.asbytes()
