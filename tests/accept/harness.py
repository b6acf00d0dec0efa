"""A collector on a free port of this process's event loop, and clients that speak raw bytes to it.

The dialects are the real ones. The journal is one that a test can hold back or break, which the
real one cannot be asked to do.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, ParamSpec

import uvloop

from headwater import config
from headwater.accept.accounts import Accounts
from headwater.accept.browser_script import BrowserScript
from headwater.accept.http import Collector
from headwater.accept.intake import Settings
from headwater.accept.request import Identified, Identify, Request
from headwater.clock import system_clock
from headwater.decode.dialects import DIALECTS

P = ParamSpec("P")
TOKEN = "case-token"
APP = "6387f260fae4a13be78fc664"
COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"
EVENT = b'{"user_id":"1","event_type":"clicks:event","data":{"page":"/","location":"widget:x"}}'


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on uvloop, within 20 s."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                await test(*args, **kwargs)

        uvloop.run(bounded())

    return run


def sha256(token: str) -> str:
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


ACME = config.Account(
    name="acme",
    vaix=config.VaixAccount(tokens=(sha256(TOKEN),)),
    orbee=config.OrbeeAccount(trackers=("1/1",)),
    nucleus=config.NucleusAccount(apps=(APP, "app1")),
    vibetrace=config.VibetraceAccount(accounts=("ACCT123",)),
    gamooga=config.GamoogaAccount(companies=(COMPANY,)),
)


class MemoryJournal:
    """Commits what it was given on the next turn of the event loop, or when a test says so."""

    def __init__(self) -> None:
        self.healthy = True
        self.held = False
        self.error: Exception | None = None
        self.kept: list[Request] = []
        self.counts: list[int] = []
        self._queue: list[tuple[Request, int, Callable[[Exception | None], None]]] = []

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def append(
        self, request: Request, events: int, done: Callable[[Exception | None], None]
    ) -> None:
        self._queue.append((request, events, done))
        if len(self._queue) == 1 and not self.held:
            asyncio.get_running_loop().call_soon(self.commit)

    def commit(self) -> None:
        queue, self._queue = self._queue, []
        for request, events, done in queue:
            if self.error is None:
                self.kept.append(request)
                self.counts.append(events)
            done(self.error)


class Memory:
    """Visitors in a dictionary; the first answer for each id takes a turn of the event loop."""

    def __init__(self) -> None:
        self.map: dict[tuple[str, str, str], str] = {}
        self.asked = 0
        self.error: Exception | None = None

    def known(self, account: str, question: Identify) -> Identified | None:
        visitor = self.map.get((account, question.scope, question.users[0]))
        return None if visitor is None else Identified(visitor=visitor, created=False)

    async def identify(self, account: str, question: Identify) -> Identified:
        self.asked += 1
        await asyncio.sleep(0.01)
        if self.error is not None:
            raise self.error
        key = (account, question.scope, question.users[0])
        created = key not in self.map
        visitor = self.map.setdefault(key, f"{len(self.map):016d}")
        return Identified(visitor=visitor, created=created)


class Site(NamedTuple):
    collector: Collector
    journal: MemoryJournal
    visitors: Memory
    port: int
    server: asyncio.Server


@asynccontextmanager
async def site(
    settings: Settings | None = None,
    *,
    accounts: Accounts | None = None,
    script: BrowserScript | None = None,
) -> AsyncIterator[Site]:
    """A running collector."""
    journal, visitors = MemoryJournal(), Memory()
    collector = Collector(
        dialects=DIALECTS,
        accounts=accounts
        or Accounts({"acme": ACME}, public_host="collect.test", clock=system_clock),
        writer=journal,
        visitors=visitors,
        clock=system_clock,
        settings=settings,
        script=script,
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_server(collector.protocol_factory, "127.0.0.1", 0)
    try:
        yield Site(collector, journal, visitors, server.sockets[0].getsockname()[1], server)
    finally:
        server.close()
        await collector.drain(0.2)


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self, *, head_only: bool = False) -> Reply:
        """The next answer. Raises IncompleteReadError when the connection ends instead."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head[:-4].split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 (\d{3}) [A-Za-z '-]*", first)
        assert found, first
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        length = 0 if head_only else int(headers.get("content-length", "0"))
        return Reply(int(found[1]), headers, await self.reader.readexactly(length))

    async def ask(self, data: bytes) -> Reply:
        self.send(data)
        return await self.reply()

    async def ended(self) -> bool:
        """Whether nothing more comes and the connection ends."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionResetError:
            return True

    async def rest(self) -> bytes:
        """Everything until the connection ends."""
        return await self.reader.read()


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def post(
    target: str = "/api/tracker/events",
    body: bytes = EVENT,
    *headers: str,
    token: str = TOKEN,
    version: str = "1.1",
) -> bytes:
    """A VAIX request, or another POST."""
    lines = [
        f"POST {target} HTTP/{version}",
        "Host: collect.test",
        f"Authorization: Bearer {token}",
        "x-vaix-client-id: g1",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(target: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: collect.test", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for something to become true."""
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError
