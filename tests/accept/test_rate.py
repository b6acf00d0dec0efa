"""The rate limit: per client, in events, bounded memory (row S14)."""

from __future__ import annotations

import pytest

from headwater.accept.intake import Settings
from headwater.accept.rate import RateLimiter, client_key
from tests.accept.harness import COMPANY, client, get, on_loop, post, site

EVENT = get(f"/ev/?c={COMPANY}&v=aaaaaaaaaaaaaaaa&e=x")


def test_a_bucket_holds_two_seconds_and_refills() -> None:
    limiter = RateLimiter(10)
    passed = 0
    while limiter.wait_seconds("192.0.2.1", 100.0) == 0:
        limiter.charge("192.0.2.1", 1, 100.0)
        passed += 1
    assert passed == 20
    assert limiter.wait_seconds("192.0.2.1", 100.0) == 1
    assert limiter.wait_seconds("192.0.2.1", 100.11) == 0
    assert limiter.wait_seconds("192.0.2.2", 100.0) == 0


def test_a_large_batch_passes_and_is_paid_for_afterwards() -> None:
    limiter = RateLimiter(10)
    limiter.charge("192.0.2.1", 120, 0.0)
    assert limiter.wait_seconds("192.0.2.1", 0.0) == 11
    assert limiter.wait_seconds("192.0.2.1", 10.2) == 0


def test_a_steady_client_below_the_rate_is_never_held() -> None:
    limiter = RateLimiter(10)
    for step in range(1_000):
        assert limiter.wait_seconds("192.0.2.1", step * 0.1) == 0
        limiter.charge("192.0.2.1", 1, step * 0.1)


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_client_is_its_network(peer: str, key: str) -> None:
    assert client_key(peer) == key


def test_memory_is_bounded_and_forgets_who_was_away_longest() -> None:
    limiter = RateLimiter(1, buckets_max=100)
    limiter.charge("busy", 50, 0.0)
    for number in range(1_000):
        limiter.charge(f"10.0.{number // 256}.{number % 256}", 1, 0.0)
        limiter.charge("busy", 1, 0.0)
        assert len(limiter) <= 100
    assert limiter.wait_seconds("busy", 0.0) > 0


@on_loop
async def test_over_the_limit_is_429_in_the_dialects_words_with_retry_after() -> None:
    async with site(Settings(rate_limit_per_ip=5)) as at, client(at.port) as c:
        statuses = [(await c.ask(EVENT)).status for _ in range(10)]
        assert statuses == [200] * 10
        reply = await c.ask(EVENT)
        assert reply.status == 429
        assert reply.headers["retry-after"] == "1"
        assert b"error" in reply.body
        assert (await c.ask(get("/healthz"))).status == 200
        for _ in range(20):  # a token is its own limit
            assert (await c.ask(post())).status == 204
        assert at.collector.counters.refused["rate_limit"] == 1
        assert len(at.journal.kept) == 30


@on_loop
async def test_events_count_and_not_requests() -> None:
    body = b'{"data":[%b]}' % b",".join(
        b'{"name":"x","sessionId":1,"deviceId":"d"}' for _ in range(40)
    )
    async with site(Settings(rate_limit_per_ip=5)) as at, client(at.port) as c:
        assert (await c.ask(post("/app/app1/track", body))).status == 200
        reply = await c.ask(post("/app/app1/track", body))
        assert (reply.status, reply.headers["retry-after"]) == (429, "7")
        assert at.journal.counts == [40]


@on_loop
async def test_clients_behind_a_proxy_are_told_apart_and_forgeries_are_not() -> None:
    settings = Settings(rate_limit_per_ip=1, trusted_proxies=("127.0.0.0/8",))
    async with site(settings) as at, client(at.port) as c:

        async def asked(forwarded: str) -> int:
            request = EVENT[:-2] + f"X-Forwarded-For: {forwarded}\r\n\r\n".encode()
            return (await c.ask(request)).status

        assert [await asked("192.0.2.1") for _ in range(3)] == [200, 200, 429]
        assert await asked("192.0.2.2") == 200
        # the left end is whatever the client wrote
        assert await asked("198.51.100.1, 192.0.2.1") == 429
        assert await asked("198.51.100.2, 192.0.2.1") == 429
        assert {kept.peer for kept in at.journal.kept} == {"192.0.2.1", "192.0.2.2"}
    async with site(Settings(rate_limit_per_ip=1)) as at, client(at.port) as c:
        statuses = [
            (await c.ask(EVENT[:-2] + b"X-Forwarded-For: 192.0.2.%d\r\n\r\n" % n)).status
            for n in range(3)
        ]
        assert statuses == [200, 200, 429]
        assert at.journal.kept[0].peer == "127.0.0.1"
