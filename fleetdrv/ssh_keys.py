"""Which private keys to offer, loaded once for all connections.

A node allows few attempts (MaxAuthTries 6) and newer servers punish failed ones, so the rule is narrow: where
the inventory or ~/.ssh/config names keys, only those are offered, as if `IdentitiesOnly yes` stood there;
otherwise the agent's keys, then the default files. The key that worked is offered first from then on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.agent import AgentKey
from paramiko.pkey import PublicBlob, UnknownKeyType
from paramiko.util import asbytes

from fleetdrv.known_hosts import fingerprint

DEFAULT_FILES = ("id_ed25519", "id_ecdsa", "id_rsa")
MOST_OFFERS = 5
"""One below OpenSSH's MaxAuthTries."""
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
    """The operator's agent, safe for many threads: Paramiko's sends and reads unlocked on one socket."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        super().__init__()

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

    def __init__(self, home: Path | None = None) -> None:
        self._folder = (home or Path.home()) / ".ssh"
        self._lock = threading.Lock()
        self._files: dict[Path, tuple[tuple[Offer, ...], str]] = {}
        self._agent: _Agent | None = None
        self._favourites: dict[tuple[str, tuple[Path, ...]], bytes] = {}

    def offers(self, user: str, named: Sequence[Path]) -> tuple[tuple[Offer, ...], tuple[str, ...]]:
        """Return the keys to try, best first, and complaints on keys that could not be used."""
        with self._lock:
            if named:
                found, complaints = self._from_files(named, needed=True)
            else:
                defaults = [self._folder / name for name in DEFAULT_FILES]
                from_files, complaints = self._from_files(defaults, needed=False)
                found = [*self._from_agent(), *from_files]
            favourite = self._favourites.get((user, tuple(named)))
        unique = list({_identity(offer.key): offer for offer in reversed(found)}.values())[::-1]
        unique.sort(key=lambda offer: _identity(offer.key) != favourite)
        if len(unique) > MOST_OFFERS:
            complaints.append(f"only {MOST_OFFERS} of {len(unique)} keys are tried: name the right one")
        return tuple(unique[:MOST_OFFERS]), tuple(complaints)

    def worked(self, user: str, named: Sequence[Path], offer: Offer) -> None:
        """Remember the key that a node accepted."""
        with self._lock:
            self._favourites[user, tuple(named)] = _identity(offer.key)

    def close(self) -> None:
        """Let go of the agent."""
        with self._lock:
            if self._agent is not None:
                self._agent.close()
                self._agent = None

    def _from_agent(self) -> list[Offer]:
        if self._agent is None:
            try:
                self._agent = _Agent()
            except (OSError, paramiko.SSHException):
                return []
        keys = self._agent.get_keys()
        return [Offer(key, f"ssh agent: {key.comment}") for key in keys if not key.get_name().startswith("sk-")]

    def _from_files(self, paths: Iterable[Path], *, needed: bool) -> tuple[list[Offer], list[str]]:
        offers: list[Offer] = []
        complaints: list[str] = []
        for path in paths:
            if path not in self._files:
                self._files[path] = self._load(path)
            found, complaint = self._files[path]
            offers += found
            if complaint and (needed or path.exists()):
                complaints.append(complaint)
        return offers, complaints

    def _load(self, path: Path) -> tuple[tuple[Offer, ...], str]:
        """Read one key. An encrypted one, or one with only its public half here, the agent may hold."""
        try:
            key = _read(path)
        except FileNotFoundError:
            complaint = f"{path}: no such file"
        except (TypeError, paramiko.PasswordRequiredException):
            complaint = f"{path}: encrypted, and not in the ssh agent: ssh-add {path}"
        except (UnknownKeyType, UnsupportedAlgorithm):
            complaint = f"{path}: this type of key cannot be used here, as FIDO keys cannot: use a plain one"
        except (OSError, ValueError, paramiko.SSHException) as error:
            complaint = f"{path}: {error}"
        else:
            offers = (Offer(key, str(path)),)
            if key.public_blob is None:
                return offers, ""
            # OpenSSH offers the certificate first, then the bare key
            return (*offers, Offer(_read(path, certificate=False), str(path))), ""
        public = _public_half(path)
        held = tuple(offer for offer in self._from_agent() if offer.key.asbytes() == public)
        return (held, "") if held else ((), complaint)


def _read(path: Path, *, certificate: bool = True) -> paramiko.PKey:
    key = paramiko.PKey.from_path(path)
    if not certificate:
        key.public_blob = None
    return key


def _public_half(path: Path) -> bytes | None:
    public = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
    try:
        return PublicBlob.from_file(os.fspath(public)).key_blob
    except (OSError, ValueError):
        return None


def _identity(key: paramiko.PKey) -> bytes:
    if isinstance(key, AgentKey):
        return key.asbytes()
    return key.public_blob.key_blob if key.public_blob else key.asbytes()
