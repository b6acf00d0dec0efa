"""The console's API on one request and the events it became: ``/api/requests``, ``/api/events``.

What is found comes in as one argument (:class:`Inspecting`), so that nothing here knows how a
request is kept. Everything that a client sent is text in these answers, never an address or markup.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from headwater.decode.leaves import Leaf
from headwater.decode.request_text import Piece
from headwater.decode.words import Said
from headwater.view.access import Who
from headwater.view.api import Asked, Endpoint


class LeafShown(msgspec.Struct, frozen=True, kw_only=True):
    """One value of the request, as ``decode.leaves.Leaf`` says; `words` say where it is."""

    part: str
    name: str
    pointer: str
    start: int
    end: int
    text: str
    words: str


class FieldShown(msgspec.Struct, frozen=True, kw_only=True):
    """One field of an event: `value` is JSON text, cut where it is long. `came_from` and
    `decided_by` are numbers of the request's leaves; `rule` says in words what no leaf does."""

    path: str
    value: str
    came_from: list[int]
    decided_by: list[int]
    rule: str


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A field in which the stored event is not what the decoder says now; both as text."""

    field: str
    now: str
    stored: str


class EventShown(msgspec.Struct, kw_only=True):
    """One event. `status`: stored, duplicate, in flight (journaled, and stored within moments), not
    stored, dry run. `differs` is None where it was not compared. Times are ISO 8601, UTC."""

    index: int
    event_id: str
    status: str
    note: str = ""
    kind: str = ""
    name: str = ""
    scope: str = ""
    occurred_at: str = ""
    person_id: str | None = None
    session_id: str | None = None
    copy_of: str | None = None
    issues: list[Said] = msgspec.field(default_factory=list)
    fields: list[FieldShown] = msgspec.field(default_factory=list)
    differs: list[Difference] | None = None
    cut: str = ""


class RejectedShown(msgspec.Struct, frozen=True, kw_only=True):
    """One item that became no event. `stored`: it is a row of `rejected`."""

    index: int
    said: Said
    piece: str
    stored: bool


class RequestShown(msgspec.Struct, kw_only=True):
    """A request and what became of it.

    `wire` is the request as it came, in pieces that name the leaves they are (Authorization and
    cookies but _vt_user are never kept); `readable` is the same laid out, escapes undone.
    `body_bytes` counts the body as it was sent, `encoding` says how it was compressed. `in_journal`
    is false where the journal no longer has it; `note` says why, and then only what is stored is
    shown.
    """

    request_id: str
    account: str
    dialect: str
    in_journal: bool
    note: str = ""
    received_at: str = ""
    transport: str = ""
    peer: str = ""
    method: str = ""
    target: str = ""
    endpoint: str = ""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body_bytes: int = 0
    body_left_out_bytes: int = 0
    encoding: str = ""
    refused: bool = False
    wire: list[Piece] = msgspec.field(default_factory=list)
    readable: list[Piece] = msgspec.field(default_factory=list)
    leaves: list[LeafShown] = msgspec.field(default_factory=list)
    events: list[EventShown] = msgspec.field(default_factory=list)
    more_events: int = 0
    rejected: list[RejectedShown] = msgspec.field(default_factory=list)
    more_rejected: int = 0
    heartbeats: int = 0


class EventAndRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An event, by its id, and the request that it came in."""

    event_id: str
    request: RequestShown


class InspectQuery(msgspec.Struct, frozen=True):
    """`event_id`: of a request with many events, this one is shown with its provenance."""

    event_id: str = ""


class Inspecting(Protocol):
    """What the endpoints ask; blocks. Raises NotFound for what is not there or not to be seen,
    WrongUse for what is no id, StoreError, JournalDamaged."""

    def request(self, request_id: str, who: Who, event_id: str = "") -> RequestShown:
        """A request by its id."""
        ...

    def event(self, event_id: str, who: Who) -> EventAndRequest:
        """An event by its id."""
        ...


def leaf_shown(leaf: Leaf) -> LeafShown:
    """A leaf with its words."""
    return LeafShown(
        part=leaf.part,
        name=leaf.name,
        pointer=leaf.pointer,
        start=leaf.start,
        end=leaf.end,
        text=leaf.text,
        words=leaf.words,
    )


def endpoints(inspecting: Inspecting) -> list[Endpoint]:
    """For the console's API."""

    def request(asked: Asked) -> RequestShown:
        return inspecting.request(asked.path["request_id"], asked.who, asked.query.event_id)

    def event(asked: Asked) -> EventAndRequest:
        return inspecting.event(asked.path["event_id"], asked.who)

    return [
        Endpoint(
            method="GET",
            path="/api/requests/{request_id}",
            summary="A request as it came, the events it became, and where each field came from.",
            answer=RequestShown,
            handle=request,
            query=InspectQuery,
        ),
        Endpoint(
            method="GET",
            path="/api/events/{event_id}",
            summary="One event with its request, as /api/requests shows it.",
            answer=EventAndRequest,
            handle=event,
        ),
    ]
