"""What an acknowledgement costs: `python -m bench.journal`.

The journal's writer alone, in a closed loop with as many requests outstanding as a collector has
connections, beside what the same disk gives an append-only file with the same group commit, and one
fdatasync by itself. Then how fast a reader gets it all back.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from bench.baseline_asgi import GroupedFile
from bench.cores import SERVER_CORE, machine
from bench.scratch import scratch
from headwater.accept.request import Request
from headwater.clock import system_clock
from headwater.journal.journal import Position
from headwater.journal.sqlite import SqliteReader, SqliteWriter

OUTSTANDING = 256
BODY_BYTES = (180, 2_000, 14_000)  # a VAIX event, ten Nucleus events, seventy

#: Starts one write and calls back when it is durable.
Append = Callable[[Callable[[Exception | None], None]], None]


class Found(msgspec.Struct, frozen=True):
    """One measured writer."""

    per_second: float
    p50_ms: float
    p99_ms: float


async def closed_loop(append: Append, *, seconds: float) -> Found:
    """Keep OUTSTANDING writes under way for `seconds`."""
    loop = asyncio.get_running_loop()
    waits: list[float] = []
    over = loop.create_future()
    until = time.perf_counter() + seconds
    open_writes = 0

    def start() -> None:
        nonlocal open_writes
        open_writes += 1
        began = time.perf_counter()

        def done(error: Exception | None) -> None:
            nonlocal open_writes
            open_writes -= 1
            now = time.perf_counter()
            if error is not None and not over.done():
                over.set_exception(error)
            waits.append(now - began)
            if now < until:
                start()
            elif open_writes == 0 and not over.done():
                over.set_result(None)

        append(done)

    began = time.perf_counter()
    for _ in range(OUTSTANDING):
        start()
    await over
    took = time.perf_counter() - began
    waits.sort()
    return Found(
        len(waits) / took, waits[len(waits) // 2] * 1e3, waits[len(waits) * 99 // 100] * 1e3
    )


def request_of(number: int, body: bytes) -> Request:
    at = system_clock()
    return Request(
        dialect="vaix",
        method="POST",
        target="/api/tracker/events",
        endpoint="events",
        headers={"content-type": "application/json", "x-vaix-client-id": "g1", "host": "127.0.0.1"},
        body=body,
        peer="127.0.0.1",
        account="bench",
        received_at=at,
        request_id=(at // 1_000).to_bytes(6, "big") + number.to_bytes(10, "big"),
    )


async def measure_sqlite(folder: Path, size: int, *, seconds: float) -> Found:
    loop = asyncio.get_running_loop()
    writer = SqliteWriter(folder, 1, loop=loop, clock=system_clock)
    body, number = b"x" * size, 0

    def append(done: Callable[[Exception | None], None]) -> None:
        nonlocal number
        number += 1
        writer.append(request_of(number, body), 1, done)

    try:
        return await closed_loop(append, seconds=seconds)
    finally:
        await writer.close()


async def measure_file(folder: Path, size: int, *, seconds: float) -> Found:
    file = GroupedFile(str(folder / "lines"))
    encode = msgspec.msgpack.Encoder().encode
    body, number = b"x" * size, 0

    def append(done: Callable[[Exception | None], None]) -> None:
        nonlocal number
        number += 1
        durable = file.append(encode(request_of(number, body)))
        durable.add_done_callback(lambda _: done(None))

    return await closed_loop(append, seconds=seconds)


def measure_disk(folder: Path, *, seconds: float) -> Found:
    """One block appended and synced at a time."""
    file = os.open(folder / "alone", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    waits, until = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        os.write(file, b"x" * 4_096)
        os.fdatasync(file)
        waits.append(time.perf_counter() - began)
    os.close(file)
    waits.sort()
    return Found(
        len(waits) / seconds, waits[len(waits) // 2] * 1e3, waits[len(waits) * 99 // 100] * 1e3
    )


def measure_reading(folder: Path) -> tuple[float, float]:
    """Requests and megabytes a second, all of the journal once."""
    reader, after, requests, size = SqliteReader(folder), Position(1, 0), 0, 0
    began = time.perf_counter()
    while batches := reader.read(after, batches_max=64, bytes_max=32 * 1024 * 1024):
        after = batches[-1].position
        for batch in batches:
            requests += len(batch.requests)
            size += sum(len(request.body) for request in batch.requests)
    took = time.perf_counter() - began
    reader.close()
    return requests / took, size / took / 1e6


def main() -> int:
    said = argparse.ArgumentParser(prog="python -m bench.journal", description=__doc__)
    said.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    said.add_argument(
        "--smoke", action="store_true", help="half a second each: does it run at all?"
    )
    given = said.parse_args()
    seconds = 0.5 if given.smoke else given.seconds
    os.sched_setaffinity(0, {SERVER_CORE})
    table = Table(title=f"journal, one core, {OUTSTANDING} outstanding: {machine()}")
    table.add_column("what")
    for head in ("body bytes", "requests/s", "p50 ms", "p99 ms", "read requests/s", "read MB/s"):
        table.add_column(head, justify="right")

    def add(what: str, size: str, found: Found, *rest: str) -> None:
        figures = f"{found.per_second:,.0f}", f"{found.p50_ms:.2f}", f"{found.p99_ms:.2f}"
        table.add_row(what, size, *figures, *rest)

    with scratch() as folder:
        add("write + fdatasync, one at a time", "4096", measure_disk(folder, seconds=seconds))
    for size in BODY_BYTES:
        with scratch() as folder:
            found = uvloop.run(measure_file(folder, size, seconds=seconds))
            add("append-only file, group fsync", str(size), found)
        with scratch() as folder:
            found = uvloop.run(measure_sqlite(folder, size, seconds=seconds))
            requests, megabytes = measure_reading(folder)
            add("Headwater's journal", str(size), found, f"{requests:,.0f}", f"{megabytes:,.0f}")
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
