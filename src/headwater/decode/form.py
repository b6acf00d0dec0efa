"""Query strings and form bodies as ordered pairs, or as the values of a few names
(application/x-www-form-urlencoded).

The functions but `as_characters` take text whose characters are what the client meant: percent-
escapes stand for UTF-8, `as_characters` has made UTF-8 of raw bytes.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from headwater.decode.percent import percent_decode

#: More pairs than any real call; a 64 KiB target could otherwise hold 32,768.
_PAIRS_MAX = 4_096
_ESCAPED_NAME = re.compile(r"&[^&=]*%").search


def as_characters(text: str) -> str:
    """Text whose characters are bytes (latin-1) as the UTF-8 that a client meant by them."""
    if text.isascii():
        return text
    return text.encode("latin-1", "replace").decode("utf-8", "replace")


def pairs(text: str) -> list[tuple[str, str]]:
    """Ordered (name, value) pairs.

    Blank values are kept, ``+`` is a space, what is not UTF-8 becomes U+FFFD. Pairs beyond 4,096
    are dropped from the end. Source: the URL Standard's urlencoded parser.
    """
    found = []
    for field in text.split("&", _PAIRS_MAX)[:_PAIRS_MAX]:
        if field:
            name, _, value = field.partition("=")
            found.append((percent_decode(name), percent_decode(value)))
    return found


def first(text: str, name: str) -> str | None:
    """The decoded first value of a name, None where the name is not there.

    `name` is plain ASCII; fields that write it with escapes count where none writes it plainly,
    and those without an equals sign do not.
    A search for each of a few names takes a tenth of the time of parsing a long query.
    """
    start = text.find(f"&{name}=")
    if text.startswith(f"{name}="):
        start = -1
    elif start < 0:
        if "%" in text and _ESCAPED_NAME("&" + text):
            return next((value for written, value in pairs(text) if written == name), None)
        return None
    start += len(name) + 2
    end = text.find("&", start)
    return percent_decode(text[start:] if end < 0 else text[start:end])


def values(text: str, name: str) -> list[str]:
    """All decoded values of a name, in order, empty ones too; the first of them is `first`'s."""
    fields = text.split("&")
    mark = name + "="
    found = [percent_decode(field[len(mark) :]) for field in fields if field.startswith(mark)]
    if not found and "%" in text and _ESCAPED_NAME("&" + text):
        return [value for written, value in pairs(text) if written == name]
    return found


def is_utf8(text: str) -> bool:
    """Whether all that is behind percent-encoded text is UTF-8."""
    if "\ufffd" not in percent_decode(text):
        return True
    try:
        unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return False
    return "\ufffd" not in text
