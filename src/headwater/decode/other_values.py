"""Another value of the same shape: what is put in a value's place to see what depends on it.

Letters stay letters, digits digits, hexadecimal digits hexadecimal, so that an address stays an
address and an id an id; what is no letter or digit (``@``, ``:``, an escape) stays as it is.
"""

from __future__ import annotations

import math
import re

_ROTATED = bytes.maketrans(
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    b"1234567891bcdefahijklmnopqrstuvwxyzgBCDEFAHIJKLMNOPQRSTUVWXYZG",
)
#: Escapes of JSON and of URLs, and a scheme at the start: without it an address is none.
_PLAIN = re.compile(
    rb"(\\u[0-9a-fA-F]{4}|\\.|%[0-9a-fA-F]{2}|^https?(?=:|%3[aA]))|([0-9A-Za-z]+)", re.DOTALL
)
_INTEGER = re.compile(rb"-?[0-9]+").fullmatch
_DIGITS_MAX = 4_000
_SWAPPED = {b"true": b"false", b"false": b"true", b"null": b"0", b"[]": b"[0]", b"{}": b'{"~":0}'}


def other_text(text: bytes) -> bytes:
    """Every letter and digit another one; an "x" more where there are none."""
    found = _PLAIN.sub(lambda match: match[1] or match[2].translate(_ROTATED), text)
    return found if found != text else text + b"x"


def other_end(text: bytes) -> bytes:
    """The last letter or digit another one: dates stay dates."""
    runs = [match for match in _PLAIN.finditer(text) if match[2]]
    if not runs:
        return text + b"x"
    at = runs[-1].end() - 1
    return text[:at] + text[at : at + 1].translate(_ROTATED) + text[at + 1 :]


def other_json(token: bytes) -> bytes:
    """Another value in the place of a JSON leaf: text, number, truth value, null, {} or []."""
    if token.startswith(b'"'):
        return b'"%b"' % other_text(token[1:-1])
    plain = token.translate(None, b" \t\r\n")
    if plain in _SWAPPED:
        return _SWAPPED[plain]
    if _INTEGER(token) and len(token) < _DIGITS_MAX:
        return b"%d" % (int(token) + 1)
    try:
        number = float(token) + 1
    except ValueError:
        return b"0"
    return repr(number).encode() if math.isfinite(number) and abs(number) < 1e15 else b"1"


def other_json_end(token: bytes) -> bytes:
    """The same, with the last letter or digit of a text changed only."""
    return b'"%b"' % other_end(token[1:-1]) if token.startswith(b'"') else other_json(token)
