"""What a competent user would write: a VAIX endpoint as a raw ASGI application on uvicorn.

It does the same durable work as Headwater for one VAIX POST: bearer token looked up by its hash,
typed decoding with msgspec, the grammar of event_type, one line appended to a file, and one fsync
for all requests that arrived together before any of them is answered. No framework, no middleware.
Run by bench.ingest as ``uvicorn bench.baseline_asgi:app`` with uvloop and httptools.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from bench.traffic import TOKEN

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_TOKENS = {hashlib.sha256(TOKEN.encode()).digest(): "bench"}
_EVENT_TYPE = re.compile(r"[a-z][a-z0-9_]*:[a-z][a-z0-9_]*")


class TrackerEvent(msgspec.Struct):
    event_type: str
    user_id: str | int | None = None
    data: dict[str, Any] | None = None


class Record(msgspec.Struct):
    account: str
    group: str
    received_at: int
    event: TrackerEvent


_decode = msgspec.json.Decoder(TrackerEvent).decode
_encode = msgspec.json.Encoder().encode


class GroupedFile:
    """Appends lines; everything that arrives during one fsync shares the next."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._lines: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    def append(self, line: bytes) -> asyncio.Future[None]:
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.append(line)
        self._waiting.append(durable)
        if self._task is None:
            self._task = asyncio.create_task(self._commit())
        return durable

    async def _commit(self) -> None:
        while self._lines:
            lines, self._lines = self._lines, []
            waiting, self._waiting = self._waiting, []
            await asyncio.to_thread(self._write, b"\n".join(lines) + b"\n")
            for durable in waiting:
                durable.set_result(None)
        self._task = None

    def _write(self, data: bytes) -> None:
        os.write(self._file, data)
        os.fdatasync(self._file)


_file: GroupedFile | None = None


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """The application."""
    global _file
    if scope["type"] == "lifespan":
        await receive()
        _file = GroupedFile(os.environ["BASELINE_FILE"])
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    assert _file is not None
    await _answer(send, await _take(scope, receive, _file))


async def _take(scope: dict[str, Any], receive: Receive, file: GroupedFile) -> int:
    if scope["path"] != "/api/tracker/events":
        return 404
    if scope["method"] != "POST":
        return 405
    headers = dict(scope["headers"])
    bearer = headers.get(b"authorization", b"")
    account = _TOKENS.get(hashlib.sha256(bearer[7:]).digest())
    if account is None or not bearer.startswith(b"Bearer "):
        return 401
    group = headers.get(b"x-vaix-client-id")
    if not group:
        return 400
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    try:
        event = _decode(body)
    except msgspec.ValidationError:
        return 422
    except msgspec.DecodeError:
        return 400
    if _EVENT_TYPE.fullmatch(event.event_type) is None:
        return 422
    record = Record(account, group.decode("latin-1"), time.time_ns() // 1_000, event)
    await file.append(_encode(record))
    return 204


async def _answer(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})
