"""What goes wrong with apt and dpkg, as data: the texts they say it with, the cause and the remedy. Pure.

Words in braces are what the text itself names: (?P<kernel>…) fills {kernel}.
"""

from __future__ import annotations

from fleetdrv.finding import Finding, Repair, Retry, Rule, rule

_LOCK = r"(?<!lock:\s)Could not get lock \S+(?: It is held by (?P<process>process \d+(?: \([^)\n]*\))?))?"

DPKG_INTERRUPTED = Finding(
    name="dpkg-interrupted",
    rows=(2,),
    cause="dpkg was cut off in the middle; packages are unpacked and not configured.",
    remedy="On the node: DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold --configure -a && "
    "apt-get -f install",
    retry=Retry.AFTER_REMEDY,
    repair=Repair.CONFIGURE_DPKG,
)
DISK_FULL = Finding(
    name="disk-full",
    rows=(11,),
    cause="No space is left on {path}.",
    remedy="On the node, see what takes it: df -h {path} && du -xhd1 {path} | sort -h; apt-get clean frees "
    "/var/cache/apt.",
    retry=Retry.AFTER_REMEDY,
)
BOOT_FULL = Finding(
    name="boot-full",
    rows=(60,),
    cause="/boot is full: the initramfs of a kernel cannot be written.",
    remedy="On the node, remove old kernels, never the running or the newest one: apt-get autoremove --purge; "
    "then: update-initramfs -u -k all",
    retry=Retry.AFTER_REMEDY,
)
KERNEL_NOT_HELD = Finding(
    name="kernel-not-held",
    rows=(17,),
    cause="A hold is on a kernel package that does not bring this node its kernels: {package} does, unheld.",
    remedy="On the node: apt-mark hold {package}; prove it: apt-get -s upgrade | grep linux-image",
    retry=Retry.AFTER_REMEDY,
)
READ_ONLY = Finding(
    name="read-only-filesystem",
    cause="A file system is mounted read-only, as the kernel does after errors of its disk.",
    remedy="On the node: findmnt -O ro && dmesg | grep -iE 'ext4|xfs|nvme|I/O error'; repair or replace the disk.",
    retry=Retry.NO,
    quarantine=True,
)

APT: tuple[Rule, ...] = (
    rule(
        Finding(
            name="apt-locked",
            rows=(1,),
            cause="Another apt or dpkg is at work: {process}.",
            remedy="Wait until it is over, then the same command again; who it is, on the node: fuser -v "
            "/var/lib/dpkg/lock-frontend; never delete the lock file.",
            retry=Retry.LATER,
        ),
        _LOCK,
        r"dpkg(?: frontend)? (?:lock|status database) (?:is|was) locked by another process",
        r"Unable to acquire the dpkg (?:frontend )?lock",
        r"dpkg's lock is held by (?P<process>process \d+ \([^)\n]*\)?)",
    ),
    rule(
        DPKG_INTERRUPTED,
        r"dpkg was interrupted, you must manually run",
        r"dpkg was interrupted (?:before us|under driver)",
        r"Unmet dependencies\. Try '?apt(?:-get)? (?:--fix-broken|-f) install",
    ),
    rule(
        Finding(
            name="conffile-question",
            rows=(3,),
            cause="dpkg asked what to do with a changed configuration file, and nobody can answer.",
            remedy="On the node: DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold "
            "--configure -a; then see which files were kept: find /etc -name '*.dpkg-dist'",
            retry=Retry.AFTER_REMEDY,
            repair=Repair.CONFIGURE_DPKG,
        ),
        r"end of file on stdin at conffile prompt",
        r"EOF on stdin",
        r"^\*\*\* \S+ \(Y/I/N/O/D/Z\) \[default=.\] \?",
    ),
    rule(
        Finding(
            name="held-package",
            rows=(4,),
            cause="Somebody has put {package} on hold.",
            remedy="See what is held, on the node: apt-mark showhold; if it may change: apt-mark unhold {package}",
            retry=Retry.AFTER_REMEDY,
        ),
        r"Held packages were changed and -y was used without --allow-change-held-packages",
        r"(?P<package>\S+) is held at \S+ by somebody else",
    ),
    rule(
        Finding(
            name="downgrade-refused",
            rows=(5,),
            cause="The wanted version is older than what is installed, and apt does not go back by itself.",
            remedy="Bring the pool back by what it kept: fleetdrv rollback PLAYBOOK; or name a newer version.",
            retry=Retry.NO,
        ),
        r"Packages were downgraded and -y was used without --allow-downgrades",
    ),
    rule(
        Finding(
            name="packages-conflict",
            rows=(6,),
            cause="These packages do not fit what is installed: branches or repositories are mixed.",
            remedy="See what stands in the way, on the node: apt-get -s install PACKAGE=VERSION && dpkg -l | "
            "grep -i nvidia; name the whole new branch in the playbook, or remove the old one there.",
            retry=Retry.NO,
        ),
        r"Unable to correct problems, you have held broken packages",
        r"pkgProblem(?:Resolver)?::Resolve generated breaks",
        r"The following packages have unmet dependencies",
        r"apt-get: \S+ : (?:Depends|PreDepends|Conflicts|Breaks): ",
    ),
    rule(
        Finding(
            name="file-overwrite",
            rows=(7,),
            cause="Two packages bring the same file: {package}, which is installed, has {path} already.",
            remedy="Remove the old branch in the same go: name its successor for {package} in the playbook, or "
            "on the node: apt-get remove {package}; do not --force-overwrite.",
            retry=Retry.NO,
        ),
        r"trying to overwrite (?:shared )?'(?P<path>[^'\n]+)', which is also in package (?P<package>\S+)",
    ),
    rule(
        BOOT_FULL,
        r"(?:zstd|lz4|xz|gzip): .*(?:Write error|No space left on device)",
        r"update-initramfs: failed for (?P<path>/boot/\S+) with \d+",
        r"'?/boot/\S+'?: No space left on device",
        r"(?P<path>/boot/\S+): no space left for a new one",
        r"(?P<path>/boot): \d+ KiB free; \d+ KiB are needed, as /boot/\S+ carries",
        r"mkinitramfs failure \S+",
    ),
    rule(
        DISK_FULL,
        r"You don't have enough free space in (?P<path>\S+?)\.?$",
        r"(?:'(?P<path>/[^'\n]+)': )?No space left on device",
        r"(?P<path>/\S+): \d+ KiB free, (?:too few to build|\d+ KiB are needed)",
        r"no space to install",
        r"(?P<path>/\S+): no space for packages",
        r"no space left to build",
    ),
    rule(READ_ONLY, r"Read-only file system", r"Remounting filesystem read-only"),
    rule(
        Finding(
            name="needrestart-asks",
            rows=(15,),
            cause="needrestart asks which services to restart, or restarts them: kubelet and containerd may be "
            "among.",
            remedy="On the node: echo \"\\$nrconf{{restart}} = 'l';\" >/etc/needrestart/conf.d/50-list.conf; "
            "fleetdrv's own jobs run with NEEDRESTART_MODE=l.",
            retry=Retry.AFTER_REMEDY,
        ),
        r"Daemons using outdated libraries",
        r"Which services should be restarted\?",
    ),
    rule(KERNEL_NOT_HELD),
    rule(
        Finding(
            name="touches-others",
            rows=(18,),
            cause="To install this, apt would bring a kernel, or remove or change packages that nobody named.",
            remedy="See all of it, on the node: apt-get -s install PACKAGE=VERSION; name in the playbook what "
            "may change, or choose a version that fits.",
            retry=Retry.NO,
        ),
        r"the playbook names none of this: apt (?P<what>would .*)",
    ),
    rule(
        Finding(
            name="tool-missing",
            cause="The node lacks {tool}.",
            remedy="On the node: apt-get install dkms build-essential",
            retry=Retry.AFTER_REMEDY,
        ),
        r"^(?P<tool>dkms|make|cc|apt-get|dpkg|awk) is not installed(?:: nothing can be compiled here)?$",
        r"dpkg: error: (?P<tool>\d+ expected programs?) not found in PATH",
    ),
    rule(
        Finding(
            name="package-script-failed",
            rows=(13,),
            cause="A script of package {package} failed; what it said stands before dpkg's error.",
            remedy="On the node, once that is mended: dpkg --configure -a; see also: less /var/log/apt/term.log",
            retry=Retry.AFTER_REMEDY,
            repair=Repair.CONFIGURE_DPKG,
        ),
        symptoms=(
            r"^(?:new|old|installed) (?P<package>\S+) package \S+ script subprocess returned error exit status",
            r"^(?:new|old|installed) (?P<package>\S+) package \S+ script subprocess was killed by signal",
        ),
        before=5,
    ),
    rule(
        Finding(
            name="dpkg-failed",
            rows=(13, 16),
            cause="dpkg failed, and its reason is not in what was read.",
            remedy="On the node, the first error in: less /var/log/apt/term.log; then: dpkg --audit",
            retry=Retry.AFTER_REMEDY,
            repair=Repair.CONFIGURE_DPKG,
        ),
        wrappers=(
            r"Sub-process \S*dpkg returned an error code \(\d+\)",
            r"^dpkg: error processing ",
            r"Errors were encountered while processing:",
            r"needrestart is being skipped since dpkg has failed",
            r"Some index files failed to download",
            r"Unable to fetch some archives",
        ),
    ),
)
