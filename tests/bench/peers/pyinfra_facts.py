"""pyinfra with its own facts for what a probe asks of a node."""

from pyinfra import host
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.files import File
from pyinfra.facts.server import Arch, Command, Kernel, KernelVersion

host.get_fact(DebPackages)
host.get_fact(Kernel)
host.get_fact(KernelVersion)
host.get_fact(Arch)
host.get_fact(File, path="/etc/modprobe.d/fleetdrv-toy.conf")
IDS = "cat /etc/machine-id /proc/sys/kernel/random/boot_id; cat /proc/modules || :; dkms status"
host.get_fact(Command, command=IDS)
