"""Erasing requests from the journal's segments: stubs in their place, and no byte left beside them.

Theory of operation. A segment is only rewritten once its writer is done with it: one that is still
written is asked for (``sqlite_lock``), and its writer goes on in the next. Under the folder's
``rewrite`` lock, one transaction replaces the requests, then a VACUUM writes every page anew, since
SQLite leaves old content in the slack of its pages even where it overwrites what it frees, and a
TRUNCATE checkpoint empties the log. Positions, times, counts and batch numbers stay, so what a
reader remembers stays right; it sees a batch as it was or as it is.

A kill leaves a segment as it was, or rewritten with a log to be emptied. So the whole is repeated,
for every segment named, also where all the stubs are there already.

Batches behind a segment's good end (a failed write that a recovery brought back) were never
acknowledged and are read by nobody; they go from the segments that are rewritten.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import apsw
import msgspec

from headwater import limits
from headwater.accept.request import Erased, Request
from headwater.errors import JournalFailed
from headwater.journal.journal import ErasedRequests, Position
from headwater.journal.sqlite_damage import writer_lives
from headwater.journal.sqlite_file import empty_log, open_file, scrub, transaction
from headwater.journal.sqlite_lock import ask_to_leave, rewriting, stop_asking
from headwater.journal.sqlite_reader import SqliteReader
from headwater.journal.sqlite_segment import (
    SEGMENT_SPAN,
    row_crc,
    segment_numbers,
    segment_path,
    sidecars,
)

#: Requests to be erased: a batch, the number in it, and what became of its events.
Requests = Mapping[Position, Mapping[int, Erased]]

_ROW = (
    "SELECT committed_at, first_at, last_at, requests, counts, crc32, data FROM batches WHERE n = ?"
)
_DAMAGE = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, msgspec.MsgspecError, ValueError)
_PAUSE_SECONDS = 0.05

_decode = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_request = msgspec.msgpack.Decoder(Request).decode
_encode = msgspec.msgpack.Encoder().encode


class SqliteEraser:
    """See ``journal.Eraser``. One at a time for a journal; any process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def erase(
        self, requests: Requests, *, progress: Callable[[int], None] | None = None
    ) -> ErasedRequests:
        """See ``journal.Eraser.erase``. Raises JournalFailed: then what is not done yet is done by
        calling it again."""
        segments: dict[tuple[int, int], dict[int, Mapping[int, Erased]]] = {}
        for position, numbers in requests.items():
            number, n = divmod(position.batch, SEGMENT_SPAN)
            segments.setdefault((position.writer, number), {})[n] = numbers
        done = ErasedRequests()
        reader = SqliteReader(self._folder)
        try:
            for (writer, number), batches in sorted(segments.items()):
                self._erase(reader, writer, number, batches, done)
                if progress is not None:
                    progress(done.requests)
            for writer in reader.writers():
                for path in sorted((self._folder / f"w{writer}").glob("*-wal.damaged")):
                    done.left.append(f"{path}: the copy of a damaged log, of no use once looked at")
        finally:
            reader.close()
        return done

    def _erase(
        self,
        reader: SqliteReader,
        writer: int,
        number: int,
        batches: Mapping[int, Mapping[int, Erased]],
        done: ErasedRequests,
    ) -> None:
        folder = self._folder / f"w{writer}"
        path = segment_path(folder, number)
        deadline = time.monotonic() + limits.journal_leave_seconds_max
        asked = False
        try:
            while True:
                with rewriting(folder, limits.journal_rewrite_seconds_max):
                    if number not in segment_numbers(folder):
                        return  # it has expired
                    finished, end = reader.end(writer, number)
                    if finished or not writer_lives(folder):
                        self._rewrite(path, writer, number, batches, end, done)
                        return
                if not asked:
                    ask_to_leave(folder, number)
                    asked = True
                if time.monotonic() > deadline:
                    raise JournalFailed(
                        f"the collector does not let go of {path}",
                        remedy="see whether it runs and whether its disk is well, then erase again",
                    )
                time.sleep(_PAUSE_SECONDS)
        except TimeoutError as error:
            raise JournalFailed(
                f"{folder} is being rewritten by another process", remedy="erase again later"
            ) from error
        except (apsw.Error, OSError) as error:
            raise JournalFailed(
                f"{path} cannot be rewritten: {error}",
                remedy="see that the disk has room for another file of its size, then erase again",
            ) from error
        finally:
            if asked:
                stop_asking(folder)

    def _rewrite(
        self,
        path: Path,
        writer: int,
        number: int,
        batches: Mapping[int, Mapping[int, Erased]],
        end: int | None,
        done: ErasedRequests,
    ) -> None:
        connection = open_file(path, write=True)
        try:
            connection.pragma("wal_autocheckpoint", 0)
            with transaction(connection):
                for n, numbers in sorted(batches.items()):
                    try:
                        done.requests += _replace(connection, (writer, number, n), numbers)
                    except _DAMAGE as error:
                        done.left.append(f"{path}: batch {n} cannot be read ({error})")
            try:
                if end is not None:
                    connection.execute("DELETE FROM batches WHERE n > ?", (end,))
                scrub(connection, limits.journal_rewrite_seconds_max)
            except _DAMAGE as error:
                done.left.append(f"{path}: it is damaged and cannot be written anew ({error})")
            empty_log(connection, limits.journal_rewrite_seconds_max)
        finally:
            connection.close()
        log = sidecars(path)[0]
        if log.exists() and log.stat().st_size:
            raise OSError(f"{log} could not be emptied")


def _replace(
    connection: apsw.Connection, place: tuple[int, int, int], numbers: Mapping[int, Erased]
) -> int:
    """Put stubs into one batch; how many. Raises ValueError for a batch that is damaged."""
    n = place[2]
    row = connection.execute(_ROW, (n,)).fetchone()
    if row is None:
        raise ValueError("it is missing")
    committed_at, first_at, last_at, requests, counts, crc, data = row
    times = (committed_at, first_at, last_at)
    if row_crc(*place, times, requests, counts, data) != crc:
        raise ValueError("its checksum does not fit")
    parts = _decode(data)
    for index, erased in numbers.items():
        parts[index] = msgspec.Raw(_encode(stub(_decode_request(parts[index]), erased)))
    fresh = _encode(parts)
    if fresh != data:
        crc = row_crc(*place, times, requests, counts, fresh)
        connection.execute("UPDATE batches SET crc32 = ?, data = ? WHERE n = ?", (crc, fresh, n))
    return len(numbers)


def stub(request: Request, erased: Erased) -> Request:
    """What stays of an erased request; a stub stays the one that it is."""
    if request.erased is not None:
        return request
    return Request(
        dialect=request.dialect,
        method="",
        target="",
        account=request.account,
        received_at=request.received_at,
        request_id=request.request_id,
        erased=erased,
    )
