"""The pages' questions against slow references in Python, and against hostile text."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import combinations, pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from headwater import limits
from headwater.errors import WrongUse
from headwater.event import Event, Kind
from headwater.resolve.client_sessions import SessionIds
from headwater.resolve.keys import NOBODY
from headwater.store.clickhouse import Store
from headwater.store.questions import explore as questions
from headwater.store.questions.errors import (
    Errors,
    errors,
    errors_by,
    errors_over_time,
    samples,
)
from headwater.store.questions.explore import Explore, Measure, Top, over_time, top, total
from headwater.store.questions.fields import SHORT, field, literal
from headwater.store.questions.filters import OPERATORS, Filter, Period
from headwater.store.questions.funnel import Funnel, Step, funnel
from headwater.store.questions.retention import Retention, retention
from headwater.store.rows import Source, attributed, events_batch
from tests.store.made import an_id, make_event, make_request

#: The night in which Vienna's clocks go back: one local hour comes twice, one day has 25 hours.
BEGAN = datetime(2026, 10, 24, tzinfo=UTC)
VIENNA = "Europe/Vienna"
FOUR_DAYS = Period(BEGAN, BEGAN + timedelta(days=4))
NAMES = ("view", "cart", "pay")


class Row(msgspec.Struct, kw_only=True):
    """An event as a reference sees it; person 0 is nobody."""

    at: datetime
    person: int = 0
    name: str = "view"
    kind: Kind = "track"
    properties: dict[str, Any] = {}
    context: dict[str, Any] = {}
    session: str = "1"


def put(store: Store, rows: Sequence[Row], dialect: str = "nucleus") -> None:
    """Store rows, each as a request of its own, received when it occurred."""
    events: list[Event] = []
    sources = []
    for number, row in enumerate(rows):
        micros = int(row.at.timestamp()) * 1_000_000 + row.at.microsecond
        events.append(
            make_event(
                name=row.name,
                kind=row.kind,
                occurred_at=micros,
                properties=row.properties,
                context=row.context,
                session=row.session,
            )
        )
        request = make_request(received_at=micros, dialect=dialect)
        sources.append(Source(request, 3, 1, number, 1))
    people = [an_id(row.person) if row.person else NOBODY for row in rows]
    store.insert_events(
        attributed(
            events_batch(events, sources, SessionIds()),
            subjects=people,
            principals=people,
            keys=[[NOBODY] * len(event.identities) for event in events],
            sessions=[None] * len(events),
        )
    )


def asked(store: Store, sql: str) -> list[dict[str, Any]]:
    """Rows by name, through the guard, as the SQL page runs it."""
    found = store.query(sql)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def some_rows(seed: int, count: int = 400) -> list[Row]:
    """Events of some people over four days."""
    rng = random.Random(seed)
    plans: list[Any] = ["free", "pro", 'te"am', 7, True, None]
    return [
        Row(
            at=BEGAN + timedelta(microseconds=rng.randrange(4 * 86_400_000_000)),
            person=rng.randrange(12),
            name=rng.choice(NAMES),
            properties={"plan": rng.choice(plans), "cart": {"total": rng.randrange(50) / 4}},
            context={"country": rng.choice(["AT", "DE"]), "bot": rng.random() < 0.1},
            session=str(rng.randrange(30)),
        )
        for _ in range(count)
    ]


# --- over time, the largest -----------------------------------------------------------------------


def local_day(at: datetime) -> date:
    return at.astimezone(ZoneInfo(VIENNA)).date()


def test_figures_over_time_are_those_of_the_events(store: Store) -> None:
    rows = some_rows(1)
    put(store, rows)
    question = Explore(period=FOUR_DAYS, unit="day", zone=VIENNA)
    found = {row["at"]: row["events"] for row in asked(store, over_time(question))}
    assert found == Counter(local_day(row.at) for row in rows)
    people: dict[date, set[int]] = defaultdict(set)
    for row in rows:
        people[local_day(row.at)] |= {row.person} - {0}
    question = msgspec.structs.replace(question, measure=Measure("people"))
    found = {row["at"]: row["people"] for row in asked(store, over_time(question))}
    assert found == {day: len(those) for day, those in people.items()}
    assert asked(store, total(question)) == [{"people": 11}]
    question = msgspec.structs.replace(question, measure=Measure("sum", "properties.cart.total"))
    assert asked(store, total(question)) == [
        {"sum": sum(row.properties["cart"]["total"] for row in rows)}
    ]
    question = msgspec.structs.replace(question, measure=Measure("sessions"))
    # Nucleus tells sessions apart by device and the client's id.
    assert asked(store, total(question)) == [{"sessions": len({row.session for row in rows})}]


def test_every_unit_that_is_touched_is_a_point(store: Store) -> None:
    """Also the local hour that comes twice, and those without an event."""
    hours = [row["at"] for row in asked(store, questions.buckets(FOUR_DAYS, "hour", VIENNA))]
    assert hours == [BEGAN + timedelta(hours=n) for n in range(96)]
    days = [row["at"] for row in asked(store, questions.buckets(FOUR_DAYS, "day", VIENNA))]
    assert days == [date(2026, 10, n) for n in range(24, 29)]
    year = Period(BEGAN, BEGAN + timedelta(days=366))
    months = [row["at"] for row in asked(store, questions.buckets(year, "month", VIENNA))]
    assert months == [date(2026 + (n - 1) // 12, (n - 1) % 12 + 1, 1) for n in range(10, 23)]
    weeks = [row["at"] for row in asked(store, questions.buckets(year, "week", "UTC"))]
    assert weeks[0] == date(2026, 10, 19)
    assert {later - before for before, later in pairwise(weeks)} == {timedelta(7)}
    with pytest.raises(WrongUse, match="points in a line"):
        questions.buckets(year, "minute", VIENNA)


@pytest.mark.parametrize("measure", ["events", "people"])
def test_what_has_no_line_of_its_own_is_in_other(store: Store, measure: str) -> None:
    """Nothing is counted twice and nothing left out: a person of two small groups is one."""
    rows = some_rows(2)
    put(store, rows)

    def plan(row: Row) -> str | None:
        value = row.properties["plan"]
        return {True: "true", None: None, 7: "7"}.get(value, value)

    def figure(those: Iterable[Row]) -> int:
        those = list(those)
        return len(those) if measure == "events" else len({row.person for row in those} - {0})

    values = {plan(row) for row in rows} - {None}
    largest = sorted(
        values, key=lambda value: (-figure(row for row in rows if plan(row) == value), value)
    )[:2]
    expected = {}
    for day in {local_day(row.at) for row in rows}:
        those = [row for row in rows if local_day(row.at) == day]
        for value in [*largest, None]:
            expected[day, value, 0] = figure(row for row in those if plan(row) == value)
        expected[day, None, 1] = figure(row for row in those if plan(row) in values - {*largest})
    question = Explore(
        period=FOUR_DAYS, unit="day", zone=VIENNA, by="properties.plan", series=2,
        measure=Measure(measure),
    )  # fmt: skip
    found = {
        (row["at"], row["value"], row["other"]): row[measure]
        for row in asked(store, over_time(question))
    }
    assert found == {key: figure for key, figure in expected.items() if figure}


def test_the_period_before_can_be_asked_for_the_same_lines(store: Store) -> None:
    put(store, some_rows(8))
    question = Explore(period=FOUR_DAYS, unit="month", by="name", shown=("pay", "it's"))
    found = asked(store, over_time(question))
    assert {(row["value"], row["other"]) for row in found} == {("pay", 0), (None, 1)}
    assert sum(row["events"] for row in found) == 400
    nothing = msgspec.structs.replace(question, shown=(), by="properties.plan")
    assert {row["value"] for row in asked(store, over_time(nothing))} == {None}


def test_a_field_with_few_values_has_a_line_for_each(store: Store) -> None:
    put(store, some_rows(3, 50))
    put(store, some_rows(4, 40), dialect="gamooga")
    question = Explore(period=FOUR_DAYS, unit="month", by="dialect")
    assert [
        (row["value"], row["other"], row["events"]) for row in asked(store, over_time(question))
    ] == [("gamooga", 0, 40), ("nucleus", 0, 50)]


def test_the_largest_groups_come_first(store: Store) -> None:
    rows = some_rows(5)
    put(store, rows)
    expected = Counter(row.context["country"] for row in rows).most_common()
    found = asked(store, top(Top(period=FOUR_DAYS, by="country")))
    assert [(row["value"], row["events"]) for row in found] == expected
    found = asked(store, top(Top(period=FOUR_DAYS, by="person_id", limit=3, set_only=True)))
    people = Counter(row.person for row in rows if row.person)
    assert [row["events"] for row in found] == [count for _, count in people.most_common(3)]
    found = asked(store, top(Top(period=FOUR_DAYS, by="page", set_only=True)))
    assert found == []


def test_the_page_is_where_each_dialect_has_it(store: Store) -> None:
    def page(dialect: str, **given: Any) -> str | None:
        store.writing().command("TRUNCATE TABLE headwater_store.events_rows")
        put(store, [Row(at=BEGAN, **given)], dialect=dialect)
        ((value, _),) = store.query(top(Top(period=FOUR_DAYS, by="page"))).rows
        return None if value is None else str(value)

    referred = {"referrer": "https://a.example/r?x=1"}
    assert page("vaix", context={"page": "/p?a=1#b"}) == "/p"
    assert page("vibetrace", kind="page", properties={"url": "https://a.example/b?c"}) == (
        "https://a.example/b"
    )
    assert page("nucleus", kind="page", name="Cart") == "Cart"
    assert page("nucleus", name="Cart") is None
    assert page("orbee", kind="page", context=referred) == "https://a.example/r"
    assert page("orbee", context=referred) is None
    assert page("vibetrace", properties={"url": ""}, context=referred) is None


# --- filters --------------------------------------------------------------------------------------

VALUES: list[Any] = ["pro", "Pro", "", 3, 12, 3.5, True, None, [1], {"a": 1}, "12x"]


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("is", ["pro"], ["pro"]),
        ("is", ["pro", "3"], ["pro", 3]),
        ("is", ["true"], [True]),
        ("is_not", ["pro"], [one for one in VALUES if one != "pro"]),
        ("contains", ["ro"], ["pro", "Pro"]),
        ("contains_not", ["r", "1"], ["", 3, 3.5, None, {"a": 1}]),
        ("starts", ["P", "12"], ["Pro", 12, "12x"]),
        ("greater", ["3"], [12, 3.5]),
        ("less", ["12"], [3, 3.5]),
        ("less", ["Q"], ["Pro", "", 3, 12, 3.5, "12x"]),
        ("set", [], [one for one in VALUES if one not in ("", None, {"a": 1})]),
        ("not_set", [], ["", None, {"a": 1}]),
    ],
)
def test_a_condition_holds_for_these(
    store: Store, operator: str, values: list[str], expected: list[Any]
) -> None:
    rows = [
        Row(at=BEGAN, properties={"x": value}, name=str(number))
        for number, value in enumerate(VALUES)
    ]
    put(store, rows)
    question = Top(
        period=FOUR_DAYS,
        by="name",
        filters=(Filter("properties.x", operator, tuple(values)),),
        limit=50,
    )
    found = {VALUES.index(one) if one is not True else 6 for one in expected}
    assert {int(row["value"]) for row in asked(store, top(question))} == found


@pytest.mark.parametrize(
    "wrong",
    [
        Filter("nonsense", "is", ("1",)),
        Filter("properties", "is", ("1",)),
        Filter("properties.", "is", ("1",)),
        Filter("identity.", "is", ("1",)),
        Filter("name; DROP", "is", ("1",)),
        Filter("name", "is"),
        Filter("name", "like", ("1",)),
        Filter("name", "is", ("\ud800",)),
        Filter("name", "is", ("1",) * (limits.explore_values_max + 1)),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused(wrong: Filter) -> None:
    with pytest.raises(WrongUse):
        top(Top(period=FOUR_DAYS, by="name", filters=(wrong,)))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(
    "name", ["name", "account", "person_id", "event_id", "issues", "identity.email", *SHORT]
)
def test_every_condition_runs_on_every_kind_of_field(
    store: Store, name: str, operator: str
) -> None:
    values = () if operator in ("set", "not_set") else ("5", "x'y")
    assert asked(
        store, total(Explore(period=FOUR_DAYS, filters=(Filter(name, operator, values),)))
    ) == [{"events": 0}]


# --- hostile text ---------------------------------------------------------------------------------

ANY = st.characters(exclude_categories=["Cs"])
# fmt: off
HOSTILE = ANY | st.sampled_from([
    "'", "\\", "\\'", "`", "{x:String}", "{}", "%s", "\x00", "\n", "\r", "\u2028", "\u0085", "\x1c",
    "--", "/*", ";", '"', "$1", ":", "^", "[]", ".:Int64", "é", "\U0001f600", "x", " ",
])
# fmt: on
TEXTS = st.lists(HOSTILE, max_size=8).map("".join)


def examples(most: int) -> settings:
    return settings(
        max_examples=most,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


@examples(60)
@example(text="\u2028 \u2029 \u0085 \x1c 'are no lines'")
@given(text=TEXTS)
def test_a_literal_is_the_text(store: Store, text: str) -> None:
    assert store.query(f"SELECT {literal(text)}").rows == [[text]]


@examples(60)
@given(pieces=st.lists(st.lists(HOSTILE.filter(lambda one: "." not in one), min_size=1,
                                max_size=5).map("".join), min_size=1, max_size=3))  # fmt: skip
def test_a_path_finds_the_value_behind_any_key(store: Store, pieces: list[str]) -> None:
    document: Any = "here"
    for piece in reversed(pieces):
        document = {piece: document}
    text = msgspec.json.encode(document).decode()
    sql = field(f"properties.{'.'.join(pieces)}").sql
    found = store.query(f"SELECT {sql} FROM (SELECT CAST({literal(text)}, 'JSON') AS properties)")
    assert found.rows == [["here"]]


@examples(6)
@example(key="'`\\\x00.\u2028{}", value="\\' OR 1 -- `{x:String}\x00\u2028")
@given(key=TEXTS, value=TEXTS)
def test_hostile_text_anywhere_finds_nothing_and_breaks_nothing(
    store: Store, key: str, value: str
) -> None:
    hostile = Filter(f"identity.{key}x", "is", (value,)), Filter(f"context.{key}x", "set")
    steps = Step(value, (Filter("name", "contains", (value,)),)), Step("pay", hostile[:1])
    by = f"properties.{key}x"
    for sql in (
        over_time(Explore(period=FOUR_DAYS, by=by, filters=hostile, measure=Measure("values", by))),
        top(Top(period=FOUR_DAYS, by=by, filters=hostile)),
        funnel(Funnel(period=FOUR_DAYS, steps=steps, by=by, filters=hostile)),
        retention(Retention(period=FOUR_DAYS, start=steps[0], back=steps[1], filters=hostile)),
        errors(Errors(period=FOUR_DAYS, filters=hostile)),
    ):
        assert asked(store, sql) == []


def test_a_path_may_be_a_word_of_sql(store: Store) -> None:
    for word in ("select", "from", "null", "interval", "end", "case", "true", "and", "type"):
        text = f'{{"{word}":{{"{word}":1}}}}'
        sql = field(f"properties.{word}.{word}").sql
        found = store.query(f"SELECT {sql} FROM (SELECT CAST('{text}', 'JSON') AS properties)")
        assert found.rows == [["1"]], word


def test_fields_are_suggested_from_what_came(store: Store) -> None:
    put(store, some_rows(6, 30))
    found = {row["field"]: row for row in asked(store, questions.paths(FOUR_DAYS))}
    assert {"properties.plan", "properties.cart.total", "context.country"} <= set(found)
    assert found["context.country"]["types"] == ["String"]
    assert found["context.country"]["events"] == 30
    names = asked(store, questions.names(FOUR_DAYS))
    assert {row["name"] for row in names} == set(NAMES)
    assert sum(row["events"] for row in names) == 30


# --- funnels --------------------------------------------------------------------------------------


def fits_of(row: Row, steps: Sequence[frozenset[str]]) -> list[int]:
    return [number for number, names in enumerate(steps, 1) if row.name in names]


def slow_funnel(
    rows: Sequence[Row], steps: Sequence[frozenset[str]], window: timedelta
) -> dict[int, list[datetime]]:
    """The times of each person's steps, by trying all chains: of the longest ones the first to be
    complete, and of those the last to begin at every step."""
    found = {}
    for person in {row.person for row in rows} - {0}:
        own = [row for row in rows if row.person == person and fits_of(row, steps)]
        own.sort(key=lambda row: (row.at, fits_of(row, steps)[0], len(fits_of(row, steps))))
        for length in range(len(steps), 0, -1):
            chains = [
                places
                for places in combinations(range(len(own)), length)
                if all(own[place].name in steps[number] for number, place in enumerate(places))
                and own[places[-1]].at - own[places[0]].at <= window
            ]
            if chains:
                end = min(places[-1] for places in chains)
                best = max(places for places in chains if places[-1] == end)
                found[person] = [own[place].at for place in best]
                break
    return found


def some_history(seed: int) -> list[Row]:
    """Few people, many ties: times are whole minutes of one hour."""
    rng = random.Random(seed)
    return [
        Row(
            at=BEGAN + timedelta(minutes=rng.randrange(60)),
            person=rng.randrange(8),
            name=rng.choice([*NAMES, "other"]),
            properties={"plan": rng.choice(["free", "pro", None])},
        )
        for _ in range(70)
    ]


def as_steps(steps: Sequence[frozenset[str]]) -> tuple[Step, ...]:
    return tuple(Step("", (Filter("name", "is", tuple(sorted(names))),)) for names in steps)


STEPS = {
    "apart": [frozenset({"view"}), frozenset({"cart"}), frozenset({"pay"})],
    "the same thrice": [frozenset({"view"})] * 3,
    "overlapping": [frozenset({"view", "cart"}), frozenset({"cart", "pay"}), frozenset({"pay"})],
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_a_funnel_is_that_of_the_slow_reference(store: Store, steps: list[frozenset[str]]) -> None:
    hour = Period(BEGAN, BEGAN + timedelta(hours=1), "occurred_at")
    for seed in range(4):
        store.writing().command("TRUNCATE TABLE headwater_store.events_rows")
        rows = some_history(seed)
        put(store, rows)
        for minutes in (3, 15):
            times = slow_funnel(rows, steps, timedelta(minutes=minutes))
            question = Funnel(period=hour, steps=as_steps(steps), window_seconds=60 * minutes)
            found = asked(store, funnel(question))
            reached = [sum(len(one) >= n for one in times.values()) for n in (1, 2, 3)]
            assert [row["people"] for row in found] == reached, (seed, minutes)
            assert [row["dropped"] for row in found] == [
                0, reached[0] - reached[1], reached[1] - reached[2],
            ]  # fmt: skip
            assert [row["of_first"] for row in found] == [one / reached[0] for one in reached]
            for n in (2, 3):
                took = sorted(
                    (one[n - 1] - one[n - 2]).total_seconds()
                    for one in times.values()
                    if len(one) >= n
                )
                # ClickHouse's exact median is the upper of the two in the middle.
                expected = took[len(took) // 2] if took else None
                assert found[n - 1]["median_seconds"] == expected, (seed, minutes, n)


def test_a_funnel_has_the_people_of_window_funnel(store: Store) -> None:
    """With steps that no event fits two of, ClickHouse's own function says the same."""
    rng = random.Random(9)
    rows = [
        Row(
            at=BEGAN + timedelta(minutes=rng.randrange(300)),
            person=rng.randrange(60),
            name=rng.choice(NAMES),
        )
        for _ in range(600)
    ]
    put(store, rows)
    hours = Period(BEGAN, BEGAN + timedelta(hours=6), "occurred_at")
    found = asked(
        store,
        funnel(Funnel(period=hours, steps=as_steps(STEPS["apart"]), window_seconds=3_600)),
    )
    levels = store.query(
        "SELECT level, count() FROM (SELECT person_id, windowFunnel(3600000000)("
        "toUInt64(toUnixTimestamp64Micro(occurred_at)), name = 'view', name = 'cart', "
        "name = 'pay') AS level FROM events WHERE person_id IS NOT NULL GROUP BY person_id) "
        "GROUP BY level"
    ).rows
    assert [row["people"] for row in found] == [
        sum(count for level, count in levels if level >= n) for n in (1, 2, 3)
    ]


def test_a_funnel_by_a_field_goes_by_each_persons_first_event(store: Store) -> None:
    rows = some_history(3)
    put(store, rows)
    hour = Period(BEGAN, BEGAN + timedelta(hours=1), "occurred_at")
    steps = STEPS["apart"][:2]
    times = slow_funnel(rows, steps, timedelta(minutes=15))
    firsts: dict[int, set[str | None]] = {}
    for person in times:
        own = [row for row in rows if row.person == person and row.name == "view"]
        first = min(row.at for row in own)
        firsts[person] = {row.properties["plan"] for row in own if row.at == first}
    found = asked(
        store,
        funnel(
            Funnel(period=hour, steps=as_steps(steps), window_seconds=900, by="properties.plan")
        ),
    )
    assert sum(row["people"] for row in found if row["step"] == 1) == len(times)
    for row in found:
        sure = sum(
            len(times[person]) >= row["step"] and those == {row["value"]}
            for person, those in firsts.items()
        )
        possible = sum(
            len(times[person]) >= row["step"] and row["value"] in those
            for person, those in firsts.items()
        )
        assert sure <= row["people"] <= possible
    one = funnel(
        Funnel(period=hour, steps=as_steps(steps), window_seconds=900, by="name", groups=1)
    )
    assert [(row["value"], row["step"]) for row in asked(store, one)] == [("view", 1), ("view", 2)]


@pytest.mark.parametrize(
    "wrong",
    [
        Funnel(period=FOUR_DAYS, steps=(Step("a"),)),
        Funnel(period=FOUR_DAYS, steps=(Step("a"),) * (limits.funnel_steps_max + 1)),
        Funnel(period=FOUR_DAYS, steps=(Step("a"),) * 2, window_seconds=0),
        Funnel(period=FOUR_DAYS, steps=(Step("a"),) * 2, groups=0),
        Funnel(period=FOUR_DAYS.before.before, steps=(Step("a"), Step("", (Filter("x", "is"),)))),
    ],
)
def test_a_funnel_that_makes_no_sense_is_refused(wrong: Funnel) -> None:
    with pytest.raises(WrongUse):
        funnel(wrong)


def test_the_longest_funnel_fits(store: Store) -> None:
    steps = as_steps([frozenset({"view"})] * limits.funnel_steps_max)
    put(store, [Row(at=BEGAN + timedelta(minutes=n), person=1) for n in range(12)])
    found = asked(store, funnel(Funnel(period=FOUR_DAYS, steps=steps)))
    assert [row["people"] for row in found] == [1] * limits.funnel_steps_max
    assert {row["median_seconds"] for row in found[1:]} == {60}


# --- retention ------------------------------------------------------------------------------------


def slow_retention(
    rows: Sequence[Row], *, start: str, back: str, since: datetime, ever: bool, week: bool
) -> Counter[tuple[date, int]]:
    def unit(at: datetime) -> date:
        day = local_day(at)
        return day - timedelta(days=day.weekday()) if week else day

    found: Counter[tuple[date, int]] = Counter()
    first_unit = unit(since)
    for person in {row.person for row in rows} - {0}:
        own = [row for row in rows if row.person == person]
        if not ever:
            own = [row for row in own if unit(row.at) >= first_unit]
        began = [unit(row.at) for row in own if start in ("", row.name)]
        if not began or min(began) < first_unit:
            continue
        cohort = min(began)
        there = {unit(row.at) for row in own if back in ("", row.name)}
        for one in {cohort} | {day for day in there if day > cohort}:
            found[cohort, (one - cohort).days // (7 if week else 1)] += 1
    return found


@pytest.mark.parametrize("ever", [True, False])
@pytest.mark.parametrize("unit", ["day", "week"])
def test_retention_is_that_of_the_slow_reference(store: Store, unit: str, ever: bool) -> None:
    rng = random.Random(17)
    rows = [
        Row(
            at=BEGAN + timedelta(minutes=rng.randrange(28 * 1_440)),
            person=rng.randrange(40),
            name=rng.choice(NAMES),
        )
        for _ in range(300)
    ]
    put(store, rows)
    since = BEGAN + timedelta(days=6, hours=5)
    period = Period(since, BEGAN + timedelta(days=29))
    for start, back in (("", ""), ("view", ""), ("", "pay"), ("view", "pay")):
        question = Retention(
            period=period, unit=unit, zone=VIENNA, start=Step(start), back=Step(back), ever=ever
        )
        found = {
            (row["cohort"], row["after"]): row["people"]
            for row in asked(store, retention(question))
        }
        expected = slow_retention(
            rows, start=start, back=back, since=since, ever=ever, week=unit == "week"
        )
        assert found == expected, (start, back)
        assert found


def test_retention_over_too_many_units_is_refused() -> None:
    with pytest.raises(WrongUse, match="days"):
        retention(Retention(period=Period(BEGAN, BEGAN + timedelta(days=99)), unit="day"))
    with pytest.raises(WrongUse, match="unit"):
        retention(Retention(period=FOUR_DAYS, unit="hour"))


# --- errors ---------------------------------------------------------------------------------------

NODE = "Error: boom\n    at run (/app/a.js:{line}:46)\n    at listOnTimeout (node:timers:581:17)"
PYTHON = (
    "Traceback (most recent call last):\n"
    '  File "a.py", line 3, in main\n    go()\n  File "b.py", line 9, in go\n    1 / 0\n'
    "ZeroDivisionError: division by zero\n"
)
FIREFOX = "go@https://a.example/a.js:1:2\nmain@https://a.example/a.js:30:4\n"


def test_errors_are_grouped_by_type_message_and_frame(store: Store) -> None:
    def error(minutes: int, stack: str, name: str = "Error", person: int = 1, **more: Any) -> Row:
        return Row(
            at=BEGAN + timedelta(minutes=minutes),
            name=name,
            kind="error",
            person=person,
            properties={"message": more.pop("message", "boom"), "stack": stack},
            context=more,
        )

    put(
        store,
        [
            error(0, NODE.format(line=1), version="1.0"),
            error(5, NODE.format(line=1), person=2, version="1.1"),
            error(9, NODE.format(line=1) + "\n    at elsewhere (b.js:1:1)", person=0),
            error(1, NODE.format(line=2)),
            error(1, NODE.format(line=1), message="bang"),
            error(1, PYTHON, name="ZeroDivisionError"),
            error(1, FIREFOX),
            error(1, "..."),
            Row(at=BEGAN, name="Error", properties={"message": "boom"}),
        ],
    )
    question = Errors(period=FOUR_DAYS)
    found = asked(store, errors(question))
    assert {(row["type"], row["message"], row["frame"], row["events"]) for row in found} == {
        ("Error", "boom", "run (/app/a.js:1:46)", 3),
        ("Error", "boom", "run (/app/a.js:2:46)", 1),
        ("Error", "bang", "run (/app/a.js:1:46)", 1),
        ("ZeroDivisionError", "boom", 'File "b.py", line 9, in go', 1),
        ("Error", "boom", "go@https://a.example/a.js:1:2", 1),
        ("Error", "boom", "...", 1),
    }
    largest = found[0]
    assert (largest["people"], largest["sessions"]) == (2, 1)
    assert largest["first"] == BEGAN
    assert largest["last"] == BEGAN + timedelta(minutes=9)
    last = asked(store, samples(question, largest["error"]))
    assert [row["received_at"].minute for row in last] == [9, 5, 0]
    assert isinstance(largest["sample"], UUID)
    assert last[0]["event_id"] == largest["sample"]
    assert last[0]["stack"].startswith("Error: boom\n")
    assert asked(store, errors_over_time(question, largest["error"], unit="day")) == [
        {"unit": BEGAN.date(), "events": 3, "people": 2}
    ]
    versions = asked(store, errors_by(question, largest["error"], "context.version"))
    assert {row["value"]: row["events"] for row in versions} == {"1.0": 1, "1.1": 1, None: 1}
    with pytest.raises(WrongUse):
        samples(question, "x' OR 1")


def test_the_reference_can_tell_a_difference() -> None:
    """The slow funnel is no echo: a window that is too short, or steps the other way round."""
    rows = [
        Row(at=BEGAN, person=1, name="view"),
        Row(at=BEGAN + timedelta(minutes=5), person=1, name="cart"),
    ]
    steps = STEPS["apart"][:2]
    assert len(slow_funnel(rows, steps, timedelta(minutes=5))[1]) == 2
    assert len(slow_funnel(rows, steps, timedelta(minutes=4))[1]) == 1
    assert len(slow_funnel(rows, steps[::-1], timedelta(minutes=5))[1]) == 1
