"""Debian's archive through the system's own apt, with a configuration of our own.

Nothing of the system changes and root is not needed: lists, cache and sources live in one folder that can be
thrown away. What apt downloads, it verifies: the release's signature
against Debian's keyring, then every checksum.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetdrv.lab import LabError

RELEASE = "bookworm"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_HOW_TO_REACH = re.compile(r"Acquire::(https?|Retries|ForceIPv[46])\b")  # proxies and the like
_TARGETS = ("--format", "$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
_CONFIGURATION = """\
Dir::Etc::Main "/dev/null";
Dir::Etc::Parts "/dev/null";
Dir::Etc::SourceList "{folder}/debian.sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{folder}/state";
Dir::State::Status "{folder}/status";
Dir::Cache "{folder}/cache";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Update::Error-Mode "any";
"""
_SOURCES = """\
Types: deb deb-src
URIs: {mirror}
Suites: {release}
Components: main
Signed-By: {keyring}
"""


@dataclass(frozen=True, slots=True)
class Archive:
    """One release of Debian, main only; what it downloads it leaves in its folder."""

    folder: Path
    mirror: str

    def packages(self, *names: str) -> list[Path]:
        """Download binary packages without what they depend on, and return the .deb files."""
        return self._fetch("download", *names, what=" ".join(names))

    def source(self, name: str) -> list[Path]:
        """Download a source package (.dsc, upstream's archive, Debian's changes), not unpacked."""
        return self._fetch("source", "--download-only", name, what=f"the source of {name}")

    def _fetch(self, *arguments: str, what: str) -> list[Path]:
        into = self.folder / "files"
        into.mkdir(exist_ok=True)
        before = set(into.iterdir())
        self._apt_get(*arguments, what=what, where=into)
        return sorted(set(into.iterdir()) - before)

    def _apt_get(self, *arguments: str, what: str, where: Path) -> None:
        environment = os.environ | {"APT_CONFIG": str(self.folder / "apt.conf"), "LC_ALL": "C"}
        doing = f"download {what} from {self.mirror}"
        run(["apt-get", "-qq", *arguments], doing, folder=where, environment=environment)


def archive(folder: Path) -> Archive:
    """Download the release's lists into a new folder, from the mirror this machine uses already."""
    _require()
    for needed in ("state/lists/partial", "cache/archives/partial"):
        (folder / needed).mkdir(parents=True)
    (folder / "status").touch()  # nothing is installed, as far as this apt knows
    architecture = run(["dpkg", "--print-architecture"], "ask dpkg for the architecture").strip()
    system = run(["apt-config", "dump"], "read apt's configuration").splitlines()
    own = _CONFIGURATION.format(folder=folder, architecture=architecture)
    (folder / "apt.conf").write_text("\n".join([own, *filter(_HOW_TO_REACH.match, system), ""]))
    found = Archive(folder, mirror(run(["apt-get", "indextargets", *_TARGETS], "list apt's sources")))
    sources = _SOURCES.format(mirror=found.mirror, release=RELEASE, keyring=KEYRING)
    (folder / "debian.sources").write_text(sources)
    found._apt_get("update", what=f"the lists of {RELEASE}", where=folder)
    return found


def mirror(targets: str) -> str:
    """Pick Debian's mirror from `apt-get indextargets`, passing over bookworm-security and such.

    >>> mirror("Docker bookworm stable http://d.example/linux/debian/\\nDebian trixie main http://m.example/debian/")
    'http://m.example/debian'
    >>> mirror("Ubuntu noble main http://u.example/ubuntu/")
    'http://deb.debian.org/debian'
    """
    for line in targets.splitlines():
        origin, _, rest = line.partition(" ")
        codename, component, uri = (*rest.split(" "), "", "", "")[:3]
        if (
            origin == "Debian"
            and component == "main"
            and "-" not in codename
            and not uri.startswith("cdrom:")
        ):
            return uri.rstrip("/")
    return DEFAULT_MIRROR


def run(
    argv: Sequence[str],
    doing: str,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end and return its output; a failure tells what was done and the last words."""
    try:
        ended = subprocess.run(
            argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except FileNotFoundError as error:
        raise LabError(f"cannot {doing}: {argv[0]} is not installed") from error
    if ended.returncode:
        words = "\n".join((ended.stdout + ended.stderr).strip().splitlines()[-15:])
        raise LabError(f"cannot {doing}: {argv[0]} ended with {ended.returncode}:\n{words}")
    return ended.stdout


def _require() -> None:
    missing = [program for program in ("apt-get", "dpkg-deb", "tar") if shutil.which(program) is None]
    if missing:
        raise LabError(
            f"the practice control plane is built from Debian's packages and {', '.join(missing)} is missing:"
            " use Debian or Ubuntu, or a cluster of your own with --context"
        )
    if not KEYRING.exists():
        raise LabError(
            f"{KEYRING} is missing, so nothing from Debian could be trusted."
            " Install it: apt-get install debian-archive-keyring"
        )
