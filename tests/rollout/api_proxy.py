"""An HTTP proxy between `kubectl proxy` and the API server that counts writes."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.rollout.points import Moment, Point, Points

_HOP_BY_HOP = {
    "connection", "transfer-encoding", "content-length", "host", "accept-encoding", "content-encoding",
}  # fmt: skip


def _passes(*_: str) -> None:
    """Refuse nothing."""


class ApiProxy:
    """Listens on loopback; `kubeconfig` makes kubectl go through it with the real one's credentials."""

    def __init__(self, kubeconfig: Path, folder: Path, points: Points) -> None:
        self._upstream = client(yaml.safe_load(kubeconfig.read_text()), folder)
        self.refusal: Callable[[str, str], Refusal | None] = _passes
        """Answers requests (method, path) in the API server's place, where it returns something."""
        self.answers = threading.Event()
        """While it is clear, requests are taken in and get no answer; later their connections are dropped."""
        self.answers.set()
        self._handler = type("Handler", (_Handler,), {"upstream": self._upstream, "points": points, "proxy": self})
        self._listen(0)
        self.kubeconfig = folder / "through-proxy.kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(_redirected(self._server.server_address[1])))
        self.kubeconfig.chmod(0o600)

    def _listen(self, port: int) -> None:
        self.there = True
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def vanish(self) -> None:
        """Refuse connections, and drop those that are open at their next request."""
        self.there = False
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def come_back(self) -> None:
        """Listen again, answer again, whatever was amiss."""
        self.refusal = _passes
        self.answers.set()
        if not self.there:
            self._listen(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self.answers.set()
        if self.there:
            self.vanish()
        self._upstream.close()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A Status that the proxy answers by itself."""

    code: int
    message: str
    retry_after_seconds: int = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: httpx.Client
    points: Points
    proxy: ApiProxy
    lease: Any = None

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        frozen = not self.proxy.answers.is_set()
        if frozen or not self.proxy.there:
            self.proxy.answers.wait()
            self.close_connection = True
            return
        if refusal := self.proxy.refusal(self.command, self.path):
            self._refuse(refusal)
            return
        point = _point(self.command, self.path, body) if self._writes() and not self._renews(body) else None
        moment = self.points.arrive(point) if point else None
        if moment is Moment.BEFORE:
            self.close_connection = True
            return
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
        answer = self.upstream.request(self.command, self.path, content=body, headers=headers)
        if point and moment is None and answer.status_code == 409:
            self.points.forget(point)
        if moment is Moment.UNANSWERED:
            self.points.kill()
            self.close_connection = True
            return
        self._answer(answer)
        if moment is Moment.AFTER:
            self.points.kill()

    def _refuse(self, refusal: Refusal) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": refusal.code}
        content = json.dumps({**status, "message": refusal.message}).encode()
        self.send_response(refusal.code)
        self.send_header("Content-Type", "application/json")
        if refusal.retry_after_seconds:
            self.send_header("Retry-After", str(refusal.retry_after_seconds))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _writes(self) -> bool:
        return self.command != "GET" and "dryRun=" not in self.path

    def _renews(self, body: bytes) -> bool:
        """Tell a Lease's plain renewal, which comes by the clock: how many there are says nothing."""
        if self.command != "PUT" or "/leases/" not in self.path:
            return False
        said = json.loads(body)
        mark = (said["spec"].get("holderIdentity"), said["metadata"].get("annotations"))
        former, type(self).lease = self.lease, mark
        return mark == former

    def _answer(self, answer: httpx.Response) -> None:
        try:
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)
            self.wfile.flush()
        except OSError:
            self.close_connection = True  # who asked was killed meanwhile

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _point(method: str, path: str, body: bytes) -> Point:
    plain = path.partition("?")[0]
    if plain.endswith("/events"):
        told = json.loads(body)
        return Point("api", told["involvedObject"]["name"], f"{method} {plain} {told['reason']}")
    return Point("api", plain.rpartition("/")[2], f"{method} {plain}{_said(body)}")


def _said(body: bytes) -> str:
    """Name the keys that a write sets, so that a list of points can be read."""
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    spec = sorted(said.get("spec") or {})
    notes = sorted((said.get("metadata") or {}).get("annotations") or {})
    return f" spec={','.join(spec)} annotations={len(notes)}"


def _redirected(port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "proxy", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
    }


def client(config: dict[str, Any], folder: Path) -> httpx.Client:
    """Speak TLS with the real kubeconfig's CA and credentials."""
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]

    def pem(source: dict[str, Any], key: str) -> str:
        if f"{key}-data" not in source:
            return str(source[key])
        path = folder / f"{key}.pem"
        path.write_bytes(base64.b64decode(source[f"{key}-data"]))
        path.chmod(0o600)
        return str(path)

    context = ssl.create_default_context(cafile=pem(cluster, "certificate-authority"))
    headers = {}
    if "token" in user:
        headers["Authorization"] = f"Bearer {user['token']}"
    else:
        context.load_cert_chain(pem(user, "client-certificate"), pem(user, "client-key"))
    return httpx.Client(base_url=cluster["server"], verify=context, headers=headers, timeout=30)
