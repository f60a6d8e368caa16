"""One compile for each build in a fleet: who compiles, who waits, how a build travels.

From a node's stage folder to the controller's cache, and from there in the payload of other nodes' stage jobs;
never from node to node. Within this process each missing build has one leader, the node whose stage job compiles
it; others that need it wait. A node that waits leads nothing, so a leader never waits, and no number of worker
threads can wait for each other for ever. Between processes nothing is promised but that both end up right.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO

from fleetdrv.buildcache import BuildCache
from fleetdrv.errors import LinkLost, NodeError
from fleetdrv.events import Level
from fleetdrv.follow import Line
from fleetdrv.jobs import whole
from fleetdrv.sharing import Build

WAIT_SECONDS = 1800.0
"""So long a node waits for another one's compile before it compiles itself. NVIDIA takes 5 minutes of CPU."""

MAX_BUILD_BYTES = 512 * 1024 * 1024
MAX_UNPACKED_BYTES = 4 * MAX_BUILD_BYTES
_FETCH_SECONDS = 600.0
_FETCHES = 2
"""A link that dies under the first one is dialled again."""
_SAME_EVERYWHERE = {67, 68}
"""Exit codes of stage programs: the driver excludes the kernel, does not compile. With equal keys every node
would meet the same, so nobody waits for the next one to try."""

_TARBALL = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._+~-]*\.dkms\.tar\.gz")

Tell = Callable[[str, str, Level], None]


class _Unreadable(Exception):
    """What the node sent is not what built.sh promises."""


@dataclass(slots=True, kw_only=True)
class Builds:
    """Shared by all nodes of one run; for many threads."""

    cache: BuildCache
    now: Callable[[], float] = time.monotonic
    wait_seconds: float = WAIT_SECONDS
    _leaders: dict[str, str] = field(default_factory=dict)
    """Build key to the node that compiles it."""
    _each_for_itself: set[str] = field(default_factory=set)
    """Keys of builds that nobody waits for: they do not compile, or cannot be fetched."""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def claim(self, node: str, wanted: Sequence[Build], check: Callable[[], None], tell: Tell) -> dict[str, bytes]:
        """Return the builds that are here, as files of a payload; the node leads the others from now on.

        Waits while another node compiles one of them, at most `wait_seconds`; `check` may raise meanwhile.
        """
        for why in dict.fromkeys(build.alone for build in wanted if build.alone):
            tell("stage", f"its builds are not shared with other nodes: {why}", Level.PROGRESS)
        until, told = self.now() + self.wait_seconds, ""
        with self._changed:
            while (leader := self._awaited(node, wanted)) and self.now() < until:
                if leader != told:
                    tell("stage", f"waits for the build that {leader} compiles", Level.PROGRESS)
                told = leader
                self._changed.wait(1.0)
                check()
            if leader:
                tell("stage", f"{leader} is not done in {self.wait_seconds:.0f} s: compiles itself", Level.WARNING)
            found = {build.file: data for build in wanted if build.key and (data := self.cache.get(build.key))}
            self._lead(node, [build for build in wanted if build.file not in found])
        return found

    def lead(self, node: str, wanted: Iterable[Build]) -> None:
        """Have others wait for builds that a job on this node, sent by an earlier controller, compiles already."""
        with self._changed:
            self._lead(node, [build for build in wanted if not self.cache.has(build.key)])

    def release(self, node: str) -> None:
        """The node compiles no more: what it led is in the cache by now, or somebody else's to compile."""
        with self._changed:
            self._leaders = {key: leader for key, leader in self._leaders.items() if leader != node}
            self._changed.notify_all()

    def failed(self, node: str, exit_code: int | None) -> None:
        """Take note of a stage job's end: where the build itself is at fault, nobody waits for it again."""
        if exit_code in _SAME_EVERYWHERE:
            with self._changed:
                self._each_for_itself |= {key for key, leader in self._leaders.items() if leader == node}

    def share(self, line: Line, staged: Iterable[Build], tell: Tell) -> None:
        """Fetch from a node's stage folder what the cache lacks. A failure costs others a compile, no more."""
        lacking = [build for build in staged if build.key and not self.cache.has(build.key)]
        for stage in dict.fromkeys(build.stage for build in lacking):
            of_stage = [build for build in lacking if build.stage == stage]
            try:
                tarballs = _fetch(line, stage)
                for build in of_stage:
                    self.cache.put(build.key, pack(tarballs, build.kernel))
            except (NodeError, _Unreadable, tarfile.TarError, zlib.error, EOFError, OSError) as error:
                tell("share", f"the finished build is not kept for other nodes: {error}", Level.WARNING)
                with self._changed:
                    self._each_for_itself |= {build.key for build in of_stage}

    def _awaited(self, node: str, wanted: Iterable[Build]) -> str:
        """Name a node that compiles one of these builds."""
        for build in wanted:
            leader = self._leaders.get(build.key, node)
            alone = build.key in self._each_for_itself or not self.cache.usable
            if leader != node and not alone and not self.cache.has(build.key):
                return leader
        return ""

    def _lead(self, node: str, missing: Iterable[Build]) -> None:
        for build in missing:
            if build.key:
                self._leaders.setdefault(build.key, node)


def pack(tarballs: Mapping[str, bytes], kernel: str) -> bytes:
    """Take one kernel's modules out of DKMS tarballs, named NAME-VERSION, as trial.sh wants them.

    The same modules give the same bytes. Nothing but plain module files gets through: no links, no other names.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.GNU_FORMAT, compresslevel=6) as packed:
        for name, data in sorted(tarballs.items()):
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tarball:
                for member in sorted(_modules(tarball, kernel), key=lambda member: member.name):
                    content = tarball.extractfile(member)
                    assert content is not None
                    entry = tarfile.TarInfo(f"{name}/{member.name}")
                    entry.size, entry.mode = member.size, 0o644
                    packed.addfile(entry, content)
    return _without_time(out.getvalue())


def _modules(tarball: tarfile.TarFile, kernel: str) -> Iterator[tarfile.TarInfo]:
    wanted = re.compile(rf"dkms_main_tree/{re.escape(kernel)}/[A-Za-z0-9._-]+/module/[A-Za-z0-9._-]+\.ko(\.\w+)?")
    unpacked = 0
    for member in tarball:
        unpacked += member.size
        if unpacked > MAX_UNPACKED_BYTES:
            raise _Unreadable(f"more than {MAX_UNPACKED_BYTES} bytes unpacked")
        if member.isreg() and wanted.fullmatch(member.name):
            yield member


def _without_time(packed: bytes) -> bytes:
    """Blank gzip's time stamp (RFC 1952, bytes 4 to 7), which tarfile cannot be told."""
    return packed[:4] + bytes(4) + packed[8:]


def _fetch(line: Line, stage: str) -> dict[str, bytes]:
    """Read a node's finished tarballs; each has the size and the digest that the node says."""
    argv = ("/bin/sh", "-c", whole("built.sh"), "built.sh", stage, str(MAX_BUILD_BYTES))
    for left in reversed(range(_FETCHES)):
        said = bytearray()
        take = partial(_take, said)
        try:
            code, _, errors = line.run(argv, step="built", deadline_seconds=_FETCH_SECONDS, on_stdout=take)
            break
        except LinkLost:
            if not left:
                raise
    if code != 0:
        lines = errors.decode("utf-8", "replace").strip().splitlines()
        raise _Unreadable(f"exit {code}: {lines[-1] if lines else 'no reason given'}")
    return dict(_tarballs(io.BytesIO(said)))


def _take(said: bytearray, data: bytes) -> None:
    said.extend(data)
    if len(said) > MAX_BUILD_BYTES + 65536:
        raise _Unreadable("the node sends more than was asked for")


def _tarballs(said: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    while (words := said.readline(1024).split()) != [b"end"]:
        match words:
            case [b"build", name, size, digest] if size.isdigit() and _TARBALL.fullmatch(name):
                data = said.read(int(size))
                if hashlib.sha256(data).hexdigest().encode() != digest:
                    raise _Unreadable(f"{name.decode()} did not arrive as it was sent")
                yield name.decode().removesuffix(".dkms.tar.gz"), data
            case _:
                raise _Unreadable("its answer cannot be read")
