"""Copies of SQLite files that others write meanwhile: journal segments and registry files.

A `Snapshot` holds a read transaction, so that it shows the file as it was at one instant for as
long as copying takes; in WAL mode it keeps no writer waiting. A copy is one file, without a log
beside it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import apsw

from headwater.errors import DataError
from headwater.journal.sqlite_file import open_file
from headwater.journal.sqlite_segment import (
    SEGMENT_SPAN,
    read_about,
    segment_numbers,
    segment_path,
    sidecars,
)

_DAMAGE = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, ValueError)
_PIECE_BYTES = 1024 * 1024


class Snapshot:
    """A SQLite file as it is now, until `close`. Raises apsw.Error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = open_file(path, write=False, busy_seconds=10.0)
        try:
            self.connection.execute("BEGIN")
            self.connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        except BaseException:
            self.connection.close()
            raise

    def copy(self, target: Path) -> None:
        """Write it into a new file, durably. Raises apsw.Error, OSError."""
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        copy = apsw.Connection(str(target))
        try:
            # It is nobody's yet: whole with the fsync below, or thrown away.
            copy.pragma("synchronous", "off")
            copy.pragma("journal_mode", "off")
            with copy.backup("main", self.connection, "main") as backup:
                while not backup.done:
                    backup.step(-1)
        finally:
            copy.close()
        for path in sidecars(target):
            path.unlink(missing_ok=True)
        _sync(target)

    def close(self) -> None:
        self.connection.close()


def copy_file(path: Path, target: Path) -> None:
    """Copy one SQLite file as it is now. Raises apsw.Error, OSError."""
    snapshot = Snapshot(path)
    try:
        snapshot.copy(target)
    finally:
        snapshot.close()


def copy_journal(journal: Path, target: Path, loaded: dict[int, int]) -> Iterator[Path]:
    """Copy all writers' segments, as they are now, into `target`; gives each file that is copied.
    `loaded` is each writer's batch up to which the journal may have been deleted since.

    The newest segment in use is copied first: what stands before it is final then, and what comes
    after it is left out, so that no file speaks of batches that an older one here does not have.
    Raises DataError when something that is needed went away, apsw.Error, OSError.
    """
    for folder in sorted(journal.glob("w*")):
        if not folder.name[1:].isdigit() or not folder.is_dir():
            continue
        kept = target / folder.name
        kept.mkdir(parents=True, mode=0o700)
        needed = loaded.get(int(folder.name[1:]), 0) // SEGMENT_SPAN
        found = False
        for number in reversed(segment_numbers(folder)):
            path = segment_path(folder, number)
            try:
                copied = _copy_segment(path, kept / path.name, spares=found)
            except (FileNotFoundError, apsw.CantOpenError) as error:
                if path.exists() or number >= needed:
                    raise DataError(
                        f"{path} cannot be copied: {error}", remedy="take the backup again"
                    ) from error
                continue  # it has expired meanwhile: all of it was loaded
            if copied:
                found = True
                yield from copied


def _copy_segment(path: Path, target: Path, *, spares: bool) -> list[Path]:
    """Copy one segment; nothing when it is a spare and those are not wanted."""
    snapshot: Snapshot | None = None
    try:
        snapshot = Snapshot(path)
        if not spares and not read_about(snapshot.connection).activated:
            return []
        snapshot.copy(target)
    except _DAMAGE:
        # Byte for byte: a reader of the copy says what a reader of the original would.
        target.unlink(missing_ok=True)
        log, copied_log = sidecars(path)[0], sidecars(target)[0]
        _copy_bytes(path, target)
        with contextlib.suppress(FileNotFoundError):
            _copy_bytes(log, copied_log)
            return [target, copied_log]
    finally:
        if snapshot is not None:
            snapshot.close()
    return [target]


def _copy_bytes(path: Path, target: Path) -> None:
    with path.open("rb") as source:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as copy:
            while piece := source.read(_PIECE_BYTES):
                copy.write(piece)
    _sync(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
