"""Orbee's people: instances, browsers and emails (identity, rules 4, 6 and 7).

An instance groups events for ever, a browser's id (duid) is a weak key, an email is only looked up
and acts like a strong key where it is known. Two anonymous ones that come together become one, so
here, and only here, a component is searched: all rows that instances and browsers connect. A key
that is new joins without a search.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import msgspec

from headwater import limits
from headwater.resolve.book import Book, Key
from headwater.resolve.keys import INSTANCE, VISITOR, Pieces, owner_at
from headwater.resolve.plans import Plan
from headwater.resolve.registry import GroupRow

log = logging.getLogger("headwater.resolve")


class _Join(msgspec.Struct, frozen=True):
    """Two sides became one person at a row, by a pair of keys. `other` is a strong key alone, or an
    anonymous side's members."""

    row: GroupRow
    pair: tuple[bytes, bytes]
    side: frozenset[bytes]
    other: frozenset[bytes]


class Groups:
    """Owners of instances and browsers' ids. Within the registry's transaction."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def take_in(self, plan: Plan, order: bytes, event_id: bytes, new: set[bytes]) -> None:
        """What one event asserts. `new` are the keys that no earlier step has seen."""
        book = self._book
        keys = plan.weak
        lookup = plan.lookup
        if len(keys) < 2 and lookup is None:
            return
        by_kind = {key.kind: key.id for key in keys}
        book.people.group(
            GroupRow(
                at=order,
                instance=by_kind.get(INSTANCE, b""),
                visitor=by_kind.get(VISITOR, b""),
                email=lookup.id if lookup is not None else b"",
                event_id=event_id,
            )
        )
        strong = lookup.id if lookup is not None and book.is_known(lookup.id) else None
        fresh = [key for key in keys if key.id in new and not key.pieces]
        if strong is not None:
            allowed = not any(book.is_withdrawn(key.id, strong) for key in keys)
            if allowed and len(fresh) == len(keys) and not self._in_rows(fresh):
                for key in keys:
                    book.set_pieces(key, ((order, strong),))
            elif any(len(key.pieces) != 1 or key.pieces[0][1] != strong for key in keys):
                self._recompute(plan.account, [key.id for key in keys])
            return
        if len(keys) < 2:
            return
        one, other = keys
        if fresh and not book.is_withdrawn(one.id, other.id):
            joins = fresh[0]
            if not self._in_rows([joins], beside=order):
                stays = other if joins is one else one
                book.set_pieces(joins, ((order, _owner(stays, order)),))
                return
        if (
            len(one.pieces) > 1
            or len(other.pieces) > 1
            or _owner(one, order) != _owner(other, order)
        ):
            self._recompute(plan.account, [one.id, other.id])

    def _in_rows(self, keys: Sequence[Key], beside: bytes = b"") -> bool:
        """Whether rows other than the one at `beside` tell more about keys without pieces."""
        rows = self._book.people.groups([key.id for key in keys])
        return len(rows) > 1 if not beside else any(row.at != beside for row in rows)

    def email_changed(self, email: bytes) -> None:
        """An email has become known, or is no longer."""
        rows = self._book.people.groups([email])
        ids = {id for row in rows for id in (row.instance, row.visitor) if id}
        for key in self._book.get(ids).values():
            subjects = [s for _, s in self._book.people.watchers([key.id])]
            for subject in subjects:
                owners = {owner for _, owner in key.pieces} | {key.id, email}
                self._book.soil(key.account, subject, owners)
        done: set[bytes] = set()
        for id, key in self._book.get(ids).items():
            if id not in done:
                done |= self._recompute(key.account, [id])

    def recheck(self, account: str, keys: Sequence[Key]) -> None:
        """See ``Attribution.recheck``."""
        book = self._book
        ids = [key.id for key in keys if key.kind in (INSTANCE, VISITOR)]
        if not ids:
            return
        before = book.people.groups(ids)
        book.people.drop_groups(ids)
        for event in book.store.evidence(account, ids):
            by_namespace = {namespace: id for namespace, _, id in event.identities}
            row = GroupRow(
                at=event.order,
                instance=by_namespace.get("orbee:instance", b""),
                visitor=by_namespace.get("orbee:duid", b""),
                email=by_namespace.get("email", b""),
                event_id=event.event_id,
            )
            if bool(row.instance) + bool(row.visitor) + bool(row.email) > 1:
                book.people.group(row)
        left = {*ids, *(id for row in before for id in (row.instance, row.visitor) if id)}
        while left:
            left -= self._recompute(account, [left.pop()])

    # --- a component ----------------------------------------------------------------------------

    def _recompute(self, account: str, seeds: Iterable[bytes]) -> set[bytes]:
        """Apply the rules to all that is connected with some keys, in order; the keys."""
        book = self._book
        rows, ids = self._component(seeds)
        known = {row.email for row in rows if row.email and book.is_known(row.email)}
        replayed = _Replayed(book, ids, known)
        for row in rows:
            replayed.apply(row)
        keys = book.get(ids)
        before = {id: key.pieces for id, key in keys.items()}
        concerned: set[bytes] = set()
        for id, pieces in replayed.pieces(keys).items():
            if pieces != before[id]:
                concerned |= book.set_pieces(keys[id], pieces) | {id}
        book.concern(concerned)
        self._record_merges(keys, before, replayed.joins)
        return ids

    def _component(self, seeds: Iterable[bytes]) -> tuple[list[GroupRow], set[bytes]]:
        ids = set(seeds)
        ahead = list(ids)
        rows: set[tuple[bytes, ...]] = set()
        while ahead:
            found = self._book.people.groups(ahead)
            rows |= {msgspec.structs.astuple(row) for row in found}
            near = {id for row in found for id in (row.instance, row.visitor) if id}
            ahead = list(near - ids)
            if len(rows) > limits.group_rows_max:
                log.error(
                    "an Orbee group has more than %d rows: what connects further is left apart",
                    limits.group_rows_max,
                )
                break
            ids |= near
        return sorted(GroupRow(*row) for row in rows), ids

    def _record_merges(
        self, keys: dict[bytes, Key], before: dict[bytes, Pieces], joins: Sequence[_Join]
    ) -> None:
        """Anonymous people that were shown and are now part of another."""
        book = self._book
        for id, key in keys.items():
            was = before[id][0][1] if before[id] else id
            if was != id or not key.stored or not key.pieces or key.pieces[0][1] == id:
                continue
            join = next((one for one in joins if id in one.side | one.other), None)
            if join is None or not key.first < join.row.at:
                continue
            rest = join.other if id in join.side else join.side
            others = book.get(rest).values()
            if any(other.first and other.first < join.row.at for other in others):
                one, other_id = join.pair
                book.merge_pair(
                    (book.get([one])[one], other_id),
                    kept=book.person(key.pieces[0][1]),
                    gone=id,
                    order=join.row.at,
                    event_id=join.row.event_id,
                )


class _Replayed:
    """The rules applied to the rows of one component, in order."""

    def __init__(self, book: Book, ids: set[bytes], known: set[bytes]) -> None:
        self._book = book
        self._known = known
        self._owners: dict[bytes, list[tuple[bytes, bytes]]] = {id: [] for id in ids}
        self._sides: dict[bytes, set[bytes]] = {id: {id} for id in ids}  # of the anonymous
        self.joins: list[_Join] = []

    def apply(self, row: GroupRow) -> None:
        keys = [id for id in (row.instance, row.visitor) if id in self._owners]
        if row.email in self._known:
            for id in keys:
                if self._book.is_withdrawn(id, row.email):
                    continue
                owners = self._owners[id]
                if not owners:
                    self._claim(row, id, row.email, (id, row.email))
                elif owners[-1][1] != row.email and id == row.visitor:
                    owners.append((row.at, row.email))
        elif len(keys) == 2 and not self._book.is_withdrawn(*keys):
            one, other = keys
            if self._owners[one] and not self._owners[other]:
                self._claim(row, other, self._owners[one][-1][1], (other, one))
            elif self._owners[other] and not self._owners[one]:
                self._claim(row, one, self._owners[other][-1][1], (one, other))
            elif not self._owners[one] and self._sides[one] is not self._sides[other]:
                self._join(row, one, other)

    def _claim(self, row: GroupRow, id: bytes, owner: bytes, pair: tuple[bytes, bytes]) -> None:
        side = self._sides[id]
        self.joins.append(_Join(row, pair, frozenset(side), frozenset({owner})))
        for each in side:
            self._owners[each] = [(row.at, owner)]

    def _join(self, row: GroupRow, one: bytes, other: bytes) -> None:
        side, gone = self._sides[one], self._sides[other]
        self.joins.append(_Join(row, (one, other), frozenset(side), frozenset(gone)))
        side |= gone
        for each in gone:
            self._sides[each] = side

    def pieces(self, keys: dict[bytes, Key]) -> dict[bytes, Pieces]:
        """The pieces of each key; an anonymous side has the id that most of it had before."""
        found: dict[bytes, Pieces] = {}
        names: dict[bytes, bytes] = {}
        for id, key in keys.items():
            if self._owners[id]:
                found[id] = tuple(self._owners[id])
                continue
            side = self._sides[id]
            if id not in names:
                names |= dict.fromkeys(side, _name(side, keys))
            name = names[id]
            found[id] = ((key.first, name),) if name != id else ()
        return found


def _name(side: set[bytes], keys: dict[bytes, Key]) -> bytes:
    """The key that an anonymous group's person is named by: one that names it already, the earliest
    of them, else the earliest."""
    names = {keys[id].pieces[0][1] if keys[id].pieces else id for id in side if keys[id].stored}
    return min(names & side or side, key=lambda id: (keys[id].first or b"\xff", id))


def _owner(key: Key, order: bytes) -> bytes:
    return owner_at(key.pieces, order) or key.id
