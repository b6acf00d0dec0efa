"""What is full says so: connections, bytes in flight, the journal; and the way out, drain."""

from __future__ import annotations

import asyncio
import time

from headwater.accept.intake import Settings
from headwater.errors import JournalFailed, JournalFull
from tests.accept.harness import EVENT, client, get, on_loop, post, site, until


@on_loop
async def test_a_connection_too_many_is_answered_503_and_closed() -> None:
    async with site(Settings(connections_max=2)) as at:
        async with client(at.port) as one, client(at.port) as two:
            assert (await one.ask(post())).status == 204
            assert (await two.ask(post())).status == 204
            async with client(at.port) as three:
                reply = await three.reply()
                assert (reply.status, reply.headers["connection"]) == (503, "close")
                assert int(reply.headers["retry-after"]) >= 1
                assert await three.ended()
            assert at.collector.counters.refused["connections"] == 1
        await until(lambda: not at.collector.connections)
        async with client(at.port) as c:
            assert (await c.ask(post())).status == 204


@on_loop
async def test_bytes_in_flight_are_bounded() -> None:
    async with site(Settings(inflight_bytes_max=10_000)) as at:
        at.journal.held = True
        async with client(at.port) as one, client(at.port) as two:
            one.send(post() * 5)
            await until(lambda: at.journal.waiting == 5)
            started = time.monotonic()
            two.send(post("/api/tracker/events", EVENT + b" " * 6_000))
            reply = await two.reply()
            assert (reply.status, reply.headers["connection"]) == (503, "close")
            assert reply.headers["retry-after"]
            assert reply.headers["content-type"] == "application/json"
            assert time.monotonic() - started < 0.5
            at.journal.commit()
            assert [(await one.reply()).status for _ in range(5)] == [204] * 5
        assert at.collector.inflight_bytes == 0
        at.journal.held = False
        async with client(at.port) as c:
            assert (await c.ask(post())).status == 204
        assert at.collector.counters.refused["inflight_bytes"] == 1


@on_loop
async def test_a_flood_of_bodies_that_do_not_end_is_bounded() -> None:
    async with site(Settings(inflight_bytes_max=100_000)) as at:
        head = post("/api/tracker/events", bytes(60_000))[:-1]
        async with client(at.port) as one, client(at.port) as two:
            one.send(head)
            await until(lambda: at.collector.inflight_bytes > 50_000)
            two.send(head)
            assert (await two.reply()).status == 503
        await until(lambda: not at.collector.connections)
        assert at.collector.inflight_bytes == 0


@on_loop
async def test_a_full_or_failing_journal_is_503_and_never_a_success() -> None:
    async with site() as at, client(at.port) as c:
        for error in (JournalFull("full"), JournalFailed("fsync")):
            at.journal.error = error
            reply = await c.ask(post())
            assert reply.status == 503
            assert reply.headers["retry-after"]
            assert reply.headers["content-type"] == "application/json"
        at.journal.error = None
        assert (await c.ask(post())).status == 204
        assert at.collector.counters.refused["journal"] == 2
        assert len(at.journal.kept) == 1


@on_loop
async def test_a_pipeline_is_not_read_beyond_its_bound() -> None:
    async with site(Settings(pipeline_requests_max=8)) as at, client(at.port) as c:
        at.journal.held = True
        for _ in range(100):
            c.send(post())
            await asyncio.sleep(0.002)
        assert at.journal.waiting < 30
        at.journal.held = False
        at.journal.commit()
        assert [(await c.reply()).status for _ in range(100)] == [204] * 100


@on_loop
async def test_drain_answers_what_was_accepted_and_takes_nothing_more() -> None:
    async with (
        site() as at,
        client(at.port) as idle,
        client(at.port) as waiting,
        client(at.port) as half,
    ):
        assert (await idle.ask(post())).status == 204
        at.journal.held = True
        waiting.send(post() + post())
        half.send(post()[:-5])
        await until(lambda: at.journal.waiting == 2)
        assert at.collector.ready()
        at.server.close()
        draining = asyncio.ensure_future(at.collector.drain(5))
        await asyncio.sleep(0.02)
        assert not at.collector.ready()
        assert await idle.ended()
        waiting.send(post())  # too late
        half.send(post()[-5:])
        await until(lambda: at.journal.waiting == 3)
        at.journal.commit()
        assert (await waiting.reply()).status == 204
        last = await waiting.reply()
        assert (last.status, last.headers["connection"]) == (204, "close")
        assert await waiting.ended()
        late = await half.reply()
        assert (late.status, late.headers["connection"]) == (204, "close")
        assert await half.ended()
        await asyncio.wait_for(draining, 2)
        assert len(at.journal.kept) == 4


@on_loop
async def test_drain_ends_in_time_whoever_does_not() -> None:
    async with site() as at, client(at.port) as c:
        c.send(post()[:-5])
        await until(lambda: len(at.collector.connections) == 1)
        started = time.monotonic()
        await at.collector.drain(0.3)
        assert time.monotonic() - started < 1.0
        assert await c.ended()


@on_loop
async def test_readyz_says_draining() -> None:
    async with site() as at, client(at.port) as c:
        assert (await c.ask(get("/readyz"))).status == 200
        at.collector.draining = True
        reply = await c.ask(get("/readyz"))
        assert (reply.status, reply.body) == (503, b"draining")
