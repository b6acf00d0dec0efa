"""What the tests of the trust table share: two accounts, raw sockets, and what became of it all.

Every payload leaves from a loopback address of its own, so that what it became is found in the
journal by that address, whatever it holds.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from headwater.accept.request import Request
from headwater.journal.journal import Position
from headwater.journal.sqlite import SqliteReader
from tests.served import Served, children, command_of

#: The full size: HEADWATER_FULL=1.
FULL = bool(os.environ.get("HEADWATER_FULL"))
SECONDS_MAX = 10.0


class Keys(NamedTuple):
    """What one account is known by in each dialect."""

    token: str
    tracker: str
    app: str
    shop: str
    company: str


ACME = Keys(
    "acme-token",
    "1/1",
    "6387f260fae4a13be78fc664",
    "ACCT123",
    "dcaf55cc-b36d-4d0e-9003-f93187c04886",
)
OTHER = Keys("other-token", "2/7", "otherApp", "OTHER9", "0b0d0f7e-6f0a-4b53-9c0e-3f4c1d2e5a60")
#: Taken out of the configuration by a reload.
REVOKED = Keys(
    "revoked-token", "3/3", "revokedApp", "GONE1", "7d1f2a34-1111-4222-8333-123456789abc"
)
#: Never configured.
UNKNOWN = Keys(
    "unknown-token", "9/9", "unknownApp", "NOBODY", "99999999-9999-4999-8999-999999999999"
)


def digest(token: str) -> str:
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


def account(name: str, keys: Keys) -> str:
    """An account's table, as TOML."""
    return f"""
[accounts.{name}.vaix]
tokens = ["{digest(keys.token)}"]
[accounts.{name}.orbee]
trackers = ["{keys.tracker}"]
[accounts.{name}.nucleus]
apps = ["{keys.app}"]
[accounts.{name}.vibetrace]
accounts = ["{keys.shop}"]
[accounts.{name}.gamooga]
companies = ["{keys.company}"]
"""


ACCOUNTS = account("acme", ACME) + account("other", OTHER)


# --- requests ----------------------------------------------------------------------------------


def request(
    method: str, target: str, *headers: str, body: bytes = b"", length: bool = True
) -> bytes:
    """One HTTP/1.1 request; its Content-Length is true unless `length` is False."""
    lines = [f"{method} {target} HTTP/1.1", "Host: collect.test", *headers]
    if length and (body or method == "POST"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def bearer(token: str) -> tuple[str, str]:
    """The headers of a VAIX request."""
    return f"Authorization: Bearer {token}", "x-vaix-client-id: g1"


def vaix(name: str, *headers: str, keys: Keys = ACME) -> bytes:
    """A good VAIX event of type ``trust:<name>``."""
    body = b'{"user_id":"u","event_type":"trust:%b","data":{}}' % name.encode()
    return request("POST", "/api/tracker/events", *bearer(keys.token), *headers, body=body)


def source(row: int, number: int) -> str:
    """The loopback address that payload `number` (below 62,500) of row S`row` leaves from."""
    return f"127.{100 + row}.{number // 250}.{number % 250 + 1}"


# --- answers -----------------------------------------------------------------------------------


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Heard(NamedTuple):
    """What a connection said: its answers, whether it ended, and what was no whole answer."""

    answers: list[Answer]
    ended: bool
    rest: bytes

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]


def answers_of(said: bytes) -> tuple[list[Answer], bytes]:
    """The whole answers in a stream, and what follows them."""
    found: list[Answer] = []
    while True:
        head, mark, rest = said.partition(b"\r\n\r\n")
        if not mark:
            return found, said
        first, *lines = head.decode("latin-1").split("\r\n")
        status = re.fullmatch(r"HTTP/1\.1 (\d{3}) [A-Za-z '-]*", first)
        assert status, first
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(": ")
            assert colon, line
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return found, said
        found.append(Answer(int(status[1]), headers, rest[:length]))
        said = rest[length:]


def talk(
    port: int,
    *pieces: bytes,
    source: str = "127.0.0.1",
    count: int | None = None,
    half_close: bool = False,
    pause: float = 0.0,
    seconds: float = SECONDS_MAX,
) -> Heard:
    """Send `pieces` over a new connection and listen: to `count` answers, or until it ends.

    `half_close` sends the end of the stream behind them; `pause` is waited between them.
    """
    said = b""
    ended = False
    with socket.create_connection(("127.0.0.1", port), seconds, source_address=(source, 0)) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):  # it may refuse before it has heard everything
            for number, piece in enumerate(pieces):
                if number:
                    time.sleep(pause)
                wire.sendall(piece)
            if half_close:
                wire.shutdown(socket.SHUT_WR)
        until = time.monotonic() + seconds
        while count is None or len(answers_of(said)[0]) < count:
            wire.settimeout(max(0.001, until - time.monotonic()))
            try:
                piece = wire.recv(65_536)
            except ConnectionError:
                piece = b""
            except TimeoutError:
                break
            if not piece:
                ended = True
                break
            said += piece
    found, rest = answers_of(said)
    return Heard(found, ended, rest)


def ask(port: int, data: bytes, *, source: str = "127.0.0.1") -> Answer:
    """One request on a new connection, and its answer."""
    heard = talk(port, data, source=source, count=1)
    assert heard.answers, f"no answer: {heard.rest!r}"
    return heard.answers[0]


def ask_all(
    port: int, data: list[bytes], *, source: str = "127.0.0.1", window: int = 16
) -> list[Answer]:
    """Many requests, pipelined `window` at a time, and their answers in order. What stands behind a
    request that ended its connection is sent again, over the next one."""
    found: list[Answer] = []
    while len(found) < len(data):
        with socket.create_connection(
            ("127.0.0.1", port), SECONDS_MAX, source_address=(source, 0)
        ) as wire:
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            began = len(found)
            while len(found) < len(data) and (
                more := _window(wire, data[len(found) : len(found) + window])
            ):
                found += more
            assert len(found) > began, f"no answer to {data[began][:200]!r}"
    return found


def _window(wire: socket.socket, data: list[bytes]) -> list[Answer]:
    """The answers to some pipelined requests; fewer, or none, where the connection ended."""
    with suppress(ConnectionError):
        wire.sendall(b"".join(data))
    said = b""
    while len(found := answers_of(said)[0]) < len(data):
        try:
            piece = wire.recv(65_536)
        except ConnectionError:
            break
        if not piece:
            break
        said += piece
    return found


# --- what became of it -------------------------------------------------------------------------


class _Kept:
    """What a journal holds, by the address it came from; read on from where it was read to."""

    def __init__(self, data: Path) -> None:
        self._folder = data / "journal"
        self._after: dict[int, Position] = {}
        self.found: dict[str, list[Request]] = {}

    def read(self) -> dict[str, list[Request]]:
        reader = SqliteReader(self._folder)
        try:
            for writer in reader.writers():
                after = self._after.get(writer, Position(writer, 0))
                while batches := reader.read(after, batches_max=100, bytes_max=32 * 1024 * 1024):
                    for batch in batches:
                        for one in batch.requests:
                            self.found.setdefault(one.peer, []).append(one)
                    after = batches[-1].position
                self._after[writer] = after
        finally:
            reader.close()
        return self.found


_kept = functools.cache(_Kept)


def journaled(data: Path) -> dict[str, list[Request]]:
    """Everything in the journal, by the address it came from, in order."""
    return _kept(data).read()


def kept_from(served: Served, row: int) -> dict[str, list[Request]]:
    """What the journal has of a row's payloads, by the address they left from."""
    mark = f"127.{100 + row}."
    return {peer: found for peer, found in journaled(served.data).items() if peer.startswith(mark)}


def workers(served: Served) -> list[int]:
    """The process ids of the collector's workers."""
    return [pid for pid in children(served.pid) if "headwater.collector" in command_of(pid)]


def resident_bytes(pid: int) -> int:
    """What a process holds in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def complaints(served: Served) -> list[str]:
    """Lines of the log that speak of an error."""
    lines = served.log.read_text(errors="replace").splitlines()
    return [line for line in lines if re.search(r"\b(ERROR|CRITICAL|Traceback)\b", line)]
