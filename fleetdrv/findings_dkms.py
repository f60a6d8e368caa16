"""What goes wrong with DKMS and where modules are compiled, as data: texts, cause and remedy. Pure."""

from __future__ import annotations

from fleetdrv.finding import Finding, Repair, Retry, Rule, rule

_WHY_NO_BUILD = (
    "headers-missing", "build-excluded", "kernel-api-changed", "compiler-mismatch", "build-killed", "disk-full",
    "boot-full", "read-only-filesystem", "build-dependency", "dkms-broken", "tool-missing", "depmod-failed",
)  # fmt: skip

HEADERS_MISSING = Finding(
    name="headers-missing",
    rows=(19, 20),
    cause="The headers of kernel {kernel} are not there: nothing was built for it, though apt may say it is done.",
    remedy="On the node: apt-get install linux-headers-{kernel} && dkms autoinstall -k {kernel}",
    retry=Retry.AFTER_REMEDY,
    repair=Repair.HEADERS,
)
DKMS_BROKEN = Finding(
    name="dkms-broken",
    rows=(27,),
    cause="The sources of DKMS module {module} are half removed.",
    remedy="On the node: dkms remove {module} --all; rm -rf /var/lib/dkms/{module}; then install its package "
    "again.",
    retry=Retry.AFTER_REMEDY,
    repair=Repair.REBUILD,
)
FILE_CHANGED = Finding(
    name="module-file-changed",
    rows=(30,),
    cause="The file of module {module} was replaced or deleted since DKMS put it there.",
    remedy="On the node: dkms install {module} -k {kernel} --force; then: depmod {kernel}",
    retry=Retry.AFTER_REMEDY,
    repair=Repair.REBUILD,
)
NOT_BUILT = Finding(
    name="dkms-not-built",
    rows=(31,),
    cause="DKMS knows {module} and never built it for kernel {kernel}.",
    remedy="On the node: dkms install {module} -k {kernel}",
    retry=Retry.AFTER_REMEDY,
    repair=Repair.REBUILD,
)
NO_AUTOINSTALL = Finding(
    name="no-autoinstall",
    rows=(32,),
    cause="/etc/dkms/no-autoinstall is there: somebody wants no module built for new kernels.",
    remedy="If that is not wanted any more, on the node: rm /etc/dkms/no-autoinstall && dkms autoinstall",
    retry=Retry.AFTER_REMEDY,
)
NOT_SIGNED = Finding(
    name="module-not-signed",
    rows=(33,),
    cause="Modules are not signed when they are built here: with Secure Boot on, the kernel refuses them.",
    remedy="On the node: mokutil --sb-state; if it is on: mokutil --import /var/lib/dkms/mok.pub, and enrol it "
    "at the console during the next boot.",
    retry=Retry.AFTER_REMEDY,
)
KERNEL_LEFT_OUT = Finding(
    name="kernel-left-out",
    rows=(34,),
    cause="Kernel {kernel} can boot next, and {module} was not built for it: packages build for some kernels "
    "only.",
    remedy="On the node: dkms autoinstall -k {kernel}",
    retry=Retry.AFTER_REMEDY,
    repair=Repair.REBUILD,
)
NO_INITRAMFS = Finding(
    name="initramfs-missing",
    rows=(35,),
    cause="Kernel {kernel} can boot next and has no initramfs.",
    remedy="Before any reboot, on the node: update-initramfs -c -k {kernel} (or: dracut --kver {kernel})",
    retry=Retry.AFTER_REMEDY,
    repair=Repair.INITRAMFS,
)

DKMS: tuple[Rule, ...] = (
    rule(
        HEADERS_MISSING,
        r"Your kernel headers for kernel (?P<kernel>\S+) cannot be found at",
        r"no headers for kernel (?P<kernel>[^\s:,]+)",
        r"Module build for kernel (?P<kernel>\S+) was skipped since the kernel headers",
        r"No kernel headers were found, skipping module build",
        r"^Building for\s*?$",
    ),
    rule(
        Finding(
            name="build-excluded",
            rows=(21,),
            cause="The driver says itself that it is not for kernel {kernel}.",
            remedy="Name a version of the driver in the playbook that supports this kernel.",
            retry=Retry.NO,
        ),
        r"excludes kernel (?P<kernel>\S+) \(BUILD_EXCLUSIVE",
        r"neither these packages nor kernel (?P<kernel>\S+) have a module of that name",
        r"includes a BUILD_EXCLUSIVE directive which does not match this",
    ),
    rule(
        Finding(
            name="compiler-mismatch",
            rows=(25,),
            cause="The compiler here is not the one that kernel {kernel} was built with, and does not know its "
            "options.",
            remedy="On the node: grep -o 'gcc[^)]*' /proc/version; apt-get install the gcc-N that it names.",
            retry=Retry.AFTER_REMEDY,
        ),
        r"unrecognized command[- ]line option",
        r"(?:^|[\s/])(?P<compiler>(?:gcc|clang)-\d+): (?:command |No such file or directory|not found)",
        r"Error! The compiler .* is missing",
        notices=(r"warning: the compiler differs from the one used to build the kernel",),
    ),
    rule(
        Finding(
            name="build-killed",
            rows=(22,),
            cause="The compiler was killed: the node ran out of memory, or somebody ended it.",
            remedy="Free memory, on the node: free -m && dmesg | grep -i 'killed process'; then the same "
            "command again.",
            retry=Retry.LATER,
        ),
        r"fatal error: Killed signal terminated program",
        r"internal compiler error: Killed",
        r"virtual memory exhausted",
        r"out of memory allocating \d+ bytes",
        r"^make(?:\[\d+\])?: \*\*\* \[.*\] Killed",
        r"(?:Out of memory|Memory cgroup out of memory): Killed process \d+ "
        r"\((?:cc1|cc1plus|ld|make|gcc|objtool|pahole|xz|zstd|dkms)",
    ),
    rule(
        Finding(
            name="kernel-api-changed",
            rows=(22,),
            cause="The driver's source does not fit the interfaces of this kernel.",
            remedy="Name a version of the driver in the playbook that supports this kernel.",
            retry=Retry.NO,
        ),
        r"error: implicit declaration of function",
        r"error: .* has no member named",
        r"error: storage size of .* isn't known",
        r"error: too (?:few|many) arguments to function",
        r"error: (?:initialization|assignment|passing argument \d+ of).* incompatible",
        r"error: unknown type name",
        r"error: conflicting types for",
        r"error: (?:.* undeclared|invalid use of undefined type|incomplete type)",
        r"fatal error: (?:linux|asm|drm|net|rdma|uapi)/\S+: No such file or directory",
        r"^ERROR: modpost: .* undefined!",
        r"modpost: GPL-incompatible module",
    ),
    rule(
        Finding(
            name="build-dependency",
            rows=(28,),
            cause="{module} is built on another DKMS module, which is not built yet.",
            remedy="On the node, that one first: grep BUILD_DEPENDS /usr/src/*/dkms.conf; then: dkms autoinstall",
            retry=Retry.AFTER_REMEDY,
            repair=Repair.REBUILD,
        ),
        r"Aborting build of module (?P<module>\S+) for kernel \S+(?: \(\S+\))? due to missing BUILD_DEPENDS",
        r"due to missing BUILD_DEPENDS",
    ),
    rule(
        Finding(
            name="module-already-there",
            rows=(26,),
            cause="The kernel's own module or another package's is as new, or newer, and wins.",
            remedy="Decide which is to serve: modinfo -n MODULE on the node, and remove the other; no blind "
            "--force.",
            retry=Retry.AFTER_REMEDY,
        ),
        r"^Error! Module version \S+ for \S+\s+is not newer than what is already found in kernel",
        r"^Error! Module \S+ already installed at version",
        r"^Error! Module .* already installed \(unversioned module\)",
        notices=(
            r"is not newer than what is already found in kernel",
            r"already installed (?:at version \S+|\(unversioned module\)), override by specifying --force",
        ),
    ),
    rule(
        DKMS_BROKEN,
        r"Error! (?P<module>\S+) is broken!",
        r"^Error! Could not locate dkms\.conf file\. File: /var/lib/dkms/(?P<module>[^/]+/[^/]+)/source/",
        r"Missing the source directory or the symbolic link pointing to it",
        notices=(r"^(?P<module>[\w.+~-]+/[\w.+~:-]+): broken$",),
    ),
    rule(
        Finding(
            name="depmod-failed",
            rows=(29,),
            cause="depmod failed after the module was installed; DKMS took it away again.",
            remedy="On the node: df -h /lib/modules /tmp; ls /lib/modules/$(uname -r)/modules.builtin "
            "/lib/modules/$(uname -r)/modules.order; then: depmod -a",
            retry=Retry.AFTER_REMEDY,
            repair=Repair.REBUILD,
        ),
        r"Install Failed \(depmod problems\)",
        r"^Error! Problems with depmod detected",
        r"^depmod\.*\(bad exit status: \d+\)",
        r"^depmod: (?:ERROR|FATAL): ",
        r"Module rolled back to built state",
    ),
    rule(
        FILE_CHANGED,
        notices=(
            r"^(?P<module>[\w.+~-]+/[\w.+~:-]+), (?P<kernel>[^,\s]+), \S+: installed.*"
            r"\((?:Differences between|WARNING! Diff between|Built modules?)",
            r"\(Differences between built and installed modules?\)",
            r"\(WARNING! Diff between built and installed module!\)",
            r"\(Built modules? (?:are|is) missing in the kernel modules folder\)",
        ),
    ),
    rule(
        NOT_BUILT,
        r"(?P<module>\S+ \S+): dkms did not install it for kernel (?P<kernel>\S+)",
        notices=(r"^(?P<module>[\w.+~-]+(?:/|, )[\w.+~:-]+): added$",),
    ),
    rule(NO_AUTOINSTALL, notices=(r"/etc/dkms/no-autoinstall",)),
    rule(
        NOT_SIGNED,
        notices=(
            r"Failed to sign module",
            r"modules won't be signed",
        ),
    ),
    rule(KERNEL_LEFT_OUT),
    rule(NO_INITRAMFS),
    rule(
        Finding(
            name="dkms-build-failed",
            rows=(22,),
            cause="The module does not compile for kernel {kernel}.",
            remedy="Read the compiler's first error, on the node: less /var/lib/dkms/NAME/VERSION/build/make.log",
            retry=Retry.AFTER_REMEDY,
            repair=Repair.REBUILD,
        ),
        symptoms=(
            r"Bad return status for module build on kernel: (?P<kernel>[^\s:]+)",
            r"does not compile for kernel (?P<kernel>[^\s:]+)",
            r"^(?:make|Building) .*\(bad exit status: \d+\)",
        ),
        explained_by=_WHY_NO_BUILD,
    ),
    rule(
        Finding(
            name="dkms-autoinstall-failed",
            rows=(23,),
            cause="DKMS could not build or install one or more modules for a kernel.",
            remedy="Find out which, on the node: dkms status; then for each: dkms install NAME/VERSION -k KERNEL",
            retry=Retry.AFTER_REMEDY,
            repair=Repair.REBUILD,
        ),
        symptoms=(r"One or more modules failed to install during autoinstall",),
        explained_by=(*_WHY_NO_BUILD, "dkms-build-failed", "module-already-there"),
    ),
    rule(
        Finding(
            name="kernel-hook-failed",
            rows=(24,),
            cause="The package of a kernel or its headers is half-configured: a DKMS module failed in its hook.",
            remedy="Mend or remove the module that failed (dkms status), then on the node: dpkg --configure -a",
            retry=Retry.AFTER_REMEDY,
            repair=Repair.CONFIGURE_DPKG,
        ),
        wrappers=(r"^run-parts: (?P<path>/etc/kernel/\S+) exited with return code \d+",),
    ),
)
