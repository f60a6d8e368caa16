"""What goes wrong where modules are loaded and unloaded, as data: texts, cause and remedy. Pure."""

from __future__ import annotations

from fleetdrv.finding import Finding, Repair, Retry, Rule, rule

WHY_NO_LOAD = (
    "module-missing", "key-rejected", "lockdown", "wrong-kernel", "symbols-missing", "device-taken",
    "needs-open-modules", "gpu-unsupported", "gsp-firmware", "gpu-off-bus", "version-mismatch", "module-wedged",
    "module-not-signed", "partial-upgrade",
)  # fmt: skip

MODULE_MISSING = Finding(
    name="module-missing",
    rows=(36,),
    cause="There is no module {module} for kernel {kernel}.",
    remedy="On the node: dkms status; then: dkms autoinstall -k {kernel}",
    retry=Retry.AFTER_REMEDY,
    repair=Repair.REBUILD,
)
STALE_INITRAMFS = Finding(
    name="stale-initramfs",
    rows=(46,),
    cause="The initramfs of kernel {kernel} still carries an older {module}, which the next boot loads.",
    remedy="On the node: update-initramfs -u -k {kernel}; then look: lsinitramfs /boot/initrd.img-{kernel}",
    retry=Retry.AFTER_REMEDY,
    repair=Repair.INITRAMFS,
)
MODULE_WEDGED = Finding(
    name="module-wedged",
    rows=(51,),
    cause="Module {module} hangs half-way in or out of the kernel.",
    remedy="Only a reboot clears it: drain the node and reboot it.",
    retry=Retry.AFTER_REMEDY,
)
REBOOT_PENDING = Finding(
    name="reboot-pending",
    rows=(62,),
    cause="Another kernel than the running one starts at the next boot: {kernel}.",
    remedy="Build for both, or reboot first; on the node: dkms status -k {kernel}",
    retry=Retry.AFTER_REMEDY,
)
UNKNOWN_LOAD = Finding(
    name="module-refused",
    cause="The kernel did not take module {module}.",
    remedy="Its reason, on the node: dmesg | tail -n 40",
    retry=Retry.AFTER_REMEDY,
)

LOAD: tuple[Rule, ...] = (
    rule(
        Finding(
            name="key-rejected",
            rows=(37,),
            cause="The kernel refuses the module's signature: it is unsigned, or its key is not enrolled.",
            remedy="On the node: mokutil --sb-state; mokutil --test-key /var/lib/dkms/mok.pub (Ubuntu: "
            "/var/lib/shim-signed/mok/MOK.der); enrol it: mokutil --import, then reboot at the console.",
            retry=Retry.AFTER_REMEDY,
        ),
        r"Key was rejected by service",
        r"Required key not available",
        r"Loading of unsigned module is rejected",
    ),
    rule(
        Finding(
            name="lockdown",
            rows=(38,),
            cause="The kernel is locked down and loads signed modules only.",
            remedy="On the node: cat /sys/kernel/security/lockdown; sign the module with an enrolled key, or "
            "boot without Secure Boot.",
            retry=Retry.AFTER_REMEDY,
        ),
        r"Lockdown: \S+: unsigned module loading is restricted",
    ),
    rule(
        Finding(
            name="wrong-kernel",
            rows=(39,),
            cause="The module was built for another kernel than the one that runs.",
            remedy="Build it for this one, on the node: dkms install NAME/VERSION -k $(uname -r) --force",
            retry=Retry.AFTER_REMEDY,
            repair=Repair.REBUILD,
        ),
        r"version magic '[^'\n]*' should be '[^'\n]*'",
        r"disagrees about version of symbol module_layout",
    ),
    rule(
        Finding(
            name="symbols-missing",
            rows=(40,),
            cause="The module was built against other modules than those that are loaded (inbox or OFED "
            "ib_core, say).",
            remedy="Build what depends on them again, after them; on the node: modinfo -n ib_core; dkms "
            "autoinstall",
            retry=Retry.AFTER_REMEDY,
            repair=Repair.REBUILD,
        ),
        r"Unknown symbol in module",
        r"(?P<module>\w+): Unknown symbol \S+ \(err -?\d+\)",
        r"disagrees about version of symbol (?!module_layout)\w+",
        r"could not insert '?nv_peer_mem'?: Invalid argument",
    ),
    rule(STALE_INITRAMFS),
    rule(
        MODULE_WEDGED,
        r"(?P<module>\w+) is stuck: its state is",
        r"(?P<module>\w+) hangs half-way in or out of the kernel",
        notices=(r"^(?P<module>\w+) .*\([A-Z]*-\)$",),
    ),
    rule(
        Finding(
            name="module-in-use",
            rows=(50,),
            cause="Module {module} is in use and cannot be unloaded.",
            remedy="Who has it, on the node: fuser -v /dev/nvidia*; lsmod | grep {module}; end them, or list "
            "services and modules in the playbook; then the same command again.",
            retry=Retry.LATER,
        ),
        r"Module (?P<module>\w+) is in use",
        r"(?P<module>\w+) is in use \(count",
        r"Could not unload NVIDIA driver kernel modules, driver is in use",
    ),
    rule(
        Finding(
            name="rdma-in-use",
            rows=(55,),
            cause="mlx5_core is in use, by storage or other modules, and cannot be loaded anew.",
            remedy="Stop what uses it, on the node: lsmod | grep mlx5_core; unmount NFS and NVMe over RDMA; or "
            "reboot.",
            retry=Retry.AFTER_REMEDY,
        ),
        r"Module mlx5_core is used and will FAIL driver reload",
        r"Storage modules are loaded",
        r"UNLOAD_STORAGE_MODULES",
    ),
    rule(
        Finding(
            name="ofed-unsupported",
            rows=(56,),
            cause="This release of MLNX_OFED does not build for the kernel.",
            remedy="Name a release in the playbook that lists this kernel as supported.",
            retry=Retry.NO,
        ),
        r"Failed to build MLNX_OFED_LINUX for (?P<kernel>\S+)",
    ),
    rule(
        Finding(
            name="inbox-module-wins",
            rows=(56,),
            cause="The kernel's own module is what modprobe loads, not the one that was installed.",
            remedy="On the node: modinfo -n mlx5_ib must be under updates/ or extra/: depmod -a; "
            "update-initramfs -u",
            retry=Retry.AFTER_REMEDY,
            repair=Repair.REBUILD,
        ),
        notices=(r"^intree: Y$",),
    ),
    rule(
        Finding(
            name="interface-lost",
            rows=(57,),
            cause="The node's network came back under another name or address after its driver was loaded anew.",
            remedy="At the console: ip -br link; pin names by MAC (systemd.link, netplan `match: macaddress`); "
            "then networkctl reload.",
            retry=Retry.AFTER_REMEDY,
        ),
        r"DHCP4 CLIENT: Failed to set IAID\+DUID",
    ),
    rule(
        Finding(
            name="virtualization-taken",
            rows=(59,),
            cause="KVM has taken the processor's virtualization when it was loaded (kernel 6.12 and newer).",
            remedy="On the node: echo 'options kvm enable_virt_at_load=0' >/etc/modprobe.d/kvm.conf; then "
            "reboot, or rmmod kvm_intel kvm_amd kvm.",
            retry=Retry.AFTER_REMEDY,
        ),
        r"VERR_VMX_IN_VMX_ROOT_MODE",
        r"VERR_SVM_IN_USE",
    ),
    rule(
        Finding(
            name="virtualization-off",
            rows=(59,),
            cause="VirtualBox 7.2.10 and newer wants KVM to switch virtualization on, and an option forbids it.",
            remedy="On the node: remove `options kvm enable_virt_at_load=0` from /etc/modprobe.d; then reboot.",
            retry=Retry.AFTER_REMEDY,
        ),
        r"VERR_SVM_HOST_SVME_NOT_ENABLED",
    ),
    rule(
        Finding(
            name="link-dropped",
            rows=(61,),
            cause="sshd or the network broke the connection off; a job on the node runs on.",
            remedy="The same command again follows the job that runs.",
            retry=Retry.LATER,
        ),
        r"kex_exchange_identification: read: Connection reset by peer",
    ),
    rule(
        REBOOT_PENDING,
        notices=(r"NEEDRESTART-KSTA: 3", r"\*\*\* System restart required \*\*\*", r"/run/reboot-required"),
    ),
    rule(
        Finding(
            name="vboxdrv-not-loaded",
            rows=(58,),
            cause="VirtualBox's module vboxdrv is not built, not signed or not loaded.",
            remedy="On the node: apt-get install linux-headers-$(uname -r) && /sbin/vboxconfig; dmesg | tail",
            retry=Retry.AFTER_REMEDY,
            repair=Repair.REBUILD,
        ),
        symptoms=(
            r"Kernel driver not installed \(rc=-1908\)",
            r"vboxdrv\.sh: failed: modprobe vboxdrv failed",
            r"The character device /dev/vboxdrv does not exist",
            r"This system is currently not set up to build kernel modules",
        ),
        explained_by=(*WHY_NO_LOAD, "headers-missing", "kernel-api-changed", "compiler-mismatch"),
    ),
    rule(
        MODULE_MISSING,
        symptoms=(
            r"Module (?P<module>\S+) not found in directory /lib/modules/(?P<kernel>\S+)",
            r"(?P<module>\w+): no file for kernel (?P<kernel>[^\s;]+)",
        ),
        explained_by=(
            "headers-missing",
            "build-excluded",
            "dkms-not-built",
            "kernel-left-out",
            "dkms-broken",
            "module-already-there",
            "no-autoinstall",
        ),
    ),
    rule(
        UNKNOWN_LOAD,
        symptoms=(r"(?:could not insert|Error inserting) (?:module )?'?(?P<module>[\w./-]+?)'?: .",),
        explained_by=WHY_NO_LOAD,
    ),
)
