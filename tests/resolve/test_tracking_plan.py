"""The tracking plan: what it says of an event, and that what it does survives replays and kills."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headwater import limits
from headwater.accept.accounts import Accounts
from headwater.carrying import Carrying
from headwater.clock import system_clock
from headwater.decode.dialects import DIALECTS
from headwater.decoding import Judge
from headwater.errors import ConfigError
from headwater.event import Decoded, Event, Kind
from headwater.profiling import Profiling
from headwater.replay import replay
from headwater.resolve.enrichment import Enrichment
from headwater.resolve.tracking_plan import REASON, TOO_LARGE, UNPLANNED, UNREADABLE, Plan, read
from headwater.store.clickhouse import EVENTS
from headwater.store.property_types import PropertyTypes, word_of
from headwater.store.rows import readable
from tests.journaled import AT, Loading, each, journal, nucleus, vaix
from tests.store.opened import empty_store

TOTAL = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
Start = Callable[..., Loading]


def plan(events: dict[str, Any] | None = None, **given: Any) -> Plan:
    """A plan of some names and their schemas."""
    named = {name: {"schema": schema} for name, schema in (events or {}).items()}
    return Plan(msgspec.json.encode({"events": named, **given}).decode(), "plan.json")


def event(name: str = "Buy", kind: Kind = "track", **properties: Any) -> Event:
    return Event(index=0, kind=kind, name=name, scope="", properties=properties)


def checked(plan: Plan, *events: Event, dialect: str = "nucleus") -> Decoded:
    decoded = Decoded(events=list(events))
    request = nucleus({"name": "A"})
    plan.check(msgspec.structs.replace(request, dialect=dialect), decoded)
    return decoded


def rules(plan: Plan, one: Event) -> list[str]:
    return [rule for found in checked(plan, one).violations for rule in found.rules]


# --- what it says --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "properties", "said"),
    [
        ({"properties": {"a": {"type": "number"}}}, {"a": "x"}, "/a is not a number"),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 1.5}, "/a is not an integer"),
        (
            {"properties": {"a": {"type": ["string", "null"]}}},
            {"a": 1},
            "/a is not null or a string",
        ),
        ({"required": ["a"]}, {}, "/a is missing"),
        ({"required": ["a/b~c"]}, {}, "/a~1b~0c is missing"),
        ({"properties": {"a": {"enum": ["x"]}}}, {"a": "y"}, "/a is not one of the values allowed"),
        ({"properties": {"a": {"minimum": 0}}}, {"a": -1}, "/a is less than 0"),
        ({"properties": {"a": {"maxLength": 2}}}, {"a": "abc"}, "/a is longer than 2"),
        ({"properties": {"a": {"pattern": "^x"}}}, {"a": "y"}, "/a does not match the pattern"),
        ({"properties": {"a": {"format": "date"}}}, {"a": "y"}, '/a is not of the format "date"'),
        ({"properties": {"a": {"items": {"type": "string"}}}}, {"a": [1]}, "/a/* is not a string"),
        (
            {"additionalProperties": {"type": "string"}},
            {"jane@example.com": 1},
            "/* is not a string",
        ),
        (
            {"additionalProperties": False},
            {"jane@example.com": 1},
            "properties has a property that the plan does not name",
        ),
        ({"propertyNames": {"maxLength": 1}}, {"jane": 1}, "properties breaks propertyNames"),
        (
            {"properties": {"a": {"oneOf": [{"type": "string"}, {"type": "null"}]}}},
            {"a": 1},
            "/a is none, or more than one, of what it may be",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_broken_is_said_in_words_of_the_plan(
    schema: dict[str, Any], properties: dict[str, Any], said: str
) -> None:
    assert rules(plan({"Buy": schema}), event(**properties)) == [said]


def test_an_event_that_keeps_to_the_plan_is_left_alone() -> None:
    one = event(total=3, more="x")
    decoded = checked(plan({"Buy": TOTAL}, mode="reject"), one)
    assert decoded.events == [one]
    assert (decoded.rejected, list(decoded.violations), one.issues) == ([], [], [])


def test_every_mode_does_what_it_is_called() -> None:
    modes = {"events": {mode: {"mode": mode, "schema": TOTAL} for mode in ("observe", "warn")}}
    modes["events"]["reject"] = {"mode": "reject", "schema": TOTAL}
    events = [event(name, total="x") for name in ("observe", "reject", "warn")]
    decoded = checked(Plan(msgspec.json.encode(modes).decode(), "p"), *events)
    assert [one.name for one in decoded.events] == ["observe", "warn"]
    assert [str(issue) for one in decoded.events for issue in one.issues] == [
        "plan: /total is not a number"
    ]
    (rejection,) = decoded.rejected
    assert (rejection.reason, rejection.detail) == (REASON, "reject: /total is not a number")
    assert [(one.row, one.mode) for one in decoded.violations] == [
        (0, "observe"),
        (-1, "reject"),
        (1, "warn"),
    ]


@pytest.mark.parametrize("kind", ["session_start", "identify", "profile", "error"])
def test_what_a_dialect_names_itself_is_never_unplanned(kind: Kind) -> None:
    strict = plan({}, unplanned="reject")
    assert checked(strict, event("X", kind)).rejected == []
    assert rules(strict, event("X")) == [UNPLANNED]
    assert rules(plan({"X": TOTAL}), event("X", kind)) == ["/total is missing"]


def test_a_dialect_may_have_rules_of_its_own() -> None:
    own = {"vaix": {"mode": "reject", "unplanned": "warn", "events": {"Buy": {"schema": True}}}}
    found = plan({"Buy": TOTAL, "Cart": TOTAL}, dialects=own)
    assert checked(found, event(), dialect="vaix").violations == []
    assert checked(found, event("Cart"), dialect="vaix").rejected != []
    assert checked(found, event("Cart"), dialect="orbee").rejected == []
    assert [one.mode for one in checked(found, event("X"), dialect="vaix").violations] == ["warn"]


def test_what_is_too_large_to_say_where_takes_no_memory() -> None:
    """Each error of the validator is an object of 1.5 KB, and this would be 200,000 of them."""
    many = plan({"Buy": {"properties": {"l": {"items": {"type": "number"}}}}})
    assert rules(many, event(l=["x"] * 200_000)) == [TOO_LARGE]
    few = rules(many, event(l=["x"] * 50))
    assert few == ["/l/* is not a number"]


def test_no_more_is_named_of_one_event_than_the_bound() -> None:
    names = [f"p{number}" for number in range(50)]
    assert len(rules(plan({"Buy": {"required": names}}), event())) == limits.plan_violations_max


def test_properties_that_the_validator_cannot_read_break_the_plan() -> None:
    assert rules(plan({"Buy": TOTAL}), event(total="\ud800")) == [UNREADABLE]


# --- files that are wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{", "truncated"),
        ("[]", "Expected `object`"),
        ('{"evnts": {}}', "unknown field `evnts`"),
        ('{"mode": "loud"}', "at `$.mode`"),
        ('{"dialects": {"orby": {}}}', '"orby" is no dialect'),
        ('{"events": {"A": {"schema": {"type": "numbr"}}}}', 'events["A"].schema.type: "numbr"'),
        ('{"events": {"A": {"schema": {"pattern": "(?=a)"}}}}', 'events["A"].schema.pattern'),
        ('{"events": {"A": {"schema": {"format": "emial"}}}}', "emial"),
        ('{"events": {"A": {"schema": {"$ref": "http://127.0.0.1:9/"}}}}', "Retrieval is disabled"),
        ('{"events": {"A": {"schema": {"$ref": "file:///etc/passwd"}}}}', "Retrieval is disabled"),
    ],
)
def test_a_bad_plan_is_refused_with_its_place(text: str, where: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert "plan.json" in caught.value.message
    assert where in caught.value.message
    assert caught.value.remedy


def test_a_plan_has_a_size(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(" " * (limits.plan_bytes_max + 1))
    with pytest.raises(ConfigError, match="KiB"):
        read(path)
    events: Any = {f"n{number}": {} for number in range(limits.plan_names_max + 1)}
    path.write_bytes(msgspec.json.encode({"events": events}))
    with pytest.raises(ConfigError, match="at most"):
        read(path)


# --- in loading and replay -----------------------------------------------------------------------


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts loaders on one folder and an empty store."""
    started: list[Loading] = []
    store = empty_store()

    def begin(in_force: Plan | None, **given: Any) -> Loading:
        started.append(Loading(tmp_path, store, plan_of=lambda account: in_force, **given))
        return started[-1]

    yield begin
    for one in started:
        one.close()


def fill(folder: Path) -> None:
    """Nucleus: a bad Buy and its copy, a good one, a name of its own; and a VAIX click."""
    bad = {"name": "Buy", "id": 1, "payload": {"total": "x"}}
    journal(
        folder,
        each(
            nucleus(bad, {"name": "Buy", "id": 2, "payload": {"total": 1}}, {"name": "Z", "id": 3}),
            events=3,
        ),
        each(nucleus(bad), vaix("u1")),
    )


def counts(loading: Loading) -> dict[tuple[str, str, str], int]:
    rows = loading.store.query(
        "SELECT name, mode, rule, sum(events) FROM plan_violations GROUP BY ALL"
    )
    return {(row[0], row[1], row[2]): row[3] for row in rows.rows}


BAD = "/total is not a number"


def test_a_replay_gives_what_the_plan_says_now(start: Start, tmp_path: Path) -> None:
    fill(tmp_path)
    start(None).all()
    seen = []
    for mode in ("observe", "warn", "reject", "observe"):
        loading = start(plan({"Buy": TOTAL}, mode=mode))
        loading.loader.reconcile()
        replay(loading.loader, since=0)
        assert replay(loading.loader, since=0).changed == 0
        issues = loading.store.query("SELECT arrayJoin(issues) AS i FROM events WHERE name = 'Buy'")
        rejected = loading.store.query("SELECT reason, detail FROM rejected").rows
        seen.append((loading.books()["nucleus"], [row[0] for row in issues.rows], rejected))
        copies = 2 if mode == "reject" else 1  # a rejected event is nobody's first copy
        assert counts(loading) == {
            ("Buy", mode, BAD): copies,
            ("Z", "observe", UNPLANNED): 1,
            ("clicks:event", "observe", UNPLANNED): 1,
        }
    plain: Any = ((4, 3, 1, 0, 0), [], [])
    refused = [[REASON, f"Buy: {BAD}"]] * 2
    assert seen == [
        plain,
        ((4, 3, 1, 0, 0), [f"plan: {BAD}"], []),
        ((4, 2, 0, 2, 0), [], refused),
        plain,
    ]
    gone = start(None)
    gone.loader.reconcile()
    replay(gone.loader, since=0)
    assert counts(gone) == {}


def test_a_load_that_is_cut_short_counts_once(start: Start, tmp_path: Path) -> None:
    fill(tmp_path)
    strict = plan({"Buy": TOTAL}, mode="reject")

    def cut(reached: str) -> None:
        if reached == at:
            raise KeyboardInterrupt

    for at in ("rejected", "events", "violations"):  # noqa: B007 - cut looks at it
        loading = start(strict, checkpoint=cut)
        with pytest.raises(KeyboardInterrupt):
            loading.all()
    # More has come in meanwhile, so that the stretch is another one now.
    journal(tmp_path, each(nucleus({"name": "Buy", "id": 9})))
    loading = start(strict)
    loading.all()
    assert counts(loading)["Buy", "reject", BAD] == 2
    assert counts(loading)["Buy", "reject", "/total is missing"] == 1
    assert loading.books()["nucleus"] == (5, 2, 0, 3, 0)


def test_who_asks_for_the_books_at_the_start_takes_no_count_away(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loader that starts learns what is beyond the watermarks once, whoever else asks."""
    fill(tmp_path)
    counted = threading.Event()
    loading = start(
        plan({"Buy": TOTAL}),
        checkpoint=lambda reached: counted.set() if reached == "violations" else None,
    )
    asking = threading.Thread(target=loading.loader.refresh_in_flight)
    forget_after = loading.loader.violations.forget_after
    times = 0

    def forget(watermarks: Mapping[int, int]) -> None:
        nonlocal times
        times += 1
        if times == 1:
            asking.start()
            time.sleep(0.2)  # it finds now that nothing is known
        else:
            assert counted.wait(10)
        forget_after(watermarks)

    monkeypatch.setattr(loading.loader.violations, "forget_after", forget)
    loading.loader.step()
    asking.join()
    assert times == 1
    assert counts(loading)["Buy", "observe", BAD] == 1


def test_old_counts_are_folded_and_stay(start: Start, tmp_path: Path) -> None:
    loading = start(plan({"Buy": TOTAL}))
    for number in range(3):
        journal(tmp_path, each(nucleus({"name": "Buy", "id": number})), writer=number % 2)
        loading.all()
        before = counts(loading)
        loading.loader.violations.fold(system_clock() + 1)
        assert counts(loading) == before == {("Buy", "observe", "/total is missing"): number + 1}
    rows = loading.store.writing().rows("SELECT count() FROM headwater_store.violation_rows FINAL")
    assert rows[0][0] == 2  # one for each writer


def test_kinds_of_violations_of_one_load_are_bounded(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "plan_counts_max", 3)
    names = [{"name": f"n{number}", "id": number} for number in range(8)]
    journal(tmp_path, each(nucleus(*names), events=8))
    loading = start(plan({}))
    loading.all()
    found = counts(loading)
    assert len(found) == 4
    assert found["", "observe", UNPLANNED] == 5


def test_a_rejected_item_of_many_is_found_by_whose_it_is(start: Start, tmp_path: Path) -> None:
    """An erasure finds a rejected row by the identifiers in its text, as the client wrote them."""
    items = [{"name": "Buy", "id": n, "userId": f"{n}"} for n in (5, 6)]
    journal(tmp_path, each(nucleus(*items), events=2))
    loading = start(plan({"Buy": TOTAL}, mode="reject"))
    loading.all()
    texts = [row[0] for row in loading.store.query("SELECT request FROM rejected").rows]
    scope = "6387f260fae4a13be78fc664"
    carrying = Carrying("acme", [("nucleus:user", scope, "5")], loading.loader.judge)
    assert [carrying.is_in_text("nucleus", text) for text in texts] == [True, False]


def test_what_a_request_says_of_people_does_not_depend_on_the_plan() -> None:
    """Export and erasure go by the identities of rejected events too."""
    judging = Accounts({}, public_host="", clock=system_clock)
    strict = plan({}, unplanned="reject")
    judge = Judge(DIALECTS, lambda: judging, Enrichment().enrich, lambda account: strict)
    request = nucleus({"name": "A", "id": 1, "userId": "u"})
    assert [one.name for one in judge.again(request).events] == ["A"]
    assert judge.first(request).events == judge.replayed(request).events == []
    assert readable(request).endswith("}]}")


# --- the profile of properties -------------------------------------------------------------------


def types(loading: Loading) -> dict[tuple[str, str], int]:
    rows = loading.store.query("SELECT path, type, sum(seen) FROM property_types GROUP BY ALL").rows
    return {(row[0], row[1]): row[2] for row in rows}


def test_the_profile_counts_paths_and_types_once(start: Start, tmp_path: Path) -> None:
    loading = start(None)
    payloads = [{"total": 1, "tags": ["a"]}, {"total": "x", "in": {"b": True}}, {"mail": {}}]
    payloads.append({"jane@example.com": 1, "by": {"20261121": 2.5}})
    items = [{"name": "A", "id": n, "payload": one} for n, one in enumerate(payloads)]
    journal(tmp_path, each(nucleus(*items), events=4))
    loading.all()
    client = loading.store.beside()
    profiling = Profiling(
        types=PropertyTypes(client),
        pending=lambda: False,
        lag_seconds=lambda: 0.0,
        clock=lambda: AT + 86_400_000_000,
    )
    found = {
        ("", "object"): 4,
        ("total", "integer"): 1,
        ("total", "string"): 1,
        ("tags", "array of string"): 1,
        ("in.b", "boolean"): 1,
        ("*", "integer"): 1,
        ("by.*", "number"): 1,
    }
    assert profiling.step()
    assert types(loading) == found
    assert not profiling.step()
    loading.store.writing().command("OPTIMIZE TABLE headwater_store.property_type_rows FINAL")
    again = PropertyTypes(client)
    assert again.next_window(AT + 86_400_000_000) is None  # also after a restart
    assert types(loading) == found
    client.close()


def test_the_profile_waits_for_what_is_not_loaded(start: Start, tmp_path: Path) -> None:
    loading = start(None)
    journal(tmp_path, each(nucleus({"name": "A", "id": 1})))
    loading.all()
    client = loading.store.beside()
    lag = 0.0
    profiling = Profiling(
        types=PropertyTypes(client),
        pending=lambda: True,
        lag_seconds=lambda: lag,
        clock=lambda: AT + 7_200_000_000,
    )
    assert not profiling.step()  # nobody knows yet how old what waits is
    lag = 7_200.0
    assert not profiling.step()
    lag = 60.0
    assert profiling.step()
    client.close()


def test_a_sample_stands_for_all_of_its_name(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "profile_rows_per_name_max", 10)
    items = [{"name": "A", "id": n, "payload": {"x": n}} for n in range(40)]
    journal(tmp_path, each(nucleus(*items), events=40))
    loading = start(None)
    loading.all()
    client = loading.store.beside()
    profile = PropertyTypes(client)
    window = profile.next_window(AT + 86_400_000_000)
    assert window is not None
    profile.profile(window)
    assert types(loading) == {("", "object"): 40, ("x", "integer"): 40}
    assert loading.store.writing().rows(f"SELECT count() FROM {EVENTS}")[0][0] == 40
    client.close()


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("Int64", "integer"),
        ("UInt8", "integer"),
        ("Float64", "number"),
        ("Nullable(String)", "string"),
        ("Bool", "boolean"),
        ("Array(Nullable(Int64))", "array of integer"),
        ("Array(JSON(max_dynamic_types=16, max_dynamic_paths=256))", "array of object"),
        ("Array(Array(Nullable(String)))", "array of array of string"),
        ("Dynamic", "mixed"),
    ],
)
def test_types_are_said_in_words_of_json(kind: str, word: str) -> None:
    assert word_of(kind) == word
