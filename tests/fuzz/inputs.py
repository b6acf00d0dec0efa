"""Inputs to start from: those kept in the corpus, and the dialects' cases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from headwater.decode.dialects import DIALECTS
from tests.accept.harness import TOKEN
from tests.dialects.case import Case, as_bytes, read_cases

HERE = Path(__file__).parent


def corpus_of(target: str) -> Path:
    """Where a target's inputs are kept."""
    return HERE / "corpus" / target


def kept(target: str) -> Iterator[Path]:
    """The inputs of a target that once broke something, or led somewhere new."""
    yield from sorted(path for path in corpus_of(target).glob("*") if path.is_file())


def seeds(target: str) -> Iterator[bytes]:
    """The dialects' cases as inputs."""
    for case in read_cases():
        if target == "connection":
            if not case.websocket:
                yield b"\x10" + on_the_wire(case)
        elif case.dialect == target:
            query = as_bytes(case.target).partition(b"?")[2]
            (dialect,) = (one for one in DIALECTS if target == one.NAME)
            for route in range(len(dialect.ROUTES)):
                flags = (case.method == "POST") << 1 | case.websocket
                yield bytes([route, flags]) + query + b"\n" + case.body


def on_the_wire(case: Case) -> bytes:
    """A case's request."""
    first = case.method.encode() + b" " + as_bytes(case.target) + b" HTTP/1.1"
    head = [first, b"Host: collect.test"]
    for name, value in case.headers.items():
        if name.lower() not in ("host", "content-length"):
            head.append(as_bytes(name) + b": " + as_bytes(value).replace(b"$token", TOKEN.encode()))
    if case.body:
        head.append(b"Content-Length: %d" % len(case.body))
    return b"\r\n".join(head) + b"\r\n\r\n" + case.body
