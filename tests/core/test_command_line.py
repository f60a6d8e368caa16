"""What a script can rely on, whatever goes wrong: exit codes, one document, commands that can be typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fleetdrv.crew import Options, plan_command
from fleetdrv.main import program
from fleetdrv.tasks import namespace


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run one command line in this process."""
    with pytest.raises(SystemExit) as ended:
        program.run(["fleetdrv", *words])
    out, errors = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, errors


@pytest.mark.parametrize(
    ("words", "command", "said"),
    [
        (["plan", "no-such.yaml", "-i", "hosts.yaml"], "plan", "no-such.yaml: cannot be read"),
        (["drift", "no-such.yaml", "-i", "hosts.yaml"], "drift", "no-such.yaml: cannot be read"),
        (["apply", "{playbook}"], "apply", "no inventory: name one with --inventory FILE"),
        (["plan", "{playbook}", "--frobnicate"], "plan", "--frobnicate"),
        (["lab", "sideways"], "lab", "say `lab up`"),
    ],
)
def test_a_refusal_is_one_document_too(
    capsys: pytest.CaptureFixture[str], words: list[str], command: str, said: str
) -> None:
    book = Path(__file__).parents[2] / "playbooks" / "toy-1.0.yaml"
    words = [word.format(playbook=book) for word in words]
    code, out, errors = run(capsys, *words, "--json")
    document = json.loads(out)
    assert (code, document["exit_code"]) == (3, 3)
    assert (document["schema"], document["command"]) == ("fleetdrv/1", command)
    assert said in "\n".join(document["errors"])
    assert said in errors
    code, out, errors = run(capsys, *words)
    assert (code, out) == (3, "")
    assert said in errors


def test_a_bug_is_one_document_and_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetdrv.commands.plan", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        program.run(["fleetdrv", "plan", "x.yaml", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == 1
    assert "ZeroDivisionError" in document["errors"][0]


def test_the_remedy_can_be_typed_as_it_stands() -> None:
    options = Options(inventory="my hosts.yaml", context="lab", no_cluster=True)
    assert plan_command(options, "gpu.yaml", "n1") == (
        "fleetdrv plan gpu.yaml -i 'my hosts.yaml' --context lab --no-cluster --limit n1"
    )


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    program.run(["fleetdrv", "--help"], exit=False)
    listed = re.findall(r"^  ([a-z]+) ", capsys.readouterr().out, re.MULTILINE)
    assert sorted(listed) == sorted(namespace.tasks)
