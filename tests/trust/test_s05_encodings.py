"""S5: compressed bodies are inflated within the dialect's bound, one layer, or refused."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Callable

import pytest
import zstandard

from headwater.decode.dialects import DIALECTS as TABLE
from tests.served import Served
from tests.trust.dialect_requests import DIALECTS, SUCCESS, body, post
from tests.trust.serving import Answer, ask, kept_from, resident_bytes, source, workers

BODIES_MAX = {str(one.NAME): one.BOUNDS.body_bytes_max for one in TABLE}


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "zstd": zstandard.compress,
    "identity": bytes,
}
GOOD = [(dialect, encoding) for dialect in DIALECTS for encoding in PACK]


@pytest.mark.parametrize(("dialect", "encoding"), GOOD)
def test_one_layer_is_taken(dialect: str, encoding: str, port: int) -> None:
    mark = f"packed{GOOD.index((dialect, encoding))}"
    packed = PACK[encoding](body(dialect, mark))
    answer = ask(port, post(dialect, packed, f"Content-Encoding: {encoding}"))
    assert answer.status == SUCCESS[dialect]


def test_what_was_compressed_is_stored_as_if_it_had_not_been(served: Served) -> None:
    """Every one of the above has a row; read as SQL sees it."""
    for number, (dialect, encoding) in enumerate(GOOD):
        packed = PACK[encoding](body(dialect, f"stored{number}"))
        ask(served.collect_port, post(dialect, packed, f"Content-Encoding: {encoding}"))
    served.wait_loaded()
    rows = served.query(
        "SELECT dialect, name, toJSONString(properties) AS properties FROM events"
        " WHERE name LIKE '%stored%' OR toJSONString(properties) LIKE '%stored%'"
    )
    found = {(row["dialect"], f"{row['name']} {row['properties']}") for row in rows}
    missing = [
        (dialect, number)
        for number, (dialect, _) in enumerate(GOOD)
        if not any(
            one == dialect
            and text.replace('"', " ").replace("}", " ").find(f"stored{number} ") >= 0
            for one, text in found
        )
    ]
    assert missing == []


def bomb(dialect: str, encoding: str) -> bytes:
    return PACK[encoding](b" " * (BODIES_MAX[dialect] + 1))


def large(dialect: str) -> bytes:
    """A frame that says a size of 4 GiB, and holds none of it."""
    return b"\x28\xb5\x2f\xfd\xa0\xff\xff\xff\xff" + zstandard.compress(b"{}")[5:]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "Deflate", "zstd"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_bomb_is_413_and_costs_no_more_than_the_bound(
    dialect: str, encoding: str, served: Served
) -> None:
    address = source(5, DIALECTS.index(dialect) * 10 + list(PACK).index(encoding))
    data = post(dialect, bomb(dialect, encoding), f"Content-Encoding: {encoding}")
    ask(served.collect_port, data, source=address)  # what is needed once is not counted
    (worker,) = workers(served)
    before = resident_bytes(worker)
    began = time.monotonic()
    for _ in range(3):
        assert ask(served.collect_port, data, source=address).status == 413
    assert time.monotonic() - began < 6
    assert resident_bytes(worker) - before < 64 * 1024 * 1024
    assert address not in kept_from(served, 5)


#: Content-Encoding lines, and the body: 415 (VAIX: 400), whatever the bytes are.
FOREIGN: dict[str, tuple[tuple[str, ...], Callable[[bytes], bytes]]] = {
    "br": (("br",), bytes),
    "compress": (("compress",), bytes),
    "an unknown word": (("rot13",), bytes),
    "a star": (("*",), bytes),
    "gzip, gzip": (("gzip, gzip",), lambda data: gzip.compress(gzip.compress(data))),
    "gzip twice": (("gzip", "gzip"), lambda data: gzip.compress(gzip.compress(data))),
    "gzip, identity": (("gzip, identity",), gzip.compress),
    "deflate inside gzip": (("deflate", "gzip"), lambda data: gzip.compress(zlib.compress(data))),
    "gzip;q=1": (("gzip;q=1",), gzip.compress),
    "8,000 layers": ((", ".join(["gzip"] * 1_500),), gzip.compress),
    "above ASCII": (("gz\xefp",), gzip.compress),
}


@pytest.mark.parametrize("case", FOREIGN)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_another_encoding_or_layer_is_415(dialect: str, case: str, port: int) -> None:
    values, pack = FOREIGN[case]
    fields = [f"Content-Encoding: {value}" for value in values]
    answer = ask(port, post(dialect, pack(body(dialect, "foreign")), *fields))
    assert answer.status == (400 if dialect == "vaix" else 415)


#: What is not what its name says: 400, kept as rejected.
DAMAGED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip cut short": ("gzip", lambda data: gzip.compress(data)[:-9]),
    "gzip without its check sum": ("gzip", lambda data: gzip.compress(data)[:-8]),
    "gzip with a wrong check sum": ("gzip", lambda data: gzip.compress(data)[:-8] + bytes(8)),
    "gzip and garbage": ("gzip", lambda data: gzip.compress(data) + b"garbage"),
    "gzip that is none": ("gzip", bytes),
    "deflate cut short": ("deflate", lambda data: zlib.compress(data)[:-3]),
    "deflate that is none": ("deflate", lambda data: b"\xff" * 40),
    "zstd cut short": ("zstd", lambda data: zstandard.compress(data)[:-1]),
    "zstd that is none": ("zstd", bytes),
    "zstd of 4 GiB by its own word": ("zstd", lambda data: large("")),
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_damaged_stream_is_400_and_kept_as_it_came(
    dialect: str, case: str, served: Served
) -> None:
    encoding, pack = DAMAGED[case]
    packed = pack(body(dialect, "damaged"))
    answer = ask(served.collect_port, post(dialect, packed, f"Content-Encoding: {encoding}"))
    assert answer.status == 400


def test_what_was_damaged_is_in_rejected_and_nowhere_else(served: Served) -> None:
    address = source(5, 1_000)
    for dialect in DIALECTS:
        for encoding, pack in DAMAGED.values():
            packed = pack(body(dialect, "damaged"))
            data = post(dialect, packed, f"Content-Encoding: {encoding}")
            answer: Answer = ask(served.collect_port, data, source=address)
            assert answer.status == 400
    kept = kept_from(served, 5)[address]
    assert len(kept) == len(DIALECTS) * len(DAMAGED)
    assert all(one.refused for one in kept)
    served.wait_loaded()
    ids = ", ".join(f"'{one.request_id.hex()}'" for one in kept)
    matched = f"WHERE replaceAll(toString(request_id), '-', '') IN ({ids})"
    (row,) = served.query(f"SELECT count() AS n FROM rejected {matched}")
    assert int(row["n"]) == len(kept)
    assert served.query(f"SELECT name FROM events {matched}") == []
