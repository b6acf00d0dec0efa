"""A WebSocket load generator for Nucleus messages: `python -m bench.websocket_client HOST PORT …`.

The frames are made (and masked) beforehand and answers are only counted, so that the client's core
is not what is measured. One message is outstanding on each connection; no compression. Prints the
JSON of a bench.wrk.Measured.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import cast

import msgspec
import uvloop
from websockets.frames import Frame, Opcode

from bench.traffic import APP, nucleus_events
from bench.wrk import Measured

#: Of each connection, all of one session: a client is one.
FRAMES = 8


class Client(asyncio.Protocol):
    """One connection: shake hands, then send the next frame whenever an answer is complete."""

    def __init__(self, frames: list[bytes], first: int, waits: list[float]) -> None:
        self._frames = frames
        self._place = first
        self._waits = waits
        self._open = False
        self._bytes = b""
        self._sent_at = 0.0
        self.lost = False
        self.ending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._transport.write(
            f"GET /app/{APP}/track HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AtTj5IXpv3zD465EUdYv2Q==\r\n\r\n".encode()
        )

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = not self.ending

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        if not self._open:
            head, found, rest = self._bytes.partition(b"\r\n\r\n")
            if not found:
                return
            assert head.startswith(b"HTTP/1.1 101 "), head
            self._open, self._bytes = True, rest
            self._send()
            return
        while (end := _frame_end(self._bytes)) is not None:
            text = self._bytes[0] & 0x0F == Opcode.TEXT
            self._bytes = self._bytes[end:]
            if text:
                self._waits.append(time.perf_counter() - self._sent_at)
                self._send()

    def _send(self) -> None:
        if self.ending:
            return
        self._place = (self._place + 1) % len(self._frames)
        self._sent_at = time.perf_counter()
        self._transport.write(self._frames[self._place])

    def close(self) -> None:
        self.ending = True
        self._transport.close()


def _frame_end(data: bytes) -> int | None:
    """Where the first frame of a server (never masked) ends, None while it is incomplete."""
    if len(data) < 2:
        return None
    length, start = data[1] & 0x7F, 2
    if length == 126:
        length, start = int.from_bytes(data[2:4], "big"), 4
    elif length == 127:
        length, start = int.from_bytes(data[2:10], "big"), 10
    return start + length if len(data) >= start + length and len(data) >= start else None


def frames_of(size: int, session: int) -> list[bytes]:
    """A client's masked text frames of `size` events each."""
    first = session * FRAMES
    return [
        Frame(Opcode.TEXT, nucleus_events(number, size, session=session)).serialize(mask=True)
        for number in range(first, first + FRAMES)
    ]


async def measure(host: str, port: int, size: int, seconds: float, connections: int) -> Measured:
    """All connections at once for `seconds`."""
    loop = asyncio.get_running_loop()
    frames = [frames_of(size, number) for number in range(connections)]
    waits: list[float] = []
    clients = [
        (await loop.create_connection(lambda n=number: Client(frames[n], n, waits), host, port))[1]  # type: ignore[misc]
        for number in range(connections)
    ]
    began = time.perf_counter()
    waits.clear()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    found = sorted(waits)
    failed = sum(client.lost for client in clients)
    for client in clients:
        client.close()
    if not found:
        return Measured(
            requests=0, requests_per_second=0, p50_ms=0, p99_ms=0, failed=max(1, failed)
        )
    return Measured(
        requests=len(found),
        requests_per_second=len(found) / took,
        p50_ms=found[len(found) // 2] * 1e3,
        p99_ms=found[len(found) * 99 // 100] * 1e3,
        failed=failed,
    )


def main() -> None:
    host, port, size, seconds, connections = sys.argv[1:]
    found = uvloop.run(measure(host, int(port), int(size), float(seconds), int(connections)))
    os.write(1, msgspec.json.encode(found))


if __name__ == "__main__":
    main()
