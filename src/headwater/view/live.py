"""The live feed: what the loader has just decided, to whoever is watching.

The loader's thread publishes and never waits: a batch goes into a short queue, from which a thread
of the feed's own takes it, picks and encodes what each watcher asked for, and hands that to the
event loop. Nobody watching costs one check. Two things are bounded, and both are said to whom they
concern: when batches come faster than they can be encoded, some are left out (`event: missed`,
with the number of rows); a watcher whose own queue is full is dropped (`event: dropped`).
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

import msgspec

from headwater import limits


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What a watcher wants to see; an empty field is no condition. `name` is exact, `person` a
    person's id, `status` one of stored, duplicate, rejected. `rows` is how many rows a second are
    wanted at the most: then `event: counts` says how many there were in all; 0: every row."""

    account: str = ""
    dialect: str = ""
    name: str = ""
    status: str = ""
    person: str = ""
    rows: int = 0


class Picked(msgspec.Struct, frozen=True):
    """What of a batch a watcher asked for: how many, by dialect and status; and rows, the newest
    last."""

    counts: dict[str, dict[str, int]]
    rows: list[object]


class Batch(Protocol):
    """What the loader has decided in one step."""

    def __len__(self) -> int: ...

    def pick(self, wanted: Filter, accounts: frozenset[str] | None, rows_max: int | None) -> Picked:
        """What matches a filter, of some accounts (None: of all); all rows of it, or the newest
        `rows_max` of each status."""
        ...


class _Watcher:
    def __init__(self, wanted: Filter, accounts: frozenset[str] | None) -> None:
        self.wanted = wanted
        self.accounts = accounts
        self.queue: asyncio.Queue[bytes] = asyncio.Queue(limits.live_queue_events_max)
        self.dropped = False
        self._second = 0
        self._left = 0

    def put(self, event: bytes) -> None:
        """On the event loop."""
        if not self.dropped:
            try:
                self.queue.put_nowait(event)
            except asyncio.QueueFull:
                self.dropped = True

    def picked(self, batch: Batch, encode: Callable[[Any], bytes]) -> list[bytes]:
        """On the feed's thread: what this one sees of a batch, as server-sent events."""
        sampled = self.wanted.rows > 0
        if sampled:
            second = int(time.monotonic())
            if second != self._second:
                self._second, self._left = second, self.wanted.rows
        # One more than the queue holds is enough to know that it overflows.
        most = self._left if sampled else limits.live_queue_events_max + 1
        picked = batch.pick(self.wanted, self.accounts, most)
        rows = picked.rows[-most:] if most else []
        events = [b"data: " + encode(row) + b"\n\n" for row in rows]
        if sampled:
            self._left -= len(rows)
            if picked.counts:
                events.insert(0, b"event: counts\ndata: " + encode(picked.counts) + b"\n\n")
        return events


class Feed:
    """Spreads rows to watchers. Make it on the event loop that serves them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, encode: Callable[[Any], bytes]) -> None:
        self._loop = loop
        self._encode = encode
        self._watchers: frozenset[_Watcher] = frozenset()
        self._batches: queue.Queue[Batch] = queue.Queue(limits.live_batches_max)
        self._missed = 0
        threading.Thread(target=self._run, name="live-feed", daemon=True).start()

    def publish(self, batch: Batch) -> None:
        """From the loader's thread: show these rows to whoever wants them."""
        if self._watchers and len(batch):
            try:
                self._batches.put_nowait(batch)
            except queue.Full:
                self._missed += len(batch)

    def _run(self) -> None:
        while True:
            batch = self._batches.get()
            picked = [(watcher, watcher.picked(batch, self._encode)) for watcher in self._watchers]
            missed, self._missed = self._missed, 0
            try:
                self._loop.call_soon_threadsafe(_deliver, picked, missed)
            except RuntimeError:  # the loop has closed: the hub is ending
                return

    @property
    def watchers(self) -> int:
        """How many are watching."""
        return len(self._watchers)

    @property
    def full(self) -> bool:
        """Whether one more watcher would be too many."""
        return len(self._watchers) >= limits.live_subscribers_max

    async def watch(
        self,
        wanted: Filter,
        accounts: frozenset[str] | None = None,
        *,
        beat_seconds: float = 15.0,
    ) -> AsyncIterator[bytes]:
        """Server-sent events: a `data:` line for each row, a comment when there is none for a
        while (so that both ends notice a dead connection), `event: dropped` for a slow reader.
        Nothing is seen of other accounts than `accounts` (None: of all)."""
        watcher = _Watcher(wanted, accounts)
        self._watchers |= {watcher}
        try:
            yield b": watching\n\n"
            while True:
                try:
                    event = await asyncio.wait_for(watcher.queue.get(), beat_seconds)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                yield event
                if watcher.dropped and watcher.queue.empty():
                    yield b'event: dropped\ndata: {"error":"too slow a reader"}\n\n'
                    return
        finally:
            self._watchers -= {watcher}


def _deliver(picked: Sequence[tuple[_Watcher, Sequence[bytes]]], missed: int) -> None:
    for watcher, events in picked:
        if missed:
            watcher.put(b'event: missed\ndata: {"rows":%d}\n\n' % missed)
        for event in events:
            watcher.put(event)
