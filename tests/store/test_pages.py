"""What makes ten million events fit into a second: which columns a question reads."""

from __future__ import annotations

import re
from uuid import UUID

import pytest

from headwater.event import Identity
from headwater.store.clickhouse import Store
from headwater.store.people import PeopleStore
from tests.store.made import AT, an_id, insert_by, make_event

S, W, V = an_id(1), an_id(2), an_id(3)
SECOND = 1_000_000
ANON = Identity("nucleus:anon", "app", "a1", "weak")
#: What the long way needs besides.
ORDER = {"ordered_at", "request_id"}


def read(store: Store, column: str) -> set[str]:
    """The columns that a question about one of `events_rows` reads."""
    lines = store.writing().rows(
        f"EXPLAIN header = 1 SELECT max({column}) FROM headwater_store.events_rows"
    )
    text = "\n".join(str(row[0]) for row in lines)
    header = text[text.index("ReadFromMergeTree") :]
    return set(re.findall(r"(\w+) (?:UUID|Nullable|LowCardinality|DateTime64|UInt)", header))


def persons(store: Store) -> list[UUID]:
    rows = store.query("SELECT person_id FROM events ORDER BY occurred_at").rows
    return [row[0] for row in rows]


def test_who_did_it_is_read_from_two_columns_until_time_decides(store: Store) -> None:
    people = PeopleStore(store.writing())
    for seconds in (0, 1, 2):
        insert_by(store, make_event(occurred_at=AT + seconds * SECOND), subject=W, keys=[W, W])
    assert persons(store) == [UUID(bytes=W)] * 3
    assert read(store, "person") == {"subject", "principal"}
    people.write_attributions([(W, [(b"", S)])])
    assert persons(store) == [UUID(bytes=S)] * 3
    assert read(store, "person") == {"subject", "principal"}
    ((order,),) = store.writing().rows(
        "SELECT CAST(event_order, 'FixedString(36)') FROM headwater_store.events_rows "
        "ORDER BY event_order LIMIT 1 OFFSET 1"
    )
    people.write_attributions([(W, [(b"", S), (bytes(order), V)])])
    assert persons(store) == [UUID(bytes=S), UUID(bytes=V), UUID(bytes=V)]
    assert read(store, "person") >= {"subject", "principal", *ORDER}
    people.write_aliases([(V, S)])
    assert persons(store) == [UUID(bytes=S)] * 3


def test_two_ids_that_share_64_bits_are_told_apart(store: Store) -> None:
    one, other = bytes(range(16)), bytes(range(8)) + bytes(8)
    assert store.writing().rows(
        f"SELECT reinterpretAsUInt64(toUUID('{UUID(bytes=one)}')) = "
        f"reinterpretAsUInt64(toUUID('{UUID(bytes=other)}'))"
    ) == [(1,)]
    insert_by(store, make_event(occurred_at=AT), subject=one, keys=[one, one])
    insert_by(store, make_event(occurred_at=AT + SECOND), subject=other, keys=[other, other])
    people = PeopleStore(store.writing())
    people.write_attributions([(one, [(b"", S)])])
    assert persons(store) == [UUID(bytes=S), UUID(bytes=other)]
    people.write_aliases([(other, V)])
    assert persons(store) == [UUID(bytes=S), UUID(bytes=V)]


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (f"event_id = '{UUID(bytes=S)}'", "by_event"),
        (f"session_id = '{UUID(bytes=S)}'", "by_session"),
        ("hasAny(identities.value, ['u1'])", "by_value"),
    ],
)
def test_one_of_many_is_found_by_a_filter(store: Store, where: str, index: str) -> None:
    insert_by(store, make_event(identities=[ANON]), subject=W, keys=[W])
    lines = store.writing().rows(
        f"EXPLAIN indexes = 1 SELECT count() FROM headwater_store.events_rows WHERE {where}"
    )
    assert index in "\n".join(str(row[0]) for row in lines)
