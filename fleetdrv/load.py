"""Playbook and archives from files. Everything wrong is reported at once, with file, line and key.

Nothing here opens a socket or starts a child: a malformed file is refused before anything is touched.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from fleetdrv import dkmsconf, faults, yamlfile
from fleetdrv.errors import FleetdrvError, InputError
from fleetdrv.modules import Module, file_name
from fleetdrv.playbook import Driver, Playbook
from fleetdrv.remedies import Repair
from fleetdrv.sources import DkmsSource

MAX_ARCHIVE_BYTES = 512 * 1024 * 1024
MAX_KEY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Loaded:
    """A playbook with its archives read and their digests proven."""

    playbook: Playbook
    path: Path
    archives: Mapping[str, bytes] = field(repr=False)
    """Driver name to archive bytes."""
    keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Driver name to the key of its package repository."""
    back: bool = False
    """The run undoes the playbook: nodes go back to what they keep."""
    repair: Repair = Repair.NO

    @property
    def digest(self) -> str:
        """Digest of what a run is after: a playbook that is undone is not the same one applied."""
        return self.playbook.digest + ("-back" if self.back else "")

    def for_one_node(self) -> Loaded:
        """Return it as a repair needs it: remedies first, and no rollout's patience with one node."""
        book = self.playbook.model_copy(update={"rollout": self.playbook.rollout.for_one_node()})
        return replace(self, playbook=book, repair=self.repair or Repair.WANTED)

    def stage_files(self) -> dict[str, bytes]:
        """Return what the stage programs get as payload, by file name."""
        files = {f"{name}.archive": data for name, data in self.archives.items()}
        files |= {f"{name}.key": data for name, data in self.keys.items()}
        for driver in self.playbook.drivers:
            if driver.apt is not None and driver.apt.repository is not None:
                files[f"{driver.name}.sources"] = driver.apt.repository.text().encode()
        return files


def playbook(path: Path) -> Loaded:
    """Read a playbook and every source archive that it names.

    DKMS package name and version come from the archive's own dkms.conf unless the playbook says them.
    Raises InputError that lists every fault of the file.
    """
    document = yamlfile.read(path)
    try:
        book = Playbook.model_validate(document.data)
    except ValidationError as error:
        raise InputError(faults.told(document, error)) from None
    return _with_archives(document, book, path)


def _with_archives(document: yamlfile.Document, book: Playbook, path: Path) -> Loaded:
    archives: dict[str, bytes] = {}
    keys: dict[str, bytes] = {}
    drivers, found = [], []
    for index, driver in enumerate(book.drivers):
        if driver.apt is not None and driver.apt.repository is not None:
            place: yamlfile.Place = ("drivers", index, "apt", "repository", "key")
            try:
                keys[driver.name] = _file(path.parent / driver.apt.repository.key, MAX_KEY_BYTES)
            except InputError as error:
                found.append(faults.at(document, place, str(error)))
        if driver.dkms is None:
            drivers.append(driver)
            continue
        try:
            archives[driver.name] = _archive(path.parent / driver.dkms.source, driver.dkms.sha256)
            drivers.append(_named(driver, driver.dkms, archives[driver.name]))
        except FleetdrvError as error:
            found.append(faults.at(document, ("drivers", index, "dkms", "source"), str(error)))
    if found:
        raise InputError("\n".join(found))
    return Loaded(book.model_copy(update={"drivers": tuple(drivers)}), path, archives, keys)


def _file(path: Path, most_bytes: int) -> bytes:
    try:
        if path.stat().st_size > most_bytes:
            raise InputError(f"{path} is larger than {most_bytes} bytes")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _archive(path: Path, wanted: str) -> bytes:
    data = _file(path, MAX_ARCHIVE_BYTES)
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise InputError(f"{path} has SHA-256 {found}, the playbook wants {wanted}")
    return data


def _named(driver: Driver, source: DkmsSource, archive: bytes) -> Driver:
    """Fill in DKMS's name and version, and the names of files, from the archive."""
    driver = _with_files(driver, source, archive)
    if source.package and source.version:
        return driver
    name, version = dkmsconf.dkms_conf(_dkms_conf(archive))[:2]
    source = source.model_copy(
        update={"package": source.package or name, "version": source.version or version}
    )
    try:
        return Driver.model_validate(driver.model_copy(update={"dkms": source}).model_dump())
    except ValidationError as error:
        said = "; ".join(f"{fault['loc'][-1]} {fault['input']!r}" for fault in error.errors())
        raise InputError(f"the archive's dkms.conf: {said} cannot be used; name it in the playbook") from None


def _with_files(driver: Driver, source: DkmsSource, archive: bytes) -> Driver:
    """Name each module's file as DKMS installs it, unless the playbook does; what it says itself is not read."""
    try:
        renamed = dkmsconf.renamed(_dkms_conf(archive))
    except InputError:
        if source.package and source.version:
            return driver
        raise
    modules = tuple(
        Module(module, renamed[module]) if file_name(module) == module and module in renamed else module
        for module in driver.modules
    )
    return driver.model_copy(update={"modules": modules})


def _dkms_conf(archive: bytes) -> str:
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            conf = next(filter(_is_dkms_conf, tar.getmembers()), None)
            content = tar.extractfile(conf) if conf else None
            if content is None:
                raise InputError("the archive holds no dkms.conf at its top or in its top folder")
            return content.read().decode("utf-8", "replace")
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        said = str(error).splitlines()[0] if str(error) else "it ends too early"
        raise InputError(f"the archive is not a tar file: {said}") from error


def _is_dkms_conf(member: tarfile.TarInfo) -> bool:
    path = PurePosixPath(member.name)
    return member.isfile() and path.name == "dkms.conf" and len(path.parts) <= 2
