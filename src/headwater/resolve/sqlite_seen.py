"""Which dedupe keys were claimed, and by whom, on SQLite.

A key on disk is the event's own time in milliseconds (6 bytes, big-endian) and the dialect's 16
bytes: events of one time lie together, so that a batch of fresh events writes a few neighbouring
pages and not one page each. The time is part of the key because equal keys always have it equal: a
dialect derives both from the same raw date (and says 0 where there is none, never received_at).

The place that claimed a key stands beside it, so that the same place claiming again, after a crash
or in a replay, is told once more that it is the first.
"""

from __future__ import annotations

import array
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

import apsw

from headwater import limits
from headwater.errors import RegistryFailed
from headwater.journal.sqlite_file import transaction
from headwater.resolve.registry import Claim
from headwater.resolve.sqlite_registry import open_registry

_SCHEMA = """
CREATE TABLE seen (
  key BLOB PRIMARY KEY,
  place BLOB NOT NULL,
  day INTEGER NOT NULL
) WITHOUT ROWID
"""
_KEY_BYTES = 22
_PLACE = struct.Struct(">HQII")
_NEAR_MAX = 2**48 - 1
_DAY_US = 86_400_000_000
#: Small pages: clients' clocks and queues spread a batch over some minutes of keys, and each page
#: that is touched is written whole.
_PAGE_BYTES = 2_048
#: Keys and places come as one blob each, cut up by SQLite: one statement for a whole batch, with
#: the interpreter's lock free.
_INSERT = (
    f"INSERT INTO seen SELECT substr(?1, value * {_KEY_BYTES} + 1, {_KEY_BYTES}), "  # noqa: S608
    f"substr(?2, value * {_PLACE.size} + 1, {_PLACE.size}), ?4 FROM carray(?3) WHERE true "
    "ON CONFLICT DO NOTHING"
)
_OTHERS = (
    "SELECT value FROM carray(?3) CROSS JOIN seen "  # noqa: S608
    f"ON key = substr(?1, value * {_KEY_BYTES} + 1, {_KEY_BYTES}) "
    f"WHERE place <> substr(?2, value * {_PLACE.size} + 1, {_PLACE.size})"
)
_REACH = "SELECT key FROM seen WHERE key > ? ORDER BY key LIMIT 1 OFFSET ?"
_DELETE = "DELETE FROM seen WHERE key > ? AND key <= ? AND day < ?"
_LAST = b"\xff" * _KEY_BYTES


class SqliteSeen:
    """See ``registry.Seen``. May be used by several processes and threads."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "seen.sqlite"
        self._lock = threading.Lock()
        self._forgotten = b""
        self._database = open_registry(
            self._path, _SCHEMA, page_bytes=_PAGE_BYTES, cache_bytes=limits.seen_cache_bytes
        )
        # A batch of 20,000 is some 500 to 10,000 pages; nobody waits for an answer meanwhile.
        self._database.pragma("wal_autocheckpoint", 8_000)

    def claim(self, claims: Sequence[Claim], *, received_at: int) -> list[bool]:
        """See ``registry.Seen.claim``. Raises RegistryFailed: then nothing is claimed."""
        if not claims:
            return []
        keys = [_key(claim.near, claim.key) for claim in claims]
        # In key order: neighbours are inserted together. Equal keys keep their order (stable).
        order = sorted(range(len(claims)), key=keys.__getitem__)
        pack = _PLACE.pack
        places = [pack(*claim.place) for claim in claims]
        values = (
            b"".join([keys[index] for index in order]),
            b"".join([places[index] for index in order]),
            apsw.carray(array.array("i", range(len(order)))),
        )
        first = [True] * len(claims)
        try:
            with self._lock, transaction(self._database):
                self._database.execute(_INSERT, (*values, received_at // _DAY_US))
                if self._database.changes() < len(claims):
                    for (place,) in self._database.execute(_OTHERS, values):
                        first[order[place]] = False
        except apsw.Error as error:
            raise self._failed(error) from error
        return first

    def forget(self, before: int) -> int:
        """See ``registry.Seen.forget``. Goes through the keys in order, a stretch a call, and
        begins again at the end; a whole day's slack, since only the day of a claim is kept."""
        try:
            with self._lock:
                low = self._forgotten
                reached = self._database.execute(_REACH, (low, limits.seen_forget_rows)).get
                high = _LAST if reached is None else reached
                self._forgotten = b"" if reached is None else reached
                with transaction(self._database):
                    self._database.execute(_DELETE, (low, high, before // _DAY_US))
                    return self._database.changes()
        except apsw.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: apsw.Error) -> RegistryFailed:
        return RegistryFailed(
            f"{self._path} did not answer: {error}",
            remedy="free space or repair the disk; loading goes on by itself when it can",
        )

    def close(self) -> None:
        self._database.close()


def _key(near: int, key: bytes) -> bytes:
    assert len(key) == 16, "a dedupe key is 16 bytes"
    milliseconds = near // 1000
    if not 0 <= milliseconds <= _NEAR_MAX:
        milliseconds = 0 if milliseconds < 0 else _NEAR_MAX
    return milliseconds.to_bytes(6, "big") + key
