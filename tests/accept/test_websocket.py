"""Nucleus over WebSockets: path forms, opcodes, order, bounds and close codes (row S10)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from headwater.accept.accounts import Accounts
from headwater.accept.intake import Settings
from headwater.clock import system_clock
from headwater.errors import JournalFailed
from tests.accept.harness import APP, Client, client, get, on_loop, post, site, until


def message(*ids: int, name: str = "E") -> str:
    events = [
        {"type": "event", "name": name, "id": one, "sessionId": 1, "deviceId": "d"} for one in ids
    ]
    return msgspec.json.encode({"data": events}).decode()


def acknowledged(reply: str | bytes) -> list[int]:
    assert isinstance(reply, str)
    found: list[int] = msgspec.json.decode(reply)["reportedIds"]
    return found


def dial(port: int, path: str = f"/app/{APP}/track", **options: str | None) -> connect:
    return connect(f"ws://127.0.0.1:{port}{path}", max_size=2**25, **options)  # type: ignore[arg-type]


async def forever(socket: ClientConnection) -> None:
    while True:
        await socket.recv()


async def close_code(socket: ClientConnection) -> int:
    """The code that the server closes with."""
    with pytest.raises(ConnectionClosed) as closed:
        await forever(socket)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


@asynccontextmanager
async def raw(port: int) -> AsyncIterator[Client]:
    """A connection after its handshake, for frames that no library would send."""
    async with client(port) as c:
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
        yield c


def frame(opcode: Opcode, data: bytes, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


async def code_of(c: Client) -> int:
    """The code of a close frame that comes next."""
    head = await c.reader.readexactly(2)
    assert head[0] == 0x88, head
    payload = await c.reader.readexactly(head[1])
    return int.from_bytes(payload[:2], "big")


@pytest.mark.parametrize(
    "path", [f"/app/{APP}/track", f"//app/{APP}/track/", f"/{APP}", f"/{APP}/"]
)
@pytest.mark.parametrize("compression", ["deflate", None])
@on_loop
async def test_every_path_form_takes_text_and_binary(path: str, compression: str | None) -> None:
    async with site() as at, dial(at.port, path, compression=compression) as socket:
        await socket.send(message(1, 2))
        assert await socket.recv() == '{"reportedIds":[1,2]}'
        await socket.send(message(3).encode())
        assert await socket.recv() == '{"reportedIds":[3]}'
        assert [one.transport for one in at.journal.kept] == ["websocket"] * 2
        assert [one.account for one in at.journal.kept] == ["acme"] * 2
        assert at.journal.kept[0].target == path
        assert at.journal.kept[0].body == message(1, 2).encode()
        assert at.journal.kept[0].method == "GET"
        assert at.journal.counts == [2, 1]


@on_loop
async def test_the_handshake_ignores_origin_and_subprotocol() -> None:
    async with site() as at:
        url = f"ws://127.0.0.1:{at.port}/app/{APP}/track"
        async with connect(url, origin="https://evil.test") as socket:  # type: ignore[arg-type]
            assert socket.subprotocol is None
            await socket.send(message(1))
            assert acknowledged(await socket.recv()) == [1]
        assert at.journal.kept[0].headers["origin"] == "https://evil.test"


@pytest.mark.parametrize("path", ["/app/unknown/track", "/unknown", "/metrics", "/healthz/x/y"])
@on_loop
async def test_an_unknown_app_is_refused_at_the_handshake(path: str) -> None:
    async with site() as at:
        with pytest.raises(InvalidStatus) as refused:
            await dial(at.port, path)
        assert refused.value.response.status_code == 404
        assert at.collector.counters.websockets_open == 0


@on_loop
async def test_a_handshake_that_is_none_is_refused() -> None:
    async with site() as at:
        upgrade = ("Connection: Upgrade", "Upgrade: websocket")
        for extra, status in (
            (("Sec-WebSocket-Version: 13",), 400),
            (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: short"), 400),
            (("Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="), 400),
        ):
            async with client(at.port) as c:
                reply = await c.ask(get(f"/app/{APP}/track", *upgrade, *extra))
                assert reply.status == status
                assert await c.ended()


@on_loop
async def test_a_message_is_acknowledged_after_its_fsync_and_in_order() -> None:
    async with site() as at, dial(at.port) as socket:
        at.journal.held = True
        for one in range(5):
            await socket.send(message(one))
        await until(lambda: at.journal.waiting == 5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 0.1)
        at.journal.commit()
        assert [acknowledged(await socket.recv()) for _ in range(5)] == [[n] for n in range(5)]


@on_loop
async def test_fragments_are_put_together_and_pings_answered_between_them() -> None:
    async with site() as at, raw(at.port) as c:
        text = message(7).encode()
        c.send(frame(Opcode.TEXT, text[:10], fin=False) + frame(Opcode.PING, b"p"))
        for byte in text[10:-1]:
            c.send(frame(Opcode.CONT, bytes((byte,)), fin=False))
        c.send(frame(Opcode.CONT, text[-1:]))
        assert await c.reader.readexactly(3) == b"\x8a\x01p"
        answer = b'{"reportedIds":[7]}'
        assert await c.reader.readexactly(2 + len(answer)) == bytes((0x81, len(answer))) + answer
        assert at.journal.kept[0].body == text
        assert at.collector.inflight_bytes == 0


@on_loop
async def test_a_message_in_thousands_of_fragments_is_one_message() -> None:
    async with site() as at, raw(at.port) as c:
        text = message(7, name="x" * 5_000).encode()
        c.send(frame(Opcode.TEXT, b"", fin=False))
        c.send(b"".join(frame(Opcode.CONT, bytes((byte,)), fin=False) for byte in text))
        c.send(frame(Opcode.CONT, b""))
        await until(lambda: len(at.journal.kept) == 1)
        assert at.journal.kept[0].body == text


@on_loop
async def test_a_message_of_16_mib_is_taken_and_a_larger_one_is_1009() -> None:
    async with site() as at:
        filler = "x" * (16 * 1024 * 1024 - len(message(1, name="")))
        async with dial(at.port, compression=None) as socket:
            await socket.send(message(1, name=filler))
            assert acknowledged(await socket.recv()) == [1]
        async with dial(at.port, compression="deflate") as socket:
            await socket.send(message(2, name=filler))
            assert acknowledged(await socket.recv()) == [2]
        for compression in (None, "deflate"):
            async with dial(at.port, compression=compression) as socket:
                await socket.send(message(3, name=filler + "x"))
                assert await close_code(socket) == 1009
        assert [one.endpoint for one in at.journal.kept if one.endpoint != "close"] == ["track"] * 2
        await until(lambda: at.collector.inflight_bytes == 0)


@on_loop
async def test_fragments_over_the_bound_are_1009() -> None:
    async with site() as at, raw(at.port) as c:
        c.send(frame(Opcode.TEXT, b"x" * 9_000_000, fin=False))
        c.send(frame(Opcode.CONT, b"x" * 9_000_000, fin=False))
        assert await code_of(c) == 1009
        await until(lambda: not at.collector.connections)
        assert at.collector.inflight_bytes == 0


@pytest.mark.parametrize("how", ["a frame that drips", "fragments that drip", "nothing more"])
@on_loop
async def test_a_message_that_does_not_end_is_1008_at_the_deadline_of_a_body(how: str) -> None:
    """Whatever drips in does not move it, pings in between neither; what it holds is let go."""
    settings = Settings(body_seconds_max=0.5)
    async with site(settings) as at, raw(at.port) as c:
        c.send(frame(Opcode.TEXT, b'{"data":', fin=False))
        whole = frame(Opcode.CONT, b" " * 2_000)
        if how == "a frame that drips":
            c.send(whole[:10])
        await until(lambda: at.collector.inflight_bytes > 0)
        began = asyncio.get_running_loop().time()
        for number in range(100):
            if c.reader._buffer:  # type: ignore[attr-defined]
                break
            if how == "a frame that drips":
                c.send(whole[10 + number : 11 + number])
            elif how == "fragments that drip":
                c.send(frame(Opcode.CONT, b" ", fin=False))
                c.send(frame(Opcode.PONG, b""))
            await asyncio.sleep(0.02)
        assert await code_of(c) == 1008
        assert 0.4 < asyncio.get_running_loop().time() - began < 1.5
        assert at.collector.inflight_bytes == 0
        assert at.collector.counters.deadlines == 1
        assert at.journal.kept == []


@on_loop
async def test_a_message_in_time_is_not_charged_with_the_time_of_those_before() -> None:
    async with site(Settings(body_seconds_max=0.5)) as at, raw(at.port) as c:
        whole = message(1).encode()
        for _ in range(4):
            c.send(frame(Opcode.TEXT, whole[:5], fin=False))
            await asyncio.sleep(0.2)
            c.send(frame(Opcode.CONT, whole[5:]))
            await until(lambda: at.journal.waiting == 0)
        await until(lambda: len(at.journal.kept) == 4)
        assert at.collector.counters.deadlines == 0


@on_loop
async def test_text_that_is_not_utf_8_is_1007_and_binary_is_the_decoders_business() -> None:
    async with site() as at:
        async with raw(at.port) as c:
            c.send(frame(Opcode.TEXT, b'{"data":["\xff"]}'))
            assert await code_of(c) == 1007
        assert at.journal.kept == []
        async with dial(at.port) as socket:
            await socket.send(b'{"data":["\xff"]}')
            assert await socket.recv() == '{"reportedIds":[]}'
            assert at.journal.kept[0].refused


@pytest.mark.parametrize("text", ["", "x", "[", '{"data":1e999}', '"x"', "\x00"])
@on_loop
async def test_what_is_unreadable_is_answered_and_kept(text: str) -> None:
    async with site() as at, dial(at.port) as socket:
        await socket.send(text)
        assert await socket.recv() == '{"reportedIds":[]}'
        assert [one.refused for one in at.journal.kept] == [True]
        await socket.send(message(1))
        assert acknowledged(await socket.recv()) == [1]


@on_loop
async def test_a_decoder_that_fails_is_answered_and_never_1011(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(request: object, rules: object) -> object:
        raise ZeroDivisionError

    async with site() as at, dial(at.port) as socket:
        at.collector._desks["nucleus"].answer = broken  # type: ignore[assignment]
        await socket.send(message(1))
        assert await socket.recv() == '{"reportedIds":[]}'
        assert at.journal.kept[0].refused
        assert at.collector.counters.decoder_errors == 1
        assert "ZeroDivisionError" in caplog.text


@on_loop
async def test_broken_frames_are_1002() -> None:
    for bad in (
        b"\x81\x01x",  # not masked
        b"\xc1\x81\0\0\0\0x",  # compressed, though that was not agreed
        frame(Opcode.CONT, b"x"),
        b"\x83\x81\0\0\0\0x",  # an unknown opcode
        frame(Opcode.TEXT, b"x", fin=False) + frame(Opcode.TEXT, b"y"),
    ):
        async with site() as at, raw(at.port) as c:
            c.send(bad)
            assert await code_of(c) == 1002
            assert at.journal.kept == []


@on_loop
async def test_a_failing_journal_closes_1013_without_an_acknowledgement() -> None:
    async with site() as at:
        at.journal.error = JournalFailed("fsync")
        async with dial(at.port) as socket:
            await socket.send(message(1))
            assert await close_code(socket) == 1013
        assert at.journal.kept == []


@on_loop
async def test_no_room_closes_1013() -> None:
    async with site(Settings(inflight_bytes_max=5_000)) as at, dial(at.port) as socket:
        at.journal.held = True
        await socket.send(message(1))
        await until(lambda: at.journal.waiting == 1)
        await socket.send(message(2, name="x" * 5_000))
        assert await close_code(socket) == 1013


@on_loop
async def test_messages_that_wait_are_bounded() -> None:
    async with site(Settings(websocket_messages_max=4)) as at, dial(at.port) as socket:
        at.journal.held = True
        for one in range(40):
            await socket.send(message(one))
            await asyncio.sleep(0.002)
        assert at.journal.waiting < 12
        at.journal.held = False
        at.journal.commit()
        assert [acknowledged(await socket.recv()) for _ in range(40)] == [[n] for n in range(40)]


@on_loop
async def test_the_rate_limit_closes_1013_and_then_refuses_the_handshake() -> None:
    async with site(Settings(rate_limit_per_ip=10)) as at:
        async with dial(at.port) as socket:
            await socket.send(message(*range(30)))
            assert len(acknowledged(await socket.recv())) == 30
            await socket.send(message(1))
            assert await close_code(socket) == 1013
        with pytest.raises(InvalidStatus) as refused:
            await dial(at.port)
        assert refused.value.response.status_code == 429
        assert int(refused.value.response.headers["retry-after"]) >= 1


@on_loop
async def test_a_client_that_closes_is_answered_with_its_own_code() -> None:
    async with site() as at:
        async with raw(at.port) as c:
            c.send(frame(Opcode.CLOSE, (1001).to_bytes(2, "big")))
            assert await code_of(c) == 1001
            assert await c.ended()
        async with raw(at.port) as c:
            c.send(frame(Opcode.CLOSE, b""))
            assert await c.reader.readexactly(2) == b"\x88\0"
            assert await c.ended()
        async with dial(at.port) as socket:
            await socket.send(message(1))
        await until(lambda: not at.collector.connections)
        assert at.collector.counters.websockets_open == 0
        # sent before the close: kept, though nobody hears
        assert [one.endpoint for one in at.journal.kept] == ["track", "close"]


@on_loop
async def test_frames_behind_the_handshake_are_not_lost() -> None:
    async with site() as at, client(at.port) as c:
        upgrade = get(
            f"/{APP}",
            "connection: keep-alive, upgrade",
            "upgrade: WebSocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        )
        c.send(upgrade + frame(Opcode.TEXT, message(1).encode()))
        assert (await c.reply()).status == 101
        await until(lambda: len(at.journal.kept) == 1)


@on_loop
async def test_drain_closes_1001_after_what_is_owed() -> None:
    async with site() as at, dial(at.port) as busy, dial(at.port) as idle:
        at.journal.held = True
        await busy.send(message(1))
        await until(lambda: at.journal.waiting == 1)
        at.server.close()
        draining = asyncio.ensure_future(at.collector.drain(5))
        assert await close_code(idle) == 1001
        at.journal.commit()
        assert acknowledged(await busy.recv()) == [1]
        assert await close_code(busy) == 1001
        await asyncio.wait_for(draining, 3)


@on_loop
async def test_an_app_that_a_reload_removes_is_closed_1008() -> None:
    async with site() as at, dial(at.port) as socket:
        at.collector.reload(Accounts({}, public_host="", clock=system_clock))
        await socket.send(message(1))
        assert await close_code(socket) == 1008
        assert at.journal.kept == []


@on_loop
async def test_an_upgrade_on_another_path_is_an_ordinary_request() -> None:
    async with site() as at, client(at.port) as c:
        upgrade = ("Connection: Upgrade", "Upgrade: websocket")
        assert (await c.ask(get("/healthz", *upgrade))).body == b"ok"
        assert (await c.ask(get("/api/tracker/events", *upgrade))).status == 405
        assert (await c.ask(post())).status == 204
