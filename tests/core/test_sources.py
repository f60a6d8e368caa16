"""Every kind of source: read, run or refused with its place; never anything else, whatever stands in it."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetdrv import inventory, inventory_script
from fleetdrv.errors import InputError
from fleetdrv.groups import Groups
from fleetdrv.inventory import Inventory
from fleetdrv.ssh_settings import read_variables

SOME = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def write(path: Path, text: str, *, run: bool = False) -> Path:
    """Write a file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if run:
        path.chmod(0o755)
    return path


def refusal(source: Path | str) -> list[str]:
    """Return the lines of a refusal."""
    with pytest.raises(InputError) as caught:
        inventory.read(source)
    return str(caught.value).splitlines()


def names(found: Inventory) -> list[str]:
    """Return the hosts."""
    return list(found.hosts)


# ---- all faults at once, each with its place


def test_every_fault_of_an_ini_file_is_told_with_line_and_key(tmp_path: Path) -> None:
    path = write(
        tmp_path / "hosts.ini",
        "[gpu]\na x=1\nb y\nn[3-1]\n[gpu:vars]\nz\n[lost:vars]\nq=1\n[p:children]\nnobody\n[gpu:kids]\n",
    )
    assert refusal(path) == [
        f"{path}:3: [gpu] b: 'y': a variable is name=value; quote values with spaces",
        f"{path}:4: [gpu] n[3-1]: [3-1] counts down",
        f"{path}:6: [gpu:vars]: 'z': a variable is name=value",
        f"{path}:7: [lost:vars]: no such group; declare it with [lost]",
        f"{path}:10: [p:children]: no group nobody; declare it with [nobody]",
        f"{path}:11: [gpu:kids]: unknown kind of section; known: hosts, children, vars",
    ]


def test_every_fault_of_a_yaml_file_is_told_with_line_and_key(tmp_path: Path) -> None:
    text = "all:\n  hots: {}\n  hosts:\n    n[3-1]:\n    '-x': 5\n"
    text += "  children:\n    g: {vars: 3, hosts: {b: words}}\n"
    path = write(tmp_path / "hosts.yaml", text)
    assert refusal(path) == [
        f"{path}:2: all.hots: unknown; known: hosts, children, vars",
        f"{path}:4: all.hosts.n[3-1]: [3-1] counts down",
        f"{path}:5: all.hosts.-x: '-x' is no name of a host",
        f"{path}:7: all.children.g.vars: must be a mapping, found '3'",
        f"{path}:7: all.children.g.hosts.b: must be a mapping, found 'words'",
    ]


def test_every_file_of_a_folder_tells_its_faults(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "all: 5\n")
    write(tmp_path / "b.ini", "[x:vars]\ny=1\n")
    places = [line.partition(": ")[0] for line in refusal(tmp_path)]
    assert places == [f"{tmp_path}/a.yaml:1", f"{tmp_path}/b.ini:1"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("all: {hosts: {h: {x: 1, x: 2}}}", "1: x: this key stands there twice"),
        ("all: {hosts: {h: }}\nall: {hosts: {i: }}", "2: all: this key stands there twice"),
        ("all: {hosts: {? [a] : }}", "1: a key must be plain text"),
        ("all: {vars: {x: !!python/object:os.system a}}", "1: the tag tag:yaml.org,2002:python/object:os.syst"),
        ("all: &a {vars: {x: *a}}", " not YAML: line 1: an alias inside itself"),
        ("all:\n\thosts:", "2: not YAML: "),
        ("all: {vars: {x: !!int words}}", "1: cannot be read: "),
        ("plugin: aws_ec2\n", "1: plugin: aws_ec2 is one of Ansible's inventory plugins, which do not run"),
        ("$ANSIBLE_VAULT;1.1;AES256\n6162\n", "1: encrypted by ansible-vault"),
        ("all: {hosts: {'a b': }}", "1: all.hosts.a b: 'a b' is no name of a host"),
        ("all: {hosts: {'n[1-999999]': }}", "1: all.hosts.n[1-999999]: [1-999999] means more than 100000 names"),
        ("all: {hosts: {'n[1:9999999]': }}", "1: all.hosts.n[1:9999999]: [1:9999999] means more than 100000"),
        ("all: {vars: {x: " + "[" * 80 + "]" * 80 + "}}", " not YAML: line 1: an alias inside itself, or nested"),
    ],
)
def test_what_yaml_can_do_to_a_reader_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    path = write(tmp_path / "hosts.yaml", text)
    assert refusal(path)[0].startswith(f"{path}:{fault}")


def test_a_bomb_of_aliases_is_refused_before_it_grows(tmp_path: Path) -> None:
    rows = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    rows += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    path = write(tmp_path / "hosts.yaml", "all:\n  vars:\n" + "".join(f"    {row}\n" for row in rows))
    assert "more than 4000000 values, with aliases followed" in refusal(path)[0]


# ---- which format


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("hosts", "all:\n  hosts:\n    a: {\n", "not YAML"),
        ("hosts", "[gpu]\na b\n", "[gpu] a: 'b'"),
        ("hosts.prod", "all:\n  hosts:\n", "a port must follow the colon"),
        ("hosts.yml", "[gpu]\na\n", "not YAML"),
    ],
)
def test_a_fault_is_told_of_the_format_that_was_meant(tmp_path: Path, name: str, text: str, fault: str) -> None:
    assert fault in "\n".join(refusal(write(tmp_path / name, text)))


def test_a_file_that_only_looks_executable_is_read(tmp_path: Path) -> None:
    """A file share of Windows sets the x bit on everything."""
    assert names(inventory.read(write(tmp_path / "hosts.yaml", "all: {hosts: {a: }}", run=True))) == ["a"]


# ---- NodeSets, lists, variables


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hosts.yaml", "all: {children: {gpu: {hosts: {'gpu-[001-003,7-8]:2222': {x: 1}}}}}"),
        ("hosts.ini", "[gpu]\ngpu-[001-003,7-8]:2222 x=1\n"),
    ],
)
def test_a_nodeset_names_hosts_where_ansible_has_no_word_for_them(tmp_path: Path, name: str, text: str) -> None:
    found = inventory.read(write(tmp_path / name, text))
    assert names(found) == ["gpu-001", "gpu-002", "gpu-003", "gpu-7", "gpu-8"]
    assert {str(host.variables) for host in found.hosts.values()} == {str({"ansible_port": 2222, "x": 1})}


def test_hosts_can_be_listed_on_the_command_line() -> None:
    found = inventory.read("login:2222,gpu-[01-02],web[a:b],[2001:db8::1]:22")
    assert names(found) == ["login", "gpu-01", "gpu-02", "weba", "webb", "2001:db8::1"]
    assert found.hosts["login"].variables == {"ansible_port": 2222}
    assert len(found.group("all")) == 6
    assert refusal("a,b[5-2],c[x-y],") == [
        "--inventory b[5-2]: [5-2] counts down",
        "--inventory c[x-y]: [x-y] is no range; write [1-9], [001-128], [1-9/2], [1-5,9]",
    ]
    assert refusal(",") == [",: no hosts"]
    assert refusal("") == ["no inventory: name one with --inventory FILE"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("h.yaml", "all: {hosts: {h: {node_name: 007, ansible_host: 10.10, ansible_user: on}}}"),
        ("h.ini", "h node_name=007 ansible_host=10.10 ansible_user=True\n"),
    ],
)
def test_names_stay_text_as_written(tmp_path: Path, name: str, text: str) -> None:
    host = inventory.read(write(tmp_path / name, text)).hosts["h"]
    assert (host.node_name, host.variables["ansible_host"]) == ("007", "10.10")
    assert host.variables["ansible_user"] in ("on", "True")


def test_the_old_names_of_variables_count_where_the_new_are_silent(tmp_path: Path) -> None:
    text = """\
all:
  vars: {ansible_ssh_user: admin, ansible_ssh_port: 2022, ansible_ssh_private_key_file: /keys/fleet}
  hosts:
    old: {ansible_ssh_host: 10.0.0.1}
    new: {ansible_ssh_host: 10.0.0.1, ansible_host: 10.0.0.2, ansible_port: 22, ansible_user: root}
"""
    hosts = inventory.read(write(tmp_path / "hosts.yaml", text)).hosts
    old, new = read_variables(hosts["old"]), read_variables(hosts["new"])
    assert (old.name, old.user, old.port) == ("10.0.0.1", "admin", 2022)
    assert old.identity_files == (Path("/keys/fleet"),)
    assert (new.name, new.user, new.port) == ("10.0.0.2", "root", 22)


def test_what_ansible_vault_encrypted_is_told_and_never_used(tmp_path: Path) -> None:
    path = write(tmp_path / "hosts.yaml", "all: {hosts: {h: {secret: !vault \"$ANSIBLE_VAULT;1.1\", x: 1}}}")
    vault = write(tmp_path / "group_vars/all/vault.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    write(tmp_path / "group_vars/all/plain.yml", "y: 2\n")
    noted: list[str] = []
    variables = inventory.read(path, noted.append).hosts["h"].variables
    assert noted == [f"{vault}: encrypted by ansible-vault: what it says is not known here"]
    assert (variables["x"], variables["y"]) == (1, 2)
    assert not isinstance(variables["secret"], str)


def test_a_file_of_variables_is_refused_at_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "hosts.ini", "[gpu]\nh\n")
    bad = write(tmp_path / "group_vars/gpu.yml", "x: 1\n- y\n")
    assert refusal(path)[0].startswith(f"{bad}:2: not YAML")
    write(bad, "# only\n- words\n")
    assert refusal(path) == [f"{bad}:2: must be a mapping of variables"]


def test_a_hosts_name_leads_to_no_file_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "secret.yml", "x: taken\n")
    (tmp_path / "inv" / "host_vars").mkdir(parents=True)
    found = inventory.read(write(tmp_path / "inv/hosts.yaml", "all: {hosts: {../../secret: }}"))
    assert found.hosts["../../secret"].variables == {}


# ---- executables


def test_what_a_script_says_on_stderr_is_told(tmp_path: Path) -> None:
    text = "#!/bin/sh\necho 'token expires soon' >&2\necho '{\"gpu\": [\"a\"]}'\n"
    path = write(tmp_path / "cloud", text, run=True)
    noted: list[str] = []
    assert names(inventory.read(path, noted.append)) == ["a"]
    assert noted == [f"{path}: token expires soon"] * 2  # --list, and --host for want of _meta


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("echo 'no credentials' >&2\nexit 7", "--list: exit code 7\n  | no credentials"),
        ("exit 7", "--list: exit code 7, and said nothing"),
        ("kill -TERM $$", "--list: exit code -15, and said nothing"),
        ("echo '{'", "--list: printed no JSON: line 2: Expecting property name"),
        ("printf '\\377'", "--list: printed what is not UTF-8"),
        ("echo '[]'", "--list: must print a mapping of groups, found []"),
        ('echo \'{"g": {"hosts": [5, ""]}, "h": {"vars": 3}}\'', "--list: g.hosts: must hold names, found 5"),
        ('echo \'{"g": {"hosts": [5, ""]}, "h": {"vars": 3}}\'', "--list: h.vars: must be a mapping, found 3"),
        ('echo \'{"a": {"children": ["a"]}}\'', "--list: a: a and a are groups that are each other's children"),
        ('[ "$1" = --list ] && echo \'{"g": ["h"]}\' || exit 3', "--host h: exit code 3"),
        ('[ "$1" = --list ] && echo \'{"g": ["h"]}\' || echo 5', "_meta.hostvars.h: must be a mapping, found 5"),
        ("echo '" + "[" * 3000 + "'", "printed no JSON"),
    ],
)
def test_a_script_that_fails_is_told_in_its_own_words(tmp_path: Path, body: str, fault: str) -> None:
    path = write(tmp_path / "cloud.sh", f"#!/bin/sh\n{body}\n", run=True)
    assert fault in "\n".join(refusal(path))


def test_a_program_that_cannot_start_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "cloud.sh", "#!/no/such/interpreter\n", run=True)
    assert refusal(path) == [f"{path} --list: cannot be run: No such file or directory"]


def test_a_script_that_hangs_is_ended_with_all_its_children(tmp_path: Path) -> None:
    path = write(tmp_path / "cloud.sh", "#!/bin/sh\nsleep 600 &\necho $! >\"$0.child\"\nsleep 600\n", run=True)
    with pytest.raises(InputError, match=re.escape(f"{path} --list: gave no answer within 1 s; ended")):
        inventory_script.gather(path, Groups(), lambda _: None, seconds=1.0)
    child = int((tmp_path / "cloud.sh.child").read_text())
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "State:\tZ" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.05)
    pytest.fail("its child lives on")


def test_a_script_leaves_nothing_running_and_no_pipe_open(tmp_path: Path) -> None:
    text = "#!/bin/sh\necho '{\"g\": [\"h\"], \"_meta\": {\"hostvars\": {}}}'\n"
    path = write(tmp_path / "cloud.sh", text, run=True)
    before = set(os.listdir("/proc/self/fd"))
    assert names(inventory.read(path)) == ["h"]
    assert set(os.listdir("/proc/self/fd")) == before


# ---- whatever stands in it

YAMLISH = st.text(alphabet="all:hostsvrcden {}[],'\"\n -&*!<>|#?=5\t~", max_size=120)
INIISH = st.text(alphabet="[gpu:childrenvas]= \n#;'\"\\x5-,/01{}()", max_size=120)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(("h", "g", "h[1:3]", "", "x")),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(("all", "g", "hosts", "children", "vars", "_meta", "hostvars", "h")), inner),
    max_leaves=12,
)


@SOME
@given(YAMLISH | INIISH | st.text(max_size=60) | JSON.map(json.dumps), st.sampled_from(("", ".yaml", ".ini")))
def test_any_text_is_an_inventory_or_refused(tmp_path: Path, text: str, suffix: str) -> None:
    path = tmp_path / f"hosts{suffix}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with suppress(InputError):
        assert inventory.read(path).group("all")


@SOME
@given(st.binary(max_size=80), st.sampled_from(("", ".yaml", ".ini", ".json")))
def test_any_bytes_are_an_inventory_or_refused(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"hosts{suffix}"
    path.write_bytes(data)
    with suppress(InputError):
        assert inventory.read(path).group("all")


@SOME
@given(JSON)
def test_any_answer_of_a_script_is_an_inventory_or_refused(said: object) -> None:
    groups = Groups()
    with suppress(InputError):
        inventory_script._Reader(Path("cloud"), groups, lambda _: {}).read(said)
        groups.hosts()


@SOME
@given(st.text(max_size=30) | st.text(alphabet="n[]-,:/019a", max_size=15).map("{},".format))
def test_any_argument_is_an_inventory_or_refused(text: str) -> None:
    with suppress(InputError):
        assert inventory.read(f"no-such-file-{text}")
