"""Ansible's own parser and ours agree: the same hosts, groups and variables; or both refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fleetdrv import inventory, patterns
from fleetdrv.ansible_yaml import AS_WRITTEN
from fleetdrv.errors import InputError

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"


def _source(entry: Path) -> str:
    """Name what is given to `-i`: a file, a folder, or the one file in a folder of its own."""
    if not entry.is_dir() or entry.name.startswith(("f", "s05")):
        return str(entry)
    return str(next(path for path in sorted(entry.iterdir()) if path.is_file()))


SOURCES = {entry.name: _source(entry) for entry in sorted(CORPUS.iterdir())}
SOURCES |= {"l01": "one,two,", "l02": "10.0.0.1:22, web.example.com,[2001:db8::1]:2200", "l03": "localhost,"}

BOTH_REFUSE = {
    "hosts.ini": [
        "[gpu:chidlren]\na\n",
        "[gpu:children]\nnobody\n",
        "[gpu:vars]\nx=1\n",
        "[gpu]\nh justaword\n",
        "[gpu:vars]\njustaword\n",
        "[g p u]\na\n",
        "[a:children]\nb\n[b:children]\na\n",
        "h x='unclosed\n",
        "n[1:\n",
        "n[05:1]\n",
        "host:\n",
        "---\n",
        "[a]\nh\n[a:vars]\nansible_group_priority=high\n",
    ],
    "hosts.yaml": [
        "[a, b]",
        "all: {hosts: [a, b]}",
        "all: {vars: 5}",
        "all: {hosts: {'n[1:2:3:4]': }}",
        "all: {hosts: {'n[:]': }}",
        "a: {children: {b: {children: {a: }}}}",
        "all: {children: {all: }}",
        "a: {vars: {ansible_group_priority: high}, hosts: {h: }}",
        "all: {hosts: {h: text}}",
        "all: {hosts: {h: [list]}}",
        "plugin: some.cloud\n",
        "all: {hosts: {h: !nobody_knows x}}",
    ],
    "hosts.json": ["[]", '{"all": {"hosts": []}}'],
}
BAD = [(name, text) for name, texts in BOTH_REFUSE.items() for text in texts]
BAD_SCRIPTS = (
    *("[]", "no json", '{"gpu": {"hosts": "g1"}}', '{"gpu": {"vars": []}}'),
    *('{"_meta": {"hostvars": []}}', '{"_meta": {}}'),
)


def _asked(*sources: str) -> list[Any]:
    words = [sys.executable, str(HERE / "ansible_list.py"), *sources]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=240)
    return list(json.loads(done.stdout))


@cache
def _ansible() -> dict[str, Any]:
    """Ask for the whole corpus at once: Ansible takes long to start."""
    return dict(zip(SOURCES, _asked(*SOURCES.values()), strict=True))


def _groups(document: dict[str, Any]) -> dict[str, set[str]]:
    """Return each host's groups, inherited ones included."""
    inside: dict[str, set[str]] = {}

    def walk(group: str, path: tuple[str, ...]) -> None:
        said = document.get(group, {})
        for host in said.get("hosts", ()):
            inside.setdefault(host, set()).update((*path, group))
        for child in said.get("children", ()):
            walk(child, (*path, group))

    walk("all", ())
    return inside


def _shown(found: Any) -> Any:
    """Take off what Ansible puts around text that must not be a template, and how our own choice is told."""
    if isinstance(found, dict):
        plain = {key: _shown(value) for key, value in found.items()}
        return plain.get("__ansible_unsafe", plain)
    return [_shown(item) for item in found] if isinstance(found, list) else found


def _variables(found: Any) -> dict[str, Any]:
    plain = json.loads(json.dumps(_shown(dict(found))))
    return {name: str(value) if name in AS_WRITTEN else value for name, value in plain.items()}


@pytest.mark.parametrize("name", SOURCES)
def test_ansible_and_we_read_the_same(name: str) -> None:
    theirs, ours = _ansible()[name], inventory.read(SOURCES[name]).hosts
    assert theirs is not None, "Ansible refuses it"
    assert {host: set(said.groups) for host, said in ours.items()} == _groups(theirs)
    hostvars = theirs["_meta"]["hostvars"]
    assert {host: _variables(said.variables) for host, said in ours.items()} == {
        host: _variables(hostvars.get(host, {})) for host in ours
    }


def _invented(random: Random) -> str:
    """Return an inventory in which groups of all depths and priorities have something to say of the same hosts."""
    groups = [f"g{number}" for number in range(random.randint(2, 7))]
    said: dict[str, Any] = {}
    for number, group in enumerate(groups):
        variables = {name: f"{name} of {group}" for name in random.sample("uvwxyz", 3)}
        if random.random() < 0.4:
            variables["ansible_group_priority"] = str(random.randint(-2, 5))
        children = random.sample(groups[number + 1 :], random.randint(0, min(2, len(groups) - number - 1)))
        hosts = {f"h{n}": {"y": f"own, said in {group}"} if random.random() < 0.2 else None for n in (1, 2, 3)}
        chosen = {host: own for host, own in hosts.items() if random.random() < 0.4}
        said[group] = {"vars": variables, "children": dict.fromkeys(children), "hosts": chosen}
    said["all"] = {"hosts": {"h0": None}, "vars": {"z": "z of all", "t": "t of all"}}
    keys = list(said)
    random.shuffle(keys)
    return json.dumps({key: said[key] for key in keys})


def test_of_invented_groups_the_same_one_wins(tmp_path: Path) -> None:
    random = Random(20261125)
    paths = [tmp_path / f"{number}.yaml" for number in range(40)]
    for path in paths:
        path.write_text(_invented(random))
    for path, theirs in zip(paths, _asked(*map(str, paths)), strict=True):
        ours = inventory.read(path).hosts
        assert {host: set(said.groups) for host, said in ours.items()} == _groups(theirs), path.read_text()
        found = {host: _variables(said.variables) for host, said in ours.items()}
        assert found == {host: theirs["_meta"]["hostvars"].get(host, {}) for host in ours}, path.read_text()


FIRST = """\
all:
  vars: {v: first, kept: yes it is}
  children:
    gpu: {hosts: {n3: , n1: {own: first, ansible_port: 22}, n2: }, vars: {w: first}}
    rack1: {hosts: {n2: , n3: }}
"""
SECOND = """\
[gpu]
n1 own=second
n4
[gpu:vars]
w=second
[all:vars]
v=second
[rack1:children]
rack2
[rack2]
n5
"""


def test_of_several_inventories_the_later_ones_win(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b/group_vars").mkdir(parents=True)
    first, second = tmp_path / "a/hosts.yaml", tmp_path / "b/hosts.ini"
    first.write_text(FIRST)
    second.write_text(SECOND)
    (tmp_path / "b/group_vars/gpu.yml").write_text("w: of a file\n")
    orders = [f"{first}\n{second}", f"{second}\n{first}", f"{first}\nn1,n9,", f"{first}\n{second}\n{first}"]
    for source, theirs in zip(orders, _asked(*orders), strict=True):
        ours = inventory.read(source).hosts
        assert {host: set(said.groups) for host, said in ours.items()} == _groups(theirs), source
        found = {host: _variables(said.variables) for host, said in ours.items()}
        assert found == {host: _variables(theirs["_meta"]["hostvars"].get(host, {})) for host in ours}, source


SUBSCRIPTS = [
    *("gpu[0]", "gpu[1]", "gpu[-1]", "gpu[-3]", "gpu[0:1]", "gpu[1:]", "gpu[0:0]", "gpu[1:9]", "all[0]"),
    *("both[0]", "both[1]", "both[2:3]", "both[-1]", "rack1[-1]"),
    *("gpu[0],rack1[-1]", "gpu:!gpu[0]", "gpu:&rack1[0:1]", "gpu[3]", "gpu[-4]", "gpu[7:9]", "nobody[0]"),
]


def test_a_subscript_means_what_it_means_to_ansible(tmp_path: Path) -> None:
    path = tmp_path / "hosts.yaml"
    path.write_text(f"{FIRST}    both: {{children: {{gpu: , rack1: }}, hosts: {{n9: , n2: }}}}\n")
    read = inventory.read(path)
    hosts = tuple(read.hosts.values())
    said = _asked(*(f"{path}\n--limit={pattern}" for pattern in SUBSCRIPTS))
    for pattern, theirs in zip(SUBSCRIPTS, said, strict=True):
        named = set(_groups(theirs)) if theirs else set()
        try:
            ours = {host.name for host in patterns.limit(hosts, pattern, members=read.members)}
        except InputError:
            ours = set()
        assert ours == named, pattern


def test_the_corpus_is_as_large_as_was_promised() -> None:
    assert len(SOURCES) >= 40
    assert {Path(source).suffix for source in SOURCES.values()} >= {".yaml", ".ini", ".py", ".sh", ".json"}


def test_what_ansible_refuses_we_refuse(tmp_path: Path) -> None:
    paths = []
    for number, (name, text) in enumerate(BAD):
        paths.append(tmp_path / str(number) / name)
        paths[-1].parent.mkdir()
        paths[-1].write_text(text)
    for number, text in enumerate(BAD_SCRIPTS):
        paths.append(tmp_path / f"script-{number}.sh")
        paths[-1].write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        paths[-1].chmod(0o755)
    asked = zip(paths, _asked(*map(str, paths)), strict=True)
    assert not [path.read_text() for path, said in asked if said is not None], "Ansible takes these"
    for path in paths:
        with pytest.raises(InputError) as caught:
            inventory.read(path)
        assert str(path) in str(caught.value)
