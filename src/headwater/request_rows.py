"""What the store says of one request: its rows, its first copies elsewhere, and whether a row is
still what the decoder says.

Rows are found by the request's id, whose time bounds what is read. The comparison lets the store
write both sides of its JSON columns, since it orders keys and drops nulls in its own way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from headwater import limits
from headwater.accept.request import Request
from headwater.decode import words
from headwater.event import Event
from headwater.journal.journal import Position
from headwater.people import Ask
from headwater.person_rows import NOBODY
from headwater.resolve.client_sessions import SessionIds
from headwater.store.fit import json_text
from headwater.store.rows import Source, event_ids, events_batch, uuid_text
from headwater.view.inspect import Difference, EventShown, FieldShown, RejectedShown

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: A request id's time and its received_at are from one clock, read twice.
_ID_SLACK = timedelta(seconds=5)
#: A first copy is at most so much older than a duplicate of it.
_COPY = timedelta(days=9)
_VALUE_CHARACTERS_MAX = 2_000
_PIECE_CHARACTERS_MAX = 16_384
_COMPARED_BYTES_MAX = 65_536

_STORED = (
    "SELECT event_id, idx, account, dialect, scope, kind, name, "  # noqa: S608
    f"occurred_at, received_at, nullIf(person, toUUID('{NOBODY}')) AS person_id, "
    "session_now AS session_id, session, "
    "arrayMap(one -> [one.namespace, one.scope, one.value, one.strength, toString(one.denied)], "
    "identities) AS identities, toJSONString(properties) AS properties, "
    "toJSONString(context) AS context, profile_set, profile_unset, raw, issues, transport "
    "FROM headwater_store.events_rows WHERE {account:String} IN ('', account) "
    "AND received_at BETWEEN {since:DateTime64(6, 'UTC')} AND {until:DateTime64(6, 'UTC')} "
    "AND request_id = {id:UUID} AND (empty({ids:Array(UUID)}) OR has({ids:Array(UUID)}, event_id)) "
    "ORDER BY idx LIMIT {rows:UInt32}"
)
_REJECTED = (
    "SELECT account, dialect, item, reason, detail, request_text AS request "
    "FROM headwater_store.rejected_rows WHERE {account:String} IN ('', account) "
    "AND received_at BETWEEN {since:DateTime64(6, 'UTC')} AND {until:DateTime64(6, 'UTC')} "
    "AND request_id = {id:UUID} ORDER BY idx LIMIT {rows:UInt32}"
)
_FIRST_COPIES = (
    "SELECT event_id, request_id, "  # noqa: S608
    f"nullIf(person, toUUID('{NOBODY}')) AS person_id, session_now AS session_id "
    "FROM headwater_store.events_rows WHERE account = {account:String} "
    "AND received_at BETWEEN {since:DateTime64(6, 'UTC')} AND {until:DateTime64(6, 'UTC')} "
    "AND event_id IN {ids:Array(UUID)}"
)
_WHOSE = (
    "SELECT account, request_id FROM headwater_store.events_rows "
    "PREWHERE event_id = {id:UUID} LIMIT 1"
)
_AS_STORED = (
    "SELECT toJSONString(CAST({properties:String}, 'JSON')) AS properties, "
    "toJSONString(CAST({context:String}, 'JSON')) AS context"
)
_COMPARED = (
    *("kind", "name", "scope", "occurred_at", "session", "identities", "properties", "context"),
    *("profile_set", "profile_unset", "raw", "issues"),
)


class Found(msgspec.Struct, frozen=True):
    """A request of the journal, and where it stands."""

    request: Request
    position: Position
    number: int


class RequestRows:
    """Any thread. Methods raise StoreError, QueryRefused."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def whose(self, event_id: str) -> tuple[str, str] | None:
        """The account and request id of a stored event."""
        rows = self._ask(_WHOSE, {"id": event_id})
        return (rows[0]["account"], rows[0]["request_id"]) if rows else None

    def events(self, ident: UUID, ids: Sequence[str], *, account: str = "") -> list[dict[str, Any]]:
        """The event rows of a request, those of `ids` where any are given; at most as many as one
        page shows."""
        of = {"account": account, "id": str(ident), "ids": list(ids), **_window(ident)}
        return self._ask(_STORED, {**of, "rows": limits.inspect_events_max})

    def rejected(self, ident: UUID, *, account: str = "") -> list[dict[str, Any]]:
        """The rejected rows of a request, at most as many as one page shows."""
        of = {"account": account, "id": str(ident), **_window(ident)}
        return self._ask(_REJECTED, {**of, "rows": limits.inspect_events_max})

    def first_copies(self, request: Request, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """By event id, the stored events of other requests that `ids` are copies of."""
        if not ids:
            return {}
        at = _moment(request.received_at)
        of = {"account": request.account, "ids": list(ids)}
        around = {"since": _sql_time(at - _COPY), "until": _sql_time(at + _COPY)}
        return {row["event_id"]: row for row in self._ask(_FIRST_COPIES, {**of, **around})}

    def differences(
        self, found: Found, event: Event, row: Mapping[str, Any]
    ) -> list[Difference] | None:
        """In what a stored row is not what would be stored now; None where the event is too large
        to be compared here."""
        source = Source(found.request, found.position.writer, found.position.batch, found.number, 1)
        (made,) = events_batch([event], [source], SessionIds()).to_pylist()
        texts = {name: made[f"{name}_text"].decode() for name in ("properties", "context")}
        if sum(map(len, texts.values())) > _COMPARED_BYTES_MAX:
            return None
        (as_json,) = self._ask(_AS_STORED, texts)
        now = {
            **made,
            **as_json,
            "occurred_at": made["occurred_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "identities": [
                [
                    *(one[name] for name in ("namespace", "scope", "value", "strength")),
                    "true" if one["denied"] else "false",
                ]
                for one in made["identities"]
            ],
            "profile_set": made["profile_set"].decode(),
            "raw": made["raw"].decode(),
        }
        return [
            Difference(field=name, now=_text(now[name]), stored=_text(row[name]))
            for name in _COMPARED
            if now[name] != row[name]
        ]


def ids_of(request: Request, events: Sequence[Event]) -> list[str]:
    """The ids that events are stored under."""
    return [uuid_text(one) for one in event_ids(events, [request] * len(events)).to_pylist()]


def event_of_row(row: Mapping[str, Any]) -> EventShown:
    """An event of which only the row is left."""
    return EventShown(
        index=row["idx"],
        event_id=row["event_id"],
        status="stored",
        kind=row["kind"],
        name=row["name"],
        scope=row["scope"],
        occurred_at=row["occurred_at"],
        person_id=row["person_id"],
        session_id=row["session_id"],
        issues=[words.issue(row["dialect"], text) for text in row["issues"]],
        fields=[
            FieldShown(
                path=name,
                value=_text(row[name])[:_VALUE_CHARACTERS_MAX],
                came_from=[],
                decided_by=[],
                rule="as stored: the request is gone",
            )
            for name in _COMPARED
            if row[name] not in ("", "{}", [])
        ],
    )


def rejected_of_row(row: Mapping[str, Any]) -> RejectedShown:
    """A rejected item as it is stored."""
    return RejectedShown(
        index=row["item"],
        said=words.reason(row["dialect"], row["reason"], row["detail"]),
        piece=row["request"][:_PIECE_CHARACTERS_MAX],
        stored=True,
    )


def _window(ident: UUID) -> dict[str, str]:
    """When a request of that id (a UUIDv7) came, so that few rows are read."""
    at = _moment(int.from_bytes(ident.bytes[:6], "big") * 1_000)
    return {"since": _sql_time(at - _ID_SLACK), "until": _sql_time(at + _ID_SLACK)}


def _moment(at: int) -> datetime:
    """Microseconds since 1970 as a time; the store's first or last where that is beyond it."""
    return _EPOCH + timedelta(microseconds=min(max(at, 0), 10_413_000_000_000_000))


def _sql_time(at: datetime) -> str:
    """A time as the store writes it."""
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value).decode("utf-8", "replace")
