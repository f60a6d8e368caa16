"""What is published stays what the code does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleetdrv import load
from fleetdrv.lab import toy
from fleetdrv.playbook import Playbook

ROOT = Path(__file__).parents[2]


def test_the_published_schema_is_the_playbooks() -> None:
    published = json.loads((ROOT / "docs" / "playbook.schema.json").read_text())
    assert published == Playbook.model_json_schema(), "write it anew: python -m tests.core.test_published"


@pytest.mark.parametrize("version", toy.VERSIONS)
def test_the_committed_archives_are_what_the_lab_makes(version: str, tmp_path: Path) -> None:
    committed = ROOT / "playbooks" / "archives" / f"toy-{version}.tar"
    assert committed.read_bytes() == toy.archive(version, tmp_path).read_bytes()
    loaded = load.playbook(ROOT / "playbooks" / f"toy-{version}.yaml")
    assert loaded.playbook.drivers[0].dkms.version == version


if __name__ == "__main__":
    text = json.dumps(Playbook.model_json_schema(), indent=2) + "\n"
    (ROOT / "docs" / "playbook.schema.json").write_text(text)
