"""A job's bundle: the same for the same work, whole, and safe to unpack and to run by sh."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetdrv.jobs import Bundle, Order, bundle, needs, script, whole
from fleetdrv.plan import Step

ORDER = Order(pool="gpu", run="r1", token=7)
LOAD = Step(program="load.sh", argv=("toy",), why="toy: load")
PAYLOAD = {"/etc/modprobe.d/fleetdrv-toy.conf": b"options toy mode=fast\n", "toy.archive": bytes(range(256))}


def a_bundle(*steps: Step, order: Order = ORDER, payload: dict[str, bytes] | None = None) -> Bundle:
    """Return the bundle of a job with these steps."""
    return bundle("r1.outage.1", steps or (LOAD,), order, PAYLOAD if payload is None else payload)


def unpacked(work: Bundle) -> dict[str, bytes]:
    """Return what the node finds, in the order of the tar."""
    with tarfile.open(fileobj=io.BytesIO(work.data)) as tar:
        return {entry.name: (tar.extractfile(entry) or io.BytesIO()).read() for entry in tar.getmembers()}


def test_the_same_work_is_the_same_bytes() -> None:
    shuffled = dict(reversed(PAYLOAD.items()))
    assert a_bundle() == a_bundle()
    assert a_bundle().data == a_bundle(payload=shuffled).data
    assert a_bundle().digest == a_bundle(payload=shuffled).digest


def test_a_later_controller_sends_the_same_job() -> None:
    later = a_bundle(order=Order(pool="gpu", run="r1", token=8))
    assert later.digest == a_bundle().digest
    assert later.data != a_bundle().data
    assert unpacked(later)["meta"] == b"pool=gpu\ntoken=8\nrun=r1\n"


@pytest.mark.parametrize(
    "other",
    [
        a_bundle(Step(program="load.sh", argv=("toy", "net"), why="toy: load")),
        a_bundle(Step(program="unload.sh", argv=("toy",), why="toy: load")),
        a_bundle(LOAD, LOAD),
        a_bundle(payload={**PAYLOAD, "toy.archive": b""}),
        a_bundle(payload={**PAYLOAD, "net.archive": b""}),
        a_bundle(payload={}),
        # Where one file ends and the next begins is part of the digest.
        a_bundle(payload={"a": b"b", "toy.archive": b""}),
    ],
)
def test_other_work_is_another_digest(other: Bundle) -> None:
    assert other.digest != a_bundle().digest
    assert len(other.digest) == 64


def test_what_only_spares_work_travels_and_makes_no_other_job() -> None:
    given = bundle("r1.outage.1", (LOAD,), ORDER, PAYLOAD, {"toy.k.build": b"modules"})
    assert given.digest == a_bundle().digest
    assert unpacked(given)["payload/toy.k.build"] == b"modules"
    assert list(unpacked(given))[-1] == "meta"


def test_names_and_contents_cannot_be_mistaken_for_each_other() -> None:
    assert a_bundle(payload={"a": b"bc"}).digest != a_bundle(payload={"ab": b"c"}).digest
    assert a_bundle(payload={"a": b"b\0c"}).digest != a_bundle(payload={"a\0b": b"c"}).digest


def test_the_last_member_proves_that_all_before_it_arrived() -> None:
    assert list(unpacked(a_bundle()))[-1] == "meta"


def test_a_bundle_holds_the_runner_the_programs_and_what_they_need() -> None:
    files = unpacked(a_bundle(LOAD, Step(program="dkms_restore.sh", argv=("toy",), why="toy: back")))
    programs = {"run.sh", "job.sh", "load.sh", "module.sh", "dkms_restore.sh", "dkms.sh", "dkms_install.sh"}
    assert programs | {"configure.sh", "plan.sh", "meta"} == {name for name in files if "/" not in name}
    for name in programs:
        assert files[name] == script(name).encode()


def test_files_lie_below_payload_whatever_their_name() -> None:
    files = unpacked(a_bundle())
    assert files["payload/etc/modprobe.d/fleetdrv-toy.conf"] == b"options toy mode=fast\n"
    assert files["payload/toy.archive"] == bytes(range(256))


def test_nobody_else_may_read_a_job() -> None:
    with tarfile.open(fileobj=io.BytesIO(a_bundle().data)) as tar:
        assert {(entry.mode, entry.mtime, entry.uid, entry.uname) for entry in tar} == {(0o600, 0, 0, "")}


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@settings(max_examples=30)
@given(st.lists(st.tuples(WORDS, st.lists(WORDS, max_size=3)), min_size=1, max_size=3))
def test_every_word_reaches_its_program_as_it_is(steps: list[tuple[str, list[str]]]) -> None:
    """Quotes, newlines, blanks and dollars included: read by the shell that the node has."""
    work = a_bundle(*(Step(program="load.sh", argv=tuple(argv), why=why) for why, argv in steps))
    recorder = 'step() { printf "%s\\0" "$#" "$@"; }\n'
    plan = recorder.encode() + unpacked(work)["plan.sh"]
    said = subprocess.run(["/bin/sh"], input=plan, capture_output=True, check=True).stdout.decode()
    expected = [word for why, argv in steps for word in (str(2 + len(argv)), why, "load.sh", *argv)]
    assert said.split("\0")[:-1] == expected


def test_a_program_travels_with_its_libraries_in_front() -> None:
    assert needs("launch.sh") == ("job.sh",)
    assert needs("job.sh") == ()
    assert whole("launch.sh") == script("job.sh") + script("launch.sh")
    assert whole("job.sh") == script("job.sh")


@pytest.mark.parametrize("path", sorted(Path(str(Path(__file__).parents[2] / "fleetdrv/scripts")).glob("*.sh")))
def test_what_a_program_says_it_needs_is_there(path: Path) -> None:
    for name in needs(path.name):
        assert (path.parent / name).exists()
    sourced = {line.split("./")[1].split()[0] for line in path.read_text().splitlines() if line.startswith(". ./")}
    assert sourced <= {*needs(path.name), "plan.sh"}
