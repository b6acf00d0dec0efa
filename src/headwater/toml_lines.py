"""Where in a TOML text each key stands: tomllib gives values without their lines.

The text has been parsed by tomllib before, so this scanner may believe that it is valid: it only
follows table headers, keys, strings, comments and brackets. Keys inside inline tables are not
followed; ask :func:`line_of`, which falls back to the nearest enclosing key.
"""

from __future__ import annotations

import re
import tomllib

#: ("accounts", "acme", "vaix", "tokens", 0): names, and numbers for places in an array.
Path = tuple[str | int, ...]

_KEY_PART = re.compile(r"""[ \t]*("(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+)[ \t]*(\.?)""")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}(?!")'
    r"|'''.*?'{3,5}(?!')"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)


def _keys(text: str, at: int) -> tuple[list[str], int]:
    """A dotted key that starts at `at`: its parts, and the place behind it."""
    parts: list[str] = []
    while match := _KEY_PART.match(text, at):
        name = match[1]
        parts.append(next(iter(tomllib.loads(f"{name} = 0"))) if name[0] in "\"'" else name)
        at = match.end()
        if not match[2]:
            break
    return parts, at


def lines(text: str) -> dict[Path, int]:
    """The line (from 1) of every table header, key and array element of a valid TOML text."""
    found: dict[Path, int] = {}
    table: Path = ()
    counts: dict[Path, int] = {}
    at, end = 0, len(text)
    while at < end:
        char = text[at]
        if char in " \t\r\n":
            at += 1
        elif char == "#":
            at = _line_end(text, at)
        elif char == "[":
            double = text.startswith("[[", at)
            parts, behind = _keys(text, at + (2 if double else 1))
            table = tuple(parts)
            if double:
                place = counts.get(table, 0)
                counts[table] = place + 1
                table = (*table, place)
            for length in range(1, len(table) + 1):
                found.setdefault(table[:length], text.count("\n", 0, at) + 1)
            at = _line_end(text, behind)
        else:
            parts, behind = _keys(text, at)
            if not parts:  # nothing that a valid text can hold; go on rather than loop
                at = _line_end(text, at)
                continue
            for length in range(1, len(parts) + 1):
                key: Path = (*table, *parts[:length])
                found.setdefault(key, text.count("\n", 0, at) + 1)
            at = _value(text, text.index("=", behind) + 1, (*table, *parts), found)
    return found


def _line_end(text: str, at: int) -> int:
    newline = text.find("\n", at)
    return len(text) if newline < 0 else newline


def _value(text: str, at: int, key: Path, found: dict[Path, int]) -> int:
    """Walk over one value, noting the elements of an array; the place behind the value."""
    depth, place, fresh = 0, 0, True
    is_array = text[at:].lstrip(" \t").startswith("[")
    while at < len(text):
        char = text[at]
        if char == "\n" and depth == 0:
            return at
        if char == "#":
            at = _line_end(text, at)
            continue
        if char in "]}":
            depth -= 1
        elif is_array and depth == 1 and char == ",":
            place, fresh = place + 1, True
        elif is_array and depth == 1 and fresh and not char.isspace():
            found[(*key, place)] = text.count("\n", 0, at) + 1
            fresh = False
        if char in "[{":
            depth += 1
        if char in "\"'" and (match := _STRING.match(text, at)):
            at = match.end()
        else:
            at += 1
    return at


def line_of(found: dict[Path, int], path: Path) -> int:
    """The line of a key, else of the nearest key that encloses it, else 1."""
    while path:
        if path in found:
            return found[path]
        path = path[:-1]
    return 1
