"""The benchmark itself does not rot: whatever is here runs against three hosts. No time is asserted."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from pathlib import Path
from socket import create_connection, create_server

import pytest
import yaml

from tests.bench import measure
from tests.bench.compare import Row, ratio
from tests.bench.limits import Limit
from tests.bench.measure import Cost
from tests.bench.outage import BOOKS, Watch
from tests.bench.results import write
from tests.bench.round_trips import Relay
from tests.bench.tools import FLEETDRV, POOL, TOOLS, install

ROOT = Path(__file__).parents[2]


def test_fleetdrv_and_a_bare_pool_serve_the_same_hosts() -> None:
    """In a network of its own, as always: the servers of other runs on this machine are not there."""
    script = (
        "import sys, tempfile; from pathlib import Path; from tests.bench import tools; "
        "from tests.bench.compare import race; from tests.bench.hosts import hosts\n"
        "own = [tool for tool in tools.TOOLS if not tool.requires]\n"
        "with tempfile.TemporaryDirectory() as folder, hosts(Path(folder), 3) as fleet:\n"
        "    rows = list(race(fleet, own, (3,), 1))\n"
        "print({row.tool.name: (row.lost, row.trouble) for row in rows})\n"
        "sys.exit(any(row.lost or row.trouble for row in rows))"
    )
    alone = ("unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    argv = (*alone, sys.executable, "-c", script)
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert FLEETDRV in done.stdout
    assert POOL in done.stdout


def test_a_tool_that_cannot_be_installed_is_told_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    tool = next(tool for tool in TOOLS if tool.requires.startswith("asyncssh"))
    assert "asyncssh" in install(tool)
    assert not list(tmp_path.rglob("complete"))


def test_children_and_those_that_were_left_behind_are_counted() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    alone = measure.run((sys.executable, "-c", burn))
    child = f"{burn}\ntime.sleep(60)"
    left = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(3)"
    orphan = measure.run((sys.executable, "-c", left), seconds=50)
    assert alone.cpu_seconds >= 0.3
    assert orphan.cpu_seconds >= 0.3
    assert orphan.wall_seconds < 50


def test_round_trips_are_counted_by_what_had_to_be_waited_for() -> None:
    def serve() -> None:
        with server.accept()[0] as peer:
            while question := peer.recv(100):
                peer.sendall(question)

    with create_server(("127.0.0.1", 0)) as server:
        served = threading.Thread(target=serve, daemon=True)
        served.start()
        with Relay(server.getsockname()[1]) as relay, create_connection(("127.0.0.1", relay.port)) as client:
            for _ in range(3):
                client.sendall(b"a")
                client.sendall(b"b")  # not waited for: no turn of its own
                got = b""
                while len(got) < 2:
                    got += client.recv(100)
            assert relay.round_trips() == 3
        served.join(5)


def test_ratios_are_of_the_same_round_and_the_page_tells_what_was_missed() -> None:
    def row(name: str, *seconds: float) -> Row:
        tool = next(tool for tool in TOOLS if tool.name == name)
        runs = [Cost(code=0, wall_seconds=s, cpu_seconds=s, peak_rss_mb=0, out="") for s in seconds]
        return Row(tool=tool, count=10, runs=runs)

    rows = [row(FLEETDRV, 1, 10, 30), row(POOL, 2, 5, 10)]
    assert ratio(rows, POOL, 10) == 2
    missed = Limit(what="memory", found=201, most=200, unit="MB")
    text = write(rows, (10,), 3, [missed], to_files=False)
    assert f"| {POOL} | 500.0 | 2.00 |" in text
    assert "| memory | 201 MB **(missed)** | 200 MB |" in text


def test_outages_are_added_up_over_nodes_as_they_were_seen() -> None:
    watch = Watch()
    for now, out in ((0, 0), (1, 1), (4, 2), (6, 0), (9, 0)):
        watch.see(now, out)
    assert watch.node_seconds == 3 * 1 + 2 * 2


@pytest.mark.parametrize(("book", "staged_out_of_service"), [("usual", True), ("best", False)])
def test_the_playbooks_differ_in_what_is_done_while_the_node_serves(
    book: str, staged_out_of_service: bool
) -> None:
    (play,) = yaml.safe_load((BOOKS / f"{book}.yaml").read_text())
    names = [task.get("ansible.builtin.import_tasks") or task["name"] for task in play["tasks"]]
    assert (names.index("tasks_stage.yaml") > names.index("Cordon and drain")) is staged_out_of_service
    assert names.index("Cordon and drain") < names.index("tasks_swap.yaml") < names.index("Uncordon")
    assert play["serial"] == 1


def test_orphans_of_later_are_not_for_this_process_to_wait_for() -> None:
    """A zombie of another test kept its node's namespace, and with it the node, from ending."""
    measure.run(("true",))
    left = ctypes.c_int(-1)
    ctypes.CDLL(None).prctl(37, ctypes.byref(left), 0, 0, 0)  # PR_GET_CHILD_SUBREAPER
    assert left.value == 0
