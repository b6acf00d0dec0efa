"""What is fuzzed: functions of bytes that raise when a promise is broken.

A decoder's input is ``route, flags, query, newline, body``: one byte that chooses among the
dialect's routes, one of flags, and the rest as it would stand in a request. The connection's input
is one byte that says how the rest is cut into pieces, and what a client sends.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Callable
from typing import Any

import msgspec

from headwater.accept.accounts import Accounts
from headwater.accept.http import Collector
from headwater.accept.request import Dialect, Identified, Identify, Request, Rules
from headwater.clock import system_clock
from headwater.decode.dialects import DIALECTS
from headwater.event import Decoded
from tests.accept.harness import ACME, Memory, MemoryJournal

Target = Callable[[bytes], None]
STRICT = Rules(
    event_types=frozenset({"clicks:event", "impressions:*"}), groups=frozenset({"g1"}), lenient=True
)
_TYPES = ("application/json", "application/x-www-form-urlencoded", "text/plain; charset=latin1", "")
#: Of the event loop, until whatever a request has to wait for is there.
TURNS = 8
_NAME = re.compile(r"\{(\w+)\}")
_NO_TARGET = re.compile(r"[\x00-\x20\x7f]")


# --- decoders ----------------------------------------------------------------------------------


def request_of(dialect: Dialect, data: bytes) -> Request | None:
    """The request that an input stands for; None for one too short to be any."""
    if len(data) < 2:
        return None
    route = dialect.ROUTES[data[0] % len(dialect.ROUTES)]
    flags = data[1]
    query, _, body = data[2:].partition(b"\n")
    socket = route.websocket and bool(flags & 1 or not route.methods)
    method = "GET" if socket else route.methods[(flags >> 1) % len(route.methods)]
    params = dict.fromkeys(_NAME.findall(route.path), "1")
    path = _NAME.sub("1", route.path)
    headers = {"host": "collect.test", "x-vaix-client-id": "g1"}
    if kind := _TYPES[(flags >> 3) % len(_TYPES)]:
        headers["content-type"] = kind
    if flags & 0x80:
        headers["cookie"] = "_vt_user=v1"
    return Request(
        dialect=dialect.NAME,
        method=method,
        target=f"{path}?{_NO_TARGET.sub('', query.decode('latin-1'))}",
        endpoint=route.endpoint,
        params=params,
        headers=headers,
        body=body if socket or method == "POST" else b"",
        transport="websocket" if socket else "http",
        peer="192.0.2.7",
        account="acme",
        received_at=1_795_226_263_000_000,
        request_id=bytes(16),
    )


def decoder(dialect: Dialect) -> Target:
    """`answer` and `decode` of one dialect: they never raise, they agree, and what they give can be
    written down."""

    def run(data: bytes) -> None:
        for rules in (Rules(), STRICT):
            request = request_of(dialect, data)
            if request is not None and dialect.precheck(request) is None:
                judge(dialect, request, rules)

    return run


def judge(dialect: Dialect, request: Request, rules: Rules) -> None:
    """What accept and the loader do with a request, one after the other."""
    if not dialect.BEARER and not dialect.tenant(request):
        request.account = ""
    answer = dialect.answer(request, rules)
    if answer.identify is not None and request.account:
        request.state, request.created = answer.identify.visitor or "0" * 16, True
        answer = dialect.answer(request, rules)
    assert 200 <= answer.status < 600
    assert answer.status != 500
    if not (answer.keep and request.account):
        return
    decoded = dialect.decode(request, rules)
    assert decoded.received == answer.events, (decoded.received, answer.events)
    if answer.refused:
        assert not decoded.events
    else:
        again = dialect.decode(request, Rules())
        assert again.received == answer.events, "an acknowledged request is decided"
        assert texts(again) == texts(decoded)
    assert texts(decoded)


def texts(decoded: Decoded) -> bytes:
    """What was decoded, as the store gets it: JSON, which is UTF-8."""
    return msgspec.json.encode(decoded)


# --- the connection ----------------------------------------------------------------------------


class Visitors(Memory):
    """Answers at the next turn of the loop, and always the same."""

    def known(self, account: str, question: Identify) -> Identified | None:
        return None

    async def identify(self, account: str, question: Identify) -> Identified:
        return Identified(visitor=f"{zlib.crc32(question.users[0].encode()):016d}", created=True)


class Wire(asyncio.Transport):
    """A socket's end that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.7", 1)})
        self.said = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.said += bytes(data)

    def write_eof(self) -> None:
        return

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return


def pieces(data: bytes) -> list[bytes]:
    """An input, cut as its first byte says."""
    size = max(1, data[0]) if data else 1
    return [data[at : at + size] for at in range(1, len(data), size)]


async def heard(chunks: list[bytes]) -> tuple[list[int], list[tuple[str, str, bytes]]]:
    """Feed a fresh connection; the statuses of its answers, and the requests that were kept."""
    journal = MemoryJournal()
    collector = Collector(
        dialects=DIALECTS,
        accounts=Accounts({"acme": ACME}, public_host="collect.test", clock=system_clock),
        writer=journal,
        visitors=Visitors(),
        clock=system_clock,
    )
    wire = Wire()
    connection = collector.protocol_factory()
    connection.connection_made(wire)
    for chunk in chunks:
        if wire.closed:
            break
        connection.data_received(chunk)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    connection.check(asyncio.get_running_loop().time() + 1000.0)
    upgraded = wire.said.startswith(b"HTTP/1.1 101")
    connection.connection_lost(None)
    await asyncio.sleep(0)
    assert collector.counters.decoder_errors == 0
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", wire.said)]
    assert all(status < 500 or status == 503 for status in statuses), statuses
    assert collector.inflight_bytes == 0
    kept = [(str(one.dialect), one.target, one.body) for one in journal.kept]
    return ([101] if upgraded else statuses), ([] if upgraded else kept)


_loop: list[asyncio.AbstractEventLoop] = []


def connection(data: bytes) -> None:
    """The same bytes mean the same, however they are cut; nothing raises, nothing is a 500."""
    if not _loop:
        _loop.append(asyncio.new_event_loop())
        _loop[0].set_exception_handler(_raise)
    failures.clear()
    cut = _loop[0].run_until_complete(heard(pieces(data)))
    whole = _loop[0].run_until_complete(heard([data[1:]]))
    assert not failures, failures
    assert cut == whole, (cut, whole)


failures: list[Any] = []


def _raise(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    failures.append(context)


TARGETS: dict[str, Target] = {
    "connection": connection,
    **{dialect.NAME: decoder(dialect) for dialect in DIALECTS},
}
