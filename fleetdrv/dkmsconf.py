"""What a dkms.conf says of its package, without running it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fleetdrv.errors import InputError
from fleetdrv.model import module_name

_ASSIGNMENT = re.compile(
    r"""(?P<key>\w+)(?:\[(?P<index>\d+)\])?=(?P<quote>["']?)(?P<value>[^"']*)(?P=quote)"""
)
_CONF_KEYS = re.compile(r"\b(PACKAGE_NAME|PACKAGE_VERSION|(BUILT|DEST)_MODULE_NAME)\b(\[[^]]*\])?\+?=")
_OPENS = re.compile(r"(if|for|while|until|case)\b|.*\(\)\s*\{?$")
_CLOSES = re.compile(r"(fi\b|done\b|esac\b|\})")


def dkms_conf(text: str) -> tuple[str, str, tuple[str, ...]]:
    """Read package name, version and module names (as the kernel writes them) from a dkms.conf.

    >>> dkms_conf('PACKAGE_NAME="toy"\\nPACKAGE_VERSION=1.0\\nBUILT_MODULE_NAME[0]="$PACKAGE_NAME-core"\\n')
    ('toy', '1.0', ('toy_core',))

    It is a bash program; only plain assignments are understood. Anything else that would decide these names
    is refused rather than guessed: the playbook can say them.
    """
    name, version, modules = _parsed(text)
    return name, version, tuple(file for _, file in modules)


def renamed(text: str) -> Mapping[str, str]:
    """Return the modules that a dkms.conf installs under another name than it builds them: that name by theirs.

    >>> renamed('PACKAGE_NAME=nv\\nPACKAGE_VERSION=1\\nBUILT_MODULE_NAME[0]=nv\\nDEST_MODULE_NAME[0]=nv-cur\\n')
    {'nv': 'nv_cur'}

    A loaded module has the name that it was built under; what DKMS calls its file afterwards changes nothing.
    """
    return {built: file for built, file in _parsed(text)[2] if built != file}


def _parsed(text: str) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    found: dict[tuple[str, int], str] = {}
    depth = 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*", "", raw).strip()
        depth += bool(_OPENS.match(line)) - bool(_CLOSES.match(line))
        if not _CONF_KEYS.search(line):
            continue
        match = _ASSIGNMENT.fullmatch(line.rstrip(";"))
        if match is None or depth > 0:
            raise _unclear(f"line {number}: {raw.strip()}")
        found[match["key"], int(match["index"] or 0)] = match["value"]
    name, version = (_expanded(found.get((key, 0), ""), {}) for key in ("PACKAGE_NAME", "PACKAGE_VERSION"))
    if not name or not version:
        raise _unclear("PACKAGE_NAME or PACKAGE_VERSION is missing")
    known = {"PACKAGE_NAME": name, "PACKAGE_VERSION": version}
    built = {index: value for (key, index), value in found.items() if key == "BUILT_MODULE_NAME"} or {0: name}
    pairs = ((built[index], found.get(("DEST_MODULE_NAME", index), built[index])) for index in sorted(built))
    return name, version, tuple((_named(loaded, known), _named(file, known)) for loaded, file in pairs)


def _named(value: str, known: Mapping[str, str]) -> str:
    return module_name(_expanded(value, known))


def _expanded(value: str, known: Mapping[str, str]) -> str:
    for key, text in known.items():
        value = re.sub(rf"\$(\{{{key}\}}|{key}\b)", text.replace("\\", r"\\"), value)
    if "$" in value or "`" in value:
        raise _unclear(value)
    return value


def _unclear(what: str) -> InputError:
    remedy = "name the DKMS package, its version and modules in the playbook"
    return InputError(f"dkms.conf: {what}: not a plain assignment; {remedy}")
