"""R2: three times the load that it can carry. What is turned away hears 503 at once, memory stays
bounded, the rest is served as fast as ever, and every acknowledgement is kept.

The load is open: requests fall due by the clock, whatever the answers; a connection that the
collector does not read from holds its own back.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque
from pathlib import Path
from typing import cast

import pytest
import uvloop

from headwater.journal.journal import Position
from headwater.journal.sqlite import SqliteReader
from tests.faults.clients import CONFIG, TOKENS
from tests.faults.schedule import workers_and_hub
from tests.faults.watching import ready, until
from tests.served import Served
from tests.trust.serving import FULL, resident_bytes

pytestmark = pytest.mark.alone

SECONDS = 15.0 if FULL else 2.0
CONNECTIONS = 64
#: Requests that an open connection has on the way before it counts as held back.
AHEAD_MAX = 512
MEMORY_BYTES_MAX = 400 * 1024 * 1024
#: In two seconds of a machine that others use, the client alone makes more noise than a fifth.
SHARE_MIN = 0.8 if FULL else 0.4
PAD = "x" * 1_500
_ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n(.*?)\r\n\r\n", re.DOTALL)
_LENGTH = re.compile(rb"content-length: (\d+)")


class Seen:
    """What the clients saw."""

    def __init__(self) -> None:
        self.sent = 0
        self.acknowledged: set[int] = set()
        self.refused: list[float] = []
        self.lost = 0
        self.held_back = 0
        self.retry_after = True


class Sender(asyncio.Protocol):
    """One connection; `offer` says how many requests are due."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[int, float]] = deque()
        self._received = b""
        self._paused = False
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def offer(self, count: int, ahead: int) -> None:
        assert self._transport is not None
        room = 0 if self._paused else max(0, min(count, ahead - len(self._waiting)))
        self._seen.held_back += count - room
        if not room or self.closed:
            return
        now = time.perf_counter()
        data = []
        for _ in range(room):
            number = self._seen.sent
            self._seen.sent += 1
            self._waiting.append((number, now))
            data.append(request(number))
        self._transport.write(b"".join(data))

    def data_received(self, data: bytes) -> None:
        self._received += data
        place = 0
        while match := _ANSWER.match(self._received, place):
            length = _LENGTH.search(match[2])
            end = match.end() + (int(length[1]) if length else 0)
            if end > len(self._received):
                break
            place = end
            number, sent_at = self._waiting.popleft()
            if match[1] == b"204":
                self._seen.acknowledged.add(number)
            else:
                assert match[1] == b"503", match[1]
                self._seen.refused.append(time.perf_counter() - sent_at)
                self._seen.retry_after &= b"\r\nretry-after: " in b"\r\n" + match[2]
        self._received = self._received[place:]

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._seen.lost += len(self._waiting)

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    @property
    def waiting(self) -> int:
        return 0 if self.closed else len(self._waiting)


def request(number: int) -> bytes:
    body = b'{"user_id":"u","event_type":"load:event","data":{"n":%d,"pad":"%b"}}' % (
        number,
        PAD.encode(),
    )
    return (
        b"POST /api/tracker/events HTTP/1.1\r\nhost: test\r\nauthorization: Bearer %b\r\n"
        b"x-vaix-client-id: g1\r\ncontent-length: %d\r\n\r\n%b"
        % (TOKENS["acme"].encode(), len(body), body)
    )


async def offered(port: int, seen: Seen, *, rate: float, seconds: float, ahead: int) -> float:
    """Offer requests at a rate; acknowledgements a second."""
    loop = asyncio.get_running_loop()

    async def fresh() -> Sender:
        _, sender = await loop.create_connection(lambda: Sender(seen), "127.0.0.1", port)
        return sender

    senders = [await fresh() for _ in range(CONNECTIONS)]
    began, due = time.perf_counter(), 0.0
    while (now := time.perf_counter()) < began + seconds:
        count = int((now - began) * rate - due)
        due += count
        for place, sender in enumerate(senders):
            if sender.closed:  # as a client does that was told to try again
                senders[place] = await fresh()
            share = (count + place) // CONNECTIONS
            senders[place].offer(share, ahead)
        await asyncio.sleep(0.005)
    answered = len(seen.acknowledged) / (time.perf_counter() - began)
    await until(lambda: not any(sender.waiting for sender in senders))
    for sender in senders:
        sender.end()
    await asyncio.sleep(0.1)
    return answered


def journaled(data: Path) -> list[int]:
    """The numbers of all requests in the journal."""
    reader = SqliteReader(data / "journal")
    found: list[int] = []
    after = Position(0, 0)
    while batches := reader.read(after, batches_max=100, bytes_max=64 << 20):
        for batch in batches:
            found += [json.loads(one.body)["data"]["n"] for one in batch.requests]
        after = batches[-1].position
    reader.close()
    return found


@pytest.mark.timeout(300)
def test_three_times_the_load_that_it_can_carry(tmp_path: Path) -> None:
    with (
        Served(tmp_path, CONFIG, command="collect") as served,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        port = served.collect_port
        (worker,), _ = workers_and_hub(served)
        seen = Seen()
        # As fast as it answers: each connection has a few requests on the way, and no more.
        peak = runner.run(offered(port, seen, rate=1e6, seconds=SECONDS, ahead=4))
        before = len(seen.acknowledged)
        since = Seen()
        since.sent = seen.sent
        rate = 3 * peak
        goodput = runner.run(offered(port, since, rate=rate, seconds=SECONDS, ahead=AHEAD_MAX))
        memory = resident_bytes(worker)
        assert runner.run(ready(served)), "it is none the worse for it"
    print(
        f"peak {peak:,.0f}/s; offered {rate:,.0f}/s: acknowledged {goodput:,.0f}/s, 503 "
        f"{len(since.refused):,}, held back {since.held_back:,}, lost {since.lost:,}, "
        f"memory {memory / 2**20:.0f} MiB"
    )
    assert before > 100
    assert goodput >= SHARE_MIN * peak
    assert since.refused or since.held_back, "it was not too much"
    assert since.retry_after
    if since.refused:
        assert sorted(since.refused)[len(since.refused) // 2] < 0.1
    assert memory < MEMORY_BYTES_MAX
    found = journaled(served.data)
    assert len(found) == len(set(found))
    assert (seen.acknowledged | since.acknowledged) - set(found) == set()
