"""`fleetdrv remediate` as cron starts it: by a daemon's clock, without a terminal, minute after minute."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.rollout.sim_fleet import FLEETDRV
from tests.vm.vm_fleet import CODE, VmFleet, eventually

pytestmark = pytest.mark.long  # ten periods of a minute, at the least

PERIODS = 10
ATTEMPTS = 3
BAD, GOOD = "node-1", "node-2"
_JOBS = "ls -d /var/lib/fleetdrv/jobs/*.outage.* 2>/dev/null | wc -l"


class Cron:
    """A cron daemon with a private table: each minute one line, unless the last one still runs."""

    def __init__(self, fleet: VmFleet, book: Path) -> None:
        self.folder = fleet.scratch / "cron"
        (self.folder / "tables").mkdir(parents=True)
        (self.folder / "said").mkdir()
        job = self.folder / "job.sh"
        programs = Path(sys.executable).parent  # kubectl's
        # What cron would mail, and the exit code: there in one rename.
        job.write_text(f"""#!/bin/sh
export KUBECONFIG={fleet.kubeconfig} XDG_STATE_HOME={fleet.scratch} PATH={programs}:/usr/bin:/bin
cd {self.folder}
{FLEETDRV} remediate {book} -i {fleet.inventory} --quiet >mail 2>&1
echo "exit $?" >>mail
n=$(ls said | wc -l)
mv mail said/$(printf %04d "$n")
""")
        (self.folder / "tables" / pwd.getpwuid(os.geteuid()).pw_name).write_text(f"* * * * * sh {job}\n")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start the daemon, and end it."""
        argv = ["crond", "-f", "-c", str(self.folder / "tables"), "-L", str(self.folder / "log")]
        busybox = shutil.which("busybox")
        assert busybox, "apt-get install busybox-static"
        with subprocess.Popen(argv, executable=busybox, env={}, stdin=subprocess.DEVNULL) as daemon:
            try:
                yield
            finally:
                daemon.terminate()
        # A job that it started goes on: it is awaited, as it works on the nodes.
        eventually(lambda: not (self.folder / "mail").exists(), "the last job", 900)

    def said(self) -> list[tuple[str, int]]:
        """Give mail and exit code of each period that has ended."""
        texts = [path.read_text() for path in sorted((self.folder / "said").iterdir())]
        return [(text.rpartition("exit ")[0], int(text.rpartition("exit ")[2])) for text in texts]

    def wait(self, periods: int) -> None:
        """Return when so many have ended."""
        eventually(lambda: len(self.said()) >= periods, f"{periods} periods: {self.folder}", 900)


@contextmanager
def a_modprobe_that_lies(fleet: VmFleet) -> Iterator[None]:
    """Nothing that fleetdrv could do brings the module back on this node."""
    real = fleet.ssh(BAD, "command -v modprobe").strip()
    fleet.ssh(BAD, f"cp -P {real} /root/real; rm {real}; printf '#!/bin/sh\\nexit 0\\n' >{real}; chmod 755 {real}")
    try:
        yield
    finally:
        fleet.ssh(BAD, f"rm {real}; cp -P /root/real {real}")


def test_ten_periods_of_cron_with_one_node_that_cannot_be_mended(
    fleet: VmFleet, record_property: Callable[[str, object], None]
) -> None:
    fleet.apply("1.0")
    written = yaml.safe_load(fleet.playbook("1.0", canary=0, max_unavailable=2, max_failures=1).read_text())
    written["remediate"] = {"attempts": ATTEMPTS, "backoff_seconds": 0}
    book = fleet.write_playbook("cron", written)
    cron, began = Cron(fleet, book), int(fleet.ssh(BAD, _JOBS))
    drifts = 0
    with cron.running():
        cron.wait(2)
        assert cron.said() == [("", 0)] * 2, "all is well, in silence"
        with a_modprobe_that_lies(fleet):
            fleet.ssh(BAD, "rmmod fleetdrv_toy")
            while len(cron.said()) < 2 + PERIODS:
                fleet.ssh(GOOD, "rmmod fleetdrv_toy")
                drifts += 1
                cron.wait(len(cron.said()) + 2)  # the one under way may have looked before
                assert fleet.ssh(GOOD, CODE).strip() == "1.0"
        tried = int(fleet.ssh(BAD, _JOBS)) - began
        periods = cron.said()[2:]
        told = [mail for mail, _ in periods if mail]
        assert tried == ATTEMPTS
        assert len(told) == ATTEMPTS, periods
        assert all(BAD in mail and GOOD not in mail for mail in told), told
        codes = [code for _, code in periods]  # the first had looked already, perhaps
        assert codes[0] in (0, 4)
        assert set(codes[1:]) == {4}
        assert fleet.node(BAD)["spec"]["unschedulable"] is True
        # A person mends what cron has given up; the pool may be cron's just now.
        eventually(lambda: fleet.apply_book(book, code=None).code == 0, "a person to mend it")
        ended = len(cron.said())
        cron.wait(ended + 3)
        assert cron.said()[ended + 1:] == [("", 0)] * (len(cron.said()) - ended - 1), "all is well again"
    record_property("cron's remediate, one node beyond mending",
                    f"{len(periods)} periods of a minute, {tried} attempts, {len(told)} mails, "
                    f"the other node mended {drifts} times")
