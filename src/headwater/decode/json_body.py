"""JSON as all five dialects take it: strict UTF-8, any content type, a BOM tolerated."""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import Any

import msgspec

from headwater.limits import json_nesting_max

_decode = msgspec.json.Decoder().decode
_BOM = b"\xef\xbb\xbf"

_NO_MARKS = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")

#: What msgspec raises on bytes that are no JSON value: syntax (DecodeError), numbers beyond a
#: double or 4,300 digits (ValidationError), bad UTF-8, nesting beyond the interpreter's limit.
JSON_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


class BadJson(ValueError):
    """The bytes are no JSON value; the text says why."""


def parse_json(body: bytes) -> Any:
    """The value in `body`: dict, list, str, int, float, bool or None. Duplicate keys: last wins.

    Raises BadJson for anything else, lone surrogates and 1e400 included (RFC 8259; what the store
    cannot hold must not be acknowledged), and for more than `json_nesting_max` levels.
    """
    if body.startswith(_BOM):
        body = body[3:]
    if len(body) > 2 * json_nesting_max and nested_too_deeply(body):
        raise BadJson("nested too deeply")
    try:
        return _decode(body)
    except JSON_ERRORS as error:
        raise BadJson(reason_of(error)) from None


def nested_too_deeply(body: bytes) -> bool:
    """Whether JSON text has more than `json_nesting_max` levels of arrays and objects.

    msgspec stops where the interpreter's stack ends, so it would take a document from a shallow
    caller (the collector) and refuse it from a deeper one (a replay): what was acknowledged could
    then not be read again. Exact for valid JSON, and cheaper than the parse itself.
    """
    if body.count(b"[") + body.count(b"{") <= json_nesting_max:
        return False
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = body.translate(None, _NO_MARKS).replace(b'""', b"")  # most strings hold no bracket
    if b'"' in marks:
        marks = b"".join(marks.split(b'"')[::2])
    steps = array("b", marks.translate(_STEPS))
    return max(accumulate(steps), default=0) > json_nesting_max


def reason_of(error: BaseException) -> str:
    """`error` of JSON_ERRORS in words that never repeat the input."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    return str(error)
