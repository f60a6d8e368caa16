"""What machines print, kept as files: a new case is a new file, no code.

probe/NAME.txt holds a probe and NAME.json the facts in it; probe_refused/NAME.txt a probe and, behind a
marker, part of the complaint. `python -m tests.golden.test_parse` writes the JSON anew, to be read before it
is kept.
"""

from __future__ import annotations

import dataclasses
import doctest
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from fleetdrv import dkmsconf, parse
from fleetdrv.errors import InputError
from fleetdrv.model import DkmsEntry, NodeFacts

_HERE = Path(__file__).parent
_MARKER = "\n--- refused because\n"


def plain(value: object) -> object:
    """Turn facts into what JSON can hold; sets in order, parts that say nothing left out."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: plain(part) for name, part in fields.items() if part not in ("", (), {}, frozenset())}
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, frozenset):
        return sorted(map(plain, value), key=json.dumps)
    return list(map(plain, value)) if isinstance(value, tuple) else value


def as_json(facts: NodeFacts) -> str:
    return json.dumps(plain(facts), indent=1) + "\n"


@pytest.mark.parametrize("path", sorted(_HERE.glob("probe/*.txt")), ids=lambda path: path.stem)
def test_facts(path: Path) -> None:
    assert as_json(parse.facts(path.read_text())) == path.with_suffix(".json").read_text()


@pytest.mark.parametrize("path", sorted(_HERE.glob("probe_refused/*.txt")), ids=lambda path: path.stem)
def test_what_cannot_be_trusted_is_refused(path: Path) -> None:
    text, complaint = path.read_text().split(_MARKER)
    with pytest.raises(parse.ProbeError) as caught:
        parse.facts(text)
    assert complaint.strip() in str(caught.value)


@pytest.mark.parametrize("row", (_HERE / "dkms_status.tsv").read_text().splitlines()[1:])
def test_dkms_status_of_every_release(row: str) -> None:
    line, name, version, kernel, arch, state, remark = row.split("\t")
    assert parse.dkms_status(line) == DkmsEntry(
        name=name, version=version, kernel=kernel, arch=arch, state=state, remark=remark
    )


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Error! Could not locate dkms.conf file.",
        "toy/1.0",
        "toy/1.0: unknown",
        "toy: added",
        "/1.0: added",
    ],
)
def test_other_text_is_no_status(line: str) -> None:
    with pytest.raises(parse.ProbeError):
        parse.dkms_status(line)


@pytest.mark.parametrize("path", sorted(_HERE.glob("dkms_conf/*.conf")), ids=lambda path: path.stem)
def test_dkms_conf(path: Path) -> None:
    text = path.read_text()
    verdict, _, rest = text.splitlines()[0].removeprefix("# ").partition(": ")
    if verdict == "expect":
        name, version, *modules = rest.split()
        assert dkmsconf.dkms_conf(text) == (name, version, tuple(modules))
    else:
        with pytest.raises(InputError) as caught:
            dkmsconf.dkms_conf(text)
        assert rest in str(caught.value)
        assert "in the playbook" in str(caught.value)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(parse).failed == 0
    assert doctest.testmod(dkmsconf).failed == 0


if __name__ == "__main__":
    for path in _HERE.glob("probe/*.txt"):
        path.with_suffix(".json").write_text(as_json(parse.facts(path.read_text())))
