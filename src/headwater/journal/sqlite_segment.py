"""One segment: a SQLite file of at most some 64 MiB that a writer fills once and never again.

``sqlite.py`` tells how segments together make a journal. A file holds two tables: `segment`, one
row about itself, and `batches`, one row a group commit. A segment lives through

    made (a spare) → activated (its writer's current one) → retired (checkpointed, whole)
                                                          → abandoned (after a failed write)

and is deleted by retention, or when it was abandoned before anything good was in it.
"""

from __future__ import annotations

import logging
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

import apsw
import msgspec

from headwater import limits
from headwater.journal.sqlite_file import free_slowly, make_private, open_file, sync_folder
from headwater.journal.sqlite_lock import rewriting

#: Written into every file; a reader refuses what is newer.
FORMAT = 1
APPLICATION_ID = 0x48574A31  # "HWJ1": tells `file` and us whose it is
#: Batch numbers: segment 3, batch 17 is 3,000,000,017. No number depends on what an earlier file
#: holds, so none is given twice, whatever was lost with that file.
SEGMENT_SPAN = 1_000_000_000
#: A group commit is 20 to 100 KB; at 8 KiB a page its commit takes 25 % less time than at 4 KiB,
#: and that of one small request hardly more.
PAGE_BYTES = 8_192
FRAME_BYTES = PAGE_BYTES + 24  # a page in the write-ahead log

#: How long a full segment waits for readers to move on.
RETIRE_SECONDS_MAX = 5.0
_LOCK_SECONDS = 0.1

_log = logging.getLogger("headwater.journal")

_NAME = re.compile(r"(\d{8})\.sqlite")
_SCHEMA = """
CREATE TABLE segment (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  format INTEGER NOT NULL,
  writer INTEGER NOT NULL,
  segment INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  activated_at INTEGER,   -- NULL: a spare, nothing was ever written to it
  previous INTEGER,       -- the segment that holds the batches before these
  previous_end INTEGER    -- its last good batch; what stands behind was never acknowledged
);
CREATE TABLE batches (
  n INTEGER PRIMARY KEY,
  committed_at INTEGER NOT NULL,
  first_at INTEGER NOT NULL,
  last_at INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  counts BLOB NOT NULL,   -- msgpack [[account, dialect, events], …]; before data: read without it
  crc32 INTEGER NOT NULL,
  data BLOB NOT NULL      -- msgpack [request, …]
);
"""
_INSERT = "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_CRC_HEAD = struct.Struct("<IIIqqqI")
_ZEROS = bytes(1024 * 1024)

_encode_counts = msgspec.msgpack.Encoder().encode
_decode_counts = msgspec.msgpack.Decoder(list[tuple[str, str, int]]).decode


class NewerFormat(ValueError):
    """A segment written by a newer Headwater."""


class About(msgspec.Struct, frozen=True):
    """The row of table `segment`, as far as it is needed."""

    activated: bool
    previous: int | None
    previous_end: int | None
    created_at: int


class Row(msgspec.Struct, frozen=True):
    """One group commit, ready to be inserted: `data` is a msgpack array of requests."""

    committed_at: int
    first_at: int
    last_at: int
    requests: int
    counts: Mapping[tuple[str, str], int]
    data: bytes


def batch_number(segment: int, n: int) -> int:
    return segment * SEGMENT_SPAN + n


def segment_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.sqlite"


def segment_numbers(folder: Path) -> list[int]:
    """The numbers of the segments in a writer's folder, rising."""
    return sorted(
        int(match[1]) for name in os.listdir(folder) if (match := _NAME.fullmatch(name)) is not None
    )


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a writer's folder; one that goes away meanwhile counts nothing."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                total += entry.stat().st_size
            except FileNotFoundError:
                continue
    return total


def delete_segment(path: Path) -> int:
    """Delete a segment's files; bytes freed. The main file goes first: what a kill leaves behind
    is then no segment any more."""
    freed = 0
    for file in (path, *sidecars(path)):
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            freed += os.fstat(descriptor).st_size
            file.unlink()
            free_slowly(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(path.parent)
    return freed


def sidecars(path: Path) -> tuple[Path, Path, Path]:
    """SQLite's files beside a segment, and the copy of a damaged write-ahead log."""
    return (
        path.with_name(path.name + "-wal"),
        path.with_name(path.name + "-shm"),
        path.with_name(path.name + "-wal.damaged"),
    )


def pack_counts(counts: Mapping[tuple[str, str], int]) -> bytes:
    return _encode_counts([(*key, events) for key, events in counts.items()])


def unpack_counts(counts: bytes) -> dict[tuple[str, str], int]:
    """Raises msgspec.MsgspecError on what `pack_counts` did not write."""
    return {(account, dialect): events for account, dialect, events in _decode_counts(counts)}


def row_crc(
    writer: int,
    segment: int,
    n: int,
    times: tuple[int, int, int],
    requests: int,
    counts: bytes,
    data: bytes,
) -> int:
    """CRC-32 over the whole row and its place: no column, no row is taken for another."""
    head = _CRC_HEAD.pack(writer, segment, n, *times, requests)
    return zlib.crc32(data, zlib.crc32(counts, zlib.crc32(head)))


def create(
    folder: Path, writer: int, number: int, *, created_at: int, preallocate_bytes: int
) -> None:
    """Make an empty segment, whole or not at all: written under another name, then renamed.

    `preallocate_bytes` of zeros become its write-ahead log. Overwriting allocated blocks makes an
    fdatasync that need not wait for the file system's own journal: 60 µs instead of 120 for a small
    commit, and no wait for whatever else is being written (up to 4 ms each). SQLite takes zeros at
    the start of a log for an empty log. Raises apsw.Error, OSError.
    """
    path = segment_path(folder, number)
    fresh = path.with_suffix(".new")
    for leftover in (fresh, *sidecars(fresh), *sidecars(path)):
        leftover.unlink(missing_ok=True)
    try:
        make_private(fresh)
        connection = open_file(fresh, write=True)
        try:
            connection.pragma("page_size", PAGE_BYTES)
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("journal_mode", "wal")
            with connection:
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(
                    "INSERT INTO segment VALUES (1, ?, ?, ?, ?, NULL, NULL, NULL)",
                    (FORMAT, writer, number, created_at),
                )
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            connection.close()
        if preallocate_bytes:
            _write_zeros(sidecars(path)[0], preallocate_bytes)
        fresh.rename(path)
        sync_folder(folder)
    except BaseException:
        for leftover in (fresh, *sidecars(fresh), *sidecars(path)):
            leftover.unlink(missing_ok=True)
        raise


def _write_zeros(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        while size > 0:
            size -= os.write(descriptor, _ZEROS[:size])
            # A MiB at a time: one fsync of 64 MiB would keep the disk from the ones that count.
            os.fdatasync(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_about(connection: apsw.Connection) -> About:
    """Raises apsw.Error, and ValueError with words for a file that is none of ours."""
    if connection.pragma("application_id") != APPLICATION_ID:
        raise ValueError("it is not a segment of a Headwater journal")
    return read_about_again(connection)


def read_about_again(connection: apsw.Connection) -> About:
    """`read_about` of a file that is known to be ours."""
    row = connection.execute(
        "SELECT format, activated_at, previous, previous_end, created_at FROM segment WHERE id = 1"
    ).fetchone()
    if row is None or not all(isinstance(row[place], int) for place in (0, 4)):
        raise ValueError("it does not say what it is")
    if row[0] > FORMAT:
        raise NewerFormat(f"its format is {row[0]}, this Headwater knows up to {FORMAT}")
    return About(row[1] is not None, row[2], row[3], row[4])


class Segment:
    """A segment's writing end. Used by one thread at a time; `previous` and `previous_end` are put
    in before the first insert, which writes them down first."""

    def __init__(self, folder: Path, writer: int, number: int) -> None:
        """Open an existing segment for writing. Raises apsw.Error, ValueError."""
        self.path = segment_path(folder, number)
        self.writer = writer
        self.number = number
        #: How much was written to its write-ahead log, about, and how much of that is swept (-1:
        #: it is not swept any more).
        self.bytes = 0
        self.swept_bytes = 0
        self._sweeper: apsw.Connection | None = None
        self._sweeping = threading.Lock()
        self.connection = open_file(self.path, write=True)
        try:
            about = read_about(self.connection)
            self.activated = about.activated
            self.previous = about.previous
            self.previous_end = about.previous_end
            self.connection.pragma("wal_autocheckpoint", 0)
            #: The last good batch, 0 for none.
            self.n: int = self.connection.execute("SELECT coalesce(max(n), 0) FROM batches").get
        except BaseException:
            self.abandon()
            raise

    @property
    def tail(self) -> tuple[int | None, int | None]:
        """The last segment that holds something good, and its last good batch: this one's own, or
        while it is empty what it says about the one before."""
        return (self.number, self.n) if self.n else (self.previous, self.previous_end)

    def activate(self, at: int) -> None:
        """Make it the current one, durably, and say where the last one ends. Raises apsw.Error."""
        self.connection.execute(
            "UPDATE segment SET activated_at = ?, previous = ?, previous_end = ?",
            (at, self.previous, self.previous_end),
        )
        self.activated = True
        self.bytes += 3 * FRAME_BYTES

    def insert(self, row: Row) -> None:
        """Write a batch; it is on disk when this returns. Raises apsw.Error: then it never will be,
        and the segment must be abandoned."""
        if not self.activated:
            self.activate(row.committed_at)
        n = self.n + 1
        times = (row.committed_at, row.first_at, row.last_at)
        counts = pack_counts(row.counts)
        crc = row_crc(self.writer, self.number, n, times, row.requests, counts, row.data)
        # One statement outside a transaction: SQLite writes and syncs within one step, during
        # which the interpreter's lock is free.
        self.connection.execute(_INSERT, (n, *times, row.requests, counts, crc, row.data))
        self.n = n
        # Its own pages, and for a large one the page that points to them.
        pages = len(row.data) // PAGE_BYTES
        self.bytes += (pages + 1 + (pages > 0)) * FRAME_BYTES

    def sweep(self) -> None:
        """Copy what is in the write-ahead log into the file, beside the commits of another thread:
        a little at a time, since the disk is busy with it while answers wait for their fsync.

        After an error it is never tried again on this segment: all is safe in the log.
        """
        with self._sweeping:
            if self.swept_bytes < 0:
                return
            swept = self.bytes
            try:
                if self._sweeper is None:
                    self._sweeper = open_file(self.path, write=True)
                    self._sweeper.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                self._sweeper.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                self.swept_bytes = swept
            except (apsw.BusyError, apsw.LockedError):
                return
            except apsw.Error as error:
                self.swept_bytes = -1
                _log.error("%s cannot be checkpointed, its log is kept: %s", self.path, error)

    def retire(self, *, hurry: threading.Event) -> bool:
        """Move the rest of the write-ahead log into the file, be rid of the log, and close: in the
        file, damage is found by checksums and gaps, while a damaged log just ends.

        A reader in the middle of a read delays it; that is waited for for some seconds, or not when
        there is a `hurry`; so does an erasure. False: the log stays, which is as durable.
        """
        deadline = time.monotonic() + limits.journal_rewrite_seconds_max
        while True:
            try:
                with rewriting(self.path.parent, _LOCK_SECONDS):
                    return self._retire(hurry)
            except TimeoutError:
                if hurry.is_set() or time.monotonic() > deadline:
                    self.abandon()
                    return False

    def _retire(self, hurry: threading.Event) -> bool:
        deadline = time.monotonic() + RETIRE_SECONDS_MAX
        while True:
            self.sweep()
            if self.swept_bytes < 0:
                break
            try:
                # Waits for the readers of the log, so that nobody will ever need it again.
                self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
                self._free_log(hurry)
            except (apsw.BusyError, apsw.LockedError):
                if time.monotonic() > deadline or hurry.wait(0.1):
                    break
            except (apsw.Error, OSError) as error:
                _log.error("%s cannot be checkpointed, its log is kept: %s", self.path, error)
                break
            else:
                self._close_sweeper()
                self.connection.close()
                return True
        self.abandon()
        return False

    def _free_log(self, hurry: threading.Event) -> None:
        """Cut a log that was wholly checkpointed. Its head goes first, durably: half a log with a
        head would be taken for the newest state of the pages in it."""
        descriptor = os.open(sidecars(self.path)[0], os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, bytes(32), 0)
            os.fdatasync(descriptor)
            free_slowly(descriptor, hurry)
        finally:
            os.close(descriptor)

    def abandon(self) -> None:
        """Close the files and write nothing more into them, not even on closing."""
        self._close_sweeper()
        self.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self.connection.close(True)

    def _close_sweeper(self) -> None:
        with self._sweeping:
            self.swept_bytes = -1
            if self._sweeper is not None:
                self._sweeper.close(True)
                self._sweeper = None
