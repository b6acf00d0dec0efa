"""S14: who sent it, behind proxies and through forgeries; the rate limit is that client's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from headwater.accept.intake import Settings
from tests.accept.harness import Client as Wire
from tests.accept.harness import Reply, get, on_loop, site
from tests.served import Served
from tests.trust.dialect_requests import DIALECTS, body, post
from tests.trust.serving import (
    ACCOUNTS,
    ACME,
    FULL,
    UNKNOWN,
    Answer,
    ask_all,
    journaled,
    request,
    resident_bytes,
    workers,
)

#: Loopback addresses that are trusted proxies, and ones that are not.
PROXY, STRANGER = "127.9.0.1", "127.8.0.1"
TRUSTED = '["127.9.0.0/16", "192.0.2.77", "2001:db8:ffff::/48"]'
RATE = 1  # a second: a burst of two


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A collector with a limit of its own; nothing of it is loaded."""
    collect = f"trusted_proxies = {TRUSTED}\nrate_limit_per_ip = {RATE}"
    folder = tmp_path_factory.mktemp("limited")
    with Served(folder, ACCOUNTS, collect=collect, command="collect") as running:
        yield running


def event(*headers: str, mark: str = "limited") -> bytes:
    return request("GET", f"/evwid/?c={ACME.company}&u=u1&e={quote(mark)}", *headers)


#: Where it comes from and its X-Forwarded-For lines -> whose it is.
FORWARDED: list[tuple[str, tuple[str, ...], str]] = [
    (STRANGER, ("203.0.113.1",), STRANGER),
    (STRANGER, ("127.9.0.1",), STRANGER),
    (PROXY, (), PROXY),
    (PROXY, ("203.0.113.2",), "203.0.113.2"),
    (PROXY, ("6.6.6.6, 203.0.113.3",), "203.0.113.3"),
    (PROXY, ("6.6.6.6", "203.0.113.4"), "203.0.113.4"),
    (PROXY, ("203.0.113.5", ""), "127.9.0.1"),
    (PROXY, ("203.0.113.6, 127.9.3.4, 192.0.2.77",), "203.0.113.6"),
    (PROXY, ("6.6.6.6, 203.0.113.7, 192.0.2.77",), "203.0.113.7"),
    (PROXY, ("127.9.9.9, 127.9.3.4",), "127.9.9.9"),
    (PROXY, ("unknown",), PROXY),
    (PROXY, ("_hidden, 203.0.113.8",), "203.0.113.8"),
    (PROXY, ("203.0.113.9, garbage",), PROXY),
    (PROXY, ("203.0.113.10, garbage, 192.0.2.77",), "192.0.2.77"),
    (PROXY, ("203.0.113.11:4711",), "203.0.113.11"),
    (PROXY, ("[2001:db8::1]:4711",), "2001:db8::1"),
    (PROXY, ("2001:DB8:0:0::2",), "2001:db8::2"),
    (PROXY, ("::ffff:203.0.113.12",), "203.0.113.12"),
    (PROXY, ("203.0.113.13, 2001:db8:ffff::1",), "203.0.113.13"),
    (PROXY, ("0x7f.1",), PROXY),
    (PROXY, ("203.0.113.014",), PROXY),
    (PROXY, ("1e9.0.0.1",), PROXY),
    (PROXY, (", ".join(["6.6.6.6"] * 2_000) + ", 203.0.113.15",), "203.0.113.15"),
    (PROXY, ("203.0.113.16, " + ", ".join(["192.0.2.77"] * 2_000),), "203.0.113.16"),
    (PROXY, ("<script>",), PROXY),
    (PROXY, ("'; DROP TABLE events; --",), PROXY),
]


def test_the_client_is_the_first_from_the_right_that_is_no_proxy(limited: Served) -> None:
    """Told from the journal. VAIX has no limit but its token, so all of them are kept."""
    for number, (peer, lines, _) in enumerate(FORWARDED):
        fields = [f"X-Forwarded-For: {line}" for line in lines]
        data = post("vaix", body("vaix", f"forwarded{number}z"), *fields)
        (answer,) = ask_all(limited.collect_port, [data], source=peer)
        assert answer.status == 204
    found: dict[int, str] = {}
    for peer, kept in journaled(limited.data).items():
        for one in kept:
            written = one.body.partition(b"forwarded")[2].partition(b"z")[0]
            if written:
                found[int(written)] = peer
    assert found == {number: client for number, (_, _, client) in enumerate(FORWARDED)}


def held(answers: list[Answer]) -> int:
    """How many were held back, each with its word; the first two never are."""
    statuses = [one.status for one in answers]
    assert statuses[:2] == [200, 200]
    assert set(statuses) <= {200, 429}
    for one in answers:
        if one.status == 429:
            assert int(one.headers["retry-after"]) >= 1
            assert b'"error"' in one.body
    return statuses.count(429)


MANY = 12
#: What a client changes from one request to the next to be taken for many; it is one.
DISGUISES = {
    "the left end": (PROXY, [f"6.6.6.{n}, 198.51.100.1" for n in range(MANY)]),
    "the left end, as proxies": (PROXY, [f"127.9.1.{n}, 198.51.100.2" for n in range(MANY)]),
    "the port": (PROXY, [f"198.51.100.3:{n + 1}" for n in range(MANY)]),
    "the form": (PROXY, ["198.51.100.4", "::ffff:198.51.100.4", "::ffff:c633:6404"] * 4),
    "the last 64 bits": (PROXY, [f"2001:db8:1:1:{n:x}::{n:x}" for n in range(MANY)]),
    "garbage at the right": ("127.9.0.2", [f"198.51.100.{n}, x{n}" for n in range(MANY)]),
    "everything, but no proxy": ("127.8.0.2", [f"198.51.100.{n}" for n in range(MANY)]),
}


@pytest.mark.parametrize("case", DISGUISES)
def test_one_client_in_disguise_is_held(case: str, limited: Served) -> None:
    peer, forwarded = DISGUISES[case]
    data = [event(f"X-Forwarded-For: {one}") for one in forwarded]
    assert held(ask_all(limited.collect_port, data, source=peer)) >= MANY // 2


#: Clients that are not one, though they look alike.
CROWDS = {
    "addresses behind one proxy": [f"198.51.100.{100 + n}" for n in range(MANY)],
    "networks of 64 bits": [f"2001:db8:2:{n:x}::1" for n in range(MANY)],
}


@pytest.mark.parametrize("case", CROWDS)
def test_many_clients_are_not_held_for_each_other(case: str, limited: Served) -> None:
    data = [event(f"X-Forwarded-For: {one}") for one in CROWDS[case] for _ in range(2)]
    answers = ask_all(limited.collect_port, data, source=PROXY)
    assert {one.status for one in answers} == {200}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_without_a_token_is_limited(dialect: str, limited: Served) -> None:
    """In its own words; with a token, the token is the limit."""
    peer = f"127.8.1.{DIALECTS.index(dialect) + 1}"
    data = [post(dialect, body(dialect, f"limit{number}")) for number in range(MANY)]
    answers = ask_all(limited.collect_port, data, source=peer)
    if dialect == "vaix":
        assert {one.status for one in answers} == {204}
        return
    refused = [one for one in answers if one.status == 429]
    assert len(refused) >= MANY // 2
    assert all(one.headers["retry-after"] and one.body for one in refused)


def test_what_is_refused_for_other_reasons_is_charged_too(limited: Served) -> None:
    """Guessing keys, and bodies that cost work and are not kept."""
    guesses = [request("GET", f"/evwid/?c={UNKNOWN.company}&u=u&e={n}") for n in range(MANY)]
    answers = ask_all(limited.collect_port, guesses, source="127.8.2.1")
    assert [one.status for one in answers].count(429) >= MANY // 2
    foreign = [post("orbee", b"x", "Content-Encoding: br") for _ in range(MANY)]
    answers = ask_all(limited.collect_port, foreign, source="127.8.2.2")
    assert [one.status for one in answers].count(429) >= MANY // 2


def test_the_limiter_forgets_before_it_grows(limited: Served) -> None:
    """Clients by the ten thousands; the bound itself is 65,536."""
    (worker,) = workers(limited)
    before = resident_bytes(worker)
    count = 200_000 if FULL else 10_000
    target = f"/evwid/?c={UNKNOWN.company}&u=u&e=x"
    data = [
        request("GET", target, f"X-Forwarded-For: 10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
        for n in range(count)
    ]
    answers = ask_all(limited.collect_port, data, source=PROXY, window=256)
    assert {one.status for one in answers} == {404}
    assert resident_bytes(worker) - before < 40 * 1024 * 1024


@on_loop
async def test_a_client_on_ipv6_is_known_by_its_address() -> None:
    async def asked(port: int, *headers: str) -> Reply:
        reader, writer = await asyncio.open_connection("::1", port)
        wire = Wire(reader, writer)
        reply = await wire.ask(get(f"/evwid/?c={ACME.company}&u=denied&e=x&v=1", *headers))
        writer.close()
        return reply

    for trusted, client in (((), "::1"), (("::1/128",), "2001:db8::9")):
        async with site(Settings(trusted_proxies=trusted)) as at:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(at.collector.protocol_factory, "::1", 0)
            reply = await asked(
                server.sockets[0].getsockname()[1], "X-Forwarded-For: 6.6.6.6, 2001:db8::9"
            )
            server.close()
            assert reply.status == 200
            assert at.journal.kept[0].peer == client
