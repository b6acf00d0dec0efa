"""The last derived session of everybody, and whose sessions are in doubt, on SQLite.

A key is a person's id and 8 bytes that stand for (account, dialect, scope): all of a person's lie
together. Written by the hub alone.
"""

from __future__ import annotations

import array
import struct
import threading
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import apsw

from headwater import limits
from headwater.errors import RegistryFailed
from headwater.journal.sqlite_file import transaction
from headwater.resolve.keys import ID_BYTES, ORDER_BYTES
from headwater.resolve.sqlite_registry import open_registry

KEY_BYTES = 24
_SCHEMA = """
CREATE TABLE last (key BLOB PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE doubts (
  account TEXT, person BLOB, times INTEGER NOT NULL, PRIMARY KEY (account, person)
) WITHOUT ROWID;
"""
#: In place of the order: there were sessions, and their events are all somebody else's now.
VACATED = bytes(ORDER_BYTES)
#: The order of a session's first event, and the time of its last in microseconds.
VACATED = bytes(
    ORDER_BYTES
)  # in place of the order: it had sessions, which are somebody else's now
_STATE = struct.Struct(f">{ORDER_BYTES}sQ")
_SHIFT = 2**63
#: Keys and states come as one blob each, cut up by SQLite: one statement for a whole batch.
_CUT_KEY = f"substr(?1, value * {KEY_BYTES} + 1, {KEY_BYTES})"
_LOAD = f"SELECT key, state FROM carray(?2) CROSS JOIN last ON key = {_CUT_KEY}"  # noqa: S608
_SAVE = (
    f"INSERT INTO last SELECT {_CUT_KEY}, "  # noqa: S608
    f"substr(?3, value * {_STATE.size} + 1, {_STATE.size}) FROM carray(?2) WHERE true "
    "ON CONFLICT (key) DO UPDATE SET state = excluded.state"
)
_DOUBT = (
    "INSERT INTO doubts VALUES (?, ?, 1) "
    "ON CONFLICT (account, person) DO UPDATE SET times = times + 1"
)
_DOUBTS = "SELECT account, person, times FROM doubts ORDER BY account, person LIMIT ?"
#: One that has been doubted again meanwhile stays.
_SURE = "DELETE FROM doubts WHERE account = ? AND person = ? AND times = ?"
_DROP = "DELETE FROM last WHERE key > ? AND key < ? RETURNING key, state"
_REACH = "SELECT key FROM last WHERE key > ? ORDER BY key LIMIT 1 OFFSET ?"
_FORGET = f"DELETE FROM last WHERE key > ? AND key <= ? AND substr(state, {ORDER_BYTES + 1}) < ?"  # noqa: S608
_LAST = b"\xff" * (KEY_BYTES + 1)
#: Behind a person's id, beyond all of that person's keys.
_BEYOND = b"\xff" * (KEY_BYTES - ID_BYTES + 1)

#: (key, order of the session's first event, time of its last event)
State = tuple[bytes, bytes, int]
#: (account, person, how often it was doubted)
Doubt = tuple[str, bytes, int]


class SqliteSessions:
    """Methods raise RegistryFailed; any thread."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError."""
        self._path = folder / "sessions.sqlite"
        self._lock = threading.Lock()
        self._forgotten = b""
        self._database = open_registry(self._path, _SCHEMA, cache_bytes=limits.sessions_cache_bytes)
        self._database.pragma("wal_autocheckpoint", 4_000)

    def load(self, keys: Sequence[bytes]) -> list[State]:
        """Those that are known."""
        numbers = apsw.carray(array.array("i", range(len(keys))))
        try:
            with self._lock:
                rows: list[tuple[bytes, bytes]] = self._database.execute(
                    _LOAD, (b"".join(keys), numbers)
                ).fetchall()  # type: ignore[assignment]
        except apsw.Error as error:
            raise self._failed(error) from error
        return [(key, *_unpack(state)) for key, state in rows]

    def save(self, states: Sequence[State], doubted: Collection[tuple[str, bytes]]) -> None:
        """Put states and note doubts, durably."""
        if not states and not doubted:
            return
        try:
            with self._lock, transaction(self._database):
                self._put(states)
                self._database.executemany(_DOUBT, sorted(doubted))
        except apsw.Error as error:
            raise self._failed(error) from error

    def doubts(self, count: int) -> list[Doubt]:
        """Some of whom sessions are in doubt."""
        try:
            with self._lock:
                found: list[Doubt] = self._database.execute(_DOUBTS, (count,)).fetchall()  # type: ignore[assignment]
        except apsw.Error as error:
            raise self._failed(error) from error
        return found

    def replace(self, doubts: Iterable[Doubt], states: Sequence[State]) -> list[bytes]:
        """Forget all states of persons whose sessions are clear now, put these instead, and take
        the doubts away; the keys that were forgotten. One that none of `states` stands for is left
        as VACATED."""
        gone: dict[bytes, int] = {}
        try:
            with self._lock, transaction(self._database):
                for account, person, times in doubts:
                    for key, state in self._database.execute(_DROP, (person, person + _BEYOND)):
                        gone[key] = _unpack(state)[1]
                    self._database.execute(_SURE, (account, person, times))
                self._put(states)
                occupied = {key for key, _, _ in states}
                self._put([(k, VACATED, end) for k, end in gone.items() if k not in occupied])
        except apsw.Error as error:
            raise self._failed(error) from error
        return list(gone)

    def forget(self, before: int) -> None:
        """Drop some states that ended before a time (microseconds); goes through all in stretches,
        one a call."""
        try:
            with self._lock:
                low = self._forgotten
                reached = self._database.execute(_REACH, (low, limits.seen_forget_rows)).get
                high = _LAST if reached is None else reached
                self._forgotten = b"" if reached is None else reached
                with transaction(self._database):
                    self._database.execute(_FORGET, (low, high, _time(before)))
        except apsw.Error as error:
            raise self._failed(error) from error

    def close(self) -> None:
        self._database.close()

    def _put(self, states: Sequence[State]) -> None:
        if not states:
            return
        ordered = sorted(states)  # neighbours are written together
        pack = _STATE.pack
        values = (
            b"".join([key for key, _, _ in ordered]),
            apsw.carray(array.array("i", range(len(ordered)))),
            b"".join([pack(start, end + _SHIFT) for _, start, end in ordered]),
        )
        self._database.execute(_SAVE, values)

    def _failed(self, error: apsw.Error) -> RegistryFailed:
        return RegistryFailed(
            f"{self._path} did not answer: {error}",
            remedy="free space or repair the disk; loading goes on by itself when it can",
        )


def _time(at: int) -> bytes:
    return (at + _SHIFT).to_bytes(8, "big")


def _unpack(state: bytes) -> tuple[bytes, int]:
    start, end = _STATE.unpack(state)
    return start, end - _SHIFT
