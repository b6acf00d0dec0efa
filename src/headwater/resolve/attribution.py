"""Who did it: events to people, whatever order they come in (identity, section 3).

Theory of operation. Strong keys name people; weak keys are owned by strong ones, each by the last
that was asserted together with it (``keys.Pieces``); what stands for a browser, or only looks up,
follows. So there is no graph to search: an event that says nothing new about its keys costs a
look-up in memory, and one that does changes the pieces of its own weak keys. Where an assertion
comes between others that were there before, all of the key's assertions are read again, from the
store, and the pieces made anew. Orbee's instances are the exception, see ``groups.py``.

Rows are loaded with the principal that is known at that moment. What changes about rows that are
stored is kept as dirty subjects in the registry, in the same transaction as the change, and told to
the store by :meth:`Attribution.settle` once the step's own rows are there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from headwater.event import Identity
from headwater.resolve.book import CLASSES, Book, Key
from headwater.resolve.classes import Classes
from headwater.resolve.groups import Groups
from headwater.resolve.keys import (
    BOUND,
    BROWSER,
    EMAIL,
    STRONG,
    WEAK,
    Piece,
    Pieces,
    joint_id,
    order_bytes,
    owner_at,
    runs,
)
from headwater.resolve.plans import Plan, Plans, Said
from headwater.resolve.registry import People, StoredPeople
from headwater.resolve.subjects import Subjects


class Who(msgspec.Struct, frozen=True, gc=False):
    """An event's identifiers and place. Times in microseconds, ids of 16 bytes; `alias` marks an
    explicit alias (Gamooga's /id/ with several `u`); writer and batch are its journal position."""

    account: str
    identities: list[Identity]
    alias: bool
    ordered_at: int
    received_at: int
    request_id: bytes
    index: int
    event_id: bytes
    writer: int
    batch: int

    @property
    def order(self) -> bytes:
        return order_bytes(self.ordered_at, self.received_at, self.request_id, self.index)


class Resolved(msgspec.Struct, frozen=True):
    """For each row: what decides who it is, the principal as known now, the person (NOBODY for
    none), an id for each identity, and whether the row may be stored at all (not, when it carries a
    key that was erased later than it was journaled)."""

    subjects: list[bytes]
    principals: list[bytes]
    persons: list[bytes]
    keys: list[list[bytes]]
    keep: list[bool]


class _Assertion(msgspec.Struct, frozen=True, order=True, gc=False):
    """That a key went together with an owner. `generic`: an email that counts only for a browser
    that has none."""

    order: bytes
    owner: bytes
    generic: bool
    event_id: bytes


#: Assertions by the key that is owned.
_Pending = dict[bytes, list[_Assertion]]


class Attribution:
    """One for a registry and a store; for one thread at a time.

    `shared` names the dialects whose user ids are one namespace, for an account. Methods raise
    RegistryFailed and StoreError; then nothing has been concluded, call again.
    """

    def __init__(
        self,
        people: People,
        store: StoredPeople,
        shared: Callable[[str], frozenset[str]],
    ) -> None:
        self._people = people
        self._store = store
        self.book = Book(people, store)
        self._plans = Plans(self.book, shared)
        self._classes = Classes(self.book)
        self._groups = Groups(self.book)
        self._subjects = Subjects(self.book)
        #: Keys that this step saw first, and what gave them their owner.
        self._fresh: dict[bytes, _Assertion] = {}

    def forget(self) -> None:
        """Empty the memory: after an error, an erasure, a change of the configuration."""
        self._plans.forget()
        self.book.forget()

    # --- a step ---------------------------------------------------------------------------------

    def resolve(self, rows: Sequence[Who]) -> Resolved:
        """Take in what some events assert, durably, and say whose they are as of now. The same
        events may come again (a step that was cut short)."""
        if self.book.full:
            self.forget()
        try:
            said: list[Said] = [(row.account, row.alias, *row.identities) for row in rows]
            plans = self._plans.of(said)
            busy = [
                place
                for place, (row, plan) in enumerate(zip(rows, plans, strict=True))
                if not plan.calm
                or row.ordered_at < plan.settled_at
                or (row.ordered_at == plan.settled_at and row.order <= plan.settled)
            ]
            keep = [True] * len(rows)
            orders = {place: rows[place].order for place in busy}
            if busy:
                self._take_in(rows, plans, orders, keep)
            return self._answer(rows, plans, orders, keep)
        except BaseException:
            self.forget()
            raise

    def _take_in(
        self,
        rows: Sequence[Who],
        plans: Sequence[Plan],
        orders: Mapping[int, bytes],
        keep: list[bool],
    ) -> None:
        book = self.book
        pending: _Pending = {}
        self._fresh.clear()
        late: dict[bytes, Key] = {}
        orbee: list[tuple[Who, bytes, Plan]] = []
        new = {key.id for place in orders for key in plans[place].members if not key.first}
        with self._people.transaction():
            for place, order in orders.items():
                row, plan = rows[place], plans[place]
                if plan.grave and _is_buried(row, plan):
                    keep[place] = False
                    continue
                for key in plan.members:
                    if not key.first or order < key.first:
                        if key.stored:
                            late[key.id] = key
                        key.first = order
                        book.touch(key)
                if not plan.watched:
                    book.watch(plan.account, plan.subject, plan.parts)
                    plan.watched = True
                if plan.aliases:
                    self._classes.take_in(plan.account, plan.aliases, order, row.event_id)
                if plan.orbee:
                    orbee.append((row, order, plan))
                else:
                    self._assert(plan, order, row.event_id, pending)
            self._own(rows, plans, pending)
            for row, order, plan in orbee:
                self._groups.take_in(plan, order, row.event_id, new)
            self._merge_late(late, pending)
            book.write()
        book.written()

    def _assert(self, plan: Plan, order: bytes, event_id: bytes, pending: _Pending) -> None:
        """What one event asserts about the keys it carries, where it is news."""
        strong = plan.strong
        book = self.book
        for key in plan.weak:
            owner = strong or (plan.lookup if key.kind == BROWSER else None)
            if owner is None or book.is_withdrawn(key.id, owner.id):
                continue
            generic = strong is None
            pieces = key.pieces
            in_order = key.last and order > key.last and key.id not in pending
            if in_order and pieces and not generic:
                key.last = order
                if pieces[-1][1] != owner.id:
                    self._give(key, (*pieces, (order, owner.id)))
                continue
            if (
                pieces
                and order >= pieces[0][0]
                and (generic or owner_at(pieces, order) == owner.id)
            ):
                continue  # a generic email of one who has one, or what is known for that time
            if key.kind == WEAK and not (pieces or key.stored or key.id in pending):
                book.set_first_owner(key, order, owner.id)
                self._fresh[key.id] = _Assertion(order, owner.id, generic, event_id)
                continue
            pending.setdefault(key.id, []).append(_Assertion(order, owner.id, generic, event_id))
        if plan.bound and plan.weak:
            browser = plan.weak[0].id
            for key in plan.bound:
                pieces = key.pieces
                known = pieces and (len(pieces) == 1 or order >= pieces[0][0])
                if known and owner_at(pieces, order) == browser:
                    continue
                pending.setdefault(key.id, []).append(_Assertion(order, browser, False, event_id))

    def _own(self, rows: Sequence[Who], plans: Sequence[Plan], pending: _Pending) -> None:
        """Give keys the owners that follow from what is asserted now and was before."""
        book = self.book
        again: dict[str, list[Key]] = {}
        for id in pending:
            key = book.keys[id]
            if key.pieces and not _continues(key, pending[id]):
                again.setdefault(key.account, []).append(key)
        for account, keys in again.items():
            asked = {key.id for key in keys}
            for id, found in self._stored_assertions(account, keys).items():
                pending[id] += found
            # This step's rows that were no news for the pieces of before.
            for row, plan in zip(rows, plans, strict=True):
                if plan.account == account and any(key.id in asked for key in plan.members):
                    here: _Pending = {}
                    _assertions(plan, row.order, row.event_id, here)
                    for id in asked & here.keys():
                        pending[id] += here[id]
        for some in again.values():
            for key in some:
                key.last = max(one.order for one in pending[key.id])
        keys = [book.keys[id] for id in pending]
        keys.sort(key=lambda key: key.kind == BOUND)  # browsers before what stands for them
        for key in keys:
            self._set(key, pending[key.id])
        for id, first in self._fresh.items():
            key = book.keys[id]
            if key.first < first.order == key.pieces[0][0]:
                self._record_merge(key, (), first)

    def _set(self, key: Key, assertions: Iterable[_Assertion]) -> None:
        counted = self._counted(key, assertions)
        pieces = runs((one.order, one.owner) for one in counted)
        before = key.pieces
        if pieces == before:
            return
        self._give(key, pieces)
        if key.kind != BOUND:
            self._record_merge(key, before, counted[0] if counted else None)

    def _give(self, key: Key, pieces: Pieces) -> None:
        concerned = self.book.set_pieces(key, pieces)
        for email in self.book.concern(concerned):
            self._groups.email_changed(email)

    def _counted(self, key: Key, assertions: Iterable[_Assertion]) -> list[_Assertion]:
        """In order, each event once, without what was withdrawn; a generic email only as the
        first (identity, rule 8)."""
        counted: list[_Assertion] = []
        last = b""
        for one in sorted(assertions):
            if one.order == last or self.book.is_withdrawn(key.id, one.owner):
                continue
            if one.generic and counted:
                continue
            last = one.order
            counted.append(one)
        return counted

    def _stored_assertions(self, account: str, keys: Sequence[Key]) -> _Pending:
        """What the stored events assert about some keys."""
        found: _Pending = {key.id: [] for key in keys}
        for event in self._store.evidence(account, list(found)):
            strong = next(
                (id for ns, how, id in event.identities if how == "strong" and ns != "email"), None
            )
            browser = next((id for ns, _, id in event.identities if ns == "vibetrace:user"), None)
            top = lookup = None
            for namespace, how, id in event.identities:
                if namespace == "email":
                    if how == "strong":
                        top = top or id
                    else:
                        lookup = lookup or id
            owner = (top or lookup) if browser else strong
            for _, how, id in event.identities:
                wanted = found.get(id)
                if wanted is None:
                    continue
                if how == "correlation" and browser:
                    wanted.append(_Assertion(event.order, browser, False, event.event_id))
                elif how == "weak" and owner:
                    generic = browser is not None and top is None
                    wanted.append(_Assertion(event.order, owner, generic, event.event_id))
        return found

    # --- merges ---------------------------------------------------------------------------------

    def _record_merge(self, key: Key, before: tuple[Piece, ...], first: _Assertion | None) -> None:
        """An anonymous person whose key is identified by a person known before is merged into
        him."""
        book = self.book
        if before and (first is None or first.owner != before[0][1]):
            book.unmerge(key, before[0][1])
        if first is None or not key.first or key.first >= first.order:
            return
        owner = book.get([first.owner]).get(first.owner)
        if owner is not None and self._was_somebody(owner, key, first.order):
            book.merge_pair(
                (key, owner.id),
                kept=book.person(owner.id),
                gone=key.id,
                order=first.order,
                event_id=first.event_id,
            )

    def _was_somebody(self, owner: Key, key: Key, order: bytes) -> bool:
        """Whether an owner was a person before an order. An email is one from the first browser
        that was asserted together with it (identity, rule 8)."""
        if owner.kind != EMAIL:
            return bool(owner.first) and owner.first < order
        others = self.book.get(self.book.owned([owner.id]) - {key.id})
        return any(
            since < order
            for other in others.values()
            if other.kind == BROWSER
            for since, whose in other.pieces
            if whose == owner.id
        )

    def _merge_late(self, late: dict[bytes, Key], pending: _Pending) -> None:
        """Keys that turn out to have been known earlier: it may be a merge now."""
        concerned = {id: key for id, key in late.items() if key.pieces and id not in pending}
        users = [key.id for key in late.values() if key.kind == STRONG]
        if users:
            concerned |= self.book.get(self.book.owned(users) - pending.keys())
        for key in concerned.values():
            if key.kind not in (WEAK, BROWSER) or not key.pieces:
                continue
            cause, owner = key.pieces[0]
            user = self.book.get([owner]).get(owner)
            if user is None or key.first >= cause or not self._was_somebody(user, key, cause):
                continue
            if self._people.merge(joint_id(key.id, owner)) is not None:
                continue
            event = next(
                (e for e in self._store.evidence(key.account, [key.id]) if e.order == cause), None
            )
            if event is not None:
                first = _Assertion(cause, owner, False, event.event_id)
                self._record_merge(key, key.pieces, first)

    # --- the answer -----------------------------------------------------------------------------

    def _answer(
        self,
        rows: Sequence[Who],
        plans: Sequence[Plan],
        orders: Mapping[int, bytes],
        keep: list[bool],
    ) -> Resolved:
        classes = self.book.classes
        # A plan that was calm may no longer be: another row has changed one of its keys.
        principals = [
            plan.principal
            if plan.calm
            else self._subjects.principal(plan, orders.get(place) or rows[place].order)
            for place, plan in enumerate(plans)
        ]
        persons = principals
        if classes:
            persons = [classes.get(one, one) for one in principals]
        return Resolved(
            subjects=[plan.subject for plan in plans],
            principals=principals,
            persons=persons,
            keys=[plan.keys for plan in plans],
            keep=keep,
        )

    # --- telling the store ----------------------------------------------------------------------

    def settle(self) -> set[tuple[str, bytes]]:
        """Tell the store what has changed about rows that it has; call it once a step's rows are
        there, and at start. The (account, person) pairs whose events may have changed hands; when
        what depends on them is done, call `settled`."""
        dirty = self._people.dirty()
        changed = set()
        for one in dirty:
            for principal in one.principals:
                changed.add((one.account, self.book.person(principal)))
                if one.subject == CLASSES:
                    changed.add((one.account, principal))
        classes = {one for each in dirty if each.subject == CLASSES for one in each.principals}
        if classes:
            self._store.write_aliases([(one, self.book.person(one)) for one in sorted(classes)])
        subjects = [one.subject for one in dirty if one.subject != CLASSES]
        if subjects:
            self._store.write_attributions(
                [(subject, self._subjects.pieces(subject)) for subject in subjects]
            )
        merges = self._people.unsent_merges()
        if merges:
            self._store.write_merges(merges)
        self._settling = ([one.subject for one in dirty], [one.merge_id for one in merges])
        return changed

    _settling: tuple[list[bytes], list[bytes]] = ([], [])

    def settled(self) -> None:
        """All that followed from the last `settle` is durable."""
        subjects, merges = self._settling
        if subjects or merges:
            with self._people.transaction():
                self._people.clean(subjects)
                self._people.merges_sent(merges)
        self._settling = ([], [])

    # --- looking again --------------------------------------------------------------------------

    def recheck(self, account: str, ids: Collection[bytes]) -> None:
        """Conclude anew about some keys from what is stored: after a replay has changed rows that
        carry them, a withdrawal, an erasure. Follow it with `settle`."""
        try:
            with self._people.transaction():
                keys = self.book.get(ids)
                owned = [key for key in keys.values() if key.kind in (WEAK, BROWSER, BOUND)]
                owned.sort(key=lambda key: key.kind == BOUND)
                found = self._stored_assertions(account, owned) if owned else {}
                for key in owned:
                    self._set(key, found[key.id])
                users = [key for key in keys.values() if key.kind == STRONG]
                self._classes.recheck(account, users)
                self._groups.recheck(account, list(keys.values()))
                self.book.write()
            self.book.written()
        except BaseException:
            self.forget()
            raise

    def withdraw(self, one: bytes, other: bytes, *, at: int) -> None:
        """Withdraw a pair of keys: no event asserts it, as of `at` (microseconds), until it is
        allowed again. Follow it with `settle`."""
        self._set_withdrawn(one, other, at)

    def allow(self, one: bytes, other: bytes) -> None:
        """Take a withdrawal back. Follow it with `settle`."""
        self._set_withdrawn(one, other, None)

    def _set_withdrawn(self, one: bytes, other: bytes, at: int | None) -> None:
        keys = self.book.get([one, other])
        with self._people.transaction():
            self._people.set_withdrawn(one, other, at is not None)
            self.book.mark_merge(one, other, at)
        self.forget()
        for account in {key.account for key in keys.values()}:
            self.recheck(account, [one, other])
        self.forget()


def _assertions(plan: Plan, order: bytes, event_id: bytes, found: _Pending) -> None:
    """All that an event asserts about the keys it carries."""
    if plan.orbee:
        return
    for key in plan.weak:
        owner = plan.strong or (plan.lookup if key.kind == BROWSER else None)
        if owner is not None:
            generic = plan.strong is None
            found.setdefault(key.id, []).append(_Assertion(order, owner.id, generic, event_id))
    if plan.weak:
        for key in plan.bound:
            found.setdefault(key.id, []).append(_Assertion(order, plan.weak[0].id, False, event_id))


def _continues(key: Key, assertions: Sequence[_Assertion]) -> bool:
    """Whether assertions only say earlier what the single piece of a key says already: then its
    history need not be read."""
    if len(key.pieces) != 1 or key.kind == BROWSER:
        return False
    return all(one.owner == key.pieces[0][1] for one in assertions)


def _is_buried(row: Who, plan: Plan) -> bool:
    """Whether a row was journaled before one of its keys was erased."""
    return any(
        key.grave is not None and row.batch <= key.grave.upto.get(row.writer, 0)
        for key in plan.members
    )
