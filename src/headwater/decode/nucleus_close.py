"""The end of a Nucleus WebSocket: which sessions its messages carried, and what its end says.

`sessions_carried` is asked before the answer, for messages whose bytes do not show that they speak
of the session known already; it skips through a message as ``nucleus_message.heads`` does. A
message that it cannot read whole (one odd event is enough) says nothing: then a session ends by
silence.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw

from headwater import limits
from headwater.accept.liveness import CLOSE, Carried
from headwater.accept.request import Request
from headwater.decode.json_body import JSON_ERRORS
from headwater.decode.nucleus_message import ABSENT
from headwater.decode.nucleus_who import WHO_FIELDS, who_of
from headwater.event import Sign

__all__ = ["CLOSE", "sessions_carried", "signs_of_close"]

#: The client meant to end it (card, section 4): normally, going away, without saying why.
_CLEAN = frozenset({1000, 1001, 1005})
#: A session's owner as ``resolve.client_sessions`` finds it.
_OWNERS = ("nucleus:device", "nucleus:anon", "nucleus:user")


class _Said(msgspec.Struct, gc=False):
    """WHO_FIELDS, in their order, as raw text."""

    userId: Raw = ABSENT
    anonId: Raw = ABSENT
    deviceId: Raw = ABSENT
    machineId: Raw = ABSENT
    sessionId: Raw = ABSENT


class _Message(msgspec.Struct, gc=False):
    data: list[_Said]


class _Close(msgspec.Struct, gc=False):
    code: int = 1006
    silent_ms: int = 0
    data: list[dict[str, Any]] = []


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_close = msgspec.json.Decoder(_Close).decode
_decode = msgspec.json.Decoder().decode


def sessions_carried(body: bytes) -> Carried:
    """The sessions of which the last events of a message speak, at most
    `websocket_sessions_max`."""
    try:
        said = _decode_message(body).data
    except JSON_ERRORS:
        return Carried({}, b"")
    distinct: dict[tuple[bytes, ...], None] = {}
    for one in reversed(said):
        if len(distinct) >= limits.websocket_sessions_max:
            break
        if one.sessionId:
            values = (one.userId, one.anonId, one.deviceId, one.machineId, one.sessionId)
            distinct[tuple(map(bytes, values))] = None
    found: dict[str, bytes] = {}
    for raw in reversed(distinct):
        key = _key(raw)
        if key is not None:
            pieces = [
                b'"%b":%b' % (n.encode(), v) for n, v in zip(WHO_FIELDS, raw, strict=True) if v
            ]
            found.pop(key, None)
            found[key] = b"{%b}" % b",".join(pieces)
    mark = _mark(body, next(iter(distinct))) if len(distinct) == len(found) == 1 else b""
    return Carried(found, mark)


def _key(raw: tuple[bytes, ...]) -> str | None:
    """What makes two messages speak of one session: its owner and its text."""
    if sum(map(len, raw)) > limits.websocket_session_bytes_max:
        return None
    try:
        who = who_of([_decode(value) if value else None for value in raw], "")
    except JSON_ERRORS:
        return None
    if who.session is None:
        return None
    for namespace in _OWNERS:
        for one in who.identities:
            if one.namespace == namespace and not one.denied:
                return f"{namespace}\0{one.value}\0{who.session}"
    return None


def _mark(body: bytes, raw: tuple[bytes, ...]) -> bytes:
    """The stretch of a message's text in which the five fields stand together: where it is found
    again, the same is said again. Empty when they stand far apart."""
    starts, ends = [], []
    for name, value in zip(WHO_FIELDS, raw, strict=True):
        if value:
            found = re.search(b'"%b"\\s*:\\s*%b.' % (name.encode(), re.escape(value)), body)
            if found is None:
                return b""
            starts.append(found.start())
            ends.append(found.end())
    start, end = min(starts), max(ends)
    return body[start:end] if end - start <= limits.websocket_session_bytes_max else b""


def signs_of_close(request: Request, app: str) -> list[Sign]:
    """What the record of a close says (``accept.liveness`` writes it). A connection that was lost
    was alive for as long as something came in."""
    try:
        close = _decode_close(request.body)
    except JSON_ERRORS:
        return []
    at = None if close.silent_ms <= 0 else request.received_at - close.silent_ms * 1_000
    signs = []
    for item in close.data:
        who = who_of([item.get(field) for field in WHO_FIELDS], app)
        if who.session is not None:
            signs.append(
                Sign(
                    session=who.session,
                    scope=app,
                    identities=who.identities,
                    occurred_at=at,
                    closed=close.code in _CLEAN,
                )
            )
    return signs
