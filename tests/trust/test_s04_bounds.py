"""S4: fields, their size, and the target, each at its bound and one beyond."""

from __future__ import annotations

import pytest

from headwater import limits
from headwater.decode.dialects import DIALECTS as TABLE
from tests.trust.dialect_requests import DIALECTS, SUCCESS, body, headers, target
from tests.trust.serving import ACME, request, talk

TARGETS_MAX = {str(one.NAME): one.BOUNDS.target_bytes_max for one in TABLE}


def padded(dialect: str, size: int) -> bytes:
    """A good request whose target is `size` bytes long."""
    aim = {
        "vibetrace": f"/event/{ACME.shop}/login?data=%5B%5D&pad=",
        "gamooga": f"/evwid/?c={ACME.company}&u=u1&e=long&ky=k&tp=s&vl=",
    }.get(dialect)
    if aim is not None:
        return request("GET", aim + "x" * (size - len(aim)))
    aim = target(dialect) + "?pad="
    aim += "x" * (size - len(aim))
    return request("POST", aim, *headers(dialect), body=body(dialect, "long"))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_target_has_its_dialects_bound(dialect: str, port: int) -> None:
    bound = TARGETS_MAX[dialect]
    assert bound == (65_536 if dialect in ("vibetrace", "gamooga") else 8_192)
    assert talk(port, padded(dialect, bound), count=1).statuses == [SUCCESS[dialect]]
    assert talk(port, padded(dialect, bound + 1), count=1).statuses == [414]
    assert talk(port, padded(dialect, 70_000), count=1).statuses == [414]


#: Targets of nobody's dialect, and ones that do not end.
TARGETS = {
    "8 KiB of nobody's": (request("GET", "/" + "x" * 8_191), 404),
    "more of nobody's": (request("GET", "/" + "x" * 8_192), 414),
    "1 MiB": (request("GET", "/ev/?" + "x" * 1_048_576), 414),
    "1 MiB without an end": (b"GET /ev/?" + b"x" * 1_048_576, 414),
    "1 MiB of slashes": (request("GET", "/" * 1_048_576), 414),
    "8,000 slashes": (request("GET", "/" * 8_000), 404),
    "8,000 percent signs": (request("GET", "/" + "%" * 8_000), 404),
}


@pytest.mark.parametrize("case", TARGETS)
def test_a_long_target_is_414_whatever_it_asks_for(case: str, port: int) -> None:
    data, status = TARGETS[case]
    assert talk(port, data, count=1).statuses == [status]


def with_fields(dialect: str, fields: list[str]) -> bytes:
    return request("POST", target(dialect), *headers(dialect), *fields, body=body(dialect, "many"))


def own_fields(dialect: str) -> int:
    return 2 + len(headers(dialect))  # Host and Content-Length


def own_bytes(dialect: str) -> int:
    """What its own fields cost: a name, a value, and four bytes between and behind them."""
    head = with_fields(dialect, []).partition(b"\r\n\r\n")[0]
    return sum(len(line) + 2 for line in head.split(b"\r\n")[1:])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_hundred_fields_are_taken_and_one_more_is_431(dialect: str, port: int) -> None:
    room = limits.header_count_max - own_fields(dialect)
    fits = talk(port, with_fields(dialect, ["X: 1"] * room), count=1)
    assert fits.statuses == [SUCCESS[dialect]]
    for count in (room + 1, 1_000):
        said = talk(port, with_fields(dialect, ["X: 1"] * count))
        assert said.statuses == [431]
        assert said.ended


@pytest.mark.parametrize("dialect", DIALECTS)
def test_32_kib_of_fields_are_taken_and_a_byte_more_is_431(dialect: str, port: int) -> None:
    room = limits.headers_bytes_max - own_bytes(dialect) - len("X: \r\n")
    fits = talk(port, with_fields(dialect, ["X: " + "x" * room]), count=1)
    assert fits.statuses == [SUCCESS[dialect]]
    for size in (room + 1, 1_048_576):
        said = talk(port, with_fields(dialect, ["X: " + "x" * size]))
        assert said.statuses == [431]
        assert said.ended


#: Heads that go on and on: refused while they are being sent.
ENDLESS = {
    "a value": (b"X: ", b"x" * 65_536),
    "a name": (b"", b"x" * 65_536),
    "many fields": (b"", b"X: 1\r\n" * 10_000),
    "white space before a value": (b"X:", b" " * 65_536),
    "white space behind a value": (b"X: a", b" " * 65_536),
    "a cookie": (b"Cookie: ", b"a=b; " * 13_000),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_a_head_without_an_end_is_refused_while_it_comes(case: str, port: int) -> None:
    start, more = ENDLESS[case]
    said = talk(port, b"POST /ev HTTP/1.1\r\nHost: a\r\n" + start, *[more] * 40, pause=0.001)
    assert said.statuses in ([431], [400])
    assert said.ended
