"""A load generator for `headwater bench`: keep-alive connections that send, wait, send again.

It lives beside the server so that anyone can measure an installation without another tool. Each
connection has one request under way; the time from writing it to the answer's status line is the
time to acknowledgement. Answers are recognised by their first bytes and their length, nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

import msgspec
import uvloop

from headwater.errors import HeadwaterError

_TOKEN = "bench-token"  # noqa: S105 - of a server that lives for seconds, on loopback
_APP = "bench-app"
_COMPANY = "dcaf55cc-b36d-4d0e-9003-f93187c04886"
_READY_SECONDS_MAX = 30.0
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


class Case(msgspec.Struct, frozen=True):
    """One kind of request: what the table calls it, its bytes, how many events it holds."""

    title: str
    request: bytes
    events: int


class Measured(msgspec.Struct):
    """What one case gave: answers of success, others, and each time in seconds."""

    seconds: float
    answers: int
    refused: int
    times: list[float]

    def percentile(self, share: float) -> float:
        """The time that this share of the answers did not exceed."""
        if not self.times:
            return 0.0
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _post(target: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {target} HTTP/1.1", "host: 127.0.0.1", *headers, f"content-length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _nucleus(count: int) -> bytes:
    events = [
        {
            "type": "event",
            "name": "bench",
            "id": number,
            "date": 1_795_226_263_000 + number,
            "sessionId": 4821,
            "deviceId": "d41d8c",
            "payload": {"n": number},
        }
        for number in range(count)
    ]
    return _post(f"/app/{_APP}/track", msgspec.json.encode({"data": events}))


def cases() -> list[Case]:
    """What is measured."""
    vaix = (
        b'{"user_id":"123","event_type":"clicks:event","data":{"event_id":"1018561959",'
        b'"position":0,"location":"widget:recommended","page":"/home"}}'
    )
    orbee = (
        b'{"action":"submit","object":"form","vendor":"Vendor A","product":"Product 1",'
        b'"instance_id":"abc123","label":"Lead form"}'
    )
    gamooga = (
        f"GET /evwid/?c={_COMPANY}&u=cust-1&e=add_to_cart&ky=sku&vl=A1&tp=s HTTP/1.1\r\n"
        "host: 127.0.0.1\r\n\r\n"
    ).encode()
    return [
        Case(
            "VAIX, one event",
            _post(
                "/api/tracker/events",
                vaix,
                f"authorization: Bearer {_TOKEN}",
                "x-vaix-client-id: g1",
                "content-type: application/json",
            ),
            1,
        ),
        Case("Orbee, one event", _post("/collect/1/1/event", orbee), 1),
        Case("Gamooga GET, one event", gamooga, 1),
        Case("Nucleus, one event", _nucleus(1), 1),
        Case("Nucleus, 100 events", _nucleus(100), 100),
    ]


class _Sender(asyncio.Protocol):
    """One connection: sends its request, waits for the answer, again, until told to stop."""

    def __init__(self, request: bytes, measured: Measured) -> None:
        self._request = request
        self._measured = measured
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._sent_at = 0.0
        self.stopping = False
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio.Transport, so nothing can be asserted here.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = _LENGTH.search(self._received, 0, head_end + 2)
        end = head_end + 4 + (int(length[1]) if length else 0)
        if len(self._received) < end:
            return
        if self._received.startswith(b"HTTP/1.1 2"):
            self._measured.answers += 1
            self._measured.times.append(time.perf_counter() - self._sent_at)
        else:
            self._measured.refused += 1
        self._received = self._received[end:]
        if self.stopping:
            assert self._transport is not None
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.stopping:
            self._measured.refused += 1
        if not self.closed.done():
            self.closed.set_result(None)


async def _run(case: Case, port: int, seconds: float, connections: int) -> Measured:
    loop = asyncio.get_running_loop()
    measured = Measured(seconds=0.0, answers=0, refused=0, times=[])
    began = loop.time()
    senders = []
    for _ in range(connections):
        _, sender = await loop.create_connection(
            lambda: _Sender(case.request, measured), "127.0.0.1", port
        )
        senders.append(sender)
    await asyncio.sleep(seconds)
    measured.seconds = loop.time() - began
    counted = Measured(
        seconds=measured.seconds,
        answers=measured.answers,
        refused=measured.refused,
        times=list(measured.times),
    )
    for sender in senders:
        sender.stopping = True
    await asyncio.wait([sender.closed for sender in senders], timeout=5.0)
    return counted


def _config(folder: Path) -> str:
    digest = hashlib.sha256(_TOKEN.encode()).hexdigest()
    return f"""data = "{folder / "data"}"
[collect]
listen = "127.0.0.1:0"
[accounts.bench.vaix]
tokens = ["sha256:{digest}"]
[accounts.bench.orbee]
trackers = ["1/1"]
[accounts.bench.nucleus]
apps = ["{_APP}"]
[accounts.bench.gamooga]
companies = ["{_COMPANY}"]
"""


def _port(output: IO[bytes]) -> int:
    """The port that the `ready` line names; the collector's death ends the wait."""
    while line := output.readline():
        if found := re.match(rb"ready collect=http://[^ ]*:(\d+)", line):
            return int(found[1])
    raise HeadwaterError("the collector did not start", remedy="see what it wrote above this line")


def measure(*, seconds: float, connections: int, show: Callable[[Case, Measured], None]) -> None:
    """Run every case against a collector of its own; `show` is called after each.

    Raises HeadwaterError when the collector does not start.
    """
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        folder = Path(name)
        config = folder / "headwater.toml"
        config.write_text(_config(folder))
        collector = subprocess.Popen(
            [sys.executable, "-m", "headwater", "collect", "--config", str(config)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        try:
            assert collector.stdout is not None
            port = _port(collector.stdout)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                for case in cases():
                    show(case, runner.run(_run(case, port, seconds, connections)))
        finally:
            collector.send_signal(signal.SIGTERM)
            try:
                collector.wait(_READY_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                collector.kill()
                collector.wait()
            if collector.stdout is not None:
                collector.stdout.close()
