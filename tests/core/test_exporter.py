"""The edge of metrics: a file that is whole or not there, a gateway that may hang, and errors that end nothing."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fleetdrv import exporter
from fleetdrv.errors import ExitCode, InputError, Refused
from fleetdrv.events import Event, Level
from fleetdrv.exporter import reported
from fleetdrv.options import Options

BOOK = str(Path(__file__).parents[2] / "playbooks" / "toy-1.1.yaml")


def told(text: str) -> dict[str, float]:
    """Return the samples of families with one sample."""
    every = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name: sample.value for sample in every if sample.labels.get("verdict") is None}


def run(options: Options, ending: BaseException | ExitCode = ExitCode.DONE, book: str = BOOK) -> list[Event]:
    """Run a command that sees no node; return what it says."""
    said: list[Event] = []
    try:
        with reported("drift", options, book, said.append) as report:
            if isinstance(ending, BaseException):
                raise ending
            report.ended(ending)
    except BaseException as error:
        if error is not ending:
            raise
    return said


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_the_file_can_be_read_by_node_exporter_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "gpu.prom"
    former = os.umask(umask)
    try:
        assert run(Options(metrics_file=str(path)), ExitCode.CHANGES) == []
    finally:
        os.umask(former)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["gpu.prom"]
    assert told(path.read_text())["fleetdrv_last_run_exit_code"] == 2
    assert 'pool="gpu"' in path.read_text()


def test_a_reader_sees_one_whole_file_or_the_other(tmp_path: Path) -> None:
    path = tmp_path / "gpu.prom"
    run(Options(metrics_file=str(path)))
    broken, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            text = path.read_text()
            if not text.endswith("\n") or "fleetdrv_driver_info" not in text:
                broken.append(text)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        run(Options(metrics_file=str(path)))
    stop.set()
    reader.join()
    assert broken == []


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (Refused("no cluster"), 3),
        (InputError("misspelt"), 3),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 5),
        (RuntimeError("a bug"), 1),
        (ExitCode.FAILED, 4),
    ],
)
def test_a_command_that_ended_badly_is_told_too(
    tmp_path: Path, ending: BaseException | ExitCode, code: int
) -> None:
    path = tmp_path / "gpu.prom"
    run(Options(metrics_file=str(path)), ending)
    assert told(path.read_text())["fleetdrv_last_run_exit_code"] == code


def test_a_playbook_that_cannot_be_read_is_told_without_a_pool(tmp_path: Path) -> None:
    path = tmp_path / "gpu.prom"
    run(Options(metrics_file=str(path)), InputError("no playbook"), book="no-such-file")
    assert 'pool=""' in path.read_text()


@pytest.mark.parametrize("place", ["no-such-folder/gpu.prom", "taken.prom"])
def test_what_cannot_be_written_is_a_warning(tmp_path: Path, place: str) -> None:
    (tmp_path / "taken.prom").mkdir()
    (event,) = run(Options(metrics_file=str(tmp_path / place)))
    assert (event.level, event.phase) == (Level.WARNING, "metrics")
    assert "not written" in event.text
    assert os.listdir(tmp_path) == ["taken.prom"], "nothing is left lying about"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"metrics_file": "/dev/stdout"}, "must end in .prom"),
        ({"pushgateway": "localhost:9091"}, "not a URL"),
        ({"pushgateway": "file:///etc/passwd"}, "not a URL"),
        ({"pushgateway": "http://"}, "not a URL"),
        ({"pushgateway": "http://me:secret@localhost:9091"}, "no user or password"),
    ],
)
def test_an_option_that_cannot_work_is_refused_first(options: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        run(Options(**options))  # type: ignore[arg-type]
    assert "secret" not in str(refused.value)


def test_who_asks_for_no_metrics_pays_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def send(*_: object) -> None:
        raise AssertionError("nobody asked")

    monkeypatch.setattr(exporter, "_send", send)
    assert run(Options(), ExitCode.FAILED) == []


@contextmanager
def a_gateway(code: int) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """A server on loopback that remembers what it was sent."""
    heard: list[tuple[str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            heard.append((self.command, self.path, body))
            self.send_response(code)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_push_replaces_its_pools_group() -> None:
    with a_gateway(200) as (url, heard):
        assert run(Options(pushgateway=url), ExitCode.STOPPED) == []
    ((method, path, body),) = heard
    assert (method, path) == ("PUT", "/metrics/job/fleetdrv/pool/gpu")
    assert told(body)["fleetdrv_last_run_exit_code"] == 5


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # urllib leaves an error's socket to the garbage collector
def test_a_gateway_that_refuses_or_is_not_there_is_a_warning() -> None:
    with a_gateway(500) as (url, _):
        (refused,) = run(Options(pushgateway=url))
    (away,) = run(Options(pushgateway=url))
    assert refused.level is away.level is Level.WARNING
    assert "not pushed" in refused.text
    assert "not pushed" in away.text


@pytest.mark.timeout(20)  # the client library's own deadline is 30 s
def test_a_gateway_that_never_answers_ends_with_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "PUSH_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (event,) = run(Options(pushgateway=f"http://127.0.0.1:{silent.getsockname()[1]}"))
    assert "timed out" in event.text
