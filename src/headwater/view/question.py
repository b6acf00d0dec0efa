"""What all questions about events take from the address bar: which events, from when to when."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import msgspec

from headwater.clock import Clock
from headwater.errors import WrongUse
from headwater.store.questions import explore as questions
from headwater.store.questions.fields import TIMES
from headwater.store.questions.filters import Filter, Period
from headwater.view.access import Who
from headwater.view.api import Ask

_RANGE = re.compile(r"([1-9][0-9]{0,4})(min|h|d|w)")
_MINUTES = {"min": 1, "h": 60, "d": 1_440, "w": 10_080}
_ZONE = re.compile(r"[A-Za-z0-9_+/-]{1,64}")
_FILTER = '["name","is","order"]'


class Which(msgspec.Struct):
    """`range` is a time until now (``90min``, ``24h``, ``7d``, ``8w``), or ``all``; "" is the
    question's own, or all of it where nothing came in that. `since` and `until` (ISO 8601, UTC
    where no offset is given) count before it. `time` is the column that decides, received_at or
    occurred_at; `zone` the reader's time zone by its IANA name. Each `where` is a condition as a
    JSON list: field, operator, values."""

    range: str = ""
    since: str = ""
    until: str = ""
    time: str = "received_at"
    zone: str = "UTC"
    account: str = ""
    where: list[str] = []

    def filters(self) -> tuple[Filter, ...]:
        """The conditions, the account's among them. Raises WrongUse."""
        found = [condition(text) for text in self.where]
        if self.account:
            found.insert(0, Filter("account", "is", (self.account,)))
        return tuple(found)

    def zone_name(self) -> str:
        """The time zone. Raises WrongUse."""
        if not _ZONE.fullmatch(self.zone):
            raise WrongUse(f'no time zone "{self.zone[:64]}"', remedy="use Europe/Vienna or UTC")
        return self.zone


def period_of(asked: Which, usual: timedelta, *, ask: Ask, who: Who, clock: Clock) -> Period:
    """From when to when. `usual` is the question's own length; where no event is in that, it is as
    long as there are any. Raises WrongUse."""
    if asked.time not in TIMES:
        raise WrongUse(f'no time "{asked.time[:80]}"', remedy=f"use {' or '.join(TIMES)}")
    now = datetime.fromtimestamp(clock() / 1_000_000, UTC)
    until = _moment(asked.until) if asked.until else now
    if asked.since:
        return Period(_moment(asked.since), until, asked.time)
    if asked.range not in ("", "all"):
        return Period(until - _length(asked.range), until, asked.time)
    account = (Filter("account", "is", (asked.account,)),) if asked.account else ()
    ((first, last, events),) = ask(questions.span(account, asked.time), who).rows
    if not events:
        return Period(until - usual, until, asked.time)
    first_at, last_at = _moment(first), _moment(last)
    if asked.range == "" and last_at >= until - usual:
        return Period(until - usual, until, asked.time)
    if asked.range == "" or last_at >= until:
        until = last_at + timedelta(microseconds=1)
    return Period(min(first_at, until - timedelta(seconds=1)), until, asked.time)


def condition(text: str) -> Filter:
    """A condition as the address bar has it. Raises WrongUse."""
    return filter_of(listed(text, "a condition", _FILTER))


def filter_of(parts: object) -> Filter:
    """A condition as a list of texts. Raises WrongUse."""
    try:
        field, operator, *values = msgspec.convert(parts, list[str])
    except ValueError:  # not texts, or fewer than two
        raise WrongUse(
            "a condition is a list of texts: field, operator, values", remedy=f"as in {_FILTER}"
        ) from None
    return Filter(field, operator, tuple(values))


def listed(text: str, what: str, example: str) -> list[object]:
    """A JSON list. Raises WrongUse."""
    try:
        return msgspec.json.decode(text, type=list[object])
    except ValueError:
        raise WrongUse(f"{what} is a JSON list: {text[:80]}", remedy=f"as in {example}") from None


def _length(text: str) -> timedelta:
    found = _RANGE.fullmatch(text)
    if found is None:
        raise WrongUse(f'no length of time "{text[:80]}"', remedy="use 90min, 24h, 7d, 8w or all")
    return timedelta(minutes=int(found[1]) * _MINUTES[found[2]])


def _moment(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise WrongUse(f'no time "{text[:80]}"', remedy="use 2026-11-21T09:30:00Z") from None
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        raise WrongUse(f'no time "{text[:80]}"', remedy="use a year of ours") from None
