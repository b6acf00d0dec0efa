"""Scenarios as they stand in docs/identity.md and in variants.md, read.

A scenario is a fenced block under a heading. A line of it is one request and who its event is::

    12:01  nucleus  event "Cart"  anonId=A userId=ann {"sku":"A1"}  → Ann

- The time is the client's, of yesterday; ``12:01+3d`` is three days later. ``now`` sends none, and
  the order of arrival is the time.
- The verb is the dialect's own word (a Nucleus type, a Gamooga endpoint, a Vibetrace type, Orbee's
  ``action:object``, VAIX's event_type). A name in quotes follows where there is one.
- Fields are the wire's own, ``key=text``, ``key="any text"`` or ``key:=json``; the object behind
  them is the payload. Apps, companies, accounts, aids and groups are ``in=``; ``account=`` is a
  Headwater account.
- ``answers V`` is the visitor id that comes back; ``$v`` stands for one that Headwater makes.
- After the arrow: a label for each person, equal in one scenario exactly where the person is.
  ``nobody`` has none. ``session 1`` labels sessions in the same way, ``no session``. A second arrow
  says who it is in the end, after ``then`` or ``undo``.

Other lines: ``then``, what stands above is loaded before the rest is sent; ``undo``, the merges are
undone; ``merges 1``; ``Ann: {…}``, the profile; ``Ann is namespace value, …``, the identities;
``shared A, …``, the values that are marked shared, and no other; ``# …``, for the reader.

Requests above ``undo`` or ``then`` are sent in every order unless the fence says ``in this order``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec

NOBODY = "nobody"
DIALECTS = ("vaix", "orbee", "nucleus", "vibetrace", "gamooga")

_FENCE = re.compile(r"^(#+ .+?)$|^```events(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TIME = re.compile(r"(\d\d):(\d\d)(?:([+-]\d+)d)?").fullmatch
_KEY = re.compile(r"([A-Za-z_.]+)(:?)=")
_WORD = re.compile(r"[^\s,]+")
_WHO = re.compile(r"(\w+)(?:, (no session|session \w+))?(?: → (\w+))?").fullmatch
_DAY_MINUTES = 24 * 60

_decoder = json.JSONDecoder()


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `minute` counts from yesterday's midnight, None for ``now``; `who` is its label
    as long as nothing comes after, `finally_who` in the end; `session` is None where nothing is
    said, "" for none."""

    number: int
    minute: int | None
    dialect: str
    verb: str
    name: str
    fields: tuple[tuple[str, Any], ...]
    payload: dict[str, Any] | None
    answers: str
    who: str
    finally_who: str
    session: str | None

    def get(self, key: str) -> Any:
        """The first value of a field, None for none."""
        return next((value for name, value in self.fields if name == key), None)

    @property
    def copy_of(self) -> tuple[Any, ...] | None:
        """Equal for copies of one event, which only Nucleus tells apart, by an `id`."""
        if self.dialect != "nucleus" or self.get("id") is None:
            return None
        told = [self.get(key) for key in ("in", "deviceId", "machineId", "sessionId", "id")]
        return (self.minute, self.verb, self.name, json.dumps(self.payload), *told)


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One block. `turn` is "", "then" or "undo"."""

    title: str
    every_order: bool
    shared_user_ids: tuple[str, ...]
    before: tuple[Line, ...]
    turn: str
    after: tuple[Line, ...]
    merges: int | None
    profiles: dict[str, dict[str, Any]]
    identities: dict[str, frozenset[tuple[str, str]]]
    shared: frozenset[str] | None

    @property
    def lines(self) -> tuple[Line, ...]:
        return self.before + self.after


def scenarios(path: Path) -> list[Scenario]:
    """The scenarios of a page, in order. Raises ValueError for a line that cannot be read."""
    found: list[Scenario] = []
    heading = ""
    for match in _FENCE.finditer(path.read_text(encoding="utf-8")):
        if match[1] is not None:
            heading = match[1].lstrip("#").strip()
        else:
            earlier = sum(one.title.partition(" (")[0] == heading for one in found)
            title = f"{heading} ({earlier + 1})" if earlier else heading
            found.append(_scenario(title, match[2].strip(), match[3]))
    return found


def _scenario(title: str, says: str, block: str) -> Scenario:
    before: list[Line] = []
    after: list[Line] = []
    turn = ""
    merges = None
    profiles: dict[str, dict[str, Any]] = {}
    identities: dict[str, frozenset[tuple[str, str]]] = {}
    shared = None
    for number, text in enumerate(map(str.strip, block.splitlines()), 1):
        first = text.split(maxsplit=1)[0] if text else "#"
        if first.startswith("#"):
            continue
        if text in ("then", "undo"):
            turn = text
        elif first == "now" or _TIME(first):
            (after if turn else before).append(_line(number, text))
        elif first == "merges":
            merges = int(text.split()[1])
        elif first == "shared":
            shared = frozenset(one.strip() for one in text.split(None, 1)[1].split(","))
        elif first.endswith(":"):
            profiles[first[:-1]] = json.loads(text.partition(":")[2])
        elif " is " in text:
            who, _, listed = text.partition(" is ")
            pairs = [one.strip().partition(" ") for one in listed.split(",")]
            identities[who] = frozenset((namespace, value) for namespace, _, value in pairs)
        else:
            raise ValueError(f"{title}: {text!r}")
    named = re.search(r"shared_user_ids=(\S+)", says)
    return Scenario(
        title=title,
        every_order="in this order" not in says,
        shared_user_ids=tuple(named[1].split(",")) if named else (),
        before=tuple(before),
        turn=turn,
        after=tuple(after),
        merges=merges,
        profiles=profiles,
        identities=identities,
        shared=shared,
    )


def _line(number: int, text: str) -> Line:
    request, arrow, result = text.partition("→")
    who = _WHO(result.strip())
    at, dialect, rest = request.split(None, 2)
    if not arrow or who is None or dialect not in DIALECTS:
        raise ValueError(f"no request and its person: {text!r}")
    session = who[2]
    words, fields, payload, answers, name = _tokens(rest)
    return Line(
        number=number,
        minute=_minute(at),
        dialect=dialect,
        verb=words[0],
        name=name,
        fields=tuple(fields),
        payload=payload,
        answers=answers,
        who=who[1],
        finally_who=who[3] or who[1],
        session=None if session is None else session.removeprefix("no session")[8:],
    )


def _minute(at: str) -> int | None:
    match = _TIME(at)
    if match is None:
        return None
    return int(match[1]) * 60 + int(match[2]) + int(match[3] or 0) * _DAY_MINUTES


def _tokens(
    text: str,
) -> tuple[list[str], list[tuple[str, Any]], dict[str, Any] | None, str, str]:
    """Words, fields, payload, answer and name, in any order."""
    words: list[str] = []
    fields: list[tuple[str, Any]] = []
    payload = None
    answers = name = ""
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] == "{":
            payload, at = _decoder.raw_decode(text, at)
        elif text[at] == '"':
            name, at = _decoder.raw_decode(text, at)
        elif match := _KEY.match(text, at):
            at = match.end()
            if match[2] or text[at : at + 1] == '"':
                value, at = _decoder.raw_decode(text, at)
            else:
                value, at = _word(text, at)
            fields.append((match[1], value))
        else:
            word, at = _word(text, at)
            if word == "answers":
                answers, at = _word(text, at + 1)
            else:
                words.append(word)
    if len(words) != 1:
        raise ValueError(f"expected one verb: {text!r}")
    return words, fields, payload, answers, name


def _word(text: str, at: int) -> tuple[str, int]:
    match = _WORD.match(text, at)
    if match is None:
        raise ValueError(f"expected a word: {text[at:]!r}")
    return match[0], match.end()
