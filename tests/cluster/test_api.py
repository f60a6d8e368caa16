"""The HTTP border against a server that answers as told: what is repeated, what not, what it becomes."""

from __future__ import annotations

import json
import socketserver
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from fleetdrv import api as api_module
from fleetdrv.api import Api, Expired
from fleetdrv.cluster import KubectlCluster
from fleetdrv.effects import Effects
from fleetdrv.errors import ClusterAway, ClusterError, Conflict, Forbidden, NotFound
from fleetdrv.pods import Verdict

Reply = tuple[int, Mapping[str, Any] | str, Mapping[str, str]] | None
"""Code, body, headers; None drops the connection without a word."""


class Server:
    """Answers each request by the next of `replies`, and remembers what it was asked."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.asked: list[str] = []
        self.hang_up_after = False

    def handle(self, method: str, path: str) -> Reply:
        self.asked.append(f"{method} {path}")
        return self.replies.pop(0)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def api(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(api_module, "_GET_PAUSES", (0.01, 0.01, 0.01))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            reply = server.handle(self.command, self.path)
            self.close_connection = reply is None or server.hang_up_after
            if reply is None:
                return
            code, body, headers = reply
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(code)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, *_: object) -> None:
            pass

        def address_string(self) -> str:
            return "unix"

    class Listener(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "api.sock"
        with Listener(str(path), Handler) as listener:
            threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
            client = Api(path)
            yield client
            client.close()
            listener.shutdown()


def status(code: int, message: str = "", **headers: str) -> Reply:
    return code, {"kind": "Status", "message": message}, headers


OK: Reply = (200, {"kind": "Thing"}, {})


@pytest.mark.parametrize("first", [None, status(503), status(429), (500, "dial tcp: connection refused", {})])
def test_a_read_is_tried_again(api: Api, server: Server, first: Reply) -> None:
    server.replies = [first, first, OK]
    assert api.get("/x") == {"kind": "Thing"}
    assert server.asked == ["GET /x"] * 3


@pytest.mark.parametrize("reply", [None, status(503, "no leader")])
def test_a_read_is_not_tried_for_ever(api: Api, server: Server, reply: Reply) -> None:
    server.replies = [reply] * 9
    with pytest.raises(ClusterAway, match="GET /x"):
        api.get("/x")
    assert len(server.asked) == 4


def test_a_read_that_was_long_without_an_answer_is_not_tried_again(
    api: Api, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "_SILENCE_SECONDS", 0.0)
    server.replies = [None] * 9
    with pytest.raises(ClusterAway, match="GET /x"):
        api.get("/x")
    assert server.asked == ["GET /x"]


def test_the_server_says_how_long_to_wait(api: Api, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("fleetdrv.api.time.sleep", slept.append)
    server.replies = [(429, {}, {"Retry-After": "7"}), (429, {}, {"Retry-After": "7000"}), OK]
    api.get("/x")
    assert slept == [7, 10]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (status(401, "Unauthorized"), Forbidden),
        (status(403, "nodes is forbidden"), Forbidden),
        (status(404), NotFound),
        (status(409), Conflict),
        (status(410), Expired),
        (status(422, "invalid"), ClusterError),
        ((500, "getting credentials: exec: executable aws failed with exit code 255", {}), Forbidden),
    ],
)
def test_a_final_answer_is_not_asked_for_again(
    api: Api, server: Server, reply: Reply, error: type[Exception]
) -> None:
    server.replies = [reply] * 2
    with pytest.raises(error, match="GET /x") as caught:
        api.get("/x")
    assert type(caught.value) is error
    assert len(server.asked) == 1


def test_expired_credentials_say_what_to_try(api: Api, server: Server) -> None:
    server.replies = [status(401, "Unauthorized")]
    with pytest.raises(Forbidden, match="kubectl auth whoami"):
        api.get("/api/v1/nodes")


Write = Callable[[KubectlCluster], object]
POD = {"metadata": {"name": "p", "namespace": "ns", "uid": "u"}}
KNOWN: Reply = (200, {"resources": [{"name": "pods/eviction", "group": "policy", "version": "v1"}]}, {})


@pytest.mark.parametrize("reply", [None, status(503), status(429)])
@pytest.mark.parametrize(
    "write", [lambda c: c.patch_node("n", {}, "1"), lambda c: c.create_lease({"metadata": {"name": "l"}})]
)
def test_a_write_goes_out_once_whatever_comes_back(
    api: Api, server: Server, write: Write, reply: Reply
) -> None:
    server.replies = [reply, OK]
    effects = Effects()
    with pytest.raises(ClusterAway):
        write(KubectlCluster(api, effects))
    assert (len(server.asked), effects.api_writes) == (1, 1)


def test_a_write_does_not_die_of_a_connection_that_was_closed_while_idle(api: Api, server: Server) -> None:
    server.hang_up_after = True
    server.replies = [OK, OK]
    api.get("/x")
    time.sleep(0.1)
    assert api.send("POST", "/y", body={}).code == 200
    assert server.asked == ["GET /x", "POST /y"]


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        ((200, {"metadata": {"uid": "u"}}, {}), Verdict.THROTTLED),
        ((200, {"metadata": {"uid": "v"}}, {}), Verdict.GONE),
        (status(404), Verdict.GONE),
    ],
)
def test_a_409_to_an_eviction_is_looked_into(api: Api, server: Server, now: Reply, verdict: Verdict) -> None:
    server.replies = [KNOWN, status(409, "Precondition failed"), now]
    assert KubectlCluster(api, Effects()).evict(POD, dry_run=False).verdict is verdict


def test_an_eviction_without_answer_is_neither_done_nor_refused(api: Api, server: Server) -> None:
    server.replies = [KNOWN, None]
    with pytest.raises(ClusterAway):
        KubectlCluster(api, Effects()).evict(POD, dry_run=False)


def test_versions_are_asked_for_once(api: Api, server: Server) -> None:
    server.replies = [
        KNOWN,
        (201, {}, {}),
        (201, {}, {}),
        (200, {"versions": [{"groupVersion": "policy/v1"}, {"groupVersion": "policy/v1beta1"}]}, {}),
        (200, {"items": []}, {}),
        (200, {"items": None}, {}),
    ]
    cluster = KubectlCluster(api, Effects())
    for _ in range(2):
        cluster.evict(POD, dry_run=True)
    for _ in range(2):
        assert cluster.budgets("ns") == ()
    assert [asked.partition("?")[0] for asked in server.asked] == [
        "GET /api/v1",
        *["POST /api/v1/namespaces/ns/pods/p/eviction"] * 2,
        "GET /apis/policy",
        *["GET /apis/policy/v1/namespaces/ns/poddisruptionbudgets"] * 2,
    ]


def test_a_list_begins_anew_when_its_place_is_forgotten(api: Api, server: Server) -> None:
    one, two = ({"metadata": {"name": name}} for name in "ab")
    server.replies = [
        (200, {"items": [one], "metadata": {"continue": "t"}}, {}),
        status(410, "expired"),
        (200, {"items": [one, two]}, {}),
    ]
    nodes = KubectlCluster(api, Effects()).nodes()
    assert [n["metadata"]["name"] for n in nodes] == ["a", "b"]
    assert "continue=t" in server.asked[1]
    assert "continue" not in server.asked[2]


def test_closing_ends_a_request_that_waits_for_its_answer(api: Api, server: Server) -> None:
    asked, let_go = threading.Event(), threading.Event()

    def stall(*_: str) -> Reply:
        asked.set()
        let_go.wait(60)
        return None

    server.handle = stall  # type: ignore[method-assign]
    ended: list[str] = []

    def ask() -> None:
        try:
            api.send("GET", "/x")
        except ClusterAway as error:
            ended.append(str(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert asked.wait(60)
    api.close()
    thread.join(25)  # its own limit would be 30 s
    let_go.set()
    assert len(ended) == 1


def test_a_closed_client_is_away(api: Api) -> None:
    api.close()
    with pytest.raises(ClusterAway):
        api.send("GET", "/x")
