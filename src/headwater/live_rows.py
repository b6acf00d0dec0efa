"""What became of each event, for who watches: made of a step's rows when somebody looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from headwater.store.rows import uuid_text


class LiveRow(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one event, for who watches. `status` is stored, duplicate or rejected."""

    status: str
    account: str
    dialect: str
    name: str
    kind: str
    received_at: Any
    request_id: str
    event_id: str | None = None
    occurred_at: Any = None
    identities: list[dict[str, str]] = msgspec.field(default_factory=list)
    properties: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    reason: str = ""
    detail: str = ""


class LiveRows(Sequence[LiveRow]):
    """The rows of one step, made when somebody looks at them."""

    def __init__(self, parts: Sequence[tuple[str, pa.RecordBatch]]) -> None:
        self._parts = [(status, batch) for status, batch in parts if batch.num_rows]
        self._rows: list[LiveRow] | None = None

    def __len__(self) -> int:
        return sum(batch.num_rows for _, batch in self._parts)

    def __getitem__(self, index: Any) -> Any:
        if self._rows is None:
            self._rows = [row for status, batch in self._parts for row in _live(status, batch)]
        return self._rows[index]


def _live(status: str, batch: pa.RecordBatch) -> Iterator[LiveRow]:
    for row in batch.to_pylist():
        common = {name: row[name] for name in ("account", "dialect", "received_at")}
        common |= {"status": status, "request_id": uuid_text(row["request_id"])}
        if status == "rejected":
            words = {"reason": row["reason"], "detail": row["detail"]}
            yield LiveRow(name="", kind="", **words, **common)
            continue
        yield LiveRow(
            name=row["name"],
            kind=row["kind"],
            event_id=uuid_text(row["event_id"]),
            occurred_at=row["occurred_at"],
            identities=[
                {"namespace": one["namespace"], "value": one["value"]} for one in row["identities"]
            ],
            properties=msgspec.Raw(row["properties_text"]),
            **common,
        )
