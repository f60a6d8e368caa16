"""Disk images of practice nodes: Debian by mmdebstrap, built once and cached by all that goes into them.

An image holds no identity: host keys, host name and authorised keys come with each node's seed. It is built
without root where user namespaces allow it, and never mounted: mke2fs fills the file system itself.
"""

import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import platformdirs

from fleetdrv.lab import LabError
from fleetdrv.lab.locks import exclusive

RELEASES = ("bookworm", "bookworm-generic", "trixie", "trixie-generic")
"""Debian releases. As they are, with the kernel for virtual machines; -generic with the usual one, which has more
drivers (Soft-RoCE among them) and is five times as large."""

_DISK_SIZE = "8G"  # sparse; what nodes may grow to
_BUILD_SECONDS = 1800
_LAYOUT = "2"  # raise when this module changes what it makes of the same inputs
_PACKAGES = (
    *("initramfs-tools", "kmod", "udev"),
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "iproute2", "ca-certificates"),
    *("dkms", "build-essential", "python3", "psmisc", "procps", "busybox-static", "cpio", "xz-utils"),
)
_KERNELS = {
    "cloud": ("linux-image-cloud-amd64", "linux-headers-cloud-amd64"),
    "generic": ("linux-image-amd64", "linux-headers-amd64"),
}
_OFFERED = ("acpi-call-dkms", "v4l2loopback-dkms", "rdma-core", "ibverbs-providers", "ibverbs-utils")
"""Not installed: in a repository inside the image, with what they need, for playbooks to install."""
_FETCH = (
    'mkdir -p "$1/srv/packages/partial" && '
    'chroot "$1" apt-get -qq --yes --download-only --no-install-recommends '
    f"-o Dir::Cache::Archives=/srv/packages install {' '.join(_OFFERED)} && "
    'rm -rf "$1/srv/packages/partial" "$1/srv/packages/lock"'
)
_GUEST_FILES = {
    "kubelet.service": ("etc/systemd/system/fleetdrv-lab-kubelet.service", 0o644),
    "seed.service": ("etc/systemd/system/fleetdrv-lab-seed.service", 0o644),
    "network.service": ("etc/systemd/system/fleetdrv-lab-network.service", 0o644),
    "rxe.service": ("etc/systemd/system/fleetdrv-lab-rxe.service", 0o644),
    "roce.socket": ("etc/systemd/system/fleetdrv-lab-roce.socket", 0o644),
    "roce@.service": ("etc/systemd/system/fleetdrv-lab-roce@.service", 0o644),
    "rxe.rules": ("etc/udev/rules.d/90-fleetdrv-lab-rxe.rules", 0o644),
    "modprobe.conf": ("etc/modprobe.d/fleetdrv-lab.conf", 0o644),
    "sshd.conf": ("etc/ssh/sshd_config.d/fleetdrv-lab.conf", 0o644),
    "sudoers": ("etc/sudoers.d/fleetdrv-lab", 0o440),
    "apt.conf": ("etc/apt/apt.conf.d/90fleetdrv-lab", 0o644),
    "fstab": ("etc/fstab", 0o644),
}


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: a read-only qcow2 base for overlays, and the kernel QEMU starts it with."""

    release: str
    disk: Path
    kernel: Path
    initrd: Path


def cache() -> Path:
    """Name the folder where everything large is kept, outside any checkout."""
    return Path(platformdirs.user_cache_dir("fleetdrv"))


def image(release: str, say: Callable[[str], None]) -> Image:
    """Give the release's image, built when its inputs were never seen before; one builder at a time."""
    if release not in RELEASES:
        raise LabError(f"{release}: not a release the lab knows; there are {', '.join(RELEASES)}")
    folder = cache() / "lab" / "images" / f"{release}-{_digest(release)}"
    if not folder.is_dir():
        waiting = f"another process builds the {release} image; waiting for it"
        with exclusive(folder.parent / f"{release}.lock", waiting, say):
            if not folder.is_dir():
                _build(release, folder, say)
    return Image(release, folder / "disk.qcow2", folder / "vmlinuz", folder / "initrd")


def _digest(release: str) -> str:
    packages = [*_included(release), *_OFFERED]
    inputs = hashlib.sha256(json.dumps([_LAYOUT, release, packages, _DISK_SIZE]).encode())
    inputs.update(_overlay())
    inputs.update(_guest("setup.sh"))
    return inputs.hexdigest()[:12]


def _included(release: str) -> tuple[str, ...]:
    kernel = "generic" if release.endswith("-generic") else "cloud"
    return (*_KERNELS[kernel], *_PACKAGES)


def _guest(name: str) -> bytes:
    return resources.files("fleetdrv.lab").joinpath("guest", name).read_bytes()


def _overlay() -> bytes:
    """Pack the files of our own, owned by root whoever builds."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (path, mode) in sorted(_GUEST_FILES.items()):
            content = _guest(name)
            member = tarfile.TarInfo(path)
            member.mode, member.size = mode, len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _build(release: str, folder: Path, say: Callable[[str], None]) -> None:
    """Build in a folder beside the final one and rename: an image that exists is whole."""
    say(f"building the {release} image, once (about two minutes)")
    for left in folder.parent.glob(f"building-{release}.*"):  # by a builder that was killed: the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"building-{release}.", dir=folder.parent) as name:
        work = Path(name)
        work.chmod(0o755)  # the user namespace's root is another user to this folder
        (work / "overlay.tar").write_bytes(_overlay())
        (work / "setup.sh").write_bytes(_guest("setup.sh"))
        _bootstrap(release, work)
        say(f"packing the {release} image")
        _pack(work)
        made = work / "made"
        made.mkdir()
        for part in ("disk.qcow2", "vmlinuz", "initrd"):
            (work / part).rename(made / part)
        made.rename(folder)


def _bootstrap(release: str, work: Path) -> None:
    """Make the root file system as an archive; our files go in before the packages that read them."""
    inside = shlex.quote(str(work))
    argv = [
        *("mmdebstrap", "--variant=minbase", "--architectures=amd64", "--skip=cleanup/apt/lists"),
        f"--include={','.join(_included(release))}",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=force-confold",  # fstab is ours
        f"--essential-hook=tar-in {inside}/overlay.tar /",
        f"--customize-hook={_FETCH}",
        f"--customize-hook=upload {inside}/setup.sh /setup.sh",
        '--customize-hook=chroot "$1" sh /setup.sh',
        '--customize-hook=rm "$1/setup.sh"',
        f'--customize-hook=cp --dereference "$1/vmlinuz" {inside}/boot/vmlinuz',
        f'--customize-hook=mv "$1/boot/lab.cpio" {inside}/boot/initrd',
        *(release.removesuffix("-generic"), str(work / "root.tar")),
    ]
    (work / "boot").mkdir(mode=0o777)
    (work / "boot").chmod(0o777)  # written by the namespace's root
    _run(argv, work / "mmdebstrap.log", "see `man mmdebstrap`, MODES, for what building without root needs")
    for part in ("vmlinuz", "initrd"):
        (work / "boot" / part).rename(work / part)


def _pack(work: Path) -> None:
    """Turn the archive into an ext4 qcow2 that keeps the owners: as root, or as a user namespace's.

    Device files are left out: nobody else may make them, and the kernel mounts /dev itself.
    """
    helper = [] if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper"]
    (work / "tree").mkdir()
    (work / "tree").chmod(0o777)
    raw = work / "disk.raw"
    raw.touch()
    raw.chmod(0o666)
    script = (
        "mkdir tree/root && tar -C tree/root --exclude='./dev/*' -xf - && "
        'mke2fs -q -t ext4 -L practice -m 0 -E assume_storage_prezeroed=1 -d tree/root disk.raw "$1"; '
        "status=$?; rm -rf tree/root; exit $status"
    )
    fill = ["sh", "-c", f"cd {shlex.quote(str(work))} && {script}", "sh", _DISK_SIZE]
    with (work / "root.tar").open("rb") as archive:
        _run([*helper, *fill], work / "mke2fs.log", "is the disk full?", stdin=archive.fileno())
    disk = work / "disk.qcow2"
    _run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(disk)], work / "convert.log", "is the disk full?")
    disk.chmod(0o444)


def _run(argv: list[str], log: Path, advice: str, stdin: int = subprocess.DEVNULL) -> None:
    """Run one tool to its end with its output in a log; its last lines are the reason when it fails."""
    if shutil.which(argv[0]) is None:
        raise LabError(f"{argv[0]} is not installed; type: apt-get install qemu-utils mmdebstrap e2fsprogs")
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                argv, stdin=stdin, stdout=output, stderr=output, timeout=_BUILD_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{argv[0]} did not end within {_BUILD_SECONDS} s") from error
    if done.returncode != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise LabError(f"{argv[0]} failed with exit code {done.returncode}; {advice}\n{last}")
