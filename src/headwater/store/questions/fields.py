"""What of an event can be asked for by name, and how it is written in SQL.

A field is a column (``name``), a path of JSON (``properties.cart.total``, ``context.device.os``),
an identifier's namespace (``identity.email``), or one of the short words of :data:`SHORT`.
Everything compares and groups as text, as the JSON had it: 3 is "3", true is "true".
"""

from __future__ import annotations

import math
import re

import msgspec

from headwater.errors import WrongUse

#: Columns with few values: they need no bound when something is broken down by them.
FEW = ("account", "dialect", "kind", "transport")
#: Columns of text.
TEXTS = (*FEW, "scope", "name")
#: Columns of ids.
IDS = ("person_id", "session_id", "event_id", "request_id")
#: Columns of time.
TIMES = ("received_at", "occurred_at")

#: Columns of text that an event need not have, and what each is. They are stored columns of their
#: own (schema 0007): reading a path of JSON from every row takes six times as long.
SHORT = {
    "page": "the page's address, without its query",
    "country": "context.country",
    "bot": "context.bot",
    "device": "context.device.kind",
    "os": "context.device.os",
    "browser": "context.device.browser",
    "issues": "what was odd about the event",
}

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: What may not stand in a quoted name: the guard refuses it there, and reads no such name.
_UNQUOTABLE = re.compile(r"[\x00-\x1f\x7f\\`]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_REMEDY = (
    "use a column of events, properties.PATH, context.PATH, identity.NAMESPACE, "
    f"or one of {', '.join(SHORT)}"
)


class Field(msgspec.Struct, frozen=True):
    """A field as SQL: `sql` gives text, NULL where an event has none if it is `nullable`."""

    sql: str
    nullable: bool

    def number(self) -> str:
        """Its value as a number, NULL where it is none."""
        return f"toFloat64OrNull({self.sql})"


def literal(text: str) -> str:
    """`text` as a literal of SQL, in one line. Raises WrongUse for what is no Unicode text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise WrongUse("half a character is no text", remedy="send UTF-8") from None
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    shown = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", escaped)
    return f"'{shown}'"


def as_number(text: str) -> float | None:
    """The finite number that a text writes, None for any other text."""
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def path(column: str, keys: str) -> str:
    """A path of a JSON column, as it is stored: a dot in a key is no different from a step."""
    if not keys:
        raise WrongUse(f"{column}. which key?", remedy=f"ask for {column}.KEY")
    pieces = keys.split(".")
    if all(pieces) and not _UNQUOTABLE.search(keys):
        named = (piece if _PLAIN.fullmatch(piece) else f"`{piece}`" for piece in pieces)
        return f"{column}.{'.'.join(named)}"
    return f"getSubcolumn({column}, {literal(keys)})"


def field(name: str) -> Field:
    """A field by its name. Raises WrongUse."""
    if name in TEXTS:
        return Field(name, nullable=False)
    if name in IDS:
        return Field(f"toString({name})", nullable=name in ("person_id", "session_id"))
    if name == "issues":
        return Field("nullIf(arrayStringConcat(issues, '; '), '')", nullable=True)
    if name in SHORT:
        return Field(name, nullable=True)
    column, _, rest = name.partition(".")
    if column in ("properties", "context"):
        return Field(f"CAST({path(column, rest)}, 'Nullable(String)')", nullable=True)
    if column == "identity" and rest:
        found = f"arrayFirst(one -> one.namespace = {literal(rest)}, identities)"
        return Field(f"nullIf({found}.value, '')", nullable=True)
    raise WrongUse(f'no event has a field "{name[:80]}"', remedy=_REMEDY)


def few(name: str) -> bool:
    """Whether a field has so few values that none has to be left out."""
    return name in FEW
