"""The journal: every accepted request, in order, on disk before its answer.

Small interfaces, one for each side and one for erasures. An engine (``sqlite.py``) offers all of
them; nothing else in Headwater knows which engine it is.

**Durable.** `Writer.append` returns at once; `done(None)` is called on the event loop once the
request survives a power loss, `done(error)` if it never will. There is no third outcome: an fsync
that failed is never followed by success, and never repeated over the same pages.

**In order.** One writer's requests come out of `Reader.read` in the order of their appends, each
exactly once, under a position that never changes.

**Grouped.** Requests that arrive together share one fsync (group commit). A batch is one row.

**Bounded.** Over its size bound the writer calls back with JournalFull; it never drops what it has.

**Apart.** Readers never block the writer, and see only what is durable.

**Erasable.** A request can be taken out: a stub keeps its place, and nothing of it stays on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import msgspec

from headwater.accept.request import Erased, Request


class Position(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Where a batch stands: the writer's number, and the batch's number within it.

    Numbers grow from batch to batch and may skip; none is ever given twice. Before all is 0.
    """

    writer: int
    batch: int


#: (account, dialect) -> events that count as received
Counts = Mapping[tuple[str, str], int]


class Batch(msgspec.Struct, frozen=True):
    """One group commit, as read back. `committed_at` is in microseconds."""

    position: Position
    committed_at: int
    counts: dict[tuple[str, str], int]
    requests: list[Request]


class ErasedRequests(msgspec.Struct):
    """`requests` are stubs now. `left` names files in which something could not be erased, and
    why."""

    requests: int = 0
    left: list[str] = msgspec.field(default_factory=list)


class Writer(Protocol):
    """One process's end: not thread-safe, call it from the event loop."""

    @property
    def healthy(self) -> bool:
        """Whether a write would be durable now (readyz)."""
        ...

    def append(
        self, request: Request, events: int, done: Callable[[Exception | None], None]
    ) -> None:
        """Queue `request`, which counts as `events` received, for the next group commit."""
        ...

    async def close(self) -> None:
        """Commit what is queued, then let go of the files."""
        ...


class Reader(Protocol):
    """The loader's end; opens all writers' files, in any process."""

    def writers(self) -> list[int]:
        """The numbers of all writers that have ever written."""
        ...

    def read(self, after: Position, *, batches_max: int, bytes_max: int) -> list[Batch]:
        """Durable batches of one writer after a position, in order; empty when there are none.

        Raises JournalDamaged (file, what is unreadable, remedy); `skip_damaged` goes on behind it.
        """
        ...

    def skip_damaged(self, after: Position) -> Position:
        """The position to go on from, behind a damaged stretch that starts after `after`."""
        ...

    def pending(self, loaded: Mapping[int, int]) -> dict[tuple[str, str], int]:
        """Events received and not yet loaded, given each writer's last loaded batch."""
        ...

    def find(
        self, *, since: int | None = None, until: int | None = None, request_id: bytes | None = None
    ) -> Iterator[Position]:
        """Positions of batches that hold requests received in [since, until) or that request."""
        ...

    def expire(self, before: int, loaded: Mapping[int, int]) -> int:
        """Delete files wholly older than `before` (microseconds) and loaded; bytes freed."""
        ...

    def bytes_used(self) -> int:
        """Bytes on disk, all writers."""
        ...

    def close(self) -> None: ...


class Eraser(Protocol):
    """Takes requests out, in any process, beside writers and readers."""

    def erase(
        self,
        requests: Mapping[Position, Mapping[int, Erased]],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> ErasedRequests:
        """Replace requests, each the so many-th of a batch, by stubs that say what became of their
        events; durable on return, and nothing of them is left in any file of the journal but those
        that the answer names. All else stays as it is, and where it is. Twice is as good as once;
        what was cut short is repeated. `progress` is told how many are done.

        Raises JournalFailed when a file cannot be rewritten just now.
        """
        ...
