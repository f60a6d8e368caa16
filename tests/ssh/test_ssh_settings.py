"""What the inventory and ~/.ssh/config say, and which of them wins."""

from __future__ import annotations

import doctest
import os
import pwd
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetdrv import ssh_tokens
from fleetdrv.errors import InputError
from fleetdrv.model import Host
from fleetdrv.ssh import Dialler
from fleetdrv.ssh_config import FleetSSHConfig, read_config
from fleetdrv.ssh_config_file import _parsed
from fleetdrv.ssh_settings import Asked, Target, _proxy, jump_hosts, read_variables

MakeDialler = Callable[..., Dialler]


def host(name: str = "gpu-01", **variables: object) -> Host:
    return Host(name=name, node_name=name, variables=variables)


def target(dialler: Dialler, **variables: object) -> Target:
    return dialler._resolve(host(**variables))[1]


CONFIG = """
Host gpu-01
    HostName 10.0.0.1
    Port 2222
    User admin
    IdentityFile ~/.ssh/gpu
    HostKeyAlias gpu-one
    UserKnownHostsFile ~/known1 ~/known2
    ConnectTimeout 3
"""


def test_without_a_word_the_defaults_hold(make_dialler: MakeDialler) -> None:
    found = target(make_dialler())
    assert (found.address, found.port, found.key_name) == ("gpu-01", 22, "gpu-01")
    assert found.jump is None
    assert found.identity_files == ()
    assert found.user_known_hosts is None


def test_the_ssh_config_is_followed(make_dialler: MakeDialler, tmp_path: Path) -> None:
    found = target(make_dialler(config=CONFIG))
    assert str(found) == "admin@10.0.0.1:2222"
    assert found.identity_files == (tmp_path / ".ssh/gpu",)
    assert found.key_name == "gpu-one"
    assert found.user_known_hosts == (tmp_path / "known1", tmp_path / "known2")
    assert found.connect_seconds == 3
    assert found.key_port == 22


def test_tokens_in_names_of_files(make_dialler: MakeDialler, tmp_path: Path) -> None:
    text = "Host *\n UserKnownHostsFile ~/known.d/%k-%p-%r-%%\n User u\n"
    assert target(make_dialler(config=text)).user_known_hosts == (tmp_path / "known.d/gpu-01-22-u-%",)


def test_the_inventory_wins(make_dialler: MakeDialler) -> None:
    found = target(
        make_dialler(config=CONFIG + "Host 10.9.9.9\n User other\n Port 9\n"),
        ansible_host="10.9.9.9",
        ansible_port="2200",
        ansible_user="root",
        ansible_ssh_private_key_file="/keys/mine",
    )
    assert str(found) == "root@10.9.9.9:2200"
    assert found.identity_files == (Path("/keys/mine"),)


def test_the_address_is_looked_up_as_ssh_would(make_dialler: MakeDialler) -> None:
    found = target(make_dialler(config="Host 10.0.0.*\n User fleet\n"), ansible_host="10.0.0.7")
    assert str(found) == "fleet@10.0.0.7:22"


def test_old_names_of_variables(make_dialler: MakeDialler) -> None:
    found = target(make_dialler(), ansible_ssh_host="a", ansible_ssh_port=7, ansible_ssh_user="u")
    assert str(found) == "u@a:7"


def test_ipv6(make_dialler: MakeDialler) -> None:
    found = target(make_dialler(), ansible_host="fe80::1%eth0", ansible_user="u")
    assert (found.address, str(found)) == ("fe80::1%eth0", "u@[fe80::1%eth0]:22")


def test_hosts_do_not_share_what_fabric_would_pile_up(make_dialler: MakeDialler) -> None:
    """Fabric appends IdentityFile to one shared dict: N hosts, N keys for each."""
    dialler = make_dialler(config="Host *\n IdentityFile ~/.ssh/one\n")
    assert [len(target(dialler).identity_files) for _ in range(3)] == [1, 1, 1]


def test_a_connection_leaves_the_shared_config_alone(
    make_dialler: MakeDialler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invoke empties and merges a config on every write, while other threads read it."""
    dialler = make_dialler()
    monkeypatch.setattr("invoke.config.Config.merge", lambda _: pytest.fail("the shared config was written"))
    connection, _ = dialler._resolve(host())
    connection.dial = None
    connection.transport = None


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ("-o ProxyJump=b", {"proxyjump": "b"}),
        ("-oProxyJump=b", {"proxyjump": "b"}),
        ("-o 'ProxyJump b'", {"proxyjump": "b"}),
        ("-J u@b:22", {"proxyjump": "u@b:22"}),
        ("-J first -o ProxyJump=second", {"proxyjump": "first"}),
        ("-o UserKnownHostsFile='/a /b'", {"userknownhostsfile": "/a /b"}),
        ("-o IdentitiesOnly=yes", {"identitiesonly": "yes"}),
    ],
)
def test_arguments_of_ssh(arguments: str, options: dict[str, str]) -> None:
    assert read_variables(host(ansible_ssh_common_args=arguments)).options == options


def test_arguments_that_are_variables_too() -> None:
    asked = read_variables(host(ansible_ssh_common_args="-p 7 -l u -i /a", ansible_ssh_extra_args="-i /b"))
    assert (asked.port, asked.user, asked.identity_files) == (7, "u", (Path("/a"), Path("/b")))


def test_what_is_not_followed_is_said_once_for_all_hosts(make_dialler: MakeDialler, notes: list[str]) -> None:
    dialler = make_dialler()
    for name in ("a", "b"):
        arguments = "-o ControlMaster=auto -C -o StrictHostKeyChecking=no"
        dialler._resolve(host(name, ansible_ssh_common_args=arguments, ansible_password="secret"))
    assert notes == [
        "ansible_ssh_common_args: -o ControlMaster=auto is ignored",
        "ansible_ssh_common_args: -C is ignored",
        "StrictHostKeyChecking=no is not followed: host keys are always verified",
        "ansible_password is not used: log-in is by key only",
    ]


@pytest.mark.parametrize("arguments", ["-o", "--bogus", "-o 'unclosed"])
def test_arguments_that_ssh_would_not_take_either(arguments: str) -> None:
    with pytest.raises(InputError, match="gpu-01: ansible_ssh_common_args"):
        read_variables(host(ansible_ssh_common_args=arguments))


@pytest.mark.parametrize(
    ("text", "hops"),
    [
        ("none", []),
        ("b", [("", "b", None)]),
        ("u@b:2222", [("u", "b", 2222)]),
        ("ssh://u@b:2222", [("u", "b", 2222)]),
        ("[fe80::1]:22", [("", "fe80::1", 22)]),
        ("fe80::1", [("", "fe80::1", None)]),
        ("a, u@b", [("", "a", None), ("u", "b", None)]),
    ],
)
def test_jumps(text: str, hops: list[tuple[str, str, int | None]]) -> None:
    found = jump_hosts(Asked(name="node"), {"proxyjump": text})
    assert [(hop.user, hop.name, hop.port) for hop in found] == hops


def test_the_inventory_may_say_that_there_is_no_jump(make_dialler: MakeDialler) -> None:
    dialler = make_dialler(config="Host *\n ProxyJump bastion\n")
    assert target(dialler).jump is not None
    assert target(dialler, ansible_ssh_common_args="-o ProxyJump=none").jump is None


def test_included_files_count(make_dialler: MakeDialler, tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/a").write_text("Host gpu-01\n User from-a\n")
    (tmp_path / "conf.d/b").write_text("Host gpu-01\n User from-b\n Port 5\n")
    dialler = make_dialler(config="Include conf.d/*\nUser everybody\nHost gpu-01\n Port 6\n")
    assert str(target(dialler)) == "from-a@gpu-01:5"
    assert str(dialler._resolve(host("other"))[1]) == "everybody@other:22"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("User u\nInclude ssh_config\n", 2),
        ("Port\n", 1),
        ("Match host\n", 1),
        ("User u\n\nMatch\n", 3),
        ('Host "a\n', 1),
    ],
)
def test_a_config_that_cannot_be_followed_is_an_input_error(
    make_dialler: MakeDialler, text: str, line: int
) -> None:
    with pytest.raises(InputError, match=f"ssh_config:{line}: "):
        make_dialler(config=text)


def test_a_file_included_in_a_block_counts_where_the_block_does(
    make_dialler: MakeDialler, tmp_path: Path
) -> None:
    (tmp_path / "inner").write_text("User inner\nHost gpu-02\n Port 2\nMatch all\n HostKeyAlias inside\n")
    text = "Host gpu-*\n Include inner\n IdentityFile /gpu\nHost *\n User others\n Port 9\n"
    dialler = make_dialler(config=text)
    found = {name: dialler._resolve(host(name))[1] for name in ("gpu-01", "gpu-02", "cpu-01")}
    assert [str(each) for each in found.values()] == ["inner@gpu-01:9", "inner@gpu-02:2", "others@cpu-01:9"]
    assert [each.key_name for each in found.values()] == ["inside", "inside", "cpu-01"]
    assert [len(each.identity_files) for each in found.values()] == [1, 1, 0]


def test_a_match_is_judged_where_it_stands_also_for_a_file_that_it_includes(
    make_dialler: MakeDialler, tmp_path: Path
) -> None:
    (tmp_path / "inner").write_text("Host *\n HostName node-1\nHost *\n Port 7\n")
    dialler = make_dialler(config="Match host gpu-01\n Include inner\nMatch host gpu-01\n User late\n")
    assert (target(dialler).address, target(dialler).port) == ("node-1", 7)
    assert target(dialler).user != "late"


def test_a_match_that_is_not_followed_is_named_with_its_line_where_it_matters(make_dialler: MakeDialler) -> None:
    dialler = make_dialler(config="User u\nMatch host work-* exec true\n User other\n")
    assert str(target(dialler)) == "u@gpu-01:22"
    with pytest.raises(InputError, match=r"ssh_config:2: Match exec is not followed here, and work-1 depends"):
        dialler._resolve(host("work-1"))


def test_the_inventorys_user_is_the_one_that_match_user_sees(make_dialler: MakeDialler) -> None:
    dialler = make_dialler(config="Match user fleet\n Port 7\n")
    assert target(dialler, ansible_user="fleet").port == 7
    assert target(dialler, ansible_user="root").port == 22


def test_a_missing_config_is_an_error_only_when_it_was_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_config(tmp_path / "none")
    read_config(None)


HEADS = [
    *("Host a", "Host a b", "Host *", "Host a* !ab", "Host b", "Host B", "Match all"),
    *("Match host b", "Match host h*", "Match host a,!ab", "Match originalhost a*", "Match !originalhost a"),
    *("Match user u1", "Match final host h*", "Match final", "Match final all", "Match host A"),
]
BODIES = [
    *("User u{n}", "Port {n}", "Port {n} # a comment", "HostName h{n}", "HostName %h.example"),
    *("IdentityFile /k{n}", "CertificateFile /c{n}", "Include more"),
    *("ProxyJump j{n}", "ProxyJump none", "ProxyCommand p{n} %h", "ProxyCommand none", 'ProxyCommand "p" "{n}"'),
]
BLOCKS = st.lists(st.tuples(st.sampled_from(HEADS), st.lists(st.sampled_from(BODIES), min_size=1)), max_size=6)


def written(blocks: list[tuple[str, list[str]]], first: int) -> str:
    lines = []
    for number, (head, bodies) in enumerate(blocks, first):
        lines += [head, *(f" {body.format(n=number)}" for body in bodies)]
    return "\n".join(lines)


@settings(deadline=None)
@given(BLOCKS, st.sampled_from(["a", "b", "ab", "c"]))
def test_the_index_changes_no_answer(blocks: list[tuple[str, list[str]]], name: str) -> None:
    nowhere = Path("/nowhere")
    read = list(_parsed(written(blocks, 1).splitlines(), nowhere / "ssh_config", nowhere, (), 0))
    indexed, plain = FleetSSHConfig(read), FleetSSHConfig(read)
    plain._by_name = {"": plain._blocks}
    assert indexed.lookup(name) == plain.lookup(name)


@pytest.mark.parametrize(
    "said",
    ["", "none", "SSH_AUTH_SOCK", "$FLEET_AGENT", "$NOT_SET", "~/%n-%h-%p-%r", "${HOME}/%%d", "/run/%i/%u/%k"],
)
def test_the_same_agent_as_ssh_asks(
    said: str, make_dialler: MakeDialler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ssh shows `none` and the names of variables as they stand there; its ssh.c then does what is done here."""
    monkeypatch.setenv("HOME", pwd.getpwuid(os.getuid()).pw_dir)  # ssh asks there, whatever HOME says
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/usual")
    monkeypatch.setenv("FLEET_AGENT", "/run/fleet")
    text = f"Host gpu-01\n HostName node\n Port 7\n User u\n{f' IdentityAgent {said}' if said else ''}\n"
    (tmp_path / "told").write_text(text)
    words = ("ssh", "-G", "-F", str(tmp_path / "told"), "gpu-01")
    told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    shown = next((line[14:] for line in told.stdout.splitlines() if line.startswith("identityagent ")), said)
    usual = dict.fromkeys(("", "SSH_AUTH_SOCK"), "/run/usual")
    meant = {**usual, "$FLEET_AGENT": "/run/fleet", "$NOT_SET": "", "none": ""}
    assert target(make_dialler(config=text)).agent == meant.get(shown, shown)
    inventory = target(make_dialler(config=""), ansible_ssh_common_args="-o IdentityAgent=/run/other")
    assert inventory.agent == "/run/other"


@settings(max_examples=25, deadline=None)
@given(BLOCKS, BLOCKS, st.sampled_from(["a", "b", "ab", "c"]))
def test_the_same_answers_as_ssh_gives(
    tmp_path_factory: pytest.TempPathFactory,
    blocks: list[tuple[str, list[str]]],
    more: list[tuple[str, list[str]]],
    name: str,
) -> None:
    folder = tmp_path_factory.mktemp("config")
    path, other = folder / "ssh_config", folder / "more"
    path.write_text(written(blocks, 1).replace("Include more", f"Include {other}"))
    other.write_text(written(more, 11).replace("Include more", "Compression no"))
    told = subprocess.run(("ssh", "-G", "-F", str(path), name), capture_output=True, text=True, check=True)
    said: dict[str, list[str]] = {}
    for line in told.stdout.splitlines():
        key, _, value = line.partition(" ")
        said.setdefault(key, []).append(value)
    found = read_config(path).base_ssh_config.lookup(name)
    assert [found["hostname"]] == said["hostname"]
    assert [found.get("port", "22")] == said["port"]
    assert [found.get("user", said["user"][0])] == said["user"]
    assert found.get("certificatefile", []) == said.get("certificatefile", [])
    assert "identityfile" not in found or found["identityfile"] == said["identityfile"]
    kind, value = _proxy(Asked(name=name), found)
    ours = {} if value in ("", "none") else {kind: [value]}
    theirs = {k: v for k, v in said.items() if k in ("proxyjump", "proxycommand") and v != ["none"]}
    assert ours == theirs


def test_what_the_docstrings_show() -> None:
    assert doctest.testmod(ssh_tokens).failed == 0
