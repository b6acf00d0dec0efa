"""A registry that has long been in use: many keys, of people who never come back in a benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw

from headwater.resolve.keys import ORDER_BYTES, STRONG, WEAK, pack
from headwater.resolve.sqlite_people import SqlitePeople

_CHUNK = 200_000
_ACCOUNT = "bench"


def fill_registry(folder: Path, keys: int) -> None:
    """Put `keys` keys into the people of a registry that is not open: pairs of a strong and a weak
    one, the weak one owned by the strong. They lie as far apart as hashes do, but are written in
    order, which takes a minute for 50 million instead of hours."""
    SqlitePeople(folder).close()
    database = apsw.Connection(str(folder / "people.sqlite"))
    try:
        database.pragma("synchronous", 0)
        database.execute("INSERT OR IGNORE INTO accounts VALUES (1, ?)", (_ACCOUNT,))
        step = 2**128 // max(keys, 1)
        first = bytes(ORDER_BYTES)
        for start in range(0, keys, _CHUNK):
            some = range(start, min(start + _CHUNK, keys))
            with database:
                database.executemany(
                    "INSERT INTO keys VALUES (?, ?, 1, ?, ?)", _rows(some, step, first)
                )
                database.executemany("INSERT INTO owned VALUES (?, ?)", _owned(some, step))
        database.pragma("wal_checkpoint(TRUNCATE)")
    finally:
        database.close()


def _key(number: int, step: int) -> bytes:
    return (number * step).to_bytes(16, "big")


def _rows(some: range, step: int, first: bytes) -> Iterator[tuple[bytes, str, bytes, bytes]]:
    for number in some:
        if number % 2:
            pieces = pack(((first, _key(number - 1, step)),))
            yield _key(number, step), WEAK, first, pieces
        else:
            yield _key(number, step), STRONG, first, b""


def _owned(some: range, step: int) -> Iterator[tuple[bytes, bytes]]:
    for number in some:
        if number % 2:
            yield _key(number - 1, step), _key(number, step)
