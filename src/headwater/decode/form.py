"""Query strings and form bodies as ordered pairs (application/x-www-form-urlencoded)."""

from __future__ import annotations

from urllib.parse import parse_qsl

#: More pairs than any real call; a 64 KiB target could otherwise hold 32,768.
_PAIRS_MAX = 4_096


def pairs(text: str) -> list[tuple[str, str]]:
    """Ordered (name, value) pairs of a query string whose characters are bytes (latin-1).

    Blank values are kept, ``+`` is a space, percent-escapes and raw bytes are UTF-8 with
    replacement of what is not. Pairs beyond 4,096 are dropped from the end.
    Source: the URL Standard's urlencoded parser.
    """
    if not text.isascii():
        text = text.encode("latin-1", "replace").decode("utf-8", "replace")
    fields = text.split("&", _PAIRS_MAX)
    if len(fields) > _PAIRS_MAX:
        text = "&".join(fields[:_PAIRS_MAX])
    return parse_qsl(text, keep_blank_values=True, encoding="utf-8", errors="replace")


def form_body(body: bytes) -> list[tuple[str, str]]:
    """The same for the body of a form."""
    return pairs(body.decode("latin-1"))
