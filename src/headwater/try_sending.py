"""Sends one request to the collector's own port, over HTTP or a WebSocket, within bounds.

Where to is the collector's listening address and nothing that a caller says; of a request's text
only the path and query reach the request line.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

import msgspec
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import connect

from headwater import limits
from headwater.errors import StoreError, WrongUse
from headwater.folder import CollectAddress

#: What frames a message is ours to say.
_FRAMING = frozenset(
    {
        *("connection", "content-length", "expect", "keep-alive", "te", "trailer"),
        *("transfer-encoding", "upgrade", "sec-websocket-key", "sec-websocket-version"),
        *("sec-websocket-extensions", "sec-websocket-protocol", "sec-websocket-accept"),
    }
)
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
#: Printable ASCII but the space and "#", which no target has.
_TARGET_SAFE = "".join(chr(n) for n in range(0x21, 0x7F) if chr(n) != "#")
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"})


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What came back; of a WebSocket its first message, with status 101. `note` in words."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    seconds: float
    note: str = ""


def reachable(at: CollectAddress | None) -> str:
    """The collectors' URL as this machine reaches it, "" for none: every address is loopback's
    here."""
    if at is None:
        return ""
    return at.collect.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def clean_target(target: str) -> str:
    """A path with its query as it can stand in a request line. Raises WrongUse."""
    if not target.startswith("/"):
        raise WrongUse(
            "the target must be a path", remedy='begin with "/": requests go to this collector only'
        )
    return quote(target, safe=_TARGET_SAFE)


def check_head(method: str, headers: Mapping[str, str]) -> None:
    """Raises WrongUse for what is no header or method of a client's."""
    if method not in _METHODS:
        raise WrongUse(
            f'no such method: "{method[:20]}"', remedy="GET and POST are what clients use"
        )
    if len(headers) > limits.header_count_max:
        raise WrongUse("too many headers", remedy=f"at most {limits.header_count_max}")
    for name, value in headers.items():
        if not name or not _TOKEN.issuperset(name):
            raise WrongUse(f'no name of a header: "{name[:60]}"', remedy="letters, digits and -")
        if name.lower() in _FRAMING:
            raise WrongUse(f"{name} is set by the sender", remedy="leave it out")
        if any((ord(c) < 0x20 and c != "\t") or c == "\x7f" for c in value):
            raise WrongUse(f"{name} holds a control character", remedy="take it out")


def send(
    collector: str, method: str, target: str, headers: Mapping[str, str], body: bytes
) -> Answered:
    """Over HTTP. Raises StoreError where the collector does not answer."""
    at = urlsplit(collector)
    began = time.monotonic()
    connection = http.client.HTTPConnection(
        at.hostname or "", at.port, timeout=limits.try_seconds_max
    )
    given = {name.lower() for name in headers}
    try:
        connection.putrequest(method, target, skip_host="host" in given, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, _bytes(value))
        if body or method in ("POST", "PUT", "PATCH"):
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        text = answer.read(limits.try_answer_bytes_max + 1)
        return Answered(
            status=answer.status,
            reason=answer.reason,
            headers=answer.getheaders(),
            body=text[: limits.try_answer_bytes_max],
            seconds=time.monotonic() - began,
        )
    except (OSError, http.client.HTTPException) as error:
        raise _silent(collector, error) from error
    finally:
        connection.close()


def send_message(collector: str, target: str, headers: Mapping[str, str], message: str) -> Answered:
    """As one text message of a WebSocket of its own. Raises StoreError where the collector does not
    answer."""
    began = time.monotonic()
    given = [(name, value) for name, value in headers.items() if name.lower() != "host"]
    try:
        with connect(
            "ws" + collector.removeprefix("http") + target,
            additional_headers=given,
            user_agent_header=None,
            compression=None,
            proxy=None,
            open_timeout=limits.try_seconds_max,
            close_timeout=1,
            max_size=limits.try_answer_bytes_max,
        ) as client:
            client.send(message)
            try:
                reply = client.recv(limits.try_seconds_max)
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd is not None else 1006
                return _closed(code, time.monotonic() - began)
            text = reply.encode() if isinstance(reply, str) else reply
            return Answered(
                status=101,
                reason="message",
                headers=[],
                body=text,
                seconds=time.monotonic() - began,
            )
    except InvalidStatus as refused:
        answer = refused.response
        return Answered(
            status=answer.status_code,
            reason=answer.reason_phrase,
            headers=list(answer.headers.raw_items()),
            body=bytes(answer.body or b"")[: limits.try_answer_bytes_max],
            seconds=time.monotonic() - began,
            note="the WebSocket was refused at its handshake",
        )
    except (OSError, WebSocketException) as error:
        raise _silent(collector, error) from error


def _closed(code: int, seconds: float) -> Answered:
    return Answered(
        status=101,
        reason="closed",
        headers=[],
        body=b"",
        seconds=seconds,
        note=f"the collector closed the WebSocket with {code} and no answer",
    )


def _bytes(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode()


def _silent(collector: str, error: Exception) -> StoreError:
    return StoreError(
        f"the collector at {collector} did not answer: {type(error).__name__}",
        remedy="is it running? the health page says more; a dry run needs none",
    )
