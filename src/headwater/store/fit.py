"""JSON that the store's columns can hold: properties and context as text, whatever they are.

ClickHouse's JSON column makes a path of every key, a dot in a key being a step of the path. It
refuses a value with one path twice (``{"a": {"b": 1}, "a.b": 2}``), nesting beyond 1,000, and what
is no JSON text at all (lone surrogates). What it would refuse, and what is out of all proportion,
is kept as the text of the whole: ``{"_text": "<the JSON text>"}``, with the issue ``kept_as_text``.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from headwater import limits

EMPTY = b"{}"
_encode = msgspec.json.Encoder().encode
#: The last dot in a string that a colon follows, in the encoder's compact text. No dot is scanned
#: past, so that a long text of dots takes no longer than any other.
_dotted_key = re.compile(rb'\.[^".\\]*(?:\\.[^".\\]*)*":').search


def fit(value: dict[str, Any]) -> tuple[bytes, bool]:
    """`value` as JSON text that fits the store, and whether it had to be kept as text.

    Nearly everything is settled by the text alone: with few brackets it is not deep, with few
    colons it has few keys, and without a dot in a key no path is there twice.
    """
    if not value:
        return EMPTY, False
    try:
        text = _encode(value)
        if (
            text.count(b":") <= limits.json_keys_max
            and text.count(b"{") + text.count(b"[") <= limits.json_depth_max
            and (b"." not in text or _dotted_key(text) is None)
        ) or _has_room(value):
            return text, False
    except (TypeError, ValueError, OverflowError, RecursionError):
        # Integers beyond 64 bits, lone surrogates, values that JSON does not have.
        if _walks(value):
            text = json_text(value)
            if b"\\ud" not in text:
                return text, False
    return kept_as_text(value), True


def _walks(value: dict[str, Any]) -> bool:
    try:
        return _has_room(value)
    except (TypeError, ValueError, RecursionError):
        return False


def kept_as_text(value: object) -> bytes:
    """The form that always fits. `value` is JSON of any kind, or the bytes of its text."""
    text = value if isinstance(value, bytes) else json_text(value)
    return _encode({"_text": text.decode("utf-8", "replace")})


def json_text(value: object) -> bytes:
    """`value` as UTF-8 JSON text; what JSON cannot say is said in words."""
    try:
        return _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass
    try:
        # ASCII only: a lone surrogate stays visible as its escape.
        return json.dumps(value, separators=(",", ":"), default=str).encode()
    except (TypeError, ValueError, RecursionError):
        return b'"nested too deeply to be written"'


def profile_text(values: dict[str, Any]) -> bytes:
    """A profile change as UTF-8 JSON text that the store's functions can read key by key: a value
    that they cannot is kept as text, so that it does not hide the others."""
    try:
        return _encode(values)
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass
    kept = []
    for key, value in values.items():
        name = _encode(key.encode("utf-8", "backslashreplace").decode())
        text = json_text(value)
        kept.append(name + b":" + (kept_as_text(text) if b"\\ud" in text else text))
    return b"{" + b",".join(kept) + b"}"


def _has_room(value: dict[str, Any]) -> bool:
    """Whether depth, number of keys and paths fit. Objects inside arrays are columns of their own,
    with paths that begin anew."""
    keys = 0
    todo: list[tuple[dict[str, Any], int]] = [(value, 1)]
    while todo:
        root, depth = todo.pop()
        leaves: set[str] = set()
        inner: set[str] = set()
        inside: list[tuple[str, Any, int]] = [(key, item, depth) for key, item in root.items()]
        while inside:
            path, item, level = inside.pop()
            keys += 1
            if keys > limits.json_keys_max or level > limits.json_depth_max:
                return False
            if isinstance(item, dict) and item:
                for key, below in item.items():
                    inside.append((f"{path}.{key}", below, level + 1))
                continue
            if path in leaves:
                return False
            leaves.add(path)
            at = path.rfind(".")
            while at >= 0 and path[:at] not in inner:
                inner.add(path[:at])
                at = path.rfind(".", 0, at)
            if isinstance(item, list):
                found = _objects(item, level)
                if found is None:
                    return False
                todo += found
        if not leaves.isdisjoint(inner):
            return False
    return True


def _objects(items: list[Any], level: int) -> list[tuple[dict[str, Any], int]] | None:
    """The objects inside an array, with their depth; None when it is nested too deeply."""
    found: list[tuple[dict[str, Any], int]] = []
    todo = [(items, level + 1)]
    while todo:
        current, depth = todo.pop()
        if depth > limits.json_depth_max:
            return None
        for item in current:
            if isinstance(item, dict):
                found.append((item, depth))
            elif isinstance(item, list):
                todo.append((item, depth + 1))
    return found
