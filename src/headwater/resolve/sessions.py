"""Sessions of dialects that name none: VAIX, Orbee and Gamooga (identity, section 4).

All events of one person in one (account, dialect, scope), by order: a gap of more than `idle`
begins a new session. That is a pure function of the stored events; what makes it hard is that they
come late, out of order, and change hands. A session's id stands for its first event, so that it
stays the same when its person turns out to be somebody else.

Theory of operation. Remembered of each person is the last session: its first event, and the time
of its last one. Most events continue it or come more than `idle` after it, and nothing that comes
later in order can change what was said of them. What is neither, an event before the last session's
first, is answered as well as can be, and its person is *in doubt*: noted on disk before the event
is stored. So is a person whose events have changed hands. Then `settle`, once the rows are stored,
reads all events of those in doubt from the store, cuts them into sessions anew, and writes for
those who are shown anything else a row of sessions that overrides theirs. It leaves the loaded rows
alone.

An override covers the stretch from a person's first session to where the last one can no longer be
continued; what comes after that has the session that it was loaded with. Within the stretch no
event can come that is not answered alike by both: it is late, or it continues the last session.
Somebody whose events have all gone to others may still have one, so that his next event is in doubt
(VACATED).

What survives a kill -9. The end of a session on disk is behind the true one by at most a bound
(_SLACK); an event for which that decides puts its person in doubt. States are written by `settle`,
after the rows and before the watermark. So after a kill they are those of the last watermark or
newer, and all rows behind it come again: at worst they are late. Rows of a step that was cut short
may stand in the store with sessions that a repetition of the step, together with other rows, would
not give them: their persons are handed to `settle` as changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from typing import Protocol

import msgspec

from headwater import limits
from headwater.resolve.evidence import Moment, Resession
from headwater.resolve.keys import NOBODY, id_of, time_of
from headwater.resolve.sqlite_sessions import VACATED, Doubt, SqliteSessions, State

DERIVED = frozenset({"vaix", "orbee", "gamooga"})
#: By how much the end on disk may be behind. The shortest idle time that can be configured.
_SLACK = 60_000_000
_NEVER = 2**63
_CONTEXT_BYTES = 8

#: An account, and the id of a person in it.
Person = tuple[str, bytes]


class Occasion(msgspec.Struct, frozen=True, gc=False):
    """An event that is about to be stored. `ordered_at` in microseconds, `order` see ``evidence``;
    `person` None: nobody's."""

    account: str
    dialect: str
    scope: str
    person: bytes | None
    ordered_at: int
    order: bytes


class StoredSessions(Protocol):
    """What the store is asked for and told (``store/people.py``). Methods raise StoreError."""

    def moments(self, account: str, persons: Sequence[bytes]) -> Iterable[Moment]:
        """All stored events of derived dialects of these persons, as a reader sees them; those of
        one person, dialect and scope by order."""
        ...

    def write_resessions(self, rows: Sequence[Resession]) -> None:
        """Override; durable and visible on return. A person's row replaces the one before."""
        ...


class _Last:
    """The last session of a person in one scope. `end` may be behind the true one, which is at most
    `maybe`. Up to `soon` an event needs no write."""

    __slots__ = ("end", "id", "key", "maybe", "soon", "start", "start_at", "touched")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.id = b""
        self.start = b""
        self.start_at = _NEVER
        self.end = self.maybe = self.soon = -_NEVER
        self.touched = True

    def begin(self, id: bytes, start: bytes, end: int, maybe: int) -> None:
        self.id = id
        self.start = start
        self.start_at = time_of(start)
        self.end = end
        self.maybe = maybe
        self.soon = end + _SLACK


class DerivedSessions:
    """For each step of the loader: `assign`, then the rows are stored, then `settle`, then the
    watermark; `abandon` when the rows could not be stored. One thread does that; `doubt` may be
    called from any. Methods raise RegistryFailed."""

    def __init__(
        self, remembered: SqliteSessions, store: StoredSessions, *, idle_minutes: int
    ) -> None:
        self._remembered = remembered
        self._store = store
        self._idle = idle_minutes * 60_000_000
        assert self._idle >= _SLACK
        self._lock = threading.Lock()
        self._lasts: dict[bytes, _Last] = {}
        self._changed: dict[bytes, _Last] = {}
        self._assigned = False  # and not settled
        self._waiting = True  # somebody may be in doubt
        self._contexts: dict[tuple[str, str, str], bytes] = {}

    @property
    def waiting(self) -> bool:
        """Whether `catch_up` may have something to do."""
        return self._waiting

    # --- before the rows are stored -------------------------------------------------------------

    def assign(self, rows: Sequence[Occasion]) -> list[bytes | None]:
        """The session of each event, as far as is known; None for nobody's and for dialects whose
        clients name theirs. First copies only, in any order. When the call before was not settled,
        it is abandoned."""
        self.abandon()
        self._assigned = True
        lasts = self._lasts_of(rows)
        doubted: set[Person] = set()
        found: list[bytes | None] = [None] * len(rows)
        orders = [row.order for row in rows]
        for place in sorted(range(len(rows)), key=orders.__getitem__):
            last = lasts[place]
            if last is not None:
                row = rows[place]
                at = row.ordered_at
                if last.start_at < at <= last.soon:
                    if at > last.end:
                        last.end = at
                    last.touched = True
                    found[place] = last.id
                else:
                    found[place] = self._turn(last, row, doubted)
        if doubted:
            self.doubt(doubted)
        return found

    def abandon(self) -> None:
        """Forget what `assign` said and was not settled: the rows are not stored, and come again.
        What they belong to may be known better by then."""
        if self._assigned:
            self._assigned = False
            self._lasts.clear()
            self._changed.clear()

    def _lasts_of(self, rows: Sequence[Occasion]) -> list[_Last | None]:
        """What is remembered for each row, from disk where it has to be."""
        known, contexts = self._lasts, self._contexts
        lasts: list[_Last | None] = []
        missing: list[bytes] = []
        for row in rows:
            person = row.person
            if person is None or row.dialect not in DERIVED:
                lasts.append(None)
                continue
            context = contexts.get((row.account, row.dialect, row.scope))
            if context is None:
                context = self._context(row.account, row.dialect, row.scope)
            key = person + context
            last = known.get(key)
            if last is None:
                last = known[key] = _Last(key)
                missing.append(key)
            lasts.append(last)
        if missing:
            of_key = {key: (start, end) for key, start, end in self._remembered.load(missing)}
            for row, last in zip(rows, lasts, strict=True):
                if last is not None and not last.id and last.key in of_key:
                    start, end = of_key[last.key]
                    last.begin(
                        _id(row.account, row.dialect, row.scope, start), start, end, end + _SLACK
                    )
                    if start == VACATED:
                        last.end = last.soon = -_NEVER  # nothing to continue
        return lasts

    def _turn(self, last: _Last, row: Occasion, doubted: set[Person]) -> bytes:
        """The session of an event that is not plainly within the last one."""
        at = row.ordered_at
        if last.id:
            assert row.person is not None
            if row.order < last.start:
                doubted.add((row.account, row.person))
                if at >= last.start_at - self._idle:
                    return last.id
                return _id(row.account, row.dialect, row.scope, row.order)
            if at <= last.end + self._idle:
                last.end = max(last.end, at)
                last.touched = True
                if at > last.soon:
                    last.soon = at + _SLACK
                    self._changed[last.key] = last
                return last.id
            if at <= last.maybe + self._idle:
                doubted.add((row.account, row.person))
        last.begin(_id(row.account, row.dialect, row.scope, row.order), row.order, at, at)
        self._changed[last.key] = last
        return last.id

    def doubt(self, persons: Collection[Person]) -> None:
        """Note, durably, that the sessions of these persons are to be looked at: their events have
        changed hands or been rewritten, or are about to be. `settle` or `catch_up` does it."""
        if persons:
            self._remembered.save((), persons)
            self._waiting = True

    # --- once they are --------------------------------------------------------------------------

    def settle(self, changed: Collection[Person] = ()) -> None:
        """Remember what `assign` said, and put right the sessions of everybody in doubt. `changed`:
        whose attribution changed, and whose rows in this step were in the store already. Raises
        StoreError."""
        lasts = self._changed
        self._remembered.save(
            [(last.key, last.start, last.end) for last in lasts.values()], changed
        )
        for last in lasts.values():
            last.soon = last.end + _SLACK
        self._changed = {}
        self._assigned = False
        if changed:
            self._waiting = True
        self._evict()
        self.catch_up()

    def catch_up(self) -> None:
        """Put right the sessions of those in doubt, for about `session_settle_seconds_max`. Not
        between `assign` and `settle`. Raises StoreError."""
        if not self._waiting:
            return
        until = time.monotonic() + limits.session_settle_seconds_max
        with self._lock:
            while True:
                self._waiting = False  # `doubt` may set it from here on
                doubts = self._remembered.doubts(limits.session_persons_max)
                try:
                    if doubts:
                        self._put_right(doubts)
                except BaseException:
                    self._waiting = True
                    raise
                if len(doubts) < limits.session_persons_max:
                    return
                if time.monotonic() > until:
                    self._waiting = True
                    return

    def _put_right(self, doubts: Sequence[Doubt]) -> None:
        persons: dict[str, list[bytes]] = {}
        for account, person, _ in doubts:
            persons.setdefault(account, []).append(person)
        lasts: list[_Last] = []
        for account, of_account in persons.items():
            cuts: dict[tuple[bytes, str, str], _Cut] = {}
            for moment in self._store.moments(account, of_account):
                key = (moment.person, moment.dialect, moment.scope)
                cut = cuts.get(key)
                if cut is None:
                    cut = cuts[key] = _Cut(account, moment, self._idle)
                cut.add(moment)
            self._store.write_resessions([one.override() for one in cuts.values() if one.differs])
            lasts += [
                one.last(person + self._context(account, dialect, scope))
                for (person, dialect, scope), one in cuts.items()
            ]
        states: list[State] = [(last.key, last.start, last.end) for last in lasts]
        for gone in self._remembered.replace(doubts, states):
            self._lasts.pop(gone, None)
        for last in lasts:
            self._lasts[last.key] = last

    # --- memory ---------------------------------------------------------------------------------

    def forget(self, before: int) -> None:
        """Forget some whose last event was before a time (microseconds), after which no event can
        come that continues or precedes it: the loader's watermark less 31 days, and less what a
        replay can reach."""
        self._remembered.forget(before)

    def _context(self, account: str, dialect: str, scope: str) -> bytes:
        """What tells a person's sessions of one dialect and scope from those of others."""
        key = (account, dialect, scope)
        found = self._contexts.get(key)
        if found is None:
            if len(self._contexts) >= limits.sessions_remembered_max:
                self._contexts.clear()
            text = "\0".join(key).encode("utf-8", "surrogatepass")
            found = self._contexts[key] = blake2b(text, digest_size=_CONTEXT_BYTES).digest()
        return found

    def _evict(self) -> None:
        """Let go of those that were not asked for since the last time round."""
        lasts = self._lasts
        surplus = len(lasts) - limits.sessions_remembered_max
        if surplus <= 0:
            return
        surplus += limits.sessions_remembered_max // 8
        for last in list(lasts.values()):
            del lasts[last.key]
            if last.touched:
                last.touched = False
                lasts[last.key] = last
            else:
                surplus -= 1
                if not surplus:
                    return


class _Cut:
    """Cuts one person's events in one scope, which come in order, into sessions."""

    def __init__(self, account: str, first: Moment, idle: int) -> None:
        self.differs = False
        self._account = account
        self._first = first
        self._idle = idle
        self._bounds: list[int] = []
        self._sessions: list[bytes] = []
        self._start = b""
        self._id = b""
        self._end = -_NEVER

    def add(self, moment: Moment) -> None:
        at = moment.ordered_at
        if not self._id or at > self._end + self._idle:
            self._start = moment.order
            self._id = _id(self._account, moment.dialect, moment.scope, moment.order)
            self._bounds.append(at)
            self._sessions.append(self._id)
        assert at >= self._end
        self._end = at
        if moment.session_id != self._id:
            self.differs = True

    def override(self) -> Resession:
        first = self._first
        return Resession(
            self._account,
            first.dialect,
            first.scope,
            first.person,
            [*self._bounds, self._end + self._idle + 1],
            [*self._sessions, NOBODY],
        )

    def last(self, key: bytes) -> _Last:
        last = _Last(key)
        last.begin(self._id, self._start, self._end, self._end)
        return last


def _id(account: str, dialect: str, scope: str, start: bytes) -> bytes:
    """The id of the session that begins with the event of this order."""
    return id_of("\0".join((account, dialect, scope)).encode("utf-8", "surrogatepass") + start)
