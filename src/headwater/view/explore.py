"""Explore: figures over time, the largest groups, funnels, retention and errors, for the API.

Every figure comes from SQL that the answer carries. Parameters are those of the address bar, so
that every chart is a link.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec

from headwater.clock import Clock
from headwater.errors import NotFound, WrongUse
from headwater.store.questions import errors as errors_questions
from headwater.store.questions import explore as questions
from headwater.store.questions.explore import MEASURES, UNITS, Measure
from headwater.store.questions.fields import IDS, SHORT, TEXTS
from headwater.store.questions.filters import OPERATORS, Filter, Period
from headwater.store.questions.funnel import Funnel, Step, funnel
from headwater.store.questions.retention import RETENTION_UNITS, Retention, retention
from headwater.view.access import Who
from headwater.view.api import Answer, Ask, Asked, Endpoint
from headwater.view.question import Which, filter_of, listed, period_of

_DAY, _WEEK = timedelta(days=1), timedelta(days=7)
_STEP = '["order",["properties.plan","is","pro"]]'


class OverTime(Which):
    """`measure` is events, people, sessions, or with a field `of`: values, sum, average, median,
    least, greatest. `by` tells the `series` largest values of a field apart. `unit` "" is what
    suits the time; `compare` adds the period before, with the same
    lines."""

    measure: str = "events"
    of: str = ""
    by: str = ""
    unit: str = ""
    series: int = 8
    compare: bool = False


class Largest(Which):
    """The largest groups by a field; `contains` narrows its values, `set_only` leaves out events
    without it."""

    by: str = "name"
    measure: str = "events"
    of: str = ""
    limit: int = 10
    contains: str = ""
    set_only: bool = False


class Suggested(Which):
    """`name` narrows the paths of properties to events of that name."""

    name: str = ""


class Steps(Which):
    """Each `step` is a JSON list: a name ("" for any), then conditions. `window` is how long the
    whole may take, in seconds; `by` is a field of a person's first event."""

    time: str = "occurred_at"
    step: list[str] = msgspec.field(default_factory=list)
    window: int = 604_800
    by: str = ""
    groups: int = 10


class Returning(Which):
    """`start` and `back` are steps as a funnel has them; "" is any event. `ever`: only who is new
    in this time; else whoever did it first in it."""

    time: str = "occurred_at"
    unit: str = "week"
    start: str = ""
    back: str = ""
    ever: bool = True


class OfErrors(Which):
    """How many groups."""

    limit: int = 100


class OfError(Which):
    """`error` is the group's id, from /api/errors."""

    error: str = ""
    unit: str = ""


class Figures(Answer, frozen=True, kw_only=True):
    """One period. `buckets` are all points in time of the line, also those without an event;
    `total` is the figure over all of it, which of people is not the sum."""

    since: str
    until: str
    unit: str
    buckets: list[str]
    total: float | None
    total_sql: str


class Explored(Figures, frozen=True, kw_only=True):
    """The period asked for, and with `compare` the one before it: its buckets are the same in
    number, give or take one, and stand beside these in order."""

    before: Figures | None


class Ranged(Answer, frozen=True, kw_only=True):
    """An answer, and what time it is about."""

    since: str
    until: str


class Suggestions(msgspec.Struct, frozen=True, kw_only=True):
    """What can be asked about: columns, short words and what they stand for, what can be counted,
    the names that were seen, and the paths of a sample's properties and context."""

    since: str
    until: str
    columns: list[str]
    words: dict[str, str]
    measures: list[str]
    units: list[str]
    operators: list[str]
    names: Answer
    paths: Answer


class OneError(msgspec.Struct, frozen=True, kw_only=True):
    """One group of errors: its last events with their stacks, its course, and by client version."""

    since: str
    until: str
    unit: str
    buckets: list[str]
    samples: Answer
    over_time: Answer
    versions: Answer


class Explore:
    """The handlers."""

    def __init__(self, ask: Ask, *, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock

    def endpoints(self) -> list[Endpoint]:
        """For the console's API."""
        return [
            Endpoint(
                method="GET",
                path="/api/explore",
                summary="Events, people, sessions or a property's figure over time, broken down.",
                answer=Explored,
                handle=self.over_time,
                query=OverTime,
            ),
            Endpoint(
                method="GET",
                path="/api/explore/top",
                summary="The largest groups by a field: names, pages, countries.",
                answer=Ranged,
                handle=self.top,
                query=Largest,
            ),
            Endpoint(
                method="GET",
                path="/api/explore/fields",
                summary="What can be asked about: names seen, fields, paths of properties.",
                answer=Suggestions,
                handle=self.fields,
                query=Suggested,
            ),
            Endpoint(
                method="GET",
                path="/api/explore/values",
                summary="The commonest values of a field.",
                answer=Ranged,
                handle=self.values,
                query=Largest,
            ),
            Endpoint(
                method="GET",
                path="/api/funnel",
                summary="How many people take 2 to 10 steps in order, and how long they take.",
                answer=Ranged,
                handle=self.funnel,
                query=Steps,
            ),
            Endpoint(
                method="GET",
                path="/api/retention",
                summary="Who comes back, by the day, week or month in which they began.",
                answer=Ranged,
                handle=self.retention,
                query=Returning,
            ),
            Endpoint(
                method="GET",
                path="/api/errors",
                summary="Errors that clients reported, grouped by type, message and top frame.",
                answer=Ranged,
                handle=self.errors,
                query=OfErrors,
            ),
            Endpoint(
                method="GET",
                path="/api/errors/one",
                summary="One group of errors: its last events with their stacks, and its course.",
                answer=OneError,
                handle=self.one_error,
                query=OfError,
            ),
        ]

    def over_time(self, asked: Asked) -> Explored:
        """A figure over time."""
        given: OverTime = asked.query
        period = self._period(given, _DAY, asked.who)
        question = questions.Explore(
            period=period,
            unit=questions.unit_of(period, given.unit),
            zone=given.zone_name(),
            measure=Measure(given.measure, given.of),
            by=given.by,
            filters=given.filters(),
            series=given.series,
        )
        now = self._figures(question, asked.who)
        before = None
        if given.compare:
            earlier = msgspec.structs.replace(
                question, period=period.before, shown=_shown(now) if given.by else None
            )
            before = self._figures(earlier, asked.who)
        return Explored(before=before, **msgspec.structs.asdict(now))

    def _figures(self, question: questions.Explore, who: Who) -> Figures:
        answer = self._ask(questions.over_time(question), who)
        total_sql = questions.total(question)
        if question.measure.name == "events":
            total: float | None = sum(row[-1] for row in answer.rows)
        else:
            total = self._ask(total_sql, who).rows[0][0]
        period, unit = question.period, question.unit
        return Figures(
            **msgspec.structs.asdict(answer),
            since=period.since.isoformat(),
            until=period.until.isoformat(),
            unit=unit,
            buckets=self._buckets(period, unit, question.zone, who),
            total=total,
            total_sql=total_sql,
        )

    def _buckets(self, period: Period, unit: str, zone: str, who: Who) -> list[str]:
        return [row[0] for row in self._ask(questions.buckets(period, unit, zone), who).rows]

    def top(self, asked: Asked) -> Ranged:
        """The largest groups."""
        given: Largest = asked.query
        filters = given.filters()
        if given.contains:
            filters = (*filters, Filter(given.by, "contains", (given.contains,)))
        period = self._period(given, _DAY, asked.who)
        question = questions.Top(
            period=period,
            by=given.by,
            measure=Measure(given.measure, given.of),
            filters=filters,
            limit=given.limit,
            set_only=given.set_only,
        )
        return self._ranged(questions.top(question), period, asked.who)

    def values(self, asked: Asked) -> Ranged:
        """The commonest values, of events that have the field."""
        asked.query.set_only = True
        return self.top(asked)

    def fields(self, asked: Asked) -> Suggestions:
        """What can be asked about."""
        given: Suggested = asked.query
        period, filters = self._period(given, _DAY, asked.who), given.filters()
        named = (*filters, Filter("name", "is", (given.name,))) if given.name else filters
        return Suggestions(
            since=period.since.isoformat(),
            until=period.until.isoformat(),
            columns=[*TEXTS, *IDS],
            words=SHORT,
            measures=list(MEASURES),
            units=list(UNITS),
            operators=list(OPERATORS),
            names=self._ask(questions.names(period, filters), asked.who),
            paths=self._ask(questions.paths(period, named), asked.who),
        )

    def funnel(self, asked: Asked) -> Ranged:
        """Steps in order."""
        given: Steps = asked.query
        period = self._period(given, _WEEK, asked.who)
        question = Funnel(
            period=period,
            steps=tuple(_step(text) for text in given.step),
            window_seconds=given.window,
            filters=given.filters(),
            by=given.by,
            groups=given.groups,
        )
        return self._ranged(funnel(question), period, asked.who)

    def retention(self, asked: Asked) -> Ranged:
        """Who comes back."""
        given: Returning = asked.query
        if given.unit not in RETENTION_UNITS:
            raise WrongUse(
                f'no unit "{given.unit[:80]}"', remedy=f"use {', '.join(RETENTION_UNITS)}"
            )
        usual = {"day": 14 * _DAY, "week": 8 * _WEEK, "month": 365 * _DAY}[given.unit]
        period = self._period(given, usual, asked.who)
        question = Retention(
            period=period,
            unit=given.unit,
            zone=given.zone_name(),
            start=_step(given.start),
            back=_step(given.back),
            filters=given.filters(),
            ever=given.ever,
        )
        return self._ranged(retention(question), period, asked.who)

    def errors(self, asked: Asked) -> Ranged:
        """Groups of errors."""
        given: OfErrors = asked.query
        period = self._period(given, _WEEK, asked.who)
        question = errors_questions.Errors(
            period=period, filters=given.filters(), limit=given.limit
        )
        return self._ranged(errors_questions.errors(question), period, asked.who)

    def one_error(self, asked: Asked) -> OneError:
        """One group."""
        given: OfError = asked.query
        period, zone = self._period(given, _WEEK, asked.who), given.zone_name()
        unit = questions.unit_of(period, given.unit)
        question = errors_questions.Errors(period=period, filters=given.filters(), limit=10)
        error = given.error
        samples = self._ask(errors_questions.samples(question, error), asked.who)
        if not samples.rows:
            raise NotFound(
                "there was no such error in this time", remedy="see /api/errors, or a longer time"
            )
        course = errors_questions.errors_over_time(question, error, unit=unit, zone=zone)
        versions = errors_questions.errors_by(question, error, "context.version")
        return OneError(
            since=period.since.isoformat(),
            until=period.until.isoformat(),
            unit=unit,
            buckets=self._buckets(period, unit, zone, asked.who),
            samples=samples,
            over_time=self._ask(course, asked.who),
            versions=self._ask(versions, asked.who),
        )

    def _period(self, given: Which, usual: timedelta, who: Who) -> Period:
        return period_of(given, usual, ask=self._ask, who=who, clock=self._clock)

    def _ranged(self, sql: str, period: Period, who: Who) -> Ranged:
        return Ranged(
            **msgspec.structs.asdict(self._ask(sql, who)),
            since=period.since.isoformat(),
            until=period.until.isoformat(),
        )


def _shown(figures: Figures) -> tuple[str, ...]:
    """The values that have a line."""
    place = figures.columns.index("value")
    return tuple({row[place]: None for row in figures.rows if row[place] is not None})


def _step(text: str) -> Step:
    """A step as the address bar has it; "" is any event. Raises WrongUse."""
    if not text:
        return Step("")
    parts = listed(text, "a step", _STEP)
    if not parts or not isinstance(parts[0], str):
        raise WrongUse("a step begins with a name", remedy=f"as in {_STEP}")
    return Step(parts[0], tuple(filter_of(part) for part in parts[1:]))
