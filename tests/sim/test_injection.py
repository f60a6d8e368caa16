"""Words that a shell would act on, through every field of the files: refused, or on the node as they are written.

The node here is the real sh with the real programs, in a mount namespace whose /etc/modprobe.d,
/etc/modules-load.d and /var/lib are folders of the test. Fields come from the published schema.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import ValidationError

from fleetdrv import inventory, jobs, load
from fleetdrv.calling import call
from fleetdrv.errors import FleetdrvError, InputError
from fleetdrv.files import demand_ways
from fleetdrv.follow import Follower, JobEnd
from fleetdrv.hooks import Hook
from fleetdrv.line import NodeLine
from fleetdrv.look import ask, questions
from fleetdrv.model import Host
from fleetdrv.options import Options, plan_command
from fleetdrv.parse import facts as parsed
from fleetdrv.plan import Step, plan
from fleetdrv.playbook import Playbook
from fleetdrv.ssh_handshake import by_hand
from fleetdrv.ssh_session import Completed
from fleetdrv.ssh_settings import Target
from tests.core.factories import a_driver, a_playbook, some_facts
from tests.core.schemas import Spot, changed, key, kind, spots, written

PWN = "touch pwned"
HOSTILE = (
    f"; {PWN}",
    f"; {PWN} #",
    f"$({PWN})",
    f"`{PWN}`",
    f"&& {PWN}",
    f"| {PWN}",
    f"x\n{PWN}",
    f"x\r{PWN}",
    f"'; {PWN}; '",
    f'"; {PWN}; "',
    f"\\'; {PWN} #",
    f"x\u2028{PWN}",
    f"x\x85{PWN}",
    f"x\x00{PWN}",
    f"-x; {PWN}",
    "--help",
    "-rf",
    "${IFS}touch${IFS}pwned",
    ">pwned",
    "*",
    "~",
    "$HOME",
    "%s%n",
    "../../etc/passwd",
    " ",
    "\t",
    "\x1b[31m",
    "e\u0301\u202e",
)
FREE = {  # fields for people's own words: where they go is shown below
    *("drivers[0].parameters.toy.greeting", "drivers[0].checks[0][0]", "drivers[0].checks[0][1]"),
    *("drivers[0].dkms.source", "drivers[1].apt.repository.key"),
    *(f"hooks.{when}[0].command[0]" for when in ("before_run", "after_run", "before_node", "after_node")),
}
HARMLESS = {"drivers[1].apt.packages.acpi-call-dkms": {"*"}}
"""A pattern of versions; what goes to the node is the exact version that it stands for."""


def accepted(path: Path, document: Any) -> Playbook | None:
    """Return the playbook if it is read, from its file, too; that archives and keys are missing is no matter."""
    try:
        book = Playbook.model_validate(document)
    except ValidationError:
        return None
    path.write_text(written(document)[0])
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load.playbook(path)
    return book


TEXTS = [spot for spot in spots() if kind(spot.value) == "string"]


@pytest.mark.parametrize("spot", TEXTS, ids=lambda spot: key(spot.place))
def test_a_field_refuses_what_a_shell_would_act_on_or_is_known_to_be_free(tmp_path: Path, spot: Spot) -> None:
    taken = set()
    for word in HOSTILE:
        document = changed(spot.place, word)
        book: Any = accepted(tmp_path / "book.yaml", document)
        if book is None:
            continue
        taken.add(word)
        data = book.model_dump(mode="json")
        for part in spot.place:
            data = data[part]
        assert data == word, "read as another value than is written"
    assert not taken or key(spot.place) in FREE or taken == HARMLESS.get(key(spot.place))
    assert taken or key(spot.place) not in FREE, "no longer free: take it off the list"


def test_no_key_takes_such_words_either(tmp_path: Path) -> None:
    for spot in spots():
        if isinstance(spot.value, dict):
            for word in HOSTILE:
                document = changed(spot.place, {**spot.value, word: "1"})
                assert accepted(tmp_path / "book.yaml", document) is None, (key(spot.place), word)


@dataclass
class Shell:
    """A session whose commands the real sh runs, in a namespace of its own, below one folder."""

    folder: Path
    user: str = "root"
    alive: bool = True
    covers: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for place in ("/etc/modprobe.d", "/etc/modules-load.d", "/var/lib"):
            self.covers[place] = self.folder / place.lstrip("/")
            self.covers[place].mkdir(parents=True)
        (self.folder / "home").mkdir()

    def run(self, command: str, *, stdin: bytes = b"", on_stdout: Any = None, **_: object) -> Completed:
        """Run a command as sshd would: by `sh -c`."""
        mounts = [f"mount --bind {shlex.quote(str(own))} {place}" for place, own in self.covers.items()]
        outer = " && ".join([*mounts, f"cd {shlex.quote(str(self.folder))}/home", 'exec sh -c "$1"'])
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        argv = [*apart, "sh", "-c", outer, "sh", command]
        done = subprocess.run(argv, input=stdin, capture_output=True, check=False, timeout=120)
        if on_stdout:
            on_stdout(done.stdout)
        return Completed(done.returncode, b"" if on_stdout else done.stdout, done.stderr)

    def close(self) -> None:
        """Nothing is kept open."""


@dataclass
class Dialler:
    """Has one session for all."""

    session: Shell

    def connect(self, *_: object) -> Shell:
        return self.session


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Return the node; at the end nobody has made the file that the words ask for."""
    session = Shell(tmp_path / "node")
    yield session
    assert [path for path in tmp_path.rglob("*pwned*") if path.name == "pwned"] == []


def line_of(shell: Shell) -> NodeLine:
    """Return the program's own line to the node, down to the quoting."""
    return NodeLine(Host(name="n1", node_name="n1"), cast("Any", Dialler(shell)))


def execute(shell: Shell, job: str, steps: tuple[Step, ...], payload: dict[str, bytes]) -> JobEnd:
    """Send a job as the program does."""
    work = jobs.bundle(job, steps, jobs.Order(pool="gpu", run="r1", token=1), payload)
    follower = Follower(line=line_of(shell), now=time.monotonic, on_log=lambda _: None, deadline_seconds=60)
    return follower.execute(work, "outage")


PRINTED = tuple(word for word in HOSTILE if word.isascii() and word.isprintable())


def test_words_of_checks_are_what_a_node_runs(shell: Shell) -> None:
    checks = [["printf", "%s|", word] for word in PRINTED]
    book = a_playbook(a_driver(checks=checks))
    code, out, errors = ask(line_of(shell), "probe.sh", questions(book), step="probe", deadline_seconds=60)
    assert code == 0, errors
    results = {check.argv: check for check in parsed(out.decode()).checks}
    assert len(results) == len(PRINTED)
    for word in PRINTED:
        result = results["printf", "%s|", word]
        assert (result.exit_code, result.output.strip("\n")) == (0, f"{word}|")


def test_parameters_are_one_literal_line_of_modprobes_configuration(shell: Shell) -> None:
    allowed = {f"p{n}": word for n, word in enumerate(PRINTED) if not set(word) & set('"\\')}
    assert len(allowed) > 12
    driver = a_driver(parameters={"toy": allowed})
    outage = plan(a_playbook(driver), some_facts(driver, configuration={})).outage
    steps = tuple(step for step in outage if step.program == "configure.sh")
    end = execute(shell, "r1.outage.1", steps, {p: text.encode() for p, text in driver.configuration().items()})
    assert end.exit_code == 0, end.tail()
    path = shell.covers["/etc/modprobe.d"] / "fleetdrv-toy.conf"
    assert path.read_text() == driver.configuration()["/etc/modprobe.d/fleetdrv-toy.conf"]
    options = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert len(options) == 1
    shown = subprocess.run(["modprobe", "-C", path, "-c"], capture_output=True, text=True, check=True, timeout=60)
    (read,) = [line for line in shown.stdout.splitlines() if line.startswith("options toy ")]
    for name, word in allowed.items():
        assert f' {name}="{word}"' in read if " " in word else f" {name}={word}" in read


def test_arguments_and_reasons_of_a_step_arrive_as_they_are(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that no file could bring: the quoting alone would do."""
    real: Callable[[str], str] = jobs.script
    record = "for word; do printf '%s\\0' \"$word\"; done >>../../../heard\n"
    monkeypatch.setattr(jobs, "script", lambda name: record if name == "record.sh" else real(name))
    words = tuple(word for word in HOSTILE if "\0" not in word)
    steps = tuple(Step(program="record.sh", argv=(word, *words), why=word) for word in words)
    end = execute(shell, "r1.outage.1", steps, {})
    assert end.exit_code == 0, end.tail()
    heard = (shell.covers["/var/lib"] / "heard").read_bytes().decode().split("\0")
    assert heard[:-1] == [each for word in words for each in (word, *words)]


def test_a_hook_gets_its_arguments_without_a_shell(shell: Shell) -> None:
    words = tuple(word for word in HOSTILE if not set(word) & set(map(chr, range(32))))
    heard: list[str] = []
    hook = Hook(command=("printf", "%s|", *words))
    assert call(hook, shell.folder / "home", {}, heard.append) == ""
    assert heard == ["".join(f"{word}|" for word in words)]


def test_a_remedy_that_is_typed_does_what_it_says(shell: Shell) -> None:
    folder = shell.folder / "home"
    for program in ("ssh", "fleetdrv"):
        (folder / program).write_text("#!/bin/sh\nfor word; do printf '%s\\0' \"$word\"; done\n")
        (folder / program).chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}
    for word in (word for word in HOSTILE if "\0" not in word):
        target = Target(
            address="192.0.2.1", port=22, user="ops", key_name="n", key_port=22, identity_files=(Path(word),)
        )
        for command in (by_hand(target), plan_command(Options(inventory=word, context=word), word, word)):
            argv = ["sh", "-c", command]
            done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, check=True)
            said = done.stdout.decode().split("\0")
            assert str(Path(word)) in said or word in said
            assert said[:-1] == shlex.split(command)[1:]


@pytest.mark.parametrize("variable", ["ansible_host", "ansible_user", "ansible_ssh_user", "ansible_port"])
def test_how_a_host_is_reached_is_no_place_for_such_words(tmp_path: Path, variable: str) -> None:
    path = tmp_path / "hosts.yaml"
    for word in HOSTILE:
        if word in ("*", "~", "%s%n", "../../etc/passwd"):
            continue  # no shell sees them unquoted; names that cannot be resolved
        path.write_text(written({"all": {"hosts": {"n1": {variable: word}}}})[0])
        with pytest.raises(FleetdrvError):
            demand_ways(inventory.read(path).hosts.values(), str(path))
