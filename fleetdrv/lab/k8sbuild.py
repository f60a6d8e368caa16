"""The programs of a real Kubernetes control plane, built once on this machine from Debian's own sources.

Debian ships etcd and Kubernetes' sources but no API server, and a fake one would agree with whatever we
believe of the real one. So: etcd from its package, Kubernetes compiled with the Go of the same release, both
unpacked privately. Five minutes on two cores, the first time only. Debian's patches touch kubectl alone and
are left out.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fleetdrv.lab import LabError, debian
from fleetdrv.lab.locks import exclusive

RECIPE = 1
"""Raise it when this file builds something else than before: older folders in the cache are then not used."""

SERVERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
PROGRAMS = ("etcd", *SERVERS)

_TREE = "k8s.io/kubernetes"
_GO_ROOT = "usr/lib/go-1.19"
_NEEDED_BYTES = 3 * 2**30  # sources 0.3, Go 0.5, its cache 1.5 GB
_STAMPED = ("component-base/version", "client-go/pkg/version")  # what `kubectl version` and User-Agent show
_OPENAPI_TAG = re.compile(rb"^// *\+k8s:openapi-gen=true", re.MULTILINE)
_NOT_SERVED = {("code-generator",), ("sample-apiserver",)}  # examples, with API groups of their own


def binaries(cache: Path, say: Callable[[str], None]) -> Path:
    """Return a folder with the PROGRAMS of a control plane, built when missing.

    A folder of the same recipe in the cache is used at once, offline. A build happens in a folder of its own
    that is renamed at the end: a killed one leaves nothing that looks finished, a second caller waits.
    """
    ready = _ready(cache)
    if ready is not None:
        return ready
    waiting = "another process builds the control plane; waiting for it"
    with exclusive(cache / "kubernetes.lock", waiting, say):
        return _ready(cache) or _build(cache, say)


def _ready(cache: Path) -> Path | None:
    for folder in sorted(cache.glob("kubernetes-*/")):
        try:
            recipe = json.loads((folder / "inputs.json").read_text())["recipe"]
        except (OSError, ValueError, KeyError):
            continue
        if recipe == RECIPE and all(os.access(folder / program, os.X_OK) for program in PROGRAMS):
            return folder
    return None


def _build(cache: Path, say: Callable[[str], None]) -> Path:
    for stale in cache.glob("building-kubernetes-*"):  # of a killed build: nobody else holds the lock
        shutil.rmtree(stale, ignore_errors=True)
    free = shutil.disk_usage(cache).free
    if free < _NEEDED_BYTES:
        raise LabError(
            f"{cache}: building the control plane needs {_NEEDED_BYTES >> 30} GiB, {free >> 30} are free"
        )
    work = Path(
        tempfile.mkdtemp(prefix="building-kubernetes-", dir=cache)
    )  # a dying compiler may still write
    try:
        say("building the control plane, once: downloading its sources, Go and etcd from Debian")
        files = _download(work)
        inputs = {"recipe": RECIPE, "files": [file.name for file in files]}
        _unpack(files, work)
        result = work / "result"
        result.mkdir()
        _compile(work, _version(files), result, say)
        shutil.copy(work / "root/usr/bin/etcd", result)
        text = json.dumps(inputs, indent=1)
        (result / "inputs.json").write_text(text)
        final = cache / f"kubernetes-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        shutil.rmtree(final, ignore_errors=True)  # not ready, else we would not be here
        result.rename(final)
        say(f"the control plane is built: {final}")
        return final
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download(work: Path) -> list[Path]:
    archive = debian.archive(work / "apt")
    packages = archive.packages("golang-1.19-go", "golang-1.19-src", "etcd-server")
    return packages + archive.source("kubernetes")


def _unpack(files: Sequence[Path], work: Path) -> None:
    for package in (file for file in files if file.suffix == ".deb"):
        debian.run(["dpkg-deb", "-x", str(package), str(work / "root")], f"unpack {package.name}")
    tree = work / "go/src" / _TREE
    tree.mkdir(parents=True)
    tar = ["tar", "-xf", str(_upstream(files)), "--strip-components=1", "--no-same-owner", "-C", str(tree)]
    debian.run(tar, "unpack the sources of Kubernetes")


def _upstream(files: Sequence[Path]) -> Path:
    return next(file for file in files if ".orig.tar." in file.name)


def _version(files: Sequence[Path]) -> str:
    """Read upstream's version: Debian writes 1.20.5+really1.20.2 for 1.20.2."""
    versions: list[str] = re.findall(r"\d+\.\d+\.\d+", _upstream(files).name)
    return versions[-1]


def _compile(work: Path, version: str, result: Path, say: Callable[[str], None]) -> None:
    environment = _go_environment(work)
    say("building the control plane: generating its OpenAPI definitions")
    _generate_openapi(work, environment)
    commands = [f"{_TREE}/cmd/{server}" for server in SERVERS]
    listed = debian.run(["go", "list", "-deps", *commands], "list Go packages", environment=environment)
    build = ["go", "build", "-v", "-p", str(min(len(os.sched_getaffinity(0)), 4)), "-trimpath"]
    flags = f"-s -w {_stamps(version)}"
    argv = [*build, "-ldflags", flags, "-o", f"{result}/", *commands]
    _follow(argv, environment, len(listed.splitlines()), f"compiling Kubernetes {version}", say)


def _go_environment(work: Path) -> Mapping[str, str]:
    """Give Go's whole environment: nothing of the user's own Go settings or caches takes part."""
    root = work / "root" / _GO_ROOT
    temporary = work / "tmp"
    temporary.mkdir()
    return {
        "PATH": f"{root}/bin:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(work),
        "TMPDIR": str(temporary),
        "GOROOT": str(root),
        "GOPATH": str(work / "go"),
        "GOCACHE": str(work / "gocache"),
        "GOENV": "off",
        "GO111MODULE": "off",
        "CGO_ENABLED": "0",
    }


def _generate_openapi(work: Path, environment: Mapping[str, str]) -> None:
    """Write pkg/generated/openapi, which upstream does not commit and the API server needs to compile."""
    tree = work / "go/src" / _TREE
    generator = str(work / "openapi-gen")
    package = f"{_TREE}/vendor/k8s.io/kube-openapi/cmd/openapi-gen"
    debian.run(["go", "build", "-o", generator, package], "build openapi-gen", environment=environment)
    argv = [generator, "-i", ",".join(_openapi_packages(tree)), "-p", f"{_TREE}/pkg/generated/openapi"]
    argv += ["-O", "zz_generated.openapi", "-h", "hack/boilerplate/boilerplate.generatego.txt"]
    argv += ["-r", str(work / "violations"), "--output-base", str(work / "go/src")]
    debian.run(argv, "generate OpenAPI definitions", folder=tree, environment=environment)


def _openapi_packages(tree: Path) -> list[str]:
    """Find the packages whose types the API serves, as upstream's Makefile does: by a comment in a file."""
    found = set()
    for top, name in ((tree / "pkg", "pkg"), (tree / "staging/src/k8s.io", "vendor/k8s.io")):
        for file in top.rglob("*.go"):
            place = file.parent.relative_to(top)
            if place.parts[:1] not in _NOT_SERVED and _OPENAPI_TAG.search(file.read_bytes()):
                found.add(f"{_TREE}/{name}/{place}")
    return sorted(found)


def _stamps(version: str) -> str:
    major, minor, _ = version.split(".")
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "archive"}
    stamps = [
        f"-X {_TREE}/vendor/k8s.io/{package}.{name}={value}"
        for package in _STAMPED
        for name, value in values.items()
    ]
    return " ".join(stamps)


def _follow(
    argv: Sequence[str], environment: Mapping[str, str], total: int, doing: str, say: Callable[[str], None]
) -> None:
    """Run `go build -v`, which names each package as it compiles it, and tell the progress at every tenth."""
    lines: list[str] = []
    with subprocess.Popen(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            tenth, before = len(lines) * 10 // total, (len(lines) - 1) * 10 // total
            if tenth != before:
                say(f"{doing}: {tenth * 10} %")
    if process.returncode:
        words = "\n".join(lines[-15:])
        raise LabError(f"{doing}: go build ended with {process.returncode}:\n{words}")
