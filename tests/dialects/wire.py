"""Sends a case as it stands over a real socket, and reads the answer with an independent parser.

Each case leaves from a loopback address of its own (127.x.y.z), so that the request it became is
found in the journal by its peer address, whatever it holds.
"""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

import msgspec
import websockets.sync.client
from websockets.exceptions import InvalidStatus

from tests.dialects.case import Case, as_bytes

ANSWER_SECONDS_MAX = 10.0
MESSAGE_BYTES_MAX = 32 * 1024 * 1024


class Answered(msgspec.Struct, frozen=True):
    """What came back; header names in lower case. A WebSocket message has status 101."""

    status: int
    headers: dict[str, str]
    body: bytes


def source_address(number: int) -> str:
    """The loopback address that case `number` (below 65,000) leaves from."""
    return f"127.77.{number // 250}.{number % 250 + 1}"


def send(case: Case, url: str, *, token: str, source: str) -> Answered:
    """Send `case` to the collector at `url` from the address `source`."""
    at = urlsplit(url)
    assert at.hostname is not None
    assert at.port is not None
    headers = {name: value.replace("$token", token) for name, value in case.headers.items()}
    with socket.create_connection(
        (at.hostname, at.port), ANSWER_SECONDS_MAX, source_address=(source, 0)
    ) as connection:
        if case.websocket:
            return _message(case, connection, f"{at.hostname}:{at.port}", headers)
        return _request(case, connection, f"{at.hostname}:{at.port}", headers)


def _request(case: Case, connection: socket.socket, host: str, headers: dict[str, str]) -> Answered:
    names = {name.lower() for name in headers}
    lines = [case.method.encode() + b" " + as_bytes(case.target) + b" HTTP/1.1"]
    if "host" not in names:
        lines.append(f"Host: {host}".encode())
    lines += [as_bytes(name) + b": " + as_bytes(value) for name, value in headers.items()]
    if "content-length" not in names and (case.body or case.method in ("POST", "PUT")):
        lines.append(f"Content-Length: {len(case.body)}".encode())
    connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + case.body)
    answer = http.client.HTTPResponse(connection, method=case.method)
    try:
        answer.begin()
        body = answer.read()
        return Answered(
            answer.status, {name.lower(): value for name, value in answer.getheaders()}, body
        )
    finally:
        answer.close()


def _message(case: Case, connection: socket.socket, host: str, headers: dict[str, str]) -> Answered:
    given = {name: value for name, value in headers.items() if name.lower() != "host"}
    try:
        client = websockets.sync.client.connect(
            f"ws://{host}{case.target}",
            sock=connection,
            additional_headers=given,
            user_agent_header=None,
            open_timeout=ANSWER_SECONDS_MAX,
            max_size=MESSAGE_BYTES_MAX,
        )
    except InvalidStatus as refused:
        return Answered(
            refused.response.status_code,
            {name.lower(): value for name, value in refused.response.headers.raw_items()},
            bytes(refused.response.body or b""),
        )
    with client:
        client.send(case.body if case.binary else case.body.decode())
        reply = client.recv(ANSWER_SECONDS_MAX)
        assert isinstance(reply, str), "a reply must be a text frame"
        return Answered(101, {}, reply.encode())
