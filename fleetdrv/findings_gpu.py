"""What goes wrong with NVIDIA's GPUs and their modules, as data: texts, cause and remedy. Pure."""

from __future__ import annotations

from fleetdrv.finding import Finding, Repair, Retry, Rule, rule
from fleetdrv.findings_load import WHY_NO_LOAD

VERSION_MISMATCH = Finding(
    name="version-mismatch",
    rows=(45,),
    cause="The library is new and the loaded module is the old one.",
    remedy="Drain the node, unload the old module and load the new one, or reboot; compare, on the node: cat "
    "/sys/module/nvidia/version; modinfo -F version nvidia",
    retry=Retry.AFTER_REMEDY,
    repair=Repair.RELOAD,
)

GPU: tuple[Rule, ...] = (
    rule(
        Finding(
            name="gpu-off-bus",
            rows=(54,),
            cause="A GPU has fallen off the bus: that is the hardware or its PCIe link, not the driver.",
            remedy="Keep the node out, power-cycle it, and if it comes again have the GPU replaced: nvidia-smi "
            "-q; lspci -d 10de:",
            retry=Retry.NO,
            quarantine=True,
        ),
        r"Xid \(PCI:[^)\n]*\): 79\b",
        r"GPU has fallen off the bus",
        r"fallen off the bus and is not responding to commands",
    ),
    rule(
        Finding(
            name="gpu-memory-broken",
            cause="A GPU's memory has errors that it can neither correct nor contain, or no spare rows left (Xid "
            "{xid}).",
            remedy="Power-cycle the node; if it comes again have the GPU replaced: nvidia-smi -q -d "
            "ECC,ROW_REMAPPER,PAGE_RETIREMENT",
            retry=Retry.NO,
            quarantine=True,
        ),
        r"Xid \(PCI:[^)\n]*\): (?P<xid>48|64|95)\b",
    ),
    rule(
        Finding(
            name="nvlink-broken",
            cause="A link between GPUs has failed: the GPU, the NVSwitch, or the seat of the module.",
            remedy="Power-cycle the node; if it comes again have the GPU and its seat looked at: nvidia-smi "
            "nvlink -e; nvidia-smi nvlink -s",
            retry=Retry.NO,
            quarantine=True,
        ),
        r"Xid \(PCI:[^)\n]*\): 74\b",
    ),
    rule(
        Finding(
            name="gpu-reset-due",
            cause="A GPU has put bad memory aside (Xid {xid}); it takes effect once the GPU is reset.",
            remedy="Drain the node, then reboot it, or on the node: nvidia-smi --gpu-reset",
            retry=Retry.AFTER_REMEDY,
        ),
        symptoms=(r"Xid \(PCI:[^)\n]*\): (?P<xid>63|94)\b",),
    ),
    rule(
        Finding(
            name="nic-firmware-failed",
            cause="The firmware of a network card has stopped, or reports a fault of its hardware: {said}.",
            remedy="Power-cycle the node, not only reboot it; if it comes again update the card's firmware or "
            "have it replaced: mstflint -d PCI-ADDRESS query",
            retry=Retry.NO,
            quarantine=True,
        ),
        r"mlx5_core [^\n]*(?P<said>device's health compromised)",
        r"mlx5_core [^\n]*(?P<said>Fatal error \d+ detected)",
        r"mlx5_core [^\n]*Health issue observed, (?P<said>unrecoverable hardware error|HW fatal error"
        r"|firmware CRC error|irisc not responding)",
        r"mlx5_core [^\n]*(?P<said>health recovery flow aborted)",
        r"mlx5_core [^\n]*(?P<said>Firmware over \d+ MS in pre-initializing state)",
    ),
    rule(
        Finding(
            name="device-taken",
            rows=(41,),
            cause="Another driver (nouveau, vfio) has the device.",
            remedy="See which, on the node: lspci -k -d 10de:; list it in the playbook's `conflicts`, so that "
            "it is kept away, also from the initramfs; then reboot.",
            retry=Retry.AFTER_REMEDY,
            repair=Repair.INITRAMFS,
        ),
        r"probe routine was not called for \d+ device",
        r"Nouveau kernel driver is currently in use",
    ),
    rule(
        Finding(
            name="needs-open-modules",
            rows=(42,),
            cause="This GPU needs NVIDIA's open kernel modules, and the closed ones are installed.",
            remedy="Name the -open packages in the playbook; proof: modinfo -F license nvidia says Dual MIT/GPL.",
            retry=Retry.NO,
        ),
        r"installed in this system requires use of the NVIDIA open kernel modules",
    ),
    rule(
        Finding(
            name="gpu-unsupported",
            rows=(43,),
            cause="This driver's branch or flavour does not support the GPU.",
            remedy="Name another branch in the playbook: an older one for older GPUs, the closed modules before "
            "Turing.",
            retry=Retry.NO,
        ),
        r"is not supported by the NVIDIA .*driver release",
        r"is not supported by open nvidia\.ko",
    ),
    rule(
        Finding(
            name="gsp-firmware",
            rows=(44,),
            cause="The GPU's firmware files are of another version than the module.",
            remedy="Install the firmware package of exactly the module's version, then power-cycle the node.",
            retry=Retry.AFTER_REMEDY,
        ),
        r"Cannot initialize GSP firmware RM",
    ),
    rule(
        Finding(
            name="partial-upgrade",
            rows=(47,),
            cause="The modules of one driver are of different versions.",
            remedy="Build and install all of them again, on the node: dkms status; dkms install NAME/VERSION "
            "--force",
            retry=Retry.AFTER_REMEDY,
            repair=Repair.REBUILD,
        ),
        r"nvidia-modeset: Version mismatch",
    ),
    rule(
        VERSION_MISMATCH,
        r"Driver/library version mismatch",
        r"API mismatch: the client has the version",
    ),
    rule(
        Finding(
            name="device-cgroup-reset",
            rows=(48,),
            cause="systemd was reloaded under a running container, which lost its devices by that.",
            remedy="Restart the pod; drain a node before packages are installed, not only before a reload.",
            retry=Retry.AFTER_REMEDY,
        ),
        r"Failed to initialize NVML: Unknown Error",
    ),
    rule(
        Finding(
            name="installer-on-live-node",
            rows=(52,),
            cause="NVIDIA's .run installer found its module loaded.",
            remedy="Drain the node and unload the modules first: rmmod nvidia_drm nvidia_modeset nvidia_uvm "
            "nvidia",
            retry=Retry.AFTER_REMEDY,
        ),
        r"An NVIDIA kernel module '[^'\n]*' appears to already be loaded",
    ),
    rule(
        Finding(
            name="fabric-manager",
            rows=(53,),
            cause="nvidia-fabricmanager is of another version than the driver, or does not run.",
            remedy="Name nvidia-fabricmanager at the driver's exact version in the playbook; on the node: "
            "systemctl enable --now nvidia-fabricmanager",
            retry=Retry.AFTER_REMEDY,
        ),
        r"fabric manager NVIDIA GPU driver interface version \S+ don't match",
        r"system not yet initialized",
    ),
    rule(
        Finding(
            name="adapter-init-failed",
            rows=(42,),
            cause="The driver could not start the GPU; this message alone does not tell why.",
            remedy="On the node: dmesg | grep NVRM; see firmware, open or closed modules, and Above 4G Decoding "
            "in the BIOS.",
            retry=Retry.AFTER_REMEDY,
        ),
        symptoms=(r"RmInitAdapter failed!", r"^No devices were found"),
        explained_by=WHY_NO_LOAD,
    ),
    rule(
        Finding(
            name="driver-not-loaded",
            rows=(49,),
            cause="nvidia-smi finds no loaded driver.",
            remedy="On the node: modprobe nvidia; dmesg | tail -n 40",
            retry=Retry.AFTER_REMEDY,
            repair=Repair.RELOAD,
        ),
        symptoms=(r"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver",),
        explained_by=(*WHY_NO_LOAD, "headers-missing", "adapter-init-failed", "dkms-not-built"),
    ),
)
