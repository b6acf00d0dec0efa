"""Replay: decode journaled requests again, after a decoder or the configuration has changed.

Theory of operation. A replay works on whole ranges, as they were loaded: the requests that were
chosen lead to batches, the batches to ranges, and every request of a range is decoded anew, refused
ones by the rules in force now. Duplicates stay dropped, since a dedupe key belongs to the place
that claimed it first. What comes out is compared with what is stored, by place and digest, and only
what differs is rewritten; the range's books are replaced by new absolute ones. So a replay that
finds nothing new changes nothing, and one that was cut short is repeated at the next start. Where a
request was erased, what is stored of it, other people's rows, stays as it is.

A range of which the journal no longer has every batch is left as it is, and counted as `expired`.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from headwater import limits
from headwater.errors import JournalDamaged
from headwater.journal.journal import Batch, Position
from headwater.store.clickhouse import Load, Range, Tally
from headwater.store.comparing import Comparing

if TYPE_CHECKING:
    from headwater.loader import Loader

log = logging.getLogger("headwater.replay")

#: A loaded range, and the step that loaded it.
_Loaded = tuple[Range, int]
#: Held by a replay, and by an erasure.
one_at_a_time = threading.Lock()


@contextmanager
def apart_from_replays() -> Iterator[bool]:
    """Whether no replay runs, nor begins within. What a replay has staged was resolved before: a
    fold in between would drop the overrides that its rows do not know of."""
    free = one_at_a_time.acquire(blocking=False)
    try:
        yield free
    finally:
        if free:
            one_at_a_time.release()


class ReplayResult(msgspec.Struct):
    """What was looked at, and rows of `events` and `rejected` by what became of them. `expired`
    counts loaded ranges of which the journal no longer has everything; they are as they were."""

    requests: int = 0
    unchanged: int = 0
    changed: int = 0
    added: int = 0
    removed: int = 0
    expired: int = 0


def replay(
    loader: Loader,
    *,
    since: int | None = None,
    until: int | None = None,
    request_id: bytes | None = None,
    progress: Callable[[ReplayResult], None] | None = None,
) -> ReplayResult:
    """Decode again what was received in [since, until) (microseconds), or one request, together
    with all that was loaded with it. `progress` is called with the counts so far. Any thread; a
    second replay waits for the first. Raises StoreError, RegistryFailed."""
    chosen: dict[int, list[int]] = {}
    for position in loader.reader.find(since=since, until=until, request_id=request_id):
        chosen.setdefault(position.writer, []).append(position.batch)
    ranges: list[_Loaded] = []
    for writer, batches in chosen.items():
        batches.sort()
        for one in loader.store.loaded(writer, batches[0] - 1, batches[-1]):
            place = bisect_right(batches, one[0].after)
            if place < len(batches) and batches[place] <= one[0].last:
                ranges.append(one)
    return _replay(loader, ranges, progress)


def finish_interrupted(loader: Loader) -> ReplayResult:
    """Repeat what a replay had begun to rewrite when its process ended."""
    comparing = Comparing(loader.store)
    total = ReplayResult()
    for stretch in comparing.interrupted():
        log.warning("a replay was cut short: %s is replayed again", stretch)
        total = _replay(loader, loader.store.loaded(*stretch), None)
        comparing.forget(*stretch)
    return total


def _replay(
    loader: Loader,
    ranges: Sequence[_Loaded],
    progress: Callable[[ReplayResult], None] | None,
) -> ReplayResult:
    result = ReplayResult()
    with one_at_a_time:
        run = _Run(loader, result)
        for covered, step in ranges:
            batches = _batches_of(loader, covered)
            if batches is None:
                result.expired += 1
                log.warning("the journal no longer has all of %s: left as it is", covered)
                continue
            run.add(covered, step, batches)
            if progress is not None:
                progress(msgspec.structs.replace(result))
        run.flush()
    return result


def _batches_of(loader: Loader, covered: Range) -> list[Batch] | None:
    """All batches of a range, or None when they are not all there."""
    found: list[Batch] = []
    after = Position(covered.writer, covered.after)
    while after.batch < covered.last:
        try:
            more = loader.reader.read(after, batches_max=64, bytes_max=limits.load_bytes_max)
        except JournalDamaged as error:
            log.error("%s", error)
            return None
        found += [batch for batch in more if batch.position.batch <= covered.last]
        if not more or more[-1].position.batch >= covered.last:
            break
        after = more[-1].position
    return found if len(found) == covered.batches else None


class _Run:
    """Collects adjoining ranges, as many as make one insert, and rewrites them together: a range
    may hold a handful of events, and each rewriting costs a dozen statements."""

    def __init__(self, loader: Loader, result: ReplayResult) -> None:
        self._loader = loader
        self._result = result
        self._comparing = Comparing(loader.store)
        self._work = loader.work()
        self._loads: list[Load] = []
        self._stubs: list[tuple[int, int]] = []
        self._rows = 0

    def add(self, covered: Range, step: int, batches: Sequence[Batch]) -> None:
        """Decode one more range."""
        if self._loads:
            last = self._loads[-1].range
            if (last.writer, last.last) != (covered.writer, covered.after):
                self.flush()
        if not self._loads:
            self._comparing.begin()
        tallies: dict[tuple[str, str], Tally] = {}
        self._work.last = covered.last
        for batch in batches:
            for number, request in enumerate(batch.requests):
                tally = tallies.setdefault((request.account, request.dialect), Tally())
                if request.erased is not None:
                    self._stubs.append((batch.position.batch, number))
                decoded = self._loader.judge.replayed(request)
                place = (covered.writer, batch.position.batch, number)
                self._work.add(request, decoded, tally, *place)
                self._result.requests += 1
                if self._work.rows >= limits.load_events_max:
                    self._stage()
        self._loads.append(Load(covered, step, tallies))
        if self._rows + self._work.rows >= limits.load_events_max:
            self.flush()

    def _stage(self) -> None:
        self._rows += self._work.rows
        self._work.signs.clear()  # a sign of life is what it was
        with self._loader.paused():
            first_copies, _ = self._loader.first_copies(self._work)
            self._comparing.stage(first_copies, self._work.rejected())
        self._work.next_rows()

    def flush(self) -> None:
        """Rewrite what has been collected."""
        if not self._loads:
            return
        self._stage()
        self._comparing.keep(self._loads[0].range.writer, self._stubs)
        with self._loader.paused():
            identifying = self._loader.identifying
            identifying.suspect(self._comparing.keys_before(self._loads))
            version = self._loader.clock()
            lasts = [load.range.last for load in self._loads]
            writer = self._loads[0].range.writer
            self._loader.violations.rewrite(writer, lasts, self._work.violations, version)
            self._work.violations.clear()
            changes = self._comparing.rewrite(self._loads, version=version)
            identifying.recheck()
        self._result.unchanged += changes.unchanged
        self._result.changed += changes.changed
        self._result.added += changes.added
        self._result.removed += changes.removed
        self._loads = []
        self._stubs = []
        self._rows = 0
