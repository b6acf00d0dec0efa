"""What a replay does in the store: stage what the decoders say now, and change what differs.

Rows are compared by place and digest, in SQL. A row that is gone or different is deleted, then what
is missing is inserted: seen from outside a row may be absent for a moment, and is never there
twice. Doing it again finds nothing to do, so what was cut short is simply repeated. That it was is
kept in `headwater_store.replays`, since between the two a row is in neither place.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pyarrow as pa

from headwater.store.clickhouse import (
    EVENTS,
    EVENTS_STAGED,
    REJECTED,
    REJECTED_STAGED,
    Load,
    Store,
)

#: In one statement.
_REQUESTS_NAMED = 2_000
_PAIRS = ((EVENTS, EVENTS_STAGED), (REJECTED, REJECTED_STAGED))
#: What a row says, in SQL. Rows from before there were people have no keys, which the digest leaves
#: out: a replay gives them theirs.
_SAYS = {
    EVENTS: "cityHash64(digest, arrayExists(key -> UUIDToNum(key) != toFixedString('', 16), keys))",
    REJECTED: "digest",
}


class Changes(msgspec.Struct):
    """Rows, of events and rejections together."""

    unchanged: int = 0
    changed: int = 0
    added: int = 0
    removed: int = 0

    def __add__(self, other: Changes) -> Changes:
        mine, others = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return Changes(*(one + more for one, more in zip(mine, others, strict=True)))


class Comparing:
    """Rewrites one range after another. One at a time in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writing = store.writing()

    def begin(self) -> None:
        """Forget what an earlier one has staged."""
        for _, staged in _PAIRS:
            self._writing.command(f"TRUNCATE TABLE {staged}")

    def stage(self, events: pa.RecordBatch, rejected: pa.RecordBatch) -> None:
        """Add rows as they should be."""
        self._store.insert_events(events, table=EVENTS_STAGED)
        self._store.insert_rejected(rejected, table=REJECTED_STAGED)

    def keep(self, writer: int, requests: Sequence[tuple[int, int]]) -> None:
        """Stage what is stored of some requests, each a batch of the writer and a number in it."""
        for start in range(0, len(requests), _REQUESTS_NAMED):
            some = ", ".join(map(str, requests[start : start + _REQUESTS_NAMED]))
            for stored, staged in _PAIRS:
                self._writing.command(
                    f"INSERT INTO {staged} SELECT * FROM {stored} "  # noqa: S608
                    f"WHERE writer = {writer} AND (batch, request) IN ({some}) "
                    "SETTINGS insert_deduplicate = 0"
                )

    def keys_before(self, loads: Sequence[Load]) -> dict[str, list[bytes]]:
        """The keys, by account, of stored events that `rewrite` would change or take away."""
        first, last = loads[0].range, loads[-1].range
        rows = self._writing.rows(
            "SELECT account, arrayDistinct(groupArrayArray(keys)) FROM "  # noqa: S608
            f"(SELECT account, arrayDistinct(keys) AS keys FROM {EVENTS} "
            f"WHERE writer = {first.writer} AND batch > {first.after} AND batch <= {last.last} "
            f"AND (batch, request, idx, {_SAYS[EVENTS]}) NOT IN "
            f"(SELECT batch, request, idx, {_SAYS[EVENTS]} FROM {EVENTS_STAGED})) GROUP BY account"
        )
        return {account: [key.bytes for key in keys if key.int] for account, keys in rows}

    def rewrite(self, loads: Sequence[Load], *, version: int) -> Changes:
        """Make the rows of some adjoining ranges those that are staged, and their books `loads`."""
        first, last = loads[0].range, loads[-1].range
        within = f"writer = {first.writer} AND batch > {first.after} AND batch <= {last.last}"
        total = Changes()
        begun = False
        for stored, staged in _PAIRS:
            changes = self._count(within, stored, staged)
            if changes.changed or changes.removed or changes.added:
                if not begun:
                    self._remember(first.writer, first.after, last.last)
                    begun = True
                self._rewrite(within, stored, staged)
            total += changes
        self._store.insert_loads(loads, version=version)
        self.forget(first.writer, first.after, last.last)
        self.begin()  # what lay here would outlive an erasure
        return total

    def _count(self, within: str, stored: str, staged: str) -> Changes:
        says = _SAYS[stored]
        rows = self._writing.rows(
            "SELECT countIf(had = 1 AND has = 1 AND was = becomes), "  # noqa: S608
            "countIf(had = 1 AND has = 1 AND was != becomes), countIf(had = 0), countIf(has = 0) "
            "FROM (SELECT max(had_) AS had, max(has_) AS has, max(was_) AS was, "
            "max(becomes_) AS becomes FROM ("
            f"SELECT batch, request, idx, 1 AS had_, 0 AS has_, {says} AS was_, 0 AS becomes_ "
            f"FROM {stored} WHERE {within} UNION ALL "
            f"SELECT batch, request, idx, 0, 1, 0, {says} FROM {staged}) "
            "GROUP BY batch, request, idx)"
        )
        return Changes(*(int(value) for value in rows[0]))

    def _rewrite(self, within: str, stored: str, staged: str) -> None:
        says = _SAYS[stored]
        self._writing.command(
            f"DELETE FROM {stored} WHERE {within} AND (batch, request, idx, {says}) NOT IN "  # noqa: S608
            f"(SELECT batch, request, idx, {says} FROM {staged})"
        )
        self._writing.command(
            f"INSERT INTO {stored} SELECT * FROM {staged} "  # noqa: S608
            "WHERE (batch, request, idx) NOT IN "
            f"(SELECT batch, request, idx FROM {stored} WHERE {within}) "
            "SETTINGS insert_deduplicate = 0"
        )

    # --- what was cut short ---------------------------------------------------------------------

    def interrupted(self) -> list[tuple[int, int, int]]:
        """Stretches (writer, after, last) whose rewriting has begun and not ended."""
        sql = "SELECT DISTINCT writer, after, last FROM headwater_store.replays ORDER BY ALL"
        rows = self._writing.rows(sql)
        return [(int(writer), int(after), int(last)) for writer, after, last in rows]

    def _remember(self, writer: int, after: int, last: int) -> None:
        self._writing.command(
            f"INSERT INTO headwater_store.replays VALUES ({writer}, {after}, {last})"  # noqa: S608
        )

    def forget(self, writer: int, after: int, last: int) -> None:
        """It has ended."""
        rows = f"writer = {writer} AND after = {after} AND last = {last}"
        if self._writing.rows(f"SELECT count() FROM headwater_store.replays WHERE {rows}")[0][0]:  # noqa: S608
            self._writing.command(f"DELETE FROM headwater_store.replays WHERE {rows}")  # noqa: S608
