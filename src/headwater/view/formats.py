"""A query's answer as JSON, JSON lines, CSV or Parquet, and as text for a terminal.

The store writes the bulk; what is done here is done on bytes, or row by row, since a million rows
as Python objects would be many times the size of their text.

What a client sent ends up in spreadsheets and terminals, so both are guarded here: a CSV cell that
a spreadsheet would run as a formula gets a leading apostrophe, and control characters (which can
move the cursor or rename the window) never reach a terminal as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from typing import Any

import msgspec

#: What a spreadsheet takes for the beginning of a formula (OWASP, "CSV injection").
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
#: C0 and C1 control characters, and those that turn the direction of the text around them.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def _plain(value: Any) -> Any:
    """A value whose keys are text, for the maps that msgspec cannot write by itself."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def to_json(value: Any) -> bytes:
    """Compact JSON; times as ISO 8601, UUIDs and decimals as text, NaN and infinity as null."""
    try:
        return msgspec.json.encode(value, enc_hook=str)
    except TypeError:
        return msgspec.json.encode(_plain(value), enc_hook=str)


def as_json(answer: bytes) -> bytes:
    """One object: columns, types, rows. Of the compact form, without parsing a row."""
    lines = answer.split(b"\n")
    columns, types = (lines[0], lines[1]) if len(lines) > 1 else (b"[]", b"[]")
    rows = b",\n".join(line for line in lines[2:] if line)
    return b'{"columns":%b,"types":%b,"rows":[%b]}\n' % (columns, types, rows)


def as_it_is(answer: bytes) -> bytes:
    """What the store gave is the answer."""
    return answer


def text_of(value: Any) -> str:
    """One value as plain text: what is nested as JSON, a time as ISO 8601, NULL as nothing."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    text = to_json(value).decode()
    return text[1:-1] if text.startswith('"') else text


def csv_cell(value: Any) -> Any:
    """A cell that no spreadsheet runs; numbers stay numbers (a negative one begins with ``-``)."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    text = text_of(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def as_csv(answer: bytes) -> bytes:
    """RFC 4180 with a header line, UTF-8. Of the compact form, one row at a time."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    for place, line in enumerate(answer.split(b"\n")):
        if line and place != 1:  # 1: the types
            writer.writerow([csv_cell(value) for value in msgspec.json.decode(line)])
    return text.getvalue().encode("utf-8", "replace")


class Format(msgspec.Struct, frozen=True):
    """A format of the API: its media type, the store's format that it is made of, and how."""

    media_type: str
    form: str
    render: Callable[[bytes], bytes]


#: Two lines, names and types, then an array a line.
_COMPACT = "JSONCompactEachRowWithNamesAndTypes"

FORMATS = {
    "json": Format("application/json", _COMPACT, as_json),
    "jsonl": Format("application/x-ndjson", "JSONEachRow", as_it_is),
    "csv": Format("text/csv; charset=utf-8", _COMPACT, as_csv),
    "parquet": Format("application/vnd.apache.parquet", "Parquet", as_it_is),
}


def lines_for_terminal(text: str) -> str:
    """Lines of CSV or JSON as text that cannot steer a terminal; their ends stay."""
    return "\n".join(for_terminal(line) for line in text.replace("\r\n", "\n").split("\n"))


def for_terminal(value: Any) -> str:
    """A value as text that cannot steer a terminal: control characters become visible escapes."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text_of(value))
