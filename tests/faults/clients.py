"""Clients of the five dialects that keep a ledger and live through a server that dies.

A request whose answer never came is in doubt: it may be stored or not. It is not sent again, but
for Nucleus, whose clients resend all that is not reported back; the dedupe key makes it one. What
an event holds and whose it is follow from its mark (``ledger.py``).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from functools import partial
from urllib.parse import urlencode

import websockets.asyncio.client
from websockets.exceptions import WebSocketException

from tests.faults.ledger import ACCOUNTS, Ledger, account_of, content_of, user_of

#: By account.
TOKENS = {"acme": "fault-token", "other": "other-fault-token"}
TRACKERS = {"acme": "1/1", "other": "2/7"}
APPS = {"acme": "app1", "other": "app2"}
SHOPS = {"acme": "ACCT123", "other": "OTHER9"}
COMPANIES = {
    "acme": "dcaf55cc-b36d-4d0e-9003-f93187c04886",
    "other": "0b0d0f7e-6f0a-4b53-9c0e-3f4c1d2e5a60",
}
CONFIG = "".join(
    f"""
[accounts.{account}.vaix]
tokens = ["sha256:{hashlib.sha256(TOKENS[account].encode()).hexdigest()}"]
[accounts.{account}.orbee]
trackers = ["{TRACKERS[account]}"]
[accounts.{account}.nucleus]
apps = ["{APPS[account]}"]
[accounts.{account}.vibetrace]
accounts = ["{SHOPS[account]}"]
[accounts.{account}.gamooga]
companies = ["{COMPANIES[account]}"]
"""
    for account in ACCOUNTS
)
ANSWER_SECONDS_MAX = 15.0
AGAIN_SECONDS = 0.05
CUT_SHARE = 0.03
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
#: How the world looks to a client of a server that was killed.
LOST = (OSError, EOFError, asyncio.IncompleteReadError, TimeoutError, WebSocketException)

Address = Callable[[], tuple[str, int]]


class Connection:
    """One keep-alive HTTP connection; any trouble closes it, and the next use opens another."""

    def __init__(self, address: Address, ledger: Ledger) -> None:
        self._address = address
        self._answers = ledger.answers
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(
        self, requests: Sequence[bytes], *, listen: bool = True
    ) -> list[tuple[int, bytes]]:
        """Send all (pipelined); the answers that came, in order. Fewer: the connection died, or it
        was cut before the client could `listen`."""
        answers: list[tuple[int, bytes]] = []
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(*self._address())
                reader, writer = self._streams
                began = time.monotonic()
                writer.write(b"".join(requests))
                await writer.drain()
                if not listen:
                    await asyncio.sleep(AGAIN_SECONDS)
                    self.close()
                    return []
                for _ in requests:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = _LENGTH.search(head)
                    body = await reader.readexactly(int(length[1])) if length else b""
                    status = int(head.split(b" ", 2)[1])
                    answers.append((status, body))
                    now = time.monotonic()
                    self._answers.append((now, status, now - began))
                    if status == 503:
                        assert b"\r\nretry-after: " in head.lower(), "503 without Retry-After"
                    if b"\r\nconnection: close" in head.lower():
                        self.close()
                        break
        except LOST:
            self._answers.append((time.monotonic(), 0, 0.0))
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


def vaix(mark: str, pad: str = "") -> bytes:
    event = {
        "user_id": user_of(mark),
        "event_type": f"fault:{mark}",
        "data": {"content": content_of(mark), "pad": pad},
    }
    bearer = f"Authorization: Bearer {TOKENS[account_of(mark)]}\r\nx-vaix-client-id: g1\r\n"
    return request("POST", "/api/tracker/events", json.dumps(event).encode(), bearer)


def orbee(mark: str) -> bytes:
    event = {
        **{"action": "view", "object": mark, "vendor": "v", "product": "p"},
        **{"instance_id": user_of(mark), "content": content_of(mark)},
    }
    target = f"/collect/{TRACKERS[account_of(mark)]}/event"
    return request("POST", target, json.dumps(event).encode())


def broken_orbee(mark: str) -> bytes:
    """An event without what Orbee requires: answered 400, and kept as rejected."""
    target = f"/collect/{TRACKERS[account_of(mark)]}/event"
    return request("POST", target, json.dumps({"action": "view", "object": mark}).encode())


def vibetrace(mark: str) -> bytes:
    event = {
        **{"type": mark, "userId": user_of(mark), "sessionId": "2"},
        "content": content_of(mark),
    }
    query = urlencode({"data": json.dumps([event])})
    return request("GET", f"/event/{SHOPS[account_of(mark)]}/{mark}?{query}")


def gamooga(mark: str) -> bytes:
    query = urlencode(
        {
            **{"c": COMPANIES[account_of(mark)], "u": user_of(mark), "e": mark},
            **{"ky": "content", "vl": content_of(mark), "tp": "s"},
        }
    )
    return request("GET", f"/evwid/?{query}")


def nucleus_event(mark: str, number: int) -> dict[str, object]:
    return {
        "type": "event",
        "name": mark,
        "id": number,
        "date": "2026-11-21T01:57:44.019Z",
        "deviceId": "d",
        "sessionId": 1,
        "payload": {"content": content_of(mark)},
    }


async def http_client(
    dialect: str,
    make: Callable[[str], bytes],
    *,
    ledger: Ledger,
    address: Address,
    stop: asyncio.Event,
    pipelined: int,
    pause: float = 0.002,
) -> None:
    """One dialect over HTTP, `pipelined` requests at a time."""
    with closing(Connection(address, ledger)) as connection:
        while not stop.is_set():
            marks = [ledger.mark(dialect) for _ in range(pipelined)]
            answers = await connection.exchange([make(mark) for mark in marks])
            said: dict[int, list[str]] = {}
            for mark, (status, _) in zip(marks, answers, strict=False):
                said.setdefault(status // 100, []).append(mark)
            ledger.acknowledge(said.pop(2, []))
            ledger.reject(said.pop(4, []))
            ledger.refuse(said.pop(5, []))
            assert not said, said.keys()
            ledger.doubt(marks[len(answers) :])
            await asyncio.sleep(pause)


async def identify_client(
    number: int, *, ledger: Ledger, address: Address, stop: asyncio.Event
) -> None:
    """Asks Gamooga's /id/ for users that other clients ask for at the same time."""
    choose = random.Random(number)
    with closing(Connection(address, ledger)) as connection:
        while not stop.is_set():
            account, user = choose.choice(ACCOUNTS), f"shared-{choose.randrange(200)}"
            query = urlencode({"c": COMPANIES[account], "u": user})
            for status, body in await connection.exchange([request("GET", f"/id/?{query}")]):
                if status == 200:
                    ledger.visitor(account, user, json.loads(body)["vid"])
            await asyncio.sleep(0.02)


class Resending:
    """A queue as Nucleus clients keep one: everything that was not reported back is sent again, of
    one account."""

    def __init__(self, ledger: Ledger, first: int, account: str) -> None:
        self._ledger = ledger
        self._number = first
        self._account = account
        self.queue: dict[int, str] = {}

    def message(self, fresh: int) -> bytes:
        for _ in range(fresh):
            self._number += 1
            self.queue[self._number] = self._ledger.mark("nucleus", self._account)
        return json.dumps(
            {"data": [nucleus_event(mark, number) for number, mark in self.queue.items()]}
        ).encode()

    def reported(self, body: bytes | str) -> None:
        marks = [self.queue.pop(number, "") for number in json.loads(body)["reportedIds"]]
        self._ledger.acknowledge(mark for mark in marks if mark)


async def nucleus_http_client(
    first: int, *, ledger: Ledger, address: Address, stop: asyncio.Event
) -> None:
    """One whose network is cut now and then before the answer comes."""
    choose = random.Random(first)
    account = ACCOUNTS[first % 2]
    waiting = Resending(ledger, first, account)
    with closing(Connection(address, ledger)) as connection:
        while not stop.is_set() or waiting.queue:
            body = waiting.message(0 if stop.is_set() else 5)
            for status, answer in await connection.exchange(
                [request("POST", f"/app/{APPS[account]}/track", body)],
                listen=choose.random() > CUT_SHARE,
            ):
                if status == 200:
                    waiting.reported(answer)
            await asyncio.sleep(0.01)


async def nucleus_socket_client(
    first: int, *, ledger: Ledger, address: Address, stop: asyncio.Event
) -> None:
    account = ACCOUNTS[first % 2]
    waiting = Resending(ledger, first, account)
    while not stop.is_set() or waiting.queue:
        host, port = address()
        url = f"ws://{host}:{port}/app/{APPS[account]}/track"
        try:
            async with (
                asyncio.timeout(60),
                websockets.asyncio.client.connect(
                    url, open_timeout=5, ping_interval=None
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
    http = partial(http_client, ledger=ledger, address=address, stop=stop)
    resending = (nucleus_http_client, nucleus_http_client, nucleus_socket_client)
    return [
        *(
            http(dialect, make, pipelined=pipelined)
            for dialect, make in makers.items()
            for pipelined in (1, 1, 8)
        ),
        http("orbee", broken_orbee, pipelined=1, pause=0.1),
        *(
            identify_client(number, ledger=ledger, address=address, stop=stop)
            for number in range(4)
        ),
        *(
            client(place * 10_000_001, ledger=ledger, address=address, stop=stop)
            for place, client in enumerate(resending * 2, start=1)
        ),
    ]
