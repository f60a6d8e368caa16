"""A module's three names, from the playbook to each program that needs one of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from fleetdrv.look import questions
from fleetdrv.model import Candidate, Good, NodeFacts, Package, Packaged
from fleetdrv.modules import Module, among, called, file_name, load_name, question, to_load
from fleetdrv.plan import plan
from fleetdrv.playbook import Driver
from fleetdrv.resolve import exact
from fleetdrv.sources import AptSource
from fleetdrv.steps import renewed, restore, stage_key
from fleetdrv.undo import NOTHING_KEPT, plan_back
from tests.core.factories import KERNEL, a_driver, a_file, a_loaded, a_playbook, some_facts

NVIDIA = a_driver(
    "nvidia",
    modules=(
        {"name": "nvidia", "file": "nvidia-current"},
        {"name": "nvidia-uvm", "load_as": "nv-uvm"},
        "nvidia-fs",
    ),
    parameters={"nvidia": {"mode": "fast"}, "nvidia-fs": {"level": "1"}},
)


def test_a_module_is_known_by_its_loaded_name() -> None:
    assert NVIDIA.modules == ("nvidia", "nvidia_uvm", "nvidia_fs")
    assert [file_name(module) for module in NVIDIA.modules] == ["nvidia-current", "nvidia_uvm", "nvidia_fs"]
    assert [load_name(module) for module in NVIDIA.modules] == ["nvidia-current", "nv-uvm", "nvidia_fs"]
    assert [question(module) for module in NVIDIA.modules] == ["nvidia:nvidia-current", "nvidia_uvm", "nvidia_fs"]
    assert [to_load(module) for module in NVIDIA.modules] == [
        "nvidia:nvidia-current:nvidia-current",
        "nvidia_uvm:nv-uvm:nvidia_uvm",
        "nvidia_fs",
    ]
    assert (file_name("plain"), load_name("plain"), question("plain"), to_load("plain")) == ("plain",) * 4
    assert among(NVIDIA.modules, "nvidia") is NVIDIA.modules[0]
    assert among(NVIDIA.modules, "other") == "other"


def test_names_that_say_the_same_in_other_letters_are_one() -> None:
    plain = Driver.model_validate({"name": "x", "modules": [{"name": "a-b", "file": "a_b", "load_as": "a-b"}]})
    assert question(plain.modules[0]) == to_load(plain.modules[0]) == "a_b"
    assert '"modules":["a_b"]' in plain.model_dump_json()


def test_names_survive_being_kept_and_count_as_wanted_state() -> None:
    again = Driver.model_validate_json(NVIDIA.model_dump_json())
    assert again.digest == NVIDIA.digest
    assert [to_load(module) for module in again.modules] == [to_load(module) for module in NVIDIA.modules]
    other = a_driver("nvidia", modules=NVIDIA.modules[1:], parameters={})
    assert [to_load(m) for m in other.modules] == [to_load(m) for m in NVIDIA.modules[1:]]
    renamed = NVIDIA.model_copy(update={"modules": (Module("nvidia", "nvidia-legacy"), *NVIDIA.modules[1:])})
    assert renamed.digest != NVIDIA.digest
    assert to_load(copy.deepcopy(NVIDIA.modules[0])) == to_load(NVIDIA.modules[0])


def test_options_go_to_the_files_name_and_the_boot_loads_by_modprobes() -> None:
    texts = NVIDIA.configuration()
    options = texts["/etc/modprobe.d/fleetdrv-nvidia.conf"].splitlines()[1:]
    assert sorted(options) == ["options nvidia-current mode=fast", "options nvidia_fs level=1"]
    loads = texts["/etc/modules-load.d/fleetdrv-nvidia.conf"].splitlines()[1:]
    assert loads == ["nvidia-current", "nv-uvm", "nvidia_fs"]


def test_each_program_is_told_the_names_that_it_needs() -> None:
    assert "nvidia:nvidia-current" in questions(a_playbook(NVIDIA))
    loaded = {module: a_loaded(module, "1.0") for module in NVIDIA.modules}
    facts = some_facts(NVIDIA, loaded=loaded, initrds=frozenset({KERNEL}))
    result = plan(a_playbook(NVIDIA), facts)
    words = tuple(to_load(module) for module in NVIDIA.modules)
    assert [step.argv for step in result.outage if step.program == "load.sh"] == [words]
    assert [step.argv for step in result.outage if step.program == "unload.sh"] == [words[::-1]]
    back = restore((NVIDIA,), {})
    assert (back[0].argv, back[-1].argv) == (words[::-1], words)
    (step,) = renewed((NVIDIA,), facts)
    assert step.argv == (KERNEL, "nvidia-current", "nvidia_uvm", "nvidia_fs")
    files = tuple(a_file(module) for module in NVIDIA.modules)
    assert plan(a_playbook(NVIDIA), some_facts(NVIDIA, files=files)).differences == ()


def test_what_the_playbook_says_goes_before_what_a_build_says() -> None:
    assert [to_load(called(module, "other")) for module in NVIDIA.modules] == [
        "nvidia:nvidia-current:nvidia-current",
        "nvidia_uvm:nv-uvm:other",
        "nvidia_fs:other:other",
    ]
    found = called(Module("nvidia-uvm"), "nv-uvm")
    assert (found, file_name(found), load_name(found)) == ("nvidia_uvm", "nv-uvm", "nv-uvm")
    assert question(found) == "nvidia_uvm", "a node is not asked for what it told itself"
    assert question(copy.deepcopy(found)) == "nvidia_uvm"
    assert to_load(called(found, "newer")) == "nvidia_uvm:newer:newer"
    assert file_name(called(found, "nvidia-uvm")) == to_load(called(found, "nvidia-uvm")) == "nvidia_uvm"


OLD, NEW = "535.1-1", "550.1-1"


def a_packaged(version: str, **more: Any) -> Driver:
    apt = AptSource(packages={"nvidia-kernel-dkms": version})
    return a_driver("nvidia", **{"dkms": None, "apt": apt, "parameters": {"nvidia": {"mode": "fast"}}, **more})


def a_node(version: str, named: dict[tuple[str, str], str], *staged: str, **more: Any) -> NodeFacts:
    """Return facts of a node with the packages of a version, whose module is loaded."""
    packages = {"nvidia-kernel-dkms": Package(name="nvidia-kernel-dkms", version=version, status="installed")}
    packaged = (Packaged(package="nvidia-kernel-dkms", dkms_name="nvidia-current", dkms_version=version),)
    known = {"packages": packages, "packaged": packaged, "named": named, "staged": frozenset(staged)}
    return some_facts(a_driver("nvidia"), loaded={"nvidia": a_loaded("nvidia", "1.0")}, **{**known, **more})


def test_a_packaged_modules_file_is_called_as_its_build_says() -> None:
    """What is staged for the wanted version decides how it is loaded, what is installed how the old one left."""
    book = a_playbook(a_packaged(NEW))
    installed = {("-", "nvidia"): "nvidia-current"}
    before = a_node(OLD, installed, initrds=frozenset({KERNEL}))
    (likely,) = exact(book, before, {}).drivers
    assert to_load(likely.modules[0]) == "nvidia:nvidia-current:nvidia-current", "until the build says another"
    key = stage_key(likely, before)
    staged = a_node(OLD, {**installed, (key, "nvidia"): "nvidia-tesla"}, key, initrds=frozenset({KERNEL}))
    wanted = exact(book, staged, {})
    assert [wanted.drivers[0].configuration()[f"/etc/{place}/fleetdrv-nvidia.conf"].splitlines()[1] for place in (
        "modprobe.d", "modules-load.d"
    )] == ["options nvidia-tesla mode=fast", "nvidia-tesla"]
    steps = {step.program: step.argv for step in plan(wanted, staged).outage}
    assert steps["unload.sh"] == ("nvidia:nvidia-current:nvidia-current",)
    assert steps["load.sh"] == ("nvidia:nvidia-tesla:nvidia-tesla",)
    assert steps["initramfs.sh"] == (KERNEL, "nvidia-tesla", "nvidia-current")
    plain = exact(book, a_node(OLD, installed, key), {})
    assert to_load(plain.drivers[0].modules[0]) == "nvidia", "a build that says nothing calls it as it is loaded"


def test_a_stage_is_asked_for_what_was_said_and_not_for_what_was_derived() -> None:
    for said, word in (("nvidia", "nvidia"), ({"name": "nvidia", "file": "mine"}, "nvidia:mine")):
        offered = (Candidate(name="nvidia-kernel-dkms", version=NEW, sha256="0" * 64),)
        named = {("-", "nvidia"): "nvidia-current"}
        facts = a_node(OLD, named, lists_seconds=60, candidates=offered)
        pins = {"debian 12/amd64/nvidia-kernel-dkms": f"{NEW} {'0' * 64}"}
        book = exact(a_playbook(a_packaged(NEW, modules=(said,), parameters={})), facts, pins)
        (step,) = (step for step in plan(book, facts).stage if step.program == "apt_stage.sh")
        assert step.argv[3] == word


def test_a_state_that_was_kept_with_derived_names_is_the_playbooks_own() -> None:
    book, facts = a_playbook(a_packaged(NEW)), a_node(NEW, {("-", "nvidia"): "nvidia-current"})
    (wanted,) = exact(book, facts, {}).drivers
    kept = Good(driver="nvidia", digest=wanted.digest, wanted=wanted.model_dump_json())
    there = replace(facts, good={"nvidia": kept})
    assert plan_back(book, exact(book, there, {}), there)[1].reason == NOTHING_KEPT
    newer = a_playbook(a_packaged("560.1-1"))
    over = replace(there, named={("-", "nvidia"): "nvidia-tesla"})
    steps = {step.program: step.argv for step in plan_back(newer, exact(newer, over, {}), over)[1].outage}
    assert steps["unload.sh"] == ("nvidia:nvidia-tesla:nvidia-tesla",), "who gives up, loads what is installed"
    assert steps["load.sh"] == ("nvidia:nvidia-current:nvidia-current",)
    other = a_playbook(a_packaged(NEW, modules=({"name": "nvidia", "file": "mine"},)))
    assert plan_back(other, other, there)[0].drivers == (wanted,)
