"""Log-in: one key at a time, the agent, and what is not tried again."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import paramiko
import pytest
from ssh_asks import at, fails, logs_in
from ssh_server import USER, Sshd, make_key, public

from fleetdrv.errors import Permanent, Unreachable
from fleetdrv.ssh import Dialler
from fleetdrv.ssh_keys import Keyring

pytestmark = pytest.mark.usefixtures("leaks_nothing")
MakeDialler = Callable[..., Dialler]
StartServer = Callable[..., Sshd]


def test_a_wrong_key_is_permanent_and_tried_once(server: Sshd, dialler: Dialler, tmp_path: Path) -> None:
    before = server.log.count("Connection from")
    wrong = make_key(tmp_path / "wrong")
    error = fails(dialler, server.host(ansible_ssh_private_key_file=str(wrong)), Permanent)
    assert f"{USER} may not log in with {wrong} (SHA256:" in error.cause
    assert "authorized_keys" in error.remedy
    assert server.log.count("Connection from") == before + 1


def test_a_wrong_user_is_permanent(server: Sshd, dialler: Dialler) -> None:
    assert "nobody-here may not log in" in fails(dialler, server.host(ansible_user="nobody-here"), Permanent).cause


def test_a_server_that_takes_no_keys(start_server: StartServer, make_dialler: MakeDialler) -> None:
    server = start_server("PubkeyAuthentication no", "PasswordAuthentication yes", "PermitRootLogin yes")
    assert (
        "takes no keys, only: password" in fails(make_dialler(server.known_line()), server.host(), Permanent).cause
    )


def test_a_second_factor_is_named(start_server: StartServer, make_dialler: MakeDialler) -> None:
    server = start_server(
        "AuthenticationMethods publickey,password", "PasswordAuthentication yes", "PermitRootLogin yes"
    )
    assert (
        "wants more than a key: password"
        in fails(make_dialler(server.known_line()), server.host(), Permanent).cause
    )


class HangsUpAtLogIn(asyncssh.SSHServer):
    """Another implementation, because sshd cannot be told to die between key exchange and answer."""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.connection = conn

    def begin_auth(self, _username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, _username: str, _key: asyncssh.SSHKey) -> bool:
        self.connection.abort()
        return False


def test_a_link_that_dies_during_the_log_in_is_no_bad_key(
    make_dialler: MakeDialler, server: Sshd, simulated: Callable[..., int]
) -> None:
    port = simulated(HangsUpAtLogIn, server.host_keys[0])
    dialler = make_dialler(f"[127.0.0.1]:{port} {public(server.host_keys[0])}\n")
    cause = fails(dialler, at(port, server), Unreachable, 2).cause
    assert "the host hung up (attempt" in cause
    assert "attempt 1" not in cause


class RunsNothing(asyncssh.SSHServer):
    """Lets everybody in and serves no command."""

    def begin_auth(self, _username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, _username: str, _key: asyncssh.SSHKey) -> bool:
        return True

    def session_requested(self) -> asyncssh.SSHServerSession:
        return asyncssh.SSHServerSession()


def test_a_host_that_runs_no_commands_is_no_lost_link(
    make_dialler: MakeDialler, server: Sshd, simulated: Callable[..., int]
) -> None:
    port = simulated(RunsNothing, server.host_keys[0])
    dialler = make_dialler(f"[127.0.0.1]:{port} {public(server.host_keys[0])}\n")
    with dialler.connect(at(port, server), 20) as session:
        with pytest.raises(Permanent, match="refuses to run commands"):
            session.run("true", step="test", deadline_seconds=10)
        assert session.alive


def test_too_many_failures_is_permanent(
    start_server: StartServer, make_dialler: MakeDialler, tmp_path: Path
) -> None:
    server = start_server("MaxAuthTries 1")
    wrong = [make_key(tmp_path / f"wrong{number}") for number in range(3)]
    arguments = " ".join(f"-i {key}" for key in wrong)
    host = server.host(ansible_ssh_private_key_file=None, ansible_ssh_common_args=arguments)
    assert "Too many authentication failures" in fails(make_dialler(server.known_line()), host, Permanent).cause


def test_several_keys_are_offered_one_by_one_and_the_good_one_is_remembered(
    start_server: StartServer, make_dialler: MakeDialler, tmp_path: Path
) -> None:
    server = start_server()
    wrong = make_key(tmp_path / "wrong")
    arguments = f"-i {wrong} -i {server.client_key}"
    host = server.host(ansible_ssh_private_key_file=None, ansible_ssh_common_args=arguments)
    dialler = make_dialler(server.known_line())
    assert logs_in(dialler, host)
    assert server.log.count("Failed publickey") == 1
    assert logs_in(dialler, host)
    assert server.log.count("Failed publickey") == 1


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_keys(
    start_server: StartServer, make_dialler: MakeDialler, tmp_path: Path, kind: str
) -> None:
    server = start_server(accept=make_key(tmp_path / kind, kind=kind))
    assert logs_in(make_dialler(server.known_line()), server.host())


def test_an_encrypted_key_names_its_remedy(server: Sshd, dialler: Dialler, tmp_path: Path) -> None:
    key = make_key(tmp_path / "locked", passphrase="secret")
    error = fails(dialler, server.host(ansible_ssh_private_key_file=str(key)), Permanent)
    assert f"{key}: encrypted, and not in the ssh agent: ssh-add {key}" in error.cause


def test_a_missing_key_file(server: Sshd, dialler: Dialler, tmp_path: Path) -> None:
    error = fails(dialler, server.host(ansible_ssh_private_key_file=str(tmp_path / "none")), Permanent)
    assert "none: no such file" in error.cause


def test_no_key_at_all(server: Sshd, dialler: Dialler) -> None:
    assert "no key in ~/.ssh" in fails(dialler, server.host(ansible_ssh_private_key_file=None), Permanent).cause


def test_default_keys_are_found(server: Sshd, dialler: Dialler, tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    for suffix in ("", ".pub"):
        source = server.client_key.with_name(server.client_key.name + suffix)
        (tmp_path / ".ssh" / f"id_ed25519{suffix}").write_bytes(source.read_bytes())
    # made with HOME elsewhere: a Dialler reads its home once
    assert logs_in(dialler, server.host(ansible_ssh_private_key_file=None))


@contextmanager
def running_agent(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(("ssh-agent", "-D", "-a", str(path)), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        yield process
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    with running_agent(tmp_path / "agent") as process:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        yield process


def add_to_agent(key: Path) -> None:
    subprocess.run(("ssh-add", "-q", str(key)), check=True, capture_output=True, stdin=subprocess.DEVNULL)


@pytest.mark.usefixtures("agent")
def test_the_agent_signs_for_many_at_once(start_server: StartServer, make_dialler: MakeDialler) -> None:
    server = start_server("MaxStartups 100")
    add_to_agent(server.client_key)
    dialler = make_dialler(server.known_line())
    host = server.host(ansible_ssh_private_key_file=None)
    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(lambda _: logs_in(dialler, host), range(24)))
    dialler.close()


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(
    ("said", "lets_in"),
    [
        ("%d/node-agent", True),
        ("~/node-agent", True),
        ("${{HOME}}/node-agent", True),
        ("$FLEET_AGENT", True),
        ('"{folder}/node-agent"', True),
        ("SSH_AUTH_SOCK", False),
        ("none", False),
        ("{folder}/no-agent", False),
    ],
)
def test_a_host_may_have_an_agent_of_its_own(
    said: str,
    lets_in: bool,
    server: Sshd,
    make_dialler: MakeDialler,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other one, of the environment, holds a key that the host does not take."""
    add_to_agent(make_key(tmp_path / "wrong"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FLEET_AGENT", str(tmp_path / "node-agent"))
    with running_agent(tmp_path / "node-agent"):
        environment = {**os.environ, "SSH_AUTH_SOCK": str(tmp_path / "node-agent")}
        words = ("ssh-add", "-q", str(server.client_key))
        subprocess.run(words, check=True, capture_output=True, stdin=subprocess.DEVNULL, env=environment)
        config = f"Host *\n IdentityAgent {said.format(folder=tmp_path)}\n"
        dialler = make_dialler(server.known_line(), config=config)
        host = server.host(ansible_ssh_private_key_file=None)
        if lets_in:
            before = server.log.count("Failed publickey")
            assert logs_in(dialler, host)
            assert server.log.count("Failed publickey") == before
        else:
            cause = fails(dialler, host, Permanent).cause
            assert ("wrong" in cause) == (said == "SSH_AUTH_SOCK")
            assert ("no-agent does not answer: No such file or directory" in cause) == said.endswith("no-agent")
        dialler.close()


@pytest.mark.usefixtures("agent")
def test_answers_of_the_agent_are_not_mixed_up(server: Sshd) -> None:
    add_to_agent(server.client_key)
    keyring = Keyring()
    key = keyring.offers("any", (), agent=os.environ["SSH_AUTH_SOCK"])[0][0].key

    def signed(number: int) -> bool:
        data = str(number).encode()
        return bool(key.inner_key.verify_ssh_sig(data, paramiko.Message(key.sign_ssh_data(data))))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(signed, range(400)))
    keyring.close()


@pytest.mark.usefixtures("agent")
def test_a_public_half_picks_one_of_the_agents_keys(
    start_server: StartServer, make_dialler: MakeDialler, tmp_path: Path
) -> None:
    server = start_server()
    for key in (*(make_key(tmp_path / f"other{number}") for number in range(6)), server.client_key):
        add_to_agent(key)
    dialler = make_dialler(server.known_line())
    assert logs_in(dialler, server.host(ansible_ssh_private_key_file=f"{server.client_key}.pub"))
    assert server.log.count("Failed publickey") == 0
    dialler.close()


def test_an_agent_that_went_away_is_no_lost_link(
    agent: subprocess.Popen[bytes], start_server: StartServer, make_dialler: MakeDialler
) -> None:
    server = start_server()
    add_to_agent(server.client_key)
    dialler = make_dialler(server.known_line())
    host = server.host(ansible_ssh_private_key_file=None)
    assert logs_in(dialler, host)
    agent.terminate()
    agent.wait(5)
    assert "agent went away" in fails(dialler, host, Permanent).cause


def certificate(tmp_path: Path, key: Path) -> tuple[Path, str]:
    """Sign a key for this user; return the certificate, and what makes a server take it and nothing else."""
    authority = make_key(tmp_path / "authority")
    sign = ("ssh-keygen", "-q", "-s", str(authority), "-I", "user", "-n", USER, f"{key}.pub")
    subprocess.run(sign, check=True)
    return key.with_name(f"{key.name}-cert.pub"), f"TrustedUserCAKeys {authority}.pub"


KINDS = pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])


def test_a_users_certificate_goes_along(
    start_server: StartServer, make_dialler: MakeDialler, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "user")
    _, trusting = certificate(tmp_path, key)
    server = start_server(trusting, "AuthorizedKeysFile none")
    host = server.host(ansible_ssh_private_key_file=str(key))
    assert logs_in(make_dialler(server.known_line()), host)
    assert "ED25519-CERT" in server.log


@KINDS
def test_a_certificate_elsewhere_is_named_by_certificate_file(
    start_server: StartServer, make_dialler: MakeDialler, tmp_path: Path, kind: str
) -> None:
    key = make_key(tmp_path / "user", kind=kind)
    made, trusting = certificate(tmp_path, key)
    made.rename(tmp_path / "elsewhere.pub")
    server = start_server(trusting, "AuthorizedKeysFile none")
    host = server.host(ansible_ssh_private_key_file=str(key))
    dialler = make_dialler(server.known_line(), "Host *\n CertificateFile %d/elsewhere.pub\n")
    assert logs_in(dialler, host)
    assert "-CERT SHA256:" in server.log
    assert "may not log in" in fails(make_dialler(server.known_line()), host, Permanent).cause


@pytest.mark.usefixtures("agent")
@KINDS
def test_a_certificate_goes_along_with_a_key_in_the_agent(
    start_server: StartServer, make_dialler: MakeDialler, tmp_path: Path, kind: str
) -> None:
    key = make_key(tmp_path / "user", kind=kind)
    add_to_agent(key)
    made, trusting = certificate(tmp_path, key)
    key.unlink()
    server = start_server(trusting, "AuthorizedKeysFile none")
    host = server.host(ansible_ssh_private_key_file=None)
    dialler = make_dialler(server.known_line(), f"CertificateFile {made}\n")
    assert logs_in(dialler, host)
    dialler.close()


@pytest.mark.usefixtures("agent")
@KINDS
def test_a_certificate_in_the_agent(
    start_server: StartServer, make_dialler: MakeDialler, tmp_path: Path, kind: str
) -> None:
    key = make_key(tmp_path / "user", kind=kind)
    made, trusting = certificate(tmp_path, key)
    add_to_agent(key)  # takes the certificate beside it along
    made.unlink()
    server = start_server(trusting, "AuthorizedKeysFile none")
    dialler = make_dialler(server.known_line())
    assert logs_in(dialler, server.host(ansible_ssh_private_key_file=None))
    dialler.close()


def test_a_certificate_for_another_key_is_told(
    start_server: StartServer, make_dialler: MakeDialler, tmp_path: Path
) -> None:
    made, trusting = certificate(tmp_path, make_key(tmp_path / "other"))
    server = start_server(trusting, "AuthorizedKeysFile none")
    config = f"CertificateFile {made}\nCertificateFile {tmp_path}/missing\n"
    evidence = fails(make_dialler(server.known_line(), config), server.host(), Permanent).evidence
    assert f"CertificateFile {made}: none of the keys here is the one it is for" in evidence
    assert f"CertificateFile {tmp_path}/missing: No such file" in evidence


@pytest.mark.usefixtures("agent")
def test_identities_only_keeps_the_agents_other_keys_back(
    start_server: StartServer, make_dialler: MakeDialler, tmp_path: Path
) -> None:
    server = start_server()
    add_to_agent(server.client_key)
    host = server.host(ansible_ssh_private_key_file=None)
    dialler = make_dialler(server.known_line(), "IdentitiesOnly yes\n")
    assert "no key in ~/.ssh" in fails(dialler, host, Permanent).cause
    dialler.close()
    (tmp_path / ".ssh").mkdir()
    public_half = server.client_key.with_name(f"{server.client_key.name}.pub")
    (tmp_path / ".ssh/id_ed25519.pub").write_bytes(public_half.read_bytes())
    dialler = make_dialler(server.known_line(), "IdentitiesOnly yes\n")
    assert logs_in(dialler, host)
    dialler.close()
