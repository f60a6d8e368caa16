"""apt_install.sh, apt_keep.sh and apt_restore.sh: what the outage holds, whatever happens to it."""

from __future__ import annotations

import pytest

from tests.apt.node import AptNode

_HOLD_LOCK = (
    "exec perl -e 'use Fcntl; $| = 1; open F, q(>>), q(/var/lib/dpkg/lock-frontend) or die;"
    " my $whole = pack(q(s s x4 q q i x4), F_WRLCK, 0, 0, 0, 0);"
    " fcntl(F, F_SETLK, $whole) or die; print qq(held\\n); sleep {}'"
)


def installed(node: AptNode) -> str:
    return node.call("dpkg-query -W -f '${db:Status-Abbrev}${Version}' toy-dkms")


def test_from_files_without_a_compile_or_the_network(node: AptNode) -> None:
    node.refresh()
    assert node.stage("key", "toy-dkms=1.1").code == 0
    node.call("rm -r /srv/repository; mv /usr/bin/make /usr/bin/make.away")
    ended = node.install("key", "toy-dkms=1.1")
    assert ended.code == 0, ended.out + ended.err
    assert "Loading tarball for toy-1.1" in ended.out
    assert "Building initial module" not in ended.out
    assert "W: " not in ended.out, "a warning that nobody can act on"
    assert node.call("dkms status") == f"toy/1.1, {node.kernel}, x86_64: installed\n"
    assert installed(node) == "hi 1.1"
    assert node.call("ls -A /usr/share/toy-dkms 2>/dev/null || echo gone") == "gone\n"
    assert f"Signed-By: /etc/apt/keyrings/fleetdrv-{node.repository.key.fingerprint}.gpg" in node.call(
        "cat /etc/apt/sources.list.d/fleetdrv-toy*"
    )
    before = node.state()
    assert node.install("key", "toy-dkms=1.1").code == 0
    node.call("rm -r /var/lib/fleetdrv/stage/key")
    assert node.install("key", "toy-dkms=1.1").code == 0
    assert node.state() == before


def test_what_is_staged_is_installed_though_the_repository_is_there(node: AptNode) -> None:
    """Of the same package here and there apt takes the signed one: it would be downloaded in the outage."""
    node.refresh()
    assert node.stage("key", "toy-dkms=1.1").code == 0
    ended = node.install("key", "toy-dkms=1.1")
    assert ended.code == 0, ended.err
    fetched = [line for line in ended.out.splitlines() if line.startswith("Get:")]
    assert all("/var/lib/fleetdrv/stage/key/debs/" in line for line in fetched), fetched
    assert fetched


def test_an_upgrade_moves_our_own_hold_along(node: AptNode) -> None:
    node.bring_to("toy-dkms=1.0")
    node.bring_to("toy-dkms=1.1", key="second")
    assert installed(node) == "hi 1.1"
    assert node.call("dkms status") == f"toy/1.1, {node.kernel}, x86_64: installed\n"
    assert node.install("second", "toy-dkms=1.1", hold="no").code == 0
    assert installed(node) == "ii 1.1"


def test_a_hold_of_somebody_else_stays(node: AptNode) -> None:
    node.bring_to("toy-tools=1.0")
    node.call("rm /var/lib/fleetdrv/apt/held")
    assert node.install("first", "toy-tools=1.0", hold="no").code == 0
    assert node.call("apt-mark showhold") == "toy-tools\n"


@pytest.mark.parametrize(("conffiles", "ours"), [("keep", True), ("replace", False)])
def test_a_conffile_changed_by_hand(node: AptNode, conffiles: str, ours: bool) -> None:
    node.bring_to("toy-dkms=1.0")
    node.call("echo mine >/etc/toy.conf")
    assert node.stage("second", "toy-dkms=1.1").code == 0
    ended = node.install("second", "toy-dkms=1.1", conffiles=conffiles)
    assert ended.code == 0, ended.err
    assert (node.call("cat /etc/toy.conf") == "mine\n") is ours
    assert ("kept /etc/toy.conf; the package's own is /etc/toy.conf.dpkg-dist" in ended.out) is ours


def test_a_lock_that_is_let_go_is_waited_for(node: AptNode) -> None:
    node.refresh()
    node.stage("key", "toy-tools=1.0")
    with node.start(_HOLD_LOCK.format(3)) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        ended = node.install("key", "toy-tools=1.0", LOCK_SECONDS="60")
        assert ended.code == 0, ended.err
        holder.wait(timeout=30)


def test_a_lock_that_is_held_for_ever_is_named(node: AptNode) -> None:
    node.refresh()
    node.stage("key", "toy-tools=1.0")
    before = node.state()
    with node.start(_HOLD_LOCK.format(600)) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refused = node.install("key", "toy-tools=1.0", LOCK_SECONDS="2")
        holder.kill()
    assert refused.code == 83
    assert "process " in refused.reason
    assert "(perl -e " in refused.reason
    assert node.state() == before


_BROKEN = "#!/bin/sh\n[ $1 != configure ] || { echo broken >&2; exit 1; }\n"


@pytest.fixture
def broken(node: AptNode) -> AptNode:
    """toy-dkms 1.1 needs toy-lib, which is fine; here toy-dkms itself cannot be configured."""
    assert node.refresh().code == 0
    assert node.stage("key", "toy-dkms=1.1").code == 0
    node.call(
        "cd /tmp && dpkg-deb -R /var/lib/fleetdrv/stage/key/debs/toy-dkms_1.1_all.deb t &&"
        f" printf '%b' '{_BROKEN}' >t/DEBIAN/postinst &&"
        " dpkg-deb -Zgzip -b t /var/lib/fleetdrv/stage/key/debs/toy-dkms_1.1_all.deb"
    )
    return node


def test_what_cannot_be_configured_is_taken_away_again(broken: AptNode) -> None:
    before = broken.state()
    failed = broken.install("key", "toy-dkms=1.1")
    assert (failed.code, failed.reason.endswith("; all is as it was")) == (83, True)
    assert "post-installation script subprocess returned error exit status 1" in failed.out
    assert broken.call("dpkg --audit; dpkg -l | grep toy || :; ls -A /var/lib/fleetdrv/apt | grep inst || :") == ""
    dkms, etc = (broken.call(f"{what}; :") for what in ("dkms status", "ls /etc/toy.conf 2>/dev/null"))
    assert (dkms, etc) == ("", "")
    assert [line for line in before.splitlines() if line.startswith(("ii", "hi"))] == [
        line for line in broken.state().splitlines() if line.startswith(("ii", "hi"))
    ]


def test_where_modules_were_unloaded_a_failure_is_not_called_harmless(broken: AptNode) -> None:
    broken.call("echo '1 fleetdrv_toy' >unloaded")
    assert broken.install("key", "toy-dkms=1.1").code == 70


def test_where_an_earlier_step_changed_something_a_failure_is_not_called_harmless(broken: AptNode) -> None:
    """Two drivers in one playbook: the first one is on the node already."""
    broken.call(
        "job=/var/lib/fleetdrv/jobs/j1; mkdir -p $job; cp -a /srv/job/. $job; cd $job; : >log;"
        " printf 'pool=p\\ntoken=1\\nrun=r\\n' >meta;"
        " echo 'step first configure.sh first payload/wanted /etc/modprobe.d/fleetdrv-first.conf' >plan.sh;"
        f" echo 'step second apt_install.sh toy key yes keep toy-dkms=1.1 -- {broken.kernel}' >>plan.sh;"
        " sh run.sh j1 || :"
    )
    assert broken.call("cat /var/lib/fleetdrv/jobs/j1/rc") == "70 second\n"


def test_a_failed_upgrade_is_not_called_harmless(node: AptNode, broken: AptNode) -> None:
    node.call("mv /var/lib/fleetdrv/stage/key /broken")
    node.bring_to("toy-dkms=1.0")
    node.call("mv /broken /var/lib/fleetdrv/stage/key")
    assert broken.install("key", "toy-dkms=1.1").code == 70


def test_apt_may_be_asked_before_anything_is_changed(node: AptNode) -> None:
    node.refresh()
    node.stage("key", "toy-tools=1.0")
    ready = ("apt_ready.sh", "toy", "key", "toy-tools=1.0")
    before = node.state()
    assert node.run(*ready).code == 0
    with node.start(_HOLD_LOCK.format(8)) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refused = node.run(*ready, READY_SECONDS="1")
        holder.wait(timeout=60)
    assert refused.code == 86
    assert "dpkg's lock is held by process " in refused.reason
    node.call("mount -t tmpfs -o size=8m tmpfs /usr/lib/modules")
    full = node.run(*ready)
    assert (full.code, "/lib/modules: 8192 KiB free" in full.reason) == (83, True)
    node.call("umount /usr/lib/modules")
    assert node.state() == before
    node.call("dpkg --unpack /srv/repository/pool/toy-lib_1.0_all.deb")
    interrupted = node.run(*ready)
    assert (interrupted.code, "dpkg was interrupted before us" in interrupted.reason) == (83, True)


def test_somebody_elses_half_done_packages_are_his(node: AptNode) -> None:
    node.refresh()
    node.stage("key", "toy-tools=1.0")
    node.call("dpkg --unpack /srv/repository/pool/toy-lib_1.0_all.deb")
    before = node.state()
    assert node.install("key", "toy-tools=1.0").code == 81
    assert node.state() == before


@pytest.mark.parametrize("moment", ["dkms ldtarball", "dpkg --status-fd", "dkms install"])
def test_killed_at_any_moment_the_same_again_makes_it_whole(node: AptNode, moment: str) -> None:
    """What is killed is all of it, when a certain program runs: a stand-in kills every process of the node."""
    node.bring_to("toy-dkms=1.0")
    assert node.stage("second", "toy-dkms=1.1").code == 0
    program, _, word = moment.partition(" ")
    real = node.call(f"command -v {program}").strip()
    node.call(
        f"mv {real} {real}.real; printf '%s\\n' '#!/bin/sh' 'case \"$*\" in *\"{word}\"*)'"
        f" 'if [ -e /armed ]; then rm /armed; kill -9 -1; fi ;; esac' 'exec {real}.real \"$@\"' >{real};"
        f" chmod 755 {real}; : >/armed"
    )
    killed = node.install("second", "toy-dkms=1.1")
    assert killed.code != 0
    assert node.call("ls /armed 2>/dev/null || echo gone") == "gone\n"
    again = node.install("second", "toy-dkms=1.1")
    assert again.code == 0, again.out + again.err
    assert installed(node) == "hi 1.1"
    assert node.call("dpkg --audit; ls -A /usr/share/toy-dkms 2>/dev/null || echo gone") == "gone\n"
    assert node.call("dkms status") == f"toy/1.1, {node.kernel}, x86_64: installed\n"


def test_a_tarball_is_known_of_before_it_is_out(node: AptNode) -> None:
    """Killed right after it was put where the package looks for it; then something else is wanted."""
    node.bring_to("toy-dkms=1.0")
    assert node.stage("second", "toy-dkms=1.1").code == 0
    node.call(
        "mv /usr/bin/mv /usr/bin/mv.real; printf '%s\\n' '#!/bin/sh' 'mv.real \"$@\"'"
        " 'case \"$*\" in */toy-dkms/*) kill -9 -1 ;; esac' >/usr/bin/mv; chmod 755 /usr/bin/mv"
    )
    assert node.install("second", "toy-dkms=1.1").code != 0
    node.call("ls /usr/share/toy-dkms/toy-1.1.dkms.tar.gz && mv.real /usr/bin/mv.real /usr/bin/mv")
    back = node.install("first", "toy-dkms=1.0")
    assert back.code == 0, back.out + back.err
    assert node.call("ls -A /usr/share/toy-dkms 2>/dev/null || echo gone") == "gone\n"


def test_last_known_good_comes_back(node: AptNode) -> None:
    node.bring_to("toy-dkms=1.0")
    keep = ("apt_keep.sh", "toy", "digest-1", "payload/wanted", "first", "toy-dkms=1.0", "--", node.kernel)
    for _ in range(2):
        kept = node.run(*keep)
        assert kept.code == 0, kept.err
    assert ["good", "toy", "digest-1"] in [record[:3] for record in node.probe("driver", "toy")]
    node.bring_to("toy-dkms=1.1", key="second")
    node.call("rm -r /srv/repository; echo 'options x' >/etc/modprobe.d/fleetdrv-toy.conf")
    for _ in range(2):
        restored = node.run("apt_restore.sh", "toy", "second")
        assert restored.code == 0, restored.out + restored.err
    assert installed(node) == "hi 1.0"
    assert node.call("dkms status") == f"toy/1.0, {node.kernel}, x86_64: installed\n"
    assert node.call("ls -A /var/lib/fleetdrv/stage; ls /etc/modprobe.d | grep fleetdrv || :") == ""


def test_what_the_packages_need_may_have_become_newer_since(node: AptNode) -> None:
    """Somebody's security update of a library must not take the way back, nor spoil what is staged."""
    node.bring_to("toy-dkms=1.1")
    kept = node.run("apt_keep.sh", "toy", "one", "payload/wanted", "first", "toy-dkms=1.1", "--", node.kernel)
    assert kept.code == 0, kept.err
    node.call(
        "cd /tmp && dpkg-deb -R /var/lib/fleetdrv/good/toy/current/debs/toy-lib_1.0_all.deb t &&"
        " sed -i 's/^Version: .*/Version: 1.1/' t/DEBIAN/control &&"
        " dpkg-deb -Zgzip -b t lib.deb && dpkg -i lib.deb"
    )
    assert node.stage("second", "toy-dkms=1.0", downgrade=True).code == 0
    assert node.install("second", "toy-dkms=1.0").code == 0
    restored = node.run("apt_restore.sh", "toy", "second")
    assert restored.code == 0, restored.out + restored.err
    assert installed(node) == "hi 1.1"
    assert node.call("dpkg-query -W -f '${Version}' toy-lib") == "1.1"


def test_the_former_state_is_kept_too_and_comes_back_without_anything_staged(node: AptNode) -> None:
    def keep(version: str, key: str) -> None:
        words = (f"digest-{version}", "payload/wanted", key, f"toy-dkms={version}", "--", node.kernel)
        kept = node.run("apt_keep.sh", "toy", *words)
        assert (kept.code, "is kept as last known good" in kept.out) == (0, True), kept.err

    def states() -> list[str]:
        kept = [record for record in node.probe("driver", "toy") if record[0] in ("good", "former")]
        return [f"{kind} {digest}" for kind, _, digest, _ in kept]

    for version in ("1.0", "1.1"):
        node.bring_to(f"toy-dkms={version}", key=f"key-{version}")
        keep(version, f"key-{version}")
    assert states() == ["good digest-1.1", "former digest-1.0"]
    node.call("rm -r /srv/repository; rm /usr/bin/gcc-12; ln -s false /usr/bin/gcc-12")
    assert node.run("apt_restore.sh", "toy", "-", "digest-9").code == 72
    for version, other in (("1.0", "1.1"), ("1.1", "1.0")):
        restored = node.run("apt_restore.sh", "toy", "-", f"digest-{version}")
        assert restored.code == 0, restored.out + restored.err
        assert installed(node) == f"hi {version}"
        keep(version, "-")
        assert states() == [f"good digest-{version}", f"former digest-{other}"]
    assert node.call("ls -d /var/lib/fleetdrv/good/toy/v.* | wc -l") == "2\n"


def test_what_was_kept_before_stays_as_it_was_when_the_same_packages_are_kept_again(node: AptNode) -> None:
    """The new folder is made of links into the former one, which a kill may leave as the good one."""
    node.bring_to("toy-dkms=1.0")
    words = ("payload/wanted", "-", "toy-dkms=1.0", "--", node.kernel)
    assert node.run("apt_keep.sh", "toy", "one", "payload/wanted", "first", *words[2:]).code == 0
    node.call("cp -al $(readlink -f /var/lib/fleetdrv/good/toy/current) /was")
    assert node.run("apt_keep.sh", "toy", "two", *words).code == 0
    assert node.call("cat /was/digest /var/lib/fleetdrv/good/toy/current/digest") == "one\ntwo\n"


def test_a_kernel_that_came_since_does_not_cost_what_is_kept(node: AptNode) -> None:
    """DKMS built for it by itself, so nothing is staged; what is kept serves for the kernels that it is for."""
    node.bring_to("toy-dkms=1.0")
    keep = ("apt_keep.sh", "toy")
    assert node.run(*keep, "one", "payload/wanted", "first", "toy-dkms=1.0", "--", node.kernel).code == 0
    pins = ("payload/wanted", "-", "toy-dkms=1.0", "--")
    for _ in range(2):
        kept = node.run(*keep, "two", *pins, node.kernel, "9.9-new")
        assert (kept.code, "there is no rollback" in kept.out) == (0, False), kept.out
    states = [record[:3] for record in node.probe("driver", "toy") if record[0] in ("good", "former")]
    assert states == [["good", "toy", "two"], ["former", "toy", "one"]]
    assert node.run("apt_restore.sh", "toy").code == 0
    assert node.run(*keep, "three", *pins, "9.9-new").code == 0
    assert node.run("apt_restore.sh", "toy").code == 72, "of what is for no kernel that can boot nothing is kept"


def test_nothing_kept_nothing_restored(node: AptNode) -> None:
    assert node.run("apt_restore.sh", "toy").code == 72
    node.bring_to("toy-tools=1.0")
    node.call("rm -r /var/lib/fleetdrv/stage/first")
    kept = node.run("apt_keep.sh", "toy", "d", "payload/wanted", "-", "toy-tools=1.0", "--", node.kernel)
    assert (kept.code, "there is no rollback" in kept.out) == (0, True)
    assert node.run("apt_restore.sh", "toy").code == 72
