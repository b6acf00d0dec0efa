"""Events and rejections as columns."""

from __future__ import annotations

from uuid import UUID

import pyarrow as pa
import pytest

from headwater.event import Identity, Rejection
from headwater.resolve.client_sessions import SessionIds
from headwater.resolve.keys import NOBODY
from headwater.store.rows import (
    Source,
    attributed,
    event_ids,
    events_batch,
    grouped,
    places_of,
    readable,
    rejected_batch,
)
from tests.store.made import APP, AT, an_id, make_event, make_request


def test_event_ids_are_uuids_of_version_8_and_the_same_every_time() -> None:
    request = make_request()
    events = [make_event(0), make_event(1), make_event(2, dedupe=b"\xff" * 16)]
    ids = [UUID(bytes=one) for one in event_ids(events, [request] * 3).to_pylist()]
    again = [UUID(bytes=one) for one in event_ids(events, [request] * 3).to_pylist()]
    assert ids == again
    assert len(set(ids)) == 3
    assert {one.version for one in ids} == {8}
    assert {one.variant for one in ids} == {"specified in RFC 4122"}


def test_one_dedupe_key_is_one_event_id_whatever_the_request() -> None:
    event = make_event(dedupe=bytes(range(16)))
    first = event_ids([event], [make_request()]).to_pylist()
    assert first == event_ids([event], [make_request()]).to_pylist()
    assert bytes(range(16))[:6] == first[0][:6]


def test_a_session_is_one_device_and_one_text() -> None:
    sessions = SessionIds()
    request = make_request()
    device = [Identity("nucleus:device", APP, "d1", "weak")]
    one = sessions.find(make_event(session="1", identities=device), request)
    assert one == SessionIds().find(make_event(session="1", identities=device), request)
    assert one == sessions.find(make_event(session="1", identities=device), request)
    others = [
        (make_event(session="2", identities=device), request),
        (
            make_event(session="1", identities=[Identity("nucleus:device", APP, "d2", "weak")]),
            request,
        ),
        (make_event(session="1", identities=device, scope="other"), request),
        (make_event(session="1", identities=device), make_request(account="other")),
    ]
    assert len({one, *(sessions.find(*other) for other in others)}) == 5


def test_a_login_during_a_session_does_not_begin_another() -> None:
    device = Identity("nucleus:device", APP, "d1", "weak")
    before = make_event(identities=[device])
    after = make_event(identities=[Identity("nucleus:user", APP, "u1", "strong"), device])
    request = make_request()
    assert SessionIds().find(before, request) == SessionIds().find(after, request)


def test_only_dialects_with_client_sessions_have_session_ids() -> None:
    assert SessionIds().find(make_event(), make_request(dialect="vaix")) is None
    assert SessionIds().find(make_event(session=None), make_request()) is None
    vibetrace = make_event(identities=[Identity("vibetrace:user", "A", "0111", "weak")])
    assert SessionIds().find(vibetrace, make_request(dialect="vibetrace")) is not None


def test_equal_contexts_are_put_together_and_no_row_is_lost() -> None:
    events = [make_event(i, context={"page": f"/{i % 3}"}) for i in range(10)]
    request = make_request()
    batch = events_batch(events, [Source(request, 3, 7, 1, 10)], SessionIds())
    together = grouped(batch)
    assert together.num_rows == 3
    assert sorted(together.column("idx").flatten().to_pylist()) == list(range(10))
    for context, indexes in zip(
        together.column("context_text").to_pylist(), together.column("idx").to_pylist(), strict=True
    ):
        assert {f'"/{index % 3}"'.encode() in context for index in indexes} == {True}


def test_rows_keep_their_place_and_what_their_request_said() -> None:
    first, second = make_request(), make_request(account="other", received_at=AT + 1)
    sources = [Source(first, 3, 7, 0, 2), Source(second, 3, 8, 5, 1)]
    batch = events_batch([make_event(0), make_event(1), make_event(4)], sources, SessionIds())
    assert places_of(batch) == [(3, 7, 0, 0), (3, 7, 0, 1), (3, 8, 5, 4)]
    assert batch.column("account").to_pylist() == ["acme", "acme", "other"]
    assert batch.column("request_id").to_pylist() == [first.request_id] * 2 + [second.request_id]


def test_the_request_adds_address_and_user_agent_where_the_decoder_found_none() -> None:
    own = make_event(1, context={"ip": "198.51.100.1", "user_agent": "own"})
    batch = events_batch([make_event(0), own], [Source(make_request(), 0, 1, 0, 2)], SessionIds())
    texts = batch.column("context_text").to_pylist()
    assert texts[0] == b'{"ip":"192.0.2.7","user_agent":"curl/8.5"}'
    assert texts[1] == b'{"ip":"198.51.100.1","user_agent":"own"}'


def test_what_happened_at_no_known_time_happened_when_it_arrived() -> None:
    events = [make_event(0), make_event(1, occurred_at=AT - 5), make_event(2, occurred_at=2**62)]
    batch = events_batch(events, [Source(make_request(), 0, 1, 0, 3)], SessionIds())
    assert batch.column("occurred_at").cast(pa.int64()).to_pylist() == [AT, AT - 5, AT]


def test_rows_are_nobodys_until_it_is_known_who_did_them() -> None:
    events = [make_event(0), make_event(1, identities=[]), make_event(2)]
    batch = events_batch(events, [Source(make_request(), 0, 1, 0, 3)], SessionIds())
    assert batch.column("keys").to_pylist() == [[NOBODY] * 2, [], [NOBODY] * 2]
    assert batch.column("subject").to_pylist() == [NOBODY] * 3
    keys = [[an_id(1), NOBODY], [], [an_id(1), an_id(2)]]
    who = [an_id(1), NOBODY, an_id(1)]
    found = attributed(
        batch, subjects=who, principals=who[::-1], keys=keys, sessions=[an_id(7), None, an_id(7)]
    )
    assert found.schema == batch.schema
    assert found.column("keys").to_pylist() == keys
    assert found.column("subject").to_pylist() == who
    assert found.column("principal").to_pylist() == who[::-1]
    assert found.column("session_id") == batch.column("session_id")


def test_derived_sessions_are_those_that_are_given() -> None:
    sources = [Source(make_request(dialect=name), 0, 1, 0, 1) for name in ("vaix", "nucleus")]
    batch = events_batch([make_event(0), make_event(0)], sources, SessionIds())
    given = attributed(
        batch,
        subjects=[NOBODY] * 2,
        principals=[NOBODY] * 2,
        keys=[[an_id(1)] * 2] * 2,
        sessions=[an_id(7), an_id(8)],
    )
    own = batch.column("session_id").to_pylist()[1]
    assert given.column("session_id").to_pylist() == [an_id(7), own]


def test_text_that_is_no_unicode_is_stored_as_its_escape() -> None:
    batch = events_batch(
        [make_event(name="a\ud800")], [Source(make_request(), 0, 1, 0, 1)], SessionIds()
    )
    assert batch.column("name").to_pylist() == ["a\\ud800"]


def test_a_rejected_row_shows_the_request_or_the_piece() -> None:
    request = make_request(body=b'{"data": "\xff"}', headers={"content-type": "text/plain"})
    rejections = [
        Rejection(index=0, reason="bad_json", detail="why"),
        Rejection(index=4, reason="missing_name", piece='{"id": 1}'),
    ]
    batch = rejected_batch(rejections, [Source(request, 1, 2, 3, 2)])
    whole, piece = batch.column("request_text").to_pylist()
    assert whole == f'POST /app/{APP}/track\ncontent-type: text/plain\n\n{{"data": "\\xff"}}'
    assert piece.endswith('\n\n{"id": 1}')
    assert batch.column("item").to_pylist() == [0, 4]
    assert places_of(batch) == [(1, 2, 3, 0), (1, 2, 3, 1)]


@pytest.mark.parametrize("body", [b"x" * 1_000_000, b"\xff" * 1_000_000])
def test_a_long_request_is_shown_in_part(body: bytes) -> None:
    text = readable(make_request(body=body))
    assert len(text) < 70_000
    assert text.endswith("the journal has all of it]")
