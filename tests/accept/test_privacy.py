"""What an account does not want to know is gone before the journal has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from headwater.accept.accounts import Accounts
from headwater.accept.intake import Settings
from headwater.accept.privacy import Privacy, truncated
from headwater.clock import system_clock
from headwater.config import IP_POLICIES, PRIVACY_SIGNALS
from tests.accept.harness import ACME, APP, COMPANY, EVENT, Site, client, get, on_loop, post, site
from tests.accept.test_websocket import acknowledged, dial, message

PEER = "203.0.113.77"
DNT, GPC = "DNT: 1", "Sec-GPC: 1"
ORBEE = b'{"action":"view","object":"form","vendor":"V","product":"P","instance_id":"i"}'
VIBETRACE = "/event/ACCT123/login?data=%5B%7B%22email%22%3A%22a%40b.c%22%7D%5D"
#: A request of every dialect that browsers or servers send, and what answers it.
CALLS = {
    "vaix": lambda *more: post("/api/tracker/events", EVENT, *more),
    "orbee": lambda *more: post("/collect/1/1/event", ORBEE, *more),
    "nucleus": lambda *more: post(f"/app/{APP}/track", message(1).encode(), *more),
    "vibetrace": lambda *more: get(VIBETRACE, *more),
    "gamooga": lambda *more: get(f"/ev/?c={COMPANY}&v=v1&e=order", *more),
}


@asynccontextmanager
async def private(ip: str = "keep", *signals: str, rate_limit: int = 0) -> AsyncIterator[Site]:
    """A collector behind a proxy, with one account of such settings."""
    account = msgspec.structs.replace(ACME, ip=ip, privacy_signals=signals)
    accounts = Accounts({"acme": account}, public_host="", clock=system_clock)
    settings = Settings(trusted_proxies=("127.0.0.1/32",), rate_limit_per_ip=rate_limit)
    async with site(settings, accounts=accounts) as running:
        yield running


# --- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "kept"),
    [
        ("203.0.113.77", "203.0.113.0"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("::1", "::"),
        ("::ffff:203.0.113.77", "203.0.113.0"),
        ("fe80::1:2%eth0", "fe80::"),
        ("", ""),
        ("somebody's socket", ""),
    ],
)
def test_an_address_is_cut_to_its_network(peer: str, kept: str) -> None:
    assert truncated(peer) == kept
    assert truncated(kept) == kept
    assert [Privacy(ip).address(peer) for ip in IP_POLICIES] == [peer, kept, ""]


@pytest.mark.parametrize("ip", ["truncate", "drop"])
@pytest.mark.parametrize("dialect", CALLS)
@on_loop
async def test_no_part_of_a_kept_request_has_the_address(dialect: str, ip: str) -> None:
    named = [f"{name}: {PEER}" for name in ("X-Forwarded-For", "X-Real-IP", "CF-Connecting-IP")]
    forwarded = f'Forwarded: for="{PEER}"'
    async with private(ip) as s, client(s.port) as c:
        assert (await c.ask(CALLS[dialect](*named, forwarded))).status < 300
        (kept,) = s.journal.kept
        assert kept.peer == ("203.0.113.0" if ip == "truncate" else "")
        assert PEER.encode() not in msgspec.msgpack.encode(kept)


@on_loop
async def test_by_default_the_address_is_kept() -> None:
    async with private() as s, client(s.port) as c:
        await c.ask(CALLS["vaix"](f"X-Forwarded-For: {PEER}"))
        assert s.journal.kept[0].peer == PEER


@on_loop
async def test_refused_and_unreadable_requests_have_no_address_either() -> None:
    async with private("drop") as s, client(s.port) as c:
        more = [f"X-Forwarded-For: {PEER}"]
        assert (await c.ask(post("/api/tracker/events", b"{", *more))).status == 400
        zipped = post("/api/tracker/events", b"no gzip", "Content-Encoding: gzip", *more)
        assert (await c.ask(zipped)).status == 400
        assert [kept.peer for kept in s.journal.kept] == ["", ""]


@on_loop
async def test_a_new_gamooga_visitor_is_kept_without_the_address() -> None:
    async with private("drop") as s, client(s.port) as c:
        for _ in range(2):  # asked of the registry, then known
            await c.ask(get(f"/evwid/?c={COMPANY}&u=u1&e=x", f"X-Forwarded-For: {PEER}"))
        assert [(kept.peer, len(kept.state)) for kept in s.journal.kept] == [("", 16)] * 2


@on_loop
async def test_websocket_messages_are_kept_without_the_address() -> None:
    async with private("truncate") as s:
        headers = {"X-Forwarded-For": PEER}
        async with dial(s.port, additional_headers=headers) as socket:  # type: ignore[arg-type]
            await socket.send(message(1))
            assert acknowledged(await socket.recv()) == [1]
    assert {kept.peer for kept in s.journal.kept} == {"203.0.113.0"}, "its end included"


@on_loop
async def test_the_rate_limit_sees_the_true_address() -> None:
    """Two neighbours share a /24, and each has a bucket of its own."""
    async with private("drop", rate_limit=1) as s, client(s.port) as c:
        for peer, statuses in ((PEER, [204, 204, 429]), ("203.0.113.78", [204])):
            for status in statuses:
                asked = CALLS["orbee"](f"X-Forwarded-For: {peer}")
                assert (await c.ask(asked)).status == status


# --- signals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", [DNT, GPC])
@pytest.mark.parametrize("dialect", CALLS)
@on_loop
async def test_an_opted_out_request_is_answered_alike_and_not_kept(
    dialect: str, signal: str
) -> None:
    async with private("keep", "dnt", "gpc") as s, client(s.port) as c:
        usual = await c.ask(CALLS[dialect]())
        answer = await c.ask(CALLS[dialect](signal))
        assert (answer.status, answer.body) == (usual.status, usual.body)
        assert len(s.journal.kept) == 1
        assert s.collector.counters.opted_out[dialect] == 1
        assert s.collector.counters.events[dialect] == 1
        assert s.collector.inflight_bytes == 0


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        (["DNT: 1"], False),
        (["DNT: 1xyz"], False),  # with extensions, as the draft allows
        (["DNT: 0"], True),
        (["DNT: null"], True),
        (["Sec-GPC: 1"], True),  # not named by this account
        ([], True),
    ],
)
@on_loop
async def test_only_a_signal_that_the_account_names_counts(headers: list[str], kept: bool) -> None:
    async with private("keep", "dnt") as s, client(s.port) as c:
        await c.ask(CALLS["orbee"](*headers))
        assert (len(s.journal.kept) == 1) == kept


@on_loop
async def test_without_the_setting_signals_change_nothing() -> None:
    async with private() as s, client(s.port) as c:
        await c.ask(CALLS["orbee"](DNT, GPC))
        assert len(s.journal.kept) == 1
        assert s.journal.kept[0].headers["dnt"] == "1"


@on_loop
async def test_what_is_wrong_is_told_and_not_kept() -> None:
    async with private("keep", "dnt") as s, client(s.port) as c:
        assert (await c.ask(post("/api/tracker/events", b"{", DNT))).status == 400
        zipped = post("/api/tracker/events", b"no gzip", "Content-Encoding: gzip", DNT)
        assert (await c.ask(zipped)).status == 400
        assert s.journal.kept == []


@on_loop
async def test_gamooga_answers_with_the_visitor_it_was_sent_or_an_unsaved_one() -> None:
    async with private("keep", "dnt") as s, client(s.port) as c:

        async def visitor(target: str, *headers: str) -> str:
            answer = await c.ask(get(target.format(c=COMPANY), *headers))
            assert answer.status == 200
            found: str = msgspec.json.decode(answer.body)["vid"]
            return found

        assert await visitor("/id/?c={c}&u=u1&v=mine", DNT) == "mine"
        fresh = {await visitor("/id/?c={c}&u=u1", DNT) for _ in range(2)}
        fresh.add(await visitor("/evwid/?c={c}&u=u1&e=x", DNT))
        assert len(fresh) == 3
        assert {len(one) for one in fresh} == {16}
        assert (s.visitors.asked, s.visitors.map, s.journal.kept) == (0, {}, [])
        # Somebody known is not told who it is, either.
        known = await visitor("/id/?c={c}&u=u1")
        assert await visitor("/id/?c={c}&u=u1", DNT) != known


@on_loop
async def test_a_websockets_handshake_decides() -> None:
    async with private("keep", "gpc") as s:
        headers = {"Sec-GPC": "1"}
        async with dial(s.port, additional_headers=headers) as socket:  # type: ignore[arg-type]
            for number in (1, 2):
                await socket.send(message(number))
                assert acknowledged(await socket.recv()) == [number]
        async with dial(s.port) as socket:
            await socket.send(message(3))
            await socket.recv()
        assert b'"id":3' in s.journal.kept[0].body
        assert s.collector.counters.opted_out["nucleus"] == 2


def test_every_signal_of_the_configuration_is_understood() -> None:
    everything = {"dnt": "1", "sec-gpc": "1"}
    for name in PRIVACY_SIGNALS:
        assert Privacy(signals=(name,)).opted_out(everything)
        assert not Privacy(signals=(name,)).opted_out({})
