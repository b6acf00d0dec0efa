"""The keys that are at work, and what changes about them within one step.

A :class:`Key` is remembered between steps; what the registry holds of it and what stands here are
the same after every step. Whatever fails in between empties the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from headwater import limits
from headwater.resolve.evidence import Merge
from headwater.resolve.keys import (
    BOUND,
    BROWSER,
    EMAIL,
    NOBODY,
    Pieces,
    joint_id,
    reborn,
    time_of,
)
from headwater.resolve.registry import Dirty, Grave, People, Record, StoredPeople

if TYPE_CHECKING:
    from headwater.resolve.plans import Plan

#: The subject under which a change of classes waits to be told to the store.
CLASSES = NOBODY


class Key:
    """One key. `first` is empty until an event of it was seen. `stored`: rows of earlier steps may
    carry it. `plans` are those whose answer depends on it. `last`, where it is known (of keys that
    have changed hands), is the order of the last assertion of an owner: what comes after that needs
    no look at what came before."""

    __slots__ = ("account", "first", "grave", "id", "kind", "last", "pieces", "plans", "stored")

    def __init__(self, id: bytes, kind: str, account: str) -> None:
        self.id = id
        self.kind = kind
        self.account = account
        self.first = b""
        self.last = b""
        self.pieces: Pieces = ()
        self.stored = False
        self.grave: Grave | None = None
        self.plans: list[Plan] = []


class Book:
    """Keys by id, and the registry behind them."""

    def __init__(self, people: People, store: StoredPeople) -> None:
        self.people = people
        self.store = store
        self.keys: dict[bytes, Key] = {}
        self.forget()

    def forget(self) -> None:
        """Empty the memory."""
        for key in self.keys.values():
            key.plans = []  # they know their keys: nobody else would let go of them
        self.keys.clear()
        self.classes = self.people.classes()
        self.withdrawn = self.people.withdrawn()
        self._start_step()

    def _start_step(self) -> None:
        self._touched: dict[bytes, Key] = {}
        self._dirty: dict[bytes, Dirty] = {}
        self._watched: set[bytes] = set()
        #: Keys by the owner whom they leave, and by the one to whom they go.
        self._gone: dict[bytes, set[bytes]] = {}
        self._come: dict[bytes, set[bytes]] = {}

    @property
    def full(self) -> bool:
        return len(self.keys) > limits.known_keys_max

    # --- reading --------------------------------------------------------------------------------

    def fetch(self, wanted: Mapping[bytes, tuple[str, str]]) -> dict[bytes, Key]:
        """Keys by their ids before any erasure; `wanted` says kind and account of each."""
        graves = self.people.graves(list(wanted))
        ids = {
            base: reborn(base, graves[base].generation) if base in graves else base
            for base in wanted
        }
        self._load(id for id in ids.values() if id not in self.keys)
        found: dict[bytes, Key] = {}
        for base, id in ids.items():
            key = self.keys.get(id)
            if key is None:
                kind, account = wanted[base]
                key = self.keys[id] = Key(id, kind, account)
            key.grave = graves.get(base)
            found[base] = key
        return found

    def get(self, ids: Iterable[bytes]) -> dict[bytes, Key]:
        """Those of some keys that are known."""
        wanted = list(ids)
        self._load(id for id in wanted if id not in self.keys)
        return {id: self.keys[id] for id in wanted if id in self.keys}

    def _load(self, ids: Iterable[bytes]) -> None:
        for id, record in self.people.load(list(ids)).items():
            key = self.keys[id] = Key(id, record.kind, record.account)
            key.first = record.first
            key.pieces = record.pieces
            key.stored = True

    def person(self, principal: bytes) -> bytes:
        """The person whom a principal is one of."""
        return self.classes.get(principal, principal)

    def owned(self, owners: Iterable[bytes]) -> set[bytes]:
        """The keys in whose pieces one of some owners stands."""
        found: set[bytes] = set()
        wanted = list(owners)
        for owner, key in self.people.owned(wanted):
            if key not in self._gone.get(owner, ()):
                found.add(key)
        return found.union(*(self._come.get(owner, ()) for owner in wanted))

    def is_known(self, email: bytes) -> bool:
        """Whether some browser was asserted together with an email."""
        if any(self.keys[key].kind == BROWSER for key in self._come.get(email, ())):
            return True
        return self.people.owns(email, BROWSER, self._gone.get(email, ()))

    def is_withdrawn(self, one: bytes, other: bytes) -> bool:
        return bool(self.withdrawn) and (
            (one, other) in self.withdrawn or (other, one) in self.withdrawn
        )

    # --- changing -------------------------------------------------------------------------------

    def touch(self, key: Key) -> None:
        """Its `first` has changed."""
        self._touched[key.id] = key

    def set_first_owner(self, key: Key, order: bytes, owner: bytes) -> None:
        """Give a key that nothing depends on yet its first owner."""
        key.pieces = ((order, owner),)
        self._touched[key.id] = key
        self._come.setdefault(owner, set()).add(key.id)
        self.unsettle(key)

    def set_pieces(self, key: Key, pieces: Pieces) -> set[bytes]:
        """Give a key other owners; the keys whose subjects that may concern besides."""
        before, key.pieces = key.pieces, pieces
        self._touched[key.id] = key
        old, new = {owner for _, owner in before}, {owner for _, owner in pieces}
        for owner in old - new:
            self._gone.setdefault(owner, set()).add(key.id)
            self._come.get(owner, set()).discard(key.id)
        for owner in new - old:
            self._come.setdefault(owner, set()).add(key.id)
            self._gone.get(owner, set()).discard(key.id)
        self.unsettle(key)
        if _course(before) == _course(pieces):
            return set()
        if key.stored:
            self.soil(key.account, key.id, old | new | {key.id})
        if key.kind == BROWSER:
            bound = self.owned([key.id]) if key.stored else self._come.get(key.id, set())
            return bound | {owner for owner in old ^ new if owner != key.id}
        return {key.id} if key.kind == BOUND else set()

    def concern(self, keys: Iterable[bytes]) -> set[bytes]:
        """What looks up through some keys is to be looked at anew; the emails among them."""
        wanted = set(keys)
        if not wanted:
            return set()
        emails: set[bytes] = set()
        for key in self.get(wanted).values():
            self.unsettle(key)
            if key.kind == EMAIL:
                emails.add(key.id)
        # Nothing looks up through a key that is new, but what this step has brought.
        asked = [
            id
            for id in wanted
            if id in self._watched or id not in self.keys or self.keys[id].stored
        ]
        for id, subject in self.people.watchers(asked):
            watched = self.keys.get(id)
            if watched is not None:
                principals = {owner for _, owner in watched.pieces} | {id}
                self.soil(watched.account, subject, principals)
        return emails

    def watch(self, account: str, subject: bytes, members: Sequence[bytes]) -> None:
        """Remember that a subject is made of some keys."""
        self.people.watch(account, subject, members)
        self._watched.update(members)

    def unsettle(self, key: Key) -> None:
        """What was concluded from a key is to be concluded anew."""
        for plan in key.plans:
            plan.calm = False

    def soil(self, account: str, subject: bytes, principals: Iterable[bytes]) -> None:
        """Rows of a subject are to be shown otherwise than they were loaded."""
        before = self._dirty.get(subject)
        all_of_them = frozenset(principals) | (before.principals if before else frozenset())
        self._dirty[subject] = Dirty(account, subject, all_of_them)

    def set_classes(self, account: str, classes: Mapping[bytes, bytes]) -> None:
        """principal -> person for some strong keys."""
        changed = {one: p for one, p in classes.items() if self.classes.get(one, one) != p}
        if not changed:
            return
        concerned = {*changed, *changed.values(), *(self.person(one) for one in changed)}
        for one, person in changed.items():
            if one == person:
                self.classes.pop(one, None)
            else:
                self.classes[one] = person
        self.people.set_classes(changed)
        self.soil(account, CLASSES, concerned)
        for key in self.keys.values():
            if key.id in concerned:
                self.unsettle(key)

    def put_merge(self, merge: Merge) -> None:
        """Record a merge, or what has become of it."""
        if self.people.merge(merge.merge_id) != merge:
            self.people.put_merge(merge)

    def merge_pair(
        self, pair: tuple[Key, bytes], *, kept: bytes, gone: bytes, order: bytes, event_id: bytes
    ) -> None:
        """Record that the pair's assertion merged one person into another."""
        key, other = pair
        self.put_merge(
            Merge(
                account=key.account,
                merge_id=joint_id(key.id, other),
                at=time_of(order),
                kept=kept,
                gone=gone,
                cause=event_id,
                first=key.id,
                second=other,
            )
        )

    def unmerge(self, key: Key, other: bytes) -> None:
        """The evidence for a pair's merge is gone; one that was withdrawn stays on record."""
        merge = self.people.merge(joint_id(key.id, other))
        if merge is not None and not self.is_withdrawn(key.id, other):
            self.put_merge(msgspec.structs.replace(merge, gone_away=True))

    def mark_merge(self, one: bytes, other: bytes, undone_at: int | None) -> None:
        """A pair's merge was undone at a time, or is allowed again."""
        for pair in ((one, other), (other, one)):
            merge = self.people.merge(joint_id(*pair))
            if merge is not None:
                self.put_merge(msgspec.structs.replace(merge, undone_at=undone_at))

    def write(self) -> None:
        """Put what this step has changed; within a transaction."""
        if self._touched:
            self.people.save(
                {
                    id: Record(key.kind, key.account, key.first, key.pieces)
                    for id, key in self._touched.items()
                }
            )
        if self._gone or self._come:
            self.people.change_owned(_pairs(self._gone), _pairs(self._come))
        if self._dirty:
            self.people.soil(self._dirty.values())

    def written(self) -> None:
        """It is durable."""
        for key in self._touched.values():
            key.stored = True
        self._start_step()


def _pairs(keys: Mapping[bytes, Iterable[bytes]]) -> list[tuple[bytes, bytes]]:
    return [(owner, key) for owner, some in keys.items() for key in some]


def _course(pieces: Pieces) -> list[tuple[bytes, bytes]]:
    """Pieces without the beginning of the first, which reaches back for ever."""
    return [(b"" if place == 0 else since, owner) for place, (since, owner) in enumerate(pieces)]
