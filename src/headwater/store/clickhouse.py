"""The store on ClickHouse: chDB inside the hub's process, the same SQL as a server.

Theory of operation. A load is three inserts in this order: rejected rows, event rows, and one row
of `loads` for each account and dialect, which is the watermark. Each insert is on disk when it
returns. A crash between them leaves rows beyond the watermark: :meth:`Store.places_after` tells
which places are there already, and the loader leaves those out when it loads their batches again.

An insert that fails leaves none or some of its rows. :meth:`Store.insert_events` then looks which
places are there and tries the rest in halves, down to the single row that the store will not have;
that row is stored with its JSON as text. Only what even that cannot mend is an error: the store is
ill, not the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pyarrow as pa

from headwater import limits
from headwater.errors import StoreError
from headwater.store.guard import TABLES, Functions, permit, read_functions
from headwater.store.rows import Place, as_text, grouped, keep, places_of
from headwater.store.schema import apply_schema
from headwater.store.session import Asking, Connector, Writing, code_of, quoted

EVENTS = "headwater_store.events_rows"
REJECTED = "headwater_store.rejected_rows"
EVENTS_STAGED = "headwater_store.events_staged"
REJECTED_STAGED = "headwater_store.rejected_staged"

#: ClickHouse's error codes that say nothing about the rows: time, files, space, parts, network.
_ILL = frozenset({74, 75, 76, 77, 159, 209, 210, 236, 243, 252, 394, 425, 499, 516, 519, 740})
_LOADS_SCHEMA = pa.schema(
    [
        ("writer", pa.uint16()),
        ("after", pa.uint64()),
        ("last", pa.uint64()),
        ("batches", pa.uint32()),
        ("account", pa.string()),
        ("dialect", pa.string()),
        ("received", pa.uint64()),
        ("stored", pa.uint64()),
        ("duplicate", pa.uint64()),
        ("rejected", pa.uint64()),
        ("step", pa.uint64()),
        ("folded", pa.uint8()),
        ("version", pa.uint64()),
        ("loaded_at", pa.timestamp("us", "UTC")),
    ]
)
_CONVERSIONS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("UUID", UUID),
    ("DateTime", datetime.fromisoformat),
    ("Date", date.fromisoformat),
)


class QueryResult(msgspec.Struct, frozen=True):
    """The answer to a question. `rows` hold Python values: UUID, datetime (UTC) and date for
    columns of those types, dict for JSON and tuples, text where a value has no better form."""

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]


class Tally(msgspec.Struct):
    """What became of the events of one account and dialect in one range."""

    stored: int = 0
    duplicate: int = 0
    rejected: int = 0

    @property
    def received(self) -> int:
        """The books close by definition: everything became one of the three."""
        return self.stored + self.duplicate + self.rejected


class Range(msgspec.Struct, frozen=True, order=True, array_like=True):
    """The batches (after, last] of a writer; `batches` is how many there are."""

    writer: int
    after: int
    last: int
    batches: int


class Load(msgspec.Struct, frozen=True):
    """One range, the step that loaded it, and its books by (account, dialect); none for a stretch
    that was skipped."""

    range: Range
    step: int
    tallies: Mapping[tuple[str, str], Tally]


class Store:
    """One store, for one process. `dsn` is ``chdb:///absolute/folder``; `tmp` lies in the data
    folder. Inserting methods are for one thread; queries for any.

    Raises StoreError when it cannot be opened, DataError when a newer Headwater wrote it.
    """

    def __init__(self, dsn: str, *, tmp: Path) -> None:
        self._connector = Connector(dsn, tmp)
        self._writing = Writing(self._connector)
        self._asking = Asking(self._connector)
        self._functions: Functions | None = None
        self._snapshots = 0
        try:
            self.migrate()
        except BaseException:
            self.close()
            raise

    def migrate(self) -> None:
        """Bring the schema to the newest version; called when the store is opened."""
        apply_schema(self._writing.command, self._writing.rows)

    def close(self) -> None:
        self._asking.close()
        self._writing.close()

    # --- loading ---------------------------------------------------------------------------------

    def watermarks(self) -> dict[int, int]:
        """The last loaded batch of each writer."""
        sql = "SELECT writer, max(last) FROM headwater_store.loads GROUP BY writer"
        return {int(writer): int(last) for writer, last in self._writing.rows(sql)}

    def last_step(self) -> int:
        """The number of the last load, 0 before the first."""
        return int(self._writing.rows("SELECT max(step) FROM headwater_store.loads")[0][0])

    def places_after(self, table: str, watermarks: Mapping[int, int]) -> set[Place]:
        """The places of rows beyond the watermarks: what a load that was cut short has left.
        `table` is EVENTS or REJECTED."""
        known = ", ".join(f"({writer}, {last})" for writer, last in watermarks.items())
        beyond = " OR ".join(f"(writer = {w} AND batch > {last})" for w, last in watermarks.items())
        if known:
            writers = ", ".join(str(writer) for writer in watermarks)
            beyond = f"{beyond} OR writer NOT IN ({writers})"
        return self._places(table, beyond or "1")

    def insert_rejected(self, batch: pa.RecordBatch, *, table: str = REJECTED) -> None:
        """Insert rejected rows, durably. Raises StoreError."""
        self._insert(table, batch, table, lambda flat: flat)

    def insert_events(self, batch: pa.RecordBatch, *, table: str = EVENTS) -> None:
        """Insert event rows (flat, as ``rows.events_batch`` makes them), durably. A row that the
        store will not have is stored as text. Raises StoreError."""
        entrance = {
            EVENTS: "headwater_store.events_in",
            EVENTS_STAGED: "headwater_store.events_staged_in",
        }
        self._insert(entrance[table], batch, table, grouped)

    def _insert(
        self,
        entrance: str,
        batch: pa.RecordBatch,
        table: str,
        shape: Callable[[pa.RecordBatch], pa.RecordBatch],
    ) -> None:
        if not batch.num_rows:
            return
        try:
            for start in range(0, batch.num_rows, limits.load_events_max):
                part = batch.slice(start, limits.load_events_max)
                token = _token(part) if table in (EVENTS, REJECTED) else ""
                self._writing.insert(entrance, shape(part), token=token)
        except StoreError as error:
            if code_of(error.__cause__) in _ILL:
                raise
            self._insert_in_halves(entrance, batch, table, shape, error)

    def _insert_in_halves(
        self,
        entrance: str,
        batch: pa.RecordBatch,
        table: str,
        shape: Callable[[pa.RecordBatch], pa.RecordBatch],
        error: StoreError,
    ) -> None:
        """What an insert that failed has left out, in halves, single rows as text."""
        places = places_of(batch)
        present = self._places(table, _within(places))
        missing = keep(batch, [place not in present for place in places])
        if missing.num_rows == 0:
            return
        if missing.num_rows > 1:
            half = missing.num_rows // 2
            self._insert(entrance, missing.slice(0, half), table, shape)
            self._insert(entrance, missing.slice(half), table, shape)
            return
        if "properties_text" not in batch.schema.names:
            raise error
        self._writing.insert(entrance, shape(as_text(missing)))

    def insert_loads(self, loads: Sequence[Load], *, version: int) -> None:
        """The watermark rows of some ranges, in one insert: all or none. `version` is the time in
        microseconds; a range that is written again counts in its highest version."""
        rows: list[dict[str, Any]] = []
        for load in loads:
            tallies = load.tallies or {("", ""): Tally()}
            rows += [
                {
                    **msgspec.structs.asdict(load.range),
                    "account": account,
                    "dialect": dialect,
                    "received": tally.received,
                    **msgspec.structs.asdict(tally),
                    "step": load.step,
                    "folded": 0,
                    "version": version,
                    "loaded_at": version,
                }
                for (account, dialect), tally in tallies.items()
            ]
        if rows:
            batch = pa.RecordBatch.from_pylist(rows, schema=_LOADS_SCHEMA)
            self._writing.insert("headwater_store.loads", batch)

    def write_in_flight(self, step: int, pending: Mapping[tuple[str, str], int]) -> None:
        """What is journaled and not loaded as of a step, for `accounting`. Any thread."""
        self._snapshots += 1
        rows = ", ".join(
            f"({quoted(account)}, {quoted(dialect)}, {events})"
            for (account, dialect), events in pending.items()
        )
        self._writing.command(
            "INSERT INTO headwater_store.in_flight SELECT "
            f"{self._snapshots}, {step}, "
            f"CAST([{rows}], 'Array(Tuple(account String, dialect String, events UInt64))')"
        )

    def fold_loads(self, before: int) -> int:
        """Replace the `loads` rows of before a time (microseconds) by one for each writer, account
        and dialect; how many went. A fold counts from the moment it is inserted, whole, and then
        hides the rows it stands for, so it may be cut short anywhere."""
        ranges = self._writing.rows(
            "SELECT writer, max(last), count() FROM headwater_store.loads "  # noqa: S608
            f"WHERE loaded_at < fromUnixTimestamp64Micro({before}) "
            "GROUP BY writer HAVING count() > 1"
        )
        gone = 0
        for writer, last, rows in ranges:
            within = f"writer = {writer} AND last <= {last}"
            bound = (
                "(SELECT max(last) FROM headwater_store.loads "  # noqa: S608
                f"WHERE folded = 1 AND writer = {writer})"
            )
            self._writing.command(
                "INSERT INTO headwater_store.loads SELECT writer, 0, "  # noqa: S608
                f"{last}, 0, account, dialect, sum(received), sum(stored), sum(duplicate), "
                "sum(rejected), max(step), 1, max(version), max(loaded_at) "
                f"FROM headwater_store.loads FINAL WHERE {within} AND "
                f"((folded = 0 AND last > {bound}) OR (folded = 1 AND last = {bound})) "
                "GROUP BY writer, account, dialect"
            )
            self._writing.command(
                f"DELETE FROM headwater_store.loads WHERE {within} "  # noqa: S608
                f"AND NOT (folded = 1 AND last = {last})"
            )
            gone += int(rows)
        return gone

    # --- for a replay ----------------------------------------------------------------------------

    def loaded(self, writer: int, after: int, last: int) -> list[tuple[Range, int]]:
        """The ranges of a writer that reach into (after, last], each with the step that loaded it,
        in order; not those that were skipped, nor what has been folded."""
        rows = self._writing.rows(
            "SELECT writer, after, last, max(batches), max(step) "  # noqa: S608
            "FROM headwater_store.loads WHERE folded = 0 AND batches > 0 "
            f"AND writer = {writer} AND last > {after} AND after < {last} "
            "GROUP BY writer, after, last ORDER BY last"
        )
        return [(Range(*(int(value) for value in row[:4])), int(row[4])) for row in rows]

    def writing(self) -> Writing:
        """The statements' end, for what a replay compares and rewrites."""
        return self._writing

    def beside(self) -> Writing:
        """Another client for statements, for work that the loader's must not wait for. Close it.
        Raises StoreError."""
        return Writing(self._connector)

    def _places(self, table: str, where: str) -> set[Place]:
        sql = f"SELECT writer, batch, request, idx FROM {table} WHERE {where}"  # noqa: S608
        return {(row[0], row[1], row[2], row[3]) for row in self._writing.rows(sql)}

    # --- questions -------------------------------------------------------------------------------

    def query(self, sql: str) -> QueryResult:
        """A user's SQL: read-only and bounded, see ``guard``. Raises QueryRefused, StoreError."""
        text = self.query_bytes(sql, "JSONCompactEachRowWithNamesAndTypes")
        lines = text.splitlines()
        columns = msgspec.json.decode(lines[0], type=list[str]) if lines else []
        types = msgspec.json.decode(lines[1], type=list[str]) if lines else []
        rows = [msgspec.json.decode(line, type=list[Any]) for line in lines[2:]]
        for place, kind in enumerate(types):
            inner = kind.removeprefix("LowCardinality(").removeprefix("Nullable(")
            for prefix, convert in _CONVERSIONS:
                if inner.startswith(prefix):
                    for row in rows:
                        if row[place] is not None:
                            row[place] = convert(row[place])
                    break
        return QueryResult(columns, types, rows)

    def query_bytes(self, sql: str, form: str, accounts: frozenset[str] | None = None) -> bytes:
        """The same, in a format of ClickHouse (``Parquet``, ``JSONEachRow``, ``ArrowStream`` …).
        With `accounts`, the tables hold nothing of others."""
        if self._functions is None:
            self._functions = read_functions(self._ask)
        permitted = permit(sql, self._ask, self._explain, self._functions)
        return self._asking.run(permitted, form, filters=_only(accounts))

    def engine(self) -> str:
        """ClickHouse's version."""
        return str(self._writing.rows("SELECT version()")[0][0])

    def tables(self) -> dict[str, list[tuple[str, str]]]:
        """What a user's SQL can ask about: columns and their types by table."""
        return {
            table: [
                (str(row[0]), str(row[1]))
                for row in self._ask(f"DESCRIBE TABLE headwater.{table}", {})
            ]
            for table in TABLES
        }

    def ask(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A question of ours, about any table, with a user's bounds and read-only all the same:
        rows by name, as JSON has them. Raises QueryRefused, StoreError."""
        text = self._asking.run(sql, "JSONEachRow", parameters)
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in text.splitlines()]

    def _ask(self, sql: str, parameters: Mapping[str, str]) -> list[list[Any]]:
        text = self._asking.run(sql, "JSONCompactEachRow", parameters)
        return [msgspec.json.decode(line, type=list[Any]) for line in text.splitlines()]

    def _explain(self, sql: str) -> list[str]:
        # A FORMAT would belong to the explained query; the default is one escaped line a row.
        # Split as bytes: a text's own line ends (U+2028, U+0085 …) are no ends of these.
        lines = self._asking.run(f"EXPLAIN AST {sql}", "").split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines if line]


def _only(accounts: frozenset[str] | None) -> dict[str, str] | None:
    """Conditions that keep every table that a user may ask to some accounts."""
    if accounts is None:
        return None
    named = ", ".join(quoted(account) for account in sorted(accounts)) or "NULL"
    return {f"headwater.{table}": f"account IN ({named})" for table in TABLES}


def _within(places: Sequence[Place]) -> str:
    """A condition that bounds the search for places by what the index knows."""
    writers = {place[0] for place in places}
    parts = []
    for writer in sorted(writers):
        batches = [place[1] for place in places if place[0] == writer]
        parts.append(f"(writer = {writer} AND batch BETWEEN {min(batches)} AND {max(batches)})")
    return " OR ".join(parts)


def _token(batch: pa.RecordBatch) -> str:
    """A name for these rows, the same when they are sent again: a server that did take the first
    try drops the second. Integers hash alike in every process."""
    return f"{batch.num_rows}-{hash(tuple(places_of(batch))) & 0xFFFFFFFFFFFFFFFF:x}"
