"""Erasing rows so that their bytes are gone from the disk when the call returns.

Theory of operation. ALTER TABLE … DELETE writes every part anew that holds such a row. Three things
would still keep the bytes: rows that a replay has deleted lightly are only masked in their part, so
masks are applied first; the parts from before are kept for minutes, in case what replaced them is
not on the disk yet; and what a replay had staged. So new parts are synced, and the old ones are
dropped at once and waited for. Which places go is kept in a table: a deletion that was cut short is
finished by the engine at the next start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import msgspec
import pyarrow as pa

from headwater import limits
from headwater.errors import StoreError
from headwater.store.clickhouse import EVENTS, EVENTS_STAGED, REJECTED, REJECTED_STAGED
from headwater.store.people import id_list, seen_rows
from headwater.store.rows import Place
from headwater.store.session import Writing

_PLACES = "headwater_store.erasing"
_PLACE = "(writer, batch, request, idx)"
_PLACES_SCHEMA = pa.schema(
    [
        ("writer", pa.uint16()),
        ("batch", pa.uint64()),
        ("request", pa.uint32()),
        ("idx", pa.uint32()),
    ]
)


class ErasedRow(msgspec.Struct, frozen=True, gc=False):
    """A row of a person who is to be erased. `keys` are those that its identities have."""

    event_id: bytes
    request_id: bytes
    place: Place
    keys: list[bytes]


class StoreErasing:
    """One at a time in a store, and not while a replay runs; `writing` is ``Store.writing()``. All
    raise StoreError. Doing one again finds nothing to do."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing

    def rows_of(self, account: str, persons: Sequence[bytes]) -> list[ErasedRow]:
        """The stored events of some persons, as a reader sees them."""
        if not persons:
            return []
        found = seen_rows(
            self._writing,
            account,
            id_list(persons),
            "UUIDToNum(event_id), UUIDToNum(request_id), writer, batch, request, idx, "
            "arrayMap(UUIDToNum, arrayFilter(key -> key != "
            "toUUID('00000000-0000-0000-0000-000000000000'), keys))",
        )
        return [
            ErasedRow(bytes(event), bytes(request), (writer, batch, number, index), list(keys))
            for event, request, writer, batch, number, index, keys in found
        ]

    def delete_events(self, places: Sequence[Place]) -> int:
        """Erase the events at some places; how many there were."""
        return self._delete(EVENTS, EVENTS_STAGED, places)

    def delete_rejected(self, places: Sequence[Place]) -> int:
        """Erase the rejected rows at some places; how many there were."""
        return self._delete(REJECTED, REJECTED_STAGED, places)

    def _delete(self, table: str, staged: str, places: Sequence[Place]) -> int:
        if not places:
            return 0
        self._writing.command(f"TRUNCATE TABLE {_PLACES}")
        columns = [
            pa.array([place[index] for place in places], field.type)
            for index, field in enumerate(_PLACES_SCHEMA)
        ]
        self._writing.insert(_PLACES, pa.RecordBatch.from_arrays(columns, schema=_PLACES_SCHEMA))
        chosen = f"{_PLACE} IN (SELECT writer, batch, request, idx FROM {_PLACES})"  # noqa: S608
        count = self._writing.rows(f"SELECT count() FROM {table} WHERE {chosen}")[0][0]  # noqa: S608
        for one in (table, staged):
            for change in ("APPLY DELETED MASK", f"DELETE WHERE {chosen}"):
                self._writing.command(f"ALTER TABLE {one} {change} SETTINGS mutations_sync = 2")
            self._drop_old_parts(one)
        self._writing.command(f"TRUNCATE TABLE {_PLACES}")
        return int(count)

    def _drop_old_parts(self, table: str) -> None:
        """Wait until the parts that were replaced are gone from the disk."""
        database, _, name = table.partition(".")
        old = (
            "SELECT count() FROM system.parts WHERE NOT active "  # noqa: S608
            f"AND database = '{database}' AND table = '{name}'"
        )
        if not self._writing.rows(old)[0][0]:
            return
        os.sync()  # what an older schema has merged was not
        self._writing.command(f"ALTER TABLE {table} MODIFY SETTING old_parts_lifetime = 0")
        try:
            until = time.monotonic() + limits.erasing_seconds_max
            while self._writing.rows(old)[0][0]:
                if time.monotonic() > until:
                    raise StoreError(
                        f"old parts of {table} are still on the disk",
                        remedy="erase the person again",
                    )
                # There is no such partition; but dropping one makes the engine look for old parts
                # at once, which it does every half a minute when there is nothing else to do.
                self._writing.command(f"ALTER TABLE {table} DROP PARTITION ID 'none'")
                time.sleep(0.05)
        finally:
            self._writing.command(f"ALTER TABLE {table} RESET SETTING old_parts_lifetime")
