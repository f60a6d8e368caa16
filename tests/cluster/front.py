"""A unix socket before `kubectl proxy`'s that answers some requests itself, as other API servers would."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from fleetdrv.api import Answer, Api


class Front:
    """Listens in a folder, and `api` is a client of it; passes every request on."""

    def __init__(self, upstream: Api, folder: Path) -> None:
        self.upstream = upstream
        self.paths: list[str] = []
        handler = type("Handler", (_Handler,), {"front": self})
        self._server = _Server(str(folder / "front.sock"), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.api = Api(folder / "front.sock")

    def answer(self, method: str, path: str, body: Any, content_type: str) -> Answer:
        """Pass a request on."""
        plain, _, query = path.partition("?")
        params = dict(parse_qsl(query))
        return self.upstream.send(method, plain, params=params, body=body, content_type=content_type)

    def close(self) -> None:
        self.api.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Throttling(Front):
    """Answers evictions with 429 as the API's priority and fairness does, so often."""

    left = 0

    def answer(self, method: str, path: str, body: Any, content_type: str) -> Answer:
        if method == "POST" and "/eviction" in path and self.left:
            self.left -= 1
            said = {"kind": "Status", "message": "too many requests, please try again later", "code": 429}
            return Answer(code=429, body=said, retry_after_seconds=1)
        return super().answer(method, path, body, content_type)


class NewPolicy(Front):
    """An API server of 1.25: policy/v1 and nothing else, played by one that has v1beta1."""

    def answer(self, method: str, path: str, body: Any, content_type: str) -> Answer:
        if path.startswith("/apis/policy/v1beta1") or "policy/v1beta1" in json.dumps(body):
            return Answer(code=404, body={"message": "the server could not find the requested resource"})
        if body is not None:
            body = json.loads(json.dumps(body).replace("policy/v1", "policy/v1beta1"))
        answer = super().answer(method, path.replace("/policy/v1/", "/policy/v1beta1/"), body, content_type)
        # pods/eviction names its group version in two fields, the discovery of the group in one
        text = json.dumps(answer.body).replace("policy/v1beta1", "policy/v1")
        found = json.loads(text)
        for resource in found.get("resources") or ():
            if resource.get("name") == "pods/eviction":
                resource["version"] = "v1"
        return Answer(code=answer.code, body=found, retry_after_seconds=answer.retry_after_seconds)


class Maintained(Front):
    """Has NodeMaintenance objects, as clusters with one of those operators do; a list comes in pages of one.

    Played because this control plane's own API server (1.20, built with Go 1.19) dies of its first custom
    object: its vendored reflect2 1.0.1 cannot iterate over the maps of a newer runtime.
    """

    def __init__(self, upstream: Api, folder: Path, objects: Sequence[Mapping[str, Any]]) -> None:
        self.objects = objects
        super().__init__(upstream, folder)

    def answer(self, method: str, path: str, body: Any, content_type: str) -> Answer:
        plain, _, query = path.partition("?")
        for version in {str(obj["apiVersion"]) for obj in self.objects}:
            if plain == f"/apis/{version.partition('/')[0]}":
                return Answer(code=200, body={"kind": "APIGroup", "preferredVersion": {"groupVersion": version}})
            if plain == f"/apis/{version}/nodemaintenances":
                found = [obj for obj in self.objects if obj["apiVersion"] == version]
                at = int(dict(parse_qsl(query)).get("continue", 0))
                rest = {"continue": str(at + 1)} if at + 1 < len(found) else {}
                return Answer(code=200, body={"metadata": rest, "items": found[at : at + 1]})
        return super().answer(method, path, body, content_type)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    front: Front

    def _pass(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content_type = self.headers.get("Content-Type", "application/json")
        self.front.paths.append(self.path)
        answer = self.front.answer(self.command, self.path, json.loads(data) if data else None, content_type)
        self._send(answer.code, answer.body, answer.retry_after_seconds)

    def _send(self, code: int, body: Mapping[str, Any], after: float) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if after:
            self.send_header("Retry-After", str(int(after)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = _pass

    def address_string(self) -> str:
        return "front"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
