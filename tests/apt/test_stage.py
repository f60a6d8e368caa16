"""apt_stage.sh: packages and their builds got ready, or refused, with nothing changed on the node."""

from __future__ import annotations

import base64

import pytest

from fleetdrv.buildonce import pack
from tests.apt.node import AptNode

_REFUSED = {
    "the driver excludes the kernel": ("toy-dkms=1.5", 67, "BUILD_EXCLUSIVE"),
    "it does not compile": ("toy-dkms=1.2", 68, "toy 1.2 does not compile"),
    "a dependency that nobody has": ("toy-dkms=2.0", 79, "toy-dkms : Depends: nonesuch (>= 3)"),
    "a kernel": ("toy-dkms=2.1", 79, "would install kernel linux-image-9.9.9 9.9.9-1"),
    "it removes another": ("toy-dkms=2.2", 79, "would remove toy-tools"),
    "it changes another": ("toy-dkms=2.3", 79, "would change toy-tools [1.0] to 1.1"),
    "a version that nobody has": ("toy-dkms=9", 79, "Version '9' for 'toy-dkms' was not found"),
}


@pytest.fixture
def ready(node: AptNode) -> AptNode:
    node.call("dpkg -i /srv/repository/pool/toy-tools_1.0_all.deb")
    refreshed = node.refresh()
    assert refreshed.code == 0, refreshed.err
    return node


def test_the_system_is_as_before_and_all_is_ready(ready: AptNode) -> None:
    before = ready.state()
    for _ in range(2):
        staged = ready.stage("key", "toy-dkms=1.1")
        assert staged.code == 0, staged.err
    assert ready.state() == before
    there = ready.call("cd /var/lib/fleetdrv/stage; find . -type f | sort; cat key/places").splitlines()
    assert there == [
        "./key/debs/toy-dkms_1.1_all.deb",
        "./key/debs/toy-lib_1.0_all.deb",
        "./key/names",
        "./key/places",
        "./key/toy-1.1.dkms.tar.gz",
        "toy 1.1 /usr/share/toy-dkms",
    ]
    listed = ready.call("tar -tzf /var/lib/fleetdrv/stage/key/toy-1.1.dkms.tar.gz")
    assert f"dkms_main_tree/{ready.kernel}/x86_64/module/fleetdrv_toy.ko" in listed


def test_lists_that_were_copied_by_half_when_it_was_killed_are_copied_again(node: AptNode) -> None:
    sources = "/etc/apt/sources.list.d/toy.sources"
    node.call(f"{{ cat payload/toy.sources; echo Trusted: yes; }} >{sources} && apt-get update")
    node.call(
        "mv /usr/bin/cp /usr/bin/cp.real; printf '%s\\n' '#!/bin/sh' 'for to; do :; done'"
        " '[ ! -d \"$to\" ] || to=$to/${2##*/}; head -c 9 \"$2\" >\"$to\"; kill -9 -1' >/usr/bin/cp;"
        " chmod 755 /usr/bin/cp"
    )
    assert node.stage("key", "toy-tools=1.0").code != 0
    node.call("mv /usr/bin/cp.real /usr/bin/cp")
    staged = node.stage("key", "toy-tools=1.0")
    assert staged.code == 0, staged.err


def test_what_another_node_has_built_is_not_compiled(ready: AptNode) -> None:
    assert "compiled on another node" not in ready.stage("key", "toy-dkms=1.1").out
    sent = base64.b64decode(ready.call("sh built.sh key 99999999 | base64 -w0"))
    head, _, rest = sent.partition(b"\n")
    _, name, size, _ = head.split()
    assert (name, rest[int(size) :]) == (b"toy-1.1.dkms.tar.gz", b"end\n")
    build = ready.folder / f"srv/job/payload/toy.{ready.kernel}.build"
    build.write_bytes(pack({"toy-1.1": rest[: int(size)]}, ready.kernel))
    ready.call("rm /usr/bin/gcc-12; ln -s false /usr/bin/gcc-12")
    staged = ready.stage("other", "toy-dkms=1.1")
    assert staged.code == 0, staged.err
    assert f"toy 1.1 for kernel {ready.kernel} was compiled on another node" in staged.out
    modules = "tar -xOzf /var/lib/fleetdrv/stage/{}/toy-1.1.dkms.tar.gz dkms_main_tree | sha256sum"
    assert ready.call(modules.format("key")) == ready.call(modules.format("other"))


def test_lists_that_the_system_has_just_got_need_no_refresh(node: AptNode) -> None:
    source = "deb [trusted=yes] file:/srv/repository stable main"
    node.call(f"echo '{source}' >/etc/apt/sources.list.d/own.list; apt-get -qq update")
    staged = node.stage("key", "toy-dkms=1.0")
    assert staged.code == 0, staged.err


@pytest.mark.parametrize("case", _REFUSED)
def test_refused_with_nothing_changed(ready: AptNode, case: str) -> None:
    pin, code, words = _REFUSED[case]
    before = ready.state()
    refused = ready.stage("key", pin)
    assert (refused.code, words in refused.reason) == (code, True), refused.err
    assert ready.state() == before
    assert ready.call("ls -A /var/lib/fleetdrv/stage") == ""


def test_packages_that_bring_a_kernel_no_such_module(ready: AptNode) -> None:
    before = ready.state()
    for pin in ("toy-tools=1.0", "toy-dkms=1.1"):
        refused = ready.stage("key", pin, modules="fleetdrv_toy,nonesuch" if "dkms" in pin else "nonesuch")
        assert (refused.code, refused.reason) == (
            67,
            f"nonesuch: neither these packages nor kernel {ready.kernel} have a module of that name",
        )
    assert ready.state() == before


def test_a_file_may_have_a_dash_in_its_name(ready: AptNode) -> None:
    """nvidia-current, say: the playbook names the file as it is."""
    staged = ready.stage("key", "toy-tools=1.0", modules="toy-tools")
    assert staged.code == 0, staged.err


def test_a_module_of_the_version_to_be_replaced_goes_with_it(ready: AptNode) -> None:
    ready.bring_to("toy-dkms=1.0")
    refused = ready.stage("key", "toy-dkms=1.3", modules="fleetdrv_toy:fleetdrv_toy")
    assert (refused.code, "fleetdrv_toy: neither these packages" in refused.reason) == (67, True), refused.err
    assert ready.stage("key", "toy-dkms=1.3", modules="toy-renamed").code == 0


def test_a_build_that_is_called_otherwise_is_known_by_the_name_within_it(ready: AptNode) -> None:
    """As NVIDIA's in Debian: the plan is told how the file is called, before anything is installed."""
    said = ready.stage("key", "toy-dkms=1.3", modules="fleetdrv_toy:toy-other")
    assert (said.code, said.reason.startswith("toy_other: neither")) == (67, True), "what is said, counts"
    staged = ready.stage("key", "toy-dkms=1.3", modules="fleetdrv_toy")
    assert staged.code == 0, staged.err
    assert [record for record in ready.probe() if record[0] == "named"] == [
        ["named", "key", "fleetdrv_toy", "toy_renamed"]
    ]
    assert ready.install("key", "toy-dkms=1.3").code == 0
    ready.call("rm -r /var/lib/fleetdrv/stage/key")
    seen = ready.probe("driver", "toy", "package", "toy-dkms", "module", "fleetdrv_toy", "module", "nonesuch")
    assert [record for record in seen if record[0] == "named"] == [["named", "-", "fleetdrv_toy", "toy_renamed"]]
    (file,) = (record for record in seen if record[0] == "file")
    assert (file[1], file[3].rpartition("/")[2]) == ("fleetdrv_toy", "toy_renamed.ko")
    assert ready.stage("plain", "toy-dkms=1.0", downgrade=True).code == 0
    assert ready.probe()[-1] == ["end"]
    assert not [record for record in ready.probe() if record[0] == "named"], "1.0 is called as it is loaded"


def test_a_kernels_name_is_no_pattern(ready: AptNode) -> None:
    """Debian 13's kernels have a plus in their names."""
    ready.kernel = "6.12.118+deb13-cloud-amd64"
    staged = ready.stage("key", "toy-trixie=1.0")
    assert staged.code == 0, staged.err
    ready.kernel = "6.1211118+deb13-cloud-amd64"
    assert ready.stage("other", "toy-trixie=1.0").code == 67


def test_no_headers(ready: AptNode) -> None:
    ready.call(f"rm /lib/modules/{ready.kernel}/build")
    before = ready.state()
    refused = ready.stage("key", "toy-dkms=1.0")
    assert (refused.code, ready.kernel in refused.reason) == (66, True)
    assert ready.state() == before


def test_another_package_than_was_pinned(ready: AptNode) -> None:
    wrong = f"toy-dkms=1.0={'a' * 64}"
    refused = ready.run("apt_stage.sh", "toy", "key", "keep", "fleetdrv_toy", wrong, "--", ready.kernel)
    assert refused.code == 65
    assert ready.repository.sha256["toy-dkms=1.0"] in refused.reason


def test_a_downgrade_only_when_the_plan_knows(ready: AptNode) -> None:
    ready.call("dpkg -i /srv/repository/pool/toy-tools_1.1_all.deb")
    refused = ready.stage("key", "toy-tools=1.0")
    assert (refused.code, "--allow-downgrades" in refused.reason) == (79, True)
    assert ready.stage("key", "toy-tools=1.0", downgrade=True).code == 0


def test_what_dpkg_did_in_the_same_second_is_seen(ready: AptNode) -> None:
    """apt believes its cache of dpkg's status while size and second of that file are the same."""
    status = "/var/lib/dpkg/status"
    ready.call(
        f"touch -r {status} /was; dpkg -i /srv/repository/pool/toy-tools_1.1_all.deb; touch -r /was {status}"
    )
    assert ready.stage("key", "toy-tools=1.0").code == 79


def test_a_full_disk(node: AptNode) -> None:
    node.call("mkdir /var/lib/fleetdrv; mount -t tmpfs -o size=48m tmpfs /var/lib/fleetdrv")
    assert node.refresh().code == 0
    before = node.state()
    refused = node.stage("key", "toy-dkms=1.0")
    assert (refused.code, "KiB free" in refused.reason) == (73, True)
    assert node.state() == before


def test_dpkg_was_interrupted_before_us(ready: AptNode) -> None:
    ready.call("dpkg --unpack /srv/repository/pool/toy-lib_1.0_all.deb")
    before = ready.state()
    refused = ready.stage("key", "toy-dkms=1.0")
    assert (refused.code, "dpkg --configure -a" in refused.reason) == (81, True)
    assert ready.state() == before


def test_a_hold_of_somebody_else(ready: AptNode) -> None:
    ready.call("apt-mark hold toy-tools")
    refused = ready.stage("key", "toy-tools=1.1")
    assert (refused.code, "toy-tools is held at 1.0" in refused.reason) == (82, True)
    assert ready.stage("key", "toy-tools=1.0").code == 0
