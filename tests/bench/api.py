"""An API server on loopback that knows many Nodes of real size, and answers what a look asks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

IMAGES, LABELS = 50, 30
"""Of one Node, as a GPU node has them; kubelets report no more than 50 images."""
_PAGE = 500


def node(name: str) -> dict[str, Any]:
    """Return a Node as its kubelet would report it, if it ran on this machine."""
    digest = f"{abs(hash(name)):064x}"[-64:]
    place = "registry.example.com/team/service"
    images = [
        {"names": [f"{place}-{n}@sha256:{digest}", f"{place}-{n}:v1.{n}"], "sizeBytes": 10**8 + n}
        for n in range(IMAGES)
    ]
    conditions = [
        {
            "type": kind,
            "status": "False",
            "reason": "KubeletIsFine",
            "message": "kubelet has enough of it",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")
    ]
    info = {
        "machineID": _text("/etc/machine-id"),
        "bootID": _text("/proc/sys/kernel/random/boot_id"),
        "architecture": "amd64",
        "kernelVersion": "6.1.0",
        "operatingSystem": "linux",
        "osImage": "Debian 12",
        "containerRuntimeVersion": "containerd://1.7",
        "kubeletVersion": "v1.30.0",
        "kubeProxyVersion": "v1.30.0",
        "systemUUID": digest[:32],
    }
    labels = {f"example.com/label-{n}": f"value-of-label-{n}" for n in range(LABELS)}
    resources = {"cpu": "64", "memory": "527829324Ki", "pods": "110", "nvidia.com/gpu": "8"}
    status = {
        "conditions": [*conditions, {**conditions[0], "type": "Ready", "status": "True"}],
        "nodeInfo": info,
        "addresses": [{"type": "InternalIP", "address": name}],
        "images": images,
        "capacity": resources,
        "allocatable": resources,
    }
    fields = {"f:metadata": {"f:labels": {f"f:{label}": {} for label in labels}}}
    managed = [
        {
            "manager": "kubelet",
            "operation": "Update",
            "apiVersion": "v1",
            "fieldsType": "FieldsV1",
            "time": "2026-01-01T00:00:00Z",
            "fieldsV1": fields,
        }
    ]
    metadata = {"name": name, "uid": digest, "resourceVersion": "1", "labels": labels, "managedFields": managed}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {}, "status": status}


def _text(path: str) -> str:
    return Path(path).read_text().strip()


@contextmanager
def api(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Serve these Nodes until the end of the block; yield a kubeconfig."""
    nodes = {name: json.dumps(node(name)).encode() for name in names}
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"nodes": nodes}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kubeconfig = folder / "kubeconfig"
    place = {"server": f"http://127.0.0.1:{server.server_address[1]}"}
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "bench",
                "clusters": [{"name": "c", "cluster": place}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "bench", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    try:
        yield kubeconfig
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


class _Handler(BaseHTTPRequestHandler):
    nodes: Mapping[str, bytes]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def do_GET(self) -> None:  # the name is http.server's
        """Answer a read; no look writes anything."""
        place = urlsplit(self.path)
        code, body = self._answer(place.path, parse_qs(place.query))
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, path: str, query: Mapping[str, Sequence[str]]) -> tuple[int, bytes]:
        *_, last = path.split("/")
        if path == "/api/v1/nodes":
            every = [] if "labelSelector" in query else list(self.nodes.values())  # none is fleetdrv's
            begin = int(query.get("continue", ["0"])[0])
            more = str(begin + _PAGE) if begin + _PAGE < len(every) else ""
            head = json.dumps({"kind": "NodeList", "apiVersion": "v1", "metadata": {"continue": more}})
            return 200, head[:-1].encode() + b', "items": [' + b",".join(every[begin : begin + _PAGE]) + b"]}"
        if path.startswith("/api/v1/nodes/") and last in self.nodes:
            return 200, self.nodes[last]
        if path == "/api/v1/namespaces/kube-system":
            return 200, json.dumps({"kind": "Namespace", "metadata": {"name": last, "uid": "bench"}}).encode()
        if last in ("pods", "leases"):
            return 200, json.dumps({"kind": "List", "metadata": {}, "items": []}).encode()
        return 404, json.dumps({"kind": "Status", "code": 404, "message": f"{path} not found"}).encode()

    def log_message(self, *_: object) -> None:
        """Say nothing."""
