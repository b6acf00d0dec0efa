"""Slow and silent clients: closed at the deadline, which dripping bytes do not move (row S1)."""

from __future__ import annotations

import asyncio
import socket
import time

from headwater.accept.intake import Settings
from tests.accept.harness import APP, client, get, on_loop, post, site, until


@on_loop
async def test_headers_that_drip_are_408() -> None:
    async with site(Settings(headers_seconds_max=0.4)) as at, client(at.port) as c:
        started = time.monotonic()
        try:
            for byte in get("/healthz", "X: " + "x" * 500):
                c.send(bytes((byte,)))
                await asyncio.sleep(0.02)
                if c.reader._buffer:  # type: ignore[attr-defined]
                    break
        except ConnectionError:
            pass
        assert (await c.reply()).status == 408
        assert 0.3 < time.monotonic() - started < 1.5
        assert await c.ended()


@on_loop
async def test_a_body_that_drips_is_408_in_the_dialects_words() -> None:
    async with site(Settings(body_seconds_max=0.4)) as at, client(at.port) as c:
        whole = post()
        cut = whole.index(b"\r\n\r\n") + 4
        c.send(whole[:cut])
        for byte in whole[cut:-1]:
            c.send(bytes((byte,)))
            await asyncio.sleep(0.02)
            if c.reader._buffer:  # type: ignore[attr-defined]
                break
        reply = await c.reply()
        assert (reply.status, reply.headers["content-type"]) == (408, "application/json")
        assert await c.ended()
        assert at.journal.kept == []
        assert at.collector.inflight_bytes == 0
        assert at.collector.counters.deadlines == 1


@on_loop
async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with site(Settings(idle_seconds_max=0.3)) as at:
        async with client(at.port) as silent:
            assert await silent.rest() == b""
        async with client(at.port) as c:
            assert (await c.ask(post())).status == 204
            await asyncio.sleep(0.15)
            assert (await c.ask(post())).status == 204  # a request, not a byte, is what counts
            started = time.monotonic()
            assert await c.rest() == b""
            assert time.monotonic() - started > 0.15


@on_loop
async def test_a_request_that_waits_for_its_fsync_is_not_idle() -> None:
    async with site(Settings(idle_seconds_max=0.2)) as at, client(at.port) as c:
        at.journal.held = True
        c.send(post())
        await asyncio.sleep(0.6)
        at.journal.commit()
        assert (await c.reply()).status == 204


@on_loop
async def test_a_client_that_does_not_read_its_answers_is_cut_off() -> None:
    async with site(Settings(unread_answer_seconds_max=0.4)) as at:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            slow.connect(("127.0.0.1", at.port))
            slow.setblocking(False)
            many = get("/nowhere") * 200
            loop = asyncio.get_running_loop()
            sent = 0
            try:
                async with asyncio.timeout(10):
                    while True:
                        await loop.sock_sendall(slow, many)
                        sent += len(many)
            except ConnectionError:
                pass
            assert at.collector.counters.deadlines == 1
            assert sent < 60_000_000  # reading stops while answers are not taken
        await until(lambda: not at.collector.connections)


@on_loop
async def test_slow_clients_do_not_slow_others() -> None:
    async with site(Settings(headers_seconds_max=2.0)) as at:
        slow = [await asyncio.open_connection("127.0.0.1", at.port) for _ in range(200)]
        for _, writer in slow:
            writer.write(b"POST /api/tracker/events HTTP/1.1\r\nHost:")
        async with client(at.port) as c:
            started = time.monotonic()
            for _ in range(50):
                assert (await c.ask(post())).status == 204
            assert time.monotonic() - started < 1.5
        for _, writer in slow:
            writer.close()


@on_loop
async def test_a_silent_websocket_is_pinged_and_then_dropped() -> None:
    settings = Settings(websocket_ping_seconds=0.2, websocket_idle_seconds_max=0.7)
    async with site(settings) as at, client(at.port) as c:
        c.send(
            get(
                f"/app/{APP}/track",
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            )
        )
        assert (await c.reply()).status == 101
        started = time.monotonic()
        try:
            frames = await c.rest()
        except ConnectionResetError:
            frames = b"\x89\0"
        assert frames.startswith(b"\x89\0")
        assert 0.5 < time.monotonic() - started < 3
        await until(lambda: at.collector.counters.websockets_open == 0)


@on_loop
async def test_a_refused_client_that_goes_on_sending_is_let_go() -> None:
    async with site() as at, client(at.port) as c:
        c.send(b"\x16\x03\x01")
        assert (await c.reply()).status == 400
        await until(lambda: not at.collector.connections, 6.0)
        assert (await asyncio.wait_for(c.rest(), 1)) == b""
        async with client(at.port) as other:
            assert (await other.ask(post())).status == 204
