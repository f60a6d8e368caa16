"""One compile for each build: leaders, followers, and what comes over the line."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetdrv.buildcache import BuildCache
from fleetdrv.buildonce import MAX_BUILD_BYTES, Builds, pack
from fleetdrv.errors import LinkLost, Stopped
from fleetdrv.events import Level
from fleetdrv.model import Kernels
from fleetdrv.sharing import Build, builds
from fleetdrv.sources import AptSource
from fleetdrv.steps import build_key, stage_key
from tests.core.factories import KERNEL, NEXT_KERNEL, a_driver, some_facts

MODULE = f"dkms_main_tree/{KERNEL}/x86_64/module/toy.ko.xz"


def a_build(kernel: str = KERNEL, key: str = "", alone: str = "") -> Build:
    key = "" if alone else key or hashlib.sha256(kernel.encode()).hexdigest()
    return Build(driver="toy", kernel=kernel, stage="toy-1.1-0123", key=key, alone=alone)


def a_tarball(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in {"dkms_source_tree/dkms.conf": b"PACKAGE_NAME=toy", **files}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {entry.name: (tar.extractfile(entry) or io.BytesIO()).read() for entry in tar}


@dataclass(slots=True)
class Line:
    """A node that answers built.sh."""

    said: list[bytes | Exception]
    code: int = 0
    node: str = "n1"
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def run(
        self, argv: tuple[str, ...], *, on_stdout: Callable[[bytes], None], **_: object
    ) -> tuple[int, bytes, bytes]:
        self.asked.append(argv[4:])
        said = self.said.pop(0)
        if isinstance(said, Exception):
            raise said
        for start in range(0, len(said), 1000):
            on_stdout(said[start : start + 1000])
        return self.code, b"", b"the reason\n"


def answer(tarballs: Mapping[str, bytes]) -> bytes:
    parts = [
        f"build {name}.dkms.tar.gz {len(data)} {hashlib.sha256(data).hexdigest()}\n".encode() + data
        for name, data in tarballs.items()
    ]
    return b"".join((*parts, b"end\n"))


@dataclass(slots=True)
class World:
    """Builds over a folder, and what was told."""

    folder: Path
    said: list[str] = field(default_factory=list)
    wait_seconds: float = 30.0
    builds: Builds = field(init=False)

    def __post_init__(self) -> None:
        cache = BuildCache(folder=self.folder, note=self.said.append)
        self.builds = Builds(cache=cache, wait_seconds=self.wait_seconds)

    def tell(self, phase: str, text: str, level: Level) -> None:
        self.said.append(f"{phase} {level}: {text}")

    def claim(
        self, node: str, *wanted: Build, check: Callable[[], None] = lambda: None
    ) -> dict[str, bytes]:
        return self.builds.claim(node, wanted, check, self.tell)

    def share(self, line: Line, *staged: Build) -> None:
        self.builds.share(line, staged, self.tell)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "builds")


def in_thread(act: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(act()), daemon=True)
    thread.start()
    return thread, results


def test_a_node_that_needs_the_same_build_waits_for_the_first_one(world: World) -> None:
    build = a_build()
    assert world.claim("n1", build) == {}
    thread, results = in_thread(lambda: world.claim("n2", build))
    thread.join(0.3)
    assert thread.is_alive()
    world.share(Line([answer({"toy-1.1": a_tarball(**{MODULE: b"code"})})]), build)
    world.builds.release("n1")
    thread.join(10)
    (found,) = results
    assert isinstance(found, dict)
    assert unpacked(found[f"toy.{KERNEL}.build"]) == {f"toy-1.1/{MODULE}": b"code"}
    assert [text for text in world.said if "waits for the build that n1 compiles" in text]


def test_where_the_first_one_fails_exactly_one_other_takes_over(world: World) -> None:
    build = a_build()
    world.claim("n1", build)
    threads = [in_thread(lambda name=name: world.claim(name, build)) for name in ("n2", "n3")]
    time.sleep(0.2)
    world.builds.failed("n1", 73)
    world.builds.release("n1")
    time.sleep(1.5)
    assert sorted(thread.is_alive() for thread, _ in threads) == [False, True]
    leader = next(name for name, (thread, _) in zip(("n2", "n3"), threads, strict=True) if not thread.is_alive())
    world.builds.release(leader)
    for thread, results in threads:
        thread.join(10)
        assert results == [{}]


@pytest.mark.parametrize("code", [67, 68])
def test_what_does_not_compile_is_waited_for_by_nobody(world: World, code: int) -> None:
    build = a_build()
    world.claim("n1", build)
    world.builds.failed("n1", code)
    started = time.monotonic()
    assert world.claim("n2", build) == world.claim("n3", build) == {}
    assert time.monotonic() - started < 1


def test_a_wait_has_an_end(tmp_path: Path) -> None:
    world = World(tmp_path, wait_seconds=0.1)
    world.claim("n1", a_build())
    assert world.claim("n2", a_build()) == {}
    assert [text for text in world.said if "compiles itself" in text]
    world.builds.release("n2")
    thread, _ = in_thread(lambda: world.claim("n3", a_build()))
    thread.join(0.05)
    assert thread.is_alive(), "n1 leads as before"


def test_a_lost_lease_ends_the_wait(world: World) -> None:
    def lost() -> None:
        raise Stopped("the Lease is lost")

    world.claim("n1", a_build())
    with pytest.raises(Stopped):
        world.claim("n2", a_build(), check=lost)


def test_a_build_that_is_not_shared_is_waited_for_by_nobody_and_told(world: World) -> None:
    apart = a_build(alone="Secure Boot is on")
    assert world.claim("n1", apart) == world.claim("n2", apart) == {}
    assert [text for text in world.said if "not shared with other nodes: Secure Boot is on" in text]
    line = Line([])
    world.share(line, apart)
    assert line.asked == []


def test_what_an_earlier_controller_has_sent_is_waited_for_too(world: World) -> None:
    world.builds.lead("n1", [a_build()])
    thread, _ = in_thread(lambda: world.claim("n2", a_build()))
    thread.join(0.3)
    assert thread.is_alive()
    world.builds.release("n1")
    thread.join(10)
    assert not thread.is_alive()


KEYS = [a_build(f"kernel-{n}") for n in range(4)]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sets(st.sampled_from(range(4)), min_size=1), min_size=2, max_size=8))
def test_however_needs_overlap_everybody_ends_and_nothing_is_compiled_twice(
    tmp_path_factory: pytest.TempPathFactory, needs: list[set[int]]
) -> None:
    """As many threads as nodes, all started at once: the leader of a build never waits for another one."""
    world = World(tmp_path_factory.mktemp("builds"))
    compiled: Counter[str] = Counter()

    def turn(node: str, wanted: list[Build]) -> None:
        found = world.claim(node, *wanted)
        for build in wanted:
            if build.file not in found:
                compiled[build.key] += 1
                time.sleep(0.005)
                world.builds.cache.put(build.key, b"code")
        world.builds.release(node)

    threads = [
        in_thread(lambda n=n, need=need: turn(f"n{n}", [KEYS[k] for k in sorted(need)]))[0]
        for n, need in enumerate(needs)
    ]
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert compiled == {KEYS[k].key: 1 for k in set().union(*needs)}


_BAD = {
    "cut": answer({"toy-1.1": a_tarball(**{MODULE: b"code"})})[:-40],
    "no end": answer({"toy-1.1": a_tarball(**{MODULE: b"code"})})[:-4],
    "other bytes": answer({"toy-1.1": a_tarball(**{MODULE: b"code"})}).replace(b"\n\x1f\x8b", b"\n\x1f\x8c", 1),
    "a name with a path": answer({"../../toy-1.1": a_tarball(**{MODULE: b"code"})}),
    "no tar": answer({"toy-1.1": b"junk"}),
    "words": b"hello\nend\n",
    "nothing": b"",
}


@pytest.mark.parametrize("case", _BAD)
def test_an_answer_that_cannot_be_trusted_is_kept_by_nobody(world: World, case: str) -> None:
    world.claim("n1", a_build())
    world.share(Line([_BAD[case]]), a_build())
    assert world.builds.cache.get(a_build().key) is None
    assert [text for text in world.said if "not kept for other nodes" in text]
    assert world.claim("n2", a_build()) == {}, "and waited for by nobody"


def test_a_program_that_fails_says_why(world: World) -> None:
    world.share(Line([b""], code=72), a_build())
    assert [text for text in world.said if "exit 72: the reason" in text]


def test_a_link_that_dies_once_is_dialled_again(world: World) -> None:
    good = answer({"toy-1.1": a_tarball(**{MODULE: b"code"})})
    line = Line([LinkLost("n1", "built", "gone"), good])
    world.share(line, a_build())
    assert line.asked == [("toy-1.1-0123", str(MAX_BUILD_BYTES))] * 2
    assert world.builds.cache.has(a_build().key)
    world.share(line, a_build())
    assert len(line.asked) == 2, "what is here is not fetched again"
    other = a_build(NEXT_KERNEL)
    world.share(Line([LinkLost("n1", "built", "gone")] * 2), other)
    assert not world.builds.cache.has(other.key)


def test_only_the_modules_of_one_kernel_travel_and_nothing_that_is_no_file() -> None:
    link = io.BytesIO()
    with tarfile.open(fileobj=link, mode="w:gz") as tar:
        entry = tarfile.TarInfo(MODULE.replace("toy.ko", "link.ko"))
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/shadow"
        tar.addfile(entry)
    files = {
        MODULE: b"code",
        f"dkms_main_tree/{NEXT_KERNEL}/x86_64/module/toy.ko": b"other kernel",
        f"dkms_main_tree/{KERNEL}/x86_64/module/../../../../etc/passwd.ko": b"root",
        f"dkms_main_tree/{KERNEL}/x86_64/log/make.log": b"said",
        f"dkms_main_tree/{KERNEL.replace('.', 'x')}/x86_64/module/toy.ko": b"no pattern",
    }
    packed = pack({"toy-1.1": a_tarball(**files), "link-1": link.getvalue()}, KERNEL)
    assert unpacked(packed) == {f"toy-1.1/{MODULE}": b"code"}
    assert pack({"toy-1.1": a_tarball(**files)}, KERNEL) == packed, "the same modules, the same bytes"


def test_packages_that_compile_nothing_are_known_to_compile_nothing(world: World) -> None:
    world.share(Line([b"end\n"]), a_build())
    (data,) = world.claim("n2", a_build()).values()
    assert unpacked(data) == {}


def test_each_bootable_kernel_is_a_build_of_its_own() -> None:
    kernels = Kernels(running=KERNEL, newest=NEXT_KERNEL, default=NEXT_KERNEL)
    driver = a_driver()
    facts = some_facts(driver, kernels=kernels, abi={KERNEL: "s c", NEXT_KERNEL: "s c"})
    one, two = builds((driver, a_driver("in-tree", dkms=None)), facts)
    assert (one.kernel, two.kernel) == (KERNEL, NEXT_KERNEL)
    assert one.key == build_key(driver, facts, KERNEL) != two.key
    assert one.stage == two.stage == stage_key(driver, facts)
    assert one.file == f"toy.{KERNEL}.build"


def test_why_a_build_is_not_shared() -> None:
    (unknown,) = builds((a_driver(),), some_facts())
    assert (unknown.key, "Module.symvers" in unknown.alone) == ("", True)
    (signed,) = builds((a_driver(),), some_facts(abi={KERNEL: "s c"}, secure_boot=True))
    assert (signed.key, "Secure Boot" in signed.alone) == ("", True)


def test_a_package_is_known_by_its_hash() -> None:
    facts = some_facts(abi={KERNEL: "s c"})
    apt = {"packages": {"toy-dkms": "1.1"}, "sha256": {"toy-dkms": "0" * 64}}
    (known,) = builds((a_driver(dkms=None, apt=AptSource.model_validate(apt)),), facts)
    assert known.key
    (unknown,) = builds((a_driver(dkms=None, apt=AptSource.model_validate({**apt, "sha256": {}})),), facts)
    assert (unknown.key, unknown.alone) == ("", "the SHA-256 of toy-dkms is not known")
    other = {**apt, "sha256": {"toy-dkms": "1" * 64}}
    (another,) = builds((a_driver(dkms=None, apt=AptSource.model_validate(other)),), facts)
    assert another.key != known.key
