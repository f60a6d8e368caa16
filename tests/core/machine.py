"""A node in memory that obeys the plan's steps by changing its facts.

Each program of fleetdrv/scripts does here what it does on a node, refusals included: it is as strict as the
script's own header says, so that a plan which a real node would refuse fails here too. What nobody can see
from outside (a parameter without a file in /sys) is kept all the same, and a test may look.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from fleetdrv import jobs
from fleetdrv.model import (
    Candidate,
    CheckResult,
    DkmsEntry,
    Good,
    Identity,
    Kernels,
    LoadedModule,
    ModuleFile,
    NodeFacts,
    Package,
    Packaged,
    Refreshed,
    Sameness,
)
from fleetdrv.packages import compare_versions
from fleetdrv.plan import Disruption, NodePlan, Step
from fleetdrv.playbook import Driver, Playbook
from tests.core.factories import sha256

STAGE = "/var/lib/fleetdrv/stage"
OURS = "built in our scratch tree"
Marks = tuple[bool, bool, bool]


class StepFailed(Exception):
    """A program's exit code and last words."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"exit {code}: {why}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Build:
    """A DKMS tarball: one version's modules for some kernels."""

    package: str
    version: str
    modules: Mapping[tuple[str, str], Identity]
    """(module, kernel) to its marks."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A last known good."""

    digest: str
    wanted: str
    build: Build
    texts: Mapping[str, str]
    pins: tuple[str, ...] = ()
    """Packages, each NAME=VERSION; they lie in the same folder."""
    hold: str = "no"


@dataclass(frozen=True, slots=True)
class Deb:
    """A package as dpkg has it."""

    version: str
    held: bool = False


@dataclass(slots=True)
class Running:
    """A module in the kernel."""

    identity: Identity
    parameters: Mapping[str, str]
    state: str = "live"
    users: int = 0
    """Processes that have a device open; draining the node ends them."""


@dataclass(slots=True, kw_only=True)
class Machine:
    """One node. Its state is plain data: a test breaks it as it likes."""

    kernels: Kernels
    headers: set[str]
    depends: dict[str, frozenset[str]] = field(default_factory=dict)
    marks: dict[str, Marks] = field(default_factory=dict)
    """Which of build id, srcversion and version the module's author left in it."""
    hidden: set[tuple[str, str]] = field(default_factory=set)
    """(module, parameter) pairs that /sys does not show."""
    dkms: dict[tuple[str, str, str], tuple[str, str]] = field(default_factory=dict)
    """(package, version, kernel) to (state, remark)."""
    files: dict[tuple[str, str], Identity] = field(default_factory=dict)
    loaded: dict[str, Running] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    staged: dict[str, Build] = field(default_factory=dict)
    good: dict[str, Kept] = field(default_factory=dict)
    former: dict[str, Kept] = field(default_factory=dict)
    broken: set[tuple[str, ...]] = field(default_factory=set)
    """Checks that fail whatever is loaded: broken hardware."""
    pci: frozenset[str] = frozenset()
    compiler: str = "gcc 12.2.0"
    dkms_version: str = "3.0.10"
    secure_boot: bool = False
    dpkg_interrupted: bool = False
    no_autoinstall: bool = False
    debs: dict[str, Deb] = field(default_factory=dict)
    mirror: frozenset[tuple[str, str]] = frozenset()
    """(package, version) pairs that the repositories have now."""
    lists: frozenset[tuple[str, str]] = frozenset()
    """What of it the node's package lists say."""
    lists_seconds: int | None = None
    refreshed: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Driver to age of its lists, and the text of its repository."""
    pins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Staged packages by key."""
    held_by_us: set[str] = field(default_factory=set)
    has: frozenset[str] = frozenset()
    """Modules that the packages hold, of whatever version."""
    carried: dict[str, set[str]] = field(default_factory=dict)
    """Kernel to the modules that its initramfs carries; a kernel that is not there has none."""
    old_initrds: set[tuple[str, str]] = field(default_factory=set)
    """(kernel, driver) pairs: its files or options changed since the initramfs was written."""
    services: dict[str, bool] = field(default_factory=dict)
    """systemd units to whether they run; one that runs uses the last module of its driver."""
    stopped: set[tuple[str, str]] = field(default_factory=set)
    ran: list[Step] = field(default_factory=list)

    # ---- what the probe says

    def facts(self, playbook: Playbook) -> NodeFacts:
        """Answer the questions that this playbook has."""
        packages = {driver.dkms.package for driver in playbook.drivers if driver.dkms}
        named = {name for driver in playbook.drivers if driver.apt for name in driver.apt.packages}
        packages |= {dkms_name(name) for name in named}
        asked = list(playbook.modules)
        for module in asked:
            asked += sorted(self._holders(module) - set(asked))
        return NodeFacts(
            machine_id="machine-1",
            boot_id="boot-1",
            architecture="amd64",
            os="debian 12",
            kernels=self.kernels,
            headers=frozenset(self.headers),
            loaded={module: self._loaded(module) for module in asked if module in self.loaded},
            files=tuple(
                ModuleFile(name=module, kernel=kernel, path=f"/lib/modules/{kernel}/{module}.ko", identity=marks)
                for (module, kernel), marks in sorted(self.files.items())
                if module in playbook.modules and kernel in self.kernels.bootable
            ),
            dkms=tuple(
                DkmsEntry(name=name, version=version, kernel=kernel, state=state, remark=remark)
                for (name, version, kernel), (state, remark) in sorted(self.dkms.items())
                if name in packages
            ),
            dkms_version=self.dkms_version,
            compiler=self.compiler,
            configuration={path: sha256(text) for path, text in self.texts.items()},
            staged=frozenset(self.staged),
            good=_told(self.good, playbook),
            former=_told(self.former, playbook),
            checks=tuple(self._checked(playbook)),
            pci=self.pci,
            secure_boot=self.secure_boot,
            no_autoinstall=self.no_autoinstall,
            dpkg_interrupted=self.dpkg_interrupted,
            packages={name: self._package(name) for name in named},
            candidates=tuple(
                Candidate(name=name, version=version, sha256=sha256(f"{name} {version}"))
                for name, version in sorted(self.lists)
                if name in named
            ),
            packaged=tuple(
                Packaged(package=name, dkms_name=dkms_name(name), dkms_version=self.debs[name].version)
                for name in sorted(named & set(self.debs))
            ),
            lists_seconds=self.lists_seconds,
            refreshed={
                driver: Refreshed(seconds=age, repository=sha256(text) if text else "")
                for driver, (age, text) in self.refreshed.items()
            },
            initrds=frozenset(self.carried),
            initramfs=frozenset((k, m) for k, d in self.old_initrds for m in self._carried(k, d)),
            stopped=frozenset((d, unit) for d, unit in self.stopped if d in {x.name for x in playbook.drivers}),
        )

    def _package(self, name: str) -> Package:
        deb = self.debs.get(name)
        status = "installed" if deb else "not-installed"
        held = bool(deb and deb.held)
        version = deb.version if deb else ""
        ours = held and name in self.held_by_us
        return Package(name=name, version=version, status=status, held=held, held_by_us=ours)

    def _holders(self, module: str) -> set[str]:
        return {other for other in self.loaded if module in self.depends.get(other, ())}

    def _loaded(self, name: str) -> LoadedModule:
        module, holders = self.loaded[name], self._holders(name)
        return LoadedModule(
            name=name,
            state=module.state,
            refcount=len(holders) + module.users,
            holders=frozenset(holders),
            identity=module.identity,
            parameters={
                key: shown(key, value)
                for key, value in module.parameters.items()
                if (name, key) not in self.hidden
            },
        )

    def _checked(self, playbook: Playbook) -> Iterable[CheckResult]:
        fine = all(
            module in self.loaded
            and self.loaded[module].state == "live"
            and self._file(module) is not None
            and self.loaded[module].identity.compare(self._file(module) or Identity()) is not Sameness.DIFFERENT
            for module in playbook.modules
        )
        for argv in dict.fromkeys(argv for driver in playbook.drivers for argv in driver.checks):
            works = fine and argv not in self.broken
            yield CheckResult(argv=argv, exit_code=0 if works else 1, output="" if works else "no devices\n")

    def _file(self, module: str) -> Identity | None:
        return self.files.get((module, self.kernels.running))

    # ---- what the programs do

    def identity(self, module: str, version: str, kernel: str, maker: str) -> Identity:
        """Return the marks that a build of this code for this kernel gets from this maker."""
        build_id, srcversion, plain = self.marks.get(module, (True, True, True))
        return Identity(
            build_id=sha256(f"{module} {version} {kernel} {maker}")[:40] if build_id else "",
            srcversion=sha256(f"{module} {version}")[:24] if srcversion else "",
            version=version if plain else "",
        )

    def build(self, driver: Driver, kernels: Iterable[str], maker: str = "") -> Build:
        """Compile a driver; our own builds depend on the compiler, as real ones do."""
        version, maker = driver.dkms.version, maker or f"{OURS} {self.compiler}"
        modules = {(m, k): self.identity(m, version, k, maker) for k in kernels for m in driver.modules}
        return Build(driver.dkms.package, version, modules)

    def drain(self) -> None:
        """Pods leave, and their processes with them."""
        for module in self.loaded.values():
            module.users = 0

    def run(self, step: Step, payload: Mapping[str, object]) -> None:
        """Run one step. Raises StepFailed."""
        demand_usage(step)
        self.ran.append(step)
        program = {
            "dkms_stage.sh": self._stage,
            "services.sh": self._services,
            "initramfs.sh": self._initramfs,
            "unload.sh": self._unload,
            "dkms_install.sh": self._install,
            "configure.sh": self._configure,
            "load.sh": self._load,
            "keep.sh": self._keep,
            "dkms_restore.sh": self._restore,
            "apt_refresh.sh": self._apt_refresh,
            "apt_stage.sh": self._apt_stage,
            "apt_ready.sh": self._apt_ready,
            "apt_install.sh": self._apt_install,
            "apt_keep.sh": self._apt_keep,
            "apt_restore.sh": self._apt_restore,
        }[step.program]
        program(step.argv, payload)

    def apply(self, node_plan: NodePlan, playbook: Playbook) -> None:
        """Do a whole plan as drive.py does it: stage, drain where it says so, outage, then keep."""
        files = payload(playbook)
        for step in node_plan.stage:
            self.run(step, files)
        if node_plan.disruption is not Disruption.NONE:
            self.drain()
        for step in (*node_plan.outage, *node_plan.after):
            self.run(step, files)

    def _stage(self, argv: tuple[str, ...], payload: Mapping[str, object]) -> None:
        package, version, digest, archive, key, *kernels = argv
        if key in self.staged:
            return
        if not (self.dkms_version and self.compiler):
            raise StepFailed(69, "dkms or compiler missing")
        if set(kernels) - self.headers:
            raise StepFailed(66, "no headers for a kernel")
        driver = payload.get(archive)
        if not isinstance(driver, Driver) or driver.dkms.sha256 != digest:
            raise StepFailed(65, f"{archive} is not the archive")
        assert (package, version) == (driver.dkms.package, driver.dkms.version)
        self.staged[key] = self.build(driver, kernels)

    def _initramfs(self, argv: tuple[str, ...], _: Mapping[str, object]) -> None:
        kernel, *modules = argv
        if self.carried[kernel] & set(modules):
            self.old_initrds = {(k, driver) for k, driver in self.old_initrds if k != kernel}

    def _carried(self, kernel: str, driver: str) -> set[str]:
        return {module for module in self.carried[kernel] if module.partition("_")[0] == driver}

    def _grow_old(self, driver: str, kernels: Iterable[str]) -> None:
        self.old_initrds |= {(kernel, driver) for kernel in kernels if kernel in self.carried}

    def _services(self, argv: tuple[str, ...], _: Mapping[str, object]) -> None:
        """A unit that runs has a device of its driver open, and cannot run without the driver's code."""
        verb, _seconds, driver, *units = argv
        for unit in units:
            if verb == "stop" and self.services.get(unit):
                self.services[unit] = False
                self.stopped.add((driver, unit))
            elif verb == "start" and (driver, unit) in self.stopped:
                if not any(unit.startswith(module.partition("_")[0]) for module in self.loaded):
                    raise StepFailed(84, f"{unit} finds no device")
                self.services[unit] = True
                self.stopped.discard((driver, unit))
        if verb == "start":
            self.stopped = {(d, unit) for d, unit in self.stopped if d != driver}

    def _in_use_by_services(self, module: str) -> bool:
        return any(runs and module.startswith(unit.partition("-")[0]) for unit, runs in self.services.items())

    def _unload(self, argv: tuple[str, ...], _: Mapping[str, object]) -> None:
        for name in (word.partition(":")[0] for word in argv):
            module = self.loaded.get(name)
            if module is None:
                continue
            if module.state != "live":
                raise StepFailed(76, f"{name} is stuck: {module.state}")
            if self._in_use_by_services(name):
                raise StepFailed(75, f"{name} is in use by a service")
            if self._holders(name) or module.users:
                raise StepFailed(75, f"{name} is in use by {self._holders(name)}, {module.users} processes")
            del self.loaded[name]

    def _install(self, argv: tuple[str, ...], _: Mapping[str, object]) -> None:
        package, version, tarball, *kernels = argv
        found = re.fullmatch(rf"{STAGE}/([^/]+)/{re.escape(f'{package}-{version}')}\.dkms\.tar\.gz", tarball)
        if not found or found[1] not in self.staged:
            raise StepFailed(73, f"{tarball}: cannot be unpacked")
        self._place(self.staged[found[1]], kernels)

    def _place(self, build: Build, kernels: Iterable[str]) -> None:
        """Make a build the only version of its package; other versions go with all their files."""
        for kernel in kernels:
            modules = {m: marks for (m, k), marks in build.modules.items() if k == kernel}
            if not modules:
                raise StepFailed(66, f"no modules for kernel {kernel}")
            for module, marks in modules.items():
                self.files[module, kernel] = marks
            self._grow_old(build.package, [kernel])
            for name, version, where in list(self.dkms):
                if (name, where) == (build.package, kernel):
                    del self.dkms[name, version, where]
            self.dkms[build.package, build.version, kernel] = ("installed", "")
        for name, version, kernel in list(self.dkms):
            if name == build.package and version != build.version:
                del self.dkms[name, version, kernel]
                for module in {m for m, _ in build.modules}:
                    self.files.pop((module, kernel), None)

    def _configure(self, argv: tuple[str, ...], payload: Mapping[str, object]) -> None:
        driver, *pairs = argv
        self._grow_old(driver, self.carried)
        wanted = dict(zip(pairs[1::2], pairs[::2], strict=True))
        for path, source in wanted.items():
            if path not in _own(driver) or source not in payload:
                raise StepFailed(64, f"{source} to {path}")
            self.texts[path] = str(payload[source])
        for path in set(_own(driver)) - set(wanted):
            self.texts.pop(path, None)

    def _load(self, argv: tuple[str, ...], _: Mapping[str, object]) -> None:
        for name in (word.partition(":")[0] for word in argv):
            self._modprobe(name)
            file, loaded = self._file(name), self.loaded.get(name)
            if file is None or loaded is None or loaded.state != "live" or not _same(loaded.identity, file):
                raise StepFailed(78, f"{name} is not the code of its file")

    def _modprobe(self, name: str) -> None:
        """Does nothing when it is loaded, whatever code that is."""
        file = self._file(name)
        if name in self.loaded or file is None:
            return
        for dependency in sorted(self.depends.get(name, ())):
            self._modprobe(dependency)
        self.loaded[name] = Running(identity=file, parameters=self._options(name))

    def _options(self, module: str) -> Mapping[str, str]:
        lines = [line for path, text in self.texts.items() if "modprobe.d" in path for line in text.splitlines()]
        words = [shlex.split(line) for line in lines if line.startswith(f"options {module} ")]
        return dict(word.split("=", 1) for line in words for word in line[2:])

    def _keep(self, argv: tuple[str, ...], payload: Mapping[str, object]) -> None:
        driver, digest, wanted, package, version, key, *kernels = argv
        if wanted not in payload:
            raise StepFailed(64, f"{wanted}: cannot be read")
        for kernel in kernels:
            if (package, version, kernel) not in self.dkms:
                raise StepFailed(70, f"DKMS has no build for {kernel}")
        text = str(payload[wanted])
        modules = Driver.model_validate_json(text).modules
        build = {(m, k): self.files[m, k] for k in kernels for m in modules}
        texts = {path: self.texts[path] for path in _own(driver) if path in self.texts}
        if driver in self.good and self.good[driver].digest != digest:
            self.former[driver] = self.good[driver]
        self.good[driver] = Kept(digest, text, Build(package, version, build), texts)
        self.staged.pop(key, None)

    def _restore(self, argv: tuple[str, ...], _: Mapping[str, object]) -> None:
        driver, key, digest = (*argv, *("-", "")[len(argv) - 1 :])
        states = [states[driver] for states in (self.good, self.former) if driver in states]
        kept = next((state for state in states if digest in ("", state.digest)), None)
        if kept is None:
            raise StepFailed(72, f"{driver}: no last known good")
        self._place(kept.build, sorted({kernel for _, kernel in kept.build.modules}))
        self._grow_old(driver, self.carried)
        for path in _own(driver):
            if path in kept.texts:
                self.texts[path] = kept.texts[path]
            else:
                self.texts.pop(path, None)
        self.staged.pop(key, None)

    # ---- packages: PACKAGE-dkms VERSION holds the DKMS sources PACKAGE/VERSION

    def _apt_refresh(self, argv: tuple[str, ...], payload: Mapping[str, object]) -> None:
        driver, *own = argv
        text = str(payload[own[0]]) if own else ""
        text += f"Signed-By: /etc/apt/keyrings/fleetdrv-{own[2]}.gpg\n" if own else ""
        self.lists, self.refreshed[driver] = self.mirror, (0, text)

    def _apt_stage(self, argv: tuple[str, ...], _: Mapping[str, object]) -> None:
        down, words = argv[0] == "--allow-downgrade", argv[argv[0] == "--allow-downgrade" :]
        _, key, _, modules, *rest = words
        pins, kernels = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
        if key in self.staged:
            return
        for name, version, digest in (pin.split("=") for pin in pins):
            if (name, version) not in self.mirror & self.lists:
                raise StepFailed(79, f"{name} {version} is not to be had")
            if digest != sha256(f"{name} {version}"):
                raise StepFailed(65, f"{name}: its SHA-256 is another")
            have = self.debs.get(name)
            if have and compare_versions(version, have.version) < 0 and not down:
                raise StepFailed(79, "a downgrade")
            if have and have.held and have.version != version and name not in self.held_by_us:
                raise StepFailed(82, f"{name} is held by somebody else")
        if not (self.dkms_version and self.compiler):
            raise StepFailed(69, "dkms or compiler missing")
        if set(kernels) - self.headers:
            raise StepFailed(66, "no headers for a kernel")
        (name, version, _), *_ = (pin.split("=") for pin in pins)
        maker = f"{OURS} {self.compiler}"
        pairs = [(module, kernel) for kernel in kernels for module in modules.split(",")]
        found = {(m, k): self.identity(m, version, k, maker) for m, k in pairs if m in self.has}
        if len(found) != len(pairs):
            raise StepFailed(67, "neither these packages nor the kernel have a module of that name")
        self.staged[key] = Build(dkms_name(name), version, found)
        self.pins[key] = tuple(pin.rpartition("=")[0] for pin in pins)

    def _apt_ready(self, argv: tuple[str, ...], _: Mapping[str, object]) -> None:
        del argv
        if self.dpkg_interrupted:
            raise StepFailed(83, "dpkg was interrupted before us")

    def _apt_install(self, argv: tuple[str, ...], _: Mapping[str, object]) -> None:
        driver, key, hold, _, *rest = argv
        pins, kernels = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
        staged = key in self.staged
        if not staged and any(self._version(pin) != pin.partition("=")[2] for pin in pins):
            raise StepFailed(72, f"{key}: nothing is staged")
        if staged:
            assert self.pins[key] == tuple(pins)
            self._settle_debs(pins)
            self._place(self.staged[key], kernels)
        for pin in pins:
            name = pin.partition("=")[0]
            if hold == "yes" and not self.debs[name].held:
                self.held_by_us.add(name)
                self.debs[name] = replace(self.debs[name], held=True)
            elif hold == "no" and name in self.held_by_us:
                self.held_by_us.remove(name)
                self.debs[name] = replace(self.debs[name], held=False)
        path, text = f"/etc/apt/sources.list.d/fleetdrv-{driver}.sources", self.refreshed.get(driver, (0, ""))[1]
        if text:
            self.texts[path] = text
        else:
            self.texts.pop(path, None)

    def _version(self, pin: str) -> str:
        deb = self.debs.get(pin.partition("=")[0])
        return deb.version if deb else ""

    def _settle_debs(self, pins: Iterable[str]) -> None:
        for name, version in (pin.split("=") for pin in pins):
            self.debs[name] = Deb(version, name in self.debs and self.debs[name].held)

    def _apt_keep(self, argv: tuple[str, ...], payload: Mapping[str, object]) -> None:
        driver, digest, wanted, key, *rest = argv
        pins = tuple(rest[: rest.index("--")])
        if any(self._version(pin) != pin.partition("=")[2] for pin in pins):
            raise StepFailed(70, "a package is not installed at that version")
        former = self.good.get(driver)
        build = self.staged.get(key) or (former.build if former and former.pins == pins else None)
        self.good.pop(driver, None)
        if build:
            held = all(self.debs[pin.partition("=")[0]].held for pin in pins)
            texts = {path: self.texts[path] for path in _own(driver) if path in self.texts}
            self.good[driver] = Kept(digest, str(payload[wanted]), build, texts, pins, "yes" if held else "no")
        self.staged.pop(key, None)

    def _apt_restore(self, argv: tuple[str, ...], _: Mapping[str, object]) -> None:
        driver, *staged = argv
        if driver not in self.good or not self.good[driver].pins:
            raise StepFailed(72, f"{driver}: no last known good")
        kept = self.good[driver]
        self._settle_debs(kept.pins)
        self._place(kept.build, sorted({kernel for _, kernel in kept.build.modules}))
        for path in _own(driver):
            self.texts.pop(path, None)
        self.texts |= kept.texts
        for key in staged:
            self.staged.pop(key, None)


def dkms_name(package: str) -> str:
    """Return DKMS's name of what a package holds.

    >>> dkms_name("toy-dkms")
    'toy'
    """
    return package.removesuffix("-dkms")


def payload(playbook: Playbook) -> dict[str, object]:
    """Return the files that travel with the jobs, under the names that steps use."""
    files: dict[str, object] = {}
    for driver in playbook.drivers:
        files[f"payload/{driver.name}.archive"] = driver
        if driver.apt and driver.apt.repository:
            files[f"payload/{driver.name}.sources"] = driver.apt.repository.text()
            files[f"payload/{driver.name}.key"] = "key"
        files[f"payload/{driver.name}.json"] = driver.model_dump_json()
        files |= {f"payload{path}": text for path, text in driver.configuration().items()}
    return files


def shown(key: str, value: str) -> str:
    """Return a parameter as /sys shows it. Its type is in its name here: b_ bool, i_ int, else text."""
    if key.startswith("b_"):
        return "Y" if value[0] in "yYtT1" or value == "on" else "N"
    if key.startswith("i_"):
        return str(int(value, 0))
    return value


def demand_usage(step: Step) -> None:
    """Hold a step's arguments against the usage in the header of its program.

    ARG… is one or more, [ARG] none or one, [ARG [ARG]] up to two, [ARG ARG]… any number of pairs, ARG[:MORE] still
    one word.
    """
    found = re.search(r"^# Usage: (\S+) ?(.*?)(?:   .*)?$", jobs.script(step.program), re.MULTILINE)
    assert found, f"{step.program} tells no usage"
    assert found[1] == step.program
    words = re.sub(r"(?<=\S)\[[^] ]*\]", "", found[2])
    bracket = re.search(r"\[(.*)\]", words)
    least = len(words[: bracket.start()].split() if bracket else words.split())
    options = len(bracket[1].split()) if bracket else 0
    unit = 1 if bracket is None or "[" in bracket[1] else options
    more = len(step.argv) - least
    most = more if words.endswith("…") else options
    assert 0 <= more <= most, f"{step.program} {step.argv}"
    assert more % unit == 0, f"{step.program} {step.argv}"
    assert all(step.argv), "an empty argument"


def twin(machine: Machine) -> Machine:
    """Return a copy that can be broken on its own."""
    return replace(
        machine,
        headers=set(machine.headers),
        dkms=dict(machine.dkms),
        files=dict(machine.files),
        loaded={name: replace(module) for name, module in machine.loaded.items()},
        texts=dict(machine.texts),
        staged=dict(machine.staged),
        good=dict(machine.good),
        former=dict(machine.former),
        broken=set(machine.broken),
        debs=dict(machine.debs),
        refreshed=dict(machine.refreshed),
        pins=dict(machine.pins),
        held_by_us=set(machine.held_by_us),
        services=dict(machine.services),
        carried={kernel: set(modules) for kernel, modules in machine.carried.items()},
        old_initrds=set(machine.old_initrds),
        stopped=set(machine.stopped),
        ran=[],
    )


def _told(states: Mapping[str, Kept], playbook: Playbook) -> dict[str, Good]:
    asked = {driver.name for driver in playbook.drivers}
    return {
        name: Good(driver=name, digest=kept.digest, wanted=kept.wanted)
        for name, kept in states.items()
        if name in asked
    }


def _own(driver: str) -> tuple[str, str]:
    return (f"/etc/modprobe.d/fleetdrv-{driver}.conf", f"/etc/modules-load.d/fleetdrv-{driver}.conf")


def _same(loaded: Identity, file: Identity) -> bool:
    """load.sh's measure: the first mark that both carry decides, and a build id is the first."""
    for mine, theirs in (
        (loaded.build_id, file.build_id),
        (loaded.srcversion, file.srcversion),
        (loaded.version, file.version),
    ):
        if mine and theirs:
            return mine == theirs
    return False
