"""JSON as all five dialects take it: strict UTF-8, any content type, a byte order mark tolerated."""

from __future__ import annotations

from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode
_BOM = b"\xef\xbb\xbf"

#: What msgspec raises on bytes that are no JSON value: syntax (DecodeError), numbers beyond a
#: double or 4,300 digits (ValidationError), bad UTF-8, nesting beyond the interpreter's limit.
JSON_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


class BadJson(ValueError):
    """The bytes are no JSON value; the text says why."""


def parse_json(body: bytes) -> Any:
    """The value in `body`: dict, list, str, int, float, bool or None. Duplicate keys: last wins.

    Raises BadJson for anything else, lone surrogates and 1e400 included (RFC 8259; what the store
    cannot hold must not be acknowledged).
    """
    if body.startswith(_BOM):
        body = body[3:]
    try:
        return _decode(body)
    except JSON_ERRORS as error:
        raise BadJson(reason_of(error)) from None


def reason_of(error: BaseException) -> str:
    """`error` of JSON_ERRORS in words that never repeat the input."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    return str(error)
