"""One request looked into: as it came, what the decoder makes of it now, and what is stored of it.

The journal has the request, the store says what became of it; both are asked by the request's id,
which carries its time. What the decoder says is computed on the spot, with the accounts, the
tracking plan and the country file in force, and compared with what is stored: they differ where a
replay would change something. A request that the journal no longer keeps is shown as far as the
store knows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from headwater import limits
from headwater.accept.encoding import EncodingError, inflate
from headwater.accept.request import Dialect, Request
from headwater.decode import words
from headwater.decode.leaves import Leaves
from headwater.decode.provenance import More, trace
from headwater.decode.request_text import Piece, as_it_came
from headwater.decoding import Judge
from headwater.errors import JournalDamaged, NotFound, WrongUse
from headwater.event import Decoded, Event, Rejection
from headwater.journal.journal import Position, Reader
from headwater.people import Ask
from headwater.request_rows import (
    Found,
    RequestRows,
    event_of_row,
    ids_of,
    rejected_of_row,
)
from headwater.store.fit import json_text
from headwater.store.rows import readable, uuid_text
from headwater.view.access import Who
from headwater.view.inspect import (
    EventAndRequest,
    EventShown,
    FieldShown,
    RejectedShown,
    RequestShown,
    leaf_shown,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PIECE_CHARACTERS_MAX = 16_384
_VALUE_CHARACTERS_MAX = 2_000


class Inspecting:
    """Any thread. `open_reader` opens the journal for one look; `marks` are the loader's."""

    def __init__(
        self,
        *,
        open_reader: Callable[[], Reader],
        dialects: Sequence[Dialect],
        judge: Judge,
        ask: Ask,
        marks: Callable[[], Mapping[int, int]],
    ) -> None:
        self._open_reader = open_reader
        self._dialects = {dialect.NAME: dialect for dialect in dialects}
        self._judge = judge
        self._rows = RequestRows(ask)
        self._marks = marks

    def request(self, request_id: str, who: Who, event_id: str = "") -> RequestShown:
        """See ``view.inspect.Inspecting``."""
        ident = _uuid(request_id)
        event = str(_uuid(event_id)) if event_id else ""
        found, unreadable = self.find(ident)
        if found is not None:
            if not who.may_see(found.request.account):
                raise _unknown("request", request_id)
            if found.request.erased is None:
                return self._shown(found, event)
        return self._without_journal(ident, who, event, found, unreadable)

    def event(self, event_id: str, who: Who) -> EventAndRequest:
        """See ``view.inspect.Inspecting``."""
        ident = str(_uuid(event_id))
        found = self._rows.whose(ident)
        if found is None or not who.may_see(found[0]):
            raise _unknown("event", event_id)
        return EventAndRequest(event_id=ident, request=self.request(found[1], who, ident))

    def find(self, ident: UUID) -> tuple[Found | None, str]:
        """The journal's request of that id; and what of the journal could not be read, in words."""
        reader = self._open_reader()
        try:
            for position in reader.find(request_id=ident.bytes):
                before = Position(position.writer, position.batch - 1)
                for batch in reader.read(before, batches_max=1, bytes_max=1):
                    for number, request in enumerate(batch.requests):
                        if request.request_id == ident.bytes:
                            return Found(request, batch.position, number), ""
        except JournalDamaged as error:
            return None, str(error)
        finally:
            reader.close()
        return None, ""

    # --- what the journal has -------------------------------------------------------------------

    def _shown(self, found: Found, event_id: str) -> RequestShown:
        request = found.request
        decoded = self._judge.replayed(request)
        shown = self.decoded(request, decoded, event_id, place=found)
        ident = UUID(bytes=request.request_id)
        ids = [event.event_id for event in shown.events]
        rows = self._rows.events(ident, ids, account=request.account) if ids else []
        stored = {row["event_id"]: row for row in rows}
        by_index = {event.index: event for event in decoded.events}
        for one in shown.events:
            if one.event_id in stored:
                one.differs = self._rows.differences(
                    found, by_index[one.index], stored[one.event_id]
                )
        loaded = self._marks().get(found.position.writer, 0) >= found.position.batch
        missing = [one for one in ids if one not in stored]
        copies = self._rows.first_copies(request, missing) if loaded else {}
        for event in shown.events:
            self._tell_status(event, request, stored, copies, loaded)
        there = self._rows.rejected(ident, account=request.account)
        if request.refused and not stored:
            # What was answered as refused stays so until a replay, whatever the rules say now.
            shown.rejected = [rejected_of_row(row) for row in there]
        else:
            known = {(row["item"], row["reason"]) for row in there}
            shown.rejected = [
                msgspec.structs.replace(one, stored=(one.index, one.said.code) in known)
                for one in shown.rejected
            ]
        return shown

    def _tell_status(
        self,
        event: EventShown,
        request: Request,
        stored: Mapping[str, Mapping[str, Any]],
        copies: Mapping[str, Mapping[str, Any]],
        loaded: bool,
    ) -> None:
        row = stored.get(event.event_id)
        if row is not None:
            event.status = "stored"
            event.person_id, event.session_id = row["person_id"], row["session_id"]
        elif not loaded:
            event.status = "in flight"
        elif event.event_id in copies:
            copy = copies[event.event_id]
            event.status, event.copy_of = "duplicate", copy["request_id"]
            event.person_id, event.session_id = copy["person_id"], copy["session_id"]
            event.note = "the same event came before, and that copy is the one that is stored"
        elif request.refused:
            event.status = "not stored"
            event.note = "it was answered as refused; a replay would take it today"
        else:
            event.status = "not stored"
            event.note = (
                "nothing is stored under its id: the first copy is gone, or a replay adds it"
            )

    # --- what the decoder says ------------------------------------------------------------------

    def decoded(
        self, request: Request, decoded: Decoded, event_id: str = "", *, place: Found | None = None
    ) -> RequestShown:
        """A request with what the decoder makes of it, without a look at the store."""
        shown = RequestShown(
            request_id=uuid_text(request.request_id) if request.request_id else "",
            account=request.account,
            dialect=request.dialect,
            in_journal=place is not None,
            received_at=_iso(request.received_at),
            transport=request.transport,
            peer=request.peer,
            method=request.method,
            target=request.target,
            endpoint=request.endpoint,
            headers=dict(request.headers),
            body_bytes=len(request.body),
            encoding=request.headers.get("content-encoding", ""),
            refused=request.refused,
            heartbeats=decoded.heartbeats,
        )
        plain = self._inflated(request, shown)
        ids = ids_of(request, decoded.events)
        only = next(
            (e.index for e, i in zip(decoded.events, ids, strict=True) if i == event_id), None
        )
        leaves = Leaves(plain, self._dialects[request.dialect], only)
        shown.wire, shown.body_left_out_bytes = as_it_came(
            plain, leaves.leaves, body_bytes_max=limits.inspect_body_bytes_max
        )
        shown.readable = [Piece(text=text, leaves=numbers) for text, numbers in leaves.readable()]
        shown.leaves = [leaf_shown(leaf) for leaf in leaves.leaves]
        _with_address(request, decoded)
        chosen = [
            (event, ident)
            for event, ident in zip(decoded.events, ids, strict=True)
            if not event_id or ident == event_id
        ]
        if event_id and not chosen:  # the decoder names it otherwise by now
            chosen = list(zip(decoded.events, ids, strict=True))
        shown.more_events = len(decoded.events) - min(len(chosen), limits.inspect_events_max)
        until = time.monotonic() + limits.provenance_seconds_max
        for event, ident in chosen[: limits.inspect_events_max]:
            shown.events.append(
                self._event(request, leaves, event, ident, lambda: time.monotonic() < until)
            )
        shown.rejected = [
            _rejected(request, one) for one in decoded.rejected[: limits.inspect_events_max]
        ]
        shown.more_rejected = len(decoded.rejected) - len(shown.rejected)
        return shown

    def _inflated(self, request: Request, shown: RequestShown) -> Request:
        if not shown.encoding or request.transport != "http":
            return request
        dialect = self._dialects[request.dialect]
        try:
            body = inflate(request.body, shown.encoding, dialect.BOUNDS.body_bytes_max)
        except EncodingError as error:
            shown.note = f"the body cannot be inflated ({error}); it is shown as it came"
            return request
        return msgspec.structs.replace(request, body=body)

    def _event(
        self, request: Request, leaves: Leaves, event: Event, ident: str, more: More
    ) -> EventShown:
        found = trace(leaves, self._traced, _without_plan(event), more)
        return EventShown(
            index=event.index,
            event_id=ident,
            status="decoded",
            kind=event.kind,
            name=event.name,
            scope=event.scope,
            occurred_at=_iso(
                event.occurred_at if event.occurred_at is not None else request.received_at
            ),
            issues=[words.issue(request.dialect, str(one)) for one in event.issues],
            fields=[
                FieldShown(
                    path=field.path,
                    value=_value(field.path, field.value),
                    came_from=field.came_from,
                    decided_by=field.decided_by,
                    rule=field.rule,
                )
                for field in found.fields
            ],
            cut=found.cut,
        )

    def _traced(self, request: Request) -> Decoded:
        """As the decoder and the enrichment say, the address that the store adds included."""
        return _with_address(request, self._judge.again(request))

    # --- what the journal no longer has ----------------------------------------------------------

    def _without_journal(
        self, ident: UUID, who: Who, event_id: str, found: Found | None, unreadable: str
    ) -> RequestShown:
        events = self._rows.events(ident, [event_id] if event_id else [])
        rejected = self._rows.rejected(ident)
        rows = [row for row in (*events, *rejected) if who.may_see(row["account"])]
        if not rows:
            if found is not None:
                raise NotFound(
                    f"what came with request {ident} was erased",
                    remedy="SELECT * FROM erasures has the receipts",
                )
            raise _unknown("request", str(ident))
        note = "the journal no longer keeps this request; what is stored of it is shown"
        if found is not None:
            note = "the request was erased; what it held of other people is shown"
        elif unreadable:
            note = f"the journal cannot be read there: {unreadable}"
        shown = RequestShown(
            request_id=str(ident),
            account=rows[0]["account"],
            dialect=rows[0]["dialect"],
            in_journal=False,
            note=note,
        )
        for row in events:
            shown.received_at = row["received_at"]
            shown.transport = row["transport"]
            shown.events.append(event_of_row(row))
        shown.rejected = [rejected_of_row(row) for row in rejected]
        return shown


def _value(path: str, value: Any) -> str:
    if path == "occurred_at" and value is not None:
        value = _iso(value)
    return json_text(value).decode("utf-8", "replace")[:_VALUE_CHARACTERS_MAX]


def _with_address(request: Request, decoded: Decoded) -> Decoded:
    for event in decoded.events:
        if request.peer and "ip" not in event.context:
            event.context["ip"] = request.peer
    return decoded


def _without_plan(event: Event) -> Event:
    """What a tracking plan says is no field that comes from the request."""
    issues = [one for one in event.issues if one.code != "plan"]
    return msgspec.structs.replace(event, issues=issues)


def _rejected(request: Request, one: Rejection) -> RejectedShown:
    return RejectedShown(
        index=one.index,
        said=words.reason(request.dialect, one.reason, one.detail),
        piece=(one.piece or readable(request))[:_PIECE_CHARACTERS_MAX],
        stored=False,
    )


def _uuid(text: str) -> UUID:
    try:
        return UUID(text.strip())
    except ValueError:
        raise WrongUse(
            f'"{text[:80]}" is no id', remedy="take it from the live page, or from SQL"
        ) from None


def _unknown(what: str, ident: str) -> NotFound:
    return NotFound(
        f"no such {what}: {ident}", remedy="the live page and the tables of SQL have the ids"
    )


def _iso(at: int) -> str:
    return (_EPOCH + timedelta(microseconds=at)).isoformat() if at else ""
