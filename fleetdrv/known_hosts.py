"""Which host keys are known: OpenSSH's known_hosts files, read by OpenSSH's rules (sshd(8), SSH_KNOWN_HOSTS).

Paramiko's own reader is not used: it raises on `@cert-authority`, ignores `@revoked` and patterns, and takes
quadratic time. Nothing here ever writes: a key is trusted by a person (`trust.py`), not by a run.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import translate
from pathlib import Path
from re import Pattern, compile

DEFAULT_PORT = 22
MARKED_AUTHORITY = "@cert-authority"
MARKED_REVOKED = "@revoked"


class Verdict(StrEnum):
    """What the files say of a key that a host has shown."""

    MATCH = "match"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    """Other keys are known for this host, this one is not."""
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One usable line."""

    path: Path
    line: int
    order: int
    """Position over all files."""
    marker: str
    key_type: str
    blob: bytes

    @property
    def place(self) -> str:
        """FILE:LINE, as editors and `ssh-keygen -R` users need it."""
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A verdict with the lines it rests on."""

    verdict: Verdict
    entries: tuple[Entry, ...] = ()


def fingerprint(blob: bytes) -> str:
    """Return what `ssh-keygen -l` prints.

    >>> fingerprint(b"")
    'SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU'
    """
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def lookup_name(host: str, port: int) -> str:
    """Return the name under which a host stands in the files.

    >>> lookup_name("GPU-01", 22), lookup_name("gpu-01", 2222)
    ('gpu-01', '[gpu-01]:2222')
    """
    host = host.lower()
    return host if port == DEFAULT_PORT else f"[{host}]:{port}"


def known_line(name: str, blob: bytes, salt: bytes = b"") -> str:
    """Return the line by which a key is known for a name (see `lookup_name`); with a salt the name is hashed.

    >>> known_line("n1", b"\\0\\0\\0\\7ssh-rsa...")
    'n1 ssh-rsa AAAAB3NzaC1yc2EuLi4='
    """
    if salt:
        digest = hmac.digest(salt, name.encode("utf-8", "surrogateescape"), "sha1")
        name = "|".join(("", "1", *(base64.b64encode(part).decode() for part in (salt, digest))))
    key_type = blob[4 : 4 + int.from_bytes(blob[:4])].decode()
    return f"{name} {key_type} {base64.b64encode(blob).decode()}"


@dataclass(slots=True)
class KnownHosts:
    """The lines of several files, indexed by how they name hosts.

    `complaints` lists lines and files that could not be used; they are not fatal, an unusable line can only
    make a host unknown.
    """

    complaints: list[str] = field(default_factory=list)
    _count: int = 0
    _plain: dict[str, list[Entry]] = field(default_factory=dict)
    _hashed: list[tuple[bytes, bytes, Entry]] = field(default_factory=list)
    _patterns: list[tuple[HostPatterns, Entry]] = field(default_factory=list)

    @classmethod
    def load(cls, paths: Iterable[Path]) -> KnownHosts:
        """Read the files that exist, in order. One that exists and cannot be read is a complaint."""
        known = cls()
        for path in paths:
            try:
                text = path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                known.complaints.append(f"{path}: {error.strerror}")
                continue
            known.add(path, text)
        return known

    def add(self, path: Path, text: bytes) -> None:
        """Take in one file's contents."""
        for number, raw in enumerate(text.split(b"\n"), start=1):
            line = raw.decode("utf-8", "surrogateescape").strip()
            if not line or line.startswith("#"):
                continue
            try:
                self._add_line(path, number, line)
            except ValueError as error:
                self.complaints.append(f"{path}:{number}: {error}")

    def _add_line(self, path: Path, number: int, line: str) -> None:
        words = line.split()
        marker = words.pop(0) if words[0].startswith("@") else ""
        if marker not in ("", MARKED_AUTHORITY, MARKED_REVOKED):
            raise ValueError(f"unknown marker {marker}")
        if len(words) < 3:
            raise ValueError("not a line of host names, key type and key")
        names, key_type, encoded = words[:3]
        blob = _blob(key_type, encoded)
        self._count += 1
        entry = Entry(path=path, line=number, order=self._count, marker=marker, key_type=key_type, blob=blob)
        if names.startswith("|"):
            self._hashed.append((*_salt_and_hash(names), entry))
        elif any(mark in names for mark in "*?!"):
            self._patterns.append((HostPatterns.parse(names), entry))
        else:
            for name in names.split(","):
                self._plain.setdefault(name.lower(), []).append(entry)

    def entries(self, name: str) -> tuple[Entry, ...]:
        """Return every line that applies to exactly this name (see `lookup_name`), in file order."""
        return tuple(sorted(self._matching(name), key=lambda entry: entry.order))

    def _matching(self, name: str) -> Iterator[Entry]:
        name = name.lower()
        yield from dict.fromkeys(self._plain.get(name, ()))
        encoded = name.encode("utf-8", "surrogateescape")
        for salt, digest, entry in self._hashed:
            if hmac.digest(salt, encoded, "sha1") == digest:
                yield entry
        for patterns, entry in self._patterns:
            if patterns.match(name):
                yield entry

    def judge(self, host: str, port: int, blob: bytes) -> Finding:
        """Say what is known of a plain key shown by that host.

        As OpenSSH does: a host on another port is looked up as `[host]:port`; where that name is not known
        at all, a line for the bare name may vouch for the key, but cannot make it "changed". Stricter than
        OpenSSH: a revocation counts under either name.
        """
        revoked = tuple(entry for entry in self.revocations(host, port) if entry.blob == blob)
        if revoked:
            return Finding(verdict=Verdict.REVOKED, entries=revoked)
        finding = self._judge_name(lookup_name(host, port), blob)
        if finding.verdict is Verdict.UNKNOWN and port != DEFAULT_PORT:
            bare = self._judge_name(host, blob)
            if bare.verdict is Verdict.MATCH:
                return bare
        return finding

    def _judge_name(self, name: str, blob: bytes) -> Finding:
        keys = tuple(entry for entry in self.entries(name) if not entry.marker)
        same = tuple(entry for entry in keys if entry.blob == blob)
        if same:
            return Finding(verdict=Verdict.MATCH, entries=same)
        return Finding(verdict=Verdict.CHANGED if keys else Verdict.UNKNOWN, entries=keys)

    def authorities(self, host: str, port: int) -> tuple[Entry, ...]:
        """Return the `@cert-authority` lines for that host, under either of its names."""
        return self._marked(host, port, MARKED_AUTHORITY)

    def revocations(self, host: str, port: int) -> tuple[Entry, ...]:
        """Return the `@revoked` lines for that host, under either of its names."""
        return self._marked(host, port, MARKED_REVOKED)

    def key_types(self, host: str, port: int) -> tuple[str, ...]:
        """Return the types of the plain keys known for that host, in file order."""
        entries = self._marked(host, port, "")
        return tuple(dict.fromkeys(entry.key_type for entry in entries))

    def _marked(self, host: str, port: int, marker: str) -> tuple[Entry, ...]:
        names = dict.fromkeys((lookup_name(host, port), host.lower()))
        found = (entry for name in names for entry in self.entries(name) if entry.marker == marker)
        return tuple(dict.fromkeys(found))


def order_algorithms(offered: Sequence[str], known_types: Sequence[str], *, certificates: bool) -> tuple[str, ...]:
    """Order host key algorithms so that the server shows a key we can judge.

    A server with several keys shows the first type that the client lists; asking for an unknown one first
    would make a known host look changed. Certificates are asked for only where an authority is known.

    >>> order_algorithms(("ssh-ed25519", "rsa-sha2-512"), ("ssh-rsa",), certificates=False)
    ('rsa-sha2-512', 'ssh-ed25519')
    """
    plain = [name for name in offered if "-cert-" not in name]
    first = [name for name in plain if signature_key_type(name) in known_types]
    ordered = first + [name for name in plain if name not in first]
    signed = [name for name in offered if "-cert-" in name] if certificates else []
    return (*signed, *ordered)


def signature_key_type(algorithm: str) -> str:
    """Return the key type that makes such signatures.

    >>> signature_key_type("rsa-sha2-512"), signature_key_type("ssh-ed25519")
    ('ssh-rsa', 'ssh-ed25519')
    """
    return "ssh-rsa" if algorithm in ("rsa-sha2-256", "rsa-sha2-512") else algorithm


@dataclass(frozen=True, slots=True)
class HostPatterns:
    """A comma-separated list with `*`, `?` and `!`: some pattern must match, and no negated one."""

    wanted: tuple[Pattern[str], ...]
    unwanted: tuple[Pattern[str], ...]

    @classmethod
    def parse(cls, text: str) -> HostPatterns:
        """Read the list; names are compared in lower case."""
        parts = [part for part in text.lower().split(",") if part]
        return cls(
            wanted=tuple(_glob(part) for part in parts if not part.startswith("!")),
            unwanted=tuple(_glob(part[1:]) for part in parts if part.startswith("!")),
        )

    def match(self, name: str) -> bool:
        """Tell whether the list covers the name."""
        if any(pattern.match(name) for pattern in self.unwanted):
            return False
        return any(pattern.match(name) for pattern in self.wanted)


def _glob(pattern: str) -> Pattern[str]:
    """Only `*` and `?` are special; square brackets stand for themselves, as in `[host]:port`."""
    return compile(translate(pattern.replace("[", "[[]")))


def _blob(key_type: str, encoded: str) -> bytes:
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"the key is not base64: {error}") from None
    length = int.from_bytes(blob[:4])
    if len(blob) <= 4 + length or blob[4 : 4 + length] != key_type.encode("utf-8", "surrogateescape"):
        raise ValueError(f"the key is not of type {key_type}")
    return blob


def _salt_and_hash(name: str) -> tuple[bytes, bytes]:
    parts = name.split("|")
    if len(parts) != 4 or parts[1] != "1":
        raise ValueError("not a hashed host name of type 1")
    try:
        return base64.b64decode(parts[2], validate=True), base64.b64decode(parts[3], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"hashed host name: {error}") from None
