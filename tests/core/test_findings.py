"""What went wrong, by name: every row of the failures of real nodes, from whole logs with later errors in them."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv.finding import Repair, Retry, pattern
from fleetdrv.findings import TABLE, UNKNOWN, classify, named
from fleetdrv.findings_node import JOB_CUT_OFF, LOADED_DIFFERS
from fleetdrv.model import DkmsEntry, Job, JobState, Kernels, NodeFacts
from tests.core.factories import KERNEL, NEXT_KERNEL, a_file, a_loaded, an_identity, installed, some_facts

GOLDEN = Path(__file__).parent.parent / "golden"
ROWS = range(1, 63)
BY_FACTS_ONLY = {17, 34, 35, 46}
"""Rows without a text: what shows them is a fact of the node."""


@dataclass(frozen=True)
class Case:
    """A text, and what it is to be called."""

    name: str
    source: str
    log: str
    kernel: str = ""
    rows: tuple[int, ...] = ()


def _cited() -> list[Case]:
    _, *blocks = re.split(r"^%% ", (GOLDEN / "failures/cited.txt").read_text(), flags=re.MULTILINE)
    cases = []
    for block in blocks:
        head, source, text = block.split("\n", 2)
        name, *rows = head.split()
        log, _, kernel = text.rstrip("\n").partition("kernel:\n")
        cases.append(Case(name, source, log, kernel, tuple(map(int, rows))))
    return cases


def _captured() -> list[Case]:
    cases = []
    for path in sorted((GOLDEN / "failures").glob("*.log")):
        head, source, log = path.read_text().split("\n", 2)
        cases.append(Case(head.removeprefix("# "), source.removeprefix("# "), log))
    return cases


CITED, CAPTURED = _cited(), _captured()
CASES = (*CITED, *CAPTURED)
ERRORS = tuple(
    Case(case.name, case.source, case.log, rows=case.rows)
    for case in CITED
    if case.log.strip() and not case.kernel and classify(case.log)[0].finding.name == case.name
)


def _id(case: Case) -> str:
    return f"{case.name}:{case.source[:30]}"


def first(log: str, kernel: str = "", facts: NodeFacts | None = None) -> str:
    return classify(log, kernel=kernel, facts=facts)[0].finding.name


def later_errors(case: Case, number: int) -> str:
    """Return errors of other kinds, as they come when one goes on after a failure."""
    others = [other.log for other in ERRORS if other.name != case.name]
    start = sum(map(ord, case.name)) % len(others)
    return "\n".join(itertools.islice(itertools.cycle(others), start, start + number))


@pytest.mark.parametrize("case", CASES, ids=_id)
def test_each_failure_has_its_name(case: Case) -> None:
    found = classify(case.log, kernel=case.kernel)
    assert found[0].finding.name == case.name, [(f.finding.name, f.where) for f in found]
    assert found[0].evidence.strip()
    assert re.fullmatch(r"(log|kernel):\d+", found[0].where)
    assert case.source


def _failed(case: Case) -> bool:
    """Whether its text tells of a failure itself; a notice or a wrapper is outdone by a real error after it."""
    texts = [
        text for rule in TABLE if rule.finding.name == case.name for weight, text in rule.texts if weight <= 1
    ]
    return any(pattern(text).search(case.log) for text in texts)


_REAL = [case for case in CASES if _failed(case) or (case.kernel and case.log.strip())]


@pytest.mark.parametrize("case", _REAL, ids=_id)
def test_three_later_errors_do_not_change_it(case: Case) -> None:
    for number in (3, 7):
        assert first(f"{case.log}\n{later_errors(case, number)}", case.kernel) == case.name


@given(st.sampled_from(_REAL), st.lists(st.sampled_from(ERRORS), max_size=5))
def test_what_is_appended_never_changes_the_first(case: Case, later: list[Case]) -> None:
    assert first("\n".join([case.log, *(other.log for other in later)]), case.kernel) == case.name


@pytest.mark.parametrize("case", CAPTURED, ids=_id)
def test_a_captured_log_is_named_by_its_first_error_alone(case: Case) -> None:
    """Cut after the line that shows it, the log has the same name: nothing later was needed."""
    found = classify(case.log)[0]
    lines = case.log.splitlines()
    upto = int(found.where.partition(":")[2]) + found.evidence.count("\n")
    assert first("\n".join(lines[:upto])) == case.name


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_finding_and_a_case(row: int) -> None:
    findings = {rule.finding.name for rule in TABLE if row in rule.finding.rows}
    assert findings, f"row {row} is not in the table"
    cases = {case.name for case in CITED if row in case.rows} | {finding.name for finding in OF_FACTS}
    assert findings & cases, f"row {row} has no case"


def test_every_finding_of_the_table_has_a_case() -> None:
    shown = {case.name for case in CASES} | {finding.name for finding in OF_FACTS} | set(OWN_WORDS)
    assert {rule.finding.name for rule in TABLE} - shown == set()


def test_names_are_stable_and_each_is_there_once() -> None:
    names = [rule.finding.name for rule in TABLE]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][a-z0-9-]+", name) for name in names)


def test_nothing_is_left_to_be_filled_in() -> None:
    for found in (found for case in CASES for found in classify(case.log, kernel=case.kernel)):
        said = found.finding.cause + found.finding.remedy
        assert not re.search(r"[{]\w+[}](?!')", said.replace("nrconf{restart}", "")), said
        assert found.finding.cause.endswith(".")


# -- the wrapper, the symptom and the notice


@pytest.mark.parametrize("case", [case for case in _REAL if not case.kernel], ids=_id)
def test_dpkgs_wrapper_never_wins(case: Case) -> None:
    wrapper = "E: Sub-process /usr/bin/dpkg returned an error code (1)"
    wrapper += "\nneedrestart is being skipped since dpkg has failed"
    assert first(f"{case.log}\n{wrapper}") == case.name
    assert first(f"dpkg: error processing package x (--configure):\n{case.log}\n{wrapper}") == case.name


def test_an_error_that_nobody_knows_is_not_called_by_a_later_one() -> None:
    log = "E: The moon is in the wrong phase\nE: Could not get lock /var/lib/dpkg/lock."
    found = classify(log)
    assert [f.finding.name for f in found] == ["unknown", "apt-locked"]
    assert found[0].evidence.startswith("E: The moon")


def test_what_is_unknown_is_said_with_its_last_lines() -> None:
    found = classify("starting\nworking\nthe licence server said no\n\n")
    assert (found[0].finding, found[0].evidence) == (UNKNOWN, "starting\nworking\nthe licence server said no")
    assert found[0].where == "log:1"


def test_nothing_said_is_nothing_found() -> None:
    assert classify("") == ()
    assert classify("\n \n") == ()


def test_apt_that_waits_for_a_lock_has_not_failed() -> None:
    waits = (
        "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (apt)..."
    )
    assert first(f"{waits}\nE: You don't have enough free space in /var/cache/apt/archives/.") == "disk-full"


def test_a_warning_of_another_repository_is_not_the_cause() -> None:
    log = "W: GPG error: http://old: NO_PUBKEY A4B469963BF863CC\nE: Unable to locate package linux-headers-6.1"
    assert first(log) == "headers-unavailable"


def test_a_notice_explains_the_failure_that_comes_of_it() -> None:
    """apt ended with 0, and the module is not there."""
    skipped = "Module build for kernel 6.8.0 was skipped since the\nkernel headers for this kernel do not seem"
    missing = "modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.8.0"
    assert [f.finding.name for f in classify(f"{skipped}\n{missing}")] == ["headers-missing", "module-missing"]
    assert first(f"{skipped}\nError! Bad return status for module build on kernel: 6.9\n") != "build-killed"


def test_a_notice_does_not_name_a_failure_that_it_has_nothing_to_do_with() -> None:
    unsigned = "Binary update-secureboot-policy not found, modules won't be signed"
    assert first(f"{unsigned}\nthe licence server refused: fatal") == "unknown"
    assert first(f"{unsigned}\nE: Sub-process /usr/bin/dpkg returned an error code (1)") == "dpkg-failed"


def test_the_kernels_own_lines_after_a_refusal_explain_it() -> None:
    log = (
        "modprobe: ERROR: could not insert 'x': Exec format error\n"
        "[  10.1] x: version magic '6.1' should be '6.8'\n"
        "x: x is not loaded; modprobe: ERROR: could not insert 'x': Exec format error (modprobe exit 1)\n"
    )
    assert first(log) == "wrong-kernel"


def test_an_old_line_of_the_kernel_does_not_name_a_failure_of_apt() -> None:
    xid = "[1.0] NVRM: Xid (PCI:0000:65:00): 79, pid=1, GPU has fallen off the bus."
    found = classify("E: You don't have enough free space in /var/cache/apt/archives/.", kernel=xid)
    assert [f.finding.name for f in found] == ["disk-full", "gpu-off-bus"]


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_make_log_tells_why_a_build_failed(release: str) -> None:
    """As trial.sh shows it: dkms's words first, make.log after them."""
    said = "Error! Bad return status for module build on kernel: 6.1 (x86_64)\nConsult /x/make.log"
    log = (GOLDEN / f"make_log_1.2_{release}.txt").read_text()
    assert (
        first(f"{said} for more information.\n{log}\ntoy 1.2 does not compile for kernel 6.1")
        == "kernel-api-changed"
    )
    assert first(log) == "kernel-api-changed"


def test_a_wrapped_line_of_the_kernel_is_read_as_one() -> None:
    kernel = (
        "[1.1] NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:2b85)\n"
        "[1.1] NVRM: installed in this system requires use of\n"
        "[1.1] NVRM: the NVIDIA open kernel modules.\n"
    )
    found = classify("No devices were found", kernel=kernel)[0]
    assert (found.finding.name, found.where) == ("needs-open-modules", "kernel:2")
    assert found.evidence.count("\n") == 1


def test_a_log_of_any_size_is_read_in_bounded_time() -> None:
    first_error = "E: You don't have enough free space in /var/cache/apt/archives/.\n"
    noise = "  CC [M]  /var/lib/dkms/nvidia/535/build/nvidia/nv.o\n" * 30_000
    assert first(first_error + noise + "E: dpkg was interrupted, you must manually run x") == "disk-full"


@given(st.text(max_size=400), st.text(max_size=200))
def test_any_text_is_read(log: str, kernel: str) -> None:
    for found in classify(log, kernel=kernel):
        assert found.finding.name
        assert found.where


# -- what the node programs of fleetdrv say themselves

OWN_WORDS = {
    "apt-locked": "toy: dpkg's lock is held by process 4 (apt-get -y upgrade), after 600 s; all is as it was",
    "dpkg-interrupted": 'dpkg was interrupted before us: run "dpkg --configure -a" and look what happened',
    "held-package": "toy-dkms is held at 1.0 by somebody else: apt-mark unhold toy-dkms",
    "packages-conflict": "apt-get: toy-dkms : Depends: dkms (>= 9) but 3.0.10-8 is to be installed;",
    "touches-others": "the playbook names none of this: apt would remove nvidia-driver-535",
    "wrong-digest": f"toy-dkms=1.0: its SHA-256 is {'0' * 64}, not {'1' * 64}",
    "tool-missing": "make is not installed: nothing can be compiled here",
    "headers-missing": "no headers for kernel 6.1.0-56: there is no /lib/modules/6.1.0-56/build",
    "build-excluded": "toy 3.0 excludes kernel 6.1.0-56 (BUILD_EXCLUSIVE in its dkms.conf)",
    "disk-full": "/var/lib/fleetdrv: 5000 KiB free, too few to build",
    "boot-full": "/boot/initrd.img-6.1: no space left for a new one",
    "dkms-build-failed": "toy 1.2 does not compile for kernel 6.1.0-56 (dkms exit 10)",
    "dkms-not-built": "toy 1.1: dkms did not install it for kernel 6.1.0-56",
    "module-in-use": "fleetdrv_toy is in use (count 1): process 12 (sleep) has /dev/toy open",
    "module-wedged": "nvidia is stuck: its state is 'going', only a reboot helps",
    "module-missing": "toy: no file for kernel 6.1.0-56; modprobe: FATAL: nothing",
    "module-refused": "toy: toy is not loaded; modprobe: ERROR: could not insert 'toy': Invalid argument",
    "read-only-filesystem": "mkdir: cannot create directory '/var/lib/fleetdrv/x': Read-only file system",
    "package-unknown": "E: Unable to locate package toy-dkms",
    "repository-expired": "E: Release file for http://d/InRelease is expired (invalid since 3d 2h).",
}  # fmt: skip


@pytest.mark.parametrize(("name", "line"), OWN_WORDS.items())
def test_our_own_programs_words_are_known(name: str, line: str) -> None:
    assert first(f"== toy: install\n{line}") == name


def test_no_room_for_an_initramfs_is_a_full_boot_before_anything_was_written() -> None:
    """As initrd.sh says it in stage, seen on a virtual machine."""
    line = "/boot: 980 KiB free; 8806 KiB are needed, as /boot/initrd.img-6.1 carries nvidia and has to be"
    assert first(f"== nvidia: trial build\n{line} written anew beside the old one.") == "boot-full"


def test_what_the_evidence_names_stands_in_the_remedy() -> None:
    held = classify("toy-dkms is held at 1.0 by somebody else: apt-mark unhold toy-dkms")[0].finding
    assert "apt-mark unhold toy-dkms" in held.remedy
    headers = classify("Error! Your kernel headers for kernel 6.1.0-9 cannot be found at /lib/x.")[0].finding
    assert "apt-get install linux-headers-6.1.0-9 " in headers.remedy


def test_a_kernel_is_named_without_the_colon_behind_it() -> None:
    """As trial.sh says it, on a virtual machine whose compiler was killed for want of memory."""
    every = classify("toy 1.2 does not compile for kernel 6.1.0-56: the compiler was killed")
    causes = [found.finding.cause for found in every if found.finding.name == "dkms-build-failed"]
    assert causes == ["The module does not compile for kernel 6.1.0-56."]


# -- facts

_NEXT = Kernels(running=KERNEL, newest=NEXT_KERNEL, default=NEXT_KERNEL)


def _facts(**more: object) -> NodeFacts:
    return replace(some_facts(), **{"jobs": (), **more})  # type: ignore[arg-type]


FACTS: tuple[tuple[str, NodeFacts], ...] = (
    ("dpkg-interrupted", _facts(dpkg_interrupted=True)),
    ("disk-full", _facts(free_kib={"/var": 900, "/boot": 900, "/lib/modules": 900})),
    ("boot-full", _facts(free_kib={"/var": 9_000_000, "/boot": 900, "/lib/modules": 9_000_000})),
    ("headers-missing", _facts(headers=frozenset())),
    ("no-autoinstall", _facts(no_autoinstall=True)),
    ("dkms-broken", _facts(dkms=(DkmsEntry(name="toy", version="1", state="broken"),))),
    ("dkms-not-built", _facts(dkms=(DkmsEntry(name="toy", version="1", state="added"),))),
    ("module-file-changed", _facts(dkms=(installed(remark="Differences between built and installed modules"),))),
    ("kernel-left-out", _facts(kernels=_NEXT, headers=frozenset({KERNEL, NEXT_KERNEL}))),
    ("module-missing", _facts(files=(a_file(kernel=NEXT_KERNEL),), loaded={})),
    ("module-wedged", _facts(loaded={"toy": a_loaded(state="going")})),
    ("old-module-loaded", _facts(loaded={"toy": a_loaded(identity=an_identity("1.0"))})),
    ("stale-initramfs", _facts(initramfs=frozenset({(KERNEL, "toy")}))),
    ("initramfs-missing", _facts(initrds=frozenset({"another"}))),
    ("job-cut-off", _facts(jobs=(Job(id="r.outage.1", state=JobState.INTERRUPTED),))),
    ("reboot-pending", _facts(dkms_version="", dkms=(), kernels=_NEXT)),
)
OF_FACTS = [finding for name, _ in FACTS if (finding := named(name))] + [LOADED_DIFFERS, JOB_CUT_OFF]
OF_FACTS += [finding for finding in [named("kernel-not-held")] if finding]


@pytest.mark.parametrize(("name", "facts"), FACTS, ids=[name for name, _ in FACTS])
def test_a_fact_alone_is_a_finding(name: str, facts: NodeFacts) -> None:
    assert first("", facts=facts) == name


def test_a_node_that_is_as_it_should_be_has_none() -> None:
    assert classify("", facts=_facts()) == ()


def test_facts_come_in_the_order_in_which_they_are_to_be_mended() -> None:
    facts = _facts(
        dpkg_interrupted=True,
        free_kib={"/var": 1},
        headers=frozenset(),
        dkms=(DkmsEntry(name="toy", version="1", state="added"),),
        initramfs=frozenset({(KERNEL, "toy")}),
    )
    names = [found.finding.name for found in classify("", facts=facts)]
    assert names == ["dpkg-interrupted", "disk-full", "headers-missing", "dkms-not-built", "stale-initramfs"]


def test_a_fact_explains_a_symptom_and_no_other() -> None:
    facts = _facts(headers=frozenset(), no_autoinstall=True)
    log = "modprobe: FATAL: Module toy not found in directory /lib/modules/6.1"
    assert first(log, facts=facts) == "headers-missing"
    assert first("E: You don't have enough free space in /var/cache/apt/archives/.", facts=facts) == "disk-full"
    assert first("the licence server said no", facts=facts) == "unknown"


def test_hardware_is_put_aside_and_nothing_is_repaired_on_it() -> None:
    for finding in (rule.finding for rule in TABLE):
        if finding.quarantine:
            assert (finding.retry, finding.repair) == (Retry.NO, None)
    gone = named("gpu-off-bus")
    assert gone is not None
    assert gone.quarantine


def test_each_safe_remedy_but_the_hold_has_a_finding() -> None:
    findings = [rule.finding for rule in TABLE] + [LOADED_DIFFERS, JOB_CUT_OFF]
    assert {f.repair for f in findings} - {None} == set(Repair) - {Repair.HOLD}
