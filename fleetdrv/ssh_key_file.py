"""One private key's file: what can be had of it, and what stands in the way."""

from __future__ import annotations

import base64
import io
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from paramiko.pkey import PublicBlob, UnknownKeyType

from fleetdrv.secret import Secret

FIDO = "sk-"
"""How the types of keys begin that live in a security key (U2F, FIDO2)."""
_MAGIC = b"openssh-key-v1\0"


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why a key could not be used."""

    text: str
    remedy: str = ""
    """The next command, where there is one."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """What a file has given."""

    keys: tuple[paramiko.PKey, ...] = ()
    """The key, behind the same with its certificate where KEY-cert.pub lies beside it."""
    public: bytes | None = None
    """The public half of a key that could not be had; the agent may hold it."""
    complaint: Complaint | None = None
    sealed: bool = False
    """A passphrase would open it."""


def read(path: Path, passphrase: Secret | None = None) -> KeyFile:
    """Read a key; raises nothing: what is wrong is the complaint."""
    public = _public_half(path)
    if public is not None and paramiko.Message(public).get_text().startswith(FIDO):
        return KeyFile(complaint=fido(str(path)))
    sealed = False
    try:
        key = _load(path, passphrase.reveal().encode() if passphrase else None)
    except FileNotFoundError:
        complaint = Complaint(f"{path}: no such file")
    except (TypeError, paramiko.PasswordRequiredException):
        complaint, sealed = _sealed(path), True
    except (UnknownKeyType, UnsupportedAlgorithm):
        complaint = Complaint(f"{path}: this type of key cannot be used here: use a plain one")
    except (OSError, ValueError, paramiko.SSHException) as error:
        # With a passphrase: a wrong one. A form that Paramiko cannot read is an SSHException.
        sealed = passphrase is not None and isinstance(error, ValueError)
        complaint = _sealed(path) if sealed else Complaint(f"{path}: {error}")
    else:
        if key.public_blob is None:
            return KeyFile(keys=(key,))
        # OpenSSH offers the certificate first, then the bare key
        return KeyFile(keys=(key, certified(key, None)))
    return KeyFile(public=public, complaint=complaint, sealed=sealed)


def _load(path: Path, passphrase: bytes | None) -> paramiko.PKey:
    """Read a key as Paramiko does, and also one in PKCS #8, as openssl and `ssh-keygen -m PKCS8` write it.

    Raises what Paramiko and cryptography raise; TypeError where a passphrase is wanted.
    """
    data = path.read_bytes()
    if not _PKCS8.search(data):
        # Bytes, whatever its annotation says; by place, as 4 and 5 call it by different names.
        return paramiko.PKey.from_path(path, cast(Any, passphrase))
    opened = serialization.load_pem_private_key(data, passphrase)
    kinds = (
        (rsa.RSAPrivateKey, paramiko.RSAKey),
        (ec.EllipticCurvePrivateKey, paramiko.ECDSAKey),
        (ed25519.Ed25519PrivateKey, paramiko.Ed25519Key),
    )
    kind = next((ours for theirs, ours in kinds if isinstance(opened, theirs)), None)
    if kind is None:
        raise UnsupportedAlgorithm(type(opened).__name__)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    key: paramiko.PKey = kind.from_private_key(io.StringIO(opened.private_bytes(*form).decode()))  # memory only
    certificate = path.with_name(f"{path.name}-cert.pub")
    if certificate.exists():
        key.load_certificate(str(certificate))
    return key


_PKCS8 = re.compile(rb"^-----BEGIN (?:ENCRYPTED )?PRIVATE KEY-----", re.MULTILINE)


def certified(key: paramiko.PKey, certificate: PublicBlob | None) -> paramiko.PKey:
    """Return a copy of a key that goes along with a certificate, or without."""
    copied = object.__new__(type(key))  # copy.copy() asks an agent's key for what it has not, without end
    copied.__dict__.update(key.__dict__, public_blob=certificate)
    return copied


def fido(source: str) -> Complaint:
    """Complain of a key in a security key."""
    return Complaint(
        f"{source}: a FIDO key is not used here: each log-in would wait for a touch, and Paramiko has no such "
        "signatures",
        "a plain key for the fleet: ssh-keygen -t ed25519 -f ~/.ssh/id_fleet; its public half into the nodes' "
        "authorized_keys; ansible_ssh_private_key_file: ~/.ssh/id_fleet",
    )


def _sealed(path: Path) -> Complaint:
    add = f"ssh-add {shlex.quote(str(path))}"
    return Complaint(f"{path}: encrypted, and not in the ssh agent: {add}", add)


def _public_half(path: Path) -> bytes | None:
    """Return the public half, from the file beside it, or from where OpenSSH's format has it in the clear."""
    beside = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
    try:
        return bytes(PublicBlob.from_file(os.fspath(beside)).key_blob)
    except (OSError, ValueError):
        pass
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        data = base64.b64decode("".join(line for line in lines if not line.startswith("-----")))
    except (OSError, ValueError):
        return None
    if not data.startswith(_MAGIC):
        return None
    message = paramiko.Message(data[len(_MAGIC) :])  # PROTOCOL.key: cipher, kdf, its options, number, public key
    for _ in range(3):
        message.get_string()
    message.get_int()
    return bytes(message.get_string()) or None
