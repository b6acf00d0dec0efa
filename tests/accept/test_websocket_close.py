"""The end of a WebSocket: journaled for the sessions that it carried, and for no others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Opcode

from headwater import limits
from headwater.accept.accounts import Accounts
from headwater.accept.http import Collector
from headwater.accept.intake import Settings
from headwater.accept.request import Request, Rules
from headwater.clock import system_clock
from headwater.decode import nucleus
from headwater.decode.dialects import DIALECTS
from headwater.errors import JournalFull
from headwater.event import Sign
from headwater.journal.journal import Position
from headwater.journal.sqlite import SqliteReader, SqliteWriter
from tests.accept.harness import ACME, APP, Memory, Site, on_loop, site, until
from tests.accept.test_websocket import close_code, dial, frame, raw


def said(session: object = 1, device: str = "d1", **more: Any) -> str:
    item = {"type": "event", "name": "E", "sessionId": session, "deviceId": device, **more}
    return msgspec.json.encode({"data": [item]}).decode()


async def tell(socket: ClientConnection, text: str) -> None:
    await socket.send(text)
    await socket.recv()


def closes(at: Site) -> list[Request]:
    return [one for one in at.journal.kept if one.endpoint == "close"]


def signs(request: Request) -> list[Sign]:
    decoded = nucleus.decode(request, Rules())
    assert decoded.received == 0
    return decoded.signs


def sessions(requests: list[Request]) -> list[tuple[str, bool]]:
    return [(sign.session, sign.closed) for one in requests for sign in signs(one)]


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 4000])
@on_loop
async def test_the_close_code_is_journaled_for_the_session(code: int) -> None:
    async with site() as at:
        async with raw(at.port) as c:
            c.send(frame(Opcode.TEXT, said(4821, userId="u1").encode()))
            await until(lambda: len(at.journal.kept) == 1)
            if code == 1006:
                assert c.writer.transport is not None
                c.writer.transport.abort()
            else:
                c.send(frame(Opcode.CLOSE, b"" if code == 1005 else code.to_bytes(2, "big")))
            await until(lambda: not at.collector.connections)
        (close,) = closes(at)
        first = at.journal.kept[0]
        assert at.journal.counts == [1, 0]
        assert close.account == "acme"
        assert close.transport == "websocket"
        assert (close.target, close.params, close.headers) == (
            first.target,
            first.params,
            first.headers,
        )
        assert close.peer == "127.0.0.1"
        assert close.request_id > first.request_id
        assert msgspec.json.decode(close.body)["code"] == code
        (sign,) = signs(close)
        assert sign.session == "4821"
        assert sign.scope == APP
        assert [one.value for one in sign.identities] == ["u1", "d1"]
        assert sign.closed == (code in (1000, 1001, 1005))
        assert len(at.collector.sessions) == 0
        assert at.collector.inflight_bytes == 0


@on_loop
async def test_a_session_ends_with_the_last_of_its_sockets() -> None:
    async with site() as at:
        one, other = await dial(at.port), await dial(at.port)
        await tell(one, said(1, userId="u1"))
        await tell(other, said("1"))  # after a page reload it comes as text
        await tell(other, said(1, device="d2"))
        await one.close()
        await until(lambda: len(at.collector.connections) == 1)
        assert closes(at) == []
        await other.close()
        await until(lambda: not at.collector.connections)
        assert sessions(closes(at)) == [("1", True), ("1", True)]


@on_loop
async def test_a_socket_that_carried_nothing_leaves_no_record() -> None:
    async with site() as at:
        idle = await dial(at.port)
        await idle.close()
        other = await dial(at.port)
        await tell(other, "[")
        await tell(other, '{"data":[{"type":"heartbeat","machineId":"m"},{"type":"event"}]}')
        await other.close()
        await until(lambda: not at.collector.connections)
        assert closes(at) == []


@on_loop
async def test_a_heartbeat_carries_a_session_and_one_without_takes_none_away() -> None:
    async with site() as at:
        socket = await dial(at.port)
        await tell(socket, '{"data":[{"type":"heartbeat","sessionId":7,"deviceId":"d"}]}')
        await tell(socket, '{"data":[{"type":"heartbeat","machineId":"d"}]}')
        await socket.close()
        await until(lambda: not at.collector.connections)
        assert sessions(closes(at)) == [("7", True)]


@on_loop
async def test_what_was_sent_just_before_the_close_counts() -> None:
    """A browser that is left: the last message is not acknowledged yet when the close comes."""
    async with site() as at, raw(at.port) as c:
        at.journal.held = True
        c.send(frame(Opcode.TEXT, said(1).encode()) + frame(Opcode.CLOSE, b""))
        await until(lambda: at.journal.waiting == 2)
        at.journal.commit()
        assert [one.endpoint for one in at.journal.kept] == ["track", "close"]


@on_loop
async def test_a_drain_ends_no_session_but_a_client_that_leaves_meanwhile_does() -> None:
    async with site() as at:
        stays, leaves = await dial(at.port), await dial(at.port)
        await tell(stays, said(1))
        await tell(leaves, said(2))
        at.journal.held = True
        await leaves.send(said(2, name="owed"))
        await until(lambda: at.journal.waiting == 1)
        draining = asyncio.ensure_future(at.collector.drain(5))
        assert await close_code(stays) == 1001
        leaving = asyncio.ensure_future(leaves.close())
        await until(lambda: at.journal.waiting == 2)
        at.journal.commit()
        await draining
        await leaving
        assert sessions(closes(at)) == [("2", True)]


@on_loop
async def test_what_this_side_breaks_off_ends_no_session() -> None:
    async with site() as at:
        for bad in (b"\x81\x01x", frame(Opcode.TEXT, b"\xff")):  # 1002, 1007
            async with raw(at.port) as c:
                c.send(frame(Opcode.TEXT, said(1).encode()) + bad)
                await until(lambda: not at.collector.connections)
        assert closes(at) == []
        assert len(at.collector.sessions) == 0


@on_loop
async def test_a_client_that_fell_silent_was_alive_until_then() -> None:
    quick = Settings(websocket_idle_seconds_max=1.0, websocket_ping_seconds=0.2)
    async with site(quick) as at:
        async with raw(at.port) as c:  # it answers no ping
            c.send(frame(Opcode.TEXT, said(1).encode()))
            await until(lambda: not at.collector.connections)
        (close,) = closes(at)
        (sign,) = signs(close)
        assert not sign.closed
        assert sign.occurred_at is not None
        assert 700_000 < close.received_at - sign.occurred_at < 3_000_000


@on_loop
async def test_a_full_journal_loses_the_record_and_nothing_else() -> None:
    async with site() as at:
        socket = await dial(at.port)
        await tell(socket, said(1))
        at.journal.error = JournalFull("full")
        await socket.close()
        await until(lambda: not at.collector.connections and not at.journal.waiting)
        assert closes(at) == []
        await until(lambda: at.collector.inflight_bytes == 0)


@on_loop
async def test_a_record_that_there_is_no_room_for_is_left_out() -> None:
    async with site(Settings(inflight_bytes_max=2_000)) as at:
        one, other = await dial(at.port), await dial(at.port)
        await tell(one, said(1))
        at.journal.held = True
        await other.send(said(2))
        await until(lambda: at.journal.waiting == 1)
        await one.close()
        await until(lambda: len(at.collector.connections) == 1)
        assert at.journal.waiting == 1
        at.journal.commit()
        await other.close()


@on_loop
async def test_of_many_sessions_the_last_are_remembered() -> None:
    async with site() as at:
        socket = await dial(at.port)
        for session in range(limits.websocket_sessions_max + 5):
            await tell(socket, said(session))
        assert len(at.collector.sessions) == limits.websocket_sessions_max
        await tell(socket, said("x" * limits.websocket_session_bytes_max))  # too long to keep
        await socket.close()
        await until(lambda: not at.collector.connections)
        found = [session for session, _ in sessions(closes(at))]
        assert found == [str(n) for n in range(5, limits.websocket_sessions_max + 5)]


@on_loop
async def test_a_message_of_the_session_known_is_not_parsed_again() -> None:
    asked: list[bytes] = []

    def carried(body: bytes) -> Any:
        asked.append(body)
        return nucleus.carried(body)

    async with site() as at:
        at.collector._desks["nucleus"].carried = carried
        socket = await dial(at.port)
        for name in ("a", "b", "c"):
            await tell(socket, said(48, name=name))
        assert len(asked) == 1
        for again in (said(481), said(48, device="d2"), said(48, userId="u"), said(48, userId="u")):
            await tell(socket, again)
        assert len(asked) == 4
        await socket.close()


@on_loop
async def test_what_an_account_does_not_keep_is_not_in_the_record() -> None:
    careful = msgspec.structs.replace(ACME, ip="truncate", privacy_signals=("dnt",))
    accounts = Accounts({"acme": careful}, public_host="", clock=system_clock)
    async with site(accounts=accounts) as at:
        socket = await dial(at.port)
        await tell(socket, said(1))
        await socket.close()
        url = f"ws://127.0.0.1:{at.port}/app/{APP}/track"
        async with connect(url, additional_headers={"DNT": "1"}) as unseen:
            await tell(unseen, said(2))
        await until(lambda: not at.collector.connections)
        assert [one.peer for one in closes(at)] == ["127.0.0.0"]
        assert sessions(closes(at)) == [("1", True)]


@on_loop
async def test_a_close_is_read_back_from_the_journal(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    writer = SqliteWriter(tmp_path, 0, loop=loop, clock=system_clock)
    collector = Collector(
        dialects=DIALECTS,
        accounts=Accounts({"acme": ACME}, public_host="", clock=system_clock),
        writer=writer,
        visitors=Memory(),
        clock=system_clock,
    )
    server = await loop.create_server(collector.protocol_factory, "127.0.0.1", 0)
    async with dial(server.sockets[0].getsockname()[1]) as socket:
        await tell(socket, said(1))
    await until(lambda: not collector.connections)
    server.close()
    await writer.close()
    reader = SqliteReader(tmp_path)
    batches = reader.read(Position(0, 0), batches_max=10, bytes_max=10**6)
    reader.close()
    kept = [request for batch in batches for request in batch.requests]
    assert [one.endpoint for one in kept] == ["track", "close"]
    assert sum(sum(batch.counts.values()) for batch in batches) == 1
    assert sessions(kept[1:]) == [("1", True)]
