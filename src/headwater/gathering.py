"""What one step of loading, or a replay, has gathered: rows as Arrow, dedupe keys, the books."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import pyarrow as pa

from headwater.accept.request import Request
from headwater.event import Decoded, Event, Identity, Rejection, Sign, Violation, effective_at
from headwater.resolve.client_sessions import SessionIds
from headwater.resolve.registry import Claim
from headwater.store.clickhouse import Load, Tally
from headwater.store.rows import Source, events_batch, rejected_batch
from headwater.store.violations import Counts

#: Events whose rows are built together: few enough that they are still in the processor's cache
#: from decoding, which halves the time.
_PIECE_EVENTS = 1_000


class Said(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Of one event what says who did it, and when. Times in microseconds."""

    identities: list[Identity]
    alias: bool
    ordered_at: int
    scope: str
    request: Request
    index: int
    writer: int
    batch: int


class Work:
    """What one step has gathered: rows as Arrow, claims, and the books."""

    def __init__(self, sessions: SessionIds) -> None:
        self._sessions = sessions
        self.loads: list[Load] = []
        #: The last batch of the range that is being gathered.
        self.last = 0
        #: What broke a tracking plan, by range: (writer, last batch).
        self.violations: dict[tuple[int, int], Counts] = {}
        self.next_rows()

    def next_rows(self) -> None:
        """Begin anew with rows; the ranges go on."""
        self.claims: list[Claim] = []
        self.claimants: list[int] = []  # the row of each claim
        self.tallies: list[Tally] = []  # of each row: the books that it is in
        self.said: list[Said] = []  # of each row
        self.signs: list[tuple[Request, Sign]] = []
        self.received_at = 0
        self._violated: list[tuple[tuple[int, int], int, Request, Violation]] = []
        self._pieces: list[pa.RecordBatch] = []
        self._events: list[Event] = []
        self._sources: list[Source] = []
        self._rejections: list[Rejection] = []
        self._rejected_sources: list[Source] = []

    @property
    def rows(self) -> int:
        return len(self.tallies) + len(self._rejections)

    def add(
        self, request: Request, decoded: Decoded, tally: Tally, writer: int, batch: int, number: int
    ) -> None:
        """Take in one decoded request, the `number`th of a batch. A stub counts as what its
        request had become."""
        if request.erased is not None:
            tally.stored += request.erased.stored
            tally.duplicate += request.erased.duplicate
            tally.rejected += request.erased.rejected
        self.received_at = request.received_at
        tally.stored += decoded.heartbeats
        self.signs += [(request, sign) for sign in decoded.signs]
        for one in decoded.violations:
            row = len(self.tallies) + one.row if one.row >= 0 else -1
            self._violated.append(((writer, self.last), row, request, one))
        events = decoded.events
        if events:
            tally.stored += len(events)
            row = len(self.tallies)
            index = -1
            for event in events:
                # Decoders number events as the request does; whatever they do, places are unique.
                if event.index <= index:
                    event.index = index + 1
                index = event.index
                if event.dedupe is not None:
                    place = (writer, batch, number, index)
                    self.claims.append(Claim(event.dedupe, event.occurred_at or 0, place))
                    self.claimants.append(row)
                row += 1
                self.said.append(
                    Said(
                        event.identities,
                        bool(event.raw.get("alias")) and request.dialect == "gamooga",
                        effective_at(event, request.received_at),
                        event.scope,
                        request,
                        index,
                        writer,
                        batch,
                    )
                )
            self.tallies += [tally] * len(events)
            self._events += events
            self._sources.append(Source(request, writer, batch, number, len(events)))
            if len(self._events) >= _PIECE_EVENTS:
                self._close_piece()
        if decoded.rejected:
            tally.rejected += len(decoded.rejected)
            self._rejections += decoded.rejected
            self._rejected_sources.append(
                Source(request, writer, batch, number, len(decoded.rejected))
            )

    def count_violations(self, duplicates: Collection[int]) -> None:
        """Count what the gathered rows broke, but not what some rows, the duplicates, did."""
        for place, row, request, one in self._violated:
            if row not in duplicates:
                self.violations.setdefault(place, Counts()).add(request, one)
        self._violated = []

    def _close_piece(self) -> None:
        if self._events:
            self._pieces.append(events_batch(self._events, self._sources, self._sessions))
            self._events, self._sources = [], []

    def events(self) -> pa.RecordBatch:
        """All event rows, flat, in order."""
        self._close_piece()
        if not self._pieces:
            return events_batch([], [], self._sessions)
        return pa.concat_batches(self._pieces)

    def rejected(self) -> pa.RecordBatch:
        return rejected_batch(self._rejections, self._rejected_sources)
