"""Facts of a node that are findings by themselves, in the order in which a node is best looked at. Pure.

Cheap to dear, and what prevents the rest first: dpkg, disk, headers, DKMS for each kernel, files
against the running kernel, loaded code against files, the devices.
"""

from __future__ import annotations

from collections.abc import Iterator

from fleetdrv.finding import Finding, Found, Repair, Retry
from fleetdrv.findings_apt import BOOT_FULL, DISK_FULL, DPKG_INTERRUPTED
from fleetdrv.findings_dkms import (
    DKMS_BROKEN,
    FILE_CHANGED,
    HEADERS_MISSING,
    KERNEL_LEFT_OUT,
    NO_AUTOINSTALL,
    NO_INITRAMFS,
    NOT_BUILT,
)
from fleetdrv.findings_load import MODULE_MISSING, MODULE_WEDGED, REBOOT_PENDING, STALE_INITRAMFS
from fleetdrv.findings_words import in_words
from fleetdrv.model import DkmsEntry, Identity, JobState, NodeFacts, Sameness

FEW_KIB = 131_072
"""Free space on /var or /lib/modules below which a driver's packages and build will not fit: 128 MiB."""
FEW_BOOT_KIB = 65_536
"""On a /boot of its own: less than one initramfs of a usual kernel."""

LOADED_DIFFERS = Finding(
    name="old-module-loaded",
    rows=(45,),
    cause="The code of {module} that is loaded is not that of its file.",
    remedy="Drain the node, unload it and load it anew, or reboot; on the node: modinfo -F version {module}; "
    "cat /sys/module/{module}/version",
    retry=Retry.AFTER_REMEDY,
    repair=Repair.RELOAD,
)
JOB_CUT_OFF = Finding(
    name="job-cut-off",
    cause="The node's last job was cut off: power, reboot, or somebody killed it.",
    remedy="The same command again goes on where it ended.",
    retry=Retry.LATER,
    repair=Repair.JOB,
)


def of_facts(facts: NodeFacts) -> Iterator[Found]:
    """Yield them, the first to be mended first."""
    if facts.dpkg_interrupted:
        yield _found(DPKG_INTERRUPTED, "dpkg-interrupted", "dpkg has packages half installed, not by fleetdrv")
    yield from _space(facts)
    for kernel in facts.kernels.bootable if facts.dkms_version else ():
        if kernel not in facts.headers:
            yield _found(HEADERS_MISSING, "headers", f"/lib/modules/{kernel}/build is not there", kernel=kernel)
    yield from _dkms(facts)
    yield from _files(facts)
    yield from _loaded(facts)
    yield from _boot(facts)
    if facts.jobs and facts.jobs[-1].state is JobState.INTERRUPTED:
        yield _found(JOB_CUT_OFF, "jobs", f"job {facts.jobs[-1].id} has no exit status")


def _found(finding: Finding, fact: str, evidence: str, **words: str) -> Found:
    return Found(finding=in_words(finding, words), evidence=evidence, where=fact)


def _space(facts: NodeFacts) -> Iterator[Found]:
    free = facts.free_kib
    for path in ("/var", "/lib/modules"):
        if free.get(path, FEW_KIB) < FEW_KIB:
            yield _found(DISK_FULL, "free-space", f"{path}: {free[path]} KiB free", path=path)
    own = free.get("/boot") not in (free.get("/var"), free.get("/lib/modules"))
    if own and free.get("/boot", FEW_BOOT_KIB) < FEW_BOOT_KIB:
        yield _found(BOOT_FULL, "free-space", f"/boot: {free['/boot']} KiB free")


def _dkms(facts: NodeFacts) -> Iterator[Found]:
    if facts.no_autoinstall:
        yield _found(NO_AUTOINSTALL, "no-autoinstall", "/etc/dkms/no-autoinstall exists")
    for entry in facts.dkms:
        module, line = f"{entry.name}/{entry.version}", _line(entry)
        if entry.state.startswith("broken"):
            yield _found(DKMS_BROKEN, "dkms", line, module=module)
        elif entry.state == "added" and not _elsewhere(entry, facts):
            yield _found(NOT_BUILT, "dkms", line, module=module, kernel=facts.kernels.running)
        elif entry.remark:
            yield _found(FILE_CHANGED, "dkms", line, module=module, kernel=entry.kernel)
    yield from _left_out(facts)


def _line(entry: DkmsEntry) -> str:
    where = "".join(f", {word}" for word in (entry.kernel, entry.arch) if word)
    return f"{entry.name}/{entry.version}{where}: {entry.state}{f' ({entry.remark})' if entry.remark else ''}"


def _elsewhere(entry: DkmsEntry, facts: NodeFacts) -> bool:
    """Whether another version of that DKMS module is the one in use."""
    return any(other.name == entry.name and other.state.startswith("installed") for other in facts.dkms)


def _left_out(facts: NodeFacts) -> Iterator[Found]:
    done = [(e.name, e.kernel) for e in facts.dkms if e.state.startswith("installed")]
    for name in dict.fromkeys(name for name, _ in done):
        kernels = sorted(kernel for known, kernel in done if known == name)
        for kernel in facts.kernels.bootable:
            if kernel not in kernels and kernel in facts.headers:
                said = f"dkms has {name} installed for {', '.join(kernels)}, not for {kernel}"
                yield _found(KERNEL_LEFT_OUT, "dkms", said, module=name, kernel=kernel)


def _files(facts: NodeFacts) -> Iterator[Found]:
    running = facts.kernels.running
    for name in dict.fromkeys(file.name for file in facts.files):
        if facts.file(name, running) is None:
            said = f"{name} has files for other kernels, none for {running}"
            yield _found(MODULE_MISSING, "files", said, module=name, kernel=running)


def _loaded(facts: NodeFacts) -> Iterator[Found]:
    for name, loaded in facts.loaded.items():
        file = facts.file(name, facts.kernels.running)
        if loaded.state != "live":
            yield _found(MODULE_WEDGED, "loaded", f"{name}: {loaded.state}", module=name)
        elif (
            file
            and _comparable(loaded.identity, file.identity)
            and (loaded.identity.compare(file.identity) is Sameness.DIFFERENT)
        ):
            said = f"loaded {loaded.identity}, {file.path} {file.identity}"
            yield _found(LOADED_DIFFERS, "loaded", said, module=name)


def _comparable(one: Identity, other: Identity) -> bool:
    pairs = ((one.build_id, other.build_id), (one.srcversion, other.srcversion), (one.version, other.version))
    return any(mine and theirs for mine, theirs in pairs)


def _boot(facts: NodeFacts) -> Iterator[Found]:
    for kernel, module in sorted(facts.initramfs):
        if module != "-":
            said = f"the initramfs of {kernel} is older than {module} and carries it"
            yield _found(STALE_INITRAMFS, "initramfs", said, kernel=kernel, module=module)
    for kernel in facts.kernels.bootable if facts.initrds else ():
        if kernel not in facts.initrds:
            yield _found(NO_INITRAMFS, "initramfs", f"kernel {kernel} has none", kernel=kernel)
    if facts.kernels.default != facts.kernels.running:
        said = f"running {facts.kernels.running}, next {facts.kernels.default}"
        yield _found(REBOOT_PENDING, "kernels", said, kernel=facts.kernels.default)
