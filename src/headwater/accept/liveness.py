"""Which clients' sessions the open WebSockets of a process carry, so that an end can be told.

Theory of operation. A client's session is alive for as long as any socket carries it: a client may
open two and leave one behind. So sockets are counted by session, and a socket's end is worth a
record for those of its sessions that no other open socket of this process carries. Other processes
are not asked: what they still hear of the session says that it goes on, since an end counts only
unless the session is seen again.

The record is a request of its own in the journal (endpoint ``close``, no event)::

    {"code":1005,"silent_ms":0,"data":[{"deviceId":"d1","sessionId":4821}]}

`code` is the close code as this side saw it, 1006 for a connection that was lost, and `silent_ms`
how long nothing had come in by then. Nobody waits for it, and it may be lost, with a full journal
or a killed process: then the session ends later, by silence.

What this side ends is no record, because it is not the client's end: a drain (1001), a full journal
(1013), a broken frame (1002). Such a client comes back, and its session goes on. But silence beyond
`websocket_idle_seconds_max` is: the client has gone, and it counts as 1006.

A message costs one search for a stretch of bytes that names the session known already; only where
it is not found the dialect is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from headwater import limits

#: The endpoint of a record.
CLOSE = "close"


class Carried(NamedTuple):
    """What a message says about sessions. `sessions` by a key that is equal where the session is,
    each as the JSON object by which the dialect knows it again. `mark`: bytes; a message that holds
    them speaks of just that one session. Empty for none."""

    sessions: dict[str, bytes]
    mark: bytes


Carrying = Callable[[bytes], Carried]
#: Account, dialect and app, or what names the tenant in a dialect.
Tenant = tuple[str, str, str]


class OpenSessions:
    """How many open sockets of this process carry each session."""

    def __init__(self) -> None:
        self._sockets: dict[tuple[Tenant, str], int] = {}

    def __len__(self) -> int:
        return len(self._sockets)

    def open(self, tenant: Tenant, session: str) -> None:
        key = (tenant, session)
        self._sockets[key] = self._sockets.get(key, 0) + 1

    def close(self, tenant: Tenant, session: str) -> bool:
        """Whether no other socket carries it."""
        key = (tenant, session)
        left = self._sockets[key] - 1
        if left:
            self._sockets[key] = left
            return False
        del self._sockets[key]
        return True


class Socket:
    """What one socket carries: the `websocket_sessions_max` sessions that it spoke of last."""

    __slots__ = ("_carrying", "_mark", "_open", "_sessions", "tenant")

    def __init__(self, open_sessions: OpenSessions, carrying: Carrying) -> None:
        self._open = open_sessions
        self._carrying = carrying
        self._sessions: dict[str, bytes] = {}
        self._mark = b""
        self.tenant: Tenant = ("", "", "")

    def carry(self, tenant: Tenant, body: bytes) -> None:
        """A message was taken."""
        if self._mark and self._mark in body and self.tenant == tenant:
            return
        found, mark = self._carrying(body)
        if self.tenant != tenant:  # the first message, or a reload gave the app to another account
            self.end()
            self.tenant = tenant
        self._mark = mark
        sessions = self._sessions
        for key, item in found.items():
            if sessions.pop(key, None) is None:
                self._open.open(tenant, key)
            sessions[key] = item
        while len(sessions) > limits.websocket_sessions_max:
            oldest = next(iter(sessions))
            del sessions[oldest]
            self._open.close(tenant, oldest)

    def end(self) -> list[bytes]:
        """Carry nothing any more: the sessions that no other socket carries."""
        sessions, self._sessions, self._mark = self._sessions, {}, b""
        return [item for key, item in sessions.items() if self._open.close(self.tenant, key)]


def record(code: int, silent_ms: int, sessions: list[bytes]) -> bytes:
    """The body of a close's record."""
    return b'{"code":%d,"silent_ms":%d,"data":[%b]}' % (code, silent_ms, b",".join(sessions))
