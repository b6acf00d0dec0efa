"""S10: frames that no client of the vendor sends. The socket closes with its code, memory stays
bounded, and the next socket works.

That an acknowledgement waits for its fsync is shown where the journal can be held back:
tests/accept/test_websocket.py, and by kill -9 in tests/faults.
"""

from __future__ import annotations

import socket
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect

from headwater import limits
from tests.served import Served
from tests.trust.routes import handshake, nucleus_body
from tests.trust.serving import ACCOUNTS, ACME, FULL, ask, resident_bytes, vaix, workers

MIB = 1024 * 1024
PATH = f"/app/{ACME.app}/track"
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n\r\n"


#: docs/trust.md, "What does not hold yet".


class Wire:
    """A WebSocket after its handshake, for frames that no library would send."""

    def __init__(self, port: int, *, deflate: bool = False, receive_bytes: int = 0) -> None:
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", port))
        asked = handshake(PATH)
        if deflate:
            asked = asked[:-2] + DEFLATE.encode()
        self.socket.sendall(asked)
        self._said = b""
        while b"\r\n\r\n" not in self._said:
            self._more()
        head, _, self._said = self._said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        assert (b"permessage-deflate" in head) == deflate

    def _more(self) -> None:
        piece = self.socket.recv(65_536)
        if not piece:
            raise EOFError
        self._said += piece

    def _take(self, size: int) -> bytes:
        while len(self._said) < size:
            self._more()
        taken, self._said = self._said[:size], self._said[size:]
        return taken

    def send(self, data: bytes) -> None:
        """All of it, unless the server has refused the rest."""
        with suppress(ConnectionError):
            self.socket.sendall(data)

    def frame(self) -> tuple[int, bytes]:
        """The next frame: its first byte, and its payload."""
        first, size = self._take(2)
        if size == 126:
            (size,) = struct.unpack("!H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._take(8))
        return first, self._take(size)

    def message(self) -> bytes:
        """The next text, past any pongs."""
        while True:
            first, payload = self.frame()
            if first == 0x81:
                return payload
            assert first == 0x8A, (first, payload)

    def code(self) -> int:
        """The code that the server closes with."""
        while True:
            first, payload = self.frame()
            if first == 0x88:
                return int.from_bytes(payload[:2], "big")


@contextmanager
def wire(port: int, *, deflate: bool = False, receive_bytes: int = 0) -> Iterator[Wire]:
    opened = Wire(port, deflate=deflate, receive_bytes=receive_bytes)
    try:
        yield opened
    finally:
        opened.socket.close()


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def begun(size: int, first: int = 0x81) -> bytes:
    """The head of a text frame of `size` bytes, masked with zeros."""
    return bytes((first, 0xFF)) + struct.pack("!Q", size) + bytes(4)


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def works(port: int, mark: str) -> None:
    """Another client is served, here and over HTTP."""
    with connect(f"ws://127.0.0.1:{port}{PATH}") as other:
        other.send(nucleus_body(mark).decode())
        assert msgspec.json.decode(other.recv(10)) == {"reportedIds": [mark]}
    assert ask(port, vaix("beside")).status == 204


BOUND = limits.nucleus_body_bytes_max
LARGE = {
    "a head that says a byte too many": begun(BOUND + 1),
    "a head that says 4 EiB": begun(2**62),
    "two fragments": frame(Opcode.TEXT, bytes(BOUND), fin=False) + frame(Opcode.CONT, b"x"),
    "fragments without an end": frame(Opcode.TEXT, b" " * MIB, fin=False)
    + frame(Opcode.CONT, b" " * MIB, fin=False) * 17,
}


@pytest.mark.parametrize("case", LARGE)
def test_a_message_over_the_bound_is_1009(case: str, port: int) -> None:
    with wire(port) as opened:
        opened.send(LARGE[case])
        assert opened.code() == 1009


def test_a_compressed_bomb_is_1009_and_costs_no_more_than_the_bound(served: Served) -> None:
    packed = deflated(b" " * (BOUND + 1))
    assert len(packed) < 20_000
    (worker,) = workers(served)
    before = 0
    for turn in range(6):
        with wire(served.collect_port, deflate=True) as opened:
            opened.send(begun(len(packed), first=0xC1) + packed)
            assert opened.code() == 1009
        if turn == 1:
            before = resident_bytes(worker)
    assert resident_bytes(worker) - before < 48 * MIB
    works(served.collect_port, "afterbomb")


NOT_UTF_8 = {
    "a stray byte": [b'{"data":["\xff"]}'],
    "latin-1": [b'{"data":["caf\xe9"]}'],
    "a surrogate": [b"\xed\xa0\x80"],
    "an overlong slash": [b"\xc0\xaf"],
    "beyond Unicode": [b"\xf4\x90\x80\x80"],
    "half a letter at the end": [b'{"data":[]}\xc3'],
    "in a later fragment": [b'{"data":[', b'"\xff"', b"]}"],
    "half a letter and then another": [b'"\xc3', b'a"'],
    "half a letter in the last of three": [b"a", b"b", b"\xe2\x82"],
    "UTF-16": ['{"data":[]}'.encode("utf-16")],
}


def in_frames(pieces: list[bytes]) -> bytes:
    last = len(pieces) - 1
    return b"".join(
        frame(Opcode.CONT if number else Opcode.TEXT, piece, fin=number == last)
        for number, piece in enumerate(pieces)
    )


@pytest.mark.parametrize("case", NOT_UTF_8)
def test_text_that_is_not_utf_8_is_1007(case: str, port: int) -> None:
    with wire(port) as opened:
        opened.send(in_frames(NOT_UTF_8[case]))
        assert opened.code() == 1007


def test_a_letter_may_be_cut_by_a_fragment(port: int) -> None:
    body = nucleus_body("caf\u00e9\U0001f600")
    with wire(port) as opened:
        opened.send(in_frames([body[at : at + 1] for at in range(len(body))]))
        assert msgspec.json.decode(opened.message()) == {"reportedIds": ["caf\u00e9\U0001f600"]}


BROKEN = {
    "not masked": b"\x81\x01x",
    "a ping of 126 bytes": b"\x89\xfe\x00\x7e" + bytes(4) + bytes(126),
    "a ping in fragments": b"\x09\x80" + bytes(4),
    "an unknown opcode": b"\x83\x80" + bytes(4),
    "an unknown control opcode": b"\x8b\x80" + bytes(4),
    "compressed without agreement": b"\xc1\x80" + bytes(4),
    "another reserved bit": b"\xa1\x80" + bytes(4),
    "a continuation of nothing": frame(Opcode.CONT, b"x"),
    "a text within a text": frame(Opcode.TEXT, b"x", fin=False) + frame(Opcode.TEXT, b"y"),
    "a length with its top bit": b"\x81\xff" + b"\xff" * 8 + bytes(4),
    "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_frames_close_the_socket(case: str, port: int) -> None:
    with wire(port) as opened:
        opened.send(BROKEN[case])
        assert opened.code() in (1002, 1009)


def test_fifty_thousand_fragments_are_one_message(served: Served) -> None:
    body = nucleus_body("x" * (200_000 if FULL else 20_000))
    with wire(served.collect_port) as opened:
        pieces = [frame(Opcode.TEXT, b"", fin=False)]
        pieces += [frame(Opcode.CONT, body[at : at + 1], fin=False) for at in range(len(body))]
        pieces.append(frame(Opcode.CONT, b""))
        opened.send(b"".join(pieces))
        assert len(msgspec.json.decode(opened.message())["reportedIds"]) == 1


def flood(opened: Wire, piece: bytes, bytes_max: int) -> int:
    """Send until the server takes no more for a second, or `bytes_max`; how much it took."""
    opened.socket.setblocking(False)
    sent = 0
    quiet_since = time.monotonic()
    while sent < bytes_max and time.monotonic() - quiet_since < 1.0:
        try:
            sent += opened.socket.send(piece[sent % len(piece) :])
            quiet_since = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
        except ConnectionError:
            break
    opened.socket.settimeout(20)
    return sent


#: What a flood may leave in the worker beyond what it had: bounds of one socket, and slack.
FLOOD_BYTES_MAX = 48 * MIB


def test_a_flood_of_messages_that_nobody_reads_is_not_read_on(served: Served) -> None:
    """The socket is paused; what it has sent is acknowledged in order once it reads."""
    (worker,) = workers(served)
    works(served.collect_port, "beforeflood")
    before = resident_bytes(worker)
    name = "flood" + "x" * 20_000  # it is acknowledged by it
    piece = frame(Opcode.TEXT, nucleus_body(name))
    with wire(served.collect_port, receive_bytes=4_096) as opened:
        taken = flood(opened, piece, (512 if FULL else 96) * MIB)
        assert resident_bytes(worker) - before < FLOOD_BYTES_MAX
        works(served.collect_port, "besideflood")
        whole = taken // len(piece)
        assert whole > 16
        for _ in range(min(whole, 50)):
            assert msgspec.json.decode(opened.message()) == {"reportedIds": [name]}


def test_a_flood_of_pings_that_nobody_reads_is_not_read_on(served: Served) -> None:
    (worker,) = workers(served)
    before = resident_bytes(worker)
    with wire(served.collect_port, receive_bytes=4_096) as opened:
        flood(opened, frame(Opcode.PING, bytes(125)) * 500, (256 if FULL else 48) * MIB)
        assert resident_bytes(worker) - before < FLOOD_BYTES_MAX
        works(served.collect_port, "besidepings")


def test_a_flood_of_pings_that_are_read_slows_nobody(served: Served) -> None:
    with wire(served.collect_port) as opened:
        for _ in range(50):
            opened.send(frame(Opcode.PING, b"p") * 200)
            for _ in range(200):
                assert opened.frame() == (0x8A, b"p")
        began = time.monotonic()
        works(served.collect_port, "amongpings")
        assert time.monotonic() - began < 2


#: What a message that does not end is made of. (Fragments are counted as bytes in flight.)
HALVES = {
    "one frame each": [begun(12 * MIB) + bytes(11 * MIB)],
    "fragments": [frame(Opcode.TEXT, bytes(MIB), fin=False)]
    + [frame(Opcode.CONT, bytes(MIB), fin=False)] * 10,
}


@pytest.mark.parametrize("case", HALVES)
def test_messages_that_do_not_end_are_bounded_together(case: str, tmp_path: Path) -> None:
    """Many sockets, each below its own bound: what they hold counts as bytes in flight, and
    others are served all the same."""
    with Served(tmp_path, ACCOUNTS, command="collect") as fresh:
        (worker,) = workers(fresh)
        before = resident_bytes(worker)
        opened = [Wire(fresh.collect_port) for _ in range(40 if FULL else 16)]
        try:
            for one in opened:
                for piece in HALVES[case]:
                    one.send(piece)
            time.sleep(0.3)
            assert resident_bytes(worker) - before < limits.inflight_bytes_max + FLOOD_BYTES_MAX
            works(fresh.collect_port, "besidehalves")
        finally:
            for one in opened:
                one.socket.close()
