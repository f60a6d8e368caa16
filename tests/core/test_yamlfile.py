"""YAML as the files mean it: no surprises in what a word is, and a line for all that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleetdrv import yamlfile
from fleetdrv.errors import InputError


def written(folder: Path, text: str) -> Path:
    """Write a file."""
    path = folder / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            (word, word)
            for word in ("on", "off", "yes", "no", "y", "N", "0755", "1_000", "0x1f", "1e3", "12:30:45")
        ),
        *((word, word) for word in ("2024-01-01", "1.1.1", "=", "<<", ".5", ".inf", "TRUE", "Null")),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-12", -12),
        ("+3", 3),
        ("1.1", 1.1),
        ("1.5e+3", 1500.0),
        ("'1.1'", "1.1"),
        ('"on"', "on"),
    ],
)
def test_only_what_json_knows_is_anything_but_text(tmp_path: Path, text: str, value: Any) -> None:
    data = yamlfile.read(written(tmp_path, f"key: {text}\n")).data
    assert data == {"key": value}
    assert type(data["key"]) is type(value)


WORDS = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), max_size=8
).filter(lambda text: all(ord(letter) < 0x7F or ord(letter) > 0xA0 for letter in text))
KEYS = WORDS.filter(str.isprintable)
DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 999) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, DATA, max_size=4))
def test_json_means_the_same_here(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "json.yaml"
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    assert yamlfile.read(path).data == data


@given(st.dictionaries(st.text("abc", min_size=1), st.lists(st.text("xyz"), max_size=3), max_size=4))
def test_every_key_and_item_has_the_line_on_which_it_stands(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, list[str]]
) -> None:
    text = yaml.dump(data, default_flow_style=False, default_style='"')
    path = tmp_path_factory.getbasetemp() / "lines.yaml"
    path.write_text(text)
    document = yamlfile.read(path)
    lines = text.splitlines()
    for key, items in data.items():
        assert lines[document.line((key,)) - 1].startswith(f'"{key}":')
        for index, item in enumerate(items):
            assert lines[document.line((key, index)) - 1].endswith(f'- "{item}"')


def test_a_place_without_a_line_has_that_of_what_encloses_it(tmp_path: Path) -> None:
    document = yamlfile.read(written(tmp_path, "a: 1\nb:\n  c: 2\n7:\n  d: 3\n"))
    assert document.line(("b", "c")) == 3
    assert document.line(("b", "gone")) == document.line(("b",)) == 2
    assert document.line(("b", "c", 5, "deeper")) == 3
    assert document.line(("gone",)) == document.line(()) == 1
    assert (document.line(("7",)), document.line(("7", "d"))) == (4, 5)


@pytest.mark.parametrize(
    ("text", "line", "fault"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a: this key stands there twice"),
        ("a:\n  b: 1\n  'b': 2\n", 3, "b: this key stands there twice"),
        ("1: x\n'1': y\n", 2, "1: this key stands there twice"),
        ("a:\n- b: 1\n  b: 2\n", 3, "b: this key stands there twice"),
        ("a: 1\n? [b]\n: 2\n", 2, "a key must be plain text"),
        ("a: &x 1\n", 1, "anchors, aliases and tags are not read here; write the value out"),
        ("a: 1\nb: *x\n", 2, "anchors, aliases and tags are not read here; write the value out"),
        ("a: 1\nb: 2\nc: !!python/object:os.system x\n", 3, "anchors, aliases and tags are not read here"),
        ("a: !vault x\n", 1, "anchors, aliases and tags are not read here"),
        ("a: 1\n\tb: 2\n", 2, "not YAML: found character '\\t' that cannot start any token"),
        ("a: [1\nb: 2\n", 2, "not YAML: expected ',' or ']', but got ':'"),
        ("a: 1\n---\nb: 2\n", 2, "not YAML: a file holds one document"),
        ("a: b: c\n", 1, "not YAML: mapping values are not allowed here"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, fault: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        yamlfile.read(path)
    assert str(caught.value).startswith(f"{path}:{line}: {fault}")


@pytest.mark.parametrize(
    ("content", "line", "fault"),
    [
        (b"a: 1\nb: \xff\n", 2, "cannot be read: not UTF-8"),
        ("a: ü\n".encode("utf-16"), 1, "cannot be read: not UTF-8"),
        ("a: ü\n".encode("latin-1"), 1, "cannot be read: not UTF-8"),
        (b"a: 1\nb: \x01\n", 2, "cannot be read: holds the character U+0001"),
        (b"a: 1\n# \x00\n", 2, "cannot be read: holds the character U+0000"),
        ("a: 1\nb: x\u2028y\n".encode(), 2, "cannot be read: holds the character U+2028"),
        ("a: 1\nb: x\x85y\n".encode(), 2, "cannot be read: holds the character U+0085"),
        ("a: 1\n\ufeffb: 2\n".encode(), 2, "cannot be read: holds the character U+FEFF"),
        (b"a:\n  " + b"[" * 1500, 2, "not YAML: nested deeper than 64"),
        (b"a:\n" + b"- " * 1500 + b"x", 2, "not YAML: nested deeper than 64"),
        (b"".join(b" " * n + b"a:\n" for n in range(100)), 64, "not YAML: nested deeper than 64"),
        (b"a: 1\nb: [x, " + b"9" * 5000 + b"]\n", 2, "a number of 5000 digits; write it in quotes"),
        (b"a: 1\nb: -1234567890123456789\n", 2, "a number of 20 digits; write it in quotes"),
        (b'a: 1\nb: "\\U00110000"\n', 2, "not YAML: "),
        (b'a: 1\nb: "\\UFFFFFFFF"\n', 2, "not YAML: "),
        (b'a: 1\nb: "\\q"\n', 2, "not YAML: found unknown escape character"),
        (b"a: 1\n--- \nb: 2\n", 2, "not YAML: a file holds one document, here begins another"),
        (b"a: 1\n%YAML 1.1\n", 3, "not YAML: "),
        (b"%YAML 2.0\n---\na: 1\n", 1, "not YAML: found incompatible YAML document"),
        (b"a: 1\nb: @x\n", 2, "not YAML: found character '@'"),
        (b"a: 1\nb: 'x\n", 3, "not YAML: found unexpected end of stream"),
    ],
)
def test_what_is_no_text_or_beyond_all_measure_is_refused_with_its_line(
    tmp_path: Path, content: bytes, line: int, fault: str
) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        yamlfile.read(path)
    assert str(caught.value).startswith(f"{path}:{line}: {fault}")


def test_all_that_is_not_read_is_told_at_once(tmp_path: Path) -> None:
    text = """\
a: &x 1
b: *x
a: 2
c: !!python/object/apply:os.system ["touch pwned"]
d: [!x y, 99999999999999999999]
? [e]
: 1
"""
    with pytest.raises(InputError) as caught:
        yamlfile.read(written(tmp_path, text))
    said = [line.removeprefix(f"{tmp_path}/file.yaml:") for line in str(caught.value).splitlines()]
    assert [line.partition(":")[0] for line in said] == ["1", "2", "3", "4", "5", "5", "6"]
    assert "a: this key stands there twice" in said[2]


def test_a_bomb_of_aliases_is_refused_before_it_grows(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    with pytest.raises(InputError, match=r"file\.yaml:1: anchors, aliases and tags are not read here"):
        yamlfile.read(written(tmp_path, bomb))


def test_a_file_beyond_all_measure_is_not_read_to_its_end() -> None:
    with pytest.raises(InputError, match="/dev/zero: cannot be read: larger than 8388608 bytes"):
        yamlfile.read(Path("/dev/zero"))


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_file_from_another_system_means_the_same(tmp_path: Path, end: str, mark: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(end.join([f"{mark}a: 1", "b:", "  - 'x'", ""]).encode())
    document = yamlfile.read(path)
    assert document.data == {"a": 1, "b": ["x"]}
    assert (document.line(("a",)), document.line(("b", 0))) == (1, 3)


def test_keys_are_text_and_numbers_are_known_as_they_are_written(tmp_path: Path) -> None:
    document = yamlfile.read(written(tmp_path, "1: a\n0755: b\non: c\nnull: 550.90\n1.50: [2.10]\n<<: {x: y}\n"))
    assert document.data == {"1": "a", "0755": "b", "on": "c", "null": 550.9, "1.50": [2.1], "<<": {"x": "y"}}
    assert document.numbers == {("null",): "550.90", ("1.50", 0): "2.10"}


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        yamlfile.read(tmp_path / "none.yaml")


def test_an_empty_file_is_nothing_on_line_one(tmp_path: Path) -> None:
    document = yamlfile.read(written(tmp_path, "# nothing yet\n"))
    assert (document.data, document.line(("a",))) == (None, 1)
