"""Which events a question is about: a stretch of time, and conditions that must all hold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from headwater import limits
from headwater.errors import WrongUse
from headwater.store.questions.fields import TIMES, Field, as_number, field, literal

OPERATORS = (
    "is", "is_not", "contains", "contains_not", "starts", "greater", "less", "set", "not_set"
)  # fmt: skip
_WITHOUT_VALUES = ("set", "not_set")
#: Years that a question may be about: what the store's own times can hold, with room for a day.
_YEARS = range(1971, 2290)


class Filter(msgspec.Struct, frozen=True):
    """One condition. Of several values one must fit; for ``is_not`` and ``contains_not``, none may.

    `greater` and `less` compare numbers where the value is one, else texts; what is not set is
    never greater, less, or equal, and always "not"."""

    field: str
    operator: str
    values: tuple[str, ...] = ()

    def sql(self) -> str:
        """The condition, true or false, never NULL. Raises WrongUse."""
        if self.operator not in _WITHOUT_VALUES and not self.values:
            raise WrongUse(f"{self.field} {self.operator} what?", remedy="give a value")
        if len(self.values) > limits.explore_values_max:
            raise WrongUse(
                f"more than {limits.explore_values_max} values in one condition",
                remedy="use contains or starts",
            )
        found = field(self.field)
        match self.operator:
            case "set":
                return f"{_text(found)} != ''"
            case "not_set":
                return f"{_text(found)} = ''"
            case "is":
                return _certain(found, _equal(found, self.values))
            case "is_not":
                return f"NOT {_certain(found, _equal(found, self.values))}"
            case "contains":
                return _certain(found, _containing(found, self.values))
            case "contains_not":
                return f"NOT {_certain(found, _containing(found, self.values))}"
            case "starts":
                starting = (f"startsWith({found.sql}, {literal(value)})" for value in self.values)
                return _certain(found, " OR ".join(starting))
            case "greater":
                return _compared(found, ">", self.values)
            case "less":
                return _compared(found, "<", self.values)
            case _:
                raise WrongUse(
                    f'no condition "{self.operator[:80]}"', remedy=f"use {', '.join(OPERATORS)}"
                )


class Period(msgspec.Struct, frozen=True):
    """From `since` until before `until`, both with a time zone, by the time of `column`."""

    since: datetime
    until: datetime
    column: str = "received_at"

    @property
    def before(self) -> Period:
        """The stretch of the same length that ends where this begins."""
        return Period(self.since - (self.until - self.since), self.since, self.column)

    def sql(self) -> str:
        """The condition. Raises WrongUse."""
        if self.column not in TIMES:
            raise WrongUse(f'no time "{self.column[:80]}"', remedy=f"use {' or '.join(TIMES)}")
        if self.since >= self.until:
            raise WrongUse("the stretch of time has no length", remedy="let it end after it begins")
        if self.since.year not in _YEARS or self.until.year not in _YEARS:
            raise WrongUse(
                f"from {self.since:%Y} to {self.until:%Y} is more than there is",
                remedy="ask for a shorter time",
            )
        return f"{self.column} >= {instant(self.since)} AND {self.column} < {instant(self.until)}"


def instant(at: datetime) -> str:
    """A moment as a literal of SQL."""
    text = at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f").removesuffix(".000000")
    return f"toDateTime64('{text}', 6, 'UTC')"


def conditions(filters: Sequence[Filter]) -> list[str]:
    """The conditions of some filters, each in parentheses where it must be. Raises WrongUse."""
    if len(filters) > limits.explore_filters_max:
        raise WrongUse(
            f"more than {limits.explore_filters_max} conditions", remedy="leave some out"
        )
    return [one.sql() for one in filters]


def where(period: Period, filters: Sequence[Filter], *more: str) -> str:
    """What stands behind WHERE. Raises WrongUse."""
    return " AND ".join([period.sql(), *conditions(filters), *more])


def _text(found: Field) -> str:
    return f"ifNull({found.sql}, '')" if found.nullable else found.sql


def _certain(found: Field, condition: str) -> str:
    return f"ifNull({condition}, false)" if found.nullable else f"({condition})"


def _equal(found: Field, values: Sequence[str]) -> str:
    if len(values) == 1:
        return f"{found.sql} = {literal(values[0])}"
    return f"{found.sql} IN ({', '.join(literal(value) for value in values)})"


def _containing(found: Field, values: Sequence[str]) -> str:
    return " OR ".join(f"position({found.sql}, {literal(value)}) > 0" for value in values)


def _compared(found: Field, sign: str, values: Sequence[str]) -> str:
    parts = []
    for value in values:
        number = as_number(value)
        if number is None:
            parts.append(f"{found.sql} {sign} {literal(value)}")
        else:
            parts.append(f"{found.number()} {sign} {number!r}")
    # A text that is no number is NULL here, whatever the field.
    return f"ifNull({' OR '.join(parts)}, false)"
