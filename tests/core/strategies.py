"""Draws for properties: nodes that are nearly right, broken in one to four of the ways in which nodes break.

Evenly drawn facts would be nonsense in every layer at once, and nonsense hides what one layer gets wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from hypothesis import strategies as st

from fleetdrv.model import Kernels
from fleetdrv.playbook import Driver, Playbook
from fleetdrv.steps import stage_key
from tests.core.factories import a_driver, a_playbook
from tests.core.machine import OURS, Machine, Running

KERNELS = ("6.1.0-55-amd64", "6.1.0-56-amd64", "6.1.0-57-amd64")
_VALUES = {
    "b_debug": ("0", "1", "y", "N", "on"),
    "i_level": ("0", "3", "0x10"),
    "mode": ("fast", "two words"),
}
_MARKS = (
    (True, True, True),
    (True, True, False),
    (True, False, True),
    (False, True, True),
    (True, False, False),
)
_T = TypeVar("_T")
Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True, slots=True)
class Scene:
    """A node, what it should be, and what is wrong with it."""

    playbook: Playbook
    machine: Machine
    faults: tuple[str, ...]


@cache
def _below(bound: int) -> st.SearchStrategy[int]:
    return st.integers(0, bound - 1)  # to make a strategy costs more than to draw from it


def pick(draw: Draw, things: Iterable[_T]) -> _T:
    """Draw one of some things."""
    every = tuple(things)
    return every[draw(_below(len(every)))]


def some(draw: Draw, things: Iterable[_T]) -> tuple[_T, ...]:
    """Draw any subset, its order kept, in one draw."""
    every = tuple(things)
    flags = draw(_below(2 ** len(every)))
    return tuple(thing for bit, thing in enumerate(every) if flags >> bit & 1)


@st.composite
def drivers(draw: Draw, name: str, version: str = "1.1") -> Driver:
    """Draw a driver of one to three modules, now and then with parameters and checks."""
    modules = tuple(f"{name}_{part}" for part in ("core", "uvm", "fs")[: pick(draw, (1, 1, 2, 3))])
    parameters = {
        module: {key: pick(draw, _VALUES[key]) for key in some(draw, _VALUES)} for module in some(draw, modules)
    }
    return a_driver(
        name,
        version,
        modules=modules,
        parameters=parameters,
        checks=pick(draw, ((), ((f"{name}-smi", "-L"),))),
        strict=pick(draw, (False, False, True)),
        requires_pci=pick(draw, ((), (), ("10de:*",), ("15b3:1017",))),
        services=pick(draw, ((), (f"{name}-persistenced",), (f"{name}-persistenced", f"{name}-dcgm.socket"))),
    )


@st.composite
def playbooks(draw: Draw) -> Playbook:
    """Draw a playbook of up to three drivers, most often one."""
    names = ("toy", "net", "gpu")[: pick(draw, (1, 1, 1, 2, 2, 3))]
    return a_playbook(*(draw(drivers(name)) for name in names))


@st.composite
def machines(draw: Draw, playbook: Playbook) -> Machine:
    """Draw a node on which all is as the playbook wants it, whoever built it."""
    running, newest, default = (pick(draw, KERNELS) for _ in range(3))
    machine = Machine(
        kernels=Kernels(running=running, newest=newest, default=default),
        headers=set(KERNELS),
        pci=frozenset({"10de:2204", "15b3:1017", "8086:1237"}),
        no_autoinstall=pick(draw, (False, True)),
    )
    for kernel in some(draw, machine.kernels.bootable):
        machine.carried[kernel] = set(some(draw, playbook.modules[:2]))
    before: list[str] = []
    for module in playbook.modules:
        machine.depends[module] = frozenset(some(draw, before[-2:]))
        machine.marks[module] = pick(draw, _MARKS)
        before.append(module)
    for driver in playbook.drivers:
        machine.hidden |= set(some(draw, ((m, key) for m in driver.modules for key in _VALUES)))
        put(machine, driver, maker=pick(draw, ("", f"{OURS} {machine.compiler}", "dkms autoinstall")))
    return machine


def put(machine: Machine, driver: Driver, *, maker: str = "") -> None:
    """Bring a driver onto a node in every layer."""
    build = machine.build(driver, machine.kernels.bootable, maker)
    machine.files |= build.modules
    for kernel in machine.kernels.bootable:
        machine.dkms[driver.dkms.package, driver.dkms.version, kernel] = ("installed", "")
    machine.texts |= driver.configuration()
    machine.services |= dict.fromkeys(driver.services, True)
    for module in driver.modules:
        marks = build.modules[module, machine.kernels.running]
        machine.loaded[module] = Running(marks, dict(driver.parameters.get(module, {})))


def take_out(machine: Machine, module: str) -> None:
    """Unload a module by hand, after all that depends on it."""
    for other in [name for name in machine.loaded if module in machine.depends.get(name, ())]:
        take_out(machine, other)
    machine.loaded.pop(module, None)


@dataclass(frozen=True, slots=True)
class Hit:
    """What a fault strikes."""

    machine: Machine
    playbook: Playbook
    driver: Driver
    draw: Draw


# ---- faults that a plan can mend


def _unloaded(hit: Hit) -> None:
    take_out(hit.machine, pick(hit.draw, hit.driver.modules))


def _absent(hit: Hit) -> None:
    for module in hit.driver.modules:
        take_out(hit.machine, module)
    _gone(hit.machine, hit.driver)
    for path in hit.driver.configuration():
        hit.machine.texts.pop(path, None)


def _gone(machine: Machine, driver: Driver) -> None:
    machine.dkms = {key: state for key, state in machine.dkms.items() if key[0] != driver.dkms.package}
    machine.files = {key: marks for key, marks in machine.files.items() if key[0] not in driver.modules}


def _older(hit: Hit) -> None:
    """The version before: loaded and in use, with options of its own."""
    _gone(hit.machine, hit.driver)
    same = {"modules": hit.driver.modules, "services": hit.driver.services}
    former = hit.draw(drivers(hit.driver.name, "1.0")).model_copy(update=same)
    for path in hit.driver.configuration():
        hit.machine.texts.pop(path, None)
    put(hit.machine, former, maker=pick(hit.draw, ("", "dkms autoinstall")))
    hit.machine.loaded[hit.driver.modules[-1]].users = pick(hit.draw, (0, 1, 2))


def _stale(hit: Hit) -> None:
    """The file was replaced from under the loaded code."""
    module = pick(hit.draw, hit.driver.modules)
    if module in hit.machine.loaded:
        hit.machine.loaded[module].identity = hit.machine.identity(module, "1.0", hit.machine.kernels.running, "")
        hit.machine.loaded[module].users = pick(hit.draw, (0, 1))


def _rebuilt(hit: Hit) -> None:
    """The same source, built again by somebody else."""
    for kernel in hit.machine.kernels.bootable:
        for module in hit.driver.modules:
            if (module, kernel) in hit.machine.files:
                hit.machine.files[module, kernel] = hit.machine.identity(module, "1.1", kernel, "another make")


def _kernel_without(hit: Hit) -> None:
    kernel = pick(hit.draw, hit.machine.kernels.bootable)
    hit.machine.dkms.pop((hit.driver.dkms.package, hit.driver.dkms.version, kernel), None)
    for module in hit.driver.modules:
        hit.machine.files.pop((module, kernel), None)


def _half_installed(hit: Hit) -> None:
    source, kernel = hit.driver.dkms, pick(hit.draw, hit.machine.kernels.bootable)
    hit.machine.dkms[source.package, source.version, kernel] = pick(
        hit.draw, (("built", ""), ("broken", ""), ("installed", "Differences between built and installed"))
    )


def _file_gone(hit: Hit) -> None:
    hit.machine.files.pop((pick(hit.draw, hit.driver.modules), pick(hit.draw, hit.machine.kernels.bootable)), None)


def _left_behind(hit: Hit) -> None:
    """Another version that DKMS would build for the next kernel."""
    state, kernel = pick(hit.draw, (("added", ""), ("built", "5.10.0-1-amd64"), ("broken", "")))
    hit.machine.dkms[hit.driver.dkms.package, "0.9", kernel] = (state, "")


def _other_text(hit: Hit) -> None:
    """Options of before, in the file and in force."""
    former = hit.draw(drivers(hit.driver.name)).model_copy(update={"modules": hit.driver.modules})
    for path in hit.driver.configuration():
        hit.machine.texts.pop(path, None)
    hit.machine.texts |= former.configuration()
    for module in hit.driver.modules:
        if module in hit.machine.loaded:
            hit.machine.loaded[module].parameters = dict(former.parameters.get(module, {}))


def _no_text(hit: Hit) -> None:
    hit.machine.texts.pop(pick(hit.draw, hit.driver.configuration()), None)


def _other_parameter(hit: Hit) -> None:
    """Set by hand, where it can be seen."""
    for module, values in hit.driver.parameters.items():
        for key in sorted(values):
            if module in hit.machine.loaded and (module, key) not in hit.machine.hidden:
                former = hit.machine.loaded[module].parameters
                hit.machine.loaded[module].parameters = {**former, key: pick(hit.draw, _VALUES[key])}


def _in_use(hit: Hit) -> None:
    for module in hit.driver.modules:
        if module in hit.machine.loaded:
            hit.machine.loaded[module].users = pick(hit.draw, (0, 1, 2))


def _old_initramfs(hit: Hit) -> None:
    hit.machine.old_initrds |= {(kernel, hit.driver.name) for kernel in hit.machine.carried}


def _service_off(hit: Hit) -> None:
    """Somebody stopped it; it stays so."""
    for unit in hit.driver.services[-1:]:
        hit.machine.services[unit] = False


def _service_left(hit: Hit) -> None:
    """An outage was cut off after it had stopped a service."""
    for unit in hit.driver.services[:1]:
        hit.machine.services[unit] = False
        hit.machine.stopped.add((hit.driver.name, unit))


def _staged(hit: Hit) -> None:
    key = stage_key(hit.driver, hit.machine.facts(hit.playbook))
    hit.machine.staged[key] = hit.machine.build(hit.driver, hit.machine.kernels.bootable)


# ---- what no plan of this version can mend


def _stuck(hit: Hit) -> None:
    module = pick(hit.draw, hit.driver.modules)
    if module in hit.machine.loaded:
        hit.machine.loaded[module].state = pick(hit.draw, ("going", "coming"))


def _stranger(hit: Hit) -> None:
    module = pick(hit.draw, hit.driver.modules)
    if module in hit.machine.loaded:
        hit.machine.depends["stranger"] = frozenset({module})
        hit.machine.loaded["stranger"] = Running(hit.machine.identity("stranger", "1", "", ""), {})


def _no_headers(hit: Hit) -> None:
    hit.machine.headers.discard(pick(hit.draw, hit.machine.kernels.bootable))


def _no_compiler(hit: Hit) -> None:
    hit.machine.compiler = ""


def _no_dkms(hit: Hit) -> None:
    hit.machine.dkms_version = ""
    hit.machine.dkms.clear()


def _secure_boot(hit: Hit) -> None:
    hit.machine.secure_boot = True


def _dpkg(hit: Hit) -> None:
    hit.machine.dpkg_interrupted = True


def _broken(hit: Hit) -> None:
    hit.machine.broken |= set(hit.driver.checks)


def _no_device(hit: Hit) -> None:
    hit.machine.pci = frozenset({"8086:1237"})


Fault = Callable[[Hit], None]
MENDABLE: tuple[Fault, ...] = (
    _unloaded,
    _absent,
    _older,
    _older,
    _stale,
    _rebuilt,
    _kernel_without,
    _half_installed,
    _file_gone,
    _left_behind,
    _other_text,
    _no_text,
    _other_parameter,
    _in_use,
    _staged,
    _old_initramfs,
    _service_off,
    _service_left,
)
OBSTACLES: tuple[Fault, ...] = (
    _stuck,
    _stranger,
    _no_headers,
    _no_compiler,
    _no_dkms,
    _secure_boot,
    _dpkg,
    _broken,
    _no_device,
)


@st.composite
def scenes(draw: Draw, *, obstacles: bool = False) -> Scene:
    """Draw a node with up to four faults, each of a driver of its own."""
    playbook = draw(playbooks())
    machine = draw(machines(playbook))
    chosen = [pick(draw, MENDABLE) for _ in range(pick(draw, (0, 1, 1, 1, 2, 2, 3)))]
    if obstacles:
        chosen += [pick(draw, OBSTACLES) for _ in range(pick(draw, (0, 1, 1, 2)))]
    told = []
    for fault in chosen:
        driver = pick(draw, playbook.drivers)
        fault(Hit(machine, playbook, driver, draw))
        told.append(f"{fault.__name__.lstrip('_')} {driver.name}")
    return Scene(playbook, machine, tuple(told))
