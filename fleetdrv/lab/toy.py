"""The practice driver's source archives, the same bytes wherever and whenever they are written.

A playbook pins its source by SHA-256 and is committed, so the archive has to come out the same on any
machine: plain tar without compression (zlib's output differs between versions), fixed owner, time and order.
"""

import hashlib
import io
import os
import tarfile
from importlib import resources
from pathlib import Path

from fleetdrv.lab import LabError

_RUNS, _DOES_NOT_COMPILE, _INIT_FAILS = range(3)
_FAULTS = {"1.0": _RUNS, "1.1": _RUNS, "1.2": _DOES_NOT_COMPILE, "1.3": _INIT_FAILS}
_FILES = ("Makefile", "dkms.conf", "fleetdrv_toy.c")

VERSIONS = tuple(_FAULTS)
"""1.0 and 1.1 run and differ in code, 1.2 does not compile, 1.3 compiles and refuses to initialise."""


def archive(version: str, folder: Path) -> Path:
    """Write toy-VERSION.tar into the folder and return its path; whoever reads it never sees half a file."""
    path = folder / f"toy-{version}.tar"
    partial = folder / f".toy-{version}.tar.{os.getpid()}"
    partial.write_bytes(_tar(version))
    return partial.replace(path)


def sha256(version: str) -> str:
    """Tell the SHA-256 that `archive` gives, as a playbook pins it."""
    return hashlib.sha256(_tar(version)).hexdigest()


def _tar(version: str) -> bytes:
    """Build the archive in memory: one top folder, as DKMS and people expect of a source archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, f"toy-{version}", tarfile.DIRTYPE, b"")
        for name in _FILES:
            _add(tar, f"toy-{version}/{name}", tarfile.REGTYPE, _source(name, version))
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, kind: bytes, content: bytes) -> None:
    """Add a member that depends on nothing but its name and content: TarInfo's own time and owner are 0."""
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _source(name: str, version: str) -> bytes:
    """Fill the version and its fault into one template of fleetdrv/lab/driver."""
    if version not in _FAULTS:
        raise LabError(f"toy {version}: no such version of the practice driver; known: {', '.join(VERSIONS)}")
    template = resources.files("fleetdrv.lab").joinpath("driver", name).read_text(encoding="ascii")
    filled = template.replace("@VERSION@", version).replace("@FAULT@", str(_FAULTS[version]))
    return filled.encode("ascii")
