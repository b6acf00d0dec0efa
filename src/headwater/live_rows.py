"""What became of each event, for who watches: picked from a step's columns when somebody looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from headwater.resolve.keys import NOBODY
from headwater.store.rows import uuid_text
from headwater.view.live import Filter, Picked


class LiveRow(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one event, for who watches. `status` is stored, duplicate or rejected;
    `person_id` is who did it as far as it was known when it was loaded."""

    status: str
    account: str
    dialect: str
    name: str
    kind: str
    received_at: Any
    request_id: str
    transport: str
    event_id: str | None = None
    person_id: str | None = None
    session_id: str | None = None
    occurred_at: Any = None
    identities: list[dict[str, str]] = msgspec.field(default_factory=list)
    properties: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    issues: list[str] = msgspec.field(default_factory=list)
    reason: str = ""
    detail: str = ""


class LiveRows:
    """The rows of one step: what was stored, what was a duplicate, what was rejected."""

    def __init__(self, parts: Sequence[tuple[str, pa.RecordBatch]]) -> None:
        self._parts = [(status, batch) for status, batch in parts if batch.num_rows]

    def __len__(self) -> int:
        return sum(batch.num_rows for _, batch in self._parts)

    def pick(self, wanted: Filter, accounts: frozenset[str] | None, rows_max: int | None) -> Picked:
        """What a watcher asked for, and how many there are of it by dialect and status. Rows are
        made of the newest `rows_max` of each status only (None: of all), since each takes some
        20 us of the interpreter that the loader needs too."""
        counts: dict[str, dict[str, int]] = {}
        rows: list[object] = []
        for status, batch in self._parts:
            if wanted.status not in ("", status):
                continue
            matching = _matching(batch, wanted, accounts)
            for dialect in pc.value_counts(matching.column("dialect")).to_pylist():
                of_dialect = counts.setdefault(dialect["values"], {})
                of_dialect[status] = of_dialect.get(status, 0) + dialect["counts"]
            if rows_max is not None:
                matching = matching.slice(max(0, matching.num_rows - rows_max))
            rows += [_live(status, row) for row in matching.to_pylist()]
        return Picked(counts, rows)


def _matching(
    batch: pa.RecordBatch, wanted: Filter, accounts: frozenset[str] | None
) -> pa.RecordBatch:
    masks = []
    if accounts is not None:
        masks.append(pc.is_in(batch.column("account"), pa.array(sorted(accounts), pa.string())))
    for column in ("account", "dialect", "name"):
        if value := getattr(wanted, column):
            if column not in batch.schema.names:
                return batch.slice(0, 0)
            masks.append(pc.equal(batch.column(column), value))
    if wanted.person:
        if "principal" not in batch.schema.names:
            return batch.slice(0, 0)
        key = pa.scalar(UUID(wanted.person).bytes, pa.binary(16))
        masks.append(pc.equal(batch.column("principal"), key))
    for mask in masks[1:]:
        masks[0] = pc.and_(masks[0], mask)
    return batch.filter(masks[0]) if masks else batch


def _live(status: str, row: dict[str, Any]) -> LiveRow:
    common = {name: row[name] for name in ("account", "dialect", "received_at", "transport")}
    common |= {"status": status, "request_id": uuid_text(row["request_id"])}
    if status == "rejected":
        return LiveRow(name="", kind="", reason=row["reason"], detail=row["detail"], **common)
    return LiveRow(
        name=row["name"],
        kind=row["kind"],
        event_id=uuid_text(row["event_id"]),
        person_id=None if row["principal"] == NOBODY else uuid_text(row["principal"]),
        session_id=uuid_text(row["session_id"]) if row["session_id"] is not None else None,
        occurred_at=row["occurred_at"],
        identities=[
            {"namespace": one["namespace"], "value": one["value"]} for one in row["identities"]
        ],
        properties=msgspec.Raw(row["properties_text"]),
        issues=row["issues"],
        **common,
    )
