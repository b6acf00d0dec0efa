"""Keys, orders and pieces: what attribution is computed with.

A *key* is one identifier of one account; its id is 16 bytes, shaped like a UUIDv8, and **a person's
id is the id of one of its keys**, so that every id that was ever shown can be resolved for ever.

An *order* is 36 bytes that sort like (ordered_at, received_at, request_id, index), see identity,
rule 6.

*Pieces* say who owns a key when: ``[(from order, owner), …]``, ascending. The first piece reaches
back for ever; its order is that of the assertion that began it. No pieces: nobody owns it.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable
from hashlib import blake2b

ID_BYTES = 16
ORDER_BYTES = 36
#: In columns of ids: nobody, nothing.
NOBODY = bytes(ID_BYTES)
#: Before every order.
START = b""

Piece = tuple[bytes, bytes]
Pieces = tuple[Piece, ...]

_ORDER = struct.Struct(">QQ16sI")
_SHIFT = 2**63
_TIME_MAX = 2**64 - 1

# What a key is, as one letter in the registry.
STRONG = "s"  # names a person: user ids, an email together with a browser's id
WEAK = "w"  # owned by strong keys in turn: nucleus:anon, nucleus:device, gamooga:visitor
BROWSER = "b"  # vibetrace:user: weak, and owned by emails
EMAIL = "e"  # strong where some browser was asserted together with it, else unknown
BOUND = "t"  # vibetrace:session, vibetrace:vtsid: stands for a browser
INSTANCE = "i"  # orbee:instance
VISITOR = "d"  # orbee:duid


def order_bytes(at: int, received_at: int, request_id: bytes, index: int) -> bytes:
    """The order of an event; times in microseconds since 1970, `request_id` 16 bytes."""
    return _ORDER.pack(min(max(at + _SHIFT, 0), _TIME_MAX), max(received_at, 0), request_id, index)


def time_of(order: bytes) -> int:
    """The first part of an order: ordered_at in microseconds."""
    return int.from_bytes(order[:8], "big") - _SHIFT


def key_id(account: str, namespace: str, scope: str, value: str) -> bytes:
    """The id of a key."""
    return id_of("\0".join((account, namespace, scope, value)).encode("utf-8", "surrogatepass"))


def reborn(key: bytes, generation: int) -> bytes:
    """The id of a key that has been erased `generation` times: what is received after an erasure
    is somebody new."""
    return id_of(key + generation.to_bytes(4, "big")) if generation else key


def id_of(text: bytes) -> bytes:
    """16 bytes shaped like a UUIDv8 (RFC 9562, section 5.8) that stand for a text."""
    digest = bytearray(blake2b(text, digest_size=ID_BYTES).digest())
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return bytes(digest)


def joint_id(*ids: bytes) -> bytes:
    """The id of several keys taken together, in this order."""
    return id_of(b"".join(ids))


def owner_at(pieces: Pieces, order: bytes) -> bytes | None:
    """Who owns a key at an order; None for nobody."""
    if not pieces:
        return None
    place = bisect_right(pieces, order, key=_since) - 1
    return pieces[max(place, 0)][1]


def _since(piece: Piece) -> bytes:
    return piece[0]


def runs(assertions: Iterable[Piece]) -> Pieces:
    """Pieces from assertions in order: neighbours of one owner are one piece."""
    found: list[Piece] = []
    for order, owner in assertions:
        if not found or found[-1][1] != owner:
            found.append((order, owner))
    return tuple(found)


def pack(pieces: Pieces) -> bytes:
    """Pieces as the registry keeps them, 52 bytes each."""
    return b"".join([since + owner for since, owner in pieces])


def unpack(blob: bytes) -> Pieces:
    """The inverse of `pack`."""
    size = ORDER_BYTES + ID_BYTES
    return tuple(
        (blob[at : at + ORDER_BYTES], blob[at + ORDER_BYTES : at + size])
        for at in range(0, len(blob), size)
    )
