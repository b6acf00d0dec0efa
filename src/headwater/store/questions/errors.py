"""Errors that clients report (Nucleus), grouped by type, message and the frame at the top.

The frame is the place where it was thrown: the first line of a JavaScript or Java stack that
begins with "at", the first of Firefox's and Safari's `function@file:line:column`, the last "File"
line of a Python traceback; else the stack's last line that says anything.
"""

from __future__ import annotations

import re

import msgspec

from headwater import limits
from headwater.errors import WrongUse
from headwater.store.questions.explore import beginning, unit_of
from headwater.store.questions.fields import field, literal
from headwater.store.questions.filters import Filter, Period, where

_ID = re.compile(r"[0-9a-f]{32}")
#: Of type, message and frame.
_ID_SQL = "lower(hex(sipHash128(type, message, frame)))"
#: In RE2, where `.` takes line ends here.
_FRAMES = (
    r"extract(stack, {})".format(literal(r"(?m)^[ \t]*at ([^\n]*[^\s])")),
    r"extract(stack, {})".format(literal(r"(?m)^([^\n ]*@[^\n]+:[0-9]+)\s*$")),
    r"extractAll(stack, {})[-1]".format(
        literal(r'File "[^\n"]*", line [0-9]+(?:, in [^\n]*[^\s])?')
    ),
    r"extractAll(stack, {})[-1]".format(literal(r"[^\n]*[^\s]")),
)


class Errors(msgspec.Struct, frozen=True, kw_only=True):
    """The errors of a period."""

    period: Period
    filters: tuple[Filter, ...] = ()
    limit: int = 100


def errors(asked: Errors) -> str:
    """The groups, largest first. Columns: `error` (the group's id), `type`, `message`, `frame`,
    `events`, `people`, `sessions`, `first`, `last`, `sample` (the event_id of the last). Raises
    WrongUse."""
    if not 1 <= asked.limit <= limits.explore_top_max:
        raise WrongUse(
            f"1 to {limits.explore_top_max} groups, not {asked.limit}", remedy="ask for fewer"
        )
    return f"""SELECT
    {_ID_SQL} AS error,
    type, message, frame,
    count() AS events,
    uniqExact(person_id) AS people,
    uniqExact(session_id) AS sessions,
    min(at) AS first,
    max(at) AS last,
    argMax(event_id, (at, event_id)) AS sample
FROM (
{_framed(asked.period, asked.filters)}
)
GROUP BY type, message, frame
ORDER BY events DESC, last DESC, error
LIMIT {asked.limit}"""  # noqa: S608


def samples(asked: Errors, error: str) -> str:
    """The last errors of one group, as columns `event_id`, `received_at`, `occurred_at`, `account`,
    `scope`, `type`, `message`, `frame`, `stack`, `person_id`, `session_id`, `properties`,
    `context`. Raises WrongUse."""
    kept = "received_at, occurred_at, account, scope, properties, context"
    return f"""SELECT event_id, received_at, occurred_at, account, scope, type, message, frame,
    stack, person_id, session_id, properties, context
FROM (
{_framed(asked.period, asked.filters, kept)}
)
WHERE {_of(error)}
ORDER BY at DESC, event_id DESC
LIMIT {asked.limit}"""  # noqa: S608


def errors_over_time(asked: Errors, error: str, *, unit: str = "", zone: str = "UTC") -> str:
    """One group over time: columns `unit`, `events`, `people`. Raises WrongUse."""
    at = beginning(unit_of(asked.period, unit), "at", zone)
    return f"""SELECT {at} AS unit, count() AS events, uniqExact(person_id) AS people
FROM (
{_framed(asked.period, asked.filters)}
)
WHERE {_of(error)}
GROUP BY unit
ORDER BY unit"""  # noqa: S608


def errors_by(asked: Errors, error: str, by: str) -> str:
    """One group by a field: columns `value` (NULL where it is not set), `events`, `people`. Raises
    WrongUse."""
    return f"""SELECT found AS value, count() AS events, uniqExact(person_id) AS people
FROM (
{_framed(asked.period, asked.filters, f"{field(by).sql} AS found")}
)
WHERE {_of(error)}
GROUP BY value
ORDER BY events DESC, value
LIMIT {asked.limit}"""  # noqa: S608


def _of(error: str) -> str:
    if not _ID.fullmatch(error):
        raise WrongUse("no group of errors has such an id", remedy="take one from /api/errors")
    return f"{_ID_SQL} = '{error}'"


def _framed(period: Period, filters: tuple[Filter, ...], kept: str = "") -> str:
    """The error events, taken apart."""
    frames = ",\n            ".join(f"nullIf({frame}, '')" for frame in _FRAMES)
    return f"""    SELECT toString(name) AS type,
        ifNull({field("properties.message").sql}, '') AS message,
        ifNull({field("properties.stack").sql}, '') AS stack,
        coalesce(
            {frames},
            '') AS frame,
        {period.column} AS at, event_id, person_id, session_id{", " if kept else ""}{kept}
    FROM events
    WHERE {where(period, filters, "kind = 'error'")}"""  # noqa: S608
