"""Figures over time and the largest groups: what the Explore page asks.

All figures are exact: people and sessions are counted with `uniqExact`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, get_args

import msgspec

from headwater import limits
from headwater.errors import WrongUse
from headwater.store.questions.fields import Field, few, field, literal
from headwater.store.questions.filters import Filter, Period, conditions, instant, where

Unit = Literal["minute", "hour", "day", "week", "month"]
UNITS: tuple[str, ...] = get_args(Unit)
#: The longest stretch that is shown in each unit when none is asked for: some 100 points.
_LONGEST = (
    (timedelta(hours=3), "minute"),
    (timedelta(days=4), "hour"),
    (timedelta(days=100), "day"),
    (timedelta(days=750), "week"),
)
#: The beginning of the unit that a moment lies in, in a time zone: a moment; from a day on, a day.
_BEGINNING = {
    "minute": "toStartOfMinute({}, {})",
    "hour": "toStartOfHour({}, {})",
    "day": "toDate({}, {})",
    "week": "toMonday({}, {})",
    "month": "toStartOfMonth({}, {})",
}
#: Seconds that are shorter than the unit ever is, so that a walk in these steps misses none. (An
#: hour can be a half one where the clock is put back by 30 minutes.)
_STEP_SECONDS = {"minute": 60, "hour": 1_800, "day": 43_200, "week": 345_600, "month": 2_000_000}

_OF_EVENTS = {
    "events": ("", "count()"),
    "people": ("person_id", "uniqExact(person_id)"),
    "sessions": ("session_id", "uniqExact(session_id)"),
}
_OF_FIELD = {
    "values": "uniqExact({})",
    "sum": "ifNull(sum({}), 0)",
    "average": "avg({})",
    "median": "quantileExact(0.5)({})",
    "least": "min({})",
    "greatest": "max({})",
}
MEASURES = (*_OF_EVENTS, *_OF_FIELD)


class Measure(msgspec.Struct, frozen=True):
    """What is counted; `of` is the field of those that count a field's values."""

    name: str = "events"
    of: str = ""

    def sql(self) -> str:
        """An aggregate. Raises WrongUse."""
        if self.name in _OF_EVENTS:
            return _OF_EVENTS[self.name][1]
        number = self._field()
        return _OF_FIELD[self.name].format(number)

    def split(self) -> tuple[str, str]:
        """The same in two steps: the column that an inner query gives (or ""), and the aggregate
        over it. Raises WrongUse."""
        if self.name in _OF_EVENTS:
            return _OF_EVENTS[self.name]
        number = self._field()
        return f"{number} AS figure", _OF_FIELD[self.name].format("figure")

    def _field(self) -> str:
        if self.name not in _OF_FIELD:
            raise WrongUse(f'no figure "{self.name[:80]}"', remedy=f"use {', '.join(MEASURES)}")
        if not self.of:
            raise WrongUse(f"the {self.name} of what?", remedy="name a field")
        found = field(self.of)
        return found.sql if self.name == "values" else found.number()

    @property
    def adds_up(self) -> bool:
        """Whether the whole is the sum of its parts."""
        return self.name in ("events", "sum")


class Explore(msgspec.Struct, frozen=True, kw_only=True):
    """Figures over time. `zone` is the reader's time zone by its IANA name; `by` a field, or "" for
    one line; the `series` largest values of it get lines of their own, or those in `shown`."""

    period: Period
    unit: str = ""
    zone: str = "UTC"
    measure: Measure = Measure()
    by: str = ""
    filters: tuple[Filter, ...] = ()
    series: int = 8
    shown: tuple[str, ...] | None = None


def unit_of(period: Period, unit: str = "") -> str:
    """`unit`, or what suits the length of the period. Raises WrongUse for too many points."""
    length = period.until - period.since
    unit = unit or next((name for most, name in _LONGEST if length <= most), "month")
    if unit not in UNITS:
        raise WrongUse(f'no unit "{unit[:80]}"', remedy=f"use {', '.join(UNITS)}")
    if length.total_seconds() / _STEP_SECONDS[unit] > 2 * limits.explore_buckets_max:
        raise WrongUse(
            f"more than {limits.explore_buckets_max} points in a line",
            remedy="use a longer unit or a shorter time",
        )
    return unit


def beginning(unit: str, moment: str, zone: str) -> str:
    """Which unit a moment, an expression, lies in."""
    return _BEGINNING[unit].format(moment, literal(zone))


def buckets(period: Period, unit: str, zone: str) -> str:
    """All units that a period touches, in order, with or without events: one column `at`."""
    unit = unit_of(period, unit)
    seconds = int((period.until - period.since).total_seconds())
    step = _STEP_SECONDS[unit]
    last = period.until - timedelta(microseconds=1)
    walk = f"addSeconds({instant(period.since)}, number * {step})"
    moment = f"least({walk}, {instant(last)})"
    return (
        f"SELECT DISTINCT {beginning(unit, moment, zone)} AS at\n"
        f"FROM numbers({seconds // step + 2})\n"
        "ORDER BY at"
    )


def over_time(asked: Explore) -> str:
    """Columns: `at`; with `by`, `value` (NULL where it is not set) and `other` (1 in the line of
    all values that have no line of their own); and the figure, under the measure's name.
    Raises WrongUse."""
    period, name = asked.period, asked.measure.name
    figure = asked.measure.sql()
    at = beginning(unit_of(period, asked.unit), period.column, asked.zone)
    among = where(period, asked.filters)
    if not asked.by:
        return (
            f"SELECT {at} AS at, {figure} AS {name}\n"
            f"FROM events\nWHERE {among}\n"
            "GROUP BY at\nORDER BY at"
        )
    by = field(asked.by)
    if few(asked.by):
        return (
            f"SELECT {at} AS at, {by.sql} AS value, 0 AS other, {figure} AS {name}\n"
            f"FROM events\nWHERE {among}\n"
            "GROUP BY at, value\nORDER BY at, value"
        )
    if not 1 <= asked.series <= limits.explore_series_max:
        raise WrongUse(
            f"1 to {limits.explore_series_max} lines, not {asked.series}", remedy="ask for fewer"
        )
    if asked.measure.adds_up and asked.shown is None:
        return _ranked(asked, at, by, among)
    column, whole = asked.measure.split()
    inner = f"{at} AS at, {by.sql} AS found{', ' if column else ''}{column}"
    if asked.shown is None:
        shown = f"""(
    SELECT groupArray(value)
    FROM (
        SELECT {by.sql} AS value, {figure} AS {name}
        FROM events
        WHERE {among} AND value IS NOT NULL
        GROUP BY value
        ORDER BY {name} DESC, value
        LIMIT {asked.series}
    )
)"""  # noqa: S608
    else:
        values = ", ".join(literal(value) for value in asked.shown)
        shown = f"CAST([{values}], 'Array(String)')"
    return f"""WITH {shown} AS shown
SELECT at, if(has(shown, found), found, NULL) AS value,
    found IS NOT NULL AND NOT has(shown, found) AS other, {whole} AS {name}
FROM (
    SELECT {inner}
    FROM events
    WHERE {among}
)
GROUP BY at, value, other
ORDER BY at, other, value"""  # noqa: S608


def _ranked(asked: Explore, at: str, by: Field, among: str) -> str:
    """The same in one reading, for a figure that adds up: what has no line is added together."""
    name = asked.measure.name
    return f"""SELECT at, if(place <= {asked.series}, found, NULL) AS value,
    found IS NOT NULL AND place > {asked.series} AS other, sum(part) AS {name}
FROM (
    SELECT at, found, part, dense_rank() OVER (ORDER BY found IS NULL, whole DESC, found) AS place
    FROM (
        SELECT at, found, part, sum(part) OVER (PARTITION BY found) AS whole
        FROM (
            SELECT {at} AS at, {by.sql} AS found, {asked.measure.sql()} AS part
            FROM events
            WHERE {among}
            GROUP BY at, found
        )
    )
)
GROUP BY at, value, other
ORDER BY at, other, value"""  # noqa: S608


def total(asked: Explore) -> str:
    """The same figure over the whole period: of people not the sum, for many come again."""
    figure = asked.measure.sql()
    among = where(asked.period, asked.filters)
    return f"SELECT {figure} AS {asked.measure.name}\nFROM events\nWHERE {among}"


class Top(msgspec.Struct, frozen=True, kw_only=True):
    """The largest groups by a field."""

    period: Period
    by: str
    measure: Measure = Measure()
    filters: tuple[Filter, ...] = ()
    limit: int = 10
    set_only: bool = False


def top(asked: Top) -> str:
    """Columns: `value` (NULL where it is not set), the figure, and `events`. With `set_only`, only
    events that have the field. Raises WrongUse."""
    if not 1 <= asked.limit <= limits.explore_top_max:
        raise WrongUse(
            f"1 to {limits.explore_top_max} groups, not {asked.limit}", remedy="ask for fewer"
        )
    by, name = field(asked.by), asked.measure.name
    figures = "count() AS events"
    if name != "events":
        figures = f"{asked.measure.sql()} AS {name}, {figures}"
    more = ["value IS NOT NULL"] if asked.set_only else []
    among = where(asked.period, asked.filters, *more)
    return (
        f"SELECT {by.sql} AS value, {figures}\n"
        f"FROM events\nWHERE {among}\n"
        f"GROUP BY value\nORDER BY {name} DESC, value\nLIMIT {asked.limit}"
    )


def span(filters: tuple[Filter, ...] = (), column: str = "received_at") -> str:
    """When the first and the last event came: columns `first`, `last`, `events`."""
    found = conditions(filters)
    among = f"\nWHERE {' AND '.join(found)}" if found else ""
    figures = f"min({column}) AS first, max({column}) AS last, count() AS events"
    return f"SELECT {figures}\nFROM events{among}"


def names(period: Period, filters: tuple[Filter, ...] = ()) -> str:
    """What events are called: columns `dialect`, `name`, `kind`, `events`, `last`."""
    return (
        "SELECT dialect, name, any(kind) AS kind, count() AS events, "
        f"max({period.column}) AS last\n"
        f"FROM events\nWHERE {where(period, filters)}\n"
        f"GROUP BY dialect, name\nORDER BY events DESC, name\nLIMIT {limits.explore_top_max}"
    )


def paths(period: Period, filters: tuple[Filter, ...] = ()) -> str:
    """The paths of properties and context, of a bounded sample: columns `field`, `types`, and in
    how many of the `sample` events it was."""
    pairs = [
        f"arrayMap((path, type) -> (concat('{column}.', path), type),\n"
        f"            mapKeys(JSONAllPathsWithTypes({column})),\n"
        f"            mapValues(JSONAllPathsWithTypes({column})))"
        for column in ("properties", "context")
    ]
    sample = (
        f"SELECT arrayConcat(\n        {pairs[0]},\n        {pairs[1]}) AS found\n"  # noqa: S608
        f"    FROM events\n    WHERE {where(period, filters)}\n"
        f"    LIMIT {limits.explore_sample_events_max}"
    )
    return (
        "SELECT one.1 AS field, arraySort(groupUniqArray(one.2)) AS types, count() AS events\n"
        f"FROM (\n    {sample}\n)\n"
        "ARRAY JOIN found AS one\n"
        f"GROUP BY field\nORDER BY events DESC, field\nLIMIT {limits.explore_top_max}"
    )
