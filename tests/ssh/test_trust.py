"""`fleetdrv trust` against real servers, and its writing against ssh-keygen and other writers."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ssh_server import Sshd, make_key, public

from fleetdrv import names
from fleetdrv.known_hosts import Verdict
from fleetdrv.known_hosts_file import Addition, append
from fleetdrv.main import program
from tests.fakes.cluster import FakeCluster
from tests.fixtures_cluster import node_object

pytestmark = pytest.mark.usefixtures("leaks_nothing")
StartServer = Callable[..., Sshd]
Ended = tuple[int, str, str]
Run = Callable[..., Ended]


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "known_hosts"


@pytest.fixture
def run(tmp_path: Path, known: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `trust` over an inventory of the given hosts: name to variables."""

    def call(hosts: dict[str, dict[str, Any]], *words: str, options: str = "") -> Ended:
        common = f"{options} -o UserKnownHostsFile={known} -o GlobalKnownHostsFile=none -o HashKnownHosts=no"
        group = {"hosts": hosts, "vars": {"ansible_ssh_common_args": common}}
        inventory = tmp_path / "hosts.yaml"
        inventory.write_text(json.dumps({"gpu": group}))
        with pytest.raises(SystemExit) as ended:
            program.run(["fleetdrv", "trust", "-i", str(inventory), *words])
        out, errors = capsys.readouterr()
        return int(str(ended.value.code)), out, errors

    return call


def at(server: Sshd, **more: object) -> dict[str, Any]:
    return {"ansible_host": "127.0.0.1", "ansible_port": server.port, **more}


def test_an_unknown_key_is_added_for_good_and_only_once(run: Run, known: Path, server: Sshd) -> None:
    code, out, _ = run({"n1": at(server)}, "--yes")
    listed = subprocess.run(("ssh-keygen", "-lf", str(server.host_keys[0])), capture_output=True, text=True)
    assert code == 0, out
    assert listed.stdout.split()[1] in out
    assert known.read_text() == server.known_line()
    assert stat.S_IMODE(known.stat().st_mode) == 0o600
    code, out, _ = run({"n1": at(server)}, "--yes")
    assert (code, out) == (0, "1 known\n")
    assert known.read_text() == server.known_line()


def test_without_a_yes_and_a_terminal_nothing_is_added(
    run: Run, known: Path, server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115
    code, out, _ = run({"n1": at(server)})
    sys.stdin.close()
    assert code == 2
    assert "nothing was added" in out
    assert not known.exists()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 3), ("\n", 3)])
def test_on_a_terminal_the_operator_is_asked(
    run: Run, known: Path, server: Sshd, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, answer.encode())
    os.close(theirs)
    monkeypatch.setattr("fleetdrv.passwords.on_terminal", lambda: True)
    with open(ours) as typed:
        monkeypatch.setattr(sys, "stdin", typed)
        ended, out, errors = run({"n1": at(server)})
    assert ended == code
    assert "[y/N]" in errors
    assert out.index("SHA256:") >= 0
    assert known.exists() == (code == 0)


def test_a_changed_key_is_shown_and_never_replaced(
    run: Run, known: Path, server: Sshd, start_server: StartServer, tmp_path: Path
) -> None:
    other, old = start_server(), make_key(tmp_path / "old")
    known.parent.mkdir()
    before = "# mine\n" + server.known_line(old)
    known.write_text(before)
    code, out, _ = run({"n1": at(server), "n2": at(other)}, "--yes")
    assert code == 4
    assert known.read_text() == before + other.known_line()
    for key in (old, server.host_keys[0]):
        shown = subprocess.run(("ssh-keygen", "-lf", str(key)), capture_output=True, text=True).stdout
        assert shown.split()[1] in out
    assert f"{known}:2" in out
    remedy = out[out.index("ssh-keygen -f") :].splitlines()[0]
    subprocess.run(remedy, shell=True, check=True, capture_output=True)
    assert run({"n1": at(server), "n2": at(other)}, "--yes")[0] == 0
    assert server.known_line() in known.read_text()


def test_a_revoked_key_stays_revoked(run: Run, known: Path, server: Sshd) -> None:
    known.parent.mkdir()
    known.write_text(f"@revoked * {public(server.host_keys[0])}\n")
    code, out, _ = run({"n1": at(server)}, "--yes")
    assert code == 4
    assert "is revoked by" in out
    assert len(known.read_text().splitlines()) == 1


def test_hashed_names_where_the_user_wants_them(run: Run, known: Path, server: Sshd) -> None:
    assert run({"n1": at(server)}, "--yes", options="-o HashKnownHosts=yes")[0] == 0
    assert "127.0.0.1" not in known.read_text()
    name = f"[127.0.0.1]:{server.port}"
    subprocess.run(("ssh-keygen", "-F", name, "-f", str(known)), check=True, capture_output=True)
    assert run({"n1": at(server)}, "--yes")[0] == 0
    assert len(known.read_text().splitlines()) == 1


def test_one_key_on_many_hosts_is_one_line_and_a_warning(run: Run, known: Path, server: Sshd) -> None:
    alias = {name: {"ansible_ssh_extra_args": f"-o HostKeyAlias={name}"} for name in ("n1", "n2", "n3")}
    code, out, _ = run({name: at(server, **more) for name, more in alias.items()}, "--yes")
    assert code == 0
    assert "1 host key not known yet" in out
    assert "n1, n2, n3" in out
    assert "the same key on 3 hosts" in out
    assert sorted(line.split()[0] for line in known.read_text().splitlines()) == ["n1", "n2", "n3"]


def test_an_unreachable_host_does_not_keep_the_others(
    run: Run, server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetdrv.trust.CONNECT_SECONDS", 1.0)
    code, out, _ = run({"n1": {"ansible_host": "127.0.0.1", "ansible_port": 1}, "n2": at(server)}, "--yes")
    assert code == 4
    assert "1 added" in out
    assert "n1: connect:" in out


def test_a_bastion_comes_before_the_nodes_behind_it(
    run: Run, known: Path, start_server: StartServer, tmp_path: Path
) -> None:
    bastion = start_server()
    node = start_server(accept=bastion.client_key)
    jump = f"-o ProxyJump=root@127.0.0.1:{bastion.port} -o IdentityFile={bastion.client_key}"
    (tmp_path / ".ssh").mkdir()
    key = tmp_path / ".ssh/id_ed25519"  # jump hosts have the user's own keys
    key.write_bytes(bastion.client_key.read_bytes())
    key.chmod(0o600)
    (tmp_path / ".ssh/config").write_text(f"Host *\n  UserKnownHostsFile {known}\n  HashKnownHosts no\n")
    code, out, _ = run({"n1": at(node)}, "--yes", options=jump)
    assert code == 0, out
    assert known.read_text() == bastion.known_line() + node.known_line()


def test_json_is_one_document(run: Run, known: Path, server: Sshd) -> None:
    code, out, _ = run({"n1": at(server)}, "--json")
    document = json.loads(out)
    (host,) = document["hosts"]
    assert (code, document["command"], host["state"], host["hosts"]) == (2, "trust", "new", ["n1"])
    assert host["fingerprint"].startswith("SHA256:")
    assert not known.exists()
    assert json.loads(run({"n1": at(server)}, "--json", "--yes")[1])["hosts"][0]["state"] == "added"


def _write(path: Path, numbers: range) -> None:
    for number in numbers:
        append(path, [Addition(host=f"n{number}", port=22, name=f"n{number}", blob=_blob(number))])


def _blob(number: int) -> bytes:
    return b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + number.to_bytes(32)


def test_many_writers_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("# no newline at the end")
    code = "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import test_trust as t; "
    code += "t._write(Path(sys.argv[2]), range(int(sys.argv[3]), int(sys.argv[4])))"
    started = [
        subprocess.Popen((sys.executable, "-c", code, Path(__file__).parent, path, str(first), str(last)))
        for first, last in ((0, 60), (0, 60), (30, 90), (30, 90))
    ]
    assert [writer.wait(60) for writer in started] == [0, 0, 0, 0]
    lines = path.read_text().splitlines()
    assert lines[0] == "# no newline at the end"
    assert sorted(line.split()[0] for line in lines[1:]) == sorted(f"n{number}" for number in range(90))


def test_another_key_that_came_meanwhile_is_told_and_left(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    _write(path, range(1))
    late = Addition(host="n0", port=22, name="n0", blob=_blob(7))
    refused = append(path, [late])
    assert refused[late].verdict is Verdict.CHANGED
    assert len(path.read_text().splitlines()) == 1


def test_the_clusters_own_nodes_are_asked_for(
    tmp_path: Path, known: Path, server: Sshd, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-i k8s:` names no host by itself: it must not turn into "nothing to do"."""
    fake = FakeCluster()
    for name, labels in (("g1", {"gpu": "yes"}), ("cp", {})):
        made = json.loads(json.dumps(node_object(name, labels)))
        made["metadata"]["annotations"] = {names.ADDRESS: "127.0.0.1"}
        fake.create(made)
    monkeypatch.setattr("fleetdrv.everyone.open_cluster", lambda *_: fake)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text(f"Port {server.port}\nUserKnownHostsFile {known}\nHashKnownHosts no\n")
    with pytest.raises(SystemExit) as ended:
        program.run(["fleetdrv", "trust", "-i", "k8s:gpu=yes", "--yes", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (ended.value.code, [host["hosts"] for host in document["hosts"]]) == (0, [["g1"]])
    assert known.read_text() == server.known_line()
    with pytest.raises(SystemExit) as ended:
        program.run(["fleetdrv", "trust", "-i", "k8s:gpu=no"])
    assert ended.value.code == 3
    assert "no Node is so labelled" in capsys.readouterr().err
