"""A request as text, in pieces that know which value of the request they are."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headwater.accept.request import Request
from headwater.decode.leaves import Leaf


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A run of text; `leaves` are the numbers of the values that it is."""

    text: str
    leaves: list[int]


def as_it_came(
    request: Request, leaves: Sequence[Leaf], *, body_bytes_max: int
) -> tuple[list[Piece], int]:
    """Request line, headers and body (inflated), joined in order they are what came but for what is
    never kept; and how many bytes of the body were left out. Bytes that are no UTF-8 are written as
    escapes."""
    out = [Piece(text=f"{request.method} ", leaves=[])]
    out += _marked(request.target.encode("latin-1", "replace"), leaves, ("path", "query"), "")
    out.append(Piece(text="\n", leaves=[]))
    for name, value in request.headers.items():
        out.append(Piece(text=f"{name}: ", leaves=[]))
        out += _marked(value.encode("latin-1", "replace"), leaves, ("header",), name)
        out.append(Piece(text="\n", leaves=[]))
    if not request.body:
        return out, 0
    out.append(Piece(text="\n", leaves=[]))
    body = request.body[:body_bytes_max]
    out += _marked(body, leaves, ("body", "form"), "")
    return out, len(request.body) - len(body)


def _marked(raw: bytes, leaves: Sequence[Leaf], parts: Sequence[str], name: str) -> list[Piece]:
    spans: dict[tuple[int, int], list[int]] = {}
    for number, leaf in enumerate(leaves):
        if leaf.part in parts and (not name or leaf.name == name) and leaf.end > leaf.start:
            spans.setdefault((leaf.start, leaf.end), []).append(number)
    pieces = []
    at = 0
    for (start, end), numbers in sorted(spans.items()):
        if start < at or end > len(raw):
            continue
        if start > at:
            pieces.append(Piece(text=_text(raw[at:start]), leaves=[]))
        pieces.append(Piece(text=_text(raw[start:end]), leaves=numbers))
        at = end
    if at < len(raw):
        pieces.append(Piece(text=_text(raw[at:]), leaves=[]))
    return pieces


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
