"""Events and requests to fill a store with."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from itertools import count
from typing import Any

from headwater.accept.request import Request
from headwater.event import Event, Identity
from headwater.resolve.client_sessions import SessionIds
from headwater.resolve.keys import NOBODY
from headwater.store.clickhouse import Store
from headwater.store.rows import Source, attributed, events_batch

AT = 1_795_226_263_000_000
#: Places of their own: the engine remembers which rows were sent before.
_BATCHES = count(1)
APP = "6387f260fae4a13be78fc664"


def make_request(**given: Any) -> Request:
    """A Nucleus request with an id of its own."""
    fields: dict[str, Any] = {
        "dialect": "nucleus",
        "method": "POST",
        "target": f"/app/{APP}/track",
        "account": "acme",
        "received_at": AT,
        "request_id": uuid.uuid4().bytes,
        "peer": "192.0.2.7",
        "headers": {"user-agent": "curl/8.5"},
        **given,
    }
    return Request(**fields)


def make_event(index: int = 0, **given: Any) -> Event:
    """An event of a known user and device."""
    fields: dict[str, Any] = {
        "index": index,
        "kind": "track",
        "name": "PLAYED_TRACK",
        "scope": APP,
        "identities": [
            Identity("nucleus:user", APP, "u1", "strong"),
            Identity("nucleus:device", APP, "d1", "context"),
        ],
        "session": "4821",
        "properties": {"trackName": "x"},
        **given,
    }
    return Event(**fields)


def insert(store: Store, *events: Event, request: Request | None = None, batch: int = 1) -> Request:
    """Store events as if they had come in one request of a batch."""
    request = request or make_request()
    source = Source(request, 0, batch, 0, len(events))
    store.insert_events(events_batch(events, [source], SessionIds()))
    return request


def an_id(number: int) -> bytes:
    """16 bytes that are no NOBODY."""
    return number.to_bytes(16, "big")


def insert_by(
    store: Store,
    *events: Event,
    subject: bytes = NOBODY,
    principal: bytes | None = None,
    keys: Sequence[bytes] = (),
    session: bytes | None = None,
    request: Request | None = None,
    batch: int | None = None,
) -> Request:
    """Store events as the loader does once it is known who did them: `principal` is the subject
    where none is given, `keys` are those of each event's identities."""
    request = request or make_request()
    rows = events_batch(
        events, [Source(request, 7, batch or next(_BATCHES), 0, len(events))], SessionIds()
    )
    store.insert_events(
        attributed(
            rows,
            subjects=[subject] * len(events),
            principals=[subject if principal is None else principal] * len(events),
            keys=[keys or [NOBODY] * len(one.identities) for one in events],
            sessions=[session] * len(events),
        )
    )
    return request
