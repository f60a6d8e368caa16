"""Host keys vouched for by an authority: OpenSSH's certificates (PROTOCOL.certkeys), parsed and judged.

With one `@cert-authority` line a whole fleet is known, freshly installed nodes included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import paramiko
from paramiko.pkey import UnknownKeyType

from fleetdrv.known_hosts import Entry, HostPatterns, fingerprint

SUFFIX = "-cert-v01@openssh.com"
HOST = 2
"""The kind of certificate that vouches for a host; 1 is a user's."""
FOR_EVER = 2**64 - 1
_KEY_FIELDS = {"ssh-ed25519": 1, "ssh-rsa": 2} | dict.fromkeys(
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"), 2
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCertificate:
    """What a certificate says; times are seconds since the epoch."""

    kind: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    critical_options: bytes
    authority: bytes
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, blob: bytes) -> HostCertificate:
        """Read the wire format; raises ValueError on anything that is not one whole certificate."""
        reader = _Reader(blob)
        name = reader.string().decode("ascii")
        fields = _KEY_FIELDS.get(name.removesuffix(SUFFIX))
        if fields is None or not name.endswith(SUFFIX):
            raise ValueError(f"{name} is not a certificate type that is known here")
        for _ in range(1 + fields):  # the nonce, then the key itself
            reader.string()
        reader.number(8)  # serial
        kind = reader.number(4)
        key_id = reader.string().decode("utf-8", "replace")
        principals = _Reader(reader.string()).strings()
        valid_after, valid_before = reader.number(8), reader.number(8)
        critical_options, _extensions, _reserved, authority = (reader.string() for _ in range(4))
        signed = reader.taken()
        signature = reader.string()
        reader.expect_end()
        return cls(
            kind=kind,
            key_id=key_id,
            principals=tuple(text.decode("utf-8", "replace") for text in principals),
            valid_after=valid_after,
            valid_before=valid_before,
            critical_options=critical_options,
            authority=authority,
            signed=signed,
            signature=signature,
        )


def certified_key(blob: bytes) -> bytes:
    """Return the plain public key that a certificate, of a host or a user, is for; any other blob as it is.

    Raises ValueError for a certificate that is cut short.
    """
    reader = _Reader(blob)
    name = reader.string().decode("ascii")
    kind = name.removesuffix(SUFFIX)
    if kind == name or kind not in _KEY_FIELDS:
        return blob
    reader.string()  # the nonce
    words = [kind.encode(), *(reader.string() for _ in range(_KEY_FIELDS[kind]))]
    return b"".join(len(word).to_bytes(4) + word for word in words)


def find_fault(
    blob: bytes, host: str, *, authorities: Sequence[Entry], revoked: Sequence[Entry], now: float
) -> str:
    """Say why a certificate does not vouch for that host now; "" when it does.

    The rules are ssh(1)'s: a trusted authority, of the right kind, in its time, with a matching principal or
    none at all, without critical options, and signed well.
    """
    try:
        certificate = HostCertificate.parse(blob)
    except ValueError as error:
        return f"its certificate cannot be read: {error}"
    signer = fingerprint(certificate.authority)
    if all(certificate.authority != entry.blob for entry in authorities):
        return f"its certificate is from an authority that is not trusted for this host: {signer}"
    for entry in revoked:
        if entry.blob == certificate.authority:
            return f"its certificate's authority {signer} is revoked by {entry.place}"
    return _find_fault_within(certificate, host.lower(), now)


def _find_fault_within(certificate: HostCertificate, host: str, now: float) -> str:
    called = f"its certificate {certificate.key_id!r}"
    if certificate.kind != HOST:
        return f"{called} is a user's, not a host's"
    if now < certificate.valid_after:
        return f"{called} is not valid before {_date(certificate.valid_after)}"
    if now >= certificate.valid_before:
        return f"{called} expired on {_date(certificate.valid_before)}"
    names = certificate.principals
    if names and not any(HostPatterns.parse(name).match(host) for name in names):
        return f"{called} is for {', '.join(names)}"
    if certificate.critical_options:
        return f"{called} has critical options that are not understood here"
    return "" if _well_signed(certificate) else f"{called} has a bad signature"


def _well_signed(certificate: HostCertificate) -> bool:
    try:
        key_type = _Reader(certificate.authority).string().decode("ascii")
        authority = paramiko.PKey.from_type_string(key_type, certificate.authority)
        return bool(authority.verify_ssh_sig(certificate.signed, paramiko.Message(certificate.signature)))
    except (paramiko.SSHException, ValueError, UnknownKeyType):
        return False


def _date(seconds: int) -> str:
    if seconds >= FOR_EVER:
        return "any date"
    return datetime.fromtimestamp(min(seconds, 2**34), UTC).strftime("%Y-%m-%d %H:%M UTC")


class _Reader:
    """RFC 4251 data types. Paramiko's Message pads what is missing with zeros, which would hide a cut."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, size: int) -> int:
        return int.from_bytes(self._bytes(size))

    def string(self) -> bytes:
        return self._bytes(self.number(4))

    def strings(self) -> list[bytes]:
        found = []
        while self._at < len(self._data):
            found.append(self.string())
        return found

    def taken(self) -> bytes:
        return self._data[: self._at]

    def expect_end(self) -> None:
        if self._at != len(self._data):
            raise ValueError("bytes after its end")

    def _bytes(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise ValueError("cut short")
        found, self._at = self._data[self._at : end], end
        return found
