"""S2: what a client did not finish is never a success and never a row."""

from __future__ import annotations

import pytest

from headwater.decode.dialects import DIALECTS as TABLE
from tests.served import Served
from tests.trust.dialect_requests import DIALECTS, SUCCESS, body, headers, post, target
from tests.trust.serving import Heard, kept_from, request, source, talk, vaix

CHUNKED = "Transfer-Encoding: chunked"
BODIES_MAX = {one.NAME: one.BOUNDS.body_bytes_max for one in TABLE}


def chunked(dialect: str, chunks: bytes) -> bytes:
    return request("POST", target(dialect), *headers(dialect), CHUNKED, body=chunks, length=False)


def cut_short(dialect: str) -> dict[str, bytes]:
    """Requests whose end never comes."""
    whole = body(dialect, "cut")
    length = f"Content-Length: {len(whole)}"
    head = request("POST", target(dialect), *headers(dialect), length, length=False)
    return {
        "in the request line": head[:10],
        "in a field": head[: head.index(b"Host") + 6],
        "before the blank line": head[:-2],
        "no byte of the body": head,
        "half of the body": head + whole[: len(whole) // 2],
        "all but one byte": head + whole[:-1],
        "a Content-Length one too long": head.replace(
            length.encode(), b"Content-Length: %d" % (len(whole) + 1)
        )
        + whole,
        "a Content-Length of half the bound": head.replace(
            length.encode(),
            b"Content-Length: %d" % (BODIES_MAX[dialect] // 2),  # type: ignore[index]
        )
        + whole,
        "no first chunk": chunked(dialect, b""),
        "half of a chunk": chunked(dialect, b"%x\r\n" % len(whole) + whole[:5]),
        "no last chunk": chunked(dialect, b"%x\r\n%b\r\n" % (len(whole), whole)),
        "a last chunk without its line end": chunked(
            dialect, b"%x\r\n%b\r\n0\r\n" % (len(whole), whole)
        ),
        "a trailer that does not end": chunked(
            dialect, b"%x\r\n%b\r\n0\r\nX: a" % (len(whole), whole)
        ),
    }


CUT = [(dialect, case) for dialect in DIALECTS for case in cut_short("vaix")]


@pytest.fixture(scope="module")
def heard(served: Served) -> dict[tuple[str, str], tuple[str, Heard]]:
    found = {}
    for number, (dialect, case) in enumerate(CUT):
        address = source(2, number)
        found[dialect, case] = (
            address,
            talk(served.collect_port, cut_short(dialect)[case], source=address, half_close=True),
        )
    return found


@pytest.fixture(scope="module")
def kept(served: Served, heard: object) -> set[str]:
    """The addresses of which the journal has something."""
    return set(kept_from(served, 2))


@pytest.mark.parametrize(("dialect", "case"), CUT)
def test_a_request_that_is_cut_short_is_400_and_not_kept(
    dialect: str, case: str, heard: dict[tuple[str, str], tuple[str, Heard]], kept: set[str]
) -> None:
    address, said = heard[dialect, case]
    assert said.statuses == [400]
    assert said.ended
    assert address not in kept


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_whole_request_before_a_half_close_is_answered(dialect: str, port: int) -> None:
    said = talk(port, post(dialect, body(dialect, "halfclosed")), half_close=True)
    assert said.statuses == [SUCCESS[dialect]]
    assert said.ended


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_content_length_that_is_too_short_is_one_bad_request_and_the_end(
    dialect: str, served: Served
) -> None:
    """What the length cuts off is judged as it stands; the rest is no request."""
    whole = body(dialect, "short")
    length = f"Content-Length: {len(whole) - 9}"
    data = request("POST", target(dialect), *headers(dialect), length, body=whole, length=False)
    address = source(2, 1_000 + DIALECTS.index(dialect))
    said = talk(served.collect_port, data, source=address)
    assert said.statuses == [400, 400]
    assert said.ended
    (kept,) = kept_from(served, 2)[address]
    assert kept.refused


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_body_over_the_bound_is_413_by_its_length_and_by_its_bytes(
    dialect: str, served: Served
) -> None:
    bound = BODIES_MAX[dialect]  # type: ignore[index]
    length = f"Content-Length: {bound + 1}"
    declared = request("POST", target(dialect), *headers(dialect), length, length=False)
    address = source(2, 1_100 + DIALECTS.index(dialect))
    said = talk(served.collect_port, declared, source=address)
    assert said.statuses == [413]
    assert said.ended
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    said = talk(
        served.collect_port, chunked(dialect, b""), *[chunk] * (bound // 65_536 + 2), source=address
    )
    assert said.statuses == [413]
    assert said.ended
    assert address not in kept_from(served, 2)


def test_nothing_that_was_cut_short_has_a_row(
    served: Served, heard: dict[tuple[str, str], tuple[str, Heard]]
) -> None:
    assert talk(served.collect_port, vaix("after"), count=1).statuses == [204]
    served.wait_loaded()
    names = {row["name"] for row in served.query("SELECT DISTINCT name FROM events")}
    assert names & {"trust:cut", "cut", "trust:short", "short"} == set()
    assert "trust:after" in names
