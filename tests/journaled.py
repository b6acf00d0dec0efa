"""Requests in a real journal, and a loader on it, for the tests of loading and replaying."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from headwater.accept.accounts import Accounts
from headwater.accept.request import Dialect, Request
from headwater.accept.routes import Router
from headwater.clock import system_clock
from headwater.decode.dialects import DIALECTS
from headwater.decoding import TrackingPlan
from headwater.identifying import Identifying
from headwater.journal.sqlite import SqliteReader, SqliteWriter
from headwater.live_rows import LiveRows
from headwater.loader import Loader
from headwater.resolve.enrichment import Enrichment
from headwater.resolve.sessions import DerivedSessions
from headwater.resolve.sqlite import SqliteRegistry
from headwater.resolve.sqlite_people import SqlitePeople
from headwater.resolve.sqlite_sessions import SqliteSessions
from headwater.store.clickhouse import Store
from headwater.store.people import PeopleStore
from headwater.view.live import Filter

APP = "6387f260fae4a13be78fc664"
AT = 1_795_226_263_000_000
_router = Router(DIALECTS)
_numbers = itertools.count(1)


def a_request(method: str, target: str, **given: Any) -> Request:
    """A request as accept would journal it, one second after the one before."""
    match = _router.match(target.partition("?")[0])
    assert match is not None
    number = next(_numbers)
    fields: dict[str, Any] = {
        "dialect": match.dialect.NAME,
        "method": method,
        "target": target,
        "endpoint": match.endpoint,
        "params": dict(match.params),
        "account": "acme",
        "peer": "192.0.2.7",
        "received_at": AT + number * 1_000_000,
        "request_id": ((AT + number * 1_000_000) // 1_000).to_bytes(6, "big")
        + number.to_bytes(10, "big"),
        **given,
    }
    return Request(**fields)


def nucleus(*events: dict[str, Any], **given: Any) -> Request:
    """A Nucleus message over HTTP; each event gets what every client sends."""
    data = [
        {"type": "event", "date": AT // 1000, "sessionId": 4821, "deviceId": "d1", **event}
        for event in events
    ]
    body = json.dumps({"data": data}).encode()
    return a_request("POST", f"/app/{APP}/track", **{"body": body, **given})


def vaix(user: str, **given: Any) -> Request:
    """A VAIX click."""
    body = {"user_id": user, "event_type": "clicks:event", "data": {"event_id": "1"}}
    headers = {"x-vaix-client-id": "g1"}
    return a_request(
        "POST",
        "/api/tracker/events",
        **{"body": json.dumps(body).encode(), "headers": headers, **given},
    )


def journal(folder: Path, *batches: Sequence[tuple[Request, int]], writer: int = 0) -> None:
    """Write batches of requests, each with how many events it counts as."""

    async def write() -> None:
        loop = asyncio.get_running_loop()
        log = SqliteWriter(folder / "journal", writer, loop=loop, clock=system_clock)
        for batch in batches:
            durable = [loop.create_future() for _ in batch]
            for (request, events), future in zip(batch, durable, strict=True):
                log.append(request, events, future.set_result)
            assert set(await asyncio.gather(*durable)) == {None}
        await log.close()

    asyncio.run(write())


def each(*requests: Request, events: int = 1) -> list[tuple[Request, int]]:
    """One batch of requests that count alike."""
    return [(request, events) for request in requests]


class Loading:
    """A loader, and what it works on, in a folder of its own."""

    def __init__(
        self,
        folder: Path,
        store: Store,
        *,
        dialects: Sequence[Dialect] = DIALECTS,
        accounts: Accounts | None = None,
        checkpoint: Callable[[str], None] | None = None,
        shared: Callable[[str], frozenset[str]] | None = None,
        plan_of: Callable[[str], TrackingPlan | None] = lambda account: None,
    ) -> None:
        for part in ("journal", "registry"):
            (folder / part).mkdir(exist_ok=True)
        self.store = store
        self.reader = SqliteReader(folder / "journal")
        self.registry = SqliteRegistry(folder / "registry", system_clock)
        self.seen_rows: list[Any] = []
        people_store = PeopleStore(store.writing())
        self.identifying = Identifying(
            SqlitePeople(folder / "registry"),
            people_store,
            DerivedSessions(SqliteSessions(folder / "registry"), people_store, idle_minutes=30),
            shared or (lambda account: frozenset()),
        )
        judging = accounts or Accounts({}, public_host="", clock=system_clock)
        self.loader = Loader(
            reader=self.reader,
            dialects=dialects,
            accounts=lambda: judging,
            enrich=Enrichment().enrich,
            seen=self.registry,
            identifying=self.identifying,
            store=store,
            clock=system_clock,
            on_rows=self._see,
            checkpoint=checkpoint,
            plan_of=plan_of,
        )

    def _see(self, rows: LiveRows) -> None:
        self.seen_rows += rows.pick(Filter(), None, None).rows

    def all(self) -> int:
        """Load everything that is there; how many events counted."""
        total = 0
        while events := self.loader.step():
            total += events
        return total

    def books(self) -> dict[str, tuple[int, ...]]:
        """By dialect: received, stored, duplicate, rejected, in_flight."""
        self.loader.refresh_in_flight()
        rows = self.store.query("SELECT * FROM accounting").rows
        return {row[1]: tuple(row[2:]) for row in rows}

    def names(self) -> list[str]:
        """The names of the stored events, sorted."""
        return [row[0] for row in self.store.query("SELECT name FROM events ORDER BY name").rows]

    def close(self) -> None:
        self.reader.close()
        self.registry.close()


def with_decode(dialect: Dialect, decode: Callable[..., Any]) -> Iterator[Dialect]:
    """The dialects, one of them with another decoder."""
    for one in DIALECTS:
        if one is dialect:
            yield _Changed(one, decode)
        else:
            yield one


class _Changed:
    def __init__(self, dialect: Dialect, decode: Callable[..., Any]) -> None:
        self._dialect = dialect
        self.decode = decode

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dialect, name)


def copy_of(request: Request, **changes: Any) -> Request:
    """A request as another one, with some fields changed."""
    return msgspec.structs.replace(request, **changes)
