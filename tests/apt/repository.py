"""A package repository of the test's own making: .deb files by dpkg-deb, an index, and a throw-away key."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fleetdrv.lab import toy

_DATE = "%a, %d %b %Y %H:%M:%S UTC"
_POSTINST = """#!/bin/sh
set -e
DKMS_NAME={name}
DKMS_PACKAGE_NAME=$DKMS_NAME-dkms
DKMS_VERSION={version}
case "$1" in
	configure)
		for DKMS_POSTINST in /usr/lib/dkms/common.postinst /usr/share/$DKMS_PACKAGE_NAME/postinst; do
			if [ -f $DKMS_POSTINST ]; then
				$DKMS_POSTINST $DKMS_NAME $DKMS_VERSION /usr/share/$DKMS_PACKAGE_NAME "" $2
				break
			fi
		done
	;;
esac
"""
_PRERM = """#!/bin/sh
set -e
case "$1" in
    remove|upgrade|deconfigure)
      if [  "$(dkms status -m {name} -v {version})" ]; then
         dkms remove -m {name} -v {version} --all
      fi
    ;;
esac
"""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One .deb: control fields beside the usual ones, files by path, maintainer scripts by name."""

    name: str
    version: str
    fields: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)

    @property
    def control(self) -> str:
        usual = {"Package": self.name, "Version": self.version, "Architecture": "all", "Maintainer": "t <t@t>"}
        text = {**usual, "Description": "of a test", **self.fields}
        return "".join(f"{key}: {value}\n" for key, value in text.items())


def dkms_package(version: str, *, of: str = "", conf: str = "", **fields: str) -> Package:
    """The practice driver as dh_dkms would package it; `of` is the version whose sources it has."""
    files: dict[str, str | bytes] = {}
    with tempfile.TemporaryDirectory() as scratch:
        sources = Path(scratch)
        archive = toy.archive(of or version, sources)
        subprocess.run(["tar", "-xf", archive, "-C", sources], check=True)
        for path in (sources / f"toy-{of or version}").iterdir():
            text = path.read_text().replace(f'PACKAGE_VERSION="{of or version}"', f'PACKAGE_VERSION="{version}"')
            files[f"usr/src/toy-{version}/{path.name}"] = text + (conf if path.name == "dkms.conf" else "")
    files["etc/toy.conf"] = f"# the package's own, {version}\n"
    scripts = {"postinst": _POSTINST, "prerm": _PRERM}
    scripts = {key: text.format(name="toy", version=version) for key, text in scripts.items()}
    scripts["conffiles"] = "/etc/toy.conf\n"
    fields = {"Depends": "dkms", **{key.replace("_", "-"): value for key, value in fields.items()}}
    return Package(name="toy-dkms", version=version, fields=fields, files=files, scripts=scripts)


def build(package: Package, into: Path) -> Path:
    """Make the .deb."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        tree.chmod(0o755)
        for path, content in package.files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(content.encode() if isinstance(content, str) else content)
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(package.control)
        for name, text in package.scripts.items():
            (tree / "DEBIAN" / name).write_text(text)
            (tree / "DEBIAN" / name).chmod(0o644 if name == "conffiles" else 0o755)
        deb = into / f"{package.name}_{package.version}_all.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", tree, deb], check=True, capture_output=True
        )
    return deb


class Key:
    """A throw-away OpenPGP key; its agent ends with it."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="gpg.")
        self._gpg("--passphrase", "", "--quick-generate-key", "test <t@t>", "rsa2048", "sign", "never")
        listed = self._gpg("--with-colons", "--list-keys").decode()
        self.fingerprint = next(row.split(":")[9] for row in listed.splitlines() if row.startswith("fpr:"))
        self.armoured = self._gpg("--armor", "--export")
        self.binary = self._gpg("--export")

    def clear_sign(self, text: str) -> bytes:
        return self._gpg("--clearsign", stdin=text.encode())

    def __enter__(self) -> Key:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["gpgconf", "--homedir", self._home.name, "--kill", "all"], check=True)
        self._home.cleanup()

    def _gpg(self, *words: str, stdin: bytes = b"") -> bytes:
        argv = ["gpg", "--homedir", self._home.name, "--batch", "--quiet", "--pinentry-mode", "loopback", *words]
        return subprocess.run(argv, input=stdin, capture_output=True, check=True).stdout


class Repository:
    """A folder with one suite; `publish` writes its signed index from the packages that are there."""

    def __init__(self, folder: Path, key: Key) -> None:
        self.folder, self.key = folder, key
        (folder / "dists/stable/main/binary-amd64").mkdir(parents=True)
        (folder / "pool").mkdir()
        self.sha256: dict[str, str] = {}
        self._index: list[str] = []

    def add(self, *packages: Package) -> None:
        """Build packages and publish; `sha256` knows them by NAME=VERSION then."""
        for package in packages:
            self._list(build(package, self.folder / "pool"))
        self.publish()

    def add_files(self, *debs: Path) -> None:
        """Publish packages that somebody else built."""
        for deb in debs:
            self._list(Path(shutil.copy(deb, self.folder / "pool")))
        self.publish()

    def _list(self, deb: Path) -> None:
        fields = subprocess.run(["dpkg-deb", "-f", deb], check=True, capture_output=True, text=True).stdout
        said = dict(line.split(": ", 1) for line in fields.splitlines() if ": " in line and line[0] != " ")
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        self.sha256[f"{said['Package']}={said['Version']}"] = digest
        place = f"Filename: pool/{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
        self._index.append(f"{fields.rstrip()}\n{place}")

    def publish(self, *, valid_until: timedelta = timedelta(days=1), ahead: timedelta = timedelta()) -> None:
        """Write the index; a negative span makes a Release that has expired, `ahead` one that is not valid yet."""
        suite = self.folder / "dists/stable"
        index = "\n".join(self._index).encode()
        (suite / "main/binary-amd64/Packages").write_bytes(index)
        now = datetime.now(UTC) + ahead
        release = (
            f"Origin: test\nSuite: stable\nCodename: stable\nComponents: main\nArchitectures: amd64\n"
            f"Date: {(now + min(timedelta(), valid_until * 2)).strftime(_DATE)}\n"
            f"Valid-Until: {(now + valid_until).strftime(_DATE)}\nSHA256:\n"
            f" {hashlib.sha256(index).hexdigest()} {len(index)} main/binary-amd64/Packages\n"
        )
        (suite / "InRelease").write_bytes(self.key.clear_sign(release))
