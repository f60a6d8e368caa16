"""What goes into a bundle of evidence holds no secret, wherever one can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv.redact import redact, secrets_in
from fleetdrv.secret import MASK

MARKER = "hunter2-Marker_9"

PLACES = (
    "deb https://me:{}@repo.example/apt stable main",
    "deb https://{}@repo.example/apt stable main",
    "URIs: https://me:a@b{}@repo.example/apt",
    "E: Failed to fetch http://repo.example/x?token={}&arch=amd64  404  Not Found",
    "GET /a?sig={}",
    "machine repo.example login me password {}",
    "machine repo.example\n  login {}\n  password x",
    'Acquire::http::Proxy "http://me:{}@proxy:3128";',
    "https_proxy=http://me:{}@proxy:3128 apt-get update",
    "NGC_API_KEY={} ./install",
    "export DB_PASSWORD='{} two words'",
    'export SECRET="{} two words"',
    "ansible_become_pass: {}",
    '{{"registry": {{"auth_token": "{}"}}}}',
    "Authorization: Bearer {}",
    "curl -H 'Proxy-Authorization: Basic {}' http://x",
    "curl --password {} http://x",
    "curl --token={} http://x",
    "nvidia-installer -license-key {}",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\nQUJD\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\nthe rest was cut off",
    "kubeadm join --token {}",
    "X-Auth-Token: {}",
    "AWS_SECRET_ACCESS_KEY = {}",
    "client_secret={};tenant=1",
    "aws: credentials={}",
)


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_taken_out_of_every_place(place: str) -> None:
    text = f"before\n{place.format(MARKER)}\nafter"
    assert MARKER not in redact(text)
    assert MASK in redact(text)
    assert redact(text).startswith("before\n")


@pytest.mark.parametrize(
    "text",
    [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "ghp_0123456789abcdefghij",
        "AKIAIOSFODNN7EXAMPLE",
        "abcdef.0123456789abcdef",
        "root:$6$saltsalt$hashhashhash:19000:0",
        "c2VjcmV0c2VjcmV0\nc2VjcmV0\n-----END PRIVATE KEY-----",
    ],
)
def test_what_is_a_secret_by_its_shape_goes_too(text: str) -> None:
    assert all(part not in redact(text) for part in text.splitlines() if "END" not in part)


@pytest.mark.parametrize(
    "text",
    [
        "modprobe: ERROR: could not insert 'r8126': Key was rejected by service",
        "Signing key: /var/lib/dkms/mok.key",
        "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 2817 (unattended-upgr)",
        "token 5 is older than 6: another controller took over",
        "NO_PUBKEY A4B469963BF863CC",
        "toy/1.1, 6.1.0-56-cloud-amd64, x86_64: installed",
        "Linux version 6.1.0-56-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0)",
    ],
)
def test_evidence_stays_readable(text: str) -> None:
    assert redact(text) == text


def test_values_of_an_inventorys_secret_variables_are_taken_out_wherever_they_stand() -> None:
    variables = {
        "ansible_host": "10.0.0.7",
        "ansible_become_password": "correct horse",
        "registry": {"token": "battery-staple", "url": "https://r"},
        "secrets": ["first-one", {"x": "second-one"}],
        "ansible_port": 22,
    }
    secrets = tuple(secrets_in(variables))
    assert set(secrets) == {"correct horse", "battery-staple", "first-one", "second-one"}
    assert redact("10.0.0.7 says correct horse and battery-staple", secrets) == f"10.0.0.7 says {MASK} and {MASK}"


@given(st.text(max_size=300))
def test_any_text_is_taken(text: str) -> None:
    once = redact(text)
    assert redact(once) == redact(redact(once))
