"""Builds that travel: what built.sh sends of a node, and what a stage job makes of what is sent along."""

from __future__ import annotations

import hashlib
import io
import shlex
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fleetdrv.buildonce import pack
from tests.sim.job import Followed, bundle, launch, text
from tests.sim.node import SimNode, headers_kernel
from tests.sim.toy import Toy, stage_step

pytestmark = pytest.mark.timeout(180)

OTHER = "6.1.0-99-sim"


def sent_by(node: SimNode, key: str = "1.0", limit: int = 10**9) -> bytes:
    """Run built.sh as the controller does."""
    source = text("job.sh", "dkms.sh", "built.sh").decode()
    words = ["sudo", "-n", "/bin/sh", "-c", source, "built.sh", key, str(limit)]
    with node.run(shlex.join(words)) as process:
        said, complaint = process.communicate(timeout=60)
    assert process.returncode in (0, 72, 83), complaint
    return said if process.returncode == 0 else b"%d %s" % (process.returncode, complaint)


def tarball_of(node: SimNode) -> bytes:
    """Take the one tarball out of what the node sends."""
    said = io.BytesIO(sent_by(node))
    word, name, size, digest = said.readline().split()
    data = said.read(int(size))
    assert (word, name, said.read()) == (b"build", b"toy-1.0.dkms.tar.gz", b"end\n")
    assert hashlib.sha256(data).hexdigest().encode() == digest
    return data


def names_in(tarball: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(tarball)) as tar:
        return set(tar.getnames())


def stage(node: SimNode, archives: Mapping[str, bytes], given: Mapping[str, bytes], *kernels: str) -> Followed:
    """Stage 1.0 for some kernels, with builds sent along."""
    step = (*stage_step(node, "1.0")[:-1], *(kernels or (node.kernel,)))
    payload = {"toy.tar": archives["1.0"], **{f"toy.{kernel}.build": data for kernel, data in given.items()}}
    return launch(node, "stage-1", bundle([step], payload=payload), kind="background")


@pytest.fixture
def two(new_node: Callable[[str], SimNode], archives: Mapping[str, bytes]) -> tuple[SimNode, SimNode]:
    """A node that has built 1.0, and one that has not."""
    first, second = new_node("sim-1"), new_node("sim-2")
    assert Toy(first, archives).stage("1.0").ending == "exit 0"
    return first, second


def test_a_build_that_is_sent_along_is_not_compiled(
    two: tuple[SimNode, SimNode], archives: Mapping[str, bytes]
) -> None:
    first, second = two
    build = pack({"toy-1.0": tarball_of(first)}, first.kernel)
    followed = stage(second, archives, {second.kernel: build})
    assert followed.ending == "exit 0", followed.text
    assert f"toy 1.0 for kernel {second.kernel} was compiled on another node" in followed.text
    assert (first.compiled(), second.compiled()) == ([first.kernel], [])
    assert names_in(tarball_of(first)) == names_in(tarball_of(second))
    assert Toy(second, archives).swap("1.0").ending == "exit 0"
    assert second.loaded()["fleetdrv_toy"]
    assert pack({"toy-1.0": tarball_of(second)}, second.kernel) == build, "it may travel on as it came"


def test_only_the_kernel_that_lacks_a_build_is_compiled(
    two: tuple[SimNode, SimNode], archives: Mapping[str, bytes], builds: Path
) -> None:
    first, _ = two
    build = pack({"toy-1.0": tarball_of(first)}, first.kernel)
    with SimNode(first.folder.parent / "3", "sim-3", builds=builds, kernels=(headers_kernel(), OTHER)) as third:
        followed = stage(third, archives, {third.kernel: build}, third.kernel, OTHER)
        assert followed.ending == "exit 0", followed.text
        assert third.compiled() == [OTHER]
        wanted = {f"dkms_main_tree/{kernel}/x86_64/module/fleetdrv_toy.ko" for kernel in third.kernels}
        assert wanted <= names_in(tarball_of(third))


def with_vermagic(build: bytes, kernel: str) -> bytes:
    """Write a build anew, its modules made for another kernel."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(build)) as tar, tarfile.open(fileobj=out, mode="w:gz") as copy:
        for entry in tar:
            data = (tar.extractfile(entry) or io.BytesIO()).read()
            changed = data.replace(b"vermagic=" + headers_kernel().encode(), b"vermagic=" + kernel.encode())
            assert changed != data
            entry.size = len(changed)
            copy.addfile(entry, io.BytesIO(changed))
    return out.getvalue()


_UNFIT: Mapping[str, Callable[[bytes], bytes]] = {
    "another kernel's": lambda build: with_vermagic(build, "x" * len(headers_kernel())),
    "no archive": lambda _: b"junk",
    "cut": lambda build: build[: len(build) // 2],
    "empty": lambda _: pack({}, "none"),
}


@pytest.mark.parametrize("case", _UNFIT)
def test_what_does_not_fit_is_compiled(
    two: tuple[SimNode, SimNode], archives: Mapping[str, bytes], case: str
) -> None:
    first, second = two
    build = _UNFIT[case](pack({"toy-1.0": tarball_of(first)}, first.kernel))
    followed = stage(second, archives, {second.kernel: build})
    assert followed.ending == "exit 0", followed.text
    assert "compiled here" in followed.text
    assert second.compiled() == [second.kernel]
    assert pack({"toy-1.0": tarball_of(second)}, second.kernel)


def test_sending_writes_nothing_and_knows_its_limits(two: tuple[SimNode, SimNode]) -> None:
    first, second = two
    before = first.call("find /var/lib/fleetdrv/stage -ls")
    size = len(tarball_of(first))
    assert sent_by(first, limit=size - 1).startswith(b"83 1.0: more than")
    assert sent_by(first, limit=size).startswith(b"build ")
    assert sent_by(second).startswith(b"72 ")
    assert first.call("find /var/lib/fleetdrv/stage -ls") == before


def test_a_compiler_that_was_killed_is_named_and_the_next_try_has_no_trace_of_it(
    new_node: Callable[[str], SimNode], archives: Mapping[str, bytes]
) -> None:
    node = new_node("sim-1")
    (node.folder / "kill-make").touch()
    driver = Toy(node, archives)
    followed = driver.stage("1.0")
    assert followed.ending == "exit 68 stage"
    assert "the compiler was killed" in followed.text.splitlines()[-1]
    (node.folder / "kill-make").unlink()
    assert driver.stage("1.0").ending == "exit 0"
