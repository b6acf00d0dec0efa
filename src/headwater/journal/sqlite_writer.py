"""The journal's writing end on SQLite: group commits, rotation, and what happens when a disk fails.

Theory of operation in ``sqlite.py``. All state belongs to the event loop. One thread commits, one
job at a time; a pool does what may take long (making, retiring and measuring segments). Both hand
their results back to the loop, so there are no locks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import msgspec

from headwater import limits
from headwater.accept.request import Request
from headwater.clock import Clock
from headwater.errors import DataError, JournalFailed, JournalFull
from headwater.journal import sqlite_segment
from headwater.journal.sqlite_file import check_sqlite, make_folder
from headwater.journal.sqlite_lock import asked_to_leave, lock_folder, rewriting
from headwater.journal.sqlite_recovery import find_tail
from headwater.journal.sqlite_segment import Row, Segment

_log = logging.getLogger("headwater.journal")

Done = Callable[[Exception | None], None]
#: msgpack's array of up to 2^32 elements, before their number.
_ARRAY = b"\xdd"


class _Group:
    """One group commit in the making."""

    __slots__ = ("bytes", "counts", "dones", "first_at", "last_at", "parts")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.dones: list[Done] = []
        self.counts: dict[tuple[str, str], int] = {}
        self.bytes = 0
        self.first_at = 0
        self.last_at = 0


class _Committer:
    """The thread that commits. It knows a segment and a group, and says how that went."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        report: Callable[[_Group, Exception | None], None],
    ) -> None:
        self._clock = clock
        self._loop = loop
        self._report = report
        self._jobs: queue.SimpleQueue[tuple[Segment, _Group] | None] = queue.SimpleQueue()
        # A daemon: a disk that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def commit(self, segment: Segment, group: _Group) -> None:
        self._jobs.put((segment, group))

    def stop(self) -> None:
        """Wait until the thread has ended; it has nothing to do any more."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            segment, group = job
            failure: Exception | None = None
            try:
                self._write(segment, group)
            except Exception as error:  # whatever it is: it was not written, and that is reported
                failure = error
            try:
                self._loop.call_soon_threadsafe(self._report, group, failure)
            except RuntimeError:  # the loop is closed: nobody is left to be told
                return

    def _write(self, segment: Segment, group: _Group) -> None:
        number = len(group.parts)
        if not number:  # the segment is only begun, because the one before is wanted
            segment.activate(self._clock())
            return
        segment.insert(
            Row(
                committed_at=self._clock(),
                first_at=group.first_at,
                last_at=group.last_at,
                requests=number,
                counts=group.counts,
                data=b"".join((_ARRAY, number.to_bytes(4, "big"), *group.parts)),
            )
        )


class SqliteWriter:
    """One process's end of the journal, in `folder`/w`writer` (see ``journal.Writer``).

    `bytes_max` bounds this writer's folder; its segments are numbered from `first_segment` on, or
    from behind those that are there. Raises FolderInUse when another process writes there,
    DataError when the folder cannot be used. Makes its first segment before it returns.
    """

    def __init__(
        self,
        folder: Path,
        writer: int,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        bytes_max: int = limits.journal_bytes_max,
        segment_bytes_max: int = limits.segment_bytes_max,
        first_segment: int = 1,
    ) -> None:
        check_sqlite()
        self._folder = folder / f"w{writer}"
        self._writer = writer
        self._loop = loop
        self._clock = clock
        self._bytes_max = bytes_max
        self._segment_bytes_max = segment_bytes_max
        self._first_segment = first_segment
        self._encode = msgspec.msgpack.Encoder().encode
        self._group = _Group()
        self._full_groups: deque[_Group] = deque()
        self._queued_bytes = 0
        self._flush_due = False
        self._committing: _Group | None = None
        self._committing_since = 0.0
        #: Why nothing is taken now. Full: what is queued is still committed; failed: nothing is.
        self._refusal: JournalFull | JournalFailed | None = None
        self._failed = False
        self._hangs: JournalFailed | None = None  # the refusal while a commit does not come back
        #: Writes or fsyncs that failed, since the start.
        self.failures = 0
        self._closing: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._segment: Segment
        self._retiring: list[Segment] = []
        self._spare: Segment | None = None
        self._spare_made: asyncio.Task[None] | None = None
        self._sweeping = False
        #: Up to this number segments are wanted for an erasure: they are not written any more.
        self._wanted = 0
        self._hurry = threading.Event()

        make_folder(folder)
        make_folder(self._folder)
        self._lock = lock_folder(self._folder)
        try:
            try:
                self._start()
            except (apsw.Error, OSError, ValueError) as error:
                raise DataError(
                    f"the journal in {self._folder} cannot be written: {error}",
                    remedy="check that the disk has room and that this user may write there",
                ) from error
        except BaseException:
            os.close(self._lock)
            raise
        self._pool = ThreadPoolExecutor(3, thread_name_prefix=f"journal-w{writer}")
        self._committer = _Committer(f"journal-w{writer}", clock, loop, self._committed)
        self._measured(sqlite_segment.folder_bytes(self._folder))
        self._turn_over()
        self._timer = loop.call_later(limits.journal_probe_seconds, self._probe)

    # --- the hot path ----------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        """Whether a write would be durable now: False while full, failed, closed, or when a commit
        has been under way for so long that the disk must be hanging."""
        if self._refusal is not None:
            return False
        return (
            self._committing is None
            or time.monotonic() - self._committing_since < limits.journal_commit_seconds_max
        )

    def append(self, request: Request, events: int, done: Done) -> None:
        """Queue a request; see ``journal.Writer.append``. Never calls `done` before it returns."""
        refusal = self._refusal
        if refusal is not None:
            self._loop.call_soon(done, refusal)
            return
        try:
            data = self._encode(request)
        except (ValueError, TypeError, OverflowError) as error:
            self._loop.call_soon(done, JournalFailed(f"the request cannot be written: {error}"))
            return
        size = len(data)
        if self._used + self._queued_bytes + size > self._bytes_max:
            self._loop.call_soon(done, self._filled())
            return
        group = self._group
        if group.parts and (
            len(group.parts) >= limits.batch_requests_max
            or group.bytes + size > limits.batch_bytes_max
        ):
            self._full_groups.append(group)
            group = self._group = _Group()
        at = request.received_at
        if not group.parts:
            group.first_at = group.last_at = at
        elif at > group.last_at:
            group.last_at = at
        elif at < group.first_at:
            group.first_at = at
        group.parts.append(data)
        group.dones.append(done)
        group.bytes += size
        key = (request.account, request.dialect)
        group.counts[key] = group.counts.get(key, 0) + events
        self._queued_bytes += size
        if self._committing is None and not self._flush_due:
            # Once per turn of the loop: what else arrives in this turn shares the commit.
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._committing is not None or self._failed:
            return
        if self._full_groups:
            group = self._full_groups.popleft()
        elif self._group.parts:
            group, self._group = self._group, _Group()
        elif self._segment.number <= self._wanted and self._spare is not None:
            group = _Group()  # nothing to write: the next segment is only begun
        else:
            if self._closing is not None:
                self._drained(self._closing)
            return
        segment = self._segment
        full = segment.bytes >= self._segment_bytes_max or segment.number <= self._wanted
        if full and self._spare is not None:
            self._retiring.append(segment)
            self._spare.previous, self._spare.previous_end = segment.tail
            segment = self._segment = self._spare
            self._spare = None
        self._committing = group
        self._committing_since = time.monotonic()
        self._committer.commit(segment, group)

    def _committed(self, group: _Group, failure: Exception | None) -> None:
        self._committing = None
        self._queued_bytes -= group.bytes
        if failure is not None:
            self._fail(group, failure)
            return
        self._used += group.bytes
        if self._hangs is not None:
            if self._refusal is self._hangs:
                self._refusal = None
            self._hangs = None
        # The next commit first: the disk works while the answers of this one are written.
        self._flush()
        self._call(group.dones, None)
        self._turn_over()

    def _turn_over(self) -> None:
        """Retire what was left, and have the next segment ready well before it is needed."""
        if self._retiring:
            for segment in self._retiring:
                self._pool.submit(segment.retire, hurry=self._hurry)
            self._retiring = []
        segment = self._segment
        wanted = segment.number <= self._wanted
        if segment.bytes - segment.swept_bytes >= limits.sweep_bytes_max and not self._sweeping:
            self._sweeping = True
            self._background(self._sweep(segment))
        if (
            (wanted or segment.bytes >= self._segment_bytes_max // 2)
            and self._spare is None
            and self._spare_made is None
        ):
            self._spare_made = self._background(self._make_spare())

    async def _sweep(self, segment: Segment) -> None:
        try:
            if segment.swept_bytes >= 0:
                await self._loop.run_in_executor(self._pool, segment.sweep)
        finally:
            self._sweeping = False

    def _background(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _make_spare(self) -> None:
        try:
            self._spare = await self._loop.run_in_executor(self._pool, self._make_segment)
        except (apsw.Error, OSError, ValueError) as error:
            # No harm yet: the current segment grows on. Tried again after the next commit.
            _log.warning("no new journal file could be made in %s: %s", self._folder, error)
            await asyncio.sleep(limits.journal_probe_seconds)
        finally:
            self._spare_made = None

    def _call(self, dones: list[Done], outcome: Exception | None) -> None:
        for done in dones:
            try:
                done(outcome)
            except Exception as error:  # one connection's trouble is not the others'
                self._loop.call_exception_handler(
                    {"message": "a request's answer failed", "exception": error}
                )

    # --- bounds and failures ---------------------------------------------------------------------

    def _filled(self) -> JournalFull:
        """Refuse from now on, until a probe finds room."""
        full = self._refusal = JournalFull(
            f"the journal in {self._folder} has reached its bound of {self._bytes_max} bytes",
            remedy="let the loader catch up, lower [journal] retain_days, or raise max_bytes",
        )
        _log.error("%s", full)
        return full

    def _fail(self, group: _Group, failure: Exception) -> None:
        """Nothing that is queued is written any more, and nothing is retried: which of the pages
        are on disk after a failed write or fsync, nobody knows."""
        error = self._refusal = JournalFailed(
            f"a write to {self._segment.path} failed: {failure}",
            remedy="free space or replace the disk; collecting goes on by itself when it can",
        )
        self._failed = True
        self.failures += 1
        _log.error("%s", error)
        groups = [group, *self._full_groups, self._group]
        self._full_groups.clear()
        self._group = _Group()
        self._queued_bytes = 0
        for each in groups:
            self._call(each.dones, error)
        if self._closing is not None:
            self._drained(self._closing)
        else:
            self._background(self._recover())

    async def _recover(self) -> None:
        """Try a new segment every second until one can be written durably."""
        if self._spare_made is not None:
            await asyncio.wait([self._spare_made])
        while self._closing is None:
            try:
                self._segment = await self._loop.run_in_executor(self._pool, self._replace)
            except (apsw.Error, OSError, ValueError) as error:
                _log.warning("the journal in %s still cannot be written: %s", self._folder, error)
                await asyncio.sleep(limits.journal_probe_seconds)
            else:
                _log.warning("the journal goes on in %s", self._segment.path)
                self._failed = False
                self._refusal = None
                return

    def _replace(self) -> Segment:
        """A fresh, activated segment in place of the failed one. The failed one stays open until
        then: as long as it is, readers see its good batches only."""
        failed = self._segment
        spare, self._spare = self._spare, None
        fresh = spare or self._make_segment()
        try:
            fresh.previous, fresh.previous_end = failed.tail
            fresh.activate(self._clock())
        except BaseException:
            fresh.abandon()
            sqlite_segment.delete_segment(fresh.path)
            raise
        failed.abandon()
        if not failed.n:
            sqlite_segment.delete_segment(failed.path)
        return fresh

    def _probe(self) -> None:
        """Once a second: does the disk answer, and how much room is there?"""
        self._timer = self._loop.call_later(limits.journal_probe_seconds, self._probe)
        if self._refusal is None and not self.healthy:
            # What is queued may still become durable; more would only wait behind it.
            self._hangs = self._refusal = JournalFailed(
                f"a write to {self._segment.path} has been under way for "
                f"{time.monotonic() - self._committing_since:.0f} s",
                remedy="look at the disk; collecting goes on by itself when it answers",
            )
            _log.error("%s", self._hangs)
        self._background(self._measure())

    async def _measure(self) -> None:
        try:
            used, wanted = await self._loop.run_in_executor(self._pool, self._look)
        except OSError as error:
            _log.warning("%s cannot be measured: %s", self._folder, error)
            return
        self._measured(used)
        if wanted >= self._segment.number and not self._failed and self._closing is None:
            self._leave(wanted)

    def _look(self) -> tuple[int, int]:
        return sqlite_segment.folder_bytes(self._folder), asked_to_leave(self._folder)

    def _leave(self, wanted: int) -> None:
        """Go on in the next segment, now or once there is one; tried again by every probe."""
        self._wanted = wanted
        self._turn_over()
        if self._committing is None and not self._flush_due:
            self._flush()

    def _measured(self, used: int) -> None:
        self._used = used
        if self._closing is not None:
            return
        if self._refusal is None and used >= self._bytes_max:
            self._filled()
        elif isinstance(self._refusal, JournalFull) and used < self._bytes_max:
            self._refusal = None

    # --- segments, start and end -----------------------------------------------------------------

    def _start(self) -> None:
        """Find where the journal ends, and begin a segment of our own behind it: whatever was left
        half done in the last one, nothing is added to it."""
        with rewriting(self._folder, limits.journal_rewrite_seconds_max):
            found = find_tail(self._folder, self._writer)
            self._next_number = max(found.next_number, self._first_segment)
            fits = found.spare is not None and found.spare.number >= self._first_segment
            self._segment = found.spare if found.spare and fits else self._make_segment()
            self._segment.previous, self._segment.previous_end = found.tail
            self._segment.activate(self._clock())
        if found.last is not None:
            if found.last.n or found.tail[0] == found.last.number:
                self._retiring.append(found.last)
            else:
                found.last.abandon()
                sqlite_segment.delete_segment(found.last.path)

    def _make_segment(self) -> Segment:
        """A spare. Its number is used up even when that fails."""
        number = self._next_number
        self._next_number += 1
        size = self._segment_bytes_max
        free = os.statvfs(self._folder)
        roomy = size * 8 <= self._bytes_max and size * 16 <= free.f_bavail * free.f_frsize
        sqlite_segment.create(
            self._folder,
            self._writer,
            number,
            created_at=self._clock(),
            # A margin for the last batch, which may go beyond.
            preallocate_bytes=size + size // 16 if roomy else 0,
        )
        return Segment(self._folder, self._writer, number)

    def _drained(self, closing: asyncio.Future[None]) -> None:
        if not closing.done():
            closing.set_result(None)

    async def close(self) -> None:
        """Commit what is queued, then let go of the files. A second call does nothing."""
        if self._closing is not None:
            return
        self._closing = self._loop.create_future()
        self._timer.cancel()
        self._refusal = JournalFailed("the journal is closed")
        if not self._failed:
            self._flush()
            await self._closing
        self._hurry.set()
        await asyncio.gather(*self._tasks)
        await self._loop.run_in_executor(self._pool, self._let_go)
        self._pool.shutdown(wait=False)
        os.close(self._lock)

    def _let_go(self) -> None:
        self._committer.stop()
        for segment in (*self._retiring, self._segment):
            if self._failed or not segment.n:
                segment.abandon()
            else:
                segment.retire(hurry=self._hurry)
        if self._spare is not None:
            self._spare.abandon()
