"""What machines print, turned into facts. Never a connection, a file or a clock.

The text of `scripts/probe.sh` is read strictly: a missing end, an error it met, a record nobody knows or one
that is cut short make the whole look worthless. Guessing "not installed" would install over a working driver.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from fleetdrv.errors import FleetdrvError
from fleetdrv.model import (
    Candidate,
    CheckResult,
    DkmsEntry,
    Fault,
    Good,
    Identity,
    Job,
    JobState,
    Kernels,
    LoadedModule,
    ModuleFile,
    NodeFacts,
    Package,
    Packaged,
    Refreshed,
)
from fleetdrv.modprobe import OptionLine


class ProbeError(FleetdrvError):
    """A node's account of itself cannot be read. Nothing is concluded from it."""


PROBE_VERSION = "1"

_FIELDS = {
    "fleetdrv-probe": 1,
    "machine-id": 1,
    "boot-id": 1,
    "os": 2,
    "arch": 1,
    "kernel": 2,
    "headers": 1,
    "abi": 3,
    "loaded": 6,
    "holder": 2,
    "param": 3,
    "file": 6,
    "dkms": 1,
    "dkms-version": 1,
    "compiler": 1,
    "conf": 2,
    "initrd": 1,
    "initramfs": 2,
    "staged": 1,
    "named": 3,
    "good": 3,
    "former": 3,
    "job": 4,
    "token": 1,
    "free": 2,
    "pci": 1,
    "secureboot": 1,
    "no-autoinstall": 1,
    "dpkg-interrupted": 1,
    "package": 4,
    "candidate": 3,
    "packaged": 3,
    "lists": 1,
    "refreshed": 3,
    "check": 2,
    "needed": 2,
    "stopped": 2,
    "fault": 2,
    "option": 4,
    "error": 1,
}
"""Fields after the name of each record of probe.sh. The last one may hold tabs."""

_Records = Mapping[str, Sequence[tuple[str, ...]]]
_T = TypeVar("_T")


def facts(text: str) -> NodeFacts:
    """Read the records of probe.sh; raise ProbeError when one of them cannot be trusted."""
    records = _records(text)
    kernels = dict(_pairs(records["kernel"]))
    return NodeFacts(
        machine_id=_one(records, "machine-id"),
        boot_id=_one(records, "boot-id"),
        architecture=_one(records, "arch"),
        os=" ".join(_only(records, "os")),
        kernels=Kernels(**{role: _known(kernels, role) for role in ("running", "newest", "default")}),
        headers=frozenset(kernel for (kernel,) in records["headers"]),
        loaded=_loaded(records),
        files=tuple(map(_module_file, records["file"])),
        dkms=tuple(dkms_status(line) for (line,) in records["dkms"]),
        dkms_version=_one(records, "dkms-version", ""),
        compiler=_one(records, "compiler", ""),
        abi={kernel: f"{symbols} {config}" for kernel, symbols, config in records["abi"]},
        configuration=dict(_pairs(records["conf"])),
        options=tuple(
            OptionLine(path=path, first=_number(first), last=_number(last), text=text)
            for path, first, last, text in records["option"]
        ),
        initrds=frozenset(kernel for (kernel,) in records["initrd"]),
        initramfs=frozenset(_pairs(records["initramfs"])),
        staged=frozenset(key for (key,) in records["staged"]),
        named={(key, module): file for key, module, file in records["named"]},
        good={good[0]: _good(good) for good in records["good"]},
        former={good[0]: _good(good) for good in records["former"]},
        jobs=tuple(map(_job, records["job"])),
        highest_token=_number(_one(records, "token", "0")),
        packages={package[0]: _package(package) for package in records["package"]},
        candidates=tuple(map(_candidate, records["candidate"])),
        packaged=tuple(Packaged(package=p, dkms_name=n, dkms_version=v) for p, n, v in records["packaged"]),
        lists_seconds=_number(_one(records, "lists")) if records["lists"] else None,
        refreshed={
            driver: Refreshed(seconds=_number(seconds), repository=digest.strip("-"))
            for driver, seconds, digest in records["refreshed"]
        },
        checks=tuple(map(_check, records["check"])),
        faults=tuple(map(_fault, records["fault"])),
        free_kib={path: _number(kib) for path, kib in _pairs(records["free"])},
        pci=frozenset(device.lower() for (device,) in records["pci"]),
        secure_boot=_yes(_one(records, "secureboot")),
        no_autoinstall=_yes(_one(records, "no-autoinstall")),
        dpkg_interrupted=_yes(_one(records, "dpkg-interrupted")),
        needed=tuple(_pairs(records["needed"])),
        stopped=frozenset(_pairs(records["stopped"])),
    )


def _records(text: str) -> _Records:
    """Sort the lines by record name, in their order; refuse what was cut, failed or is unknown."""
    lines = text.split("\n")
    if lines[0] != f"fleetdrv-probe\t{PROBE_VERSION}":
        raise ProbeError(f"the probe begins with {lines[0][:80]!r}, not with its name and {PROBE_VERSION}")
    if lines[-2:] != ["end", ""]:
        raise ProbeError(f"the probe was cut short after {len(lines) - 1} lines")
    records: dict[str, list[tuple[str, ...]]] = {name: [] for name in _FIELDS}
    for line in lines[:-2]:
        name, *rest = line.split("\t", 1)
        if name not in _FIELDS:
            raise ProbeError(f"the probe says {line[:80]!r}: no such record")
        fields = tuple(rest[0].split("\t", _FIELDS[name] - 1)) if rest else ()
        if len(fields) != _FIELDS[name]:
            raise ProbeError(f"the probe says {line[:80]!r}: {_FIELDS[name]} fields wanted after the name")
        records[name].append(fields)
    if records["error"]:
        raise ProbeError("the node cannot tell: " + "; ".join(what for (what,) in records["error"]))
    return records


def _only(records: _Records, name: str) -> tuple[str, ...]:
    if len(records[name]) != 1:
        raise ProbeError(f"the probe has {len(records[name])} records {name!r}, not one")
    return records[name][0]


def _one(records: _Records, name: str, default: str | None = None) -> str:
    """Return the only field of the only record; without a default it has to be there and say something."""
    if default is not None and not records[name]:
        return default
    (field,) = _only(records, name)
    if not field and default is None:
        raise ProbeError(f"the probe's record {name!r} is empty")
    return field


def _pairs(records: Sequence[tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(first, second) for first, second in records]


def _known(values: Mapping[str, _T], key: str) -> _T:
    try:
        return values[key]
    except KeyError:
        raise ProbeError(f"the probe names no {key} kernel") from None


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text):
        raise ProbeError(f"the probe says {text!r} where a number belongs")
    return int(text)


def _yes(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ProbeError(f"the probe says {text!r} where yes or no belongs")
    return text == "yes"


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ProbeError(f"the probe's base64 {text[:40]!r} cannot be read: {error}") from error


def _loaded(records: _Records) -> dict[str, LoadedModule]:
    modules: dict[str, LoadedModule] = {}
    for name, state, refcount, version, srcversion, build_id in records["loaded"]:
        modules[name] = LoadedModule(
            name=name,
            state=state,
            refcount=_number(refcount),
            holders=frozenset(dependent for held, dependent in records["holder"] if held == name),
            identity=Identity(build_id=build_id, srcversion=srcversion, version=version),
            parameters={key: value for module, key, value in records["param"] if module == name},
        )
    return modules


def _module_file(fields: tuple[str, ...]) -> ModuleFile:
    name, kernel, path, version, srcversion, build_id = fields
    identity = Identity(build_id=build_id, srcversion=srcversion, version=version)
    return ModuleFile(name=name, kernel=kernel, path=path, identity=identity)


def _good(fields: tuple[str, ...]) -> Good:
    driver, digest, wanted = fields
    return Good(driver=driver, digest=digest, wanted=_decoded(wanted).decode(errors="replace"))


def _job(fields: tuple[str, ...]) -> Job:
    job_id, state, code, step = fields
    if state not in set(JobState):
        raise ProbeError(f"the probe says that job {job_id} is {state!r}: no such state")
    exit_code = _number(code) if state == JobState.DONE else None
    return Job(id=job_id, state=JobState(state), exit_code=exit_code, failed_step=step)


def _package(fields: tuple[str, ...]) -> Package:
    name, version, status, held = fields
    if (status == "installed") > bool(version):
        raise ProbeError(f"the probe says that package {name} is installed, and no version")
    ours = held == "ours"
    return Package(name=name, version=version, status=status, held=ours or _yes(held), held_by_us=ours)


def _fault(fields: tuple[str, ...]) -> Fault:
    stamp, text = fields
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", stamp):
        raise ProbeError(f"the probe says {stamp[:80]!r} where a time of the kernel's log belongs")
    return Fault(stamp=float(stamp), text=text[:300])


def _candidate(fields: tuple[str, ...]) -> Candidate:
    name, version, sha256 = fields
    if not version or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ProbeError(f"the probe offers {name} {version!r} with SHA-256 {sha256[:80]!r}")
    return Candidate(name=name, version=version, sha256=sha256)


def _check(fields: tuple[str, ...]) -> CheckResult:
    """Read the words, each ended by a NUL, then the output, a newline and the exit status."""
    count, payload = _number(fields[0]), _decoded(fields[1]).decode(errors="replace")
    *argv, said = payload.split("\0", count)
    output, _, code = said.rpartition("\n")
    if len(argv) != count:
        raise ProbeError(f"the probe's check of {count} words holds {len(argv)}")
    return CheckResult(argv=tuple(argv), exit_code=_number(code), output=output)


_STATUS = re.compile(
    r"(?P<name>[^,/: ]+)(?:/|, )(?P<version>[^,]+?)"
    r"(?:, (?P<kernel>[^,]+), (?P<arch>[^,: ]+))?"
    r": (?P<state>added|built|installed-weak|installed|broken)(?P<remark>.*)"
)


def dkms_status(line: str) -> DkmsEntry:
    """Read one line of `dkms status`, as any release of DKMS writes it.

    >>> dkms_status("toy/1.1, 6.1.0-56-amd64, x86_64: installed")
    DkmsEntry(name='toy', version='1.1', state='installed', kernel='6.1.0-56-amd64', arch='x86_64', remark='')
    >>> dkms_status("toy, 1.1, 5.4.0-1, x86_64: built (Original modules exist)").remark
    'Original modules exist'

    Remarks may follow the state in brackets, several of them, or as text of stderr glued to the line.
    """
    match = _STATUS.fullmatch(line.strip())
    if match is None:
        raise ProbeError(f"dkms status says {line[:120]!r}: no such format is known")
    remark = "; ".join(part for part in re.split(r"[()]", match["remark"]) if part.strip()).strip()
    return DkmsEntry(
        name=match["name"],
        version=match["version"],
        state=match["state"],
        kernel=match["kernel"] or "",
        arch=match["arch"] or "",
        remark=remark,
    )
