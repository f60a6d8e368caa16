"""Nouns for tests, complete and ordinary; a test names only what it is about."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from fleetdrv.model import CheckResult, DkmsEntry, Identity, Job, JobState, Kernels, LoadedModule, ModuleFile
from fleetdrv.model import NodeFacts as Facts
from fleetdrv.playbook import Driver, Playbook, Rollout
from fleetdrv.sources import DkmsSource

KERNEL = "6.1.0-56-amd64"
NEXT_KERNEL = "6.1.0-57-amd64"


def sha256(text: str) -> str:
    """Return a digest that depends on the text alone."""
    return hashlib.sha256(text.encode()).hexdigest()


def a_source(package: str = "toy", version: str = "1.1") -> DkmsSource:
    """Return a source archive, each version with bytes of its own."""
    return DkmsSource(
        source=f"{package}-{version}.tar.gz",
        sha256=sha256(f"{package}/{version}"),
        package=package,
        version=version,
    )


def a_driver(name: str = "toy", version: str = "1.1", **more: Any) -> Driver:
    """Return a driver whose package and only module are named like it."""
    return Driver(
        **{
            "name": name,
            "dkms": a_source(name, version),
            "modules": (name.replace("-", "_"),),
            **more,
        }
    )


def a_playbook(*drivers: Driver, **more: Any) -> Playbook:
    """Return a playbook for the group `gpu`, with one ordinary driver unless told otherwise."""
    return Playbook(**{"name": "toy", "hosts": "gpu", "drivers": drivers or (a_driver(),), **more})


def a_policy(**more: Any) -> Rollout:
    """Return a rollout policy without canaries; the defaults are the playbook's."""
    return Rollout(**{"canary": 0, **more})


def an_identity(version: str = "1.1", *, build: str = "a", module: str = "toy") -> Identity:
    """Return the marks of one build of one version of a module."""
    return Identity(
        build_id=sha256(f"{module}/{version}/{build}")[:40],
        srcversion=sha256(f"{module}/{version}")[:24].upper(),
        version=version,
    )


def a_loaded(name: str = "toy", version: str = "1.1", **more: Any) -> LoadedModule:
    """Return a live module that nothing uses."""
    return LoadedModule(
        **{
            "name": name,
            "state": "live",
            "refcount": 0,
            "identity": an_identity(version, module=name),
            **more,
        }
    )


def a_file(name: str = "toy", version: str = "1.1", kernel: str = KERNEL, **more: Any) -> ModuleFile:
    """Return a module file as DKMS puts it."""
    path = f"/lib/modules/{kernel}/updates/dkms/{name}.ko.xz"
    return ModuleFile(
        **{
            "name": name,
            "kernel": kernel,
            "path": path,
            "identity": an_identity(version, module=name),
            **more,
        }
    )


def installed(package: str = "toy", version: str = "1.1", kernel: str = KERNEL, **more: Any) -> DkmsEntry:
    """Return the line of `dkms status` of a version that is in use."""
    return DkmsEntry(
        **{
            "name": package,
            "version": version,
            "state": "installed",
            "kernel": kernel,
            "arch": "x86_64",
            **more,
        }
    )


def configured(*drivers: Driver) -> Mapping[str, str]:
    """Return the digests of the drivers' own files under /etc, as the probe tells them."""
    return {path: sha256(text) for driver in drivers for path, text in driver.configuration().items()}


def some_facts(driver: Driver | None = None, **more: Any) -> Facts:
    """Return facts of a node with one kernel on which the driver is just as wanted."""
    driver = driver or a_driver()
    source = driver.dkms
    return Facts(
        **{
            "machine_id": "machine-1",
            "boot_id": "boot-1",
            "architecture": "amd64",
            "os": "debian 12",
            "kernels": Kernels(running=KERNEL, newest=KERNEL, default=KERNEL),
            "headers": frozenset({KERNEL}),
            "loaded": {module: a_loaded(module, source.version) for module in driver.modules},
            "files": tuple(a_file(module, source.version) for module in driver.modules),
            "dkms": (installed(source.package, source.version),),
            "dkms_version": "3.0.10",
            "compiler": "gcc (Debian 12.2.0-14) 12.2.0",
            "configuration": configured(driver),
            "checks": tuple(CheckResult(argv=argv, exit_code=0, output="fine") for argv in driver.checks),
            **more,
        }
    )


def a_job(job: str = "r1.outage.1", state: JobState = JobState.DONE, code: int | None = 0, step: str = "") -> Job:
    """Return a job; an exit code belongs to one that is done only."""
    return Job(id=job, state=state, exit_code=code if state is JobState.DONE else None, failed_step=step)
