"""Gamooga's properties: name, value and type as three query fields, in order, more or less.

Callers send one type field too many, forget one, let an unescaped ``&`` cut a value in two, or
write all names first (dialects/gamooga, section 2). Three rules, tried in order, over the name
("key"), value and type fields alone:

1. Every key is followed by exactly one value before the next key: each key opens a group, the
   first type in it counts. What comes before the first key is ignored.
2. There are as many values as keys: the n-th belongs to the n-th, and so does the n-th type when
   there are as many of these.
3. Each key takes the first value before the next key; what is left over is an issue.

Nothing here fails: what cannot be paired or typed is an issue, and the request is journaled anyway.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from headwater.decode.identifiers import WHITE
from headwater.event import Issue

_INTEGER = re.compile(r"[+-]?[0-9]+").fullmatch
#: What float() takes besides these (nan, inf, 1_000, other scripts' digits) no caller means.
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?").fullmatch
#: Python converts no longer text to int, and no number of an event has so many digits.
_DIGITS_MAX = 4_300
_BOOLEANS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
_TYPES = frozenset({"s", "n", "b"})
_DETAIL_CHARACTERS_MAX = 64


class Fields(NamedTuple):
    """How one set of triples is spelled: the names of its key, value and type fields."""

    keys: tuple[str, ...]
    value: str
    type: str


class Typed(msgspec.Struct):
    """What a set of triples says.

    `properties` are the typed values by name, `types` their types (s, n or b). `repeated` holds
    name, value and type of every triple, as text, when a name came more than once: the last one
    counts.
    """

    properties: dict[str, Any] = msgspec.field(default_factory=dict)
    types: dict[str, str] = msgspec.field(default_factory=dict)
    repeated: list[list[str]] = msgspec.field(default_factory=list)
    issues: list[Issue] = msgspec.field(default_factory=list)


class _Group:
    """A key with the values and types that follow it before the next key."""

    def __init__(self, field: str, key: str) -> None:
        self.field = field
        self.key = key
        self.values: list[str] = []
        self.types: list[str] = []


def read_triples(sent: Iterable[tuple[str, str]], fields: Fields) -> Typed:
    """The properties in ordered (name, value) pairs; pairs that are no part of `fields` are
    passed over."""
    groups: list[_Group] = []
    values: list[str] = []
    types: list[str] = []
    before = 0  # values that come before the first key
    for name, text in sent:
        if name in fields.keys:
            groups.append(_Group(name, text))
        elif name == fields.value:
            values.append(text)
            if groups:
                groups[-1].values.append(text)
            else:
                before += 1
        elif name == fields.type:
            types.append(text)
            if groups:
                groups[-1].types.append(text)
    found = Typed()
    if all(len(group.values) == 1 for group in groups):
        found.issues += [_unpaired(fields.value, text) for text in values[:before]]
        triples = [(group, group.values[0], "".join(group.types[:1])) for group in groups]
    elif len(groups) == len(values):
        matched = types if len(types) == len(groups) else [""] * len(groups)
        triples = list(zip(groups, values, matched, strict=True))
    else:
        triples = _paired_in_part(groups, values[:before], fields, found.issues)
    _type_all(triples, fields, found)
    return found


def _paired_in_part(
    groups: list[_Group], before: list[str], fields: Fields, issues: list[Issue]
) -> list[tuple[_Group, str, str]]:
    issues += [_unpaired(fields.value, text) for text in before]
    triples = []
    for group in groups:
        if group.values:
            triples.append((group, group.values[0], "".join(group.types[:1])))
        else:
            issues.append(_unpaired(group.field, group.key))
        issues += [_unpaired(fields.value, text) for text in group.values[1:]]
    return triples


def _unpaired(field: str, text: str) -> Issue:
    return Issue("unpaired", field, text[:_DETAIL_CHARACTERS_MAX])


def _type_all(triples: list[tuple[_Group, str, str]], fields: Fields, found: Typed) -> None:
    named = []
    for group, text, sent_type in triples:
        if not group.key.strip(WHITE):
            found.issues.append(
                Issue("empty_name", group.field, f"value {text[:_DETAIL_CHARACTERS_MAX]}")
            )
            continue
        wanted = sent_type.strip(WHITE).lower()
        if wanted not in _TYPES:
            if wanted:
                words = f"{fields.type} {sent_type[:_DETAIL_CHARACTERS_MAX]} is none of s, n, b"
                found.issues.append(Issue("unknown_type", group.key, words))
            wanted = "s"
        value = typed(text, wanted)
        if value is None:
            found.issues.append(Issue("bad_type", group.key, f"not of type {wanted}"))
            value = text
        found.properties[group.key] = value
        found.types[group.key] = wanted
        named.append([group.key, text, sent_type])
    if len(named) > len(found.properties):
        found.repeated = named


def typed(text: str, wanted: str) -> str | int | float | bool | None:
    """`text` as type s (verbatim), n (a finite number) or b; None when it is not of that type.

    White space around a number or truth value is passed over: an unescaped ``+5`` arrives as " 5".
    """
    if wanted == "n":
        return _number(text.strip(WHITE))
    if wanted == "b":
        return _BOOLEANS.get(text.strip(WHITE).lower())
    return text


def _number(text: str) -> int | float | None:
    if len(text) > _DIGITS_MAX:
        return None
    if _INTEGER(text):
        return int(text)
    if _FLOAT(text):
        value = float(text)
        return value if math.isfinite(value) else None
    return None
