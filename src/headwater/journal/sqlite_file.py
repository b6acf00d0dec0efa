"""Opening SQLite files the way that journal and registry need them: durable, private, checked."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from headwater.errors import DataError

#: Before 3.51.3 a checkpoint that meets a WAL reset can corrupt the file
#: (https://sqlite.org/wal.html#walresetbug).
SQLITE_VERSION_MIN = (3, 51, 3)
_FREE_BYTES = 1024 * 1024
_FREE_PAUSE_SECONDS = 0.002


def check_sqlite(version: str | None = None) -> None:
    """Raise DataError when the SQLite library is too old to be trusted with data."""
    found = version or apsw.sqlite_lib_version()
    if tuple(int(part) for part in found.split(".")) < SQLITE_VERSION_MIN:
        wanted = ".".join(map(str, SQLITE_VERSION_MIN))
        raise DataError(
            f"SQLite {found} is in use, which can corrupt a file when its log is reset",
            remedy=f"install apsw {wanted} or later from its wheel, which brings its own SQLite",
        )


def make_folder(path: Path) -> None:
    """Make a folder that only its owner may enter, durably. Raises DataError."""
    try:
        if not path.is_dir():
            path.mkdir(parents=True, mode=0o700)
            sync_folder(path.parent)
    except OSError as error:
        raise DataError(
            f"the folder {path} cannot be made: {error.strerror}",
            remedy="let this user write the data folder",
        ) from error


def sync_folder(path: Path) -> None:
    """fsync a folder: until then a new or renamed file in it may be gone after a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private(path: Path) -> None:
    """Make an empty file with mode 0600; SQLite's files beside it (-wal, -shm) get the same.

    Whoever comes second finds it there; the database inside is made by whoever gets its lock.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    sync_folder(path.parent)


def free_slowly(descriptor: int, hurry: threading.Event | None = None) -> None:
    """Cut a file to nothing from its end, a MiB at a time, unless there is a `hurry`.

    Freeing 64 MiB at once has been measured to keep every fsync of an ext4 with `discard` waiting
    for 90 ms; a MiB takes 1.3.
    """
    size = os.fstat(descriptor).st_size
    while size > _FREE_BYTES and not (hurry is not None and hurry.is_set()):
        size -= _FREE_BYTES
        os.ftruncate(descriptor, size)
        time.sleep(_FREE_PAUSE_SECONDS)
    os.ftruncate(descriptor, 0)


def open_file(path: Path, *, write: bool, busy_seconds: float = 1.0) -> apsw.Connection:
    """A connection to an existing file.

    A reader's is read-only, which in WAL mode never blocks a writer. Commits are on disk when they
    return (synchronous=FULL). Nothing in a file that someone put there is executed (defensive,
    no trusted schema). Raises apsw.Error.
    """
    flags = apsw.SQLITE_OPEN_READWRITE if write else apsw.SQLITE_OPEN_READONLY
    connection = apsw.Connection(str(path), flags=flags)
    try:
        connection.set_busy_timeout(int(busy_seconds * 1000))
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        if write:
            connection.pragma("synchronous", "full")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: apsw.Connection) -> Iterator[None]:
    """A transaction that holds the write lock from its first moment.

    A plain BEGIN takes the lock at the first write, and fails there when another process has
    written since its first read, without waiting.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A failed COMMIT (full disk) has already rolled back; then there is nothing to do.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def scrub(connection: apsw.Connection, seconds: float) -> None:
    """Leave nothing of what was deleted: every page is written anew, since SQLite leaves old
    content in the slack of pages, and the log is emptied, for which readers in the middle of a read
    are waited for. Takes the file's size of memory. Raises apsw.Error."""
    # What VACUUM puts aside stays out of temporary files.
    connection.pragma("temp_store", "memory")
    connection.execute("VACUUM")
    empty_log(connection, seconds)


def empty_log(connection: apsw.Connection, seconds: float) -> None:
    """Move the log into the file and cut it to nothing, once no reader needs it. Raises
    apsw.BusyError when that takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            return
        except (apsw.BusyError, apsw.LockedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
