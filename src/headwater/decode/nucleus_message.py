"""A Nucleus message as bytes: its events told apart, its ids for the echo.

Theory of operation. A client sends its whole queue in one message, and sends it again until every
id of it has been acknowledged. One event that cannot be read must therefore never hold back its
neighbours, and what was counted before the answer must be counted again from the journal, byte for
byte the same message, by a parser that builds everything where the first one only skipped.

Both sides agree because there is one judgement of the bytes, made in this order:

1. `legible` makes a text of them that every JSON parser reads alike: UTF-8 or nothing, lone
   surrogate escapes replaced by U+FFFD, values nested too deeply put in as text. It changes nothing
   in what real clients send. Depth is judged by counting brackets: a recursive parser gives up
   where the caller's stack ends.
2. `split` tells the events apart with msgspec's skipping parser. It checks all of JSON's grammar
   but the range of numbers (1e400, more than 4,300 digits), and on legible text nothing else sets
   it apart from the building parser. So a message that the building parser takes whole (`values`
   tries that first, it is the fast way) has the same events as the one that was skipped through,
   and where it refuses, the same pieces are taken one by one: field by field at the worst, an
   unstorable one as its text.

`heads` is the fast way before the answer: four fields an event, each as its raw text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from headwater.decode.json_body import JSON_ERRORS, nested_too_deeply, reason_of
from headwater.event import Issue
from headwater.limits import json_nesting_max, nucleus_body_bytes_max

#: Cutting deep values out takes some 0.2 µs a bracket in Python: 50 ms for this much at the worst.
#: A larger message that is so deep is refused.
_CUT_BYTES_MAX = 256 * 1024
#: 16 MiB of the shortest events that a known client writes (some 130 bytes). A queue is never so
#: long, and what is not one makes no million rows of `rejected` out of ``[1,1,1,…]``.
ITEMS_MAX = nucleus_body_bytes_max // 128
#: The same for the parsers' memory, which comes before the items can be counted: some 100 bytes an
#: item. Recorded clients write a comma every 20 to 25 bytes.
_COMMAS_MAX = nucleus_body_bytes_max // 16
#: Where a payload stands in {"data":[{"payload":{…}}]}, counted from 1.
_VALUE_DEPTH = 4

_BOM = b"\xef\xbb\xbf"
_WHITE = b" \t\r\n"
ABSENT = Raw(b"")


class BadMessage(Exception):
    """No message at all: `reason` is a rejection's reason, `detail` says what is wrong."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Head(msgspec.Struct, gc=False):
    """What an answer needs of one event: raw JSON text, empty where the key is absent."""

    id: Raw = ABSENT
    type: Raw = ABSENT
    name: Raw = ABSENT
    event: Raw = ABSENT


class _Envelope(msgspec.Struct, gc=False):
    data: list[Head]
    confirmation: Raw = ABSENT


class _LooseEnvelope(msgspec.Struct, gc=False):
    data: Raw = ABSENT
    confirmation: Raw = ABSENT


_decode = msgspec.json.Decoder().decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_loose = msgspec.json.Decoder(_LooseEnvelope).decode
_decode_head = msgspec.json.Decoder(Head).decode
_decode_raw = msgspec.json.Decoder(Raw).decode
_decode_pieces = msgspec.json.Decoder(list[Raw]).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_ids = msgspec.json.Decoder(list[int | float | str]).decode
_encode = msgspec.json.Encoder().encode


# --- before the answer -------------------------------------------------------------------------


def heads(body: bytes) -> tuple[Sequence[Head | None], Raw]:
    """The message's events (None for an item that is no object) and its `confirmation`.

    Raises BadMessage exactly when `values` does; gives as many items.
    """
    body = legible(body)
    try:
        envelope = _decode_envelope(body)
    except JSON_ERRORS:
        pieces, confirmation = split(body)
        _check_count(pieces)
        return [_decode_head(one) if _first(one) == b"{" else None for one in pieces], confirmation
    _check_count(envelope.data)
    return envelope.data, envelope.confirmation


def reply(found: Sequence[Head | None], confirmation: Raw) -> bytes:
    """The acknowledgement: ids as they were written, to the letter, and nothing but them.

    A client compares without converting, so that "1" for 1 is never acknowledged; the Swift client
    ends its process over any key that it did not ask for (card, section 4).
    """
    ids = [one.id for one in found if one is not None and one.id]
    joined = b",".join(ids)
    try:
        _decode_ids(b"[%b]" % joined)
    except JSON_ERRORS:
        joined = b",".join([one for one in ids if _is_scalar(one)])
    if confirmation:
        return b'{"reportedIds":[%b],"confirmation":%b}' % (joined, bytes(confirmation))
    return b'{"reportedIds":[%b]}' % joined


def value_of(raw: Raw) -> Any:
    """The value of a raw text, itself as a string where it is beyond what is storable."""
    if not raw:
        return None
    try:
        return _decode(raw)
    except JSON_ERRORS:
        return bytes(raw).decode()


def _is_scalar(raw: Raw) -> bool:
    return _first(raw) in b'"-0123456789'


def _first(raw: Raw) -> bytes:
    return bytes(memoryview(raw)[:1])


# --- after the journal -------------------------------------------------------------------------


def values(body: bytes) -> tuple[list[Any], dict[int, list[Issue]]]:
    """The message's items as values, and what had to be changed in them, by place.

    Raises BadMessage: ``bad_utf8``, ``bad_json``, or ``bad_body`` for JSON of another shape.
    """
    text = legible(body)
    if _REPLACEMENT not in text:
        try:
            items = _items(_decode(text))
        except JSON_ERRORS:
            pass  # then piece by piece
        else:
            _check_count(items)
            return items, {}
    pieces, _ = split(text)
    _check_count(pieces)
    found: list[Any] = []
    issues: dict[int, list[Issue]] = {}
    for index, piece in enumerate(pieces):
        value, odd = _salvage(piece)
        found.append(value)
        if _REPLACEMENT in bytes(piece):
            odd.append(Issue("lone_surrogate", "", "replaced by U+FFFD"))
        if odd:
            issues[index] = odd
    return found, issues


def _items(value: Any) -> list[Any]:
    """The items of a message that was parsed whole; `split` says the same of its text."""
    if isinstance(value, dict):
        value = value.get("data")
        if isinstance(value, dict):
            return [value]
    if isinstance(value, list):
        return value
    raise BadMessage("bad_body", _SHAPE)


def split(body: bytes) -> tuple[list[Raw], Raw]:
    """The items of legible text, each as raw JSON, and its `confirmation`. Raises BadMessage.

    Taken are ``{"data":[…]}``, ``{"data":{…}}`` and a bare ``[…]``.
    """
    try:
        start = body.lstrip(_WHITE)[:1]
        if start == b"[":
            return _decode_pieces(body), ABSENT
        if start != b"{":
            _decode_raw(body)
            raise BadMessage("bad_body", _SHAPE)
        envelope = _decode_loose(body)
        start = _first(envelope.data)
        if start == b"[":
            return _decode_pieces(envelope.data), envelope.confirmation
    except JSON_ERRORS as error:
        raise BadMessage("bad_json", reason_of(error)) from None
    if start != b"{":
        raise BadMessage("bad_body", _SHAPE)
    return [envelope.data], envelope.confirmation


_SHAPE = 'expected {"data": [...]}'


def _check_count(items: Sequence[object]) -> None:
    if len(items) > ITEMS_MAX:
        raise BadMessage("bad_body", f"more than {ITEMS_MAX} events")


def _salvage(piece: Raw) -> tuple[Any, list[Issue]]:
    """One item, whole if it can be, else each field by itself, the unstorable ones as text."""
    try:
        return _decode(piece), []
    except JSON_ERRORS:
        if _first(piece) != b"{":
            return bytes(piece).decode(), []
    fields: dict[str, Any] = {}
    issues: list[Issue] = []
    for key, raw in _decode_fields(piece).items():
        try:
            fields[key] = _decode(raw)
        except JSON_ERRORS as error:
            fields[key] = bytes(raw).decode()
            issues.append(Issue("kept_as_text", key, reason_of(error)))
    return fields, issues


# --- text that every parser reads alike --------------------------------------------------------


def legible(body: bytes) -> bytes:
    """`body` without a byte order mark, in UTF-8, without lone surrogates, of no more than
    json_nesting_max levels. Raises BadMessage for what is no UTF-8, or beyond a bound."""
    if body.startswith(_BOM):
        body = body[3:]
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise BadMessage("bad_utf8", reason_of(error)) from None
    if len(body) > _COMMAS_MAX and body.count(b",") > _COMMAS_MAX:
        raise BadMessage("bad_body", "too many values")
    if b"\\" in body and (b"\\ud" in body or b"\\uD" in body):
        body = _ESCAPES.sub(_mend_escape, body)
    if nested_too_deeply(body):
        body = _cut(body)
    return body


#: U+FFFD in a spelling of its own, so that a mended event is known by it.
_REPLACEMENT = rb"\uFFfD"
#: Any escape; a pair of surrogates is one. Escapes have to be read from the left: in ``\\ud800``
#: the second backslash belongs to the first.
_ESCAPES = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def _mend_escape(match: re.Match[bytes]) -> bytes:
    return match[0] if match[1] is None else _REPLACEMENT


#: Strings and brackets; atomic, and a string may lack its end, so that it is linear in any bytes.
_TOKENS = re.compile(rb'"(?>[^"\\]+|\\.)*+"?|[\[\]{}]', re.DOTALL)


def _cut(body: bytes) -> bytes:
    """`body` with each value that is too deep replaced by a list of one string, its text.

    A list, and no bare string: whatever stood there was no scalar, and an id that is none must not
    be echoed.
    """
    if len(body) > _CUT_BYTES_MAX:
        raise BadMessage("bad_json", "nested too deeply")
    out: list[bytes] = []
    kept = start = depth = deepest = 0
    for token in _TOKENS.finditer(body):
        bracket = token[0]
        if bracket in b"[{":
            depth += 1
            if depth == _VALUE_DEPTH:
                start, deepest = token.start(), depth
            deepest = max(deepest, depth)
        elif bracket in b"]}":
            if depth == _VALUE_DEPTH and deepest > json_nesting_max:
                out += body[kept:start], _encode([body[start : token.end()].decode()])
                kept = token.end()
            depth -= 1
    if depth >= _VALUE_DEPTH and deepest > json_nesting_max:  # it never ends
        raise BadMessage("bad_json", "nested too deeply")
    return b"".join(out) + body[kept:]
