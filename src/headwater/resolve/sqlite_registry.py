"""Opening a registry file: made when it is missing, checked, shared by processes."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

import apsw

from headwater import limits
from headwater.errors import DataError
from headwater.journal.sqlite_file import (
    check_sqlite,
    make_folder,
    make_private,
    open_file,
    sync_folder,
)

#: PRAGMA user_version of the registry's files.
FORMAT = 1


def open_registry(
    path: Path, schema: str, *, page_bytes: int = 4_096, cache_bytes: int = 2_097_152
) -> apsw.Connection:
    """A writing connection in WAL mode. `schema` is one CREATE TABLE statement.

    What a killed process left in the log is synced before anything is answered from it: until then
    it could be taken back by a power loss. Raises DataError.
    """
    check_sqlite()
    make_folder(path.parent)
    try:
        if not path.exists():
            _make(path, schema, page_bytes)
        connection = open_file(path, write=True, busy_seconds=limits.registry_busy_seconds_max)
        try:
            connection.pragma("cache_size", -(cache_bytes // 1024))
            found = connection.pragma("user_version")
            if found > FORMAT:
                raise DataError(
                    f"{path} is of format {found}, this Headwater knows up to {FORMAT}",
                    remedy="run the newer Headwater",
                )
            if found < FORMAT:
                raise apsw.NotADBError("it is not a registry of Headwater")
            _sync_log(connection)
        except BaseException:
            connection.close()
            raise
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError) as error:
        raise DataError(
            f"{path} is damaged: {error}",
            remedy="stop everything and put the file back from a backup; without it known users "
            "get new visitor ids, and copies of older events count again",
        ) from error
    except (apsw.Error, OSError) as error:
        raise DataError(
            f"{path} cannot be opened: {error}",
            remedy="check that the disk has room and that this user may write there",
        ) from error
    return connection


def _sync_log(connection: apsw.Connection) -> None:
    """A checkpoint syncs the log first. Another process's, under way, does not wait in SQLite's
    busy handler, so it is waited for here."""
    deadline = time.monotonic() + limits.registry_busy_seconds_max
    while True:
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            return
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _make(path: Path, schema: str, page_bytes: int) -> None:
    """Make a registry file under a name of its own, then give it its name if nobody was first: two
    processes that change one file to WAL mode at the same time lock each other out."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.new")
    try:
        make_private(fresh)
        connection = open_file(fresh, write=True)
        try:
            connection.pragma("page_size", page_bytes)
            connection.pragma("journal_mode", "wal")
            connection.execute(schema)
            connection.pragma("user_version", FORMAT)
        finally:
            connection.close()
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        sync_folder(path.parent)
    finally:
        fresh.unlink(missing_ok=True)
