"""Which erasures have begun and not ended, on SQLite. Only the hub writes it.

What is kept holds no identifier: keys are hashes, and what is to be erased is named by its place.
"""

from __future__ import annotations

import threading
from pathlib import Path

import apsw
import msgspec

from headwater import limits
from headwater.errors import RegistryFailed
from headwater.journal.sqlite_file import scrub, transaction
from headwater.resolve.registry import Erasure
from headwater.resolve.sqlite_registry import open_registry

_SCHEMA = """
CREATE TABLE erasures (
  account TEXT NOT NULL,
  person BLOB NOT NULL,
  erasure BLOB NOT NULL,
  PRIMARY KEY (account, person)
) WITHOUT ROWID
"""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Erasure).decode


class SqliteErasures:
    """See ``registry.Erasures``. Any thread."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError."""
        self._path = folder / "erasures.sqlite"
        self._lock = threading.Lock()
        self._database = open_registry(self._path, _SCHEMA)

    def begin(self, erasure: Erasure) -> None:
        """See ``registry.Erasures.begin``."""
        values = (erasure.account, erasure.person, _encode(erasure))
        self._run("INSERT OR REPLACE INTO erasures VALUES (?, ?, ?)", values)

    def begun(self) -> list[Erasure]:
        """See ``registry.Erasures.begun``."""
        return [_decode(row[0]) for row in self._run("SELECT erasure FROM erasures", ())]

    def end(self, erasure: Erasure) -> None:
        """See ``registry.Erasures.end``."""
        values = (erasure.account, erasure.person)
        self._run("DELETE FROM erasures WHERE account = ? AND person = ?", values)
        try:
            with self._lock:
                scrub(self._database, limits.registry_busy_seconds_max)
        except apsw.Error as error:
            raise self._failed(error) from error

    def _run(self, sql: str, values: tuple[str | bytes, ...]) -> list[tuple[bytes, ...]]:
        try:
            with self._lock, transaction(self._database):
                return list(self._database.execute(sql, values))
        except apsw.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: apsw.Error) -> RegistryFailed:
        return RegistryFailed(
            f"{self._path} did not answer: {error}",
            remedy="free space or repair the disk; what was begun is finished at the next start",
        )

    def close(self) -> None:
        self._database.close()
