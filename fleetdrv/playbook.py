"""The playbook: wanted state, not a program. These types are the file's schema and the core's nouns at once.

Frozen pydantic models, strict (a version that YAML read as a number is refused, not turned into text),
unknown keys refused. `Playbook.model_json_schema()` is the published JSON Schema. Patterns here are the
border: a value that passed them may be written into a file or, quoted, into a script on a node.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, ValidationInfo, field_validator, model_validator

from fleetdrv.hooks import Hooks
from fleetdrv.model import module_name
from fleetdrv.modules import AsModule, ModuleName, file_name, load_name
from fleetdrv.policy import DRIVER_SECONDS, Drain, Rollout
from fleetdrv.sources import AptSource, Contradiction, DkmsSource, Inner, Model, closed
from fleetdrv.units import UnitName

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,38}[a-z0-9])?$")]
_DNS_NAME = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
PoolName = Annotated[str, StringConstraints(pattern=f"^{_DNS_NAME}$", max_length=63)]
"""Part of a Lease's name, so with the syntax of a DNS name."""
ParameterName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,64}$")]
ParameterValue = Annotated[str, StringConstraints(pattern=r"^[!#-\[\]-~ ]{1,256}$")]
"""Printable ASCII without double quote and backslash: modprobe.d has no way to escape them for sure."""
PciId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}:([0-9a-f]{4}|\*)$")]
Word = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,256}$")]


def _one_source(schema: dict[str, Any]) -> None:
    closed(schema)
    there = {"type": "object"}
    schema["not"] = {"required": ["dkms", "apt"], "properties": {"dkms": there, "apt": there}}


class Driver(Model):
    """One driver: where it comes from, which modules it loads and with which parameters.

    With neither `dkms` nor `apt` its modules are the kernel's own.
    """

    model_config = ConfigDict(json_schema_extra=_one_source)

    name: Name
    dkms: DkmsSource | None = None
    apt: AptSource | None = None
    modules: Annotated[
        tuple[Annotated[str, AsModule()], ...], Field(min_length=1, max_length=32, strict=False)
    ]
    """Load order; unloaded in reverse. By loaded name, or as `{name:, file:, load_as:}` where names differ and
    neither a dkms.conf nor a trial build can tell."""
    parameters: dict[ModuleName, dict[ParameterName, ParameterValue]] = {}
    conflicts: Annotated[tuple[ModuleName, ...], Field(max_length=16, strict=False)] = ()
    """Modules that must not be loaded beside it: unloaded, and kept from being loaded by their aliases."""
    services: Annotated[tuple[UnitName, ...], Field(max_length=16, strict=False)] = ()
    """systemd units of the host that use the driver: what runs is stopped, last first, before its code leaves the
    kernel, and started again once it is loaded, in this order. `.service` may be left out."""
    requires_pci: Annotated[tuple[PciId, ...], Field(strict=False)] = ()
    checks: Annotated[
        tuple[Annotated[tuple[Word, ...], Field(min_length=1, strict=False)], ...], Field(strict=False)
    ] = ()
    strict: bool = False
    """Reload also code that is only *rebuilt*: same source, other build."""

    @field_validator("conflicts")
    @classmethod
    def _as_the_kernel_writes_them(cls, modules: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(module_name(module) for module in modules)

    @field_validator("parameters")
    @classmethod
    def _parameters_too(cls, parameters: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        return {module_name(module): values for module, values in parameters.items()}

    @model_validator(mode="after")
    def _holds_together(self) -> Driver:
        Contradiction.demand_none(self._contradictions())
        return self

    def _contradictions(self) -> Iterator[tuple[Inner, str]]:
        for stranger in sorted(set(self.parameters) - set(self.modules)):
            yield ("parameters", stranger), f"parameters for {stranger}, which modules does not list"
        if self.dkms is not None and self.apt is not None:
            yield ("apt",), "dkms and apt are both there; a driver has one source, or none (in-tree)"
        for index, foe in enumerate(self.conflicts):
            if foe in self.modules:
                yield ("conflicts", index), f"{foe} stands in modules and in conflicts"

    def with_services(self, units: Iterable[str]) -> Driver:
        """Return this driver with more services: what another version of it had stopped, say."""
        return self.model_copy(update={"services": tuple(dict.fromkeys((*self.services, *units)))})

    @property
    def version(self) -> str:
        """Version that is wanted, as people name it; of several packages the first one's."""
        if self.apt:
            return next(iter(self.apt.packages.values()))
        return self.dkms.version if self.dkms else "in-tree"

    @property
    def brought(self) -> bool:
        """Whether something of it has to come onto a node: a build or packages."""
        return self.dkms is not None or self.apt is not None

    @property
    def digest(self) -> str:
        """Digest of what is wanted, wherever archive and key lie; the key is pinned by its fingerprint.

        A repository has one package of a name and version, so a resolved version with its hash, and the same
        version without, are the same wanted state.
        """
        local: dict[str, Any] = {"dkms": {"source"}, "apt": {"sha256": True, "repository": {"key"}}}
        wanted = self.model_dump(mode="json", exclude=local, exclude_none=True)
        return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]

    def configuration(self) -> dict[str, str]:
        """Return the files under /etc that belong to this driver: path to content."""
        head = f"# Written by fleetdrv for driver {self.name}.\n"
        options = "".join(
            f"options {file_name(module)} " + " ".join(_option(k, v) for k, v in sorted(values.items())) + "\n"
            for module, values in ((m, self.parameters.get(m)) for m in sorted(self.modules))
            if values
        )
        options += "".join(f"blacklist {module}\n" for module in self.conflicts)
        loads = "".join(f"{load_name(module)}\n" for module in self.modules)
        files = {f"/etc/modules-load.d/fleetdrv-{self.name}.conf": head + loads}
        if options:
            files[f"/etc/modprobe.d/fleetdrv-{self.name}.conf"] = head + options
        return files


def _option(name: str, value: str) -> str:
    return f'{name}="{value}"' if " " in value else f"{name}={value}"


class Reboot(Model):
    """Whether a node may be rebooted. This version never reboots; a plan that needs it is refused."""

    mode: Literal["never", "if_needed"] = "never"
    timeout_seconds: Annotated[int, Field(ge=1)] = 900


class Remediate(Model):
    """How often cron may try one wanted state on one node, and how long it waits in between.

    Counted on the Node, whichever machine tries. A human's `apply` tries regardless and begins the count anew.
    Until then, or until the playbook changes or the node is well, each node that failed spends one of
    `rollout.max_failures` in every period.
    """

    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    backoff_seconds: Annotated[int, Field(ge=0, le=604800)] = 3600
    """After the first failure; doubled with each further one, up to a day."""


class Playbook(Model):
    """What a pool of nodes is to become."""

    name: Name
    pool: PoolName = ""
    """Name of the pool's Lease where the group's own name will not do."""
    hosts: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$")]
    """Group of the inventory: the pool."""
    cluster: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$")] = ""
    """UID of the cluster's kube-system namespace; another cluster is refused."""
    drivers: Annotated[tuple[Driver, ...], Field(min_length=1, max_length=16, strict=False)]
    drain: Drain = Drain()
    reboot: Reboot = Reboot()
    rollout: Rollout = Rollout()
    hooks: Hooks = Hooks()
    remediate: Remediate = Remediate()

    @field_validator("hosts")
    @classmethod
    def _names_a_pool(cls, hosts: str, info: ValidationInfo) -> str:
        if "pool" in info.data and not info.data["pool"] and not re.fullmatch(_DNS_NAME, _pool_of(hosts)):
            raise ValueError(f"{_pool_of(hosts)!r} cannot name the pool's Lease; say another with pool:")
        return hosts

    @model_validator(mode="after")
    def _holds_together(self) -> Playbook:
        found = (*self._twice(), *self._foes(), *self._packages_in_two_ways(), *self._no_window_is_long_enough())
        Contradiction.demand_none(found)
        return self

    def _twice(self) -> Iterator[tuple[Inner, str]]:
        seen = set[tuple[str, str]]()
        for number, driver in enumerate(self.drivers):
            named: list[tuple[str, str, Inner]] = [("driver", driver.name, ("name",))]
            named += [("module", module, ("modules", index)) for index, module in enumerate(driver.modules)]
            named += [("service", unit, ("services", index)) for index, unit in enumerate(driver.services)]
            for what, name, place in named:
                if (what, name) in seen:
                    yield ("drivers", number, *place), f"{what} {name} stands there twice"
                seen.add((what, name))

    def _foes(self) -> Iterator[tuple[Inner, str]]:
        for number, driver in enumerate(self.drivers):
            for index, foe in enumerate(driver.conflicts):
                if foe in self.modules:
                    text = f"{foe} is a module of one driver and in conflicts of another"
                    yield ("drivers", number, "conflicts", index), text

    def _packages_in_two_ways(self) -> Iterator[tuple[Inner, str]]:
        """Drivers may share a package; but at two versions, or held by one only, no node would ever be done."""
        wanted: dict[str, tuple[str, bool, str]] = {}
        for number, driver in enumerate(self.drivers):
            for name, version in driver.apt.packages.items() if driver.apt else ():
                way = (version, driver.apt.hold if driver.apt else False)
                *first, whose = wanted.setdefault(name, (*way, driver.name))
                if tuple(first) != way:
                    text = f"package {name} is wanted in two ways, by {whose} and {driver.name}"
                    yield ("drivers", number, "apt", "packages", name), text

    def _no_window_is_long_enough(self) -> Iterator[tuple[Inner, str]]:
        windows, longest = self.rollout.windows, self.policy.expected_seconds
        if windows and sum(window.seconds for window in windows) < longest:
            text = f"no maintenance window is as long as the {longest} s that an outage may take, by "
            text += f"drain.timeout_seconds, drain.wait_for and {DRIVER_SECONDS} s for the driver"
            yield ("rollout", "maintenance_window"), text

    @property
    def policy(self) -> Rollout:
        """Return the rollout's policy with at least the time in `expected_seconds` that a drain may take.

        A maintenance window bounds the finish, so an outage must not start where a drain that uses its whole
        deadline would overrun it: no operator thinks of one number when he changes the other. To cut the drain off
        at the window's end instead would evict pods for nothing.
        """
        longest = max(self.rollout.expected_seconds, self.drain.longest_seconds + DRIVER_SECONDS)
        return self.rollout.model_copy(update={"expected_seconds": longest})

    @property
    def pool_name(self) -> str:
        """Name of the pool, fit for a Lease."""
        return self.pool or _pool_of(self.hosts)

    @property
    def digest(self) -> str:
        """Digest of the wanted state: drivers only, so that a wider rollout is not another wanted state."""
        text = "\n".join(driver.digest for driver in self.drivers)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def modules(self) -> tuple[str, ...]:
        """Every module of every driver, in load order."""
        return tuple(module for driver in self.drivers for module in driver.modules)


def _pool_of(hosts: str) -> str:
    return hosts.lower().replace("_", "-")
