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
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import uvloop

from headwater.journal.journal import Position
from headwater.journal.sqlite import SqliteReader
from headwater.limits import batch_bytes_max, inflight_bytes_max
from tests.faults.changed_collector import CONNECTIONS_MAX, SLOW_DISK
from tests.faults.clients import CONFIG, TOKENS
from tests.faults.kill import changed
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
#: A load of large requests: so many connections with one each are more than the bytes in flight.
LARGE_BYTES = 200_000
LARGE_CONNECTIONS = inflight_bytes_max // LARGE_BYTES * 5 // 4
SLOW_SECONDS = 15.0 if FULL else 3.0
#: How many of those who are turned away must hear it within 100 ms. On a machine that others use a
#: process may not run for longer than that.
LATE_SHARE = 0.95 if FULL else 0.5
#: Between two tries of a client that was turned away; it is told one second.
CROWD_SECONDS = 0.2
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

    def offer(self, count: int, ahead: int, pad: str = PAD) -> None:
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
            data.append(request(number, pad))
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


def request(number: int, pad: str) -> bytes:
    body = b'{"user_id":"u","event_type":"load:event","data":{"n":%d,"pad":"%b"}}' % (
        number,
        pad.encode(),
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


async def offered_singly(
    port: int, seen: Seen, *, rate: float, seconds: float, connections: int, pad: str
) -> float:
    """Offer requests at a rate, each on a connection without another; acknowledgements a second."""
    loop = asyncio.get_running_loop()

    async def fresh() -> Sender:
        _, sender = await loop.create_connection(lambda: Sender(seen), "127.0.0.1", port)
        return sender

    senders = [await fresh() for _ in range(connections)]
    began, due, place = time.perf_counter(), 0.0, 0
    while (now := time.perf_counter()) < began + seconds:
        count = int((now - began) * rate - due)
        due += count
        tried = 0
        while count and tried < connections:
            place, tried = (place + 1) % connections, tried + 1
            if senders[place].closed:  # as a client does that was told to try again
                senders[place] = await fresh()
            if not senders[place].waiting:
                senders[place].offer(1, 1, pad)
                count -= 1
        seen.held_back += count
        await asyncio.sleep(0.002)
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


@pytest.mark.timeout(300)
def test_a_disk_that_is_too_slow_for_the_load(tmp_path: Path) -> None:
    """What the bound of bytes in flight has no room for hears 503 at once, while the disk works as
    fast as ever; and so does everybody while it does not answer at all."""
    slow = tmp_path / SLOW_DISK
    slow.write_text("0.5")
    with (
        Served(tmp_path, CONFIG, command="collect", program=changed("slow")) as served,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        port = served.collect_port
        (worker,), _ = workers_and_hub(served)
        singly = partial(offered_singly, connections=LARGE_CONNECTIONS, pad="x" * LARGE_BYTES)
        seen, since = Seen(), Seen()
        # Some more than it writes: two commits' worth wait, nobody is refused.
        peak = runner.run(
            offered_singly(
                port,
                seen,
                rate=1e6,
                seconds=SLOW_SECONDS,
                connections=2 * batch_bytes_max // LARGE_BYTES,
                pad="x" * LARGE_BYTES,
            )
        )
        before = len(seen.refused)
        since.sent = seen.sent
        goodput = runner.run(singly(port, since, rate=3 * peak, seconds=2 * SLOW_SECONDS))
        memory = resident_bytes(worker)
        assert runner.run(ready(served)), "it is none the worse for it"
    late = sorted(since.refused)
    print(
        f"peak {peak:,.0f}/s; offered {3 * peak:,.0f}/s: acknowledged {goodput:,.0f}/s, 503 "
        f"{len(late):,} within {1e3 * at_share(late, 0.5):.1f} ms (p50), "
        f"{1e3 * at_share(late, 0.99):.1f} ms (p99), {1e3 * late[-1]:.1f} ms (all), held back "
        f"{since.held_back}, lost {since.lost}, memory {memory / 2**20:.0f} MiB"
    )
    assert not before
    assert since.retry_after
    assert len(late) >= 20, "it was not too much"
    assert at_share(late, LATE_SHARE) < 0.1
    assert goodput >= SHARE_MIN * peak
    assert memory < MEMORY_BYTES_MAX
    found = journaled(served.data)
    assert len(found) == len(set(found))
    assert (seen.acknowledged | since.acknowledged) - set(found) == set()


@pytest.mark.timeout(300)
def test_more_connections_than_there_is_room_for(tmp_path: Path) -> None:
    with (
        Served(tmp_path, CONFIG, command="collect", program=changed("crowded")) as served,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        port = served.collect_port
        (worker,), _ = workers_and_hub(served)
        few = partial(offered, port, seconds=SECONDS, ahead=4)
        # Half of what it can carry: the clients are one process, which must have time to look.
        rate = runner.run(few(seen := Seen(), rate=1e6)) / 2

        async def crowded(since: Seen) -> tuple[float, list[float]]:
            offering = asyncio.create_task(few(since, rate=rate))
            await asyncio.sleep(SECONDS / 10)  # those in the crowd come later
            turned_away = await crowd(port, SECONDS * 0.8)
            return await offering, turned_away

        since = Seen()
        since.sent = seen.sent
        goodput, late = runner.run(crowded(since))
        memory = resident_bytes(worker)
    late.sort()
    print(
        f"offered {rate:,.0f}/s; with {len(late):,} connections too many {goodput:,.0f}/s, 503 in "
        f"{1e3 * at_share(late, 0.5):.1f} ms (p50), {1e3 * at_share(late, 0.99):.1f} ms (p99), "
        f"{1e3 * late[-1]:.1f} ms (all), memory {memory / 2**20:.0f} MiB"
    )
    assert len(late) > 2 * CONNECTIONS_MAX
    assert at_share(late, LATE_SHARE) < 0.1
    assert since.lost == 0, "nobody who was in is put out"
    assert goodput >= SHARE_MIN * rate
    assert memory < MEMORY_BYTES_MAX
    found = journaled(served.data)
    assert (seen.acknowledged | since.acknowledged) - set(found) == set()


async def crowd(port: int, seconds: float) -> list[float]:
    """Connect, two times as often as there is room for, and stay until told to go; the seconds
    until that was said."""
    late: list[float] = []
    ends = time.perf_counter() + seconds

    async def come() -> None:
        while time.perf_counter() < ends:
            began = time.perf_counter()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                async with asyncio.timeout(max(0.1, ends - began)):
                    said = await reader.readuntil(b"\r\n\r\n")
                assert said.startswith(b"HTTP/1.1 503 "), said
                assert b"\r\nretry-after: " in said
                late.append(time.perf_counter() - began)
            except TimeoutError:
                pass  # one that was let in
            writer.close()
            await asyncio.sleep(CROWD_SECONDS)

    await asyncio.gather(*(come() for _ in range(2 * CONNECTIONS_MAX)))
    return late


def at_share(times: list[float], share: float) -> float:
    """A quantile of sorted times."""
    return times[min(len(times) - 1, int(len(times) * share))]
