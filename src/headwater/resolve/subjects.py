"""From what decides an event's person to the principal: at one order, or for all of time."""

from __future__ import annotations

from collections.abc import Iterable

from headwater.resolve.book import Book, Key
from headwater.resolve.keys import (
    BOUND,
    EMAIL,
    INSTANCE,
    NOBODY,
    START,
    STRONG,
    VISITOR,
    Pieces,
    owner_at,
    runs,
    time_of,
)
from headwater.resolve.plans import Plan

_EVER = -(2**63)


class Subjects:
    """Reads what the book knows now."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def principal(self, plan: Plan, order: bytes) -> bytes:
        """Whose an event is, NOBODY for none. Makes the plan calm where the answer stands for all
        later orders too."""
        principal = self._principal(plan, order)
        if self._is_calm(plan):
            plan.principal = principal
            latest = b""
            for key in plan.members:
                latest = max(latest, key.first)
                if key.pieces:
                    latest = max(latest, key.pieces[0][0])
            plan.settled = latest
            plan.settled_at = time_of(latest) if latest else _EVER
            plan.calm = True
        return principal

    def _principal(self, plan: Plan, order: bytes) -> bytes:
        if plan.orbee:
            if plan.lookup is not None and self._book.is_known(plan.lookup.id):
                return plan.lookup.id
            own = plan.weak[-1]
            return owner_at(own.pieces, order) or own.id
        if plan.strong is not None:
            return plan.strong.id
        if plan.weak:
            return owner_at(plan.weak[0].pieces, order) or plan.weak[0].id
        for key in plan.candidates:
            found = self._looked_up(key, order)
            if found is not None:
                return found
        return NOBODY

    def _looked_up(self, key: Key, order: bytes) -> bytes | None:
        if key.kind == EMAIL:
            return key.id if self._book.is_known(key.id) else None
        browser = owner_at(key.pieces, order)
        if browser is None:
            return None
        return owner_at(self._pieces_of(browser), order) or browser

    def _pieces_of(self, id: bytes) -> Pieces:
        key = self._book.get([id]).get(id)
        return key.pieces if key is not None else ()

    def _is_calm(self, plan: Plan) -> bool:
        if plan.grave or plan.aliases:
            return False
        if plan.orbee and plan.lookup is not None and plan.weak[-1].kind == VISITOR:
            return False  # each of these counts: the visitor may change hands
        if plan.candidates:
            return all(len(key.pieces) <= 1 for key in plan.candidates) and all(
                len(self._pieces_of(owner)) <= 1
                for key in plan.candidates
                for _, owner in key.pieces
            )
        for key in plan.weak:
            if len(key.pieces) > 1:
                return False
            if plan.strong is not None:
                if key.pieces:
                    if key.pieces[0][1] != plan.strong.id:
                        return False
                elif not self._book.is_withdrawn(key.id, plan.strong.id):
                    return False
            elif plan.lookup is not None and not key.pieces and not plan.orbee:
                return False
        browser = plan.weak[0].id if plan.weak else None
        return all(len(key.pieces) == 1 and key.pieces[0][1] == browser for key in plan.bound)

    def pieces(self, subject: bytes) -> Pieces:
        """Whose the events of a subject are, when; the first piece begins at the empty order."""
        members = self._book.people.members(subject) or [subject]
        keys = list(self._book.get(members).values())
        own = [key for key in keys if key.kind in (INSTANCE, VISITOR)]
        if own:
            emails = [key for key in keys if key.kind == EMAIL]
            if any(self._book.is_known(key.id) for key in emails):
                return ((START, emails[0].id),)
            return _back(own[0].pieces) or ((START, own[0].id),)
        for key in keys:
            if key.kind == EMAIL:
                if self._book.is_known(key.id):
                    return ((START, key.id),)
            elif key.kind == BOUND:
                if key.pieces:
                    return self._through(key.pieces)
            elif key.kind == STRONG:
                return ((START, key.id),)
            else:
                return _back(key.pieces) or ((START, key.id),)
        return ((START, NOBODY),)

    def _through(self, bound: Pieces) -> Pieces:
        """Whose a bound key is: of whoever owns the browser it stands for, when."""
        found: list[tuple[bytes, bytes]] = []
        for place, (since, browser) in enumerate(bound):
            begins = since if place else START
            ends = bound[place + 1][0] if place + 1 < len(bound) else None
            pieces = self._pieces_of(browser)
            found.append((begins, owner_at(pieces, begins) or browser))
            found += [
                (at, owner)
                for at, owner in pieces[1:]
                if at > begins and (ends is None or at < ends)
            ]
        return runs(found)


def _back(pieces: Iterable[tuple[bytes, bytes]]) -> Pieces:
    """Pieces whose first reaches back for ever."""
    return tuple((since if place else START, owner) for place, (since, owner) in enumerate(pieces))
