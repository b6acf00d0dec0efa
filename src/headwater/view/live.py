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
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from headwater import limits


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What a watcher wants to see; an empty field is no condition. `name` is exact."""

    account: str = ""
    dialect: str = ""
    name: str = ""
    status: str = ""

    def matches(self, row: object) -> bool:
        """Whether a row has every value that is asked for."""
        return all(
            getattr(row, field) == wanted
            for field in ("account", "dialect", "name", "status")
            if (wanted := getattr(self, field))
        )


class _Watcher:
    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self.queue: asyncio.Queue[bytes] = asyncio.Queue(limits.live_queue_events_max)
        self.dropped = False

    def put(self, event: bytes) -> None:
        """On the event loop."""
        if not self.dropped:
            try:
                self.queue.put_nowait(event)
            except asyncio.QueueFull:
                self.dropped = True


class Feed:
    """Spreads rows to watchers. Make it on the event loop that serves them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, encode: Callable[[Any], bytes]) -> None:
        self._loop = loop
        self._encode = encode
        self._watchers: frozenset[_Watcher] = frozenset()
        self._batches: queue.Queue[Sequence[object]] = queue.Queue(limits.live_batches_max)
        self._missed = 0
        threading.Thread(target=self._run, name="live-feed", daemon=True).start()

    def publish(self, rows: Sequence[object]) -> None:
        """From the loader's thread: show these rows to whoever wants them."""
        if self._watchers and rows:
            try:
                self._batches.put_nowait(rows)
            except queue.Full:
                self._missed += len(rows)

    def _run(self) -> None:
        while True:
            rows = self._batches.get()
            watchers = self._watchers
            encoded: dict[int, bytes] = {}
            picked: list[tuple[_Watcher, list[bytes]]] = []
            for watcher in watchers:
                events: list[bytes] = []
                for place, row in enumerate(rows):
                    # One more than the queue holds is enough to know that it overflows.
                    if len(events) > limits.live_queue_events_max:
                        break
                    if watcher.wanted.matches(row):
                        if place not in encoded:
                            encoded[place] = b"data: " + self._encode(row) + b"\n\n"
                        events.append(encoded[place])
                picked.append((watcher, events))
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

    async def watch(self, wanted: Filter, *, beat_seconds: float = 15.0) -> AsyncIterator[bytes]:
        """Server-sent events: a `data:` line for each row, a comment when there is none for a
        while (so that both ends notice a dead connection), `event: dropped` for a slow reader."""
        watcher = _Watcher(wanted)
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
