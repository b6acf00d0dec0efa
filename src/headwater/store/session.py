"""Connections to ClickHouse: settings, bounds, and errors turned into ours.

clickhouse-connect's client over chDB takes one call at a time and sends what it inserts through a
temporary file, so the loader has a client of its own, and questions have a few.

A client is used no more after an error: chDB 4.4 gives what a failed query had already put out to
the next query of the same connection, in front of its own answer.
"""

from __future__ import annotations

import contextlib
import queue
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from headwater import limits
from headwater.errors import QueryRefused, StoreError
from headwater.store.rows import stream

#: Settings of every insert. Text stays text (no dates are guessed), truth stays truth in mixed
#: arrays; one thread, since the loader has one core; one block an insert.
_INSERT = {
    "input_format_try_infer_dates": 0,
    "input_format_try_infer_datetimes": 0,
    "input_format_json_read_bools_as_numbers": 0,
    "input_format_parallel_parsing": 0,
    "max_threads": 1,
    "max_insert_threads": 1,
    "max_partitions_per_insert_block": 0,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "lightweight_deletes_sync": 2,
}
#: Settings of a user's session, in this order: the last one locks the others.
_QUESTION = {
    "max_execution_time": limits.query_seconds_max,
    "timeout_before_checking_execution_speed": 0,
    "max_memory_usage": limits.query_memory_bytes_max,
    "max_result_rows": limits.query_rows_max,
    "max_result_bytes": limits.query_answer_bytes_max,
    "result_overflow_mode": "throw",
    "max_threads": 2,
    # What is asked comes after what is collected and loaded, where the hub has CAP_SYS_NICE.
    "os_threads_nice_value_query": 15,
    # By itself it goes down to one thread where a thread has less than 1 GiB, so always here.
    "max_threads_min_free_memory_per_thread": 0,
    "max_query_size": 2 * limits.query_text_bytes_max,
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_quote_denormals": 1,
    "output_format_json_named_tuples_as_objects": 1,
    "date_time_output_format": "iso",
    # Grouping and sorting by a path of JSON is the usual question here.
    "allow_suspicious_types_in_group_by": 1,
    "allow_suspicious_types_in_order_by": 1,
    "readonly": 1,
}
#: ClickHouse's error codes (ErrorCodes.cpp) for a bound that was crossed, and its words.
_CROSSED = {
    159: f"the query took more than {limits.query_seconds_max} s",
    160: f"the query would take more than {limits.query_seconds_max} s",
    241: f"the query needs more than {limits.query_memory_bytes_max // 2**20} MiB of memory",
    307: f"the answer is over {limits.query_answer_bytes_max // 2**20} MiB",
    396: (
        f"the answer is over {limits.query_rows_max:,} rows "
        f"or {limits.query_answer_bytes_max // 2**20} MiB"
    ),
}
_NARROW = "add a condition or a LIMIT"
_CODE = re.compile(r"Code: (\d+)")
_PREFIX = re.compile(r"^(RuntimeError: )?Code: \d+\. DB::Exception: ")

_SERVER_XML = f"""<clickhouse>
  <!-- Written at every start by headwater.store.session; chDB's part of the hub's memory. -->
  <max_server_memory_usage>{limits.store_memory_bytes_max}</max_server_memory_usage>
  <mark_cache_size>33554432</mark_cache_size>
  <primary_index_cache_size>33554432</primary_index_cache_size>
  <index_mark_cache_size>16777216</index_mark_cache_size>
  <query_condition_cache_size>8388608</query_condition_cache_size>
  <background_pool_size>2</background_pool_size>
  <background_schedule_pool_size>2</background_schedule_pool_size>
  <max_thread_pool_size>128</max_thread_pool_size>
</clickhouse>
"""


def quoted(text: str) -> str:
    """`text` as a literal of SQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def code_of(error: BaseException | None) -> int:
    """ClickHouse's error code, 0 where there is none."""
    match = _CODE.search(str(error))
    return int(match[1]) if match else 0


class Connector:
    """Opens clients of one store. `dsn` is ``chdb:///folder`` or a ClickHouse address; `tmp` holds
    what the driver writes on the way (its only way to be told is the process's temporary folder).
    """

    def __init__(self, dsn: str, tmp: Path) -> None:
        self._dsn = dsn
        self._options: dict[str, Any] = {}
        if dsn.startswith("chdb:"):
            tmp.mkdir(parents=True, exist_ok=True)
            tempfile.tempdir = str(tmp)
            config = tmp / "chdb.xml"
            config.write_text(_SERVER_XML)
            self._options = {"chdb_options": {"config-file": str(config)}}

    def open(self, *, database: str | None = None, settings: Mapping[str, Any]) -> Client:
        """A client. Raises StoreError."""
        try:
            return clickhouse_connect.get_client(
                dsn=self._dsn, database=database, settings=dict(settings), **self._options
            )
        except (ClickHouseError, RuntimeError, OSError) as error:
            raise StoreError(
                f"the store at {self._dsn} cannot be opened: {error}",
                remedy="one process at a time may have it open; see docs/operating.md",
            ) from error

    def give_back(self) -> None:
        """Let an engine in this process return to the system what queries have freed. By itself it
        does so within ten seconds, and each query that is refused for its memory may have had
        512 MiB. It takes 0.1 s."""
        if self._options:
            with contextlib.suppress(StoreError, ClickHouseError, RuntimeError):
                client = self.open(settings=_INSERT)
                try:
                    client.command("SYSTEM JEMALLOC PURGE")
                finally:
                    client.close()


class Writing:
    """Statements and inserts of ours, on a client of their own. Any thread, one call at a time."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._lock = threading.Lock()
        self._client: Client | None = connector.open(settings=_INSERT)

    def command(self, sql: str) -> None:
        """Run a statement. Raises StoreError."""
        with self._using() as client:
            client.command(sql)

    def rows(self, sql: str) -> list[Sequence[Any]]:
        """The rows of a query of ours. Raises StoreError."""
        with self._using() as client:
            return list(client.query(sql).result_rows)

    def blocks(self, sql: str) -> Iterator[Sequence[Sequence[Any]]]:
        """The same, some thousands of rows at a time. Nothing else runs here meanwhile: take all
        of them, or close the iterator. Raises StoreError."""
        with self._using() as client, client.query_row_block_stream(sql) as stream:
            yield from stream

    def insert(self, table: str, batch: pa.RecordBatch, *, token: str = "") -> None:
        """Insert Arrow columns by name. A `token` that was used lately inserts nothing; without one
        everything is inserted. Raises StoreError."""
        settings: dict[str, Any] = {"insert_deduplicate": 1 if token else 0}
        if token:
            settings["insert_deduplication_token"] = token
        with self._using() as client:
            client.raw_insert(
                table,
                column_names=batch.schema.names,
                insert_block=stream(batch),
                fmt="ArrowStream",
                settings=settings,
            )

    @contextlib.contextmanager
    def _using(self) -> Iterator[Client]:
        with self._lock:
            client = self._client or self._connector.open(settings=_INSERT)
            self._client = None
            try:
                yield client
                self._client = client
            except (ClickHouseError, RuntimeError, OSError) as error:
                raise StoreError(f"the store refused: {_words(error)}") from error
            finally:
                if self._client is None:
                    client.close()

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None


class Asking:
    """A user's end: bounded, readonly clients, as many as may run at once."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._free: queue.LifoQueue[Client | None] = queue.LifoQueue()
        for _ in range(limits.query_parallel_max):
            self._free.put(None)

    def run(
        self,
        sql: str,
        form: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        filters: Mapping[str, str] | None = None,
    ) -> bytes:
        """The answer in a format of ClickHouse (its default for an empty `form`), times in ISO
        8601. `filters` are conditions by table, which hold wherever the query reads that table.
        Waits for a free place. Raises QueryRefused for whatever is wrong with the query,
        StoreError."""
        try:
            client = self._free.get(timeout=2 * limits.query_seconds_max)
        except queue.Empty:
            raise QueryRefused(
                f"{limits.query_parallel_max} other queries are running", remedy="try again"
            ) from None
        kept: Client | None = None
        try:
            if filters is not None:
                # A session of its own: a readonly one cannot change its settings. 30 ms.
                kept, client = client, None
                client = self._connector.open(database="headwater", settings=_filtered(filters))
            elif client is None:
                client = self._connector.open(database="headwater", settings=_QUESTION)
            answer = client.raw_query(sql, parameters=dict(parameters or {}), fmt=form or None)
            if filters is None:
                kept = client
        except (ClickHouseError, RuntimeError) as error:
            if code_of(error) in _CROSSED:
                self._connector.give_back()
            raise _refused(error) from error
        finally:
            if client is not None and client is not kept:
                client.close()
            self._free.put(kept)
        if len(answer) > limits.query_answer_bytes_max:
            raise QueryRefused(_CROSSED[307], remedy=_NARROW)
        return answer

    def close(self) -> None:
        while not self._free.empty():
            client = self._free.get()
            if client is not None:
                client.close()


def _filtered(filters: Mapping[str, str]) -> dict[str, Any]:
    """A user's settings with a condition on some tables. First, since the last one locks them."""
    pairs = ", ".join(f"{quoted(table)}: {quoted(where)}" for table, where in filters.items())
    return {"additional_table_filters": f"{{{pairs}}}", **_QUESTION}


def _refused(error: BaseException) -> QueryRefused:
    words = _CROSSED.get(code_of(error))
    if words is not None:
        return QueryRefused(words, remedy=_NARROW)
    return QueryRefused(_words(error))


def _words(error: BaseException) -> str:
    text = _PREFIX.sub("", str(error))
    return text if len(text) <= 1_000 else text[:997] + "..."
