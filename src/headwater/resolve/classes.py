"""Strong keys that an explicit alias joined: Gamooga's /id/ with several unique ids (identity,
rules 2 and 10). An alias holds for all time, whatever its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headwater.resolve.book import Book, Key
from headwater.resolve.registry import AliasRow


class Classes:
    """Keeps `book.classes`: principal -> person."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def take_in(self, account: str, keys: Sequence[Key], order: bytes, event_id: bytes) -> None:
        """An event names several keys as one person. Within the registry's transaction."""
        book = self._book
        one = keys[0]
        for other in keys[1:]:
            if not book.people.alias(account, AliasRow(one.id, other.id, order, event_id)):
                continue
            before = {book.person(one.id), book.person(other.id)}
            self._form(account, [one.id, other.id])
            if len(before) == 2 and book.person(one.id) == book.person(other.id):
                self._record(one, other, before, order, event_id)

    def _record(
        self, one: Key, other: Key, before: set[bytes], order: bytes, event_id: bytes
    ) -> None:
        people = self._book.get(before)
        if len(people) == 2 and all(key.first and key.first < order for key in people.values()):
            kept = self._book.person(one.id)
            gone = next((id for id in before if id != kept), other.id)
            self._book.merge_pair(
                (one, other.id), kept=kept, gone=gone, order=order, event_id=event_id
            )

    def recheck(self, account: str, keys: Iterable[Key]) -> None:
        """See ``Attribution.recheck``."""
        book = self._book
        for key in keys:
            rows = book.people.aliases(key.id)
            if not rows:
                continue
            others = {
                id
                for event in book.store.evidence(account, [key.id])
                if event.alias
                for _, how, id in event.identities
                if how == "strong"
            }
            book.people.drop_aliases(
                [(row.one, row.other) for row in rows if row.other not in others]
            )
            self._form(account, [key.id, *(row.other for row in rows)])

    def _form(self, account: str, ids: Sequence[bytes]) -> None:
        """Form the classes of some keys anew."""
        book = self._book
        people = {book.person(id) for id in ids}
        left = set(ids) | people | {one for one, p in book.classes.items() if p in people}
        classes: dict[bytes, bytes] = {}
        while left:
            members = self._reach(left.pop())
            left -= members
            first = {id: key.first for id, key in book.get(members).items()}
            # Rule 9: the earlier first seen, then the smaller id.
            person = min(members, key=lambda id: (first.get(id) or b"\xff", id))
            classes |= dict.fromkeys(members, person)
        book.set_classes(account, classes)

    def _reach(self, start: bytes) -> set[bytes]:
        found, ahead = {start}, [start]
        while ahead:
            for row in self._book.people.aliases(ahead.pop()):
                if row.other not in found and not self._book.is_withdrawn(row.one, row.other):
                    found.add(row.other)
                    ahead.append(row.other)
        return found
