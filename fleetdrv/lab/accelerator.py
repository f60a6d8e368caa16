"""Whether QEMU may use the processor itself here; the mere existence of /dev/kvm says nothing.

Nested machines often have a /dev/kvm on which every ordinary guest aborts, so one is started to see.
"""

import functools
import os
import subprocess

QEMU = "qemu-system-x86_64"
_TRIAL_SECONDS = 15
_ORDERS = "info status\nquit\n"
_KVM = ("-accel", "kvm", "-cpu", "host")
_EMULATED = ("-accel", "tcg,thread=multi,tb-size=256", "-cpu", "Nehalem,+rdrand")
"""Newer processors are slower to emulate, as glibc and the kernel then use their wide vectors (a login costs
4 s of processor time in place of 1.2). Without rdrand, boot waits for random numbers. tb-size bounds the
translated code in MiB: the default of 1024 is as much as a guest has.
"""


@functools.cache
def arguments() -> tuple[str, ...]:
    """Give QEMU's arguments for the fastest processor that works here; tried once per process."""
    return _KVM if _kvm_works() else _EMULATED


def is_emulated() -> bool:
    """Tell whether guests run in software, some ten times slower."""
    return arguments() == _EMULATED


def _kvm_works() -> bool:
    """Start a guest under KVM and ask QEMU whether it runs."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    argv = [QEMU, *_KVM, "-machine", "pc", "-nodefaults", "-display", "none", "-m", "64", "-monitor", "stdio"]
    try:
        trial = subprocess.run(
            argv, input=_ORDERS, capture_output=True, text=True, timeout=_TRIAL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return trial.returncode == 0 and "VM status: running" in trial.stdout
