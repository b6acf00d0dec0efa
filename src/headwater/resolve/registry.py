"""The registry: what must be remembered exactly, and answered before an event is stored.

**Visitors.** `identify` maps Gamooga's unique ids to visitor ids: sticky, one visitor for a new id
however many processes ask at once, durable before it returns (identity rule 10).

**Seen.** `claim` tells duplicates from first copies. A key belongs to the position that claimed it
first; the same position claiming again (a reload after a crash) is the first copy again. Claims
are durable when `claim` returns. Keys are kept for at least the window, then forgotten.

**People.** Who owns which key when, and what follows from it: what attribution (``attribution.py``)
has concluded from the events so far. One process writes it, the hub; all that is written within
``transaction`` becomes durable together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from headwater.accept.request import Identified, Identify
from headwater.resolve.evidence import Evidence, Merge
from headwater.resolve.keys import Pieces


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

    def mapped(self, account: str) -> list[tuple[str, str, str, int]]:
        """All mappings of an account: (scope, user, visitor, since when in microseconds)."""
        ...

    def erase(self, account: str, users: Sequence[tuple[str, str]]) -> None:
        """Take mappings of (scope, user) away without a trace, in all processes within about a
        second; what an earlier call has left is cleaned too."""
        ...


class Seen(Protocol):
    def claim(self, claims: Sequence[Claim], *, received_at: int) -> list[bool]:
        """For each claim whether it is the first copy (True) or a duplicate (False), in order;
        two equal keys within one call: the first wins. Durable on return."""
        ...

    def forget(self, before: int) -> int:
        """Drop some keys claimed before a time (microseconds); bounded work; how many."""
        ...


class Record(msgspec.Struct, frozen=True, gc=False):
    """A key as it is remembered. `kind` is a letter of ``keys``; `first` the order of the first
    event that carried it."""

    kind: str
    account: str
    first: bytes
    pieces: Pieces


class Grave(msgspec.Struct, frozen=True):
    """An erased key: how often it was, and up to which batch of each writer what carries it is
    gone. A writer that is not named began later."""

    generation: int
    upto: dict[int, int]


class GroupRow(msgspec.Struct, frozen=True, order=True):
    """One Orbee event that ties keys together; an id is empty where the event has none."""

    at: bytes
    instance: bytes
    visitor: bytes
    email: bytes
    event_id: bytes


class AliasRow(msgspec.Struct, frozen=True):
    """Two strong keys that an explicit alias joined, first at an order."""

    one: bytes
    other: bytes
    at: bytes
    event_id: bytes


class Dirty(msgspec.Struct, frozen=True):
    """A subject whose stored rows are to be shown with other principals than they were loaded
    with, and the principals that they had and have."""

    account: str
    subject: bytes
    principals: frozenset[bytes]


class StoredPeople(Protocol):
    """What the store is asked for and told (``store/people.py``). Methods raise StoreError; what is
    written is durable and visible when they return."""

    def evidence(self, account: str, keys: Sequence[bytes]) -> list[Evidence]:
        """Every stored event that carries one of these keys."""
        ...

    def write_attributions(self, rows: Sequence[tuple[bytes, Pieces]]) -> None:
        """For each subject (order, principal) pieces, the first from the empty order."""
        ...

    def write_aliases(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """principal -> person; equal ones take the row away."""
        ...

    def write_merges(self, rows: Sequence[Merge]) -> None: ...


class People(Protocol):
    """Ids are 16 bytes, orders 36. Methods raise RegistryFailed; those that change something are
    called within `transaction`."""

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing, durable at its end."""
        ...

    # keys
    def load(self, keys: Sequence[bytes]) -> dict[bytes, Record]:
        """Those keys that are known."""
        ...

    def save(self, records: Mapping[bytes, Record]) -> None:
        """Put keys as they are now."""
        ...

    def owned(self, owners: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        """(owner, key) for every key in whose pieces an owner stands."""
        ...

    def owns(self, owner: bytes, kind: str, without: Collection[bytes]) -> bool:
        """Whether an owner has a key of a kind, besides some."""
        ...

    def change_owned(
        self, gone: Iterable[tuple[bytes, bytes]], come: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Keep `owned` in step with pieces."""
        ...

    # several keys that stand for one subject
    def watch(self, account: str, subject: bytes, members: Sequence[bytes]) -> None:
        """Remember what a subject is made of, in order of precedence."""
        ...

    def watchers(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        """(key, subject) for every subject that a key is a member of."""
        ...

    def members(self, subject: bytes) -> list[bytes]:
        """What a subject is made of; empty for one that is a key."""
        ...

    # aliases
    def classes(self) -> dict[bytes, bytes]:
        """principal -> person, for all strong keys that an alias joined."""
        ...

    def set_classes(self, classes: Mapping[bytes, bytes]) -> None:
        """Put some; principal == person takes it away."""
        ...

    def alias(self, account: str, row: AliasRow) -> bool:
        """Remember an alias; whether it is new."""
        ...

    def aliases(self, key: bytes) -> list[AliasRow]:
        """The aliases of a key, `one` being the key."""
        ...

    def drop_aliases(self, pairs: Iterable[tuple[bytes, bytes]]) -> None: ...

    # pairs that assert nothing
    def withdrawn(self) -> set[tuple[bytes, bytes]]: ...

    def set_withdrawn(self, one: bytes, other: bytes, withdrawn: bool) -> None: ...

    # Orbee's groups
    def group(self, row: GroupRow) -> None: ...

    def groups(self, keys: Sequence[bytes]) -> list[GroupRow]:
        """Every row that holds one of these keys, at any of the three places."""
        ...

    def drop_groups(self, keys: Sequence[bytes]) -> None: ...

    # what is still to be told to the store
    def soil(self, rows: Iterable[Dirty]) -> None: ...

    def dirty(self) -> list[Dirty]: ...

    def clean(self, subjects: Iterable[bytes]) -> None: ...

    def put_merge(self, merge: Merge) -> None: ...

    def merge(self, merge_id: bytes) -> Merge | None: ...

    def unsent_merges(self) -> list[Merge]: ...

    def merges_sent(self, merge_ids: Iterable[bytes]) -> None: ...

    # what a replay is about to change
    def suspect(self, account: str, keys: Iterable[bytes]) -> None:
        """Remember keys about which everything is to be concluded anew."""
        ...

    def suspects(self) -> dict[str, list[bytes]]:
        """Those, by account."""
        ...

    def cleared(self, suspects: Mapping[str, Sequence[bytes]]) -> None: ...

    # erasure
    def graves(self, keys: Sequence[bytes]) -> dict[bytes, Grave]:
        """Tombstones, by the ids that the keys had before any erasure."""
        ...

    def bury(self, keys: Sequence[bytes], upto: Mapping[int, int]) -> None:
        """Forget keys, whatever generation they are of, and put up tombstones."""
        ...

    def scrub(self) -> None:
        """Leave nothing of what was forgotten in free pages or in the log."""
        ...

    def close(self) -> None: ...


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """An erasure that has begun: whose, and what is to go. It holds no identifier.

    `at` is in microseconds. `keys` are buried, as of the batches `upto` of each writer; `shared`
    stay, since others have them too, and are concluded anew. `persons` are the ids under which the
    person's rows may stand. `rows` and `rejected` are places of rows, `requests` the journaled
    requests: (writer, batch, number) and how many of its events were stored, duplicates, rejected.
    `counts` is what the receipt says.
    """

    account: str
    person: bytes
    at: int
    upto: dict[int, int]
    keys: list[bytes]
    shared: list[bytes]
    persons: list[bytes]
    sessions: list[bytes]
    rows: list[tuple[int, int, int, int]]
    rejected: list[tuple[int, int, int, int]]
    requests: list[tuple[int, int, int, int, int, int]]
    counts: dict[str, int]


class Erasures(Protocol):
    """What must be finished when it was cut short. Methods raise RegistryFailed."""

    def begin(self, erasure: Erasure) -> None:
        """Remember it durably, before anything is done."""
        ...

    def begun(self) -> list[Erasure]:
        """Those that have not ended."""
        ...

    def end(self, erasure: Erasure) -> None:
        """It is done."""
        ...
