"""Requests and answers over real sockets: order, methods, framing that is fine, what is kept."""

from __future__ import annotations

import asyncio
import gzip
import time

import msgspec
import pytest

from headwater.accept.accounts import Accounts
from headwater.clock import system_clock
from headwater.errors import RegistryFailed
from tests.accept.harness import (
    ACME,
    APP,
    COMPANY,
    EVENT,
    client,
    get,
    on_loop,
    post,
    site,
    until,
)


@on_loop
async def test_a_request_is_answered_only_after_it_is_durable() -> None:
    async with site() as at, client(at.port) as c:
        at.journal.held = True
        c.send(post())
        await until(lambda: at.journal.waiting == 1)
        await asyncio.sleep(0.05)
        assert at.journal.kept == []
        at.journal.commit()
        reply = await c.reply()
        assert (reply.status, reply.body) == (204, b"")
        assert "content-length" not in reply.headers
        assert len(at.journal.kept) == 1


@on_loop
async def test_a_connection_is_kept_and_the_same_head_again_means_the_same() -> None:
    async with site() as at, client(at.port) as c:
        for _ in range(5):
            assert (await c.ask(post())).status == 204
        assert (await c.ask(post(body=b"{"))).status == 400
        assert (await c.ask(post(token="wrong"))).status == 401
        assert [request.refused for request in at.journal.kept] == [False] * 5 + [True]
        ids = [request.request_id for request in at.journal.kept]
        assert ids == sorted(set(ids))
        assert all(len(one) == 16 and one[6] >> 4 == 7 and one[8] >> 6 == 2 for one in ids)


@on_loop
async def test_what_is_kept_is_what_came_without_secrets() -> None:
    async with site() as at, client(at.port) as c:
        await c.ask(
            post(
                "/api/tracker/events/",
                EVENT,
                "User-Agent: test/1",
                "Cookie: session=secret; _vt_user=1_2_false_false; other=x",
                "X-Api-Key: secret",
                "Referer:  https://a.test/ ",
            )
        )
        (kept,) = at.journal.kept
        assert kept.target == "/api/tracker/events/"
        assert kept.method == "POST"
        assert kept.body == EVENT
        assert kept.account == "acme"
        assert kept.peer == "127.0.0.1"
        assert kept.headers == {
            "host": "collect.test",
            "x-vaix-client-id": "g1",
            "user-agent": "test/1",
            "cookie": "_vt_user=1_2_false_false",
            "referer": "https://a.test/",
        }
        assert abs(kept.received_at - system_clock()) < 10_000_000
        assert b"secret" not in msgspec.json.encode(kept)
        assert b"case-token" not in msgspec.json.encode(kept)


@on_loop
async def test_pipelined_requests_are_answered_in_order() -> None:
    async with site() as at, client(at.port) as c:
        at.journal.held = True
        c.send(post() + get("/nowhere") + post(body=b"{}") + get("/healthz") + post())
        await until(lambda: at.journal.waiting == 3)
        await asyncio.sleep(0.02)
        assert not c.reader._buffer  # type: ignore[attr-defined]  # nothing may overtake
        at.journal.commit()
        assert [(await c.reply()).status for _ in range(5)] == [204, 404, 422, 200, 204]


@on_loop
async def test_a_long_pipeline_is_answered_wherever_reads_cut_it() -> None:
    async with site() as at, client(at.port) as c:
        count = 20_000
        c.send(get("/nowhere") * count + post())
        for _ in range(count):
            assert (await c.reply()).status == 404
        assert (await c.reply()).status == 204


@on_loop
async def test_bytes_may_come_one_by_one() -> None:
    async with site() as at, client(at.port) as c:
        for byte in post(body=b'{"event_type":"a:b"}'):
            c.send(bytes((byte,)))
            await asyncio.sleep(0.0005)
        assert (await c.reply()).status == 204
        assert at.journal.kept[0].body == b'{"event_type":"a:b"}'


@on_loop
async def test_a_chunked_body_is_put_together() -> None:
    async with site() as at, client(at.port) as c:
        head = post().replace(
            f"Content-Length: {len(EVENT)}".encode(), b"Transfer-Encoding: chunked"
        )
        head = head[: head.index(b"\r\n\r\n") + 4]
        half = len(EVENT) // 2
        for piece in (EVENT[:half], EVENT[half:]):
            head += b"%x;ext=1\r\n%b\r\n" % (len(piece), piece)
        reply = await c.ask(head + b"0\r\nX-Trailer: 1\r\n\r\n" + get("/healthz"))
        assert reply.status == 204
        assert (await c.reply()).status == 200
        assert at.journal.kept[0].body == EVENT


@on_loop
async def test_http_1_0_is_closed_unless_it_asks_otherwise() -> None:
    async with site() as at:
        async with client(at.port) as c:
            reply = await c.ask(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert (reply.status, reply.body, reply.headers["connection"]) == (200, b"ok", "close")
            assert await c.ended()
        async with client(at.port) as c:
            keep = get("/healthz", "Connection: keep-alive", version="1.0")
            assert (await c.ask(keep)).headers["connection"] == "keep-alive"
            assert (await c.ask(keep)).status == 200


@on_loop
async def test_connection_close_is_honoured_and_what_follows_is_not_read() -> None:
    async with site() as at, client(at.port) as c:
        reply = await c.ask(post("/api/tracker/events", EVENT, "Connection: close") + post())
        assert reply.status == 204
        assert reply.headers["connection"] == "close"
        assert await c.ended()
        assert len(at.journal.kept) == 1


@on_loop
async def test_head_answers_like_get_and_never_ingests() -> None:
    event = f"/ev/?c={COMPANY}&v=aaaaaaaaaaaaaaaa&e=x"
    identify = f"/id/?c={COMPANY}&u=cust-1"
    async with site() as at, client(at.port) as c:
        whole = await c.ask(get(event))
        c.send(get(event, method="HEAD"))
        head = await c.reply(head_only=True)
        assert head.status == whole.status == 200
        assert head.headers["content-length"] == whole.headers["content-length"]
        c.send(get(identify, method="HEAD"))
        head = await c.reply(head_only=True)
        assert head.status == 200
        assert "content-length" not in head.headers
        assert len(at.journal.kept) == 1
        assert at.visitors.asked == 0
        c.send(get("/healthz", method="HEAD"))
        assert (await c.reply(head_only=True)).headers["content-length"] == "2"
        c.send(get("/api/tracker/events", method="HEAD"))
        assert (await c.reply(head_only=True)).status == 405


@pytest.mark.parametrize(
    ("target", "methods", "origin", "allow_origin", "allow"),
    [
        ("/api/tracker/events", "POST, OPTIONS", "https://a.test", "https://a.test", "POST"),
        ("/api/tracker/events", "POST, OPTIONS", "", "*", "POST"),
        (f"/app/{APP}/track", "POST, OPTIONS", "https://a.test", "*", "POST"),
        ("/collect/1/1/event", "POST, OPTIONS", "https://a.test", "*", "POST"),
    ],
)
@on_loop
async def test_options_is_answered_as_the_dialect_says(
    target: str, methods: str, origin: str, allow_origin: str, allow: str
) -> None:
    async with site() as at, client(at.port) as c:
        headers = [f"Origin: {origin}"] if origin else []
        reply = await c.ask(get(target, *headers, method="OPTIONS"))
        assert reply.status == 204
        assert reply.headers["access-control-allow-origin"] == allow_origin
        assert reply.headers["access-control-allow-methods"] == methods
        assert "content-type" in reply.headers["access-control-allow-headers"]
        assert reply.headers["access-control-max-age"] == "86400"
        assert allow in reply.headers["allow"]
        if target.startswith("/api"):
            assert reply.headers["vary"] == "origin"
            assert "authorization" in reply.headers["access-control-allow-headers"]


@on_loop
async def test_cors_headers_stand_on_errors_too() -> None:
    async with site() as at, client(at.port) as c:
        reply = await c.ask(post("/api/tracker/events", EVENT, "Origin: null", token="bad"))
        assert reply.status == 401
        assert reply.headers["access-control-allow-origin"] == "null"
        assert reply.headers["www-authenticate"] == "Bearer"


@on_loop
async def test_unknown_paths_and_methods() -> None:
    async with site() as at, client(at.port) as c:
        reply = await c.ask(get("/"))
        assert (reply.status, reply.body) == (404, b'{"error":"not found"}')
        reply = await c.ask(post("/nowhere"))  # its body is read and dropped
        assert reply.status == 404
        reply = await c.ask(get("/api/tracker/events"))
        assert (reply.status, reply.headers["allow"]) == (405, "POST, OPTIONS")
        reply = await c.ask(get("/healthz", method="DELETE"))
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        reply = await c.ask(get("*", method="OPTIONS"))
        assert reply.status == 204
        assert (await c.ask(get(f"/{APP}"))).status == 404
        assert (await c.ask(get(f"/app/{APP}/track"))).status == 426
        assert (await c.ask(post("/app/unknown/track", b'{"data":[]}'))).status == 404
        assert (await c.ask(post("/app/not%20an%20id/track", b'{"data":[]}'))).status == 404
        assert at.journal.kept == []


@on_loop
async def test_slashes_are_forgiven_and_absolute_targets_understood() -> None:
    async with site() as at, client(at.port) as c:
        for target in (
            "//api//tracker/events//",
            "http://collect.test/api/tracker/events",
            "HTTP://collect.test:80//api/tracker/events?x",
        ):
            assert (await c.ask(post(target))).status == 204, target
        assert [request.target for request in at.journal.kept] == [
            "//api//tracker/events//",
            "/api/tracker/events",
            "//api/tracker/events?x",
        ]


@on_loop
async def test_raw_bytes_in_a_target_are_taken_as_if_escaped() -> None:
    async with site() as at, client(at.port) as c:
        target = f"/ev/?c={COMPANY}&v=aaaaaaaaaaaaaaaa&e=caf\u00e9"
        c.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert (await c.reply()).status == 200
        assert at.journal.kept[0].target.endswith("e=caf%C3%A9")


@on_loop
async def test_expect_100_continue_asks_for_the_body_once_the_head_is_fine() -> None:
    async with site() as at:
        async with client(at.port) as c:
            whole = post("/api/tracker/events", EVENT, "Expect: 100-continue")
            cut = whole.index(b"\r\n\r\n") + 4
            c.send(whole[:cut])
            assert (await c.reply()).status == 100
            assert (await c.ask(whole[cut:])).status == 204
        for refused, status in (
            (post("/api/tracker/events", EVENT, "Expect: 100-continue", token="bad"), 401),
            (post("/nowhere", EVENT, "Expect: 100-continue"), 404),
            (post("/api/tracker/events", EVENT, "Expect: something"), 417),
        ):
            async with client(at.port) as c:
                c.send(refused[: refused.index(b"\r\n\r\n") + 4])
                reply = await c.reply()
                assert (reply.status, reply.headers["connection"]) == (status, "close")
                assert await c.ended()
        async with client(at.port) as c:  # HTTP/1.0 knows no 100
            c.send(post("/api/tracker/events", EVENT, "Expect: 100-continue", version="1.0"))
            assert (await c.reply()).status == 204


@on_loop
async def test_an_upgrade_that_is_not_offered_is_ignored() -> None:
    async with site() as at, client(at.port) as c:
        h2c = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
        assert (await c.ask(post("/api/tracker/events", EVENT, *h2c))).status == 204
        assert (await c.ask(get("/healthz", *h2c))).status == 200
        assert (await c.ask(get("/healthz"))).status == 200
        assert at.journal.kept[0].body == EVENT


@on_loop
async def test_health_says_whether_a_write_would_be_durable() -> None:
    async with site() as at, client(at.port) as c:
        assert (await c.ask(get("/healthz"))).body == b"ok"
        assert (await c.ask(get("/readyz/"))).status == 200
        at.journal.healthy = False
        reply = await c.ask(get("/readyz"))
        assert (reply.status, reply.body) == (503, b"the journal cannot write")
        assert reply.headers["retry-after"]
        assert (await c.ask(get("/healthz"))).status == 200


@on_loop
async def test_compressed_bodies_are_kept_as_they_came_and_judged_inflated() -> None:
    async with site() as at, client(at.port) as c:
        wire = gzip.compress(EVENT)
        encoded = "Content-Encoding: gzip"
        assert (await c.ask(post("/api/tracker/events", wire, encoded))).status == 204
        assert at.journal.kept[0].body == wire
        reply = await c.ask(post("/api/tracker/events", wire[:-9], encoded))
        assert reply.status == 400  # kept, as rejected
        assert (at.journal.kept[1].body, at.journal.kept[1].refused) == (wire[:-9], True)
        bomb = gzip.compress(bytes(9_000_000))
        assert (await c.ask(post("/api/tracker/events", bomb, encoded))).status == 413
        foreign = "Content-Encoding: br"
        assert (await c.ask(post("/api/tracker/events", wire, foreign))).status == 400
        assert (await c.ask(post("/collect/1/1/event", wire, foreign))).status == 415
        assert (await c.ask(post("/collect/9/9/event", wire[:-9], encoded))).status == 404
        assert len(at.journal.kept) == 2


@on_loop
async def test_a_visitor_is_known_only_after_the_registry_has_it() -> None:
    async with site() as at, client(at.port) as c:
        one, two = get(f"/id/?c={COMPANY}&u=a"), get(f"/id/?c={COMPANY}&u=b")
        c.send(one + two + get("/healthz"))
        replies = [msgspec.json.decode((await c.reply()).body) for _ in range(2)]
        assert [reply["vid"] for reply in replies] == ["0" * 16, f"{1:016d}"]
        assert (await c.reply()).body == b"ok"
        assert msgspec.json.decode((await c.ask(one)).body) == replies[0]
        assert at.visitors.asked == 2
        assert [(kept.state, kept.created) for kept in at.journal.kept] == [
            ("0" * 16, True),
            (f"{1:016d}", True),
            ("0" * 16, False),
        ]
        at.visitors.error = RegistryFailed("disk")
        reply = await c.ask(get(f"/id/?c={COMPANY}&u=new"))
        assert reply.status == 503
        assert reply.headers["retry-after"]


@on_loop
async def test_a_decoder_that_fails_costs_one_500_and_loses_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(request: object, rules: object) -> object:
        raise ZeroDivisionError

    async with site() as at, client(at.port) as c:
        desk = at.collector._desks["vaix"]
        desk.answer = broken  # type: ignore[assignment]
        reply = await c.ask(post())
        assert (reply.status, reply.headers["content-type"]) == (500, "application/json")
        assert at.journal.kept[0].refused
        assert at.journal.counts == [1]
        assert at.collector.counters.decoder_errors == 1
        assert "case-token" not in caplog.text


@on_loop
async def test_tokens_change_with_a_reload_on_open_connections() -> None:
    async with site() as at, client(at.port) as c:
        assert (await c.ask(post())).status == 204
        assert (await c.ask(post())).status == 204
        at.collector.reload(Accounts({}, public_host="", clock=system_clock))
        assert (await c.ask(post())).status == 401
        at.collector.reload(Accounts({"acme": ACME}, public_host="", clock=system_clock))
        assert (await c.ask(post())).status == 204


@on_loop
async def test_counters_count() -> None:
    async with site() as at, client(at.port) as c:
        await c.ask(post())
        await c.ask(post())
        await c.ask(post(body=b"{"))
        await c.ask(get("/nowhere"))
        counters = at.collector.counters
        assert counters.statuses["vaix"] == [0, 0, 2, 0, 1, 0]
        assert counters.statuses[""] == [0, 0, 0, 0, 1, 0]
        assert counters.events["vaix"] == 3
        assert sum(counters.latency) == 3
        assert counters.connections_open == counters.connections_opened == 1
        assert counters.bytes_in > 2 * len(post())
        assert at.collector.inflight_bytes == 0
    assert at.collector.counters.connections_open == 0


@on_loop
async def test_answers_carry_the_date_of_their_second() -> None:
    async with site() as at, client(at.port) as c:
        first = (await c.ask(get("/healthz"))).headers["date"]
        second = first
        until_time = time.monotonic() + 3
        while second == first and time.monotonic() < until_time:
            await asyncio.sleep(0.2)
            second = (await c.ask(get("/healthz"))).headers["date"]
        assert second != first
        assert second.endswith(" GMT")
