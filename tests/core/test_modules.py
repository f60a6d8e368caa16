"""A module's three names, from the playbook to each program that needs one of them."""

from __future__ import annotations

import copy

from fleetdrv.look import questions
from fleetdrv.modules import Module, among, file_name, load_name, question, to_load
from fleetdrv.plan import plan
from fleetdrv.playbook import Driver
from fleetdrv.steps import renewed, restore
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
