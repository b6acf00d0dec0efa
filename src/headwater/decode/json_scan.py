"""JSON text as tokens with their places: which bytes of a request are which value.

Parsers give values and forget where they stood. This one keeps the place and judges nothing: what
reads an event out of the text is the dialect's decoder, and a token here is only ever looked at,
or put in another's place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from headwater.decode.json_body import BadJson

_WHITE = b" \t\r\n"
_TOKENS = re.compile(
    rb'[ \t\r\n]+|[{}\[\]:,]|"(?>[^"\\]+|\\.)*+"|[^ \t\r\n{}\[\]:,"]+|"', re.DOTALL
)
_TEXT = msgspec.json.Decoder(str).decode

Kind = Literal["open", "close", "comma", "colon", "key", "leaf"]


class Token(msgspec.Struct, frozen=True, gc=False):
    """Bytes [start, end) of the text. `pointer` (RFC 6901) names the value: a container's own for
    both its brackets, the member's for a key. An empty container is a leaf."""

    kind: Kind
    start: int
    end: int
    pointer: str


def scan(text: bytes, *, tokens_max: int) -> list[Token]:
    """The tokens of JSON text, white space left out. Raises BadJson for what does not nest, and for
    more than `tokens_max` tokens."""
    found: list[Token] = []
    stack: list[tuple[bytes, str]] = []  # bracket and pointer of each open container
    counts: list[int] = []  # the number of the next item, in a list
    key: str | None = None
    for match in _TOKENS.finditer(text):
        piece = match[0]
        first = piece[:1]
        if first in _WHITE:
            continue
        if len(found) >= tokens_max:
            raise BadJson(f"more than {tokens_max} tokens")
        start, end = match.span()
        if first in b"}]":
            if not stack or (stack[-1][0] == b"{") != (first == b"}"):
                raise BadJson(f"unexpected {first.decode()} at byte {start}")
            _, pointer = stack.pop()
            counts.pop()
            if found[-1].kind == "open":
                found[-1] = Token("leaf", found[-1].start, end, pointer)
            else:
                found.append(Token("close", start, end, pointer))
        elif first == b",":
            found.append(Token("comma", start, end, stack[-1][1] if stack else ""))
        elif first == b":":
            found.append(Token("colon", start, end, stack[-1][1] if stack else ""))
        else:
            in_object = bool(stack) and stack[-1][0] == b"{"
            if in_object and found[-1].kind != "colon":
                key = _key(piece)
                found.append(Token("key", start, end, f"{stack[-1][1]}/{key}"))
                continue
            pointer = ""
            if stack:
                name = key if in_object else str(counts[-1])
                pointer = f"{stack[-1][1]}/{name}"
                counts[-1] += 1
            if first in b"{[":
                stack.append((first, pointer))
                counts.append(0)
                found.append(Token("open", start, end, pointer))
            else:
                found.append(Token("leaf", start, end, pointer))
    if stack or not found:
        raise BadJson("the text ends too early")
    return found


def _key(piece: bytes) -> str:
    try:
        text = _TEXT(piece)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        text = piece.decode("utf-8", "replace")
    return text.replace("~", "~0").replace("/", "~1")


def items_of(tokens: Sequence[Token], pointer: str) -> list[tuple[int, int]] | None:
    """Where the items of the list at `pointer` stand; None when there is no list."""
    spans: dict[str, tuple[int, int]] = {}
    prefix = f"{pointer}/"
    begun: dict[str, int] = {}
    is_list = False
    for token in tokens:
        if token.pointer == pointer and token.kind == "open":
            is_list = not spans
        if not token.pointer.startswith(prefix) or "/" in token.pointer[len(prefix) :]:
            continue
        if token.kind == "open":
            begun[token.pointer] = token.start
        elif token.kind == "close":
            spans[token.pointer] = (begun[token.pointer], token.end)
        elif token.kind == "leaf":
            spans[token.pointer] = (token.start, token.end)
        elif token.kind == "key":
            return None
    if not is_list:
        return None
    return [spans[f"{prefix}{number}"] for number in range(len(spans))]


def indented(text: bytes, tokens: Sequence[Token]) -> list[tuple[bytes, int | None]]:
    """The text laid out one value a line: pieces in order, each with the number of its token where
    that is a leaf."""
    pieces: list[tuple[bytes, int | None]] = []
    depth = 0
    for number, token in enumerate(tokens):
        piece = text[token.start : token.end]
        if token.kind == "leaf":
            pieces.append((piece, number))
        elif token.kind == "open":
            depth += 1
            pieces.append((piece + _line(depth), None))
        elif token.kind == "close":
            depth -= 1
            pieces.append((_line(depth) + piece, None))
        elif token.kind == "comma":
            pieces.append((b"," + _line(depth), None))
        else:
            pieces.append((b": " if token.kind == "colon" else piece, None))
    return pieces


def _line(depth: int) -> bytes:
    return b"\n" + b"  " * min(depth, 40)
