"""Where sudo's password and a key's passphrase come from: a terminal, a file, a descriptor. Never argv."""

from __future__ import annotations

import os
import stat
import sys
from getpass import getpass
from pathlib import Path

from fleetdrv.errors import InputError
from fleetdrv.screen import asking
from fleetdrv.secret import Secret

DESCRIPTOR_VARIABLE = "FLEETDRV_SUDO_PASSWORD_FD"
_MOST_BYTES = 4096


def on_terminal() -> bool:
    """Tell whether somebody is there to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def sudo_password(*, ask: bool, file: str) -> Secret | None:
    """Return sudo's password from the one source that is named; None where none is.

    Raises InputError where two are named, or the one cannot be read.
    """
    descriptor = os.environ.get(DESCRIPTOR_VARIABLE, "")
    named = [bool(ask), bool(file), bool(descriptor)]
    if sum(named) > 1:
        raise InputError(
            f"sudo's password: name one of --ask-sudo-password, --sudo-password-file and {DESCRIPTOR_VARIABLE}"
        )
    if ask:
        return from_terminal("sudo password: ", instead="--sudo-password-file FILE")
    if file:
        return from_file(Path(file).expanduser())
    return from_descriptor(descriptor) if descriptor else None


def from_terminal(prompt: str, *, instead: str) -> Secret:
    """Ask once, without an echo. Raises InputError where nobody is there to be asked."""
    if not on_terminal():
        raise InputError(f"{prompt.rstrip(': ')}: nobody to ask, this is no terminal; instead: {instead}")
    try:
        with asking():
            return Secret(getpass(prompt, stream=sys.stderr), prompt.rstrip(": "))
    except EOFError:
        raise InputError(f"{prompt.rstrip(': ')}: none was given") from None


def passphrase(key: Path) -> Secret | None:
    """Ask for the passphrase of a key, without an echo; None where nobody is there, or nothing is typed."""
    if not on_terminal():
        return None
    try:
        with asking():
            text = getpass(f"passphrase for the key {key}: ", stream=sys.stderr)
    except EOFError:
        return None
    return Secret(text, f"passphrase for {key}") if text else None


def from_file(path: Path) -> Secret:
    """Read the first line of a file that nobody else may read. Raises InputError."""
    where = f"--sudo-password-file {path}"
    try:
        with path.open("rb") as stream:
            about = os.fstat(stream.fileno())
            if stat.S_ISREG(about.st_mode) and about.st_mode & 0o077:
                raise InputError(f"{where}: others may read it; type: chmod 600 {path}")
            text = stream.readline(_MOST_BYTES)
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror}") from None
    return _secret(text, where)


def from_descriptor(number: str) -> Secret:
    """Read one line from a descriptor that the caller has opened for us, and close it. Raises InputError."""
    where = f"{DESCRIPTOR_VARIABLE}={number}"
    try:
        with open(int(number), "rb") as stream:
            return _secret(stream.readline(_MOST_BYTES), where)
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: cannot be read: {getattr(error, 'strerror', '') or error}") from None


def _secret(line: bytes, where: str) -> Secret:
    try:
        return Secret(line.rstrip(b"\r\n").decode(), where)
    except UnicodeDecodeError:
        raise InputError(f"{where}: is no text in UTF-8") from None
