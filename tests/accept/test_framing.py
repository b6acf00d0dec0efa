"""Bytes that are no request, or more than one: refused, closed, and never two out of one.

Trust table, rows S2 to S4.
"""

from __future__ import annotations

import asyncio

import pytest

from headwater.accept.intake import Settings
from tests.accept.harness import COMPANY, EVENT, client, get, on_loop, post, site

HEAD = (
    b"POST /api/tracker/events HTTP/1.1\r\nAuthorization: Bearer case-token\r\n"
    b"x-vaix-client-id: g1\r\n"
)
HOST = b"Host: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
#: What a smuggler wants to be read as a request of its own.
HIDDEN = post()

BROKEN: dict[str, bytes] = {
    "two equal Content-Length": HEAD + HOST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "two Content-Length": HEAD + HOST + b"Content-Length: 2\r\nContent-Length: 300\r\n\r\n{}",
    "a list as Content-Length": HEAD + HOST + b"Content-Length: 2, 2\r\n\r\n{}",
    "a signed Content-Length": HEAD + HOST + b"Content-Length: +2\r\n\r\n{}",
    "a negative Content-Length": HEAD + HOST + b"Content-Length: -2\r\n\r\n{}",
    "an overflowing Content-Length": HEAD
    + HOST
    + b"Content-Length: 18446744073709551618\r\n\r\n{}",
    "Content-Length and chunked": HEAD
    + HOST
    + b"Content-Length: 5\r\n"
    + CHUNKED
    + b"\r\n0\r\n\r\n",
    "chunked and Content-Length": HEAD + HOST + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "gzip, chunked": HEAD + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, gzip": HEAD + HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "an unknown transfer coding": HEAD + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + HOST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n",
    "chunked behind a tab": HEAD + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /api/tracker/events HTTP/1.0\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "no Host": HEAD + b"Content-Length: 2\r\n\r\n{}",
    "two Host": HEAD + HOST + HOST + b"Content-Length: 2\r\n\r\n{}",
    "two Authorization": HEAD + HOST + b"Authorization: Bearer x\r\nContent-Length: 2\r\n\r\n{}",
    "bare LF": HEAD.replace(b"\r\n", b"\n") + b"Host: a\nContent-Length: 2\n\n{}",
    "bare LF in one line": HEAD + b"Host: a\nContent-Length: 2\r\n\r\n{}",
    "bare LF at the end": HEAD + b"Host: a\r\nContent-Length: 2\r\n\n{}",
    "bare CR in a value": HEAD + HOST + b"X: a\rb\r\nContent-Length: 2\r\n\r\n{}",
    "a folded line": HEAD + HOST + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "a folded Transfer-Encoding": HEAD + HOST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": HEAD + HOST + b"Content-Length : 2\r\n\r\n{}",
    "a tab before the colon": HEAD + HOST + b"Content-Length\t: 2\r\n\r\n{}",
    "a line that starts with a space": HEAD + HOST + b" X: a\r\nContent-Length: 2\r\n\r\n{}",
    "NUL in a value": HEAD + HOST + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "NUL in a name": HEAD + HOST + b"X\0: a\r\nContent-Length: 2\r\n\r\n{}",
    "no colon": HEAD + HOST + b"X\r\nContent-Length: 2\r\n\r\n{}",
    "an empty name": HEAD + HOST + b": a\r\nContent-Length: 2\r\n\r\n{}",
    "a space in the target": b"POST /api/tracker/events x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a relative target": b"POST api/tracker/events HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target of another scheme": b"GET ftp://a/healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/2.0 as text": b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n",
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(30),
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "an unknown method": b"BREW /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method in lower case": b"get /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "a chunk size in C": HEAD + HOST + CHUNKED + b"\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than it says": HEAD + HOST + CHUNKED + b"\r\n2\r\n{}}\r\n0\r\n\r\n",
    "a chunk size that overflows": HEAD
    + HOST
    + CHUNKED
    + b"\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "bare LF after a chunk size": HEAD + HOST + CHUNKED + b"\r\n2\n{}\r\n0\r\n\r\n",
    "bare LF after a chunk": HEAD + HOST + CHUNKED + b"\r\n2\r\n{}\n0\r\n\r\n",
    "bare LF in a chunk extension": HEAD + HOST + CHUNKED + b"\r\n2;a\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("known", [False, True])
@on_loop
async def test_broken_framing_is_400_and_the_end(case: str, known: bool) -> None:
    """`known`: after a request whose head is remembered, on the same connection."""
    async with site() as at, client(at.port) as c:
        before = 0
        if known:
            for _ in range(2):
                assert (await c.ask(post())).status == 204
            before = 2
        c.send(BROKEN[case] + HIDDEN)
        reply = await c.reply()
        assert reply.status == 400
        assert reply.headers["connection"] == "close"
        assert await c.ended()
        assert len(at.journal.kept) == before


@pytest.mark.parametrize("case", BROKEN)
@on_loop
async def test_broken_framing_is_400_when_it_comes_in_pieces(case: str) -> None:
    async with site() as at, client(at.port) as c:
        data = BROKEN[case] + HIDDEN
        for start in range(0, len(data), 7):
            c.send(data[start : start + 7])
            await asyncio.sleep(0)
        assert (await c.reply()).status == 400
        assert await c.ended()
        assert at.journal.kept == []


@on_loop
async def test_what_is_owed_before_broken_framing_is_still_answered() -> None:
    async with site() as at, client(at.port) as c:
        c.send(post() + get("/healthz") + b"\x16\x03\x01")
        assert [(await c.reply()).status for _ in range(3)] == [204, 200, 400]
        assert await c.ended()


@pytest.mark.parametrize(
    "cut",
    [
        post()[:-1],
        post()[: post().index(b"\r\n\r\n") + 4],
        post()[:30],
        HEAD + HOST + CHUNKED + b"\r\n2\r\n{}\r\n",
        HEAD + HOST + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n",
    ],
)
@on_loop
async def test_a_truncated_request_is_never_a_success(cut: bytes) -> None:
    async with site() as at, client(at.port) as c:
        c.send(cut)
        c.writer.write_eof()
        assert (await c.reply()).status == 400
        assert await c.ended()
        assert at.journal.kept == []


@on_loop
async def test_a_client_that_closes_its_half_still_gets_its_answers() -> None:
    async with site() as at, client(at.port) as c:
        c.send(post() + post())
        c.writer.write_eof()
        assert [(await c.reply()).status for _ in range(2)] == [204, 204]
        assert await c.ended()
        assert len(at.journal.kept) == 2


@on_loop
async def test_a_target_has_its_dialects_bound() -> None:
    async with site() as at, client(at.port) as c:
        long = f"/ev/?c={COMPANY}&v=aaaaaaaaaaaaaaaa&e=x&ky=a&vl="
        fits = get(long + "x" * (65_536 - len(long)))
        assert (await c.ask(fits)).status == 200
        assert (await c.ask(fits)).status == 200  # its header block is remembered
        assert (await c.ask(get(f"/ev/?c={COMPANY}&x=" + "x" * 65_536))).status == 414
    async with site() as at, client(at.port) as c:
        for _ in range(2):
            assert (await c.ask(post("/api/tracker/events?" + "x" * 8_200, b""))).status == 414
        assert (await c.ask(get("/" + "x" * 8_200))).status == 414


@on_loop
async def test_an_endless_target_is_414() -> None:
    async with site() as at, client(at.port) as c:
        c.send(b"GET /ev/?")
        for _ in range(40):
            c.send(b"x" * 8_192)
            await asyncio.sleep(0)
        assert (await c.reply()).status == 414
        assert await c.ended()


@pytest.mark.parametrize(
    "extra",
    [
        ["X: 1"] * 1_000,
        ["X: 1"] * 97,  # with the four of post()
        ["X: " + "x" * 33_000],
        [f"X-{n}: " + "x" * 3_000 for n in range(20)],
    ],
)
@on_loop
async def test_too_many_or_too_large_headers_are_431(extra: list[str]) -> None:
    async with site() as at, client(at.port) as c:
        c.send(post("/api/tracker/events", EVENT, *extra))
        assert (await c.reply()).status == 431
        assert await c.ended()
        assert at.journal.kept == []


@on_loop
async def test_a_hundred_headers_are_fine() -> None:
    async with site() as at, client(at.port) as c:
        assert (await c.ask(post("/api/tracker/events", EVENT, *["X: 1"] * 96))).status == 204


@on_loop
async def test_an_endless_header_is_refused_before_it_is_held() -> None:
    async with site() as at, client(at.port) as c:
        c.send(HEAD + b"X: ")
        for _ in range(10):  # 640 kB of the megabyte
            c.send(b"x" * 65_536)
            await asyncio.sleep(0.005)
        assert (await c.reply()).status == 431
        assert await c.ended()


@on_loop
async def test_endless_trailers_and_chunk_extensions_are_refused() -> None:
    for start in (b"0\r\nX: ", b"2;", b"0\r\n" + b"X: 1\r\n" * 200):
        async with site() as at, client(at.port) as c:
            c.send(HEAD + HOST + CHUNKED + b"\r\n" + start)
            await asyncio.sleep(0.01)
            for _ in range(8):
                c.send(b"x" * 16_384)
                await asyncio.sleep(0.005)
            assert (await c.reply()).status in (400, 431)
            assert await c.ended()
            assert at.journal.kept == []


@on_loop
async def test_a_body_over_the_bound_is_413_by_its_length_and_by_its_bytes() -> None:
    async with site() as at:
        async with client(at.port) as c:
            c.send(HEAD + HOST + b"Content-Length: 8000001\r\n\r\n")
            reply = await c.reply()
            assert (reply.status, reply.headers["connection"]) == (413, "close")
            assert await c.ended()
        async with client(at.port) as c:
            head = b"POST /collect/1/1/event HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n"
            c.send(head + b"10000\r\n" + bytes(65_536) + b"\r\n" * 1)
            for _ in range(4):
                c.send(b"10000\r\n" + bytes(65_536) + b"\r\n")
            assert (await c.reply()).status == 413  # and not a reset, though more is on its way
        async with client(at.port) as c:
            assert (await c.ask(post("/collect/1/1/event", bytes(262_144)))).status == 400
            c.send(post("/collect/1/1/event", bytes(262_145)))
            assert (await c.reply()).status == 413
        assert at.collector.inflight_bytes == 0


@on_loop
async def test_bounds_can_be_set() -> None:
    async with site(Settings(header_count_max=6, headers_bytes_max=200)) as at:
        async with client(at.port) as c:
            assert (await c.ask(post())).status == 204
        async with client(at.port) as c:
            assert (await c.ask(post("/api/tracker/events", EVENT, *["X: 1"] * 3))).status == 431
