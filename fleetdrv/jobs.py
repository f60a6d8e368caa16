"""Jobs: the only way to change a node. What one is made of.

A job is a folder that travels as one tar on the stdin of one exec; the same exec starts it in a unit of its
own and follows its log (scripts/launch.sh, scripts/run.sh; the controller's end is follow.py).
"""

from __future__ import annotations

import hashlib
import io
import re
import shlex
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from fleetdrv.plan import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """For whom a job acts: checked by the job itself, on the node, under its lock."""

    pool: str
    run: str
    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """All that one job needs, as a reproducible tar."""

    job: str
    digest: str
    data: bytes = field(repr=False)


@cache
def script(name: str) -> str:
    """Return a node program's text."""
    return resources.files("fleetdrv").joinpath("scripts", name).read_text(encoding="utf-8")


def needs(name: str) -> tuple[str, ...]:
    """Return the libraries that a node program names in its own header, in the order to be read."""
    found = re.search(r"^# Needs: (.*)$", script(name), re.MULTILINE)
    named = found[1].split() if found else []
    return tuple(dict.fromkeys(part for name in named for part in (*needs(name), name)))


@cache
def whole(name: str) -> str:
    """Return a node program with its libraries in front, fit for one `sh -s` or `sh -c`."""
    return "".join(script(part) for part in (*needs(name), name))


def _closure(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for name in names for part in (*needs(name), name)))


def bundle(
    job: str,
    steps: Iterable[Step],
    order: Order,
    payload: Mapping[str, bytes],
    given: Mapping[str, bytes] | None = None,
) -> Bundle:
    """Pack the runner, the steps' programs and their files. Same input, same bytes.

    `given` are files of the payload that only spare the job work: it does the same without them. They are not
    part of the digest, or a successor whose cache holds other builds would be told that the job's name is taken.
    """
    steps = tuple(steps)
    plan = "".join(f"step {shlex.quote(s.why)} {shlex.join((s.program, *s.argv))}\n" for s in steps)
    files = {
        "plan.sh": plan.encode(),
        **{name: script(name).encode() for name in _closure(("run.sh", *(s.program for s in steps)))},
        **{f"payload/{name.lstrip('/')}": content for name, content in payload.items()},
    }
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    files |= {f"payload/{name}": content for name, content in (given or {}).items()}
    # Not part of the digest: a later controller's token must not make it another job. Last in the tar: it
    # proves that all before it arrived.
    meta = {"meta": f"pool={order.pool}\ntoken={order.token}\nrun={order.run}\n".encode()}
    return Bundle(job=job, digest=digest.hexdigest(), data=_tar({**dict(sorted(files.items())), **meta}))


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
