"""Certificates of the practice control plane: two small authorities, and what they sign.

Everything is made once and then kept, so that kubeconfigs handed out stay good over restarts. Keys are P-256,
quick to make, and readable by their owner alone from their first byte on.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = datetime.timedelta(days=3650)
_CLOCKS_DIFFER = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, as the two PEM files programs ask for."""

    certificate: Path
    key: Path


def authority(folder: Path, name: str) -> Pair:
    """Return the authority of that name, made when it is not there."""
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    if pair.certificate.exists():
        return pair
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name, ())
    builder = _builder(subject, subject, key.public_key(), key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    _write(pair, key, builder.sign(key, hashes.SHA256()))
    return pair


def issue(by: Pair, pair: Pair, name: str, *, groups: Sequence[str] = (), hosts: Sequence[str] = ()) -> Pair:
    """Sign a certificate for a user (`groups`, where Kubernetes reads them) or a server (`hosts`), once."""
    if pair.certificate.exists():
        return pair
    signer = serialization.load_pem_private_key(by.key.read_bytes(), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(by.certificate.read_bytes()).subject
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_subject(name, groups), issuer, key.public_key(), signer.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if hosts:  # etcd is a client too, of itself
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    _write(pair, key, builder.sign(signer, hashes.SHA256()))
    return pair


def signing_key(path: Path) -> Path:
    """Return a bare private key, made when it is not there; service account tokens are signed with it."""
    if not path.exists():
        write_secret(path, _pem(ec.generate_private_key(ec.SECP256R1())))
    return path


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    new.replace(path)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - _CLOCKS_DIFFER).not_valid_after(now + _LIFE)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer)
    return builder.add_extension(by, critical=False)


def _subject(name: str, groups: Sequence[str]) -> x509.Name:
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write(pair: Pair, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    write_secret(pair.key, _pem(key))  # first: a certificate is never there without its key
    write_secret(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))
