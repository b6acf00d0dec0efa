"""The journal's reading end on SQLite: all writers' segments in order, damaged stretches named.

Theory of operation in ``sqlite.py``. Connections are read-only and hold no transaction between
calls. Which segments there are is remembered as long as the folder's time of change says so; what
an activated segment says about the one before it never changes and is remembered for good. An idle
poll is then one `stat` and two small queries, some 30 µs.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

import apsw
import msgspec

from headwater import limits
from headwater.accept.request import Request
from headwater.errors import JournalDamaged
from headwater.journal.journal import Batch, Position
from headwater.journal.sqlite_damage import Damage, damaged, describe, reading, writer_lives
from headwater.journal.sqlite_file import check_sqlite, open_file
from headwater.journal.sqlite_segment import (
    SEGMENT_SPAN,
    About,
    batch_number,
    delete_segment,
    folder_bytes,
    read_about,
    read_about_again,
    row_crc,
    segment_numbers,
    segment_path,
    unpack_counts,
)

_WRITER = re.compile(r"w(\d{1,5})")
_COLUMNS = "n, committed_at, first_at, last_at, requests, counts, crc32, data"
_ROWS = f"SELECT {_COLUMNS} FROM batches WHERE n > ? AND n <= ? ORDER BY n LIMIT ?"  # noqa: S608
_ROW = f"SELECT {_COLUMNS} FROM batches WHERE n = ?"  # noqa: S608
_COUNTS = "SELECT counts FROM batches WHERE n > ? AND n <= ?"
_TIMES = "SELECT n FROM batches WHERE n <= ? AND last_at >= ? AND first_at < ? ORDER BY n"
_SUMMARY = (
    "SELECT coalesce(max(n), 0), coalesce(max(last_at), 0), coalesce(max(committed_at), 0) "
    "FROM batches WHERE n <= ?"
)
#: A folder's time of change has the resolution of the kernel's tick; younger than this it may
#: already have changed again.
_LISTING_AGE_NS = 50_000_000
#: A request id's time and its received_at are from one clock, read twice.
_ID_SLACK_US = 5_000_000

_decode = msgspec.msgpack.Decoder(list[Request]).decode
_Row = tuple[int, int, int, int, int, bytes, int, bytes]


class _Open:
    """A segment opened for reading, and what it says about itself (None: that part is damaged)."""

    def __init__(self, path: Path) -> None:
        self.connection = open_file(path, write=False)
        try:
            self.about = self._read_about()
        except BaseException:
            self.connection.close(True)
            raise

    def _read_about(self) -> About | None:
        try:
            return read_about(self.connection)
        except apsw.CorruptError:
            # A file that is shorter than it says is refused as a whole, but for this setting.
            self.connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
            self.connection.pragma("writable_schema", "on")
            try:
                return read_about(self.connection)
            except apsw.CorruptError:
                self.connection.execute("SELECT n FROM batches LIMIT 0").fetchall()
                return None


class SqliteReader:
    """See ``journal.Reader``. One object may be used by several threads, one call at a time.

    Beside the damage that the interface names, JournalFailed is raised when a file cannot be opened
    or read just now (no descriptors, no memory, a full disk): nothing is lost, try again.
    """

    def __init__(self, folder: Path) -> None:
        check_sqlite()
        self._folder = folder
        self._lock = threading.RLock()
        self._open_files: OrderedDict[tuple[int, int], _Open] = OrderedDict()
        self._listings: dict[int, tuple[int, list[int]]] = {}
        self._paths: dict[tuple[int, int], Path] = {}
        self._ends: dict[tuple[int, int], int | None] = {}
        self._sums: dict[tuple[int, int], dict[tuple[str, str], int]] = {}
        self._summaries: dict[tuple[int, int], tuple[int, int, int]] = {}

    def writers(self) -> list[int]:
        """The numbers of all writers that have ever written."""
        try:
            names = [path.name for path in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(int(match[1]) for name in names if (match := _WRITER.fullmatch(name)))

    def read(self, after: Position, *, batches_max: int, bytes_max: int) -> list[Batch]:
        """See ``journal.Reader.read``; at least one batch when there is one, however large.
        Raises JournalDamaged, JournalFailed, DataError (a newer Headwater's file)."""
        with self._lock:
            try:
                return self._read(after, batches_max, bytes_max)
            except Damage as damage:
                raise self._describe(after.writer, damage) from damage

    def skip_damaged(self, after: Position) -> Position:
        """See ``journal.Reader.skip_damaged``; `after` itself when nothing behind it is damaged."""
        with self._lock:
            try:
                self._read(after, 1, 1)
            except Damage as damage:
                return Position(after.writer, self._behind(after.writer, damage))
            return after

    def batch(self, position: Position) -> Batch | None:
        """One batch; None when it is not there (any more). Raises as `read` does."""
        number, n = divmod(position.batch, SEGMENT_SPAN)
        with self._lock:
            if number not in self._numbers(position.writer):
                return None
            try:
                row = self._row(position.writer, number, n)
                return None if row is None else self._unpack(position.writer, number, row)
            except Damage as damage:
                raise self._describe(position.writer, damage) from damage

    def pending(self, loaded: Mapping[int, int]) -> dict[tuple[str, str], int]:
        """See ``journal.Reader.pending``; batches that cannot be read count nothing."""
        total: dict[tuple[str, str], int] = {}
        with self._lock:
            for writer in self.writers():
                segment, n = divmod(loaded.get(writer, 0), SEGMENT_SPAN)
                for number in self._numbers(writer):
                    if number >= segment:
                        floor = n if number == segment else 0
                        for key, events in self._sum(writer, number, floor).items():
                            total[key] = total.get(key, 0) + events
        return total

    def find(
        self, *, since: int | None = None, until: int | None = None, request_id: bytes | None = None
    ) -> Iterator[Position]:
        """See ``journal.Reader.find``: by writer, each in order; damaged batches are left out."""
        if request_id is not None:
            # A UUIDv7 begins with its time in milliseconds: only batches of that time are read.
            at = int.from_bytes(request_id[:6], "big") * 1000
            since, until = at - _ID_SLACK_US, at + _ID_SLACK_US
        low = -(2**63) if since is None else since
        high = 2**63 - 1 if until is None else until
        for writer in self.writers():
            for number in self._numbers(writer):
                with self._lock:
                    places = self._places(writer, number, low, high)
                for n in places:
                    position = Position(writer, batch_number(number, n))
                    if request_id is None or self._holds(position, request_id):
                        yield position

    def expire(self, before: int, loaded: Mapping[int, int]) -> int:
        """See ``journal.Reader.expire``. Never a writer's newest segment, and never one before
        which an older one is kept."""
        freed = 0
        with self._lock:
            for writer in self.writers():
                for number in self._numbers(writer)[:-1]:
                    if not self._expired(writer, number, before, loaded.get(writer, 0)):
                        break
                    self._forget(writer, number)
                    freed += delete_segment(self._path(writer, number))
                    for kept in (self._paths, self._ends, self._sums, self._summaries):
                        kept.pop((writer, number), None)
        return freed

    def bytes_used(self) -> int:
        """Bytes on disk, all writers."""
        return sum(folder_bytes(self._folder / f"w{writer}") for writer in self.writers())

    def close(self) -> None:
        with self._lock:
            for opened in self._open_files.values():
                opened.connection.close(True)
            self._open_files.clear()

    # --- segments --------------------------------------------------------------------------------

    def _path(self, writer: int, number: int) -> Path:
        # Remembered: putting a path together costs as much as a small query.
        path = self._paths.get((writer, number))
        if path is None:
            path = segment_path(self._folder / f"w{writer}", number)
            self._paths[writer, number] = path
        return path

    def _numbers(self, writer: int) -> list[int]:
        """The numbers of a writer's segments, rising."""
        folder = self._path(writer, 0).parent
        try:
            changed = os.stat(folder).st_mtime_ns
        except FileNotFoundError:
            return []
        kept = self._listings.get(writer)
        if kept is not None and kept[0] == changed:
            return kept[1]
        numbers = segment_numbers(folder)
        if time.time_ns() - changed > _LISTING_AGE_NS:
            self._listings[writer] = (changed, numbers)
        for key in [key for key in self._open_files if key[0] == writer and key[1] not in numbers]:
            self._forget(*key)
        return numbers

    def _forget(self, writer: int, number: int) -> None:
        """Close a segment that is read to its end or gone; while it is open its log stays."""
        if (opened := self._open_files.pop((writer, number), None)) is not None:
            opened.connection.close(True)

    def _opened(self, writer: int, number: int) -> _Open:
        """Raises Damage, JournalFailed, DataError."""
        key, path = (writer, number), self._path(writer, number)
        if (opened := self._open_files.get(key)) is not None:
            self._open_files.move_to_end(key)
            if opened.about is None or opened.about.activated:
                return opened
            # A spare is the only kind whose word changes.
            with reading(path, number, 0, whole=True):
                opened.about = read_about_again(opened.connection)
            return opened
        with reading(path, number, 0, whole=True):
            opened = _Open(path)
        self._open_files[key] = opened
        while len(self._open_files) > limits.journal_open_files_max:
            self._open_files.popitem(last=False)[1].connection.close(True)
        return opened

    def end(self, writer: int, number: int) -> tuple[bool, int | None]:
        """Whether a segment is finished, and its last good batch (None: all it has), by what its
        successors say. Asked before its rows are read: what is read then is complete."""
        key = (writer, number)
        if key in self._ends:
            return True, self._ends[key]
        for later in self._numbers(writer):
            if later <= number:
                continue
            try:
                about = self._opened(writer, later).about
            except Damage:
                # It may have been a spare; what comes behind it, or nothing, decides.
                continue
            if about is None:
                self._ends[key] = None
                return True, None
            if about.activated:
                # Segments between `previous` and it hold nothing good.
                end = about.previous_end if about.previous == number else None
                if about.previous is not None and about.previous < number:
                    end = 0
                self._ends[key] = end
                return True, end
        return False, None

    def _broken_behind(self, writer: int, number: int) -> bool:
        """Whether an unreadable file is all that follows, with no writer left to replace it."""
        for later in self._numbers(writer):
            if later > number and (writer, later) not in self._open_files:
                try:
                    self._opened(writer, later)
                except Damage:
                    return not self._lives(writer)
        return False

    def _read(self, after: Position, batches_max: int, bytes_max: int) -> list[Batch]:
        writer = after.writer
        segment, n = divmod(after.batch, SEGMENT_SPAN)
        found: list[Batch] = []
        size = 0
        for number in self._numbers(writer):
            if number < segment:
                continue
            floor = n if number == segment else 0
            finished, end = self.end(writer, number)
            if floor >= (SEGMENT_SPAN - 1 if end is None else end):
                self._forget(writer, number)
                continue
            try:
                for row in self._rows(writer, number, floor, end, batches_max - len(found)):
                    found.append(self._unpack(writer, number, row))
                    size += len(row[7])
                    if len(found) >= batches_max or size >= bytes_max:
                        return found
            except Damage as damage:
                if found:
                    return found  # first what is good; the next call meets the damage itself
                if damage.whole and not finished and self._lives(writer):
                    return found  # its writer meets the damage too, and goes on in another file
                damage.floor, damage.end = floor, end
                raise
            if not finished and not self._broken_behind(writer, number):
                break
            self._forget(writer, number)
        return found

    def _rows(
        self, writer: int, number: int, floor: int, end: int | None, rows_max: int
    ) -> Iterator[_Row]:
        """A segment's rows behind `floor`, without a gap. Raises Damage."""
        opened = self._opened(writer, number)
        if opened.about is not None and not opened.about.activated:
            return
        last = floor
        bound = SEGMENT_SPAN if end is None else end
        path = self._path(writer, number)
        with reading(path, number, floor):
            cursor = opened.connection.execute(_ROWS, (floor, bound, rows_max))
            try:
                for row in cursor:
                    if row[0] != last + 1:
                        break
                    last = row[0]
                    yield row
                else:
                    if end is None or last >= end or last - floor >= rows_max:
                        return
            finally:
                cursor.close()
        raise Damage(path, number, last, "batches are missing")

    def _row(self, writer: int, number: int, n: int) -> _Row | None:
        opened = self._opened(writer, number)
        with reading(self._path(writer, number), number, n - 1):
            row: _Row | None = opened.connection.execute(_ROW, (n,)).fetchone()
            return row

    def _unpack(self, writer: int, number: int, row: _Row) -> Batch:
        n, committed_at, first_at, last_at, requests, counts, crc, data = row
        path = self._path(writer, number)
        try:
            times = (committed_at, first_at, last_at)
            fits = row_crc(writer, number, n, times, requests, counts, data) == crc
        except (struct.error, TypeError):  # a column is of another type, or out of its range
            fits = False
        if not fits:
            raise Damage(path, number, n - 1, "its checksum does not fit")
        try:
            return Batch(
                Position(writer, batch_number(number, n)),
                committed_at,
                unpack_counts(counts),
                _decode(data),
            )
        except msgspec.MsgspecError as error:
            # Its checksum is right, so it was written so: by another version of Headwater.
            raise Damage(path, number, n - 1, f"it cannot be decoded: {error}") from error

    # --- damage ----------------------------------------------------------------------------------

    def _lives(self, writer: int) -> bool:
        return writer_lives(self._folder / f"w{writer}")

    def _next_good(self, writer: int, damage: Damage) -> tuple[int | None, int | None]:
        """The first readable batch behind a damage, and the last one to look for, if known."""
        number, floor = damage.number, damage.floor
        last = damage.end
        if damage.whole:
            return None, last
        try:
            connection = self._opened(writer, number).connection
            if last is None:
                with reading(damage.path, number, floor):
                    last = connection.execute("SELECT max(n) FROM batches").get
        except Damage as more:
            if more.whole:
                return None, last
        # A row takes more than 64 bytes.
        tried = min(limits.damaged_rows_tried_max, os.stat(damage.path).st_size // 64)
        for n in range(floor + 1, min(last or floor + tried, floor + tried) + 1):
            try:
                if (row := self._row(writer, number, n)) is not None:
                    self._unpack(writer, number, row)
                    return n, last
            except Damage:
                continue
        return None, last

    def _behind(self, writer: int, damage: Damage) -> int:
        """The batch number to go on from."""
        good, last = self._next_good(writer, damage)
        if good is not None:
            return batch_number(damage.number, good - 1)
        if not self.end(writer, damage.number)[0] and self._lives(writer):
            # More may follow in this file: no further than it is known to reach now.
            return batch_number(damage.number, last or damage.floor)
        return batch_number(damage.number, SEGMENT_SPAN - 1)

    def _describe(self, writer: int, damage: Damage) -> JournalDamaged:
        good, last = self._next_good(writer, damage)
        damage.end = last if damage.end is None else damage.end
        since = until = None
        try:
            if damage.floor and (row := self._row(writer, damage.number, damage.floor)):
                since = row[3]
            if good is not None and (row := self._row(writer, damage.number, good)):
                until = row[2]
        except Damage:
            pass
        return damaged(describe(damage, good, since, until))

    # --- sums, places, retention -----------------------------------------------------------------

    def _sum(self, writer: int, number: int, floor: int) -> dict[tuple[str, str], int]:
        """Events per account and dialect in a segment behind `floor`."""
        key = (writer, number)
        if not floor and key in self._sums:
            return self._sums[key]
        total: dict[tuple[str, str], int] = {}
        finished, end = self.end(writer, number)
        try:
            connection = self._opened(writer, number).connection
            with reading(self._path(writer, number), number, floor):
                bound = SEGMENT_SPAN if end is None else end
                for (counts,) in connection.execute(_COUNTS, (floor, bound)):
                    for each, events in unpack_counts(counts).items():
                        total[each] = total.get(each, 0) + events
        except Damage:
            return total
        if finished and not floor:
            self._sums[key] = total
        return total

    def _places(self, writer: int, number: int, since: int, until: int) -> list[int]:
        """Batches of a segment that hold something received in [since, until)."""
        _, end = self.end(writer, number)
        try:
            connection = self._opened(writer, number).connection
            with reading(self._path(writer, number), number, 0):
                bound = SEGMENT_SPAN if end is None else end
                return [n for (n,) in connection.execute(_TIMES, (bound, since, until))]
        except Damage:
            return []

    def _holds(self, position: Position, request_id: bytes) -> bool:
        try:
            batch = self.batch(position)
        except JournalDamaged:
            return False
        return batch is not None and any(
            request.request_id == request_id for request in batch.requests
        )

    def _expired(self, writer: int, number: int, before: int, loaded: int) -> bool:
        finished, end = self.end(writer, number)
        if not finished:
            return False
        path = self._path(writer, number)
        key = (writer, number)
        try:
            if key not in self._summaries:
                connection = self._opened(writer, number).connection
                with reading(path, number, 0):
                    bound = SEGMENT_SPAN if end is None else end
                    row = connection.execute(_SUMMARY, (bound,)).fetchone()
                    assert row is not None
                    self._summaries[key] = row
                self._forget(writer, number)
            last, *times = self._summaries[key]
        except Damage:
            # Nothing of it can be loaded any more once loading has gone past it.
            passed = loaded >= batch_number(number + 1, 0)
            return passed and path.stat().st_mtime_ns // 1000 < before
        return loaded >= batch_number(number, last) and max(times) < before
