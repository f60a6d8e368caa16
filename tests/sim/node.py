"""A simulated node: the real scripts, the real dkms and real module files, without a machine of its own.

One holder process is PID 1 of private mount, PID and host name namespaces (boot.sh). What the node writes to
/etc, /usr/src, /lib/modules and /var/lib stays in overlays under its folder; /sys/module is a plain folder
that stand-ins for modprobe and rmmod fill from the real .ko. The holder lives as long as a pipe from this
process: when the tests die, however they die, the kernel ends every process of the node.

Not simulated: devices, dependencies between modules, systemd (so jobs take the setsid way), running code.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

_HERE = Path(__file__).parent
_BUILD_ID_NOTE = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0"
_ENTRY_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GOOD = ("digest", "build", "packages", "wanted.json")
_RUNNING_JOBS = """
cd /var/lib/fleetdrv/jobs 2>/dev/null || exit 0
for job in *; do
    [ -e "$job/started" ] && [ ! -e "$job/rc" ] || continue
    read -r boot pid _ <"$job/started"
    [ "$boot" != "$(cat /proc/sys/kernel/random/boot_id)" ] || [ ! -d "/proc/$pid" ] || echo "$job"
done
"""


def headers_kernel() -> str:
    """Return the kernel whose headers this machine has; the smallest flavour where there are several."""
    kernels = [path.parent.name for path in Path("/lib/modules").glob("*/build") if path.exists()]
    if not kernels:
        raise RuntimeError("no kernel headers here: apt-get install linux-headers-cloud-amd64 dkms")
    return max(kernels, key=lambda kernel: ("cloud" in kernel, kernel))


def build_id(path: Path) -> str:
    """Return the GNU build id in a note or a module file; empty where there is none."""
    content = path.read_bytes() if path.exists() else b""
    start = content.find(_BUILD_ID_NOTE)
    return "" if start < 0 else content[start + 16 : start + 36].hex()


class SimNode:
    """One node. Its folder outlives it and is where a test looks, or breaks something on purpose.

    What lies below an `up` folder is the node's disk: look from outside, but write by `call` only, since the
    kernel does not expect an overlay's layers to change under it.

    `sys/module` what is loaded · `varlib/up/fleetdrv` our own records · `busy/NAME` makes a module busy ·
    `modprobe-lies` makes modprobe load nothing and exit 0 · `kmsg` the kernel's log · `bin` stand-ins, first
    in PATH. `builds` is a folder of compiled modules that nodes may share: each source is compiled once.
    """

    kept: tuple[str, ...] = ("dkms", "boot", "etc", "src", "modules", "varlib")
    """What it keeps over a reboot, and what a snapshot is made of."""

    def __init__(
        self, folder: Path, name: str, *, builds: Path | None = None, kernels: tuple[str, ...] = ()
    ) -> None:
        self.folder, self.name = folder, name
        self.kernels = kernels or (self.find_kernel(),)
        """Kernels that can boot, the running one first; those this machine lacks get copies of its headers."""
        self.kernel = self.kernels[0]
        self.machine_id = hashlib.md5(f"{folder}/{name}".encode(), usedforsecurity=False).hexdigest()
        self.boot_id = ""
        self._builds = builds or folder / "builds"
        self._furnish()
        self._start()

    def find_kernel(self) -> str:
        """Return the kernel that runs."""
        return headers_kernel()

    def _init(self) -> list[str]:
        """Return the program of PID 1, with its arguments."""
        return [str(_HERE / "boot.sh"), str(self.folder), self.name]

    def _furnish(self) -> None:
        """Lay out what is there before the first boot."""
        for place in ("dkms", "boot", "empty", "busy", "sys", "etc/up"):
            (self.folder / place).mkdir(parents=True, exist_ok=True)
        self._builds.mkdir(parents=True, exist_ok=True)
        (self.folder / "bin").mkdir(exist_ok=True)
        for stand_in in (_HERE / "bin").iterdir():
            (self.folder / "bin" / stand_in.name).symlink_to(stand_in)
        if self._builds != self.folder / "builds":
            (self.folder / "builds").symlink_to(self._builds)
        (self.folder / "etc/up/machine-id").write_text(f"{self.machine_id}\n")
        (self.folder / "osrelease").write_text(f"{self.kernel}\n")
        for kernel in self.kernels:
            self._kernel(kernel)
        self._signing_key()

    def _kernel(self, kernel: str) -> None:
        """Install a kernel, with headers that call it by its name."""
        modules, own = self.folder / "modules/up" / kernel, self.find_kernel()
        (modules / "kernel").mkdir(parents=True, exist_ok=True)
        (self.folder / "boot" / f"vmlinuz-{kernel}").touch()
        for index in ("modules.order", "modules.builtin"):
            (modules / index).touch()
        if kernel == own:
            return
        headers = self.folder / "src/up" / f"linux-headers-{kernel}"
        shutil.copytree(Path(f"/lib/modules/{own}/build").resolve(), headers, symlinks=True)
        (modules / "build").symlink_to(f"/usr/src/{headers.name}")
        (headers / "include/generated/utsrelease.h").write_text(f'#define UTS_RELEASE "{kernel}"\n')
        for path in (headers / ".config", headers / "include/config/auto.conf"):
            path.write_text(path.read_text().replace(own, kernel))

    def compiled(self) -> list[str]:
        """Return the kernels that a compiler ran for, one entry for each time."""
        said = self.call(f"cat {self.folder}/compiled 2>/dev/null || :").splitlines()
        return [kernel for line in said for kernel in self.kernels if f"/{kernel}/" in line]

    def _signing_key(self) -> None:
        """Give DKMS a key from the shared folder: to make one costs more than to start the node."""
        key, certificate = self._builds / ".mok.key", self._builds / ".mok.pub"
        if not certificate.exists():
            scratch = Path(tempfile.mkdtemp(dir=self._builds, prefix=".mok."))
            request = ["openssl", "req", "-new", "-x509", "-nodes", "-days", "36500", "-subj", "/CN=sim/"]
            output = ["-newkey", "rsa:2048", "-outform", "DER", "-keyout", "key", "-out", "pub"]
            subprocess.run([*request, *output], cwd=scratch, check=True, capture_output=True)
            (scratch / "key").replace(key)
            (scratch / "pub").replace(certificate)
            scratch.rmdir()
        shutil.copy(key, self.folder / "dkms/mok.key")
        shutil.copy(certificate, self.folder / "dkms/mok.pub")

    def _start(self) -> None:
        """Boot: nothing is loaded, the boot id is new, the kernel's log is empty."""
        shutil.rmtree(self.folder / "sys")
        for place in ("sys/module", "sys/misc"):
            (self.folder / place).mkdir(parents=True)
        self.boot_id = str(uuid.uuid4())
        (self.folder / "boot_id").write_text(f"{self.boot_id}\n")
        (self.folder / "kmsg").write_text("")
        namespaces = ["--mount", "--pid", "--uts", "--fork", "--kill-child", "--propagation", "private"]
        self._holder = subprocess.Popen(
            ["unshare", *namespaces, "sh", *self._init()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        with self._holder.stdout as said:
            pid = said.readline()
        if not pid:
            raise RuntimeError(f"{self.name}: boot.sh failed with {self._holder.wait()}")
        self._init_pid = int(pid)

    def argv(self, command: str) -> list[str]:
        """Return what has to be executed to run a command line on the node."""
        enter = ["nsenter", "--target", str(self._init_pid), "--mount", "--pid", "--uts", "--"]
        return [*enter, "/bin/sh", "-c", command]

    def environment(self) -> Mapping[str, str]:
        """Return the environment of a command: what sshd and sudo would set, and the stand-ins first."""
        return {"PATH": f"{self.folder}/bin:{_ENTRY_PATH}", "HOME": "/root", "USER": "root"}

    def run(self, command: str, stdin: bytes | None = None) -> subprocess.Popen[bytes]:
        """Start a command as sshd does: `sh -c`, pipes for its output, stdin at its end when all was read."""
        with tempfile.TemporaryFile() as upload:
            upload.write(stdin or b"")
            upload.seek(0)
            return subprocess.Popen(
                self.argv(command),
                stdin=upload,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(self.environment()),
                cwd="/",
            )

    def call(self, command: str, stdin: bytes | None = None, timeout_seconds: float = 60) -> str:
        """Run a command to its end and return its stdout; it has to succeed."""
        with self.run(command, stdin) as process:
            stdout, stderr = process.communicate(timeout=timeout_seconds)
        if process.returncode != 0:
            complaint = stderr.decode(errors="replace")
            complaint = stderr.decode(errors="replace")
            raise RuntimeError(f"{self.name}: {command}: {process.returncode}\n{complaint}")
        return stdout.decode(errors="replace")

    def hold_device(self, name: str, cgroup: str = "0::/") -> str:
        """Have a process open a device of that name and, so that rmmod sees it, the module too; return its pid.

        The device lies on a file system of the node's own; what the kernel says of the process's cgroup is
        covered by a file, as no container runtime runs here.
        """
        self.call(f"mount -t tmpfs none /dev/shm && mknod /dev/shm/{name} c 1 5")
        (self.folder / "cgroup").write_text(f"{cgroup}\n")
        (self.folder / "busy" / name).touch()
        cover = f"mount --bind {self.folder}/cgroup /proc/$!/cgroup"
        return self.call(f"sleep 1000 </dev/shm/{name} >/dev/null 2>&1 & {cover}; echo $!").strip()

    @property
    def state(self) -> Path:
        """The node's /var/lib/fleetdrv, as seen from outside."""
        return self.folder / "varlib/up/fleetdrv"

    def started(self, phase: str) -> set[Path]:
        """Return the marks of this phase's jobs that run or ran, those of earlier rollouts among them."""
        return set(self.state.glob(f"jobs/*.{phase}.*/started"))

    def loaded(self) -> dict[str, str]:
        """Return the build id of each loaded module."""
        modules = self.folder / "sys/module"
        live = sorted(path.parent for path in modules.glob("*/initstate"))
        return {module.name: build_id(module / "notes/.note.gnu.build-id") for module in live}

    def end_state(self) -> dict[str, object]:
        """Return all that two runs which ended alike must have in common, fit for JSON."""
        updates = self.folder / "modules/up" / self.kernel / "updates"
        configuration = self.call(
            "find /etc/modprobe.d /etc/modules-load.d /etc/dkms -type f -exec sha256sum {} + 2>/dev/null || :"
        )
        return {
            "dkms": sorted(self.call("dkms status").splitlines()),
            "sources": sorted(path.name for path in (self.folder / "src/up").iterdir()),
            "configuration": sorted(configuration.splitlines()),
            "loaded": self.loaded(),
            "files": {path.name: build_id(path) for path in sorted(updates.rglob("*.ko*"))},
            "staged": sorted(os.listdir(self.state / "stage")) if (self.state / "stage").exists() else [],
            "good": self._good(),
            "running": self.call(_RUNNING_JOBS).split(),
        }

    def _good(self) -> dict[str, list[str]]:
        """Return digest and build of each last known good."""
        kept = sorted(self.state.glob("good/*/current"))
        return {
            good.parent.name: [(good / name).read_text().strip() for name in _GOOD if (good / name).exists()]
            for good in kept
        }

    def reboot(self) -> None:
        """Cut the power and boot again; what was written to disk stays."""
        self.close()
        self._start()

    def reboot_from_disk(self) -> None:
        """Boot a node that was closed."""
        self._start()

    def close(self) -> None:
        """End every process of the node. Its folder stays."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        try:
            self._holder.wait(timeout=10)
        finally:
            self._holder.kill()  # --kill-child: takes the node along
            self._holder.wait()

    def __enter__(self) -> SimNode:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
