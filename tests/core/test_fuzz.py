"""Whatever text stands in a playbook or an inventory: it is refused as input, line by line, or it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetdrv import inventory, load
from fleetdrv.errors import InputError
from tests.core.schemas import WHOLE, written

ROOT = Path(__file__).parents[2]
BOOKS = [*(path.read_text() for path in sorted((ROOT / "playbooks").glob("*.yaml"))), written(WHOLE)[0]]
INVENTORIES = [
    (ROOT / "inventories" / "example.yaml").read_text(),
    "all:\n  children:\n    gpu:\n      hosts:\n        n[01:10:3]: {ansible_port: 22}\n        'n[a:c]':\n"
    "    edge: {children: {gpu: }, vars: {ansible_user: ops}}\n",
]
TOKENS = st.sampled_from(
    [
        *("\n", "\n  ", "\n- ", ": ", "- ", "#", "&a ", "*a", "!!str ", "!x ", "? ", "| \n", ">-\n", "'", '"'),
        *("[", "]", "{", "}", ",", "%", "@", "`", "---\n", "...\n", "<<: ", "null", "~", "yes", "0755", "1:30"),
        *("2024-01-01", "550.90", "9" * 30, ".inf", "-", "name", "hosts", "drivers", "all", "children", "vars"),
        *("[1:3]", "[3:1]", "\ufeff", "\x00", "\x85", "\u2028", "\ud7ff", "\U0001f600", "\\ud800", "\\U00110000"),
        *("\\", "\r", "\t", "\x7f", "é", "\u00a0", "$(x)"),
    ]
)


def damaged(texts: list[str]) -> st.SearchStrategy[str]:
    """Return texts with some of their characters gone, doubled, or replaced by what means something to YAML."""

    @st.composite
    def draw_one(draw: st.DrawFn) -> str:
        text = draw(st.sampled_from(texts))
        for _ in range(draw(st.integers(1, 4))):
            start = draw(st.integers(0, len(text)))
            end = min(len(text), start + draw(st.integers(0, 12)))
            text = text[:start] + draw(TOKENS | st.text(max_size=3)) + text[end:]
        return text

    return draw_one()


def read_or_refused(read: Callable[[Path], object], path: Path) -> None:
    """Read a file; what is refused is refused at a line of this file, or as a whole."""
    told = [f"{path}: read"]
    try:
        read(path)
    except InputError as error:
        told = str(error).splitlines()
    assert told, "refused without a word"
    for line in told:
        assert line.startswith(f"{path}:"), line
        assert line.isprintable(), line


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file that every example writes anew."""
    return tmp_path_factory.mktemp("fuzz") / "file.yaml"


TEXTS = st.lists(TOKENS, max_size=12).map("".join) | st.text(max_size=40)


def saved(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


@given(damaged(BOOKS) | TEXTS)
def test_any_text_is_a_playbook_or_is_refused(path: Path, text: str) -> None:
    read_or_refused(load.playbook, saved(path, text))


@given(damaged(INVENTORIES) | TEXTS)
@example("\U00018cd6all: x\n")
def test_any_text_is_an_inventory_or_is_refused(path: Path, text: str) -> None:
    read_or_refused(inventory.read, saved(path, text))


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    for read in (load.playbook, inventory.read):
        read_or_refused(read, path)
