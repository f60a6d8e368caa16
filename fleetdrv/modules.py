"""A kernel module's three names: loaded, on disk, and for modprobe. Pure.

They are one for nearly all. NVIDIA's, as Debian packages it, is loaded as `nvidia` from `nvidia-current.ko`, and
only the file's name is known to modprobe. What DKMS builds has in it how it is called once loaded, so from the
trial build on a node can tell the name of its file (see `called`). Where a node's own aliases lead from one to the
other, modinfo and modprobe follow them and nothing has to be said.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, GetCoreSchemaHandler, StringConstraints, Tag
from pydantic_core import CoreSchema, core_schema

from fleetdrv.model import module_name
from fleetdrv.sources import Model

ModuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class Names(Model):
    """A module whose names differ."""

    name: ModuleName
    """Name once it is loaded, as in /sys/module."""
    file: ModuleName = ""
    """Name of its file, without .ko; where left out that of `name`, or what a build says that has `name` in it."""
    load_as: ModuleName = ""
    """What modprobe is told; that of `file` where left out."""


class Module(str):
    """A module by its loaded name, as the kernel writes it, which is all that most need; it knows the others."""

    file: str
    load_as: str
    derived: bool
    """The file's name is what a node tells, not what somebody said: it may be another after an upgrade."""

    def __new__(cls, name: str, file: str = "", load_as: str = "", *, derived: bool = False) -> Module:
        """Fill in the names that are left out."""
        module = super().__new__(cls, module_name(name))
        module.file = file or str(module)
        module.load_as = load_as or module.file
        module.derived = derived
        return module


def called(module: str, file: str) -> str:
    """Return the module with the name that its file turned out to have. What the playbook says of it, stays.

    >>> to_load(called("nvidia", "nvidia-current"))
    'nvidia:nvidia-current:nvidia-current'
    >>> file_name(called(Module("nvidia", "mine"), "nvidia-current"))
    'mine'
    """
    derived = isinstance(module, Module) and module.derived
    if not derived and module_name(file_name(module)) != module:
        return module
    load_as = load_name(module) if load_name(module) != file_name(module) else ""
    file = "" if module_name(file) == module else file
    return Module(module, file, load_as, derived=bool(file))


def file_name(module: str) -> str:
    """Return the name of the module's file; modprobe's options are looked up by it.

    libkmod takes the name of a module from the path that modules.dep has for it, and compares the name behind
    `options` with that, or with the alias that was asked for; never with the name inside the file.
    """
    return module.file if isinstance(module, Module) else module


def load_name(module: str) -> str:
    """Return what modprobe is told."""
    return module.load_as if isinstance(module, Module) else module


def question(module: str) -> str:
    """Return NAME, or NAME:FILE where a file is said to be called otherwise: for probe.sh and apt_stage.sh."""
    derived = isinstance(module, Module) and module.derived
    return module if derived or module_name(file_name(module)) == module else f"{module}:{file_name(module)}"


def to_load(module: str) -> str:
    """Return NAME, or NAME:LOAD_AS:FILE where any differs, as load.sh and unload.sh are told."""
    same = all(module_name(name) == module for name in (file_name(module), load_name(module)))
    return module if same else f"{module}:{load_name(module)}:{file_name(module)}"


def among(modules: Iterable[str], name: str) -> str:
    """Return the module that is loaded under a name, with all its names where it is one of those."""
    return next((module for module in modules if module == name), name)


def _kind(value: object) -> str:
    return "constrained-names" if isinstance(value, dict | BaseModel) else "constrained-name"


_Entry = Annotated[
    Annotated[ModuleName, Tag("constrained-name")] | Annotated[Names, Tag("constrained-names")],
    Discriminator(_kind),
]


def _module(value: Any, read: core_schema.ValidatorFunctionWrapHandler) -> Module:
    if isinstance(value, Module):
        return value
    entry = read(value)
    return Module(entry.name, entry.file, entry.load_as) if isinstance(entry, Names) else Module(entry)


def _written(module: str) -> str | dict[str, str]:
    if to_load(module) == module:
        return str(module)
    return {"name": str(module), "file": file_name(module), "load_as": load_name(module)}


class AsModule:
    """Marks a string of the schema that is read as a Module: from its name alone, or from its names."""

    def __repr__(self) -> str:
        """Name the keys that the longer form has, for whoever looks for them in the field's annotation."""
        return "fleetdrv.modules.Names()"

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read either form; write the one that says all."""
        written = core_schema.plain_serializer_function_ser_schema(_written)
        return core_schema.no_info_wrap_validator_function(
            _module, handler.generate_schema(_Entry), serialization=written
        )
