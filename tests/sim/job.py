"""Jobs by hand: the bundle, the exec that launches and follows, the frames that come back.

Kept apart from fleetdrv's own code for the same things, so that a misunderstanding shows.
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.sim.node import SimNode

SCRIPTS = Path(__file__).parents[2] / "fleetdrv" / "scripts"
PROBE = (
    *("job.sh", "module.sh", "initrd.sh", "look.sh", "machine.sh", "packages.sh", "lifelines.sh", "disks.sh"),
    "probe.sh",
)
Step = Sequence[str]
"""Label, program, arguments."""


def needs(program: str) -> set[str]:
    """Return a program and all that its header says it needs."""
    found, open_ends = set[str](), [program]
    while open_ends:
        name = open_ends.pop()
        if name not in found:
            found.add(name)
            needed = re.search(r"^# Needs: (.*)$", (SCRIPTS / name).read_text(), re.MULTILINE)
            open_ends += needed[1].split() if needed else []
    return found


def text(*names: str) -> bytes:
    """Return programs in front of each other, as they are sent."""
    return b"".join((SCRIPTS / name).read_bytes() for name in names)


def probe(node: SimNode, *questions: str) -> str:
    """Look at the node as the controller does."""
    source = text(*PROBE)
    return node.call(f"sudo -n /bin/sh -s -- {shlex.join(questions)}", source)


def bundle(
    steps: Sequence[Step],
    *,
    payload: Mapping[str, bytes] | None = None,
    programs: Mapping[str, str] | None = None,
    token: int = 1,
    run: str = "run-1",
) -> bytes:
    """Pack a job: the programs that its steps need, own ones of the test, and meta as the last member."""
    own = {name: source.encode() for name, source in (programs or {}).items()}
    files: dict[str, bytes] = {}
    for name in {"run.sh"} | {step[1] for step in steps} - set(own):
        files |= {needed: (SCRIPTS / needed).read_bytes() for needed in needs(name)}
    files |= own
    files |= {f"payload/{name}": content for name, content in (payload or {}).items()}
    files["plan.sh"] = "".join(f"step {shlex.join(step)}\n" for step in steps).encode()
    files["meta"] = f"pool=gpu\ntoken={token}\nrun={run}\n".encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def launch_command(job: str, digest: str = "d1", kind: str = "outage", offset: int = 0) -> str:
    """Return the one exec that claims, starts and follows a job; the bundle goes on its stdin."""
    return _launcher("launch", job, digest, kind, str(offset))


def attach_command(job: str, offset: int = 0, kind: str = "outage") -> str:
    """Return the exec that follows a job which is there."""
    return _launcher("attach", job, kind, str(offset))


def _launcher(*arguments: str) -> str:
    source = text("job.sh", "launch.sh").decode()
    return shlex.join(["sudo", "-n", "/bin/sh", "-c", source, "launch.sh", *arguments])


@dataclass(frozen=True)
class Followed:
    """What a follower said."""

    log: bytes
    offset: int
    ending: str
    """`exit CODE STEP`, `interrupted`, `missing`, or empty when the follower was cut off."""
    beats: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return self.log.decode(errors="replace")


def read_frames(said: bytes, offset: int = 0) -> Followed:
    """Take the frames apart; a frame that was cut counts as far as it came."""
    log, beats, place = b"", list[str](), 0
    while place < len(said):
        end = said.find(b"\n", place)
        if end < 0:
            break
        line, place = said[place:end].decode(), end + 1
        if line.startswith("log "):
            _, at, length = line.split()
            assert int(at) == offset + len(log), f"{line!r} after {offset + len(log)} bytes"
            log += said[place : place + int(length)]
            place += int(length)
        elif line.startswith("beat "):
            beats.append(line)
        else:
            return Followed(log, offset + len(log), line, tuple(beats))
    return Followed(log, offset + len(log), "", tuple(beats))


def launch(node: SimNode, job: str, packed: bytes, *, digest: str = "d1", kind: str = "outage") -> Followed:
    """Launch a job and follow it to its end."""
    with node.run(launch_command(job, digest, kind), packed) as process:
        said, complaint = process.communicate(timeout=90)
    assert process.returncode == 0, complaint.decode(errors="replace")
    return read_frames(said)


def attach(node: SimNode, job: str, offset: int = 0) -> Followed:
    """Follow a job that is there to its end."""
    with node.run(attach_command(job, offset)) as process:
        said, complaint = process.communicate(timeout=90)
    assert process.returncode == 0, complaint.decode(errors="replace")
    return read_frames(said, offset)


def rest(process: subprocess.Popen[bytes]) -> bytes:
    """Return what is left of a follower's output once a line of it was read, and wait for its end.

    `communicate` would read past the buffer that `readline` filled, and lose what lies in it.
    """
    assert process.stdout is not None
    said = process.stdout.read()
    process.wait(timeout=30)
    return said
