"""Requests for the journal's tests, and waiting for what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from headwater.accept.request import Request
from headwater.journal.journal import Batch, Position, Reader, Writer

RECEIVED_AT = 1_795_226_263_000_000


def request(number: int, *, account: str = "acme", body: bytes = b"", at: int = 0) -> Request:
    """A request whose id begins with its time, as a UUIDv7 does, and ends with `number`."""
    received_at = at or RECEIVED_AT + number
    return Request(
        dialect="vaix",
        method="POST",
        target="/api/tracker/events",
        endpoint="events",
        headers={"content-type": "application/json"},
        body=body or b'{"number": %d}' % number,
        account=account,
        received_at=received_at,
        request_id=(received_at // 1000).to_bytes(6, "big") + number.to_bytes(10, "big"),
    )


async def append(
    writer: Writer, requests: Iterable[Request], *, events: int = 1
) -> list[Exception | None]:
    """Append all in one turn of the loop; what `done` said of each, in the order of the appends."""
    loop = asyncio.get_running_loop()
    outcomes = []
    for each in requests:
        outcome: asyncio.Future[Exception | None] = loop.create_future()
        writer.append(each, events, outcome.set_result)
        outcomes.append(outcome)
    return await asyncio.wait_for(asyncio.gather(*outcomes), 30)


def read_all(reader: Reader, writer: int = 1) -> list[Batch]:
    """Everything of one writer, a few batches at a time. Raises JournalDamaged."""
    found: list[Batch] = []
    after = Position(writer, 0)
    while batches := reader.read(after, batches_max=3, bytes_max=1 << 20):
        found += batches
        after = batches[-1].position
    return found


def ids(batches: Iterable[Batch]) -> list[bytes]:
    return [each.request_id for batch in batches for each in batch.requests]


def segments(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.sqlite"))
