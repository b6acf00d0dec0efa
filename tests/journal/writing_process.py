"""A process that appends to a journal until it is killed or told to stop; run as a module.

    python -m tests.journal.writing_process FOLDER FIRST COUNT PAUSE [unsynced]

Prints one line a request: ``ack NUMBER``, or ``refused NUMBER why``. Appends one at a time when
PAUSE is not negative, sleeping so many seconds in between; without end in parallel when it is.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from headwater.clock import system_clock
from headwater.journal.sqlite import SqliteWriter
from tests.journal.requests import append, request


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def one_by_one(writer: SqliteWriter, first: int, count: int, pause: float) -> None:
    for number in range(first, first + count):
        (outcome,) = await append(writer, [request(number, body=bytes(2_000))])
        say(f"ack {number}" if outcome is None else f"refused {number} {outcome}")
        await asyncio.sleep(pause)


async def in_parallel(writer: SqliteWriter, first: int, count: int) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = count
    number = first

    def go() -> None:
        nonlocal number
        mine, number = number, number + 1

        def told(outcome: Exception | None) -> None:
            nonlocal left
            say(f"ack {mine}" if outcome is None else f"refused {mine} {outcome}")
            left -= 1
            if left == 0:
                done.set_result(None)
            loop.call_soon(go)

        writer.append(request(mine, body=b"%d" % mine * 100), 1, told)

    for _ in range(32):
        go()
    await done


async def main() -> None:
    folder, first, count, pause = Path(sys.argv[1]), *map(float, sys.argv[2:5])
    writer = SqliteWriter(
        folder,
        1,
        loop=asyncio.get_running_loop(),
        clock=system_clock,
        bytes_max=1 << 30,
        segment_bytes_max=1 << 20,
    )
    if "unsynced" in sys.argv:
        # The control of the tests that watch for fsync: they must fail now.
        writer._segment.connection.pragma("synchronous", "off")
    say("ready")
    if pause < 0:
        await in_parallel(writer, int(first), int(count))
    else:
        await one_by_one(writer, int(first), int(count), pause)
    await writer.close()


if __name__ == "__main__":
    asyncio.run(main())
