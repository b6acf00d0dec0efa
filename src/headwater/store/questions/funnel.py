"""How many people take some steps in order, how long they take, and where they stop.

A person has taken steps 1 to n if there are n different events of theirs, each fitting its step,
none before the one in front of it, and the last at most the window after the first. Events of the
same microsecond count in the order of the steps that they fit.

How it is found: each person's fitting events lie in an array in order. For one step after the
other, each event that fits step n is joined to the chain of the n-1 steps before it that began
last, if it is still within the window: a later beginning can only help. `arrayFill` hands that
chain on to all later events, so the whole is linear in the number of events. (`windowFunnel` finds
the same people, as fast, but no times.) A person's own times are those of the first chain that gets
as far as the person ever gets.
"""

from __future__ import annotations

import msgspec

from headwater import limits
from headwater.errors import WrongUse
from headwater.store.questions.fields import field, literal
from headwater.store.questions.filters import Filter, Period, conditions, where


class Step(msgspec.Struct, frozen=True):
    """Events of a name ("" for any) that fit all filters."""

    name: str
    filters: tuple[Filter, ...] = ()

    def sql(self) -> str:
        """The condition. Raises WrongUse."""
        named = [f"name = {literal(self.name)}"] if self.name else []
        return " AND ".join([*named, *conditions(self.filters)]) or "true"


class Funnel(msgspec.Struct, frozen=True, kw_only=True):
    """`window_seconds` is how long the whole may take. `by` is a field of the person's first event
    that fits step 1, or "": the `groups` largest are told apart."""

    period: Period
    steps: tuple[Step, ...]
    window_seconds: int = 7 * 86_400
    filters: tuple[Filter, ...] = ()
    by: str = ""
    groups: int = 10


def funnel(asked: Funnel) -> str:
    """Columns: with `by`, `value` (NULL where it is not set); `step` from 1; `people` who got that
    far; `of_first` and `of_before`, their share of those of the first step and of the step before,
    NULL where there were none; `dropped`, who got to the step before and no further;
    `median_seconds` from the step before, NULL for the first and where nobody came. A row for every
    step, none where nobody took the first; largest groups first. Raises WrongUse."""
    count = len(asked.steps)
    if not 2 <= count <= limits.funnel_steps_max:
        raise WrongUse(
            f"a funnel has 2 to {limits.funnel_steps_max} steps, not {count}",
            remedy="add or remove some",
        )
    longest = limits.funnel_window_days_max * 86_400
    if not 1 <= asked.window_seconds <= longest:
        raise WrongUse(
            f"a window has 1 to {longest} seconds", remedy="use the longest, to have none"
        )
    if not 1 <= asked.groups <= limits.explore_series_max:
        raise WrongUse(
            f"1 to {limits.explore_series_max} groups, not {asked.groups}", remedy="ask for fewer"
        )
    value = "value, " if asked.by else ""
    of_value = "PARTITION BY value " if asked.by else ""
    largest = "max(people) OVER (PARTITION BY value) DESC, value, " if asked.by else ""
    bound = f"\nLIMIT {asked.groups * count}" if asked.by else ""
    return f"""SELECT {value}step, people,
    people / nullIf(first_value(people) OVER in_order, 0) AS of_first,
    if(step = 1, NULL, people / nullIf(lagInFrame(people) OVER in_order, 0)) AS of_before,
    if(step = 1, 0, lagInFrame(people) OVER in_order - people) AS dropped,
    median_seconds
FROM (
    SELECT {value}step, countIf(length(times) >= step) AS people,
        quantileExactIfOrNull(0.5)(
            times[step] - times[step - 1], step > 1 AND length(times) >= step) / 1000000
            AS median_seconds
    FROM (
        {_people(asked)}
    )
    ARRAY JOIN range(1, {count + 1}) AS step
    GROUP BY {value}step
)
WINDOW in_order AS ({of_value}ORDER BY step ROWS UNBOUNDED PRECEDING)
ORDER BY {largest}step{bound}"""  # noqa: S608


def _people(asked: Funnel) -> str:
    """Each person who took the first step, and when they took the steps that they took."""
    value = "value, " if asked.by else ""
    furthest = ", ".join(f"chain_{n}" for n in range(len(asked.steps), 0, -1))
    return f"""SELECT {value}arrayFirst(chain -> notEmpty(chain), [{furthest}]) AS times
        FROM (
            SELECT
                {_value(asked)}arraySort(groupArray((at, first, fits))) AS in_order,
                in_order.1 AS ats,
                in_order.3 AS all_fits,
                {_chains(asked)}
            FROM (
                {_events(asked)}
            )
            GROUP BY person
        )
        WHERE notEmpty(chain_1)"""  # noqa: S608


def _value(asked: Funnel) -> str:
    if not asked.by:
        return ""
    return (
        "argMinIf(tuple(found), (at, first, fits), bitTest(fits, 0)).1 AS value,\n                "
    )


def _events(asked: Funnel) -> str:
    """The events that fit a step: whose, when, the first step that each fits, and all as bits."""
    steps = [f"({step.sql()})" for step in asked.steps]
    first = ", ".join(f"{step}, {n}" for n, step in enumerate(steps[:-1], 1))
    fits = " + ".join(f"{1 << n} * {step}" for n, step in enumerate(steps))
    found = f",\n                    {field(asked.by).sql} AS found" if asked.by else ""
    return f"""SELECT assumeNotNull(person_id) AS person,
                    toUnixTimestamp64Micro({asked.period.column}) AS at,
                    toUInt8(multiIf({first}, {len(steps)})) AS first,
                    toUInt16({fits}) AS fits{found}
                FROM events
                WHERE {where(asked.period, asked.filters, "person_id IS NOT NULL")}
                    AND ({" OR ".join(steps)})"""  # noqa: S608


def _chains(asked: Funnel) -> str:
    """For each event in order the times of the chain that ends there, [] for none; and the first
    such chain."""
    window = asked.window_seconds * 1_000_000
    parts = [
        "arrayMap((at, fits) -> if(bitTest(fits, 0), [at], []), ats, all_fits) AS chains_1,\n"
        "                arrayFirst(chain -> notEmpty(chain), chains_1) AS chain_1"
    ]
    for n in range(2, len(asked.steps) + 1):
        parts.append(
            f"arrayPopBack(arrayPushFront(arrayFill(chain -> notEmpty(chain), chains_{n - 1}), []))"
            f" AS before_{n},\n"
            f"                arrayMap((at, fits, chain) -> if(bitTest(fits, {n - 1})"
            f" AND notEmpty(chain) AND at - chain[1] <= {window}, arrayPushBack(chain, at), []),\n"
            f"                    ats, all_fits, before_{n}) AS chains_{n},\n"
            f"                arrayFirst(chain -> notEmpty(chain), chains_{n}) AS chain_{n}"
        )
    return ",\n                ".join(parts)
