"""However bytes are cut, and whatever was seen before, a stream means the same (row F1).

The same stream is sent whole, request by request, and in random pieces, to a collector that
remembers header blocks and to one that never does. What is kept and what is answered must be equal.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from headwater.accept.http import Collector
from tests.accept.harness import APP, COMPANY, EVENT, client, get, on_loop, post, site

CHUNKED = (
    post().partition(b"\r\n\r\n")[0].replace(b"Content-Length: 85", b"Transfer-Encoding: chunked")
    + b'\r\n\r\n5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n'
)
#: Bytes above 127: in a target they are percent-encoded, in fields and bodies they stay.
RAW = b"caf\xc3\xa9"
CHUNKED_RAW = CHUNKED.replace(b'{"a":', RAW)
DATA = b'{"data":[{"name":"x","id":1,"sessionId":1,"deviceId":"d"}]}'
GOOD = [
    post(),
    post(),
    post(body=b"{}"),
    post(body=b""),
    post("//api/tracker/events/?a=b"),
    post(token="other"),
    post("/api/tracker/events", EVENT, "Cookie: a=b; _vt_user=1_2", "Origin: https://a.test"),
    post("/api/tracker/events", EVENT, "cookie: _vt_user=3_4", "Cookie: x=y"),
    post(f"/app/{APP}/track", DATA),
    post("/nowhere"),
    get(f"/ev/?c={COMPANY}&v=aaaaaaaaaaaaaaaa&e=one"),
    get(f"/ev/?c={COMPANY}&v=aaaaaaaaaaaaaaaa&e=two", "Accept: */*"),
    get(f"/ev?c={COMPANY}&e=three"),
    get("/event/ACCT123/login?data=[]&callback=vt"),
    get("/healthz"),
    get("/api/tracker/events"),
    get("/api/tracker/events", method="OPTIONS"),
    CHUNKED,
    CHUNKED_RAW,
    b"GET /event/ACCT123/%b?data=[] HTTP/1.1\r\nHost: h\r\nX-Note: GET /%b\r\n\r\n" % (RAW, RAW),
    b"\r\nGET /ev/?c=%b&v=a&e=%b HTTP/1.1\r\nHost: h\r\n\r\n" % (COMPANY.encode(), RAW),
    post("/nowhere", RAW + b"\r\n\r\nGET /" + RAW),
]
BYTES = [b"\r", b"\n", b" ", b"\0", b":", b"\xff", b"0", b"\r\n\r\n", b"Content-Length: 1\r\n", b""]

Outcome = tuple[bytes, list[tuple[str, str, dict[str, str], bytes, str, bool]]]


def forget(collector: Collector) -> None:
    collector.remember = lambda block, head: None  # type: ignore[method-assign]


async def outcome(pieces: Sequence[bytes], *, remembers: bool) -> Outcome:
    """All answers as bytes (without their dates), and all that was kept."""
    async with site() as at, client(at.port) as c:
        if not remembers:
            forget(at.collector)
        for piece in pieces:
            c.send(piece)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        c.writer.write_eof()
        said = await c.rest()
        lines = [line for line in said.split(b"\r\n") if not line.startswith(b"date: ")]
        kept = [
            (one.method, one.target, one.headers, one.body, one.account, one.refused)
            for one in at.journal.kept
        ]
        assert at.collector.inflight_bytes == 0
        return b"\r\n".join(lines), kept


def cut(stream: bytes, dice: random.Random) -> list[bytes]:
    places = sorted(dice.randrange(len(stream) + 1) for _ in range(dice.randrange(1, 30)))
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True) if a < b]


@pytest.mark.parametrize("seed", range(40))
@on_loop
async def test_a_good_stream_means_the_same_however_it_is_cut(seed: int) -> None:
    dice = random.Random(seed)
    requests = [dice.choice(GOOD) for _ in range(dice.randrange(1, 12))]
    stream = b"".join(requests)
    expected = await outcome([stream], remembers=False)
    assert await outcome(requests, remembers=True) == expected
    assert await outcome(requests, remembers=False) == expected
    assert await outcome(cut(stream, dice), remembers=True) == expected


@pytest.mark.parametrize("seed", range(60))
@on_loop
async def test_a_damaged_stream_means_the_same_and_breaks_nothing(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    dice = random.Random(seed)
    stream = b"".join(dice.choice(GOOD) for _ in range(dice.randrange(1, 5)))
    for _ in range(dice.randrange(1, 3)):
        at = dice.randrange(len(stream))
        stream = stream[:at] + dice.choice(BYTES) + stream[at + dice.randrange(2) :]
    expected = await outcome([stream], remembers=False)
    known = [GOOD[0], GOOD[10]]
    assert (await outcome(cut(stream, dice), remembers=True)) == expected
    warm = await outcome([*known, stream], remembers=True)
    cold = await outcome([*known, stream], remembers=False)
    assert warm == cold
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
