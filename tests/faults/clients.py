"""Clients of the five dialects that keep a ledger and live through a server that dies.

A request whose answer never came is in doubt: it may be stored or not. It is not sent again, but
for Nucleus, whose clients resend all that is not reported back; the dedupe key makes it one.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable, Coroutine, Sequence
from urllib.parse import urlencode

import websockets.asyncio.client
from websockets.exceptions import WebSocketException

from tests.faults.ledger import Ledger

TOKEN = "fault-token"
COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"
APP = "app1"
ANSWER_SECONDS_MAX = 15.0
AGAIN_SECONDS = 0.05
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
#: How the world looks to a client of a server that was killed.
LOST = (OSError, EOFError, asyncio.IncompleteReadError, TimeoutError, WebSocketException)

Address = Callable[[], tuple[str, int]]


class Connection:
    """One keep-alive HTTP connection; any trouble closes it, and the next use opens another."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, requests: Sequence[bytes]) -> list[tuple[int, bytes]]:
        """Send all (pipelined); the answers that came, in order. Fewer: the connection died."""
        answers: list[tuple[int, bytes]] = []
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(*self._address())
                reader, writer = self._streams
                writer.write(b"".join(requests))
                await writer.drain()
                for _ in requests:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = _LENGTH.search(head)
                    body = await reader.readexactly(int(length[1])) if length else b""
                    answers.append((int(head.split(b" ", 2)[1]), body))
                    if b"\r\nconnection: close" in head.lower():
                        self.close()
                        break
        except LOST:
            self.close()
            await asyncio.sleep(AGAIN_SECONDS)
        return answers

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def request(method: str, target: str, body: bytes = b"", headers: str = "") -> bytes:
    """One HTTP/1.1 request."""
    length = f"Content-Length: {len(body)}\r\n" if method == "POST" else ""
    return f"{method} {target} HTTP/1.1\r\nHost: test\r\n{headers}{length}\r\n".encode() + body


def vaix(mark: str) -> bytes:
    body = json.dumps({"user_id": "1", "event_type": f"fault:{mark}", "data": {}}).encode()
    bearer = f"Authorization: Bearer {TOKEN}\r\nx-vaix-client-id: g1\r\n"
    return request("POST", "/api/tracker/events", body, bearer)


def orbee(mark: str) -> bytes:
    event = {"action": "view", "object": mark, "vendor": "v", "product": "p", "instance_id": "i"}
    return request("POST", "/collect/1/1/event", json.dumps(event).encode())


def vibetrace(mark: str) -> bytes:
    query = urlencode({"data": json.dumps([{"type": mark, "userId": "1", "sessionId": "2"}])})
    return request("GET", f"/event/ACCT123/{mark}?{query}")


def gamooga(mark: str) -> bytes:
    query = urlencode({"c": COMPANY, "u": f"user-{int(mark[1:]) % 50}", "e": mark})
    return request("GET", f"/evwid/?{query}")


def nucleus_event(mark: str, number: int) -> dict[str, object]:
    return {
        "type": "event",
        "name": mark,
        "id": number,
        "date": "2026-11-21T01:57:44.019Z",
        "deviceId": "d",
        "sessionId": 1,
    }


async def http_client(
    dialect: str,
    make: Callable[[str], bytes],
    *,
    ledger: Ledger,
    address: Address,
    stop: asyncio.Event,
    pipelined: int,
) -> None:
    """One dialect over HTTP, `pipelined` requests at a time."""
    connection = Connection(address)
    while not stop.is_set():
        marks = [ledger.mark(dialect) for _ in range(pipelined)]
        answers = await connection.exchange([make(mark) for mark in marks])
        kept = [mark for mark, answer in zip(marks, answers, strict=False) if answer[0] < 300]
        if kept:
            ledger.acknowledge(dialect, kept)
        await asyncio.sleep(0.002)
    connection.close()


async def identify_client(
    number: int, *, ledger: Ledger, address: Address, stop: asyncio.Event
) -> None:
    """Asks Gamooga's /id/ for users that other clients ask for at the same time."""
    connection = Connection(address)
    choose = random.Random(number)
    while not stop.is_set():
        user = f"shared-{choose.randrange(200)}"
        query = urlencode({"c": COMPANY, "u": user})
        for status, body in await connection.exchange([request("GET", f"/id/?{query}")]):
            if status == 200:
                ledger.visitor(user, json.loads(body)["vid"])
        await asyncio.sleep(0.02)
    connection.close()


class Resending:
    """A queue as Nucleus clients keep one: everything that was not reported back is sent again."""

    def __init__(self, ledger: Ledger, first: int) -> None:
        self._ledger = ledger
        self._number = first
        self.queue: dict[int, str] = {}

    def message(self, fresh: int) -> bytes:
        for _ in range(fresh):
            self._number += 1
            self.queue[self._number] = self._ledger.mark("nucleus")
        return json.dumps(
            {"data": [nucleus_event(mark, number) for number, mark in self.queue.items()]}
        ).encode()

    def reported(self, body: bytes | str) -> None:
        marks = [self.queue.pop(number, "") for number in json.loads(body)["reportedIds"]]
        kept = [mark for mark in marks if mark]
        if kept:
            self._ledger.acknowledge("nucleus", kept)


async def nucleus_http_client(
    first: int, *, ledger: Ledger, address: Address, stop: asyncio.Event
) -> None:
    connection, waiting = Connection(address), Resending(ledger, first)
    while not stop.is_set() or waiting.queue:
        body = waiting.message(0 if stop.is_set() else 5)
        for status, answer in await connection.exchange(
            [request("POST", f"/app/{APP}/track", body)]
        ):
            if status == 200:
                waiting.reported(answer)
        await asyncio.sleep(0.01)
    connection.close()


async def nucleus_socket_client(
    first: int, *, ledger: Ledger, address: Address, stop: asyncio.Event
) -> None:
    waiting = Resending(ledger, first)
    while not stop.is_set() or waiting.queue:
        host, port = address()
        try:
            async with (
                asyncio.timeout(60),
                websockets.asyncio.client.connect(
                    f"ws://{host}:{port}/app/{APP}/track", open_timeout=5, ping_interval=None
                ) as socket,
            ):
                while not stop.is_set() or waiting.queue:
                    await socket.send(waiting.message(0 if stop.is_set() else 3).decode())
                    async with asyncio.timeout(ANSWER_SECONDS_MAX):
                        waiting.reported(await socket.recv())
                    await asyncio.sleep(0.01)
        except LOST:
            await asyncio.sleep(AGAIN_SECONDS)


def all_clients(
    *, ledger: Ledger, address: Address, stop: asyncio.Event
) -> list[Coroutine[None, None, None]]:
    """The load: every dialect, single and pipelined, over HTTP and WebSocket."""
    makers = {"vaix": vaix, "orbee": orbee, "vibetrace": vibetrace, "gamooga": gamooga}
    return [
        *(
            http_client(
                dialect, make, ledger=ledger, address=address, stop=stop, pipelined=pipelined
            )
            for dialect, make in makers.items()
            for pipelined in (1, 1, 8)
        ),
        *(
            identify_client(number, ledger=ledger, address=address, stop=stop)
            for number in range(4)
        ),
        *(
            client(first, ledger=ledger, address=address, stop=stop)
            for first, client in enumerate(
                [nucleus_http_client, nucleus_http_client, nucleus_socket_client] * 2, start=1
            )
            for first in (first * 10_000_000,)
        ),
    ]
