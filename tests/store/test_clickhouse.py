"""The store: rows in, exactly once; questions out."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from pyarrow import parquet

from headwater import limits
from headwater.errors import DataError, QueryRefused, StoreError
from headwater.event import Issue, Rejection
from headwater.resolve.client_sessions import SessionIds
from headwater.store.clickhouse import EVENTS, REJECTED, Load, Range, Store, Tally
from headwater.store.rows import Source, events_batch, rejected_batch
from headwater.store.schema import schema_files, statements
from tests.store.made import APP, AT, insert, make_event, make_request

COLUMNS = {
    "events": "event_id request_id account dialect scope kind name occurred_at received_at "
    "person_id session_id identities properties context issues transport "
    "page country device os browser bot",
    "people": "account person_id first_seen last_seen properties identities events",
    "sessions": "account session_id person_id dialect started_at ended_at events errors derived "
    "scope session over",
    "merges": "account at kept gone cause undone_at merge_id",
    "identities": "account person_id namespace scope value strength shared first_seen last_seen "
    "events asserted_by",
    "profile_history": "account person_id key value at event_id dialect",
    "erasures": "account person_id erased_at receipt",
    "rejected": "request_id account dialect received_at reason detail request",
    "accounting": "account dialect received stored duplicate rejected in_flight",
}


@pytest.mark.parametrize("table", COLUMNS)
def test_the_views_have_the_columns_that_are_promised(store: Store, table: str) -> None:
    assert store.query(f"SELECT * FROM {table}").columns == COLUMNS[table].split()


def test_stored_fields_follow_from_the_event(store: Store) -> None:
    device = {"kind": "mobile", "os": "iOS", "browser": "Safari"}
    context = {"page": "/a?b#c", "country": "NL", "bot": False, "device": device}
    insert(store, make_event(context=context))
    fields = "page, country, device, os, browser, bot"
    assert store.query(f"SELECT {fields} FROM events").rows == [
        ["/a", "NL", "mobile", "iOS", "Safari", "false"]
    ]


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("", ""),
        (1, "1"),
        (True, "true"),
        ([1, "x", None], "[1,'x',NULL]"),
        ({"a": 1}, None),
        ("x" * 100_000, "x" * 100_000),
    ],
)
def test_stored_fields_take_whatever_stands_there(store: Store, odd: Any, said: str | None) -> None:
    """One that could not be computed would stop the load."""
    device = {"kind": odd, "os": odd, "browser": odd}
    insert(
        store,
        make_event(0, context={"page": odd, "country": odd, "bot": odd, "device": device}),
        make_event(1, context={"device": odd}, properties={"url": odd}),
        make_event(2, context={"referrer": odd}, properties={"page": odd}),
    )
    pixel = make_request(dialect="orbee")
    insert(store, make_event(kind="page", context={"referrer": odd}), request=pixel, batch=2)
    fields = "page, country, device, os, browser, bot"
    rows = store.query(f"SELECT {fields} FROM events ORDER BY dialect, context.bot IS NULL").rows
    assert rows[0] == [said or None, *[said] * 5]
    assert [row[0] for row in rows[1:]] == [said or None] * 3


def test_an_event_is_read_back_as_it_was(store: Store) -> None:
    event = make_event(
        occurred_at=AT - 1,
        properties={"n": 1, "f": 1.5, "b": True, "s": "2020-01-01", "l": [1, "x", True, None]},
        context={"page": "/"},
        issues=[Issue("tz_assumed", "date")],
        name='it\'s \\ "{}" \0 \u2028 =1+1',
    )
    request = insert(store, event)
    found = store.query("SELECT * FROM events")
    row = dict(zip(found.columns, found.rows[0], strict=True))
    assert row["request_id"] == UUID(bytes=request.request_id)
    assert (row["account"], row["dialect"], row["scope"]) == ("acme", "nucleus", APP)
    assert (row["kind"], row["name"], row["transport"]) == ("track", event.name, "http")
    assert row["occurred_at"] == datetime.fromtimestamp((AT - 1) / 1e6, UTC)
    assert row["received_at"] == datetime.fromtimestamp(AT / 1e6, UTC)
    assert row["person_id"] is None
    assert isinstance(row["session_id"], UUID)
    assert row["identities"] == [
        {"namespace": "nucleus:user", "value": "u1"},
        {"namespace": "nucleus:device", "value": "d1"},
    ]
    assert row["properties"] == event.properties
    assert row["context"] == {"page": "/", "ip": "192.0.2.7", "user_agent": "curl/8.5"}
    assert row["issues"] == ["tz_assumed: date"]


def test_what_later_work_needs_stands_beside_the_view(store: Store) -> None:
    event = make_event(
        profile_set={"plan": "pro"}, profile_unset=["old"], raw={"type": None, "id": 2**60}
    )
    insert(store, event)
    rows = store.writing().rows(
        "SELECT profile_set, profile_unset, raw, session, identities FROM " + EVENTS
    )
    assert rows[0][:4] == (
        '{"plan":"pro"}',
        ["old"],
        '{"type":null,"id":1152921504606846976}',
        "4821",
    )
    assert rows[0][4][0] == {
        "namespace": "nucleus:user",
        "scope": APP,
        "value": "u1",
        "strength": "strong",
        "denied": False,
    }


@pytest.mark.parametrize("at", [-2_000_000_000_000_000, 0, 32_503_680_000_000_000 // 4])
def test_times_of_other_centuries_are_stored(store: Store, at: int) -> None:
    insert(store, make_event(occurred_at=at), request=make_request(received_at=at))
    ((micros,),) = store.query("SELECT toUnixTimestamp64Micro(occurred_at) FROM events").rows
    assert micros == at


def poison(batch: pa.RecordBatch, *rows: int) -> pa.RecordBatch:
    """The batch with something that is no JSON in some rows, as a bug of ours might make it."""
    texts = batch.column("properties_text").to_pylist()
    for row in rows:
        texts[row] = b'{"a": 1e999'
    index = batch.schema.get_field_index("properties_text")
    return batch.set_column(index, batch.schema.field(index), pa.array(texts, pa.binary()))


def test_one_unstorable_row_never_stops_the_others(store: Store) -> None:
    events = [make_event(index, context={"n": index % 7}) for index in range(100)]
    batch = events_batch(events, [Source(make_request(), 0, 1, 0, 100)], SessionIds())
    store.insert_events(poison(batch, 13, 14, 99))
    rows = store.query(
        "SELECT count(), uniqExact(event_id), countIf(has(JSONAllPaths(properties), '_text')), "
        "anyIf(properties._text::String, properties._text IS NOT NULL) FROM events"
    ).rows
    assert rows == [[100, 100, 3, '{"a": 1e999']]
    ((issues,),) = store.query("SELECT groupUniqArrayArray(issues) FROM events").rows
    assert issues == ["kept_as_text: refused by the store"]


def test_rows_that_made_it_before_an_error_are_not_doubled(store: Store) -> None:
    events = [make_event(index) for index in range(10)]
    batch = events_batch(events, [Source(make_request(), 0, 1, 0, 10)], SessionIds())
    store.insert_events(batch.slice(0, 4))
    store.insert_events(poison(batch, 9))
    assert store.query("SELECT count(), uniqExact(event_id) FROM events").rows == [[10, 10]]


def test_the_same_rows_sent_twice_are_there_once(store: Store) -> None:
    # A place of its own: the engine remembers what other tests have sent.
    batch = events_batch([make_event(5)], [Source(make_request(), 9, 99, 9, 1)], SessionIds())
    store.insert_events(batch)
    store.insert_events(batch)
    assert store.query("SELECT count() FROM events").rows == [[1]]


def test_more_rows_than_one_insert_takes_are_all_stored(store: Store) -> None:
    count = limits.load_events_max + 1
    events = [make_event(index) for index in range(count)]
    batch = events_batch(events, [Source(make_request(), 8, 1, 0, count)], SessionIds())
    store.insert_events(batch)
    assert store.query("SELECT count() FROM events").rows == [[count]]


def test_rejected_rows_say_why(store: Store) -> None:
    request = make_request(body=b"{")
    rejection = Rejection(index=0, reason="bad_json", detail="truncated")
    store.insert_rejected(rejected_batch([rejection], [Source(request, 0, 1, 0, 1)]))
    ((found,),) = store.query("SELECT (reason, detail, request) FROM rejected").rows
    assert list(found)[:2] == ["bad_json", "truncated"]
    assert found[2].endswith("\n\n{")


# --- the books ---------------------------------------------------------------------------------


def load(writer: int, after: int, last: int, step: int, **tallies: Tally) -> Load:
    books = {("acme", dialect): tally for dialect, tally in tallies.items()}
    return Load(Range(writer, after, last, last - after), step, books)


def books(store: Store) -> dict[str, list[int]]:
    return {row[1]: row[2:] for row in store.query("SELECT * FROM accounting").rows}


def test_the_books_add_up_loads_and_what_is_in_flight(store: Store) -> None:
    store.insert_loads([load(0, 0, 5, 1, vaix=Tally(7, 2, 1))], version=1)
    store.insert_loads([load(1, 0, 5, 2, vaix=Tally(1, 0, 0), orbee=Tally(0, 0, 1))], version=2)
    assert books(store) == {"vaix": [11, 8, 2, 1, 0], "orbee": [1, 0, 0, 1, 0]}
    store.write_in_flight(2, {("acme", "vaix"): 4, ("acme", "gamooga"): 1, ("o'b\\", "vaix"): 2})
    rows = store.query("SELECT * FROM accounting").rows
    assert ["acme", "vaix", 15, 8, 2, 1, 4] in rows
    assert ["acme", "gamooga", 1, 0, 0, 0, 1] in rows
    assert ["o'b\\", "vaix", 2, 0, 0, 0, 2] in rows


def test_a_load_after_the_snapshot_is_still_in_flight_in_it(store: Store) -> None:
    store.insert_loads([load(0, 0, 5, 1, vaix=Tally(7))], version=1)
    store.write_in_flight(1, {("acme", "vaix"): 3})
    store.insert_loads([load(0, 5, 6, 2, vaix=Tally(3))], version=2)
    assert books(store) == {"vaix": [10, 7, 0, 0, 3]}
    store.write_in_flight(2, {})
    assert books(store) == {"vaix": [10, 10, 0, 0, 0]}


def test_a_range_written_again_counts_once(store: Store) -> None:
    store.insert_loads([load(0, 0, 5, 1, vaix=Tally(7, 0, 1))], version=1)
    store.insert_loads([load(0, 0, 5, 1, vaix=Tally(8, 0, 0))], version=2)
    assert books(store) == {"vaix": [8, 8, 0, 0, 0]}


def test_folded_books_say_the_same_and_keep_the_watermark(store: Store) -> None:
    for step in range(1, 6):
        done = load(0, step - 1, step, step, vaix=Tally(step, 1, 0), orbee=Tally(1))
        store.insert_loads([done], version=AT + step)
    store.insert_loads([Load(Range(1, 0, 9, 0), 6, {})], version=AT)
    before = books(store)
    for until in (AT + 3, AT + 5, AT + 5, AT + 10):
        store.fold_loads(until)
        assert books(store) == before
        assert store.watermarks() == {0: 5, 1: 9}
        assert store.last_step() == 6
    ((rows,),) = store.writing().rows("SELECT count() FROM headwater_store.loads")
    assert rows == 3
    store.insert_loads([load(0, 5, 6, 7, vaix=Tally(1))], version=AT + 20)
    assert books(store)["vaix"][1] == before["vaix"][1] + 1


def test_a_fold_that_was_cut_short_counts_nothing_twice(store: Store) -> None:
    for step in range(1, 4):
        store.insert_loads([load(0, step - 1, step, step, vaix=Tally(step))], version=AT + step)
    store.writing().command(
        "INSERT INTO headwater_store.loads SELECT writer, 0, 2, 0, account, dialect, "
        "sum(received), sum(stored), 0, 0, max(step), 1, max(version), max(loaded_at) "
        "FROM headwater_store.loads "
        "WHERE last <= 2 GROUP BY writer, account, dialect"
    )
    assert books(store) == {"vaix": [6, 6, 0, 0, 0]}
    store.fold_loads(AT + 10)
    assert books(store) == {"vaix": [6, 6, 0, 0, 0]}


def test_places_beyond_the_watermarks_are_found(store: Store) -> None:
    for batch in (1, 2, 3):
        insert(store, make_event(4), batch=batch)
    assert store.places_after(EVENTS, {0: 2}) == {(0, 3, 0, 4)}
    assert store.places_after(EVENTS, {7: 2}) == {(0, batch, 0, 4) for batch in (1, 2, 3)}
    assert len(store.places_after(EVENTS, {})) == 3
    assert store.places_after(REJECTED, {}) == set()


# --- schema, formats, connections --------------------------------------------------------------


def test_the_schema_may_be_applied_again(store: Store) -> None:
    insert(store, make_event())
    for _, sql in schema_files():
        for statement in statements(sql):
            store.writing().command(statement)
    store.migrate()
    assert store.query("SELECT count() FROM events").rows == [[1]]


def test_the_store_of_a_newer_headwater_is_refused(store: Store) -> None:
    newer = schema_files()[-1][0] + 1
    writing = store.writing()
    writing.command(f"INSERT INTO headwater_store.schema_versions (version) VALUES ({newer})")
    try:
        with pytest.raises(DataError, match=f"version {newer}") as refused:
            store.migrate()
        assert "newer Headwater" in refused.value.remedy
    finally:
        writing.command(f"DELETE FROM headwater_store.schema_versions WHERE version = {newer}")


def test_answers_come_in_the_formats_of_clickhouse(store: Store) -> None:
    insert(store, make_event())
    table = parquet.read_table(io.BytesIO(store.query_bytes("SELECT * FROM events", "Parquet")))
    assert table.num_rows == 1
    assert table.column_names == COLUMNS["events"].split()
    lines = store.query_bytes("SELECT name FROM events", "JSONEachRow")
    assert lines == b'{"name":"PLAYED_TRACK"}\n'


def test_an_answer_without_rows_has_its_columns(store: Store) -> None:
    found = store.query("SELECT name, received_at FROM events WHERE 0")
    assert found.columns == ["name", "received_at"]
    assert found.types == ["LowCardinality(String)", "DateTime64(6, 'UTC')"]
    assert found.rows == []


def test_what_a_failed_query_had_put_out_is_not_in_the_next_answer(store: Store) -> None:
    for _ in range(limits.query_parallel_max + 1):
        with pytest.raises(QueryRefused):
            store.query("SELECT number FROM numbers(1000001)")
    assert store.query("SELECT 'clean'").rows == [["clean"]]


def test_a_store_that_fails_says_so_in_our_words(store: Store) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        store.writing().command("SELECT * FROM nowhere")
