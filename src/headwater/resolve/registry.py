"""The registry: what must be remembered exactly, and answered before an event is stored.

**Visitors.** `identify` maps Gamooga's unique ids to visitor ids: sticky, one visitor for a new id
however many processes ask at once, durable before it returns (identity rule 10).

**Seen.** `claim` tells duplicates from first copies. A key belongs to the position that claimed it
first; the same position claiming again (a reload after a crash) is the first copy again. Claims
are durable when `claim` returns. Keys are kept for at least the window, then forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from headwater.accept.request import Identified, Identify


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A dedupe key and the place that claims it: (writer, batch, request in it, event in that)."""

    key: bytes
    near: int  # the event's own time in microseconds: keys of one time lie together on disk.
    # Equal keys must have it equal: from the raw date that the key covers, 0 where there is none,
    # never from received_at.
    place: tuple[int, int, int, int]


class Visitors(Protocol):
    def identify(self, account: str, question: Identify) -> Identified:
        """Blocks until the mapping is durable. Raises RegistryFailed."""
        ...

    def identify_many(self, questions: Sequence[tuple[str, Identify]]) -> list[Identified]:
        """The same for several, in one transaction and one fsync."""
        ...

    def known(self, account: str, question: Identify) -> Identified | None:
        """The answer from memory, when it needs no write; None: ask `identify`."""
        ...


class Seen(Protocol):
    def claim(self, claims: Sequence[Claim], *, received_at: int) -> list[bool]:
        """For each claim whether it is the first copy (True) or a duplicate (False), in order;
        two equal keys within one call: the first wins. Durable on return."""
        ...

    def forget(self, before: int) -> int:
        """Drop some keys claimed before a time (microseconds); bounded work; how many."""
        ...
