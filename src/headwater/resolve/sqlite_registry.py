"""Opening a registry file: made when it is missing, checked, shared by processes."""

from __future__ import annotations

from pathlib import Path

import apsw

from headwater import limits
from headwater.errors import DataError
from headwater.journal.sqlite_file import check_sqlite, make_folder, make_private, open_file

#: PRAGMA user_version of the registry's files.
FORMAT = 1


def open_registry(
    path: Path, schema: str, *, page_bytes: int = 4_096, cache_bytes: int = 2_097_152
) -> apsw.Connection:
    """A writing connection in WAL mode. `schema` is one CREATE TABLE IF NOT EXISTS statement.

    What a killed process left in the log is synced before anything is answered from it: until then
    it could be taken back by a power loss. Raises DataError.
    """
    check_sqlite()
    make_folder(path.parent)
    try:
        make_private(path)
        connection = open_file(path, write=True, busy_seconds=limits.registry_busy_seconds_max)
        try:
            connection.pragma("page_size", page_bytes)
            connection.pragma("cache_size", -(cache_bytes // 1024))
            connection.pragma("journal_mode", "wal")
            found = connection.pragma("user_version")
            if found > FORMAT:
                raise DataError(
                    f"{path} is of format {found}, this Headwater knows up to {FORMAT}",
                    remedy="run the newer Headwater",
                )
            if found < FORMAT:
                connection.execute(schema)
                connection.pragma("user_version", FORMAT)
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
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
