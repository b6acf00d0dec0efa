"""Request ids: UUIDv7 (RFC 9562, section 5.7), in the order in which requests arrived.

48 bits of milliseconds, the microseconds of that millisecond in the 12 bits after the version
(section 6.2, method 3), a 22-bit count of ids within one microsecond, and 40 random bits that are
this process's own, so that workers cannot collide.
"""

from __future__ import annotations

import secrets
import struct

_pack = struct.Struct(">QQ").pack
_COUNT_MAX = (1 << 22) - 1
#: A clock that was set back by more than this is followed; by less, ids go on from where they were.
_BACKWARDS_MAX = 10_000_000


class RequestIds:
    """A source of ids, each greater than the one before; one for a process."""

    def __init__(self) -> None:
        self._last = 0
        self._count = 0
        self._millisecond = 0  # that `_last` lies in: its start, in microseconds
        self._high = 0  # the first half of that millisecond's ids
        self._low = 1 << 63 | secrets.randbits(40)

    def next(self, at: int) -> bytes:
        """16 bytes for a request that arrived `at` (microseconds since 1970)."""
        last = self._last
        if at > last or at < last - _BACKWARDS_MAX:
            self._last = last = at
            self._count = 0
        elif self._count < _COUNT_MAX:
            self._count += 1
        else:
            self._last = last = last + 1
            self._count = 0
        past = last - self._millisecond
        if not 0 <= past < 1_000:
            milliseconds, past = divmod(last, 1_000)
            self._millisecond = last - past
            self._high = (milliseconds & 0xFFFF_FFFF_FFFF) << 16 | 0x7000
        return _pack(self._high | past << 2, self._low | self._count << 40)
