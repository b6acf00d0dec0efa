"""What a decoder makes of a request: events, and what could not become one.

These are wire-independent and have no clock: a decoder gives the same value for the same request,
today and in a replay. Times are integers, microseconds since 1970 in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

Kind = Literal["track", "page", "session_start", "identify", "profile", "error"]
Strength = Literal["strong", "weak", "correlation", "lookup", "context"]


class Identity(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One identifier as it was on the wire.

    `denied` marks sentinel values (``"0"``, ``"null"`` …) that assert nothing and are kept all the
    same (dialects, shared rule 5). `scope` is the namespace's own scope (identity, section 2):
    a client group, an appId, a company; empty for the whole account.
    """

    namespace: str
    scope: str
    value: str
    strength: Strength
    denied: bool = False


class Issue(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Something odd that was accepted all the same: a code, the field, a detail in words."""

    code: str
    field: str = ""
    detail: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.code, self.field, self.detail) if part)


class Event(msgspec.Struct, kw_only=True, gc=False):
    """One decoded event, before it is known who did it.

    `occurred_at` is the client's time in microseconds, None where it gave none or an unreadable one
    (received_at counts then). `session` is the client's own session id as text. `dedupe` is the raw
    dedupe key (16 bytes) where the dialect has one. `raw` holds the vendor's own words (raw type,
    action, object, raw date). `index` is the place in the request's list.
    """

    index: int
    kind: Kind
    name: str
    scope: str
    occurred_at: int | None = None
    identities: list[Identity] = msgspec.field(default_factory=list)
    session: str | None = None
    properties: dict[str, Any] = msgspec.field(default_factory=dict)
    profile_set: dict[str, Any] = msgspec.field(default_factory=dict)
    profile_unset: list[str] = msgspec.field(default_factory=list)
    context: dict[str, Any] = msgspec.field(default_factory=dict)
    raw: dict[str, Any] = msgspec.field(default_factory=dict)
    issues: list[Issue] = msgspec.field(default_factory=list)
    dedupe: bytes | None = None


_DAY = 86_400_000_000


def effective_at(event: Event | Sign, received_at: int) -> int:
    """When an event counts as having happened (identity, rule 6), in microseconds: at its own time,
    or where it gave none, or one more than 24 h ahead or 30 days behind, when it was received."""
    at = event.occurred_at
    if at is not None and -_DAY <= received_at - at <= 30 * _DAY:
        return at
    return received_at


class Rejection(msgspec.Struct, kw_only=True, gc=False):
    """What could not become an event: a typed reason, words, and the piece it speaks of.

    `index` is the place in the request's list, 0 for a request as a whole; `piece` is the text of
    the refused item, empty when it is the whole request.
    """

    index: int
    reason: str
    detail: str = ""
    scope: str = ""
    piece: str = ""


class Sign(msgspec.Struct, kw_only=True, gc=False):
    """A sign of life of a client's session that is no event: a heartbeat, or the end of a
    connection that carried it. `session` and `identities` are an event's, and find the session in
    the same way. `occurred_at` as in Event. `closed`: the client ended it cleanly."""

    session: str
    scope: str
    identities: list[Identity] = msgspec.field(default_factory=list)
    occurred_at: int | None = None
    closed: bool = False


class Violation(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event that breaks its account's tracking plan: its row in `events`, -1 where it was
    rejected for it; the mode by which it was judged, and what is broken, in words of the plan."""

    row: int
    name: str
    mode: str
    rules: list[str]


class Decoded(msgspec.Struct, kw_only=True, gc=False):
    """All that one request holds: received = len(events) + len(rejected) + heartbeats. `signs` are
    the heartbeats that name their session, and a closed connection's, which count as nothing, as
    `violations` do, which speak of events and rejections."""

    events: list[Event] = msgspec.field(default_factory=list)
    rejected: list[Rejection] = msgspec.field(default_factory=list)
    heartbeats: int = 0
    signs: list[Sign] = msgspec.field(default_factory=list)
    violations: Sequence[Violation] = ()

    @property
    def received(self) -> int:
        return len(self.events) + len(self.rejected) + self.heartbeats
