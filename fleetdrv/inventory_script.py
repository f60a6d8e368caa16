"""Dynamic inventories: an executable that prints JSON when called with `--list` (Ansible's script plugin).

Where `_meta.hostvars` is missing, it is called with `--host NAME` for each host, as Ansible does. All calls
together have `SECONDS`; what the script says on stderr is told, and with its exit code where it fails.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fleetdrv.errors import InputError
from fleetdrv.groups import Groups

SECONDS = 120.0
_SECTIONS = ("hosts", "children", "vars")
_PROGRAMS = (b"#!", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
"""How executables begin: scripts, Linux, macOS. A YAML file on a Windows share has the x bit and is none."""


def is_program(path: Path, data: bytes) -> bool:
    """Tell whether a file is to be run, not read."""
    return data.startswith(_PROGRAMS) and os.access(path, os.X_OK)


def gather(path: Path, groups: Groups, note: Callable[[str], None], seconds: float = SECONDS) -> None:
    """Run it and add what it says. Raises InputError with the script's own words."""
    end = time.monotonic() + seconds

    def ask(*arguments: str) -> Any:
        said, complaint = _run(path, arguments, end, seconds)
        for line in complaint.splitlines()[-20:]:
            note(f"{path}: {line}")
        where = f"{path} {' '.join(arguments)}"
        if not said.strip() and arguments[0] == "--host":
            return {}
        try:
            return json.loads(said)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: printed no JSON: line {error.lineno}: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: printed no JSON: {error}") from error

    _Reader(path, groups, lambda host: ask("--host", host)).read(ask("--list"))


def _run(path: Path, arguments: tuple[str, ...], end: float, seconds: float) -> tuple[str, str]:
    where = f"{path} {' '.join(arguments)}"
    try:
        process = subprocess.Popen(
            [str(path.absolute()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise InputError(f"{where}: cannot be run: {error.strerror or error}") from error
    try:
        out, errors = process.communicate(timeout=max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise InputError(f"{where}: gave no answer within {seconds:.0f} s; ended") from None
    finally:
        with suppress(ProcessLookupError):  # its children, too: they hold its pipes
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
    complaint = errors.decode(errors="replace").strip()
    if process.returncode:
        last = "".join(f"\n  | {line}" for line in complaint.splitlines()[-10:])
        raise InputError(f"{where}: exit code {process.returncode}{last or ', and said nothing'}")
    try:
        return out.decode(), complaint
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: printed what is not UTF-8: {error.reason}") from error


class _Reader:
    """Reads the document of `--list` into groups."""

    def __init__(self, path: Path, groups: Groups, host_vars: Callable[[str], Any]) -> None:
        self._path, self._groups, self._host_vars = path, groups, host_vars
        self._faults: list[str] = []
        self._hosts: dict[str, None] = {}

    def read(self, document: Any) -> None:
        """Add all of it; raises InputError that names every fault."""
        if not isinstance(document, dict):
            raise InputError(f"{self._path} --list: must print a mapping of groups, found {document!r:.60}")
        meta = document.pop("_meta", None)
        for name, said in document.items():
            self._group(name, said)
        known = self._meta(meta)
        for host in self._hosts:
            variables = self._host_vars(host) if known is None and not self._faults else (known or {}).get(host)
            if self._is(variables or {}, dict, f"_meta.hostvars.{host}"):
                self._groups.set_host(host, variables or {})
        if self._faults:
            raise InputError("\n".join(self._faults))

    def _meta(self, meta: Any) -> Mapping[str, Any] | None:
        if meta is None:
            return None
        hostvars = meta.get("hostvars") if isinstance(meta, dict) else None
        return hostvars if self._is(hostvars, dict, "_meta.hostvars") else {}

    def _group(self, name: str, said: Any) -> None:
        if isinstance(said, dict) and not any(key in said for key in _SECTIONS):
            said = {"hosts": [name], "vars": said}  # Ansible's oldest way to say a host
        elif not isinstance(said, dict):
            said = {"hosts": said}
        self._groups.add_group(name)
        for host in self._texts(said.get("hosts", []), f"{name}.hosts"):
            self._hosts[host] = None
            self._groups.add_host(host, name)
        try:
            if self._is(said.get("vars", {}), dict, f"{name}.vars"):
                self._groups.set_group(name, said.get("vars", {}))
            for child in self._texts(said.get("children", []), f"{name}.children"):
                self._groups.add_child(name, child)
        except ValueError as error:
            self._faults.append(f"{self._path} --list: {name}: {error}")

    def _texts(self, said: Any, key: str) -> list[str]:
        if not self._is(said, list, key):
            return []
        texts = [item for item in said if isinstance(item, str) and item]
        if len(texts) < len(said):
            wrong = next(item for item in said if not (isinstance(item, str) and item))
            self._faults.append(f"{self._path} --list: {key}: must hold names, found {wrong!r:.60}")
        return texts

    def _is(self, said: Any, kind: type[Any], key: str) -> bool:
        if isinstance(said, kind):
            return True
        wanted = "a mapping" if kind is dict else "a list"
        self._faults.append(f"{self._path} --list: {key}: must be {wanted}, found {said!r:.60}")
        return False
