"""What the store is asked for and told about people: plain values, known to both sides.

Ids are 16 bytes. An *order* is 36 bytes that compare bytewise as events follow each other
(identity, rule 6): ordered_at as int64 microseconds with the sign bit flipped, received_at in
microseconds, both 8 bytes big-endian, the request's id, and the index in it, 4 bytes big-endian.
"""

from __future__ import annotations

import msgspec


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """A stored event that carries one of some keys. `identities` are (namespace, strength, key) of
    those of its identities that have a key; `alias` marks Gamooga's `/id/` with several `u`."""

    order: bytes
    event_id: bytes
    dialect: str
    alias: bool
    identities: list[tuple[str, str, bytes]]


class Merge(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Two people who became one at `at` (microseconds): `gone` resolves to `kept` for ever. `cause`
    is the event that asserted the pair of keys `first` and `second`. `undone_at` is when the pair
    was withdrawn. With `gone_away` the merge has never been: no evidence is left for it."""

    account: str
    merge_id: bytes
    at: int
    kept: bytes
    gone: bytes
    cause: bytes
    first: bytes
    second: bytes
    undone_at: int | None = None
    gone_away: bool = False


class Moment(msgspec.Struct, frozen=True, gc=False):
    """An event of a dialect whose sessions are derived, as a reader sees it now. `ordered_at` is in
    microseconds."""

    person: bytes
    dialect: str
    scope: str
    ordered_at: int
    order: bytes
    session_id: bytes | None


class Resession(msgspec.Struct, frozen=True, gc=False):
    """The sessions of one person in one scope, instead of those that the rows were loaded with: an
    event has ``sessions[i]`` of the last ``bounds[i] <= ordered_at`` (microseconds, rising). Before
    the first bound, and where the session is NOBODY, it keeps the one that it was loaded with."""

    account: str
    dialect: str
    scope: str
    person: bytes
    bounds: list[int]
    sessions: list[bytes]


class Pulse(msgspec.Struct, frozen=True, gc=False):
    """A sign of life of a session that is no event: a heartbeat, or with `closed` a clean close.
    `at` is in microseconds."""

    account: str
    session_id: bytes
    at: int
    closed: bool = False
