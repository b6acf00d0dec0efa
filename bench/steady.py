"""A whole server under a steady rate, and how soon what it acknowledged is visible.

The server runs unpinned, as it would; the client is this process. Half of the events come alone
(VAIX), half in Nucleus batches of ten. Ten times a second one of the VAIX events is a probe with a
number in its name; a poller asks SQL for the highest number, over the console's API, as fast as it
answers. One worker's journal is loaded in order, so all probes up to that number are visible when
that answer arrives. The time from acknowledgement to that arrival contains the query's own time.
"""

from __future__ import annotations

import asyncio
import collections
import re
import threading
import time

import msgspec
import uvloop

from bench.cores import resident_bytes
from bench.scratch import scratch
from bench.traffic import accounts, nucleus, vaix
from tests.served import Served, children, command_of

BATCH = 10
CONNECTIONS = 32
PROBES_PER_SECOND = 10
TICKS_PER_SECOND = 100
SETTLE_SECONDS_MAX = 20.0


class Steady(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; the tuples are p50, p99 and the maximum, in milliseconds."""

    events_per_second: float
    seconds: float
    acknowledged_ms: tuple[float, float, float]
    visible_ms: tuple[float, float, float]
    collector_bytes: int
    hub_bytes: int
    failed: int


class Client(asyncio.Protocol):
    """One keep-alive connection that pipelines; it counts 2xx answers and when they came."""

    def __init__(self, waits: list[float], acknowledged: dict[int, float]) -> None:
        self._waits = waits
        self._acknowledged = acknowledged
        self._owed: collections.deque[tuple[float, int]] = collections.deque()
        self._data = b""
        self.failed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.failed += len(self._owed)
        self._owed.clear()

    def send(self, request: bytes, probe: int) -> None:
        """Send one request; `probe` is 0 for one that is none."""
        self._owed.append((time.perf_counter(), probe))
        self._transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end]
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._data) < whole:
                return
            self._data = self._data[whole:]
            began, probe = self._owed.popleft()
            now = time.perf_counter()
            if not head.startswith(b"HTTP/1.1 2"):
                self.failed += 1
                continue
            self._waits.append(now - began)
            if probe:
                self._acknowledged[probe] = now

    @property
    def owed(self) -> int:
        return len(self._owed)

    def close(self) -> None:
        self._transport.close()


class Poller(threading.Thread):
    """Asks which probes are visible, again and again."""

    def __init__(self, served: Served) -> None:
        super().__init__(daemon=True)
        self._served = served
        self.over = threading.Event()
        self.visible: dict[int, float] = {}
        self._highest = 0

    def run(self) -> None:
        sql = (
            "SELECT max(toUInt32OrZero(substring(name, 8))) AS highest FROM events"
            " WHERE account = 'bench' AND dialect = 'vaix' AND name LIKE 'probe:%'"
            " AND received_at > now() - INTERVAL 1 MINUTE"
        )
        while not self.over.is_set():
            highest = int(self._served.query(sql)[0]["highest"])
            now = time.perf_counter()
            for number in range(self._highest + 1, highest + 1):
                self.visible[number] = now
            self._highest = max(self._highest, highest)
            self.over.wait(0.01)


def measure_steady(*, rate: int, seconds: float) -> Steady:
    """Run a server on a folder of its own at `rate` events a second for `seconds`."""
    with scratch() as folder, Served(folder, accounts()) as served:
        poller = Poller(served)
        poller.start()
        waits: list[float] = []
        acknowledged: dict[int, float] = {}
        sent, took, failed = uvloop.run(_send(served, rate, seconds, waits, acknowledged))
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while acknowledged.keys() - poller.visible.keys() and time.monotonic() < deadline:
            time.sleep(0.05)
        poller.over.set()
        poller.join()
        lost = acknowledged.keys() - poller.visible.keys()
        if lost:
            raise RuntimeError(f"never visible: {len(lost)} probes of {len(acknowledged)}")
        pids = {"collector": 0, "hub": 0}
        for pid in children(served.pid):
            for part in pids:
                if f"headwater.{part}" in command_of(pid):
                    pids[part] = resident_bytes([pid], peak=True)
    return Steady(
        events_per_second=sent / took,
        seconds=took,
        acknowledged_ms=_percentiles(waits),
        visible_ms=_percentiles(
            # Visible before its own acknowledgement arrived here counts as at once.
            [max(0.0, poller.visible[one] - at) for one, at in acknowledged.items()]
        ),
        collector_bytes=pids["collector"],
        hub_bytes=pids["hub"],
        failed=failed,
    )


async def _send(
    served: Served,
    rate: int,
    seconds: float,
    waits: list[float],
    acknowledged: dict[int, float],
) -> tuple[int, float, int]:
    """Events sent, the seconds that took, requests not acknowledged."""
    loop = asyncio.get_running_loop()
    host, port = "127.0.0.1", served.collect_port
    clients = []
    for _ in range(CONNECTIONS):
        _, client = await loop.create_connection(lambda: Client(waits, acknowledged), host, port)
        clients.append(client)
    single = [vaix(number).as_bytes() for number in range(500)]
    # Nucleus batches must differ: what was sent before is a duplicate.
    batch, number, sent, requests, probe = nucleus(BATCH), 0, 0, 0, 0
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        due = int((now - began) * rate)
        while sent < due:
            requests += 1
            client = clients[requests % CONNECTIONS]
            # Eleven requests carry twenty events: ten alone and one batch.
            if requests % (BATCH + 1):
                wanted = int((now - began) * PROBES_PER_SECOND)
                if wanted > probe:
                    probe = wanted
                    body = single[0].replace(b"clicks:event", b"probe:n%05d" % probe)
                    body = re.sub(rb"Content-Length: \d+", _length_of(body), body)
                    client.send(body, probe)
                else:
                    client.send(single[requests % len(single)], 0)
                sent += 1
            else:
                number += 1
                client.send(batch(number).as_bytes(), 0)
                sent += BATCH
        await asyncio.sleep(1 / TICKS_PER_SECOND)
    took = time.perf_counter() - began
    for _ in range(500):
        if not any(client.owed for client in clients):
            break
        await asyncio.sleep(0.01)
    failed = sum(client.failed + client.owed for client in clients)
    for client in clients:
        client.close()
    return sent, took, failed


def _length_of(request: bytes) -> bytes:
    return b"Content-Length: %d" % len(request.partition(b"\r\n\r\n")[2])


def _percentiles(values: list[float]) -> tuple[float, float, float]:
    found = sorted(value * 1e3 for value in values) or [0.0]
    return found[len(found) // 2], found[len(found) * 99 // 100], found[-1]
