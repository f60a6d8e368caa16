"""The root file system that apt nodes share: Debian with DKMS, a compiler and headers, made once, then kept."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from fleetdrv.lab.images import cache
from fleetdrv.lab.locks import exclusive

_LAYOUT = "1"  # raise when this module makes something else of the same packages
_PACKAGES = ("dkms", "build-essential", "kmod", "linux-headers-cloud-amd64", "openssl", "procps")
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
_UNAME = '#!/bin/sh\n[ "$*" = -r ] || exec /usr/bin/uname "$@"\ncat /proc/sys/kernel/osrelease\n'


def root() -> Path:
    """Return the folder, building it (a minute, from Debian's mirror) when its inputs were never seen before."""
    inputs = json.dumps([_LAYOUT, _PACKAGES, _LEFT_OUT, _UNAME]).encode()
    folder = cache() / "apt-node" / hashlib.sha256(inputs).hexdigest()[:12]
    if not folder.is_dir():
        with exclusive(folder.parent / "lock", "another process builds the root file system", print):
            if not folder.is_dir():
                _build(folder)
    return folder


def kernel(folder: Path) -> str:
    """Return the kernel whose headers are there."""
    (found,) = (path.parent.name for path in (folder / "usr/lib/modules").glob("*/build"))
    return found


def _build(folder: Path) -> None:
    """Build beside the final place and rename: a root that exists is whole."""
    with tempfile.TemporaryDirectory(prefix="building-", dir=folder.parent) as scratch:
        tree = Path(scratch) / "tree"
        excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
        packages = f"--include={','.join(_PACKAGES)}"
        made = subprocess.run(
            ["mmdebstrap", "--mode=root", "--variant=minbase", packages, *excluded, "bookworm", tree],
            capture_output=True,
            text=True,
        )
        if made.returncode:
            raise RuntimeError(f"mmdebstrap ended with {made.returncode}:\n{made.stderr[-2000:]}")
        (tree / "usr/local/bin/uname").write_text(_UNAME)
        (tree / "usr/local/bin/uname").chmod(0o755)
        (tree / "etc/apt/sources.list").unlink()
        (tree / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        _pretend_a_kernel(tree, kernel(tree))
        _sign_quickly(tree)
        shutil.move(tree, folder)


def _pretend_a_kernel(tree: Path, release: str) -> None:
    """What depmod and the postinst of a *-dkms package look at: an image is not needed for that."""
    modules = tree / "usr/lib/modules" / release
    (modules / "kernel").mkdir()
    for name in ("modules.order", "modules.builtin"):
        (modules / name).touch()
    for name in ("vmlinuz", "config"):
        (tree / "boot" / f"{name}-{release}").touch()
    subprocess.run(["chroot", tree, "depmod", release], check=True)


def _sign_quickly(tree: Path) -> None:
    """DKMS makes a signing key before its first build: once for all nodes."""
    request = ["openssl", "req", "-new", "-x509", "-nodes", "-days", "36500", "-subj", "/CN=apt-node/"]
    output = ["-newkey", "rsa:2048", "-outform", "DER", "-keyout", "mok.key", "-out", "mok.pub"]
    subprocess.run([*request, *output], cwd=tree / "var/lib/dkms", check=True, capture_output=True)
