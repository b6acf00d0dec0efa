"""Erasing rows: afterwards no file of the store has a byte of them."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from headwater.event import Event, Identity, Rejection
from headwater.resolve.client_sessions import SessionIds
from headwater.resolve.keys import NOBODY
from headwater.store.clickhouse import EVENTS, REJECTED, Store
from headwater.store.comparing import Comparing
from headwater.store.erasing import StoreErasing
from headwater.store.people import PeopleStore
from headwater.store.rows import Source, events_batch, places_of, rejected_batch
from tests.store.made import AT, an_id, insert_by, make_event, make_request
from tests.store.opened import store_folder

S, W, V = an_id(1), an_id(2), an_id(3)
CANARY = "canary7f3a91c2"
USER = Identity("nucleus:user", "app", CANARY, "strong")


def files_with(text: str) -> list[Path]:
    """The files of the store that hold `text`; they are small enough not to be compressed away."""
    wanted = text.encode()
    found = []
    for path in store_folder().rglob("*"):
        try:
            if path.is_file() and wanted in path.read_bytes():
                found.append(path)
        except FileNotFoundError:
            continue  # a part that went meanwhile
    return found


def canary(index: int = 0) -> Event:
    return make_event(
        index,
        occurred_at=AT + index,
        name=CANARY,
        identities=[USER],
        session=CANARY,
        profile_set={"a": CANARY},
        raw={"type": CANARY},
    )


def test_the_rows_of_a_person_are_found_as_a_reader_sees_them(store: Store) -> None:
    first = insert_by(store, canary(3), subject=S, keys=[S], batch=901)
    insert_by(store, canary(), subject=W, keys=[NOBODY], batch=902)
    insert_by(store, canary(), subject=V, keys=[V], batch=903)
    PeopleStore(store.writing()).write_attributions([(W, [(b"", S)])])
    erasing = StoreErasing(store.writing())
    found = sorted(erasing.rows_of("acme", [S]), key=lambda row: row.place)
    assert [(row.place, row.keys) for row in found] == [((7, 901, 0, 3), [S]), ((7, 902, 0, 0), [])]
    assert found[0].request_id == first.request_id
    sql = f"SELECT event_id FROM events WHERE person_id = '{UUID(bytes=S)}'"
    shown = {row[0] for row in store.query(sql).rows}
    assert {UUID(bytes=row.event_id) for row in found} == shown
    assert erasing.rows_of("other", [S]) == []
    assert erasing.rows_of("acme", []) == []


def test_erased_rows_are_gone_from_the_disk_and_the_others_are_there(store: Store) -> None:
    for batch in (911, 912):
        insert_by(store, canary(), canary(1), make_event(2), subject=S, batch=batch)
    insert_by(store, make_event(name="kept"), subject=V, batch=913)
    rejection = Rejection(index=0, reason="bad_json", detail=CANARY)
    source = Source(make_request(body=CANARY.encode()), 7, 914, 0, 1)
    store.insert_rejected(rejected_batch([rejection], [source]))
    assert files_with(CANARY)
    erasing = StoreErasing(store.writing())
    places = [row.place for row in erasing.rows_of("acme", [S]) if row.place[3] < 2]
    assert len(places) == 4
    assert erasing.delete_events([*places, (7, 999_999, 0, 0)]) == 4
    assert erasing.delete_rejected([(7, 914, 0, 0)]) == 1
    assert files_with(CANARY) == []
    assert files_with("kept")
    assert store.query("SELECT count() FROM events").rows == [[3]]
    assert store.query("SELECT count() FROM rejected").rows == [[0]]
    assert erasing.delete_events(places) == 0
    assert erasing.delete_events([]) == 0
    for table in (EVENTS, REJECTED):
        ((sql,),) = store.writing().rows(f"SHOW CREATE TABLE {table}")
        assert "lifetime" not in sql
        assert "min_rows_to_fsync_after_merge = 1" in sql


def test_what_a_replay_has_masked_or_left_behind_goes_too(store: Store) -> None:
    insert_by(store, canary(), make_event(1), subject=S, batch=921)
    writing = store.writing()
    writing.command(f"DELETE FROM {EVENTS} WHERE idx = 0")  # as a replay does
    source = Source(make_request(), 7, 922, 0, 1)
    batch = events_batch([canary()], [source], SessionIds())
    Comparing(store).stage(batch, rejected_batch([], []))
    insert_by(store, canary(), subject=S, batch=922)
    assert files_with(CANARY)
    StoreErasing(writing).delete_events(places_of(batch))
    assert files_with(CANARY) == []
    assert store.query("SELECT count() FROM events").rows == [[1]]
