"""Everything that is held about one person, line by line, in bounded memory.

Rows come from the store in pages, days that hold few of them together. Requests come from the
journal as long as it keeps them: those that became the person's events, and those of which nothing
became an event (copies, heartbeats, what was rejected) that carry an identifier which nobody else
has had. What two people have had says nothing by itself about who it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import msgspec

from headwater import limits
from headwater.accept.request import Request
from headwater.carrying import Carrying, Identifier, whole_text
from headwater.decoding import Judge
from headwater.errors import JournalDamaged, QueryRefused
from headwater.journal.journal import Batch, Position, Reader
from headwater.people import People
from headwater.person_rows import HISTORY, IDENTITIES, MERGES, NOBODY, PROFILE, SEEN, SESSIONS
from headwater.person_rows import of as of_person
from headwater.person_rows import rows as rows_of
from headwater.store.rows import uuid_text
from headwater.view.formats import to_json

#: Rows in one answer of the store; fewer where they are large.
_PAGE_ROWS = 2_000
_READ_BATCHES = 16
#: Left to the loader between two reads of the journal: both decode, on one interpreter.
_PAUSE_SECONDS = 0.002
#: Alternatives that one search of the store may have (ClickHouse: 255).
_RUNS_MAX = 200
_WHOLE = (
    "*",
    f"nullIf(person, toUUID('{NOBODY}')) AS person_id",
    "session_now",
    "event_order AS at_",
)
#: How it was filed is nothing about a person.
_SHOWN = "* EXCEPT (at_, principal, subject, keys, session_id, digest, writer, batch, request, idx)"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_DAYS = (
    "SELECT toString(toDate(received_at)) AS day, count() AS events "  # noqa: S608
    f"FROM {rows_of('received_at')} GROUP BY day ORDER BY day"
)
_EVENTS = rows_of(*_WHOLE, where="toDate(received_at) BETWEEN {since:Date} AND {until:Date}")
_WAITING = (
    f"(SELECT {', '.join(_WHOLE)} FROM headwater_store.events_rows "  # noqa: S608
    "WHERE account = {account:String} AND hasAny(keys, {ids:Array(UUID)}) "
    f"AND person = toUUID('{NOBODY}'))"
)


class PersonExport:
    """Makes exports; any thread. `open_reader` opens the journal for one of them."""

    def __init__(self, open_reader: Callable[[], Reader], judge: Judge) -> None:
        self._open_reader = open_reader
        self._judge = judge

    def __call__(self, people: People, person: str, account: str) -> Iterator[bytes]:
        """JSON lines, each an object with one key that says what it is; the last is `end`.
        Raises StoreError, JournalFailed."""
        reader = self._open_reader()
        try:
            yield from _Export(people, person, account, reader, self._judge).lines()
        finally:
            reader.close()


class _Export:
    """One export."""

    def __init__(
        self, people: People, person: str, account: str, reader: Reader, judge: Judge
    ) -> None:
        self._people = people
        self._ask = people.ask
        self._of = of_person(person, account)
        self._reader = reader
        self._judge = judge
        self._counts: dict[str, int] = {}

    def _line(self, what: str, value: Any) -> bytes:
        self._counts[what] = self._counts.get(what, 0) + 1
        return to_json({what: value}) + b"\n"

    def lines(self) -> Iterator[bytes]:
        yield self._line("person", self._head())
        ids = [self._of["person"]]
        every: list[Identifier] = []
        own: list[Identifier] = []
        for page in self._pages(f"({IDENTITIES})", "namespace, scope, value"):
            self._people.mark_shared(self._of["account"], page)
            for one in page:
                ids.append(one["id"])
                name = (one["namespace"], one["scope"], one["value"])
                every.append(name)
                if not one["shared"]:
                    own.append(name)
                yield self._line("identity", one)
        for what, sql, order in (
            ("profile", f"({HISTORY})", "at, key, event_id"),
            ("session", f"({SESSIONS})", "started_at, session_id"),
        ):
            for page in self._pages(sql, order):
                for one in page:
                    yield self._line(what, one)
        for some in _pieces(ids):
            merges = self._ask(f"{MERGES} ORDER BY at", {**self._of, "keys": some})
            self._people.name_pairs(merges)
            for one in merges:
                yield self._line("merge", one)
        yield from self._events()
        for some in _pieces(ids):
            yield from self._waiting(some)
        carrying = Carrying(self._of["account"], own, self._judge)
        yield from self._rejected(carrying)
        yield from self._requests(carrying, Carrying(self._of["account"], every, self._judge))
        yield to_json({"end": self._counts}) + b"\n"

    def _head(self) -> dict[str, Any]:
        seen = self._ask(SEEN, self._of)
        profile = self._ask(f"{PROFILE} ORDER BY key", self._of)
        return {
            "person_id": self._of["person"],
            "account": self._of["account"],
            **(seen[0] if seen else {"events": 0}),
            "properties": {one["key"]: msgspec.Raw(one["value"].encode()) for one in profile},
        }

    # --- the store ------------------------------------------------------------------------------

    def _pages(
        self, sql: str, order: str, *, columns: str = "*", **more: Any
    ) -> Iterator[list[dict[str, Any]]]:
        at, size = 0, _PAGE_ROWS
        while True:
            try:
                page = self._ask(
                    f"SELECT {columns} FROM {sql} ORDER BY {order} LIMIT {size} OFFSET {at}",  # noqa: S608
                    {**self._of, **more},
                )
            except QueryRefused:
                if size == 1:
                    raise
                size = max(1, size // 8)  # large rows: fewer at a time
                continue
            if page:
                yield page
            if len(page) < size:
                return
            at += len(page)

    def _events(self) -> Iterator[bytes]:
        """By the day of arrival, so that each page reads the rows of its own days only."""
        since = until = ""
        rows = 0
        for day in self._ask(_DAYS, self._of):
            if rows and rows + day["events"] > _PAGE_ROWS:
                yield from self._events_of(since, until)
                rows = 0
            since = day["day"] if rows == 0 else since
            until = day["day"]
            rows += day["events"]
        if rows:
            yield from self._events_of(since, until)

    def _events_of(self, since: str, until: str) -> Iterator[bytes]:
        for page in self._pages(_EVENTS, "at_", columns=_SHOWN, since=since, until=until):
            for one in page:
                yield self._line("event", _event(one))

    def _waiting(self, ids: Sequence[str]) -> Iterator[bytes]:
        """Events of nobody yet that carry one of the person's identifiers."""
        for page in self._pages(_WAITING, "at_", columns=_SHOWN, ids=list(ids)):
            for one in page:
                yield self._line("waiting", _event(one))

    def _rejected(self, carrying: Carrying) -> Iterator[bytes]:
        if not carrying:
            return
        runs = sorted(carrying.runs)
        search = "1"
        if carrying.searchable and len(runs) <= _RUNS_MAX:
            search = "multiSearchAnyCaseInsensitive(request_text, {runs:Array(String)})"
        pages = self._pages(
            "headwater_store.rejected_rows WHERE account = {account:String} AND " + search,
            "dialect, received_at, request_id, idx",
            columns="request_id, account, dialect, scope, received_at, reason, detail, transport, "
            "request_text AS request",
            runs=runs,
        )
        for page in pages:
            for one in page:
                if carrying.is_in_text(one["dialect"], one["request"]):
                    yield self._line("rejected", one)

    # --- the journal ----------------------------------------------------------------------------

    def _requests(self, own: Carrying, every: Carrying) -> Iterator[bytes]:
        for writer in self._reader.writers():
            after = Position(writer, 0)
            while True:
                try:
                    batches = self._reader.read(
                        after, batches_max=_READ_BATCHES, bytes_max=limits.load_bytes_max // 8
                    )
                except JournalDamaged as error:
                    yield self._line("unreadable", str(error))
                    behind = self._reader.skip_damaged(after)
                    if behind.batch <= after.batch:
                        break
                    after = behind
                    continue
                if not batches:
                    break
                yield from self._of_batches(batches, own, every)
                after = batches[-1].position
                time.sleep(_PAUSE_SECONDS)

    def _of_batches(
        self, batches: Sequence[Batch], own: Carrying, every: Carrying
    ) -> Iterator[bytes]:
        worth = [r for batch in batches for r in batch.requests if every.may_be_in(r)]
        if not worth:
            return
        place = {
            "writer": batches[0].position.writer,
            "first": batches[0].position.batch,
            "last": batches[-1].position.batch,
        }
        hers: dict[str, int] = {}
        for some in _pieces([uuid_text(request.request_id) for request in worth]):
            stored = self._ask(
                "SELECT request_id, max(person = {person:UUID}) AS hers "
                "FROM headwater_store.events_rows WHERE account = {account:String} "
                "AND writer = {writer:UInt16} "
                "AND batch BETWEEN {first:UInt64} AND {last:UInt64} "
                "AND has({ids:Array(UUID)}, request_id) GROUP BY request_id",
                {**self._of, **place, "ids": some},
            )
            hers |= {row["request_id"]: row["hers"] for row in stored}
        for request in worth:
            is_hers = hers.get(uuid_text(request.request_id))
            if is_hers or (is_hers is None and own.is_in(request)):
                yield self._line("request", _shown(request))


def _event(row: dict[str, Any]) -> dict[str, Any]:
    """A stored row, with what a reader sees in the place of what was known at loading."""
    row["session_id"] = row.pop("session_now")
    for name in ("profile_set", "raw"):
        row[name] = msgspec.Raw((row[name] or "{}").encode())
    return row


def _shown(request: Request) -> dict[str, Any]:
    """A journaled request as a person reads it, whole."""
    return {
        "request_id": uuid_text(request.request_id),
        "account": request.account,
        "dialect": request.dialect,
        "received_at": (_EPOCH + timedelta(microseconds=request.received_at)).isoformat(),
        "transport": request.transport,
        "peer": request.peer,
        "request": whole_text(request),
    }


def _pieces(ids: Sequence[str]) -> Iterator[list[str]]:
    """As many as one question may name."""
    each = iter(ids)
    while some := list(islice(each, _PAGE_ROWS)):
        yield some
