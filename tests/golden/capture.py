"""Captures what apt, dpkg and dkms really say when they fail: `python -m tests.golden.capture [NAME…]`, as root.

Each scenario runs in an apt node of its own (tests/apt: real apt, dpkg, dkms, kmod and compiler of Debian 12 in
namespaces), and its whole output becomes tests/golden/failures/NAME.log. The first line names the finding that the
log is to be classified as; the second says where it comes from. Scenarios go on after the failure with what an
operator or a script tries next, so that the logs hold later errors, too.
"""

from __future__ import annotations

import http.server
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from tests.apt.node import AptNode
from tests.apt.repository import _DATE, Key, Package, Repository, dkms_package

FAILURES = Path(__file__).parent / "failures"
_SHELL = r"""
k={kernel} index=/srv/repository/dists/stable/main/binary-amd64/Packages
over_http='sed -i s|file:/srv/repository|http://127.0.0.1:{port}| /etc/apt/sources.list'
lock() {{
    perl -e 'use Fcntl; open F, q(>>), q(/var/lib/dpkg/lock-frontend) or die;
        my $w = pack(q(s s x4 q q i x4), F_WRLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $w) or die; sleep 30' & sleep 1
}}
kill_compiler() {{
    real=$(gcc -print-prog-name=cc1) && mv $real $real.away && chmod 755 $real.away
    printf '#!/bin/sh\ncase "$*" in *toy*) kill -9 $$ ;; esac\nexec %s "$@"\n' $real.away >$real && chmod 755 $real
}}
after() {{
    apt-get -y install nothing-like-this
    dpkg --configure -a
    modprobe nothing_like_this
    apt-get -y -f install
}}
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
exec 2>&1
{commands}
"""


_REASON = "cannot reach the licence server"
_MAKE = (
    "make KCFLAGS=-fno-such-option-of-this-gcc -C $kernel_source_dir "
    "M=$dkms_tree/$module/$module_version/build modules"
)


@dataclass(frozen=True)
class Scenario:
    """Shell commands, and the finding that they lead to."""

    name: str
    finding: str
    commands: str


def scenarios() -> list[Scenario]:
    """Read them."""
    _, *blocks = re.split(r"^%% ", (FAILURES / "scenarios.txt").read_text(), flags=re.MULTILINE)
    return [Scenario(*block.split("\n", 1)[0].split(), block.split("\n", 1)[1]) for block in blocks]


def _packages() -> list[Package]:
    conf = {"conffiles": "/etc/conf.conf\n"}
    held = [
        Package(name="conf", version=v, files={"etc/conf.conf": f"# {v}\n", "usr/lib/same": v}, scripts=conf)
        for v in ("1.0", "2.0")
    ]
    return [
        *held,
        Package(name="toy-tools", version="1.0", files={"usr/lib/tools": "x"}),
        Package(name="needs-more", version="1.0", fields={"Depends": "conf (>= 3.0)"}),
        Package(name="same-file", version="1.0", files={"usr/lib/same": "other"}),
        Package(name="big", version="1.0", files={"opt/big/file": os.urandom(300_000)}),
        Package(name="fails", version="1.0", scripts={"postinst": f"#!/bin/sh\necho {_REASON}\nexit 3\n"}),
        *(dkms_package(v) for v in ("1.1", "1.2")),
        dkms_package("3.0", of="1.1", conf='BUILD_EXCLUSIVE_KERNEL="^9[.]"\n'),
        dkms_package("3.1", of="1.1", conf=f'MAKE[0]="{_MAKE}"\n'),
    ]


def _capture(scenario: Scenario, repository: Repository, port: int, other: bytes, future: bytes) -> str:
    folder = Path(tempfile.mkdtemp(prefix="capture."))
    node = AptNode(folder, repository)
    try:
        (folder / "srv/other.asc").write_bytes(other)
        (folder / "srv/future").write_bytes(future)
        subprocess.run(["ln", "-sfn", folder / "srv/repository", "/tmp/capture.served"], check=True)
        node.call(
            "echo 'deb [signed-by=/srv/job/payload/toy.asc] file:/srv/repository stable main' "
            ">/etc/apt/sources.list;"
            "apt-get update"
        )
        versions = node.call("dpkg-query -W -f '${Package} ${Version}, ' apt dkms").rstrip(", \n")
        text = _SHELL.format(kernel=node.kernel, port=port, commands=scenario.commands)
        with node.start(text) as process:
            out, _ = process.communicate(timeout=300)
    finally:
        node.close()
        shutil.rmtree(folder, ignore_errors=True)
    source = f"captured: apt node of Debian 12 ({versions}); scenario {scenario.name}"
    return f"# {scenario.finding}\n# {source}\n{out}"


def main(wanted: list[str]) -> None:
    """Capture what is named, or all."""
    with Key() as key, Key() as other:
        folder = Path(tempfile.mkdtemp(prefix="capture.repository."))
        repository = Repository(folder, key)
        repository.add(*_packages())
        text = (folder / "dists/stable/InRelease").read_text().split("\n\n", 1)[1].split("-----BEGIN")[0]
        now = datetime.now(UTC)
        lines = [line for line in text.splitlines() if not line.startswith(("Date", "Valid"))]
        lines.insert(1, f"Date: {(now + timedelta(hours=8)).strftime(_DATE)}")
        future = key.clear_sign("\n".join(lines) + "\n")
        handler = partial(http.server.SimpleHTTPRequestHandler, directory="/tmp/capture.served")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        handler.func.log_message = lambda *_: None  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for scenario in scenarios():
            if wanted and scenario.name not in wanted:
                continue
            out = _capture(scenario, repository, server.server_port, other.armoured, future)
            (FAILURES / f"{scenario.name}.log").write_text(out)
            print(scenario.name, len(out), flush=True)
        server.shutdown()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
