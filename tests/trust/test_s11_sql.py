"""S11: SQL from the console that would write, read files, reach out, or never end is refused or
ends at its bound, in the hub alone: the collector answers as before.

The statements of ``tests/store/test_guard.py`` here come over the console's port, with its token.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import closing, suppress
from http.client import HTTPConnection
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from headwater import limits
from tests.faults.schedule import workers_and_hub
from tests.served import Served
from tests.store.test_guard import REFUSED
from tests.trust import test_s01_slow as slow
from tests.trust.serving import FULL, ask, resident_bytes, vaix

#: Nothing listens there; whoever reached out would be kept waiting.
DEAD = "http://127.0.0.1:1/"
#: What each tries, with `{port}` for one where somebody counts who comes.
REACHING = [
    "SELECT * FROM url('http://127.0.0.1:{port}/', 'CSV', 'a String')",
    "SELECT * FROM s3('http://127.0.0.1:{port}/a', 'k', 's', 'CSV', 'a String')",
    "SELECT * FROM remote('127.0.0.1:{port}', system.one)",
    "SELECT * FROM remoteSecure('127.0.0.1:{port}', system.one)",
    "SELECT * FROM mysql('127.0.0.1:{port}', 'd', 't', 'u', 'p')",
    "SELECT * FROM postgresql('127.0.0.1:{port}', 'd', 't', 'u', 'p')",
    "SELECT * FROM mongodb('127.0.0.1:{port}', 'd', 't', 'u', 'p', 'a String')",
    "SELECT * FROM redis('127.0.0.1:{port}', 'k', 'k String')",
    "SELECT * FROM hdfs('hdfs://127.0.0.1:{port}/a', 'CSV', 'a String')",
    "SELECT * FROM iceberg('http://127.0.0.1:{port}/a', 'k', 's')",
    "SELECT * FROM deltaLake('http://127.0.0.1:{port}/a', 'k', 's')",
    "SELECT * FROM executable('curl http://127.0.0.1:{port}/', 'TSV', 'a String')",
    "INSERT INTO FUNCTION url('http://127.0.0.1:{port}/', 'CSV', 'a String') SELECT 'a'",
    "SELECT * FROM events WHERE name IN (SELECT * FROM url('http://127.0.0.1:{port}/', 'CSV'))",
]
#: 10 GB of answer, of rows, of memory.
TOO_MUCH = [
    "SELECT repeat('x', 1000000) FROM numbers(10000)",
    "SELECT number FROM numbers(1250000000)",
    "SELECT groupArray(number) FROM numbers(1250000000)",
    "SELECT arrayJoin(range(1000000)) FROM numbers(1000)",
    "SELECT uniqExact(sipHash64(number)) FROM numbers(10000000000)",
    "SELECT a.number FROM numbers(100000) a, numbers(100000) b ORDER BY 1",
]
BOUNDS = ("64 MiB", "1,000,000 rows", "512 MiB", f"more than {limits.query_seconds_max} s")
#: These end by their time, ten seconds.
ENDLESS = [
    "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1",
    "SELECT sum(sipHash64(a.number, b.number)) FROM numbers(1000000) a, numbers(1000000) b",
]
#: Of a p99 beside queries that use all cores; it is the machine's too, on which others may work.
P99_US_MAX = 30_000
TRIES = 3
#: 0.4 GiB at rest, and afterwards again: what a refused query had is given back.
HUB_BYTES_MAX = 1_024 * 1024 * 1024


def query(served: Served, sql: str, seconds_max: float = 60.0) -> tuple[int, dict[str, Any], float]:
    """Status, answer, and how long it took."""
    began = time.monotonic()
    at = urlsplit(served.console)
    with closing(HTTPConnection(str(at.hostname), at.port, timeout=seconds_max)) as connection:
        headers = {
            "authorization": f"Bearer {served.token()}",
            "content-type": "application/json",
        }
        connection.request("POST", "/api/query", msgspec.json.encode({"sql": sql}), headers)
        answer = connection.getresponse()
        said = msgspec.json.decode(answer.read())
    return answer.status, said, time.monotonic() - began


def test_each_is_refused_over_the_port_and_nothing_has_changed(served: Served) -> None:
    assert ask(served.collect_port, vaix("sql")).status == 204
    served.wait_loaded()
    before = served.query("SELECT count() AS n, groupBitXor(sipHash64(*)) AS h FROM events")
    _, hubs = workers_and_hub(served)
    slowest = 0.0
    for sql in REFUSED:
        status, answer, took = query(served, sql)
        assert status == 400, (sql, answer)
        assert answer["error"], sql
        slowest = max(slowest, took)
    print(f"{len(REFUSED)} statements, each refused within {slowest:.2f} s")
    assert slowest < 5.0
    assert served.query("SELECT count() AS n, groupBitXor(sipHash64(*)) AS h FROM events") == before
    assert workers_and_hub(served)[1] == hubs


def test_nothing_reaches_out(served: Served) -> None:
    came = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        port = listening.getsockname()[1]
        for sql in REACHING:
            status, answer, took = query(served, sql.replace("{port}", str(port)))
            assert status == 400, (sql, answer)
            assert took < 5.0, sql
            dead = sql.replace("http://127.0.0.1:{port}/", DEAD).replace("{port}", "1")
            assert query(served, dead)[0] == 400
        with suppress(TimeoutError):
            came.append(listening.accept()[1])
    assert came == []


@pytest.mark.parametrize("sql", [*TOO_MUCH, *(ENDLESS if FULL else ())])
def test_too_much_ends_at_its_bound_and_says_which(served: Served, sql: str) -> None:
    status, answer, took = query(served, sql)
    assert status == 400, answer
    assert any(bound in answer["error"] for bound in BOUNDS), answer
    assert answer["remedy"]
    assert took < limits.query_seconds_max + 5.0
    (hub,) = workers_and_hub(served)[1]
    assert resident_bytes(hub) < HUB_BYTES_MAX


class Bothering:
    """Four who ask the console for too much, one time after the other."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._stop = threading.Event()
        self.statuses: list[int] = []
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(4)]

    def _ask(self, number: int) -> None:
        hostile = [*TOO_MUCH, *(ENDLESS if FULL else ())]
        while not self._stop.is_set():
            self.statuses.append(query(self._served, hostile[number % len(hostile)])[0])
            number += 1

    def __enter__(self) -> Bothering:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.alone
@pytest.mark.timeout(240)
def test_the_collector_does_not_notice(served: Served) -> None:
    """Acknowledgements while the console is asked for too much, all the time, four at once."""
    port = served.collect_port
    for _ in range(TRIES):
        calm = [took for _ in range(3) for took in asyncio.run(slow.measured(port))]
        beside: list[int] = []
        with Bothering(served) as bothering:
            time.sleep(0.3)
            until = time.monotonic() + (20.0 if FULL else 2.0)
            while time.monotonic() < until:
                beside += asyncio.run(slow.measured(port))
        (hub,) = workers_and_hub(served)[1]
        print(
            f"{len(bothering.statuses)} hostile queries beside {len(beside)} requests: p50 "
            f"{median(calm):.0f} us without and {median(beside):.0f} us with, p99 "
            f"{slow.p99(calm)} and {slow.p99(beside)} us; hub {resident_bytes(hub) / 2**20:.0f} MiB"
        )
        assert set(bothering.statuses) <= {400, 429, 503}, "refused, bounded, or told to come back"
        assert len(bothering.statuses) >= 4
        assert resident_bytes(hub) < HUB_BYTES_MAX
        if median(beside) < 2 * max(median(calm), 500) and slow.p99(beside) < max(
            2 * slow.p99(calm), P99_US_MAX
        ):
            return
    raise AssertionError("the collector notices")
