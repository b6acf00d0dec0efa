"""The loader: from the journal to the store, every event exactly once.

Theory of operation. A step reads the batches of each writer that come after its watermark, decodes
them, and then, in this order: claims the dedupe keys, takes in what the events assert about people,
inserts rejected rows, inserts event rows, tells the store what has changed about older rows, counts
what broke a tracking plan, inserts one `loads` row for each account and dialect. Each of these is
durable before the next begins. The last is the watermark and the books in one; what is before it
can be done again:

- a claim belongs to a place in the journal, and the same place claiming again is the first again;
- what an event asserts may be taken in twice, see ``identifying.py``;
- rows carry their place. At start and after every error the places beyond the watermarks are read
  from the store (:meth:`Loader.reconcile`), and rows of those places are not inserted again, but
  counted as if they had been.

So a kill between any two steps, or within one, loses nothing and doubles nothing. Nothing else
writes beyond the watermarks: there is one loader for a store.

A store that fails is asked again after a pause, for ever; collecting goes on meanwhile. A damaged
stretch of the journal is reported and skipped. A decoder that raises costs one request, which
becomes a rejected row.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
import pyarrow as pa

from headwater import limits
from headwater.accept.request import Dialect
from headwater.clock import Clock
from headwater.decoding import AccountRules, Enrich, Judge, TrackingPlan
from headwater.errors import HeadwaterError, JournalDamaged
from headwater.gathering import Work
from headwater.identifying import Identifying
from headwater.journal.journal import Batch, Position, Reader
from headwater.live_rows import LiveRows
from headwater.replay import apart_from_replays, finish_interrupted
from headwater.resolve.client_sessions import SessionIds
from headwater.resolve.registry import Seen
from headwater.store.clickhouse import EVENTS, REJECTED, Load, Range, Store, Tally
from headwater.store.rows import Place, keep, places_of
from headwater.store.violations import Violations

log = logging.getLogger("headwater.loader")

_DAY_US = 86_400_000_000
_READ_BATCHES = 64
#: An event more than 30 days behind counts by when it was received.
_LATE_DAYS_MAX = 31
_BACKOFF_SECONDS_MAX = 5.0
#: How often old journal files, dedupe keys and books are looked at.
_TIDY_SECONDS = 60.0


class Counters(msgspec.Struct):
    """Since the start. `miscounted` are events by which the books of the journal, written when a
    request was accepted, and those of its load differ: a bug of a decoder. Seconds are the loader
    thread's, by step."""

    loads: int = 0
    events: int = 0
    store_errors: int = 0
    damaged_stretches: int = 0
    miscounted: int = 0
    read_seconds: float = 0.0
    decode_seconds: float = 0.0
    claim_seconds: float = 0.0
    insert_seconds: float = 0.0


class Loader:
    """One thread calls `run` (or `step`); the rest may be called from any.

    `retain_days` is how long the journal is kept. `on_rows` gets what became of each event, on the
    loader's thread, and must not block. `checkpoint` is called with the name of each thing that has
    just become durable. `plan_of` gives an account's tracking plan, None where it has none.
    `on_marks` is told each writer's last loaded batch.
    """

    def __init__(
        self,
        *,
        reader: Reader,
        dialects: Sequence[Dialect],
        accounts: Callable[[], AccountRules],
        enrich: Enrich,
        seen: Seen,
        identifying: Identifying,
        store: Store,
        clock: Clock,
        retain_days: int = 7,
        on_rows: Callable[[LiveRows], None] | None = None,
        checkpoint: Callable[[str], None] | None = None,
        plan_of: Callable[[str], TrackingPlan | None] = lambda account: None,
        on_marks: Callable[[Mapping[int, int]], None] = lambda marks: None,
    ) -> None:
        self.judge = Judge(dialects, accounts, enrich, plan_of)
        self.reader = reader
        self.seen = seen
        self.identifying = identifying
        self.store = store
        self.violations = Violations(store.writing())
        self.clock = clock
        self.counters = Counters()
        self._retain_days = retain_days
        self._on_rows = on_rows
        self._on_marks = on_marks
        self._checkpoint = checkpoint or (lambda reached: None)
        self._sessions = SessionIds()
        #: Held within a step; who wants to hold it takes the turn first, and so comes next.
        self._stepping = threading.RLock()
        self._turn = threading.RLock()
        #: Guards what a snapshot of the books must see together.
        self._books = threading.Lock()
        self._marks: dict[int, int] = {}
        self._last_step = 0
        self._reconciled = self._rechecked = False
        self._left: set[Place] = set()
        self._left_rejected: set[Place] = set()
        self._waiting_since = 0
        self._miscounted = 0
        self._tidied = time.monotonic()

    # --- state ----------------------------------------------------------------------------------

    @property
    def lag_seconds(self) -> float:
        """The age of the oldest journaled batch that is not loaded; 0 when there is none."""
        since = self._waiting_since
        return max(0.0, (self.clock() - since) / 1e6) if since else 0.0

    def marks(self) -> dict[int, int]:
        """Each writer's last loaded batch."""
        with self._books:
            return dict(self._marks)

    def refresh_in_flight(self) -> None:
        """Bring the table `accounting` up to now; call it before a query that reads it.
        Raises StoreError."""
        self._reconcile_once()
        with self._books:
            # The journal is read after the marks: what comes in meanwhile is in flight too, and
            # what is loaded meanwhile has a later step, which the view leaves out.
            step, marks = self._last_step, dict(self._marks)
            self.store.write_in_flight(step, self.reader.pending(marks))

    def reconcile(self) -> None:
        """Learn from the store how far loading has got, and which places beyond that are there.
        Raises StoreError."""
        with self._books:
            self._learn()
        self._on_marks(self._marks)

    def _reconcile_once(self) -> None:
        """The same, if it is not known. Looked at under the lock: to learn it again while a step
        goes on would take that step's counts away."""
        with self._books:
            if self._reconciled:
                return
            self._learn()
        self._on_marks(self._marks)

    def _learn(self) -> None:
        self._reconciled = False
        self._marks = self.store.watermarks()
        self._last_step = self.store.last_step()
        self._left = self.store.places_after(EVENTS, self._marks)
        self._left_rejected = self.store.places_after(REJECTED, self._marks)
        self.violations.forget_after(self._marks)
        self._reconciled = True

    # --- the thread -----------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Load until `stop` is set; whatever fails is tried again."""
        pause = limits.load_gap_seconds
        finished = False
        while not stop.is_set():
            began = time.monotonic()
            try:
                if not finished:
                    finish_interrupted(self)
                    finished = True
                events = self.step()
                self._tidy()
            except HeadwaterError as error:
                self.counters.store_errors += 1
                log.error("loading stands still, %.1f s until the next try: %s", pause, error)
                stop.wait(pause)
                pause = min(2 * pause, _BACKOFF_SECONDS_MAX)
                continue
            pause = limits.load_gap_seconds
            if events == 0:
                stop.wait(limits.load_poll_seconds)
            elif events < limits.load_events_max // 2:
                # At low rates a part a load would keep the store merging: wait and load more.
                stop.wait(max(0.0, limits.load_gap_seconds - (time.monotonic() - began)))

    def step(self) -> int:
        """Load what is there, up to about `load_events_max` events; how many there were, at least 1
        when anything was done. Raises StoreError, RegistryFailed; nothing is lost, call again."""
        with self._turn:
            pass
        with self._stepping:
            return self._guarded_step()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is loaded but by who holds this: it begins between two steps."""
        with self._turn, self._stepping:
            yield

    def _guarded_step(self) -> int:
        self._reconcile_once()
        if not self._rechecked:
            self.identifying.recheck()
            self._rechecked = True
        # A step makes tens of thousands of objects, none of them in a cycle, and lets go of them
        # all: looking for cycles among them meanwhile cost a tenth of loading.
        collecting = gc.isenabled()
        gc.disable()
        try:
            return self._step()
        except BaseException:
            with self._books:
                self._reconciled = self._rechecked = False
            self.identifying.abandon()
            raise
        finally:
            if collecting:
                gc.enable()

    def _step(self) -> int:
        work = Work(self._sessions)
        events = self._miscounted = 0
        found, skipped = self._read()
        for writer, batches in found:
            events += self._load_range(work, writer, batches)
        if work.loads:
            self._insert(work)
            if work.violations:
                self.violations.write(work.violations, version=self.clock())
                self._checkpoint("violations")
            with self._books:
                self.store.insert_loads(work.loads, version=self.clock())
                self._last_step += 1
                for load in work.loads:
                    self._marks[load.range.writer] = load.range.last
            self._checkpoint("loads")
            self._on_marks(self._marks)
            self.counters.loads += 1
            self.counters.miscounted += self._miscounted
            self.counters.events += events
        else:
            self._waiting_since = 0
            self.identifying.catch_up()
        self._left = self._beyond(self._left)
        self._left_rejected = self._beyond(self._left_rejected)
        return max(events, len(work.loads), skipped)

    def _beyond(self, left: set[Place]) -> set[Place]:
        """What still lies beyond the watermarks: a step after a kill need not read all that the
        one before it had read."""
        if not left:
            return left
        return {place for place in left if place[1] > self._marks.get(place[0], 0)}

    def _read(self) -> tuple[list[tuple[int, list[Batch]]], int]:
        """Batches to load, by writer, each writer's in order, together within the bounds; and how
        many damaged stretches were skipped."""
        began = time.perf_counter()
        found: list[tuple[int, list[Batch]]] = []
        budget = limits.load_events_max
        oldest = skipped = 0
        for writer in self._turns():
            batches: list[Batch] = []
            after = Position(writer, self._marks.get(writer, 0))
            while budget > 0:
                try:
                    more = self.reader.read(
                        after, batches_max=_READ_BATCHES, bytes_max=limits.load_bytes_max // 4
                    )
                except JournalDamaged as error:
                    if not batches and self._skip(after, error):
                        skipped += 1
                    break
                if not more:
                    break
                for batch in more:
                    batches.append(batch)
                    after = batch.position
                    # A request without an event costs a decoding all the same.
                    budget -= max(sum(batch.counts.values()), len(batch.requests))
                    if budget <= 0:
                        break
            if batches:
                oldest = min(oldest or batches[0].committed_at, batches[0].committed_at)
                found.append((writer, batches))
        self.counters.read_seconds += time.perf_counter() - began
        if oldest:
            self._waiting_since = oldest
        return found, skipped

    def _turns(self) -> list[int]:
        """The writers, another one first each time: a busy one must not starve the others."""
        writers = self.reader.writers()
        turn = self._last_step % len(writers) if writers else 0
        return writers[turn:] + writers[:turn]

    def _skip(self, after: Position, error: JournalDamaged) -> bool:
        """Go on behind a damaged stretch, for good; whether there is anything behind it."""
        self.counters.damaged_stretches += 1
        log.error("%s", error)
        behind = self.reader.skip_damaged(after)
        if behind.batch <= after.batch:
            return False
        with self._books:
            skipped = Range(after.writer, after.batch, behind.batch, 0)
            step = self._last_step + 1
            self.store.insert_loads([Load(skipped, step, {})], version=self.clock())
            self._last_step = step
            self._marks[after.writer] = behind.batch
        return True

    def _load_range(self, work: Work, writer: int, batches: Sequence[Batch]) -> int:
        """Decode a writer's batches into `work`; how many events they held."""
        tallies: dict[tuple[str, str], Tally] = {}
        judge, add = self.judge.first, work.add
        work.last = batches[-1].position.batch
        began = time.perf_counter()
        for batch in batches:
            number = batch.position.batch
            for place, request in enumerate(batch.requests):
                tally = tallies.get((request.account, request.dialect))
                if tally is None:
                    tally = tallies[request.account, request.dialect] = Tally()
                add(request, judge(request), tally, writer, number, place)
                if work.rows >= limits.load_events_max:
                    self.counters.decode_seconds += time.perf_counter() - began
                    self._insert(work)
                    began = time.perf_counter()
        self.counters.decode_seconds += time.perf_counter() - began
        after = self._marks.get(writer, 0)
        covered = Range(writer, after, batches[-1].position.batch, len(batches))
        work.loads.append(Load(covered, self._last_step + 1, tallies))
        self._compare(writer, batches, tallies)
        return sum(tally.received for tally in tallies.values())

    def _compare(
        self,
        writer: int,
        batches: Sequence[Batch],
        tallies: Mapping[tuple[str, str], Tally],
    ) -> None:
        """The books close only if a request holds as many events as its answer counted."""
        counted: Counter[tuple[str, str]] = Counter()
        for batch in batches:
            counted.update(batch.counts)
        for key in counted.keys() | tallies.keys():
            loaded = tallies[key].received if key in tallies else 0
            if loaded != counted[key]:
                self._miscounted += abs(loaded - counted[key])
                log.error(
                    "the books do not close: %s, %s counted %d events in the journal and %d when "
                    "loaded, writer %d, batches %d to %d",
                    *(*key, counted[key], loaded, writer),
                    *(batches[0].position.batch, batches[-1].position.batch),
                )

    def _insert(self, work: Work) -> None:
        """Make the rows gathered so far durable, and let go of them."""
        if work.signs:
            self.identifying.pulse(work.signs, self._sessions)
            work.signs = []
        if not work.rows:
            return
        rows, duplicates = self.first_copies(work)
        self._checkpoint("claimed")
        began = time.perf_counter()
        rejected = work.rejected()
        self.store.insert_rejected(_without(rejected, self._left_rejected))
        self._checkpoint("rejected")
        self.store.insert_events(_without(rows, self._left))
        self._checkpoint("events")
        self.counters.insert_seconds += time.perf_counter() - began
        self.identifying.settle()
        self._checkpoint("settled")
        if self._on_rows is not None:
            self._on_rows(
                LiveRows([("stored", rows), ("duplicate", duplicates), ("rejected", rejected)])
            )
        work.next_rows()

    def work(self) -> Work:
        """An empty one, for another thread than the loader's."""
        return Work(SessionIds())

    def first_copies(self, work: Work) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """The rows that are first copies, with who did them, and the duplicates; the books follow.
        Durable."""
        rows = work.events()
        began = time.perf_counter()
        first = self.seen.claim(work.claims, received_at=work.received_at)
        self.counters.claim_seconds += time.perf_counter() - began
        again = bool(self._left)
        if all(first):
            work.count_violations(())
            found = self.identifying.attribute(rows, work.said, repeated=again)
            return found, rows.slice(0, 0)
        flags = [True] * rows.num_rows
        for claimant, is_first in zip(work.claimants, first, strict=True):
            if not is_first:
                flags[claimant] = False
                work.tallies[claimant].stored -= 1
                work.tallies[claimant].duplicate += 1
        work.count_violations({row for row, flag in enumerate(flags) if not flag})
        said = [one for one, flag in zip(work.said, flags, strict=True) if flag]
        first_copies = self.identifying.attribute(keep(rows, flags), said, repeated=again)
        return first_copies, keep(rows, [not flag for flag in flags])

    # --- now and then ---------------------------------------------------------------------------

    def _tidy(self) -> None:
        """Forget what nobody needs any more: journal files, dedupe keys, single books."""
        if time.monotonic() - self._tidied < _TIDY_SECONDS:
            return
        self._tidied = time.monotonic()
        now = self.clock()
        kept_since = now - self._retain_days * _DAY_US
        self.reader.expire(kept_since, self.marks())
        # A day more than the journal: what a replay finds there still knows its first copy.
        days = max(limits.dedupe_days_min, self._retain_days + 1)
        self.seen.forget(now - days * _DAY_US)
        self.store.fold_loads(now - (self._retain_days + 1) * _DAY_US)
        self.violations.fold(now - (self._retain_days + 1) * _DAY_US)
        with self.paused(), apart_from_replays() as apart:
            if apart:
                self.identifying.tidy(now, late_days_max=_LATE_DAYS_MAX + self._retain_days)


def _without(rows: pa.RecordBatch, places: set[Place]) -> pa.RecordBatch:
    """The rows that are not at one of some places."""
    if not places:
        return rows
    return keep(rows, [place not in places for place in places_of(rows)])
