"""Where sudo's password comes from, and that no sink shows it."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from fleetdrv import secret
from fleetdrv.drive import Ending
from fleetdrv.entries import ending_json
from fleetdrv.errors import InputError
from fleetdrv.events import Event
from fleetdrv.main import program
from fleetdrv.passwords import DESCRIPTOR_VARIABLE, sudo_password
from fleetdrv.report import drift_json, plan_text, view_json
from fleetdrv.secret import MASK, Secret, hide
from fleetdrv.summary import summary_text
from fleetdrv.teller import Teller
from fleetdrv.turn import Verdict

MARK = 'mark-"7"-er'


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret, "_hidden", set())
    monkeypatch.delenv(DESCRIPTOR_VARIABLE, raising=False)


def a_file(folder: Path, text: bytes, mode: int = 0o600) -> str:
    path = folder / "password"
    path.write_bytes(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("text", [b"geheim", b"geheim\n", b"geheim\r\n", b"geheim\nsecond line\n"])
def test_the_first_line_of_a_file(tmp_path: Path, text: bytes) -> None:
    found = sudo_password(ask=False, file=a_file(tmp_path, text))
    assert found is not None
    assert found.reveal() == "geheim"


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (b"", 0o600, "holds no password"),
        (b"\n", 0o600, "holds no password"),
        (b"a\0b", 0o600, "holds no password"),
        (b"\xff\xfe", 0o600, "is no text in UTF-8"),
        (b"geheim", 0o640, "others may read it; type: chmod 600 "),
        (b"geheim", 0o604, "others may read it"),
    ],
)
def test_a_file_that_cannot_be_meant(tmp_path: Path, text: bytes, mode: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        sudo_password(ask=False, file=a_file(tmp_path, text, mode))


def test_a_missing_file_is_refused_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory = tmp_path / "hosts.yaml"
    inventory.write_text("gpu: {hosts: {n1: {}}}\n")
    book = Path(__file__).parents[2] / "playbooks" / "toy-1.0.yaml"
    words = ["plan", str(book), "-i", str(inventory), "--sudo-password-file", str(tmp_path / "none")]
    with pytest.raises(SystemExit) as ended:
        program.run(["fleetdrv", *words])
    assert ended.value.code == 3
    assert "none: cannot be read: No such file" in capsys.readouterr().err


def test_a_descriptor_is_read_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"geheim\n")
    os.close(theirs)
    monkeypatch.setenv(DESCRIPTOR_VARIABLE, str(ours))
    found = sudo_password(ask=False, file="")
    assert found is not None
    assert found.reveal() == "geheim"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(ours)


@pytest.mark.parametrize("value", ["x", "-1", "987654"])
def test_a_descriptor_that_is_none(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(DESCRIPTOR_VARIABLE, value)
    with pytest.raises(InputError, match=f"{DESCRIPTOR_VARIABLE}={value}: cannot be read"):
        sudo_password(ask=False, file="")


def test_two_sources_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name one of"):
        sudo_password(ask=True, file=a_file(tmp_path, b"geheim"))


def test_nobody_is_asked_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("geheim\n"))
    with pytest.raises(InputError, match="no terminal; instead: --sudo-password-file"):
        sudo_password(ask=True, file="")


def test_on_a_terminal_the_answer_is_not_shown() -> None:
    terminal, theirs = os.openpty()
    ask = "from_terminal('sudo password: ', instead='x')"
    code = f"from fleetdrv.passwords import from_terminal; print(len({ask}.reveal()))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ):
        os.close(theirs)
        shown = _until(terminal, b"password: ")
        os.write(terminal, b"geheim\n")
        shown += _until(terminal, b"6")
    os.close(terminal)
    assert b"geheim" not in shown


def _until(terminal: int, mark: bytes) -> bytes:
    shown = b""
    while mark not in shown:
        shown += os.read(terminal, 100)
    return shown


def test_a_secret_cannot_be_written_down() -> None:
    kept = Secret(MARK, "test")
    assert MARK not in f"{kept} {kept!r}"
    with pytest.raises(TypeError):
        pickle.dumps(kept)


def test_a_short_one_does_not_spoil_every_word() -> None:
    Secret("one", "test")
    assert hide("one by one") == "one by one"


def test_no_sink_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Secret(MARK, "test")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    shown, said = io.StringIO(), f"wrapper: got {MARK}"
    for log_json in (False, True):
        teller = Teller(log_json=log_json, stream=shown)
        journal = teller.keep("r1")
        teller(Event(node="n1", phase="job", text=said))
        teller.close()
    ending = Ending(node="n1", verdict=Verdict.FAILED, why=said, evidence=said, remedy=said)
    program._failed(3, said)
    texts = [
        shown.getvalue(),
        Path(journal).read_text(),
        summary_text([ending], said, [], "", "r1"),
        plan_text({"n1": said}, {}),
        json.dumps([ending_json(ending), view_json(said), drift_json(said)]),
        capsys.readouterr().err,
    ]
    for text in texts:
        assert MARK not in text
        assert json.dumps(MARK)[1:-1] not in text
        assert MASK in text
