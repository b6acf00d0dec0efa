"""Who comes back: people by the day, week or month in which they began, and in which later ones
they were there again.

A person begins with their first event that fits `start`; with `ever`, with the first of all time,
so that who began before the period is not in it. They are back in a later unit if an event of
theirs in it fits `back`. In the unit in which they began, everybody is there.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, get_args

import msgspec

from headwater import limits
from headwater.errors import WrongUse
from headwater.store.questions.explore import beginning
from headwater.store.questions.fields import literal
from headwater.store.questions.filters import Filter, Period, conditions, instant
from headwater.store.questions.funnel import Step

RetentionUnit = Literal["day", "week", "month"]
RETENTION_UNITS: tuple[str, ...] = get_args(RetentionUnit)
_SHORTEST = {"day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=28)}


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """`filters` hold for every event; `start` and `back` say which of them count as what. The
    period counts from the beginning of the unit in which it begins."""

    period: Period
    unit: str = "week"
    zone: str = "UTC"
    start: Step = Step("")
    back: Step = Step("")
    filters: tuple[Filter, ...] = ()
    ever: bool = True


def retention(asked: Retention) -> str:
    """Columns: `cohort`, the day with which the unit begins; `after`, how many units later (0 for
    the cohort itself); `people`. Only where there are some. Raises WrongUse."""
    period, unit = asked.period, asked.unit
    if unit not in RETENTION_UNITS:
        raise WrongUse(f'no unit "{unit[:80]}"', remedy=f"use {', '.join(RETENTION_UNITS)}")
    if (period.until - period.since) / _SHORTEST[unit] > limits.retention_periods_max:
        raise WrongUse(
            f"more than {limits.retention_periods_max} {unit}s",
            remedy="use a longer unit or a shorter time",
        )
    period.sql()  # raises what is wrong with the period
    column = period.column
    starts, comes = asked.start.sql(), asked.back.sql()
    since = (
        f"toDateTime({beginning(unit, instant(period.since), asked.zone)}, {literal(asked.zone)})"
    )
    among = [
        *([] if asked.ever else [f"{column} >= {since}"]),
        f"{column} < {instant(period.until)}",
        "person_id IS NOT NULL",
        *conditions(asked.filters),
    ]
    if "true" not in (starts, comes):
        among.append(f"(({starts}) OR ({comes}))")
    first = beginning(unit, instant(period.since), asked.zone)
    nth = f"greatest(dateDiff('{unit}', {first}, {beginning(unit, column, asked.zone)}) + 1, 0)"
    seen = f"bitShiftLeft(toUInt64(1), {nth})"
    return f"""SELECT add{unit.capitalize()}s({first}, began - 1) AS cohort, there - began AS after,
    sum(persons) AS people
FROM (
    SELECT bitPositionsToArray(started)[1] AS began, count() AS persons,
        arrayFilter(nth -> nth > began, bitPositionsToArray(came)) AS later,
        arrayPushFront(later, began) AS all_there
    FROM (
        SELECT assumeNotNull(person_id) AS person,
            {_units(starts, seen)} AS started,
            {"started" if comes == starts else _units(comes, seen)} AS came
        FROM events
        WHERE {" AND ".join(among)}
        GROUP BY person
    )
    WHERE started != 0 AND NOT bitTest(started, 0)
    GROUP BY started, came
)
ARRAY JOIN all_there AS there
GROUP BY cohort, after
ORDER BY cohort, after"""  # noqa: S608


def _units(condition: str, seen: str) -> str:
    """The units with an event that fits, as bits: one number a person, however many events."""
    return f"groupBitOr({seen if condition == 'true' else f'if({condition}, {seen}, 0)'})"
