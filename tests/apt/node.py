"""An apt node: real apt, dpkg and dkms in an overlay over a shared root file system, in namespaces of its own."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.apt.repository import Repository
from tests.apt.root import kernel, root

_HERE = Path(__file__).parent
_SCRIPTS = _HERE.parents[1] / "fleetdrv" / "scripts"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SOURCES = "Types: deb\nURIs: file:/srv/repository\nSuites: stable\nComponents: main\n"


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def reason(self) -> str:
        """The last line on stderr."""
        return (self.err.strip().splitlines() or [""])[-1]


class AptNode:
    """One node. Its job folder is /srv/job, with the programs in it; the repository is /srv/repository."""

    def __init__(self, folder: Path, repository: Repository) -> None:
        self.folder, self.repository = folder, repository
        self.kernel = kernel(root())
        job = folder / "srv/job"
        (job / "payload").mkdir(parents=True)
        for program in _SCRIPTS.glob("*.sh"):
            (job / program.name).write_bytes(program.read_bytes())
        self.offer()
        self._start()

    def offer(self, sources: str = "", key: bytes = b"") -> None:
        """Write the payload of a repository, and what it serves now into the node's /srv."""
        served = self.folder / "srv/repository"
        subprocess.run(["rm", "-rf", served], check=True)
        subprocess.run(["cp", "-a", self.repository.folder, served], check=True)
        payload = self.folder / "srv/job/payload"
        (payload / "toy.sources").write_text(_SOURCES + sources)
        (payload / "toy.asc").write_bytes(key or self.repository.key.armoured)
        (payload / "wanted").write_text("{}")

    def _start(self) -> None:
        namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        self._holder = subprocess.Popen(
            ["unshare", *namespaces, "sh", _HERE / "boot.sh", root(), self.folder, self.kernel],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        with self._holder.stdout as said:
            pid = said.readline()
        if not pid:
            raise RuntimeError(f"boot.sh failed with {self._holder.wait()}")
        self._pid = int(pid)

    def start(self, command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a shell command in the job's folder."""
        enter = ["nsenter", "--target", str(self._pid), "--mount", "--pid", "--"]
        inside = ["chroot", self.folder / "node", "/bin/sh", "-c", f"cd /srv/job; {command}"]
        return subprocess.Popen(
            [*enter, *inside],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": _PATH, "HOME": "/root", **environment},
        )

    def run(self, *words: str, **environment: str) -> Ended:
        """Run a node program to its end."""
        with self.start(f"exec /bin/sh {shlex.join(words)}", **environment) as process:
            out, err = process.communicate(timeout=120)
        return Ended(process.returncode, out, err)

    def call(self, command: str) -> str:
        """Run a command that has to succeed, and return what it said."""
        with self.start(command) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, f"{command}: {process.returncode}\n{out}{err}"
        return out

    def pins(self, *pins: str) -> list[str]:
        """Return NAME=VERSION=SHA256 of each NAME=VERSION."""
        return [f"{pin}={self.repository.sha256.get(pin, '0' * 64)}" for pin in pins]

    def refresh(self, fingerprint: str = "") -> Ended:
        payload = ("payload/toy.sources", "payload/toy.asc")
        return self.run("apt_refresh.sh", "toy", *payload, fingerprint or self.repository.key.fingerprint)

    def stage(
        self,
        key: str,
        *pins: str,
        downgrade: bool = False,
        conffiles: str = "keep",
        modules: str = "",
    ) -> Ended:
        modules = modules or ("fleetdrv_toy" if pins[0].startswith("toy-dkms=") else "toy_tools")
        first = ("--allow-downgrade",) if downgrade else ()
        words = (*first, "toy", key, conffiles, modules, *self.pins(*pins), "--", self.kernel)
        return self.run("apt_stage.sh", *words)

    def install_words(self, key: str, *pins: str, hold: str = "yes", conffiles: str = "keep") -> list[str]:
        return ["apt_install.sh", "toy", key, hold, conffiles, *pins, "--", self.kernel]

    def install(self, key: str, *pins: str, hold: str = "yes", conffiles: str = "keep", **env: str) -> Ended:
        return self.run(*self.install_words(key, *pins, hold=hold, conffiles=conffiles), **env)

    def bring_to(self, *pins: str, key: str = "first") -> None:
        """Refresh, stage and install; each has to succeed."""
        for ended in (self.refresh(), self.stage(key, *pins), self.install(key, *pins)):
            assert ended.code == 0, ended.out + ended.err

    def state(self) -> str:
        """What must not change by a stage: packages, holds, DKMS, what is in /etc, /usr/src and /lib/modules."""
        return self.call(
            "dpkg -l; apt-mark showhold; dkms status;"
            "find /etc /usr/src/toy* /usr/share/toy* /lib/modules/*/updates -ls 2>/dev/null;"
            "sha256sum /var/lib/dpkg/status"
        )

    def probe(self, *questions: str) -> list[list[str]]:
        """Return the probe's records, field by field."""
        ended = self.run("probe.sh", *questions)
        assert ended.code == 0, ended.err
        return [line.split("\t") for line in ended.out.splitlines()]

    def close(self) -> None:
        """End every process of the node."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(timeout=20)
