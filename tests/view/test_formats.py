"""A query's answer in each format, and what is kept out of spreadsheets and terminals."""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec
import pytest

from headwater.view.formats import (
    as_csv,
    as_json,
    csv_cell,
    for_terminal,
    to_json,
)


def compact(columns: list[str], *rows: list[Any]) -> bytes:
    """What the store gives: names, types, rows, each an array on a line."""
    lines = [columns, ["String"] * len(columns), *rows]
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def test_json_names_columns_and_types_once_and_leaves_the_rows_as_they_are() -> None:
    answer = b'["a","b"]\n["UInt64","JSON"]\n[18446744073709551615, {"x":1e3}]\n[1, {}]\n'
    text = as_json(answer)
    assert b'[18446744073709551615, {"x":1e3}]' in text
    assert msgspec.json.decode(text) == {
        "columns": ["a", "b"],
        "types": ["UInt64", "JSON"],
        "rows": [[18446744073709551615, {"x": 1000.0}], [1, {}]],
    }


@pytest.mark.parametrize("answer", [b'["a"]\n["String"]\n', b""])
def test_json_of_no_rows_is_an_object_too(answer: bytes) -> None:
    assert msgspec.json.decode(as_json(answer))["rows"] == []


def test_a_map_whose_keys_are_no_text_is_still_an_object() -> None:
    assert to_json({(1, 2): "a"}) == b'{"(1, 2)":"a"}'


def test_what_json_has_no_number_for_is_null() -> None:
    assert to_json([float("nan"), float("inf")]) == b"[null,null]"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_csv_cell_that_a_spreadsheet_would_run_gets_an_apostrophe(start: str) -> None:
    text = as_csv(compact(["v"], [f"{start}HYPERLINK('x')"])).decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows == [["v"], [f"'{start}HYPERLINK('x')"]]


def test_a_column_name_is_a_csv_cell_like_any_other() -> None:
    assert as_csv(compact(["=1+1"])).decode() == "'=1+1\r\n"


def test_csv_shows_what_is_nested_as_json_and_null_as_nothing() -> None:
    assert as_csv(compact(["v", "w"], [{"a": [1]}, None])).decode() == 'v,w\r\n"{""a"":[1]}",\r\n'


def test_a_negative_number_stays_a_number_in_csv() -> None:
    assert csv_cell(-5) == -5
    assert csv_cell("-5") == "'-5"


def test_csv_quotes_what_would_break_a_row() -> None:
    text = as_csv(compact(["a"], ['x,"y"\nz'])).decode()
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["a"], ['x,"y"\nz']]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("\x1b]0;owned\x07", "\\u001b]0;owned\\u0007"),
        ("a\rb\nc", "a\\u000db\\u000ac"),
        ("\x9b31m", "\\u009b31m"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("Ünï ☃", "Ünï ☃"),
        (None, ""),
        (True, "true"),
        ({"a": "\x1b"}, '{"a":"\\u001b"}'),
    ],
)
def test_a_terminal_never_sees_a_control_character(value: object, shown: str) -> None:
    assert for_terminal(value) == shown
