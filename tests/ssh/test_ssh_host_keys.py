"""Whom we trust: every verdict on a host key, with a real server on the other end."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ssh_server import Sshd, make_key, public

from fleetdrv.errors import Permanent
from fleetdrv.host_certificate import find_fault
from fleetdrv.known_hosts import KnownHosts, fingerprint
from fleetdrv.ssh import Dialler

pytestmark = pytest.mark.usefixtures("leaks_nothing")
MakeDialler = Callable[..., Dialler]
StartServer = Callable[..., Sshd]


def connects(dialler: Dialler, server: Sshd, **variables: object) -> bool:
    with dialler.connect(server.host(**variables), 20) as session:
        return session.run("echo in", step="test", deadline_seconds=20).stdout == b"in\n"


def refusal(dialler: Dialler, server: Sshd, **variables: object) -> Permanent:
    start = time.monotonic()
    with pytest.raises(Permanent) as caught:
        connects(dialler, server, **variables)
    assert time.monotonic() - start < 10, "a refusal is not tried again"
    return caught.value


def shown(key: Path) -> str:
    """The fingerprint as ssh-keygen prints it."""
    listed = subprocess.run(("ssh-keygen", "-lf", str(key)), capture_output=True, text=True, check=True)
    return listed.stdout.split()[1]


def test_a_known_key_on_its_port(make_dialler: MakeDialler, server: Sshd) -> None:
    assert connects(make_dialler(server.known_line()), server)


def test_a_key_known_for_the_bare_name_vouches_on_another_port(make_dialler: MakeDialler, server: Sshd) -> None:
    assert connects(make_dialler(f"127.0.0.1 {public(server.host_keys[0])}\n"), server)


def test_another_key_under_the_bare_name_says_nothing_about_this_port(
    make_dialler: MakeDialler, server: Sshd
) -> None:
    error = refusal(make_dialler(f"127.0.0.1 {public(server.client_key)}\n"), server)
    assert "unknown" in error.cause


def test_an_unknown_key_is_refused_with_fingerprint_and_the_line_to_add(
    make_dialler: MakeDialler, server: Sshd, tmp_path: Path
) -> None:
    error = refusal(make_dialler(), server)
    assert "host key of [127.0.0.1]" in error.cause
    assert "unknown" in error.cause
    assert shown(server.host_keys[0]) in error.cause
    command = error.remedy[error.remedy.index("echo ") :]
    assert command.endswith(f">> {tmp_path}/known_hosts")
    subprocess.run(("sh", "-c", command), check=True)
    assert connects(make_dialler((tmp_path / "known_hosts").read_text()), server)


def test_a_changed_key_is_refused_with_both_fingerprints_place_and_remedy(
    make_dialler: MakeDialler, server: Sshd, tmp_path: Path
) -> None:
    old = make_key(tmp_path / "old")
    error = refusal(make_dialler("# a comment\n" + server.known_line(old)), server)
    known = tmp_path / "known_hosts"
    assert "CHANGED" in error.cause
    assert shown(server.host_keys[0]) in error.cause
    assert f"{known}:2" in error.cause
    assert shown(old) in error.evidence
    command = error.remedy[error.remedy.index("ssh-keygen -f") :]
    subprocess.run(("sh", "-c", command), check=True, capture_output=True)
    assert public(old) not in known.read_text()


def test_a_revoked_key_is_refused_though_it_is_known(make_dialler: MakeDialler, server: Sshd) -> None:
    line = f"@revoked * {public(server.host_keys[0])}\n"
    assert "revoked by" in refusal(make_dialler(server.known_line() + line), server).cause


def test_a_hashed_name(make_dialler: MakeDialler, server: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "hashed"
    known.write_text(server.known_line())
    subprocess.run(("ssh-keygen", "-q", "-H", "-f", str(known)), check=True, capture_output=True)
    assert "127.0.0.1" not in known.read_text()
    assert connects(make_dialler(known.read_text()), server)


@pytest.mark.parametrize("names", ["[127.0.0.*]:*", "[127.0.0.?]:*,!gpu-*", "[*]:*"])
def test_patterns(make_dialler: MakeDialler, server: Sshd, names: str) -> None:
    assert connects(make_dialler(f"{names} {public(server.host_keys[0])}\n"), server)


def test_a_negated_pattern_wins(make_dialler: MakeDialler, server: Sshd) -> None:
    assert "unknown" in refusal(make_dialler(f"*,!*127.0.0.1* {public(server.host_keys[0])}\n"), server).cause


def test_a_broken_line_is_no_reason_to_stop_and_is_shown_when_it_matters(
    make_dialler: MakeDialler, server: Sshd
) -> None:
    broken = "[127.0.0.1]:22 ssh-ed25519 AAAA!\n"
    assert connects(make_dialler(broken + server.known_line()), server)
    assert "known_hosts:1: the key is not base64" in refusal(make_dialler(broken), server).evidence


@pytest.mark.parametrize("known", [0, 1, 2])
def test_a_host_with_several_keys_is_asked_for_the_one_we_know(
    start_server: StartServer, make_dialler: MakeDialler, known: int
) -> None:
    server = start_server(host_kinds=("ed25519", "ecdsa", "rsa"))
    assert connects(make_dialler(server.known_line(server.host_keys[known])), server)


def test_files_named_in_the_inventory_replace_the_runs(
    make_dialler: MakeDialler, server: Sshd, tmp_path: Path
) -> None:
    own = tmp_path / "own known"
    own.write_text(server.known_line())
    arguments = f"-o 'UserKnownHostsFile=\"{own}\"'"
    assert connects(make_dialler(), server, ansible_ssh_common_args=arguments)
    own.write_text("")
    assert "unknown" in refusal(make_dialler(server.known_line()), server, ansible_ssh_common_args=arguments).cause


def test_an_alias_names_the_key(make_dialler: MakeDialler, server: Sshd) -> None:
    arguments = "-o HostKeyAlias=gpu-01"
    assert connects(
        make_dialler(f"gpu-01 {public(server.host_keys[0])}\n"), server, ansible_ssh_common_args=arguments
    )
    # without a port, as ssh(1) does
    elsewhere = make_dialler(f"[gpu-01]:{server.port} {public(server.host_keys[0])}\n")
    assert "host key of gpu-01 is unknown" in refusal(elsewhere, server, ansible_ssh_common_args=arguments).cause


def test_no_option_switches_the_check_off(make_dialler: MakeDialler, server: Sshd, notes: list[str]) -> None:
    arguments = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    assert "unknown" in refusal(make_dialler(), server, ansible_ssh_common_args=arguments).cause
    assert notes == ["StrictHostKeyChecking=no is not followed: host keys are always verified"]


def certify(authority: Path, key: Path, *options: str) -> str:
    """Sign a host key; the sshd_config line that shows the certificate."""
    subprocess.run(
        ("ssh-keygen", "-q", "-s", str(authority), "-I", key.name, *options, str(key) + ".pub"), check=True
    )
    return f"HostCertificate {key}-cert.pub"


HOST = ("-h", "-n", "127.0.0.1,gpu-*")


@pytest.mark.parametrize("authority_kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_an_authority_vouches_for_hosts_never_seen(
    start_server: StartServer, make_dialler: MakeDialler, tmp_path: Path, kind: str, authority_kind: str
) -> None:
    authority = make_key(tmp_path / "authority", kind=authority_kind)
    server = start_server(
        f"HostCertificate {tmp_path}/sshd0/host_{kind}-cert.pub",
        host_kinds=(kind,),
        prepare=lambda key: certify(authority, key, *HOST),
    )
    assert connects(make_dialler(f"@cert-authority [127.0.0.*]:* {public(authority)}\n"), server)
    assert connects(make_dialler(f"@cert-authority 127.0.0.1 {public(authority)}\n"), server)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("-h", "-n", "gpu-02"), "is for gpu-02"),
        ((*HOST, "-V", "20200101:20200102"), "expired on 2020-01-0"),
        ((*HOST, "-V", "20900101:20910101"), "is not valid before 20"),
        (("-n", "127.0.0.1"), "is a user's, not a host's"),
        ((*HOST, "-O", "critical:something=1"), "critical options"),
    ],
)
def test_a_certificate_that_does_not_fit_is_refused_with_the_reason(
    start_server: StartServer, make_dialler: MakeDialler, tmp_path: Path, options: tuple[str, ...], why: str
) -> None:
    authority = make_key(tmp_path / "authority")
    server = start_server(
        f"HostCertificate {tmp_path}/sshd0/host_ed25519-cert.pub",
        prepare=lambda key: certify(authority, key, *options),
    )
    known = f"@cert-authority * {public(authority)}\n"
    error = refusal(make_dialler(known), server)
    assert "unknown" in error.cause
    assert why in error.cause
    # as with ssh(1), the key itself may be known all the same
    assert connects(make_dialler(known + server.known_line()), server)


def test_another_authority_and_a_revoked_one(
    start_server: StartServer, make_dialler: MakeDialler, tmp_path: Path
) -> None:
    authority, other = make_key(tmp_path / "authority"), make_key(tmp_path / "other")
    server = start_server(
        f"HostCertificate {tmp_path}/sshd0/host_ed25519-cert.pub",
        prepare=lambda key: certify(authority, key, *HOST),
    )
    assert "not trusted" in refusal(make_dialler(f"@cert-authority * {public(other)}\n"), server).cause
    revoked = f"@cert-authority * {public(authority)}\n@revoked * {public(authority)}\n"
    assert "is revoked by" in refusal(make_dialler(revoked), server).cause


def certificate(path: Path) -> bytes:
    return base64.b64decode(path.with_name(f"{path.name}-cert.pub").read_text().split()[1])


def test_a_certificate_that_was_altered_or_cut_vouches_for_nobody(tmp_path: Path) -> None:
    authority, key = make_key(tmp_path / "authority"), make_key(tmp_path / "key")
    certify(authority, key, *HOST)
    blob = certificate(key)
    known = KnownHosts()
    known.add(Path("known_hosts"), f"@cert-authority * {public(authority)}\n".encode())

    def fault(changed: bytes) -> str:
        authorities = known.authorities("127.0.0.1", 22)
        return find_fault(changed, "127.0.0.1", authorities=authorities, revoked=(), now=time.time())

    assert fault(blob) == ""
    assert "bad signature" in fault(blob.replace(b"127.0.0.1", b"127.*.*.*"))
    assert "bad signature" in fault(blob[:-1] + bytes([blob[-1] ^ 1]))
    assert "bytes after its end" in fault(blob + b"x")
    assert all(fault(blob[:length]) for length in range(len(blob)))


def test_a_fingerprint_is_ssh_keygens(server: Sshd) -> None:
    blob = base64.b64decode(public(server.host_keys[0]).split()[1])
    assert fingerprint(blob) == shown(server.host_keys[0])
