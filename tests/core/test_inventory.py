"""An inventory is read as Ansible reads it, and a selection never means more or less than was said."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv import inventory
from fleetdrv.errors import InputError
from fleetdrv.inventory import Inventory
from fleetdrv.model import Host
from fleetdrv.patterns import limit
from tests.core.strategies import some

NESTED = """\
all:
  vars: {colour: red, shape: round}
  hosts:
    lone:
  children:
    gpu:
      vars: {colour: blue}
      hosts:
        gpu-1: {ansible_host: 10.0.0.1, node_name: node-a}
        gpu-2: {colour: green}
      children:
        old:
          vars: {colour: grey}
          hosts: {gpu-3: }
    web:
      hosts: {web-1: }
"""


def read(folder: Path, text: str) -> Inventory:
    """Write an inventory and read it."""
    path = folder / "inventory.yaml"
    path.write_text(text)
    return inventory.read(path)


def refusal(folder: Path, text: str) -> str:
    """Return why an inventory is refused, without its path."""
    with pytest.raises(InputError) as caught:
        read(folder, text)
    said = str(caught.value)
    assert said.startswith(f"{folder}/inventory.yaml:")
    return said.removeprefix(f"{folder}/inventory.yaml:")


def test_hosts_are_found_with_all_their_groups(tmp_path: Path) -> None:
    found = read(tmp_path, NESTED)
    assert {name: sorted(host.groups) for name, host in found.hosts.items()} == {
        "lone": ["all", "ungrouped"],
        "gpu-1": ["all", "gpu"],
        "gpu-2": ["all", "gpu"],
        "gpu-3": ["all", "gpu", "old"],
        "web-1": ["all", "web"],
    }
    assert [host.name for host in found.group("gpu")] == ["gpu-1", "gpu-2", "gpu-3"]
    assert len(found.group("all")) == 5
    assert found.path == tmp_path / "inventory.yaml"


def test_the_nearest_group_wins_and_the_hosts_own_word_over_all(tmp_path: Path) -> None:
    hosts = read(tmp_path, NESTED).hosts
    colours = {name: host.variables["colour"] for name, host in hosts.items()}
    assert colours == {"lone": "red", "gpu-1": "blue", "gpu-2": "green", "gpu-3": "grey", "web-1": "red"}
    assert {host.variables["shape"] for host in hosts.values()} == {"round"}
    assert hosts["gpu-1"].variables["ansible_host"] == "10.0.0.1"


def test_a_host_is_the_node_of_its_own_name_unless_it_says_another(tmp_path: Path) -> None:
    hosts = read(tmp_path, NESTED).hosts
    assert (hosts["gpu-1"].node_name, hosts["gpu-2"].node_name) == ("node-a", "gpu-2")


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_of_two_equal_groups_the_later_in_the_alphabet_wins(tmp_path: Path, order: str) -> None:
    groups = {"a": "a: {vars: {x: from-a}, hosts: {h: }}\n", "b": "b: {vars: {x: from-b}, hosts: {h: }}\n"}
    host = read(tmp_path, "".join(groups[name] for name in order)).hosts["h"]
    assert host.variables["x"] == "from-b"
    assert host.groups == {"all", "a", "b"}


def test_a_host_named_twice_is_one_host(tmp_path: Path) -> None:
    found = read(tmp_path, "a: {hosts: {h: {x: '1'}}}\nb: {hosts: {h: {y: '2'}, i: }}\n")
    assert list(found.hosts) == ["h", "i"]
    assert found.hosts["h"].variables == {"x": "1", "y": "2"}


def test_a_name_of_digits_is_a_name(tmp_path: Path) -> None:
    assert list(read(tmp_path, "all: {hosts: {101: , 102: }}").hosts) == ["101", "102"]


def test_a_group_is_one_group_wherever_it_is_named(tmp_path: Path) -> None:
    """Ansible's usual style: hosts in one place, the hierarchy in another. A pool must not lose nodes by it."""
    text = "all: {children: {gpu: {hosts: {a: , b: }}, prod: {vars: {x: y}, children: {gpu: }}}}\n"
    found = read(tmp_path, text)
    assert [host.name for host in found.group("prod")] == ["a", "b"]
    assert found.hosts["a"].variables["x"] == "y"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1: an inventory is a mapping of groups"),
        ("{}", "1: an inventory is a mapping of groups"),
        ("[a, b]", "1: an inventory is a mapping of groups"),
        ("all: {hosts: }\n", " no hosts"),
        ("all:\n  hots: {a: }\n", "2: all.hots: unknown; known: hosts, children, vars"),
        ("all:\n  children:\n    gpu:\n      a: {}\n", "4: gpu.a: unknown; known: hosts, children, vars"),
        ("all:\n  hosts: [a, b]\n", "2: all.hosts: must be a mapping, found 'a list'"),
        ("all:\n  hosts:\n    a: {}\n    b: words\n", "4: all.hosts.b: must be a mapping, found 'words'"),
        ("all:\n  hosts: {a: }\n  vars: 5\n", "3: all.vars: must be a mapping, found '5'"),
        ("all:\n  hosts: {a: }\n  children: [gpu]\n", "3: all.children: must be a mapping, found 'a list'"),
        ("all: gpu-1\n", "1: all: must be a mapping, found 'gpu-1'"),
        ("all:\n  hosts:\n    7: words\n", "3: all.hosts.7: must be a mapping, found 'words'"),
        ("all: {hosts: {a: {node_name: n}, b: {node_name: n}}}\n", " a and b both claim Node n"),
        ("all: {hosts: {a: {node_name: b}, b: }}\n", " a and b both claim Node b"),
        ("all:\n  hosts:\n    n[a-c]: {}\n", "3: all.hosts.n[a-c]: [a-c] is no range; write [1-9], [001-128]"),
        ("all:\n  hosts:\n    a: {}\n    n[5:1]: {}\n", "4: all.hosts.n[5:1]: [5:1] is empty"),
        ("all:\n  hosts:\n    n[01:100]: {}\n", "3: all.hosts.n[01:100]: [01:100]: both ends must have"),
        ("all:\n  hosts:\n    n[1:: {}\n", "3: all.hosts.n[1:: brackets hold no range"),
        ("all:\n  hosts: {a: }\nall:\n  hosts: {b: }\n", "3: all: this key stands there twice"),
    ],
)
def test_a_fault_is_told_with_line_and_key(tmp_path: Path, text: str, fault: str) -> None:
    assert refusal(tmp_path, text).startswith(fault)


@pytest.mark.parametrize(
    ("written", "hosts"),
    [
        ("n[08:10]", "n08 n09 n10"),
        ("n[8:10].example.com", "n8.example.com n9.example.com n10.example.com"),
        ("n[a:c]", "na nb nc"),
        ("n[1:6:2]", "n1 n3 n5"),
        ("r[1:2]-n[01:02]", "r1-n01 r1-n02 r2-n01 r2-n02"),
        ("plain", "plain"),
    ],
)
def test_ranges_mean_what_they_mean_to_ansible(tmp_path: Path, written: str, hosts: str) -> None:
    found = read(tmp_path, f"all: {{children: {{gpu: {{hosts: {{'{written}': {{colour: red}}}}}}}}}}\n")
    assert " ".join(found.hosts) == hosts
    assert {host.variables["colour"] for host in found.group("gpu")} == {"red"}


def test_an_empty_group_is_refused_and_the_others_named(tmp_path: Path) -> None:
    found = read(tmp_path, "all: {children: {gpu: {hosts: {a: }}, empty: }}\n")
    with pytest.raises(InputError, match="no host in group empty; groups with hosts: all, gpu"):
        found.group("empty")


# ---- --limit

POOL = tuple(
    Host(name=f"gpu-{n}", node_name=f"node-{n}", groups=frozenset({"gpu", "even" if n % 2 == 0 else "odd"}))
    for n in range(6)
)


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("gpu-1", "1"),
        ("gpu-3,gpu-1", "13"),
        (" gpu-3 , gpu-1, ", "13"),
        ("gpu-[0-2]", "012"),
        ("gpu-*", "012345"),
        ("node-4", "4"),
        ("even", "024"),
        ("even,gpu-1", "0124"),
        ("!gpu-1", "02345"),
        ("!odd,!gpu-0", "24"),
        ("gpu,!odd", "024"),
        ("!odd,gpu", "024"),
        ("gpu-1,gpu-1", "1"),
    ],
)
def test_a_limit_selects_names_globs_nodes_and_groups(pattern: str, chosen: str) -> None:
    assert [host.name for host in limit(POOL, pattern)] == [f"gpu-{n}" for n in chosen]


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("gpu-9", "--limit gpu-9: matches none of the pool's hosts; near to it: gpu-5, gpu-4"),
        ("web-1", "--limit web-1: matches none of the pool's hosts (gpu-[0-5])"),
        ("gpu-1,gpu-9", "--limit gpu-9: matches none"),
        ("gpu,!gpu-9", "--limit !gpu-9: matches none"),
        ("GPU-1", "--limit GPU-1: matches none"),
        ("gpu-1,!gpu-1", "--limit gpu-1,!gpu-1: selects no host"),
        ("!gpu", "--limit !gpu: selects no host"),
        ("", "--limit : selects no host"),
        (",", "--limit ,: selects no host"),
    ],
)
def test_a_part_that_selects_nothing_is_a_typing_mistake(pattern: str, fault: str) -> None:
    with pytest.raises(InputError) as caught:
        limit(POOL, pattern)
    assert str(caught.value).startswith(fault)


@given(st.data())
def test_what_is_excluded_is_never_selected_and_the_order_is_the_inventorys(data: st.DataObject) -> None:
    parts = some(data.draw, ("even", "odd", "gpu-*", "gpu-1", "node-2", "!gpu-1", "!even", "!gpu-[45]"))
    parts = tuple(data.draw(st.permutations(parts)))
    try:
        chosen = limit(POOL, ",".join(parts))
    except InputError:
        chosen = ()
    for part in parts:
        if part.startswith("!"):
            assert not {host.name for host in chosen} & {host.name for host in limit(POOL, part[1:])}
    assert list(chosen) == [host for host in POOL if host in chosen]


def test_groups_that_are_each_others_children_are_refused(tmp_path: Path) -> None:
    text = "a: {hosts: {h: }, children: {b: {children: {a: }}}}\n"
    with pytest.raises(InputError, match="each other's children"):
        read(tmp_path, text)


def test_a_plugins_configuration_is_refused_with_line_and_a_way_out_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "of 100%\\n"
    folder.mkdir()
    (tmp_path / "ansible-inventory").write_text(
        '#!/bin/sh\n[ "$1 $3 $4" = "-i --list --export" ] && grep -q aws_ec2 "$2" || exit 1\n'
        """echo '{"gpu": {"hosts": ["gpu-1"]}, "_meta": {"hostvars": {}}}'\n"""
    )
    (tmp_path / "ansible-inventory").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    text = "# the cloud's\nplugin: amazon.aws.aws_ec2\nregions: [eu-1]\nkeyed_groups:\n  - key: tags.role\n"
    said = refusal(folder, text)
    assert said.startswith("2: plugin: amazon.aws.aws_ec2 is one of Ansible's inventory plugins")
    assert len(said.splitlines()) == 1, "its other keys are no faults"
    command = said.partition("an executable that asks Ansible: ")[2].partition("; then: ")[0]
    subprocess.run(["sh", "-c", command], check=True, timeout=60)
    assert set(inventory.read(folder / "inventory-inventory").hosts) == {"gpu-1"}
    assert read(folder, "plugin: {hosts: {gpu-2: }}").group("plugin"), "a group may be named so"
