"""The nouns: what a node says of itself. Frozen, and free of I/O, clocks and file formats.

Nothing here is remembered between two looks: a fact is what one probe read. A field that could not be
read does not exist as a default; the probe fails instead (see `parse.facts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fleetdrv.modprobe import OptionLine


def module_name(name: str) -> str:
    """Return the name as the kernel writes it: files and aliases may say `nvidia-uvm`, /sys never does.

    >>> module_name("nvidia-uvm")
    'nvidia_uvm'
    """
    return name.replace("-", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One line of the inventory: how to reach a machine, and which Node object it claims to be."""

    name: str
    node_name: str
    variables: Mapping[str, object] = field(default_factory=dict)
    groups: frozenset[str] = frozenset()
    places: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where variables that fleetdrv reads are said: file and line, as far as that is known."""


class Sameness(StrEnum):
    """Loaded code held against the file on disk."""

    SAME = "same"
    REBUILT = "rebuilt"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What tells one build of a module from another; any of the three may be absent.

    The GNU build id changes with every build, `srcversion` with the source, `version` when the author
    remembers. Debian's in-tree modules have no srcversion, acpi_call has no version.
    """

    build_id: str = ""
    srcversion: str = ""
    version: str = ""

    def compare(self, other: Identity) -> Sameness:
        """Tell whether both are the same build, the same source built again, or different code.

        Without any mark that both carry, nothing proves them equal: *different*.
        """
        if self.build_id and self.build_id == other.build_id:
            return Sameness.SAME
        both_built = bool(self.build_id and other.build_id)
        for mine, theirs in ((self.srcversion, other.srcversion), (self.version, other.version)):
            if mine and theirs:
                if mine != theirs:
                    return Sameness.DIFFERENT
                return Sameness.REBUILT if both_built else Sameness.SAME
        return Sameness.DIFFERENT


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModule:
    """One entry of /sys/module that came from a file (built-ins have no `initstate`)."""

    name: str
    state: str
    """`live`, `coming` or `going`; a module that stays `going` only leaves by a reboot."""
    refcount: int
    holders: frozenset[str] = frozenset()
    """Modules that depend on this one; `refcount` beyond their number is processes."""
    identity: Identity = Identity()
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleFile:
    """What `modprobe` would load under one kernel."""

    name: str
    kernel: str
    path: str
    identity: Identity = Identity()


@dataclass(frozen=True, slots=True, kw_only=True)
class DkmsEntry:
    """One line of `dkms status`; `kernel` is empty for a version that is only added."""

    name: str
    version: str
    state: str
    kernel: str = ""
    arch: str = ""
    remark: str = ""
    """Text in brackets after the state: files changed or gone since DKMS put them there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A Debian package as dpkg has it."""

    name: str
    version: str
    """Empty where nothing of it is there."""
    status: str
    """dpkg's word: installed, half-configured, config-files; not-installed where dpkg does not know it."""
    held: bool = False
    held_by_us: bool = False
    """The hold is the one that an earlier run set; any other is for its owner to lift."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One version of a package that the node's package lists offer for its architecture."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """A dkms.conf among the files of an installed package, and the names in it."""

    package: str
    dkms_name: str
    dkms_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """When stage last got package lists for a driver, and from which extra repository."""

    seconds: int
    """Age by the node's own clock."""
    repository: str
    """SHA-256 of the repository's text (`sources.Repository.text`); empty where there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """The kernels that can be running after the next boot; a driver must be there for each of them."""

    running: str
    newest: str
    default: str

    @property
    def bootable(self) -> tuple[str, ...]:
        """Running kernel first, each once."""
        return tuple(dict.fromkeys((self.running, self.newest, self.default)))


class JobState(StrEnum):
    """How far a job on a node is; see scripts/job.sh."""

    CLAIMED = "claimed"
    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One folder under /var/lib/fleetdrv/jobs."""

    id: str
    state: JobState
    exit_code: int | None = None
    failed_step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Good:
    """Last known good of one driver, written only from a verified state."""

    driver: str
    digest: str
    """Digest of the driver's wanted state that was verified (`playbook.Driver.digest`)."""
    wanted: str
    """That wanted state itself, as JSON, so that a rollback is verified by the same plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One of the playbook's checks, run on the node."""

    argv: tuple[str, ...]
    exit_code: int
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One line of the kernel's log that tells of a fault, of the kernel itself or of the playbook's modules."""

    stamp: float
    """Seconds since boot by the log's own clock, which drifts from all others: compare it with itself only."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """All that one probe read."""

    machine_id: str
    boot_id: str
    architecture: str
    os: str
    kernels: Kernels
    headers: frozenset[str]
    """Kernels whose build tree is there (/lib/modules/KERNEL/build)."""
    loaded: Mapping[str, LoadedModule]
    files: tuple[ModuleFile, ...] = ()
    dkms: tuple[DkmsEntry, ...] = ()
    dkms_version: str = ""
    """Empty when dkms is not installed."""
    compiler: str = ""
    abi: Mapping[str, str] = field(default_factory=dict)
    """Kernel to digests of its Module.symvers and .config: the same release may come from another build."""
    configuration: Mapping[str, str] = field(default_factory=dict)
    """Path to SHA-256, for our own files under /etc."""
    options: tuple[OptionLine, ...] = ()
    """All that modprobe reads; asked for where a driver has parameters."""
    initrds: frozenset[str] = frozenset()
    """Kernels that have an initramfs."""
    initramfs: frozenset[tuple[str, str]] = frozenset()
    """(kernel, module) pairs: inside the initramfs, which is older than the module's file or its options. `-` for
    a module where nothing on the node can list one."""
    staged: frozenset[str] = frozenset()
    """Keys of finished builds that wait under /var/lib/fleetdrv/stage."""
    named: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(key of a finished build, module) to its file's name where that is another; key `-` is what is installed."""
    good: Mapping[str, Good] = field(default_factory=dict)
    former: Mapping[str, Good] = field(default_factory=dict)
    """What was last known good before that, with another wanted state: to where a rollback leads."""
    jobs: tuple[Job, ...] = ()
    """Oldest first."""
    highest_token: int = 0
    """Highest fencing token this node has seen for the pool."""
    packages: Mapping[str, Package] = field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()
    """In no order."""
    packaged: tuple[Packaged, ...] = ()
    lists_seconds: int | None = None
    """Age of the newest package lists by the node's own clock; None where there are none."""
    refreshed: Mapping[str, Refreshed] = field(default_factory=dict)
    """Driver to when its lists were asked for."""
    checks: tuple[CheckResult, ...] = ()
    faults: tuple[Fault, ...] = ()
    """The newest, oldest first; asked for where a canary has a soak, and for a repair."""
    free_kib: Mapping[str, int] = field(default_factory=dict)
    """Free space by path: /var, /boot, /lib/modules."""
    pci: frozenset[str] = frozenset()
    """`vendor:device` of every PCI device, lower-case hex."""
    secure_boot: bool = False
    no_autoinstall: bool = False
    """/etc/dkms/no-autoinstall exists: DKMS builds nothing for new kernels. Reported, respected."""
    dpkg_interrupted: bool = False
    needed: tuple[tuple[str, str], ...] = ()
    """(loaded module, what of the node itself hangs on it) pairs: the SSH session's interface, system disks."""
    stopped: frozenset[tuple[str, str]] = frozenset()
    """(driver, systemd unit) pairs: was active, was stopped for an outage, and is not known to run again."""

    @property
    def kernel_log(self) -> str:
        """Those faults as dmesg prints them."""
        return "\n".join(f"[{fault.stamp}] {fault.text}" for fault in self.faults)

    def hanging_on(self, module: str) -> tuple[str, ...]:
        """Return what of the node itself hangs on a module."""
        return tuple(what for name, what in self.needed if name == module)

    def file(self, module: str, kernel: str) -> ModuleFile | None:
        """Return what `modprobe` would load for that kernel, if anything."""
        return next((f for f in self.files if f.name == module and f.kernel == kernel), None)
