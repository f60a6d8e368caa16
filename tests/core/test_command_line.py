"""What a script can rely on, whatever goes wrong: exit codes, one document, commands that can be typed."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invoke.parser.parser import Parser

from fleetdrv import arguments
from fleetdrv.main import program
from fleetdrv.options import Options, plan_command, same_again
from fleetdrv.tasks import namespace
from tests.core.guard import listening


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
    narrow = Options(inventory="i", limit="gpu:!n1", sudo_password_file="/run/secret")
    assert same_again(narrow, "apply", "gpu.yaml") == (
        "fleetdrv apply gpu.yaml -i i --sudo-password-file /run/secret --limit 'gpu:!n1'"
    )


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    program.run(["fleetdrv", "--help"], exit=False)
    listed = re.findall(r"^  ([a-z]+) ", capsys.readouterr().out, re.MULTILINE)
    assert sorted(listed) == sorted(namespace.tasks)


# ---- arguments

REFUSED = [
    ("pln x", "no command 'pln'; did you mean plan?"),
    ("Plan x", "no command 'Plan'; did you mean plan?"),
    ("help", "no command 'help'; did you mean --help?"),
    ("xyzzy", "no command 'xyzzy'"),
    ("--verison", "No idea what '--verison' is! Did you mean --version?"),
    ("-i hosts plan x", "No idea what '-i' is! -i stands behind the command."),
    ("plan", "plan: PLAYBOOK is missing"),
    ("plan ''", "plan: PLAYBOOK is empty"),
    ("plan ' '", "plan: PLAYBOOK is empty"),
    ("plan -i hosts", "plan: PLAYBOOK is missing"),
    ("hold", "hold: NODE is missing"),
    ("plan x y", "plan: 'y' is one word too many"),
    ("plan x plan y", "plan: 'plan' is one word too many"),
    ("plan x -- y", "plan: -- means nothing here"),
    ("status a b", "status: 'b' is one word too many"),
    ("status ''", "status: POOL is empty"),
    ("plan x --inventorry hosts", "plan: no option '--inventorry'; did you mean --inventory?"),
    ("plan x --log_json", "plan: no option '--log_json'; did you mean --log-json?"),
    ("plan x --hlep", "plan: no option '--hlep'; did you mean --help?"),
    ("plan x -z", "plan: no option '-z'"),
    ("apply x -yz", "apply: no option '-z'"),
    ("plan x --yes", "plan: no option '--yes'"),
    ("plan x -i", "plan: --inventory needs a value"),
    ("plan x -i --json", "plan: --inventory needs a value"),
    ("plan x -i -q", "plan: --inventory needs a value"),
    ("plan x -i ''", "plan: --inventory is empty"),
    ("plan x --inventory=", "plan: --inventory is empty"),
    ("plan x -i ' '", "plan: --inventory is empty"),
    ("plan x -i a -l b -l c", "plan: --limit is given twice"),
    ("plan x -i a -l b --limit=c", "plan: --limit is given twice"),
    ("plan x --quiet -q", "plan: --quiet is given twice"),
    ("apply x -qyq", "apply: --quiet is given twice"),
    ("plan x --json=1", "plan: --json takes no value, found '1'"),
    ("lab up --nodes x", "lab: --nodes takes a whole number, found 'x'"),
    ("lab up --nodes 1.5", "lab: --nodes takes a whole number, found '1.5'"),
    ("lab up --nodes ٣", "lab: --nodes takes a whole number"),
    ("lab up --nodes 9999999999", "lab: --nodes takes a number of at most nine digits"),
    ("lab up --nodes=", "lab: --nodes is empty"),
]


@pytest.mark.parametrize(("line", "fault"), REFUSED)
def test_an_argument_that_cannot_be_meant_is_refused_with_the_usage(
    capsys: pytest.CaptureFixture[str], line: str, fault: str
) -> None:
    with listening() as touched:
        code, out, errors = run(capsys, *shlex.split(line))
    assert (code, touched) == (3, [])
    assert fault in errors
    command = line.split()[0] if line.split()[0] in namespace.tasks else "COMMAND"
    usage, see = errors.splitlines()[-2:]
    assert usage.startswith(f"Usage: fleetdrv {command}")
    assert see in (f"See: fleetdrv {command} --help", "See: fleetdrv --help")
    assert "--json" in line or out == ""


def test_everything_that_is_wrong_with_the_arguments_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, errors = run(capsys, "plan", "x", "y", "-i", "", "--quiet=1", "-l")
    assert errors.splitlines()[:-2] == [
        "fleetdrv: plan: --inventory is empty",
        "plan: --quiet takes no value, found '1'",
        "plan: --limit needs a value; one that begins with a minus is written --limit=-…",
        "plan: 'y' is one word too many",
    ]


WORDS = st.lists(
    st.sampled_from(
        ["x.yaml", "", "-", "--", "-i", "-ihosts", "-i=h", "--inventory", "--limit=h", "--limit", "-q", "--json"]
    )
    | st.text("-=ijqyl ", max_size=4),
    max_size=6,
)


@given(st.sampled_from(sorted(namespace.tasks)), WORDS)
def test_what_is_let_pass_invoke_reads_in_the_same_way(command: str, words: list[str]) -> None:
    context = next(each for each in namespace.to_contexts() if each.name == command)
    found = arguments.read(words, context)
    if found.faults:
        return
    (read,) = Parser([context]).parse_argv([command, *words])
    assert [argument.value for argument in read.positional_args] == found.positional or "--playbook" in found.flags
    given = {f"--{a.name.replace('_', '-')}" for a in read.args.values() if a.got_value or a.value is True}
    assert given - {f"--{a.name}" for a in read.positional_args} == set(found.flags)


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, errors = run(capsys, "plan", "\x1b[31mred", "-i", "\x9b")
    assert "\\x1b[31mred: cannot be read" in errors
    assert "\\x9b: cannot be read" in errors
