"""What the evidence of a node shows by itself, the order in which findings are told, and the file it goes into."""

from __future__ import annotations

import stat
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv import bundle
from fleetdrv.causes import cause_of, finding_in, with_cause
from fleetdrv.diagnose import Gathered, ranked
from fleetdrv.errors import InputError
from fleetdrv.finding import UNKNOWN
from fleetdrv.findings_evidence import of_evidence, questions, sections
from fleetdrv.model import Fault
from fleetdrv.turn import Debt, Owed, Verdict
from tests.core.factories import some_facts

NOW = 1_795_000_000.0
XID = "[12.5] NVRM: Xid (PCI:0000:65:00): 79, pid=1, GPU has fallen off the bus."
FULL = "E: You don't have enough free space in /var/cache/apt/archives/."


def names(told: dict[str, str]) -> list[str]:
    return [found.finding.name for found in of_evidence(told, NOW)]


@given(
    st.dictionaries(
        st.from_regex(r"[a-z/]{1,9}", fullmatch=True), st.lists(st.from_regex(r"[^\n\r]*", fullmatch=True))
    )
)
def test_sections_come_back_as_they_were_printed(told: dict[str, list[str]]) -> None:
    lines = [f"section {name}\n" + "".join(f"|{line}\n" for line in text) for name, text in told.items()]
    assert sections("".join(lines) + "end\n") == {name: "\n".join(text) for name, text in told.items()}


@given(st.text())
def test_any_output_is_cut(text: str) -> None:
    assert isinstance(sections(text), dict)


def test_the_probe_is_asked_about_what_is_there() -> None:
    told = {
        "dkms-status": "toy/1.0, 6.1, x86_64: installed\nnvidia/535.183.01: added\nold, 1.2, 6.1, x86_64: built",
        "modules": "6.1 nvidia-uvm /lib/modules/6.1/updates/dkms/nvidia-uvm.ko 535\n6.1 $(x) /y z",
    }
    asked = ("dkms", "toy", "dkms", "nvidia", "dkms", "old", "module", "nvidia_uvm:nvidia-uvm")
    assert questions(told) == asked


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ({"apt-lock": "process 17 (apt-get -y upgrade)"}, "apt-locked"),
        ({"dpkg-audit": "The following packages are only half configured\n toy-dkms  x"}, "dpkg-interrupted"),
        ({"disks": "F\n\nF I U F P M\n/dev/vda1 100 100 0 100% /var"}, "disk-full"),
        ({"disks": "F\n\nF\n\n/dev/vda1 / ext4 ro,relatime 0 0"}, "read-only-filesystem"),
        ({"clock": f"{NOW - 28_800:.0f}\nNTPSynchronized=no"}, "clock-wrong"),
        (
            {"secure-boot": "SecureBoot enabled\n/var/lib/dkms/mok.pub:\n/var/lib/dkms/mok.pub is not enrolled"},
            "module-not-signed",
        ),
        (
            {
                "holds": "linux-generic",
                "kernel-packages": "hi  linux-generic 5.15\nii  linux-image-generic-hwe-22.04 6.8.0.60",
            },
            "kernel-not-held",
        ),
        ({"there/run/reboot-required": "-rw-r--r-- 1 root"}, "reboot-pending"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_evidence_that_is_a_finding_by_itself(told: dict[str, str], name: str) -> None:
    assert names(told) == [name]


@pytest.mark.parametrize(
    "told",
    [
        {"clock": f"{NOW + 20:.0f}", "apt-lock": "", "dpkg-audit": "\n"},
        {"disks": "F\n\nF I U F P M\n/dev/loop1 10 10 0 100% /snap/x\n\n/dev/loop1 /snap/x squashfs ro 0 0"},
        {"holds": "kubelet\nlinux-image-generic", "kernel-packages": "hi  linux-image-generic 6.8"},
        {"holds": "kubelet", "kernel-packages": "ii  linux-image-generic 6.8"},
        {"secure-boot": "SecureBoot disabled\n/var/lib/dkms/mok.pub is not enrolled"},
        {"clock": "timedatectl is not here"},
    ],
)
def test_evidence_that_is_as_it_should_be(told: dict[str, str]) -> None:
    assert names(told) == []


def order(**told: str) -> list[str]:
    sectioned = {name.replace("_", "-"): text for name, text in told.items()}
    return [found.finding.name for found in ranked(Gathered(told=sectioned, facts=some_facts(), now=NOW))]


def test_hardware_first_then_what_stops_apt_then_the_last_job_then_the_rest() -> None:
    job = {"jobs": "r.stage.1 done 0\nr.outage.1 done 73 install"}
    told = {**job, "job-log/r.outage.1": "toy: install\nError! toy/1.0 is broken!", "dpkg-audit": "half\n toy x"}
    told |= {"kernel-log": XID, "there/run/reboot-required": "x"}
    found = ranked(Gathered(told=told, facts=some_facts(), now=NOW))
    assert [f.finding.name for f in found] == ["gpu-off-bus", "dpkg-interrupted", "dkms-broken", "reboot-pending"]
    assert found[2].where == "log:2 of job r.outage.1"


def test_a_last_job_that_ended_well_is_no_finding_whatever_its_log_says() -> None:
    assert ranked(Gathered(told={"jobs": "r.1 done 0", "job-log/r.1": FULL}, facts=some_facts(), now=NOW)) == ()
    assert order(jobs="r.1 running") == []


def test_a_failure_that_nobody_knows_is_told_only_where_nothing_else_is_found() -> None:
    told = {"jobs": "r.1 done 9 x", "job-log/r.1": "the licence server said no"}
    assert [f.finding.name for f in ranked(Gathered(told=told, now=NOW))] == ["unknown"]
    told["dpkg-audit"] = "half\n toy x"
    assert [f.finding.name for f in ranked(Gathered(told=told, now=NOW))] == ["dpkg-interrupted"]


# -- a failed job's cause


def test_a_cause_stands_first_in_the_reason_once() -> None:
    due = Owed(debt=Debt.NOTHING, job="r.stage.1", verdict=Verdict.FAILED, why="toy: stage: exit 73")
    named = with_cause(due, cause_of(FULL, 73, some_facts()), "r.stage.1")
    assert named.why == "disk-full: No space is left on /var/cache/apt/archives/; toy: stage: exit 73"
    assert with_cause(named, cause_of(FULL, 73, some_facts()), "r.stage.1") == named
    finding = finding_in(named.why)
    assert finding is not None
    assert finding.name == "disk-full"


def test_what_is_not_known_keeps_its_step() -> None:
    due = Owed(debt=Debt.NOTHING, job="r.stage.1", verdict=Verdict.FAILED, why="toy: stage: exit 9")
    unknown = cause_of("who knows", 9, some_facts())
    assert unknown is not None
    assert unknown.finding == UNKNOWN
    assert with_cause(due, unknown, due.job) == due
    assert finding_in(due.why) is None


def test_a_job_that_ended_well_has_no_unknown_cause() -> None:
    assert cause_of("all is well", 0, some_facts()) is None
    skipped = cause_of("WARNING: No kernel headers were found, skipping module build.", 0, some_facts())
    assert skipped is not None
    assert skipped.finding.name == "headers-missing"


@pytest.mark.parametrize("debt", [Debt.ROLLBACK, Debt.RETURN_ROLLED_BACK])
def test_a_node_whose_hardware_failed_stays_out_as_it_is(debt: Debt) -> None:
    facts = replace(some_facts(), faults=(Fault(stamp=12.5, text=XID.partition("] ")[2]),))
    gone = cause_of(
        "nvidia-smi: fatal: NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver", 1, facts
    )
    due = with_cause(Owed(debt=debt, job="r.rollback.1", verdict=Verdict.ROLLED_BACK, why="x"), gone, "r.outage.1")
    assert (due.debt, due.verdict, due.job) == (Debt.LEAVE_OUT, Verdict.LEFT_OUT, "r.outage.1")
    assert due.why.startswith("gpu-off-bus: ")
    full = with_cause(Owed(debt=debt, job="r.outage.1", why="x"), cause_of(FULL, 73, facts), "r.outage.1")
    assert full.debt is debt


# -- the file


def test_a_bundle_is_for_its_owner_alone_and_never_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "deep/er/gpu-7.tar.gz"
    bundle.write(path, {"findings.json": "{}", "evidence/x.txt": "\udc80 any text \u20ac"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["gpu-7.tar.gz"], "nothing is left beside it"
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["gpu-7/findings.json", "gpu-7/evidence/x.txt"]
    with pytest.raises(InputError, match="is there already"):
        bundle.destination(str(path), "gpu-7")
    with pytest.raises(InputError, match="there is no folder"):
        bundle.destination(str(tmp_path / "none/x.tar.gz"), "gpu-7")


def test_a_hosts_name_is_no_way_out_of_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = bundle.destination("", "../../etc/x")
    assert path.parent == tmp_path / "fleetdrv/diagnoses"
    assert "/" not in path.name
