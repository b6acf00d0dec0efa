"""Identifiers as text: exact digits, leading zeros kept, sentinels denied."""

from __future__ import annotations

from typing import Any

from headwater.event import Identity, Strength

#: ASCII white space, which surrounds an identifier and is no part of it.
WHITE = " \t\r\n\v\f"

#: Values that clients send for "nobody"; they are kept and assert nothing (dialects, rule 5).
DENIED = frozenset(
    {
        "",
        "0",
        "-1",
        "null",
        "nil",
        "none",
        "undefined",
        "nan",
        "true",
        "false",
        "anonymous",
        "guest",
        "unknown",
        "[object object]",
        "00000000-0000-0000-0000-000000000000",
    }
)


def identifier(value: Any) -> str | None:
    """The identifier in a JSON value: str (ASCII white space around it removed), int and float as
    their exact text (an integral float like 5.0 as "5"); None for bool, null and containers."""
    if isinstance(value, str):
        return value.strip(WHITE)
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return None


def is_denied(value: str) -> bool:
    """Whether an identifier is one of the sentinels that never make or join people."""
    return value.lower() in DENIED


def identity(namespace: str, scope: str, value: str, strength: Strength) -> Identity:
    """An Identity whose `denied` mark follows from its value."""
    return Identity(namespace, scope, value, strength, value.lower() in DENIED)
