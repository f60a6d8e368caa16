"""group_vars/ and host_vars/ beside an inventory (Ansible's host_group_vars plugin): YAML or JSON.

Looked up by the name of a group or host: NAME, NAME.yml, NAME.yaml, NAME.json, the first that is there. A folder
counts with all its files, sorted, the later stronger. A file that ansible-vault encrypted is told and left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

from fleetdrv.ansible_yaml import Document, is_encrypted, line, read_bytes
from fleetdrv.errors import InputError
from fleetdrv.groups import Said

_EXTENSIONS = ("", ".yml", ".yaml", ".json")
_MOST_DEPTH = 16


class VarsFiles:
    """The files beside the sources of one inventory. Folders are listed once."""

    def __init__(self, folders: Iterable[Path], note: Callable[[str], None]) -> None:
        self._folders = list(dict.fromkeys(folders))
        self._note = note
        self._listed: dict[Path, frozenset[str]] = {}

    def group(self, name: str) -> Said:
        """Return what the files say of a group; raises InputError with file, line and key."""
        return self._variables("group_vars", name)

    def host(self, name: str) -> Said:
        """Return what the files say of a host; raises InputError with file, line and key."""
        return self._variables("host_vars", name)

    def _variables(self, kind: str, name: str) -> Said:
        found = Said()
        for folder in self._folders:
            for path in self._files(folder / kind, name):
                found.take(self._read(path))
        return found

    def _files(self, folder: Path, name: str) -> list[Path]:
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(folder))
            except (FileNotFoundError, NotADirectoryError):
                self._listed[folder] = frozenset()
            except OSError as error:
                raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
        for extension in _EXTENSIONS:
            if f"{name}{extension}" in self._listed[folder]:
                path = folder / f"{name}{extension}"
                return self._inside(path, _MOST_DEPTH) if path.is_dir() else [path]
        return []

    def _inside(self, folder: Path, depth: int) -> list[Path]:
        """Return a folder's files; hidden ones, backups, and other kinds are left out."""
        found: list[Path] = []
        try:
            entries = sorted(folder.iterdir(), key=lambda path: path.name)
        except OSError as error:
            raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
        for path in entries:
            if path.name.startswith(".") or path.name.endswith("~"):
                continue
            if path.is_dir() and not path.suffix and depth:
                found += self._inside(path, depth - 1)
            elif path.is_file() and path.suffix in _EXTENSIONS:
                found.append(path)
        return found

    def _read(self, path: Path) -> Said:
        data = read_bytes(path)
        if is_encrypted(data):
            self._note(f"{path}: encrypted by ansible-vault: what it says is not known here")
            return Said()
        document = Document(path, data)
        root = document.root
        if root is None or (isinstance(root, yaml.ScalarNode) and root.tag.endswith(":null")):
            return Said()
        if not isinstance(root, yaml.MappingNode):
            raise InputError(f"{path}:{line(root)}: must be a mapping of variables")
        return document.variables(root)
