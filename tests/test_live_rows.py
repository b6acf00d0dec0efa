"""What watchers see of a step, picked out of its columns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from headwater.live_rows import LiveRow, LiveRows
from headwater.store.rows import EVENT_SCHEMA, REJECTED_SCHEMA
from headwater.view.live import Filter

NOW = datetime(2026, 11, 21, tzinfo=UTC)
JANE = UUID(int=7)


def event(**values: Any) -> dict[str, Any]:
    row: dict[str, Any] = {field.name: None for field in EVENT_SCHEMA}
    row |= {
        "event_id": bytes(16),
        "request_id": bytes(16),
        "account": "acme",
        "dialect": "vaix",
        "kind": "track",
        "name": "clicks:event",
        "received_at": NOW,
        "occurred_at": NOW,
        "identities": [],
        "principal": bytes(16),
        "properties_text": b'{"a":1}',
        "issues": [],
        "transport": "http",
    }
    return row | values


def rejection(**values: Any) -> dict[str, Any]:
    row: dict[str, Any] = {field.name: None for field in REJECTED_SCHEMA}
    row |= {"request_id": bytes(16), "account": "acme", "dialect": "orbee", "received_at": NOW}
    return row | {"reason": "bad_json", "detail": "no", "transport": "http"} | values


def rows() -> LiveRows:
    stored = [
        event(),
        event(account="other", name="view:form", dialect="orbee"),
        event(principal=JANE.bytes, name="last", session_id=UUID(int=9).bytes),
    ]
    return LiveRows(
        [
            ("stored", pa.RecordBatch.from_pylist(stored, schema=EVENT_SCHEMA)),
            ("duplicate", pa.RecordBatch.from_pylist([event()], schema=EVENT_SCHEMA)),
            ("rejected", pa.RecordBatch.from_pylist([rejection()], schema=REJECTED_SCHEMA)),
        ]
    )


@pytest.mark.parametrize(
    ("wanted", "accounts", "counts"),
    [
        (
            Filter(),
            None,
            {"vaix": {"stored": 2, "duplicate": 1}, "orbee": {"stored": 1, "rejected": 1}},
        ),
        (Filter(account="other"), None, {"orbee": {"stored": 1}}),
        (Filter(dialect="orbee"), {"acme"}, {"orbee": {"rejected": 1}}),
        (Filter(name="clicks:event"), None, {"vaix": {"stored": 1, "duplicate": 1}}),
        (Filter(status="rejected"), None, {"orbee": {"rejected": 1}}),
        (Filter(person=str(JANE)), None, {"vaix": {"stored": 1}}),
        (Filter(account="other"), {"acme"}, {}),
        (Filter(), set(), {}),
    ],
)
def test_a_watcher_sees_what_it_asked_for_and_may(
    wanted: Filter, accounts: set[str] | None, counts: dict[str, dict[str, int]]
) -> None:
    kept_to = None if accounts is None else frozenset(accounts)
    picked = rows().pick(wanted, kept_to, None)
    assert picked.counts == counts
    assert len(picked.rows) == sum(sum(by.values()) for by in counts.values())


def test_the_newest_are_made_into_rows_and_all_are_counted() -> None:
    picked = rows().pick(Filter(status="stored"), None, 1)
    assert picked.counts == {"vaix": {"stored": 2}, "orbee": {"stored": 1}}
    (row,) = picked.rows
    assert isinstance(row, LiveRow)
    assert (row.name, row.person_id, row.session_id) == ("last", str(JANE), str(UUID(int=9)))
