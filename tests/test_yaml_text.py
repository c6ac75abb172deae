"""The one reader of YAML: what JSON has, each key once, and a sentence for everything else."""

from __future__ import annotations

import re

import pytest

from helpers.base import files, yaml_text
from helpers.base.errors import DataError

pytestmark = pytest.mark.unit


def read(text: str):
    return yaml_text.read(text, "file", DataError)


def test_values_are_those_of_json_and_exponents_are_numbers():
    text = "{a: 5e-6, b: 1_000, c: [yes, ~, .5, '5e-6'], d: 2026-01-31, e: =, <<: x, 1: y}"
    found = {"a": 5e-6, "b": 1000, "c": [True, None, 0.5, "5e-6"], "d": "2026-01-31", "e": "=", "<<": "x", 1: "y"}
    assert read(text) == found and read("") is None


def test_lines_are_those_of_the_file_also_where_a_part_is_written_once_for_two_places():
    text = "a: &list\n  - 1\n  - 2\nb:\n  c: *list\n"
    value, lines = yaml_text.read_with_lines(text, "file", DataError, first_line=10)
    assert value == {"a": [1, 2], "b": {"c": [1, 2]}}
    assert lines == {
        (): 10, ("a",): 10, ("a", 0): 11, ("a", 1): 12, ("b",): 13, ("b", "c"): 14, ("b", "c", 0): 11,
        ("b", "c", 1): 12,
    }  # fmt: skip


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    "text",
    ["a: 1\na: 2\n", "{a: {b: 1, b: 2}}", "[a]: 1", "{a: 1}: 1", "~: 1", "&a [*a]", "&a {b: *a}", LAUGHS, "*a", "[1",
     "a: b: c", "!!python/object/apply:os.system [x]", "!!binary eA==", "!!set {a}", "!!timestamp 2026-01-31", "!x y",
     "\0", "\ud800", "!!int x", "[" * 9999, "a\n---\nb", "9" * 5000, "%YAML 9.9\n---\na"],
    ids=lambda text: ascii(text)[:25],
)  # fmt: skip
def test_everything_else_is_one_sentence(text):
    with pytest.raises(DataError, match=r"^file.* cannot be read as YAML: .*\.$") as caught:
        read(text)
    assert "\n" not in str(caught.value)


def test_nothing_else_reads_yaml():
    readers = [path for path in (files.ROOT / "src").rglob("*.py") if re.search(r"yaml\.\w*[lL]oad", path.read_text())]
    assert [path.name for path in readers] == ["yaml_text.py"]


def test_a_part_named_often_is_not_written_out_for_ever():
    text = f"a: &a [{'x, ' * 2_000}]\nb: [{'*a, ' * 2_000}]\n"
    with pytest.raises(DataError, match="with its aliases written out it has more than 500,000 parts"):
        read(text)
