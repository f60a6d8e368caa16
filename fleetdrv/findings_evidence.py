"""What scripts/evidence.sh prints, cut into its sections, and what they show by themselves. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from fleetdrv.finding import Found
from fleetdrv.findings import classify
from fleetdrv.findings_apt import DISK_FULL, DPKG_INTERRUPTED, KERNEL_NOT_HELD, READ_ONLY
from fleetdrv.findings_dkms import NOT_SIGNED
from fleetdrv.findings_load import REBOOT_PENDING
from fleetdrv.findings_repository import CLOCK_WRONG
from fleetdrv.findings_words import in_words

SKEW_SECONDS = 300
"""A clock that is off by more is a finding: certificates and signed indexes begin to fail by minutes."""


def sections(text: str) -> dict[str, str]:
    """Cut the program's output. A text that was cut off on its way has what arrived.

    >>> sections("section a\\n|1\\n|\\n|2\\nsection b\\nend\\n")
    {'a': '1\\n\\n2', 'b': ''}
    """
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.split("\n"):
        if line.startswith("section "):
            lines = found.setdefault(line.removeprefix("section "), [])
        elif line.startswith("|"):
            lines.append(line[1:])
    return {name: "\n".join(lines) for name, lines in found.items()}


def questions(told: Mapping[str, str]) -> tuple[str, ...]:
    """Return what to ask the probe about: the DKMS modules, and the modules from outside the kernel's own tree."""
    dkms = re.findall(r"^([A-Za-z0-9_+][\w.+-]*?)[/,] ?[^\s,:]+[,:]", told.get("dkms-status", ""), re.MULTILINE)
    modules = [row.split()[1] for row in told.get("modules", "").splitlines() if len(row.split()) > 1]
    named = [name for name in modules if re.fullmatch(r"[A-Za-z0-9_][\w-]*", name)]
    asked = [("dkms", name) for name in dkms] + [("module", f"{n.replace('-', '_')}:{n}") for n in named]
    return tuple(word for question in list(dict.fromkeys(asked))[:_MOST_ASKED] for word in question)


_MOST_ASKED = 60


def of_evidence(told: Mapping[str, str], now: float) -> Iterator[Found]:
    """Yield what the sections show by themselves; `now`: seconds since 1970 here, when they were gathered."""
    if (holder := told.get("apt-lock", "").strip()).startswith("process "):
        yield from classify(f"dpkg's lock is held by {holder}")[:1]
    elif audit := told.get("dpkg-audit", "").strip():
        said = "\n".join(audit.splitlines()[:6])
        yield Found(finding=in_words(DPKG_INTERRUPTED, {}), evidence=said, where="dpkg --audit")
    yield from _disks(told.get("disks", ""))
    yield from _clock(told.get("clock", ""), now)
    boot = told.get("secure-boot", "")
    if "SecureBoot enabled" in boot and "is not enrolled" in boot:
        yield Found(finding=in_words(NOT_SIGNED, {}), evidence=boot.strip()[:300], where="mokutil")
    yield from _holds(told.get("holds", "").split(), told.get("kernel-packages", "").splitlines())
    if "there/run/reboot-required" in told:
        words = {"kernel": "see /run/reboot-required.pkgs on the node"}
        said = "/run/reboot-required exists"
        yield Found(finding=in_words(REBOOT_PENDING, words), evidence=said, where="reboot-required")


def _disks(text: str) -> Iterator[Found]:
    _, inodes, mounts = [*text.split("\n\n"), "", "", ""][:3]
    for row in inodes.splitlines()[1:]:
        fields = row.split()
        if len(fields) > 5 and fields[4] == "100%" and fields[5] in _OURS:
            yield Found(finding=in_words(DISK_FULL, {"path": fields[5]}), evidence=row, where="inodes")
    for row in mounts.splitlines():
        fields = row.split()
        if len(fields) > 2 and fields[1] in _OURS and fields[2] in _ON_DISK:
            yield Found(finding=in_words(READ_ONLY, {}), evidence=row, where="mounts")


_OURS = frozenset({"/", "/var", "/usr", "/boot", "/lib/modules", "/var/lib"})
_ON_DISK = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"})


def _clock(text: str, now: float) -> Iterator[Found]:
    seconds = text.strip().partition("\n")[0]
    if seconds.isdigit() and abs(skew := int(seconds) - now) > SKEW_SECONDS:
        said = f"the node's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
        yield Found(finding=in_words(CLOCK_WRONG, {}), evidence=said, where="clock")


_BRINGS_KERNELS = re.compile(
    r"^ii +(linux-(?:image-)?(?:generic|virtual|lowlatency|cloud|amd64|arm64|azure|aws|gcp|nvidia)\S*) "
)


def _holds(held: Sequence[str], packages: Sequence[str]) -> Iterator[Found]:
    """Somebody meant to hold the kernel, and what brings new ones is not what he held."""
    brings = [match[1] for row in packages if (match := _BRINGS_KERNELS.match(row))]
    free = [name for name in brings if name not in held]
    on_hold = [name for name in held if name.startswith("linux-")]
    if on_hold and free:
        said = f"held: {', '.join(on_hold)}; installed and not held: {', '.join(free)}"
        yield Found(finding=in_words(KERNEL_NOT_HELD, {"package": free[0]}), evidence=said, where="holds")
