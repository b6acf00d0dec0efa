"""The live feed: filters, bounds, and a reader that does not keep up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import msgspec

from headwater import limits
from headwater.view.live import Feed, Filter
from tests.view.batches import Row, Rows


def feed_here() -> Feed:
    return Feed(asyncio.get_running_loop(), encode=msgspec.json.encode)


async def begin(feed: Feed, wanted: Filter) -> AsyncGenerator[bytes, None]:
    stream = feed.watch(wanted)
    assert (await anext(stream)).startswith(b":")
    assert isinstance(stream, AsyncGenerator)
    return stream


def test_a_row_published_in_a_thread_reaches_the_watcher_as_a_data_line() -> None:
    async def main() -> bytes:
        feed = feed_here()
        stream = await begin(feed, Filter())
        await asyncio.to_thread(feed.publish, Rows([Row()]))
        line = await asyncio.wait_for(anext(stream), 5)
        await stream.aclose()
        return line

    line = asyncio.run(main())
    assert line.startswith(b"data: ")
    assert line.endswith(b"\n\n")
    assert msgspec.json.decode(line[6:], type=Row) == Row()


def test_a_slow_watcher_is_dropped_and_told_and_the_others_go_on() -> None:
    async def main() -> tuple[list[bytes], int]:
        feed = feed_here()
        slow = await begin(feed, Filter())
        quick = await begin(feed, Filter(name="last"))
        await asyncio.to_thread(feed.publish, Rows([Row()] * (limits.live_queue_events_max + 1)))
        await asyncio.to_thread(feed.publish, Rows([Row(name="last")]))
        assert b"last" in await asyncio.wait_for(anext(quick), 5)
        lines = [line async for line in slow]
        await quick.aclose()
        return lines, limits.live_queue_events_max

    lines, bound = asyncio.run(main())
    assert lines[-1].startswith(b"event: dropped")
    assert len(lines) == bound + 1


def test_a_watcher_that_leaves_makes_room() -> None:
    async def main() -> tuple[bool, bool]:
        feed = feed_here()
        streams: list[Any] = [
            await begin(feed, Filter()) for _ in range(limits.live_subscribers_max)
        ]
        full = feed.full
        for stream in streams:
            await stream.aclose()
        return full, feed.full

    assert asyncio.run(main()) == (True, False)


def test_a_quiet_feed_sends_a_comment_so_that_a_dead_connection_is_noticed() -> None:
    async def main() -> bytes:
        stream = feed_here().watch(Filter(), beat_seconds=0.01)
        await anext(stream)
        return await asyncio.wait_for(anext(stream), 5)

    assert asyncio.run(main()).startswith(b":")


def test_publishing_after_the_loop_has_closed_is_no_error() -> None:
    async def main() -> tuple[Feed, Any]:
        feed = feed_here()
        return feed, await begin(feed, Filter())

    loop = asyncio.new_event_loop()
    feed, stream = loop.run_until_complete(main())
    loop.run_until_complete(stream.aclose())
    loop.close()
    feed.publish(Rows([Row()]))


def test_batches_that_come_too_fast_are_left_out_and_counted() -> None:
    class Slow(Rows):
        """A batch that takes its time to be looked at."""

        def __iter__(self) -> Iterator[Row]:
            time.sleep(0.05)
            return super().__iter__()

    async def main() -> bytes:
        feed = feed_here()
        stream = await begin(feed, Filter())
        for _ in range(limits.live_batches_max + 10):
            feed.publish(Slow([Row()]))
        while not (line := await asyncio.wait_for(anext(stream), 5)).startswith(b"event: missed"):
            assert line.startswith(b"data: ")
        await stream.aclose()
        return line

    assert 1 <= msgspec.json.decode(asyncio.run(main()).split(b"data: ")[1])["rows"] <= 10


def test_a_watcher_that_wants_a_few_rows_a_second_is_told_how_many_there_were() -> None:
    async def main() -> list[bytes]:
        feed = feed_here()
        stream = await begin(feed, Filter(rows=3))
        for place in range(4):
            batch = Rows([Row(name=f"{place}.{nth}") for nth in range(500)])
            await asyncio.to_thread(feed.publish, batch)
        lines = [await asyncio.wait_for(anext(stream), 5) for _ in range(4)]
        seen = list(lines)
        while sum(line.startswith(b"event: counts") for line in seen) < 4:
            seen.append(await asyncio.wait_for(anext(stream), 5))
        await stream.aclose()
        return seen

    lines = asyncio.run(main())
    counts = [line for line in lines if line.startswith(b"event: counts")]
    assert counts == [b'event: counts\ndata: {"vaix":{"stored":500}}\n\n'] * 4
    rows = [line for line in lines if line.startswith(b"data:")]
    assert 3 <= len(rows) <= 6, "three of a second, and the four batches fall into two at the most"
    assert b"0.499" in rows[2]


def test_a_watcher_kept_to_an_account_sees_nothing_of_others() -> None:
    async def main() -> bytes:
        feed = feed_here()
        stream = feed.watch(Filter(), frozenset({"acme"}))
        await anext(stream)
        batch = Rows([Row(account="other"), Row(account="acme")])
        await asyncio.to_thread(feed.publish, batch)
        return await asyncio.wait_for(anext(stream), 5)

    assert b'"acme"' in asyncio.run(main())
